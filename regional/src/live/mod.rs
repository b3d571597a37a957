//! The live seat map of one show in this process: what readers are answered and watchers hear, whether the
//! show is led here or only followed ([`crate::relay`]).
//!
//! Invariants: only committed changes; what a watcher hears never goes back, and every change of a seat is
//! followed by its state then or later. Nobody is waited for: what is told is written once for all watchers,
//! and who falls too far behind is let go.

#[cfg(test)]
mod tests;
mod version;
mod watch;
pub mod wire;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use common::ShowId;
use common::http::Conditions;
use http::Response;
use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio::time::sleep;

use crate::host::Proof;
use crate::metrics::Metrics;
use crate::relay::Publisher;
use crate::show::{Plan, SeatStatus, Show};

pub use version::{Coding, Form, Version};
pub use watch::{Watch, Watching};

/// How many events a watcher may be behind before it is let go.
const KEPT: usize = 64;

/// The least time between two events, which grows with the watchers: waking and writing to one costs some
/// ten microseconds, and events that come faster than they can be written would only queue.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_A_WATCHER: Duration = Duration::from_micros(10);

/// How often a silent stream says that it is alive, for proxies and clients.
const ALIVE: Duration = Duration::from_secs(15);

pub struct Live {
    pub show: ShowId,
    pub epoch: u64,
    plan: Arc<Plan>,
    /// The same as in the state, for readers of a rendered version.
    seq: AtomicU64,
    state: Mutex<State>,
    /// The last version that was asked for.
    version: ArcSwapOption<Version>,
    layout: version::LayoutCell,
    publisher: Publisher,
    /// That whoever tells of these changes leads.
    proof: Arc<Proof>,
    metrics: Metrics,
}

struct State {
    /// The last entry that changed a seat, or the first that is known here.
    seq: u64,
    at: Timestamp,
    seats: Vec<SeatStatus>,
    /// The entry that last changed each seat, counted from `since`; of those up to there nothing is known.
    changed: Box<[u32]>,
    since: u64,
    /// What watchers have been told of.
    told: u64,
    events: Option<broadcast::Sender<Event>>,
    /// A task tells the changes; another the beats.
    telling: bool,
    beating: bool,
    ended: bool,
}

/// What goes out to all watchers.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The entry up to which it tells; a beat tells nothing.
    upto: u64,
    bytes: Bytes,
}

/// The seats that changed after entry `after`, as they are after entry `seq`.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    pub after: u64,
    pub seq: u64,
    pub at: Timestamp,
    pub seats: Vec<(u32, SeatStatus)>,
}

impl Live {
    /// Begins with a state; who has seen everything up to `since` goes on from there without a break.
    /// `proof`: that this is where the show is led; of one that is only followed it never comes.
    pub fn new(
        epoch: u64,
        since: u64,
        show: &Show,
        publisher: Publisher,
        proof: Arc<Proof>,
        metrics: Metrics,
    ) -> Arc<Self> {
        let seats: Vec<SeatStatus> = show.seats.iter().map(|seat| seat.status()).collect();
        let state = State {
            seq: show.seq,
            at: show.last_at,
            changed: vec![0; seats.len()].into(),
            seats,
            since,
            told: show.seq,
            events: None,
            telling: false,
            beating: false,
            ended: false,
        };
        Arc::new(Self {
            show: show.plan.facts.show,
            epoch,
            plan: show.plan.clone(),
            seq: AtomicU64::new(show.seq),
            state: Mutex::new(state),
            version: ArcSwapOption::empty(),
            layout: version::LayoutCell::default(),
            publisher,
            proof,
            metrics,
        })
    }

    /// Takes over the committed state, and tells what it changed, if anything.
    pub fn publish(self: &Arc<Self>, show: &Show) {
        let changes = show.seats.iter().map(|seat| seat.status()).enumerate();
        self.change(show.seq, show.last_at, changes);
    }

    /// Takes over what another process tells; false where something before it is missing here.
    pub fn apply(self: &Arc<Self>, delta: &Delta) -> bool {
        if delta.after > self.seq() {
            return false;
        }
        self.change(delta.seq, delta.at, delta.seats.iter().map(|(seat, status)| (*seat as usize, *status)));
        true
    }

