//! What long journals folded to a moment ago, for whoever begins to lead again. A show that finds no majority for a
//! while, or goes to and fro, would else be read from its first entry at each try; where that takes longer than the
//! patience of those who ask, it would never be led.
//!
//! Invariant: only a hint. The journal says whether it still has the entry that a state ends with.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use common::ShowId;
use tokio::time::Instant;

use crate::journal::Ballot;
use crate::show::Show;

/// Shorter ones are folded in less time than it takes to ask other regions.
const LONG: u64 = 2_000;
/// A state has some hundred bytes an entry.
const MOST: usize = 32;
const KEPT_FOR: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Folded(Mutex<BTreeMap<ShowId, Kept>>);

struct Kept {
    /// Of the last entry.
    ballot: Ballot,
    state: Show,
    at: Instant,
}

impl Folded {
    /// Keeps the state of a long journal, whose last entry has this ballot.
    pub fn keep(&self, show: ShowId, ballot: Ballot, state: &Show) {
        self.keep_at(show, ballot, state, Instant::now());
    }

    fn keep_at(&self, show: ShowId, ballot: Ballot, state: &Show, now: Instant) {
        if state.seq < LONG {
            return;
        }
        let kept = Kept { ballot, state: state.clone(), at: now };
        let mut all = self.all();
        all.retain(|_, kept| now.duration_since(kept.at) < KEPT_FOR);
        if all.len() < MOST || all.contains_key(&show) {
            all.insert(show, kept);
        }
    }

    /// The state with the ballot of its last entry, to go on from.
    pub fn take(&self, show: ShowId) -> Option<(Ballot, Show)> {
        self.all().remove(&show).map(|kept| (kept.ballot, kept.state))
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<ShowId, Kept>> {
        self.0.lock().expect("no code panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(seq: u64) -> (ShowId, Show) {
        let mut stage = crate::show::tests::Stage::new();
        stage.show.seq = seq;
        (stage.show.id(), stage.show)
    }

    #[test]
    fn only_long_journals_are_kept_and_each_is_taken_once() {
        let (folded, ballot) = (Folded::default(), Ballot { epoch: 7, session: 1, attempt: 1 });
        let (short, state_of_short) = state(LONG - 1);
        folded.keep(short, ballot, &state_of_short);
        assert!(folded.take(short).is_none());
        let (long, state_of_long) = state(LONG);
        folded.keep(long, ballot, &state_of_long);
        let (of, again) = folded.take(long).unwrap();
        assert_eq!((of, again.seq), (ballot, LONG));
        assert!(folded.take(long).is_none());
    }

    #[test]
    fn so_many_and_for_so_long() {
        let (folded, ballot) = (Folded::default(), Ballot { epoch: 7, session: 1, attempt: 1 });
        let (_, of_all) = state(LONG);
        let ids: Vec<ShowId> = (0..=MOST).map(|_| ShowId::new(&"eu".parse().unwrap())).collect();
        ids.iter().for_each(|show| folded.keep(*show, ballot, &of_all));
        assert!(folded.take(ids[MOST]).is_none(), "there is room for so many");
        folded.keep_at(ids[MOST], ballot, &of_all, Instant::now() + KEPT_FOR);
        assert!(folded.take(ids[0]).is_none() && folded.take(ids[MOST]).is_some());
    }
}
