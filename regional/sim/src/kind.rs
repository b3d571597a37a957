//! What the replication core is generic over, here: entries are batches of real events, and any one rule may
//! be broken.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use regional::replication::{Ballot, Kind, Rule, Rules};
use regional::show::{Group, encode};

use crate::random::mix;

/// All rules but one, or all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Broken(pub Option<Rule>);

impl Rules for Broken {
    fn holds(&self, rule: Rule) -> bool {
        self.0 != Some(rule)
    }
}

/// One entry's groups, with the digest and the length of the bytes that a journal would store.
#[derive(Clone, Debug)]
pub struct Payload(Rc<Batch>);

#[derive(Debug)]
struct Batch {
    digest: u64,
    weight: usize,
    groups: Vec<Rc<Group>>,
}

impl Payload {
    pub fn new(groups: Vec<Rc<Group>>) -> Self {
        let bytes = encode(&groups);
        let digest = bytes.chunks(8).fold(bytes.len() as u64, |digest, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mix(digest ^ u64::from_le_bytes(word))
        });
        Self(Rc::new(Batch { digest, weight: bytes.len(), groups }))
    }

    pub fn groups(&self) -> &[Rc<Group>] {
        &self.0.groups
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

impl Eq for Payload {}

impl PartialOrd for Payload {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Payload {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.digest.cmp(&other.0.digest)
    }
}

impl Hash for Payload {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.digest.hash(state);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sim;

impl Kind for Sim {
    type Region = u8;
    type Payload = Payload;
    type Digest = u64;
    type Rules = Broken;

    fn chain(before: &u64, seq: u64, ballot: Ballot, payload: &Payload) -> u64 {
        let parts = [seq, ballot.epoch, ballot.session, ballot.attempt, payload.0.digest];
        parts.iter().fold(*before, |digest, part| mix(digest ^ part))
    }

    fn weight(payload: &Payload) -> usize {
        payload.0.weight
    }
}
