//! One stream of a show's events for all who watch it: what comes of it goes to each of them.
//!
//! A watcher begins with a stream of its own, so that what it hears first is the service's to say, and comes here
//! when it has heard as much as the others: from then on it hears the same.
//!
//! Invariant: who comes at position `seq` gets every event after it, in order, none twice. Who does not keep up is
//! let go, not waited for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::mpsc;

pub type Watcher = mpsc::Sender<Result<Bytes, std::io::Error>>;

/// Events that are kept for those who come, and their bytes.
const KEPT: usize = 64;
const KEPT_BYTES: usize = 256 * 1024;

/// The streams that are shared now, by what was asked for.
#[derive(Debug)]
pub struct SharedStreams {
    streams: Mutex<HashMap<String, Arc<Stream>>>,
    watchers: IntGauge,
    dropped: IntCounter,
}

/// What became of one who came.
pub enum Joined {
    /// It hears the others' stream now.
    With,
    /// It is the first: its own stream is the others' from now on.
    First(Feeding),
    /// It has not heard what the others have, or too little. It may come again.
    NotYet,
}

impl SharedStreams {
    /// Counts those who hear a shared stream, and those who did not keep up with one.
    pub fn counting(watchers: IntGauge, dropped: IntCounter) -> Self {
        Self { streams: Mutex::default(), watchers, dropped }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Stream>>> {
        self.streams.lock().expect("no code panics while holding it")
    }

    /// `seq` is the number of the last event that the watcher has heard. `may_feed`: its own stream has said so,
    /// and not the client.
    pub fn join(self: &Arc<Self>, asked: &str, seq: u64, may_feed: bool, watcher: &Watcher) -> Joined {
        let mut streams = self.lock();
        if let Some(stream) = streams.get(asked) {
            return if stream.take(seq, watcher) { Joined::With } else { Joined::NotYet };
        }
        if !may_feed {
            return Joined::NotYet;
        }
        let stream = Arc::new(Stream { state: Mutex::new(State::at(seq)), watchers: self.watchers.clone() });
        stream.take(seq, watcher);
        streams.insert(asked.to_owned(), stream.clone());
        Joined::First(Feeding { shared: self.clone(), asked: asked.to_owned(), stream })
    }
}

#[derive(Debug)]
struct State {
    /// The last event's number.
    seq: u64,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    watchers: Vec<Watcher>,
}

/// An event, and after which one it came.
#[derive(Debug)]
struct Kept {
    after: u64,
    seq: u64,
    bytes: Bytes,
}

#[derive(Debug)]
struct Stream {
    state: Mutex<State>,
    watchers: IntGauge,
}

impl Stream {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while holding it")
    }

    fn take(&self, seq: u64, watcher: &Watcher) -> bool {
        let mut state = self.lock();
        let Some(missed) = state.after(seq) else { return false };
        // Without room for it the watcher hears it from its own stream, and comes again.
        if !missed.is_empty() && watcher.try_send(Ok(missed)).is_err() {
            return false;
        }
        state.watchers.push(watcher.clone());
        self.watchers.inc();
        true
    }

    fn count_gone(&self, how_many: usize) {
        self.watchers.sub(i64::try_from(how_many).unwrap_or(i64::MAX));
    }
}

impl State {
    fn at(seq: u64) -> Self {
        Self { seq, kept: VecDeque::new(), kept_bytes: 0, watchers: Vec::new() }
    }

    /// The events after `seq`, in one piece. None: what they are is not known here.
    fn after(&self, seq: u64) -> Option<Bytes> {
        if seq == self.seq {
            return Some(Bytes::new());
        }
        let missed = self.kept.iter().skip_while(|event| event.seq <= seq);
        let first = missed.clone().next().filter(|event| event.after <= seq)?;
        let mut bytes = Vec::with_capacity(first.bytes.len());
        for event in missed {
            bytes.extend_from_slice(&event.bytes);
        }
        Some(bytes.into())
    }

    fn keep(&mut self, seq: u64, bytes: Bytes) {
        self.kept_bytes += bytes.len();
        self.kept.push_back(Kept { after: self.seq, seq, bytes });
        self.seq = seq;
        while self.kept.len() > KEPT || self.kept_bytes > KEPT_BYTES {
            self.kept_bytes -= self.kept.pop_front().map_or(0, |event| event.bytes.len());
        }
    }
}

/// The side from which a shared stream is fed; when it goes, the stream ends for all.
pub struct Feeding {
    shared: Arc<SharedStreams>,
    asked: String,
    stream: Arc<Stream>,
}

impl Feeding {
    /// Whole events, with the number of each that has one.
    pub fn pass(&self, events: &[(Option<u64>, Bytes)], all: &Bytes) {
        let mut state = self.stream.lock();
        for (seq, bytes) in events {
            if let Some(seq) = seq {
                state.keep(*seq, bytes.clone());
            }
        }
        let before = state.watchers.len();
        state.watchers.retain(|watcher| {
            let sent = watcher.try_send(Ok(all.clone()));
            if matches!(sent, Err(mpsc::error::TrySendError::Full(_))) {
                self.shared.dropped.inc();
            }
            sent.is_ok()
        });
        self.stream.count_gone(before - state.watchers.len());
    }

