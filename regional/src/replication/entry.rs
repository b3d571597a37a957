//! Entries, the marks by which they are told apart, and heads.

use std::fmt::Debug;
use std::hash::Hash;

use super::Ballot;
use super::rules::Rules;

/// What the protocol is generic over: production's payloads are bytes under SHA-256, the model's are
/// numbers.
pub trait Kind: Copy + Debug + Ord + Hash {
    type Region: Clone + Debug + Ord + Hash;
    type Payload: Clone + Debug + Ord + Hash;
    /// Its default stands before a journal's first entry.
    type Digest: Clone + Debug + Default + Ord + Hash;
    type Rules: Rules;

    /// The digest of an entry: over the one before it, its place, its ballot and its payload.
    fn chain(before: &Self::Digest, seq: u64, ballot: Ballot, payload: &Self::Payload) -> Self::Digest;

    /// What an entry takes of a message, in bytes.
    fn weight(payload: &Self::Payload) -> usize;
}

/// One entry of a show's journal. Its payload is opaque here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry<K: Kind> {
    pub seq: u64,
    /// Under which it was first written; copying keeps it.
    pub ballot: Ballot,
    pub digest: K::Digest,
    pub payload: K::Payload,
}

/// An entry without its payload. As digests chain, equal marks mean equal journals up to here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark<K: Kind> {
    pub seq: u64,
    pub ballot: Ballot,
    pub digest: K::Digest,
}

impl<K: Kind> Default for Mark<K> {
    /// Before the first entry.
    fn default() -> Self {
        Self { seq: 0, ballot: Ballot::default(), digest: K::Digest::default() }
    }
}

impl<K: Kind> Mark<K> {
    /// The entry that follows this one.
    pub fn next(&self, ballot: Ballot, payload: K::Payload) -> Entry<K> {
        let seq = self.seq + 1;
        let digest = K::chain(&self.digest, seq, ballot, &payload);
        Entry { seq, ballot, digest, payload }
    }

    /// Whether `entry` comes right after this and its digest is what it must be.
    pub fn precedes(&self, entry: &Entry<K>) -> bool {
        entry.seq == self.seq + 1
            && entry.digest == K::chain(&self.digest, entry.seq, entry.ballot, &entry.payload)
    }

    /// Which of two logs a leader takes: the later ballot's, then the longer.
    pub fn rank(&self) -> (Ballot, u64) {
        (self.ballot, self.seq)
    }
}

impl<K: Kind> Entry<K> {
    pub fn mark(&self) -> Mark<K> {
        Mark { seq: self.seq, ballot: self.ballot, digest: self.digest.clone() }
    }
}

/// The row a store keeps for a show beside its entries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head<K: Kind> {
    /// The store's incarnation when this replica last was whole: it votes only in that one (R5).
    pub incarnation: u64,
    /// Nothing below this is promised or appended.
    pub promised: Ballot,
    /// The last entry held; its ballot is what the protocol calls `accepted`.
    pub last: Mark<K>,
    pub committed: u64,
}

impl<K: Kind> Head<K> {
    /// Of an empty journal, made while the store was in `incarnation`.
    pub fn empty(incarnation: u64) -> Self {
        Self { incarnation, promised: Ballot::default(), last: Mark::default(), committed: 0 }
    }
}
