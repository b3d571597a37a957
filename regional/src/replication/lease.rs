//! For how long reads from memory may be answered without a stamp.

use std::collections::{BTreeMap, BTreeSet};

use super::quorum::{is_majority, majority_reached};

/// When each replica last answered this leader, counted from the moment the question was *sent*, on the
/// leader's own clock that runs while the machine sleeps (R15). It only decides what a reader is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease<R: Ord>(BTreeMap<R, u64>);

impl<R: Ord + Clone> Lease<R> {
    pub fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub fn answered(&mut self, region: &R, sent: u64) {
        let last = self.0.entry(region.clone()).or_insert(sent);
        *last = (*last).max(sent);
    }

    /// The latest time such that a majority of `replicas` answered what was sent then or later.
    pub fn since(&self, replicas: &BTreeSet<R>) -> Option<u64> {
        majority_reached(replicas, |r| self.0.get(r).map_or(0, |sent| sent.saturating_add(1))).checked_sub(1)
    }

    /// Whether a majority of `replicas` answered what was sent at `now - lease` or later.
    pub fn is_held(&self, replicas: &BTreeSet<R>, now: u64, lease: u64) -> bool {
        is_majority(replicas, |r| self.0.get(r).is_some_and(|sent| now.saturating_sub(*sent) <= lease))
    }
}
