//! Where ballots come from.

use super::rules::{Rule, Rules};
use super::{Ballot, Kind};

/// Draws the ballots of one process's life: a ballot belongs to one try, for good. Leading again under the
/// same one wrote two different entries with one (seq, ballot), and lost an acknowledged one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballots<K: Kind> {
    session: u64,
    attempt: u64,
    rules: K::Rules,
}

impl<K: Kind> Ballots<K> {
    /// `session` is what the registry drew for this process's life (R6).
    pub fn new(session: u64, rules: K::Rules) -> Self {
        Self { session, attempt: 0, rules }
    }

    /// For the next try to lead any show, at its present epoch.
    pub fn next(&mut self, epoch: u64) -> Ballot {
        if self.attempt == 0 || self.rules.holds(Rule::BallotOnce) {
            self.attempt += 1;
        }
        Ballot { epoch, session: self.session, attempt: self.attempt }
    }

    pub fn session(&self) -> u64 {
        self.session
    }
}
