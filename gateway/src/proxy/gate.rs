//! How many requests may be with one process at once, and who of those that wait goes first.
//!
//! Waiting is judged by its time, not by the number of those who wait (CoDel, RFC 8289): a queue that
//! empties now and then is a burst and is waited out; one that has stood for an interval is overload, and
//! then requests are refused after a short wait and the newest go first, since the oldest are about to be
//! given up by their callers. Lanes come before all that: selling goes before reading.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Who goes first, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Selling,
    Staff,
    Writing,
    Reading,
    Reporting,
}

impl Lane {
    pub const ALL: [Self; 5] = [Self::Selling, Self::Staff, Self::Writing, Self::Reading, Self::Reporting];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Selling => "selling",
            Self::Staff => "staff",
            Self::Writing => "writing",
            Self::Reading => "reading",
            Self::Reporting => "reporting",
        }
    }
}

/// A queue that has not been empty for so long is overload.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long one may wait in a burst.
const PATIENCE: Duration = Duration::from_millis(500);
/// The same under overload.
const TARGET: Duration = Duration::from_millis(25);
const TARGET_SELLING: Duration = Duration::from_millis(250);
/// One in so many goes to the last lane that waits: going first must not be going alone.
const SHARE_OF_THE_LAST: u32 = 16;

#[derive(Debug)]
struct State {
    inside: usize,
    lanes: [VecDeque<oneshot::Sender<()>>; 5],
    /// Since when somebody has always been waiting.
    standing_since: Option<Instant>,
    passed: u32,
    /// How many in the lanes have given up, at most.
    gone: usize,
}

#[derive(Debug)]
pub struct Gate {
    room: usize,
    state: Mutex<State>,
}

/// A place at the process; given up when dropped.
#[derive(Debug)]
pub struct Pass<'a>(&'a Gate);

/// Nothing was sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Shed;

impl Gate {
    pub fn new(room: usize) -> Self {
        let state = State { inside: 0, lanes: Default::default(), standing_since: None, passed: 0, gone: 0 };
        Self { room: room.max(1), state: Mutex::new(state) }
    }

    pub async fn enter(&self, lane: Lane, deadline: Instant) -> Result<Pass<'_>, Shed> {
        let (turn, patience) = {
            let mut state = self.lock();
            if state.inside < self.room && state.is_idle() {
                state.inside += 1;
                return Ok(Pass(self));
            }
            let now = Instant::now();
            let since = *state.standing_since.get_or_insert(now);
            let patience = match (now - since > INTERVAL, lane) {
                (false, _) => PATIENCE,
                (true, Lane::Selling) => TARGET_SELLING,
                (true, _) => TARGET,
            };
            let (sender, turn) = oneshot::channel();
            state.lanes[lane as usize].push_back(sender);
            (turn, patience)
        };
        let mut waiting = Waiting { gate: self, turn, over: false };
        let until = deadline.min(Instant::now() + patience);
        let called = timeout_at(until, &mut waiting.turn).await;
        if called.is_ok_and(|turn| turn.is_ok()) {
            waiting.over = true;
            return Ok(Pass(self));
        }
        Err(Shed)
    }

    /// Calls the next in, or notes that nobody waits.
    fn next(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        let overloaded = state.standing_since.is_some_and(|since| now - since > INTERVAL);
        while let Some(sender) = state.pop(overloaded) {
            // One that has given up meanwhile is passed over.
            if sender.send(()).is_ok() {
                state.passed = state.passed.wrapping_add(1);
                return;
            }
        }
        state.inside -= 1;
        state.standing_since = None;
        state.gone = 0;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while holding it")
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// Those who gave up are passed over when their turn comes; only where they are many are they taken out.
    fn sweep(&mut self) {
        self.gone += 1;
        let waiting: usize = self.lanes.iter().map(VecDeque::len).sum();
        if self.gone > 64 && self.gone * 2 > waiting {
            for lane in &mut self.lanes {
                lane.retain(|sender| !sender.is_closed());
            }
            self.gone = 0;
        }
    }

    fn pop(&mut self, overloaded: bool) -> Option<oneshot::Sender<()>> {
        let last_first = self.passed % SHARE_OF_THE_LAST == SHARE_OF_THE_LAST - 1;
        let mut waiting = self.lanes.iter_mut().filter(|lane| !lane.is_empty());
        let lane = if last_first { waiting.next_back() } else { waiting.next() }?;
        if overloaded { lane.pop_back() } else { lane.pop_front() }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.next();
    }
}