    /// Whether all who watched have gone. Then nobody comes any more either.
    pub fn is_deserted(&self) -> bool {
        let mut streams = self.shared.lock();
        let mut state = self.stream.lock();
        let before = state.watchers.len();
        state.watchers.retain(|watcher| !watcher.is_closed());
        self.stream.count_gone(before - state.watchers.len());
        let deserted = state.watchers.is_empty();
        if deserted {
            self.close(&mut streams);
        }
        deserted
    }

    fn close(&self, streams: &mut HashMap<String, Arc<Stream>>) {
        if streams.get(&self.asked).is_some_and(|stream| Arc::ptr_eq(stream, &self.stream)) {
            streams.remove(&self.asked);
        }
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        self.close(&mut self.shared.lock());
        let watchers = std::mem::take(&mut self.stream.lock().watchers);
        self.stream.count_gone(watchers.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Arc<SharedStreams> {
        let gauge = prometheus::IntGauge::new("watchers", "watchers").unwrap();
        let dropped = prometheus::IntCounter::new("dropped", "dropped").unwrap();
        SharedStreams::counting(gauge, dropped).into()
    }

    fn events(seqs: &[u64]) -> (Vec<(Option<u64>, Bytes)>, Bytes) {
        let of = |seq: &u64| Bytes::from(format!("{seq} "));
        let all = seqs.iter().flat_map(|seq| of(seq).to_vec()).collect::<Vec<u8>>();
        (seqs.iter().map(|seq| (Some(*seq), of(seq))).collect(), all.into())
    }

    fn pass(feeding: &Feeding, seqs: &[u64]) {
        let (each, all) = events(seqs);
        feeding.pass(&each, &all);
    }

    fn heard(watcher: &mut mpsc::Receiver<Result<Bytes, std::io::Error>>) -> String {
        let mut all = String::new();
        while let Ok(bytes) = watcher.try_recv() {
            all.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
        }
        all
    }

    #[test]
    fn each_hears_what_comes_after_its_own_place() {
        let shared = shared();
        let (one, mut first) = mpsc::channel(9);
        let (two, mut second) = mpsc::channel(9);
        assert!(matches!(shared.join("a", 5, false, &one), Joined::NotYet), "a client's word is none");
        let Joined::First(feeding) = shared.join("a", 5, true, &one) else { panic!("nobody is there") };
        // Ahead of the others, and of what this one has seen.
        assert!(matches!(shared.join("a", 6, true, &two), Joined::NotYet));
        assert!(matches!(shared.join("a", 4, true, &two), Joined::NotYet));
        pass(&feeding, &[6, 9]);
        pass(&feeding, &[10]);
        assert_eq!(heard(&mut first), "6 9 10 ");
        // In between what was told together: what comes next tells it all.
        assert!(matches!(shared.join("a", 7, true, &two), Joined::With));
        pass(&feeding, &[11]);
        assert_eq!((heard(&mut first), heard(&mut second)), ("11 ".into(), "9 10 11 ".into()));
        // Another question is another stream.
        let (three, _kept) = mpsc::channel(9);
        assert!(matches!(shared.join("b", 11, true, &three), Joined::First(_)));
        drop((feeding, one, two));
        assert!(first.try_recv().is_err_and(|e| e == mpsc::error::TryRecvError::Disconnected));
    }

    #[test]
    fn who_does_not_keep_up_is_let_go_and_a_deserted_stream_takes_nobody() {
        let shared = shared();
        let (slow, mut first) = mpsc::channel(2);
        let (quick, mut second) = mpsc::channel(9);
        let Joined::First(feeding) = shared.join("a", 0, true, &slow) else { panic!("nobody is there") };
        assert!(matches!(shared.join("a", 0, true, &quick), Joined::With));
        drop(slow);
        for seq in 1..=4 {
            pass(&feeding, &[seq]);
        }
        assert_eq!((heard(&mut first), heard(&mut second)), ("1 2 ".into(), "1 2 3 4 ".into()));
        assert!(first.try_recv().is_err_and(|e| e == mpsc::error::TryRecvError::Disconnected));
        assert_eq!(shared.watchers.get(), 1);
        assert!(!feeding.is_deserted());
        drop(second);
        assert!(feeding.is_deserted());
        assert_eq!((shared.watchers.get(), shared.dropped.get()), (0, 1));
        let Joined::First(_next) = shared.join("a", 4, true, &quick) else { panic!("it has gone") };
        drop(feeding);
        assert!(shared.lock().contains_key("a"), "the next is not taken for the one before");
    }

    #[test]
    fn only_so_much_is_kept() {
        let shared = shared();
        let (one, _kept) = mpsc::channel(1000);
        let Joined::First(feeding) = shared.join("a", 0, true, &one) else { panic!("nobody is there") };
        for seq in 1..=100 {
            pass(&feeding, &[seq]);
        }
        let (late, mut heard_late) = mpsc::channel(9);
        assert!(matches!(shared.join("a", 35, true, &late), Joined::NotYet));
        assert!(matches!(shared.join("a", 36, true, &late), Joined::With));
        assert!(heard(&mut heard_late).starts_with("37 38 "));
        feeding.pass(&[(Some(200), Bytes::from(vec![0; KEPT_BYTES + 1]))], &Bytes::new());
        assert!(matches!(shared.join("a", 100, true, &late), Joined::NotYet), "too much to keep");
        assert!(matches!(shared.join("a", 200, true, &late), Joined::With));
    }
}
