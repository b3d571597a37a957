//! Ballots, heads and entries.

use std::cmp::Ordering;

use common::ShowId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::show::Group;

/// One try of one process to lead one show; ordered by epoch, then attempt, then session. Never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ballot {
    pub epoch: u64,
    pub session: u64,
    pub attempt: u64,
}

impl Ballot {
    /// Promised by the head of a show that was archived: no try can come after it, so nobody leads the show or
    /// extends it here, however late a message is.
    pub const ARCHIVED: Self = Self { epoch: HIGHEST, session: HIGHEST, attempt: HIGHEST };
}

/// The highest number that the store can hold.
const HIGHEST: u64 = i64::MAX.cast_unsigned();

/// The attempt before the session: a process that has run for longer must be able to follow a younger one,
/// by trying with a higher attempt. The session only tells two tries of the same number apart.
impl Ord for Ballot {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |ballot: &Self| (ballot.epoch, ballot.attempt, ballot.session);
        place(self).cmp(&place(other))
    }
}

impl PartialOrd for Ballot {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Where a show's journal ends, in this store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Nothing below this ballot may be appended.
    pub promised: Ballot,
    /// The ballot of the last entry.
    pub accepted: Ballot,
    pub seq: u64,
    pub committed: u64,
    pub hash: Vec<u8>,
    pub nonce: i64,
}

/// A decoded entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub show: ShowId,
    pub seq: u64,
    pub ballot: Ballot,
    pub at: Timestamp,
    pub hash: Vec<u8>,
    pub groups: Vec<Group>,
}

/// An entry as a store has it; nothing of it is believed before it is read.
#[derive(Clone, Debug)]
pub struct Stored {
    pub seq: i64,
    /// Epoch, session, attempt.
    pub ballot: [i64; 3],
    pub at: Timestamp,
    pub format: i16,
    pub hash: Vec<u8>,
    pub events: Vec<u8>,
}

/// The hash of an entry: over the hash before it, its place, its ballot and its bytes.
pub fn chain(before: &[u8], show: ShowId, seq: u64, ballot: Ballot, format: i16, events: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(show.0.as_bytes());
    for number in [seq, ballot.epoch, ballot.session, ballot.attempt] {
        hash.update(number.to_be_bytes());
    }
    hash.update(format.to_be_bytes());
    hash.update(events);
    hash.finalize().to_vec()
}
