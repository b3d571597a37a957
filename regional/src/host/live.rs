//! What watchers of a seat map hear: the seats that each committed entry changed, written once for all of
//! them, and the last of these kept for those who come back.
//!
//! Invariant: only committed changes; a watcher hears every one in order, or is told to begin anew.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use common::ShowId;
use serde::Serialize;
use tokio::sync::broadcast;
use utoipa::ToSchema;

use crate::show::{SeatStatus, Show};

/// Changes kept for watchers that come back, and how far a slow one may fall behind before it is dropped.
const KEPT: usize = 256;

/// The seats that one entry changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct SeatChange<'a> {
    pub show_id: ShowId,
    pub epoch: u64,
    pub seq: u64,
    pub seats: Vec<ChangedSeat<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChangedSeat<'a> {
    #[schema(example = "A1")]
    pub seat: &'a str,
    pub status: SeatStatus,
}

/// A change as it goes out.
#[derive(Debug)]
pub struct Change {
    pub seq: u64,
    /// A [`SeatChange`] in JSON.
    pub json: String,
}

pub struct Live {
    epoch: u64,
    sender: broadcast::Sender<Arc<Change>>,
    /// Every change after `since`, oldest first.
    kept: Mutex<Kept>,
}

struct Kept {
    since: u64,
    changes: VecDeque<Arc<Change>>,
}

/// Where a watcher goes on.
pub struct Watch {
    pub missed: Vec<Arc<Change>>,
    pub next: broadcast::Receiver<Arc<Change>>,
}

impl Live {
    /// Begins with the state after entry `seq`.
    pub fn new(epoch: u64, seq: u64) -> Self {
        let kept = Mutex::new(Kept { since: seq, changes: VecDeque::new() });
        Self { epoch, sender: broadcast::Sender::new(KEPT), kept }
    }

    /// Tells what changed from `before` to `show`, if anything did.
    pub fn publish(&self, before: &[SeatStatus], show: &Show) {
        let seats: Vec<ChangedSeat<'_>> = show
            .plan
            .places
            .iter()
            .zip(before)
            .zip(&show.seats)
            .filter(|((_, before), now)| **before != now.status())
            .map(|((place, _), now)| ChangedSeat { seat: &place.name, status: now.status() })
            .collect();
        if seats.is_empty() {
            return;
        }
        let change = SeatChange { show_id: show.plan.facts.show, epoch: self.epoch, seq: show.seq, seats };
        let json = serde_json::to_string(&change).expect("plain data");
        let change = Arc::new(Change { seq: show.seq, json });
        let mut kept = self.kept.lock().expect("never poisoned");
        if kept.changes.len() == KEPT
            && let Some(oldest) = kept.changes.pop_front()
        {
            kept.since = oldest.seq;
        }
        kept.changes.push_back(change.clone());
        // Sent under the lock, so that nobody who subscribes meanwhile misses it or gets it twice.
        let _ = self.sender.send(change);
    }

    /// Goes on after entry `seq`; none where what came since is no longer kept.
    pub fn watch_after(&self, seq: u64) -> Option<Watch> {
        let kept = self.kept.lock().expect("never poisoned");
        if seq < kept.since {
            return None;
        }
        let missed = kept.changes.iter().filter(|change| change.seq > seq).cloned().collect();
        Some(Watch { missed, next: self.sender.subscribe() })
    }

    pub fn watchers(&self) -> usize {
        self.sender.receiver_count()
    }
}
