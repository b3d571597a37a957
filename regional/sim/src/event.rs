//! What can happen, and the queue of it in the order of virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use common::PaymentId;
use raft::state::{Command, ShowRecord};
use regional::payments::steps::Heard;
use regional::replication::{Ballot, Entry, Mark, Reply, Request, Restore};
use regional::show::{Asked, Refusal};

use crate::faults::Fault;
use crate::kind::Sim;

/// Milliseconds since the beginning.
pub type Ms = u64;

/// Where a regional process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    pub region: u8,
    pub slot: u8,
}

/// One life of the process there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    pub at: At,
    pub life: u32,
}

/// Between these the network can be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Region(u8),
    Registry,
    Provider,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// A message for whichever process is there.
    Arrives(At, Message),
    /// A message that reached this life, and waits until it goes on.
    Held(Who, Message),
    /// Something for this life only: answers, timers.
    For(Who, Happening),
    /// An operation begins in a region's store.
    Store(Operation),
    ToRegistry(ToRegistry),
    RegistryTick,
    ToGateway(u64, Attempt),
    /// Time for a gateway's request to go out again.
    Again(u64),
    ToProvider(u64, Option<Who>, Ask),
    /// The provider lets a late charge come true, and tells of it.
    Late(PaymentId),
    Client(u32),
    /// A client's call ended without an answer.
    CallLost(u64),
    Snapshot,
    Fault(usize),
    Heals(Fault),
    AllHeals,
    Probe,
}

/// From another node to a process.
#[derive(Clone, Debug)]
pub enum Message {
    Replication { from: Who, show: u8, request: Request<Sim> },
    Request { call: u64, attempt: u32, show: u8, asked: Inquiry },
    Webhook { payment: PaymentId },
}

/// What a request wants of a show.
#[derive(Clone, Debug)]
pub enum Inquiry {
    Command(Rc<Asked>),
    Read,
}

#[derive(Clone, Debug)]
pub enum Happening {
    Tick,
    Heartbeat,
    Reconcile,
    Say {
        region: u8,
        show: u8,
        reply: Reply<Sim>,
    },
    /// The own store's connection broke while it worked on this.
    Unknown {
        show: u8,
        ballot: Ballot,
    },
    /// The own log up to what was chosen; none: it is no longer so.
    Folded {
        show: u8,
        ballot: Ballot,
        log: Option<Vec<Entry<Sim>>>,
    },
    Restored {
        show: u8,
    },
    /// The own store took a write.
    Wrote,
    Watch {
        upto: usize,
    },
    Session {
        no: u64,
    },
    Identified {
        generation: u32,
        /// The highest position that was heard of the store in this incarnation.
        known: u64,
        incarnation: u64,
    },
    ShowRead {
        record: ShowRecord,
        incarnations: Vec<u64>,
    },
    Provided {
        job: u64,
        heard: Rc<Heard>,
    },
}

/// One transaction in a region's store.
#[derive(Clone, Debug)]
pub struct Operation {
    pub who: Who,
    /// Of the connection; another one's operations are gone.
    pub generation: u32,
    pub show: u8,
    /// Whether who asked hears of it.
    pub answered: bool,
    pub standing: regional::replication::replica::Standing,
    pub does: Does,
}

#[derive(Clone, Debug)]
pub enum Does {
    Own(Request<Sim>),
    Peers(Who, Request<Sim>),
    Fold {
        ballot: Ballot,
        last: Mark<Sim>,
    },
    Restore(Box<Restore<Sim>>),
    /// What a heartbeat vouches for.
    Beat,
}

#[derive(Clone, Debug)]
pub enum ToRegistry {
    Command { from: Option<Who>, command: Box<Command> },
    Heartbeat { who: Who, incarnation: u64, healthy: bool, whole: bool, position: u64 },
    Identify { who: Who, generation: u32 },
    ReadShow { who: Who, show: u8 },
}

/// What became of one attempt of a gateway.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub nth: u32,
    pub outcome: Outcome,
}

#[derive(Clone, Debug)]
pub enum Outcome {
    Answered(Said),
    /// It was surely not asked.
    Unreachable,
    /// It may have been.
    Broken,
}

/// What a process answers to a request about a show.
#[derive(Clone, Debug)]
pub enum Said {
    Done {
        epoch: u64,
        seq: u64,
        index: u32,
        repeated: bool,
    },
    Already,
    Refused {
        refusal: Refusal,
    },
    Read {
        epoch: u64,
        seq: u64,
        stamped: bool,
    },
    NotOwner {
        owner: u8,
        epoch: u64,
    },
    /// Nothing was done.
    Unavailable,
    Unknown,
}

/// What the provider is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    Charge { payment: PaymentId, amount: i64, token: String },
    Find { payment: PaymentId },
    Cancel { payment: PaymentId, amount: i64 },
    Refund { refund: common::RefundId, payment: PaymentId, amount: i64 },
}

/// Events by time; those of one moment in the order in which they were put in.
#[derive(Default)]
pub struct Queue {
    heap: BinaryHeap<Reverse<(Ms, u64)>>,
    events: std::collections::BTreeMap<u64, Event>,
    next: u64,
}

impl Queue {
    pub fn push(&mut self, at: Ms, event: Event) {
        self.heap.push(Reverse((at, self.next)));
        self.events.insert(self.next, event);
        self.next += 1;
    }

    pub fn pop(&mut self) -> Option<(Ms, u64, Event)> {
        let Reverse((at, no)) = self.heap.pop()?;
        self.events.remove(&no).map(|event| (at, no, event))
    }
}
