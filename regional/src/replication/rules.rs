//! The protocol's rules by name, so that the model and the simulation can break one at a time and show
//! that they would notice.
//!
//! Invariant: production cannot break any. Its [`Kind`](super::Kind) names [`Strict`], which has no state
//! and holds to all of them; only tests define other [`Rules`].

use std::fmt::Debug;
use std::hash::Hash;

/// What `docs/protocol.md` demands, one name for each sentence that something breaks without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A promise is durable before it is answered.
    PromiseDurable,
    /// An Append below the promise is refused.
    AppendBelowPromise,
    /// A Prepare below the promise is refused.
    PrepareBelowPromise,
    /// An Append counts only where the entry before it is held.
    PrevChecked,
    /// Entries are the same when ballot and hash are, not when their numbers are.
    MatchByBallotAndHash,
    /// Entries are dropped only where they differ from what is sent (R4).
    TruncateOnConflict,
    /// An Append answers how far the message reached, not where the store ends.
    UptoOfMessage,
    /// The log with the greatest (accepted, seq) is chosen, not the longest.
    ChooseByBallot,
    /// What was fetched contains the promised head.
    FetchedHead,
    /// Leading begins with an entry of the own ballot.
    LedEntry,
    /// Copies of an older ballot's entry commit nothing (Raft §5.4.2).
    OwnBallotOnly,
    /// Nothing takes effect before a majority holds it (R1).
    QuorumCommits,
    /// The own store counts by the result of its own transaction (R3).
    OwnResult,
    /// A majority of the replica set before promises too.
    PriorMajority,
    /// The registry hears `Settled` only when the leader's first entry is committed.
    SettledAfterLed,
    /// A ballot is prepared by one try only.
    BallotOnce,
    /// A store that lost its tail does not vote until it has recovered (R5).
    RecoverFirst,
    /// Who reports to a recovering store promises first.
    ReportsPromise,
    /// A recovering store hears a strict majority of the others.
    RecoveryMajority,
    /// Answers from before a store's loss no longer count.
    IncarnationCounts,
}

impl Rule {
    pub const ALL: [Self; 20] = [
        Self::PromiseDurable,
        Self::AppendBelowPromise,
        Self::PrepareBelowPromise,
        Self::PrevChecked,
        Self::MatchByBallotAndHash,
        Self::TruncateOnConflict,
        Self::UptoOfMessage,
        Self::ChooseByBallot,
        Self::FetchedHead,
        Self::LedEntry,
        Self::OwnBallotOnly,
        Self::QuorumCommits,
        Self::OwnResult,
        Self::PriorMajority,
        Self::SettledAfterLed,
        Self::BallotOnce,
        Self::RecoverFirst,
        Self::ReportsPromise,
        Self::RecoveryMajority,
        Self::IncarnationCounts,
    ];
}

/// Which rules hold.
pub trait Rules: Clone + Copy + Debug + Ord + Hash {
    fn holds(&self, rule: Rule) -> bool;
}

/// All of them, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Strict;

impl Rules for Strict {
    fn holds(&self, _: Rule) -> bool {
        true
    }
}