/// One in the queue. If it goes away after it was called, its turn goes to the next.
struct Waiting<'a> {
    gate: &'a Gate,
    turn: oneshot::Receiver<()>,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.turn.close();
        if self.turn.try_recv().is_ok() {
            self.gate.next();
            return;
        }
        self.gate.lock().sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn selling_goes_first_and_the_last_lane_is_not_forgotten() {
        let gate = std::sync::Arc::new(Gate::new(1));
        let held = gate.enter(Lane::Reading, soon()).await.unwrap();
        let order = std::sync::Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for lane in [Lane::Reporting, Lane::Reading, Lane::Selling, Lane::Staff, Lane::Selling] {
            let (gate, order) = (gate.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let _pass = gate.enter(lane, soon()).await.unwrap();
                order.lock().unwrap().push(lane);
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        use Lane::{Reading, Reporting, Selling, Staff};
        assert_eq!(*order.lock().unwrap(), [Selling, Selling, Staff, Reading, Reporting]);
        gate.lock().passed = SHARE_OF_THE_LAST - 1;
        let mut state = gate.lock();
        let (first, _kept) = oneshot::channel();
        let (last, mut called) = oneshot::channel();
        state.lanes[Lane::Selling as usize].push_back(first);
        state.lanes[Lane::Reporting as usize].push_back(last);
        state.pop(false).unwrap().send(()).unwrap();
        assert!(called.try_recv().is_ok());
    }

    /// About so long; the machine may be busy, but less than the next longer wait takes.
    fn took(started: Instant, expected: Duration) -> bool {
        let slack = Duration::from_millis(200);
        (expected..expected + slack).contains(&started.elapsed())
    }

    #[tokio::test]
    async fn a_burst_is_waited_out_and_overload_is_refused_early() {
        let gate = std::sync::Arc::new(Gate::new(1));
        let held = gate.enter(Lane::Reading, soon()).await.unwrap();
        let started = Instant::now();
        assert_eq!(gate.enter(Lane::Reading, soon()).await.unwrap_err(), Shed);
        assert!(took(started, PATIENCE), "the first in a queue may be part of a burst");

        // It has stood: nobody was let in all the time.
        let started = Instant::now();
        assert_eq!(gate.enter(Lane::Reading, soon()).await.unwrap_err(), Shed);
        assert!(took(started, TARGET));
        let started = Instant::now();
        assert_eq!(gate.enter(Lane::Selling, soon()).await.unwrap_err(), Shed);
        assert!(took(started, TARGET_SELLING));
        // Nor does anyone wait beyond the caller's own deadline.
        let started = Instant::now();
        let at = started + Duration::from_millis(5);
        assert_eq!(gate.enter(Lane::Selling, at).await.unwrap_err(), Shed);
        assert!(took(started, Duration::from_millis(5)));

        drop(held);
        let again = gate.enter(Lane::Reading, soon()).await.unwrap();
        assert_eq!(gate.lock().standing_since, None, "it was empty");
        drop(again);
        let state = gate.lock();
        assert_eq!((state.inside, state.is_idle()), (0, true));
    }

    #[tokio::test]
    async fn one_that_leaves_gives_its_turn_on() {
        let gate = std::sync::Arc::new(Gate::new(1));
        let held = gate.enter(Lane::Reading, soon()).await.unwrap();
        let enter = |gate: std::sync::Arc<Gate>| async move {
            let _pass = gate.enter(Lane::Reading, soon()).await.unwrap();
        };
        let first = tokio::spawn(enter(gate.clone()));
        tokio::task::yield_now().await;
        let second = tokio::spawn(enter(gate.clone()));
        tokio::task::yield_now().await;
        drop(held);
        // Called, perhaps, and gone before it could enter.
        first.abort();
        let entered = tokio::time::timeout(Duration::from_secs(5), second).await;
        entered.expect("the turn is not lost").unwrap();
        assert_eq!(gate.lock().inside, 0);
    }
}
