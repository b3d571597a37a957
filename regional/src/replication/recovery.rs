//! The way back of one show's replica in a store that lost its tail (R5): entries, and promises, which are
//! as dangerous to lose.
//!
//! The registry has recorded the store's new incarnation and raised the show's epoch to `epoch`. Until this
//! is done the replica answers nobody. It asks the others to promise `(epoch, 0, 0)`, which fences all that
//! it may have forgotten having promised or held; takes the greatest log that a strict majority of them
//! reports; and in one transaction holds that log, promises, and is whole again in the new incarnation.

use std::collections::{BTreeMap, BTreeSet};

use super::leader::{Fetched, Fetching, greatest};
use super::messages::{Answer, Append, Reply, Request, Restore};
use super::quorum::is_majority;
use super::rules::{Rule, Rules};
use super::{Ballot, Head, Kind, Mark, Term};

/// There is nobody to ask: the region stays read-only until its operator says what was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no other replica can tell what this one has lost")]
pub struct Alone;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecoveryEffect<K: Kind> {
    Send {
        to: K::Region,
        request: Request<K>,
    },
    /// To the own store, in one transaction ([`super::replica::Replica::restore`]); after it this is over.
    Restore(Restore<K>),
    /// A peer's log was no longer what it reported. It begins again by itself with the next nudge.
    Again,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recovery<K: Kind> {
    rules: K::Rules,
    term: Term<K>,
    /// What the own store still has.
    own: Head<K>,
    phase: Phase<K>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Phase<K: Kind> {
    Asking(BTreeMap<K::Region, Head<K>>),
    Fetching(Fetching<K>),
    Restoring(Restore<K>),
}

impl<K: Kind> Recovery<K> {
    /// `term` is the registry's record, read linearizably after the new incarnation was recorded; its
    /// ballot is of no session. `own` is the head as the store now has it.
    pub fn start(
        rules: K::Rules,
        mut term: Term<K>,
        own: Head<K>,
    ) -> Result<(Self, Vec<RecoveryEffect<K>>), Alone> {
        term.ballot = Ballot { epoch: term.ballot.epoch, session: 0, attempt: 0 };
        term.replicas.remove(&term.own);
        term.prior.remove(&term.own);
        if term.replicas.is_empty() {
            return Err(Alone);
        }
        let recovery = Self { rules, term, own, phase: Phase::Asking(BTreeMap::new()) };
        let effects = recovery.nudge();
        Ok((recovery, effects))
    }

    pub fn ballot(&self) -> Ballot {
        self.term.ballot
    }

    /// Says again what has not been answered.
    pub fn nudge(&self) -> Vec<RecoveryEffect<K>> {
        let ballot = self.term.ballot;
        match &self.phase {
            Phase::Asking(reports) => {
                let others: BTreeSet<&K::Region> = self.term.replicas.union(&self.term.prior).collect();
                let silent = others.into_iter().filter(|region| !reports.contains_key(region));
                let ask = |to: &K::Region| RecoveryEffect::Send {
                    to: to.clone(),
                    request: Request::Report { ballot },
                };
                silent.map(ask).collect()
            }
            Phase::Fetching(fetching) => {
                vec![RecoveryEffect::Send { to: fetching.from.clone(), request: fetching.request(ballot) }]
            }
            Phase::Restoring(restore) => vec![RecoveryEffect::Restore(restore.clone())],
        }
    }

    /// Takes in an answer; those from stores that are in recovery themselves do not come, or do not count.
    pub fn answered(&mut self, from: &K::Region, reply: Reply<K>) -> Vec<RecoveryEffect<K>> {
        let whole = self.term.incarnations.get(from) == Some(&reply.incarnation);
        let asked = self.term.replicas.contains(from) || self.term.prior.contains(from);
        if reply.ballot != self.term.ballot || !asked || !whole {
            return Vec::new();
        }
        match (&mut self.phase, reply.answer) {
            (Phase::Asking(reports), Answer::Reported { head }) => {
                reports.insert(from.clone(), head);
                self.choose()
            }
            (Phase::Fetching(fetching), Answer::Entries { before, entries, .. })
                if *from == fetching.from =>
            {
                match fetching.page(&self.rules, before, entries) {
                    Fetched::More => self.nudge(),
                    Fetched::All { prev, entries } => self.restore(prev, entries),
                    Fetched::Moved => {
                        self.phase = Phase::Asking(BTreeMap::new());
                        vec![RecoveryEffect::Again]
                    }
                }
            }
            _ => Vec::new(),
        }
    }

    /// A strict majority of the *others*, of each set: of three replicas, both.
    fn choose(&mut self) -> Vec<RecoveryEffect<K>> {
        let Phase::Asking(reports) = &self.phase else { return Vec::new() };
        let reported = |region: &K::Region| reports.contains_key(region);
        let enough = |of: &BTreeSet<K::Region>| {
            of.is_empty() || is_majority(of, reported) || !self.rules.holds(Rule::RecoveryMajority)
        };
        if !(enough(&self.term.replicas) && enough(&self.term.prior)) {
            return Vec::new();
        }
        let Some((from, best)) = greatest(&self.rules, reports, &self.term.own) else { return Vec::new() };
        if best.last == self.own.last || best.last.seq == 0 {
            let last = if best.last.seq == 0 { Mark::default() } else { best.last.clone() };
            return self.restore(last, Vec::new());
        }
        self.phase = Phase::Fetching(Fetching::new(from.clone(), best.last.clone(), self.own.committed));
        self.nudge()
    }

    /// The log may hold entries of the present epoch's leader, above `(epoch, 0, 0)`: what is promised is
    /// never below what is held.
    fn restore(&mut self, prev: Mark<K>, entries: Vec<super::Entry<K>>) -> Vec<RecoveryEffect<K>> {
        let held = entries.last().map_or(prev.ballot, |entry| entry.ballot);
        let ballot = self.term.ballot.max(held);
        let append = Append { ballot, prev, entries, committed: 0, sent: 0 };
        let incarnation = self.term.incarnations.get(&self.term.own).copied().unwrap_or(0);
        self.phase = Phase::Restoring(Restore { append, incarnation });
        self.nudge()
    }
}
