//! What the protocol's core is generic over, as production has it: entries as they are stored, to the byte, so
//! that hashes agree in every region.

use std::borrow::Borrow;

use bytes::Bytes;
use common::{RegionName, ShowId};
use jiff::Timestamp;

use crate::journal::{Ballot, chain};
use crate::replication::{Kind, Strict};
use crate::show::{self, Group};

/// Production's kind: it holds to all rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Regional;

/// An entry's content as it is stored. The show is part of it because the chain covers it: no entry can pass
/// for one of another show.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Payload {
    pub show: ShowId,
    /// To the microsecond, as tables keep it.
    pub at: Timestamp,
    pub format: i16,
    pub events: Bytes,
}

impl Payload {
    /// What one batch of groups becomes.
    pub fn new<G: Borrow<Group>>(show: ShowId, at: Timestamp, groups: &[G]) -> Self {
        Self { show, at, format: show::FORMAT, events: show::encode(groups).into() }
    }
}

/// Of an entry and all before it; none stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hash(Option<[u8; 32]>);

impl Hash {
    /// 32 bytes, or none at all.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [] => Some(Self(None)),
            _ => bytes.try_into().ok().map(|bytes| Self(Some(bytes))),
        }
    }

    pub fn as_slice(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |bytes| bytes.as_slice())
    }
}

impl std::hash::Hash for Hash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl Kind for Regional {
    type Region = RegionName;
    type Payload = Payload;
    type Digest = Hash;
    type Rules = Strict;

    fn chain(before: &Hash, seq: u64, ballot: Ballot, payload: &Payload) -> Hash {
        let Payload { show, format, events, .. } = payload;
        let hash = chain(before.as_slice(), *show, seq, ballot, *format, events);
        Hash::from_slice(&hash).expect("SHA-256 has 32 bytes")
    }

    /// The events, and what goes along on the wire.
    fn weight(payload: &Payload) -> usize {
        payload.events.len() + 96
    }
}
