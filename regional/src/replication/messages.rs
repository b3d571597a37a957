//! What regions say to each other about one show. The leader's own store is spoken to in the same words.
//!
//! Every request carries a ballot and every answer repeats it, so that an answer finds the try it belongs
//! to, however late it comes. Nothing here may be taken for granted by a receiver: see [`super::replica`].

use super::{Ballot, Entry, Head, Kind, Mark};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request<K: Kind> {
    /// Asks for a promise.
    Prepare { ballot: Ballot },
    /// Extends the journal, or proves that it is as long as the sender thinks (then without entries).
    Append(Append<K>),
    /// An [`Request::Append`] that must meet the head exactly as the leader last left it: what one
    /// compare-and-set does. A leader's own store gets its batches so.
    Extend(Append<K>),
    /// Entries after number `after`, as many as fit.
    Fetch { ballot: Ballot, after: u64 },
    /// Asks, on behalf of a store in recovery, for a promise and the head; never refused (R5).
    Report { ballot: Ballot },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Append<K: Kind> {
    pub ballot: Ballot,
    pub prev: Mark<K>,
    pub entries: Vec<Entry<K>>,
    pub committed: u64,
    /// The sender's own clock at sending, in milliseconds; answered as it is, for the read lease (R15).
    pub sent: u64,
}

impl<K: Kind> Append<K> {
    /// How far this message reaches.
    pub fn upto(&self) -> u64 {
        self.prev.seq + self.entries.len() as u64
    }

    /// Whether the entries chain from `prev` without a gap, none of a later ballot than the message.
    pub fn is_sound(&self) -> bool {
        let mut before = self.prev.clone();
        self.entries.iter().all(|entry| {
            let follows = before.precedes(entry) && entry.ballot <= self.ballot;
            before = entry.mark();
            follows
        })
    }
}

/// An answer, and the incarnation of the store that gives it: answers from before a loss do not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reply<K: Kind> {
    pub incarnation: u64,
    pub ballot: Ballot,
    pub answer: Answer<K>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer<K: Kind> {
    /// To Prepare. `head` is as it stood when the promise was made.
    Promise { head: Head<K> },
    /// To Append: the store holds what the message carried, up to `upto`, whatever it holds behind that.
    Appended { upto: u64, sent: u64 },
    /// To Append: the entry before is not held. The two prefixes that the sender may count on, if it holds
    /// `last` too: up to `last`; in any case: up to `committed`.
    Mismatch { last: Mark<K>, committed: u64, sent: u64 },
    /// A later ballot was promised.
    Refused { promised: Ballot },
    /// To Fetch. `promised` tells a leader whether its own store is still its own.
    Entries { promised: Ballot, before: Mark<K>, entries: Vec<Entry<K>> },
    /// To Report; the promise, at least the ballot asked for, is durable.
    Reported { head: Head<K> },
    /// Nothing was done, and nobody need stand down for it.
    Unable(Unable),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unable {
    /// By a registry state as new as the ballot, this region holds no replica of the show.
    NotReplica,
    /// The store lost its tail and has not recovered this show (R5).
    Recovering,
    /// The message contradicts itself.
    Malformed,
    /// It would drop a committed entry: an operator's case, nothing is guessed.
    Contradiction,
    /// To Fetch: the entry `after` is not here.
    Unknown,
}

/// What brings a recovering replica back: one transaction in its own store, never a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Restore<K: Kind> {
    pub append: Append<K>,
    /// In which it may vote again.
    pub incarnation: u64,
}
