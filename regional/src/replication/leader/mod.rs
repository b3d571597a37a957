//! One try of one process to lead a show: prepare, choose a log, fetch what the own store lacks, begin with
//! an entry of the own ballot, then extend and commit. A try that ended is over; the next has a new ballot.
//!
//! Invariants: an entry commits only when a majority of the replicas holds it and it is of this ballot
//! (Raft §5.4.2); everything before it commits with it. The own store is one replica among the others and
//! counts by its own answers (R3). What this tells of an entry before `Effect::Committed`, it tells nobody.

mod choosing;
mod leading;

use std::collections::{BTreeMap, BTreeSet};

use super::messages::{Answer, Reply, Request, Unable};
use super::{Ballot, Kind, Mark};
use choosing::Choosing;
pub(super) use choosing::{Fetched, Fetching, greatest};
use leading::Leading;

/// What a try stands for: its ballot, and the registry's record of the ballot's epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term<K: Kind> {
    pub ballot: Ballot,
    pub own: K::Region,
    pub replicas: BTreeSet<K::Region>,
    /// The set before, while a change of it is not settled; else empty.
    pub prior: BTreeSet<K::Region>,
    /// Of each region's store, at that epoch; answers from another do not count (R5).
    pub incarnations: BTreeMap<K::Region, u64>,
}

/// Bounds on what is sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limits {
    /// Of one message's entries, in [`Kind::weight`]; one entry is always sent.
    pub message: usize,
    /// Of entries kept in memory for followers that are behind; what is older is read from the own store.
    pub kept: usize,
    /// Entries sent to a follower and not yet answered.
    pub under_way: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { message: 1 << 20, kept: 4 << 20, under_way: 64 }
    }
}

/// What the shell is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect<K: Kind> {
    /// To a peer, or, where `to` is the own region, to the own store.
    Send { to: K::Region, request: Request<K> },
    /// The own store holds the chosen log, up to this entry. Fold it, then call [`Leader::begin`].
    Chosen { last: Mark<K> },
    /// All up to here is committed: apply, answer, publish. Never earlier (R1).
    Committed { upto: u64 },
    /// To the registry, which takes it only for its present epoch; repeated until it has.
    Settled { epoch: u64 },
    /// The try is over. What was under way is unknown, not failed.
    Stopped(Why),
}

/// Why a try ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// A later ballot was promised somewhere.
    Refused { promised: Ballot },
    /// The own store was not as this leader left it.
    OwnStore,
    /// The log that was chosen is no longer where it was promised.
    LogMoved,
    /// The registry has another epoch, or closed the own session.
    Registry,
    /// Somebody holds what cannot be: an operator's case.
    Contradiction,
}

/// The try does not lead: not yet, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this try does not lead")]
pub struct NotLeading;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leader<K: Kind> {
    rules: K::Rules,
    limits: Limits,
    term: Term<K>,
    phase: Phase<K>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Phase<K: Kind> {
    Choosing(Choosing<K>),
    /// The log is chosen and held by the own store; the first entry is to come.
    Chosen {
        last: Mark<K>,
        committed: u64,
    },
    Leading(Leading<K>),
    Stopped,
}

impl<K: Kind> Leader<K> {
    /// Prepares at every replica of both sets.
    pub fn start(rules: K::Rules, limits: Limits, term: Term<K>) -> (Self, Vec<Effect<K>>) {
        let phase = Phase::Choosing(Choosing::default());
        let mut leader = Self { rules, limits, term, phase };
        let effects = leader.nudge_all();
        (leader, effects)
    }

    pub fn ballot(&self) -> Ballot {
        self.term.ballot
    }

    pub fn is_leading(&self) -> bool {
        matches!(self.phase, Phase::Leading(_))
    }

    pub fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    /// Whether the log is chosen and [`Self::begin`] is to be called.
    pub fn is_chosen(&self) -> bool {
        matches!(self.phase, Phase::Chosen { .. })
    }

    /// The number of the last entry that is committed under this leader; 0 before its first.
    pub fn committed(&self) -> u64 {
        if let Phase::Leading(leading) = &self.phase { leading.committed() } else { 0 }
    }

    /// Takes in an answer. Those of other tries, of strangers, and from before a store's loss (R5) change
    /// nothing.
    pub fn answered(&mut self, from: &K::Region, reply: Reply<K>) -> Vec<Effect<K>> {
        if reply.ballot != self.term.ballot || !self.counts(from, reply.incarnation) {
            return Vec::new();
        }
        match reply.answer {
            // Whoever promised more ends this try, wherever it stands.
            Answer::Refused { promised } => self.stop(Why::Refused { promised }),
            Answer::Unable(Unable::Contradiction) => self.stop(Why::Contradiction),
            Answer::Unable(_) | Answer::Reported { .. } => Vec::new(),
            answer => match &mut self.phase {
                Phase::Choosing(choosing) => {
                    let outcome = choosing.answered(&self.rules, &self.term, from, answer);
                    self.settle(outcome)
                }
                Phase::Leading(leading) => {
                    let outcome = leading.answered(&self.rules, &self.limits, &self.term, from, answer);
                    outcome.unwrap_or_else(|why| self.stop(why))
                }
                Phase::Chosen { .. } | Phase::Stopped => Vec::new(),
            },
        }
    }