    fn change(self: &Arc<Self>, seq: u64, at: Timestamp, seats: impl Iterator<Item = (usize, SeatStatus)>) {
        let mut state = self.state();
        if seq <= state.seq {
            return;
        }
        let mut any = false;
        for (seat, status) in seats {
            if let Some(present) = state.seats.get_mut(seat)
                && *present != status
            {
                *present = status;
                state.changed[seat] = u32::try_from(seq.saturating_sub(state.since)).unwrap_or(u32::MAX);
                any = true;
            }
        }
        if !any {
            return;
        }
        (state.seq, state.at) = (seq, at);
        self.seq.store(seq, Ordering::Release);
        // A version that nobody may ask for again would only take room.
        self.version.store(None);
        let heard = state.events.is_some() || self.publisher.is_wanted();
        if !heard {
            state.told = seq;
        } else if !state.telling && !state.ended {
            state.telling = true;
            tokio::spawn(tell(self.clone()));
        }
    }

    /// Waits until it is proven that what is shown here is the latest, if that can be.
    pub async fn prove(&self) {
        if let Err(why) = self.proof.now().await {
            tracing::debug!(show = %self.show, %why, "read as it is known here");
        }
    }

    /// The last entry that changed a seat.
    pub fn seq(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }

    /// The present version, ready to be rendered; the same one until a seat changes.
    pub fn version(&self) -> Arc<Version> {
        let seq = self.seq();
        match &*self.version.load() {
            Some(version) if version.seq == seq => version.clone(),
            _ => self.version_of(&self.state()),
        }
    }

    /// The answer to a read of the present version, where nothing must be rendered for it.
    pub fn ready(&self, form: Form, coding: Coding, conditions: &Conditions) -> Option<Response<Bytes>> {
        let version = self.version.load();
        let version = version.as_ref().filter(|version| version.seq == self.seq())?;
        version.ready(self, form, coding, conditions)
    }

    fn version_of(&self, state: &State) -> Arc<Version> {
        if let Some(version) = &*self.version.load()
            && version.seq == state.seq
        {
            return version.clone();
        }
        let version = Arc::new(Version::new(self, state.seq, state.at, state.seats.clone()));
        self.version.store(Some(version.clone()));
        version
    }

    /// Every seat's status, in the plan's order.
    #[cfg(test)]
    pub fn statuses(&self) -> Vec<SeatStatus> {
        self.state().seats.clone()
    }

    pub fn watchers(&self) -> usize {
        self.state().events.as_ref().map_or(0, broadcast::Sender::receiver_count)
    }

    /// How the processes that follow are told.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// Ends every watcher's stream; they come back and find who tells of the show then.
    pub fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.events = None;
    }

    /// Sends what changed since the last time to all who listen.
    fn tell_now(&self) {
        let (delta, events) = {
            let mut state = self.state();
            if state.seq == state.told {
                return;
            }
            let delta = state.since(state.told);
            state.told = state.seq;
            (delta, state.events.clone())
        };
        self.publisher.publish(&delta);
        // Outside the lock: waking ten thousand takes milliseconds, and a booking is not to wait for it.
        if let Some(events) = events {
            self.metrics.seat_events.inc();
            let bytes = wire::change_event(self.show, self.epoch, &self.plan, &delta);
            let _ = events.send(Event { upto: delta.seq, bytes });
        }
    }

    /// How long to wait before the next event.
    fn pause(&self) -> Duration {
        let watchers = u32::try_from(self.watchers()).unwrap_or(u32::MAX);
        PAUSE.max(PAUSE_A_WATCHER.saturating_mul(watchers))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while holding it")
    }
}

impl State {
    /// The seats changed after an entry.
    fn since(&self, after: u64) -> Delta {
        let seats = (0..).zip(self.changed.iter().zip(&self.seats));
        let after_since = after.saturating_sub(self.since);
        let seats = seats
            .filter(|(_, (at, _))| u64::from(**at) > after_since)
            .map(|(seat, (_, status))| (seat, *status));
        Delta { after, seq: self.seq, at: self.at, seats: seats.collect() }
    }
}

/// Tells changes until there are none; begun by the first one.
async fn tell(live: Arc<Live>) {
    loop {
        live.tell_now();
        sleep(live.pause()).await;
        let mut state = live.state();
        if state.seq == state.told || state.ended {
            state.telling = false;
            return;
        }
    }
}

/// One timer for all watchers of a show; ends with the last of them.
async fn beat(live: Arc<Live>) {
    loop {
        sleep(ALIVE).await;
        let events = {
            let mut state = live.state();
            match &state.events {
                Some(events) if events.receiver_count() > 0 => events.clone(),
                _ => {
                    (state.beating, state.events) = (false, None);
                    return;
                }
            }
        };
        let _ = events.send(Event { upto: u64::MAX, bytes: Bytes::from_static(b":\n\n") });
    }
}
