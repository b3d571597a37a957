//! One region's process: what it knows, and the try it makes. It holds no lock on anything.

use regional::replication::memory::Store;
use regional::replication::replica::Standing;
use regional::replication::{Ballots, Entry, Leader, Limits, Recovery, Term};

use crate::kind::{Broken, Thing, Toy};
use crate::registry::Record;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// How many of the registry's records it has heard of, less one.
    pub known: usize,
    pub ballots: Ballots<Toy>,
    pub leader: Option<Leader<Toy>>,
    pub recovery: Option<Recovery<Toy>>,
    /// The leader's whole log, as it was chosen and extended: what it decides on.
    pub log: Vec<Entry<Toy>>,
}

impl Process {
    pub fn new(session: u64, known: usize, rules: Broken) -> Self {
        let ballots = Ballots::new(session, rules);
        Self { known, ballots, leader: None, recovery: None, log: Vec::new() }
    }

    /// Whether the command is still to be decided, and may be: a key that is in the log is answered from
    /// it, a seat that is taken is refused.
    pub fn wants(&self, key: u8, seat: u8) -> bool {
        self.log.iter().all(|entry| match entry.payload {
            Thing::Take { key: used, seat: taken } => used != key && taken != seat,
            Thing::Led => true,
        })
    }
}

pub fn term(record: &Record, own: u8, ballot: regional::replication::Ballot) -> Term<Toy> {
    let incarnations = (0..).zip(record.incarnations.iter().copied()).collect();
    Term { ballot, own, replicas: record.replicas.clone(), prior: record.prior.clone(), incarnations }
}

pub fn standing(record: &Record, own: u8) -> Standing {
    Standing {
        epoch: record.epoch,
        member: record.replicas.contains(&own) || record.prior.contains(&own),
        incarnation: record.incarnations[usize::from(own)],
        disowned: 0,
    }
}

/// One entry a message, so that logs can part between any two of them.
pub const LIMITS: Limits = Limits { message: 1, kept: 64, under_way: 8 };

pub type Stores = Vec<Store<Toy>>;