    /// `now` is the process's own clock, in milliseconds, that runs while the machine sleeps (R15); it only
    /// ever decides when to repeat something and what a reader is told.
    ///
    /// Begins with `led`, an entry of the own ballot: when it is committed, all before it is.
    pub fn begin(&mut self, led: K::Payload, now: u64) -> Vec<Effect<K>> {
        let Phase::Chosen { last, committed } = &self.phase else { return Vec::new() };
        let (leading, effects) =
            Leading::begin(&self.rules, &self.limits, &self.term, last.clone(), *committed, led, now);
        self.phase = Phase::Leading(leading);
        effects
    }

    /// Passes the time on; what is sent from now on says so.
    pub fn clock(&mut self, now: u64) {
        if let Phase::Leading(leading) = &mut self.phase {
            leading.clock(now);
        }
    }

    /// Appends one entry; several may be under way. Answers its number, by which it later commits.
    pub fn propose(&mut self, payload: K::Payload) -> Result<(u64, Vec<Effect<K>>), NotLeading> {
        let Phase::Leading(leading) = &mut self.phase else { return Err(NotLeading) };
        Ok(leading.propose(&self.rules, &self.limits, &self.term, payload))
    }

    /// Says again to one region what it has not answered, or that nothing is new: called after a
    /// connection came back, or by [`Self::tick`].
    pub fn nudge(&mut self, region: &K::Region) -> Vec<Effect<K>> {
        match &mut self.phase {
            Phase::Choosing(choosing) => choosing.nudge(&self.term, region),
            Phase::Leading(leading) => leading.nudge(&self.limits, &self.term, region),
            Phase::Chosen { .. } | Phase::Stopped => Vec::new(),
        }
    }

    /// The own store's transaction ended with an unknown outcome: the same is said again, from memory and
    /// under the same ballot, and counts when *that* is answered (R2, R3). Nothing is decided anew.
    pub fn own_unknown(&mut self) -> Vec<Effect<K>> {
        let own = self.term.own.clone();
        self.nudge(&own)
    }

    /// What time alone demands: heartbeats, and repeats of what was not answered.
    pub fn tick(&mut self, now: u64) -> Vec<Effect<K>> {
        match &mut self.phase {
            Phase::Leading(leading) => leading.tick(&self.limits, &self.term, now),
            _ => Vec::new(),
        }
    }

    /// When [`Self::tick`] is next worth a call, in its `now`; none: not before something else happens.
    /// `reachable` tells to which regions anything can be said at present.
    pub fn next_tick(&self, reachable: impl Fn(&K::Region) -> bool) -> Option<u64> {
        match &self.phase {
            Phase::Leading(leading) => leading.next_tick(&self.term, reachable),
            _ => None,
        }
    }

    /// The number of the last entry of the log, committed or not; 0 while there is none chosen.
    pub fn last_seq(&self) -> u64 {
        match &self.phase {
            Phase::Leading(leading) => leading.last_seq(),
            Phase::Chosen { last, .. } => last.seq,
            _ => 0,
        }
    }

    /// How many entries of this leader's log each replica is known to lack.
    pub fn lags(&self) -> Vec<(&K::Region, u64)> {
        if let Phase::Leading(leading) = &self.phase { leading.lags().collect() } else { Vec::new() }
    }

    /// What the try stands for.
    pub fn term(&self) -> &Term<K> {
        &self.term
    }

    /// Says everything again.
    pub fn nudge_all(&mut self) -> Vec<Effect<K>> {
        let all: BTreeSet<K::Region> = self.term.replicas.union(&self.term.prior).cloned().collect();
        all.iter().flat_map(|region| self.nudge(region)).collect()
    }

    /// Hears the registry's record of the show. Another epoch ends the try; the same one without a `prior`
    /// says that the change is settled.
    pub fn heard(&mut self, epoch: u64, has_prior: bool) -> Vec<Effect<K>> {
        if epoch > self.term.ballot.epoch {
            return self.stop(Why::Registry);
        }
        if epoch == self.term.ballot.epoch
            && !has_prior
            && let Phase::Leading(leading) = &mut self.phase
        {
            leading.settled();
        }
        Vec::new()
    }

    /// Stands down: the session is gone, or the shell knows better.
    pub fn stop(&mut self, why: Why) -> Vec<Effect<K>> {
        if self.is_stopped() {
            return Vec::new();
        }
        self.phase = Phase::Stopped;
        vec![Effect::Stopped(why)]
    }

    /// The latest time such that a majority of the replicas answered what was sent then or later: until then
    /// nobody had led after this leader.
    pub fn heard_since(&self) -> Option<u64> {
        match &self.phase {
            Phase::Leading(leading) => leading.lease.since(&self.term.replicas),
            _ => None,
        }
    }

    /// Whether nobody else had led `lease` milliseconds ago: a majority of the replicas answered what was sent since.
    pub fn holds_lease(&self, now: u64, lease: u64) -> bool {
        match &self.phase {
            Phase::Leading(leading) => leading.lease.is_held(&self.term.replicas, now, lease),
            _ => false,
        }
    }

    fn counts(&self, from: &K::Region, incarnation: u64) -> bool {
        use super::rules::{Rule, Rules};
        let asked = self.term.replicas.contains(from) || self.term.prior.contains(from);
        let whole = self.term.incarnations.get(from) == Some(&incarnation);
        asked && (whole || !self.rules.holds(Rule::IncarnationCounts))
    }

    fn settle(&mut self, outcome: choosing::Outcome<K>) -> Vec<Effect<K>> {
        match outcome {
            choosing::Outcome::Going(effects) => effects,
            choosing::Outcome::Chosen { last, committed } => {
                self.phase = Phase::Chosen { last: last.clone(), committed };
                vec![Effect::Chosen { last }]
            }
            choosing::Outcome::Failed(why) => self.stop(why),
        }
    }
}
