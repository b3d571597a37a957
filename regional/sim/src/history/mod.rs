//! Histories of a whole platform, and what must be true of each: what customers asked and were told, every
//! region's journals, the provider's books, and the read models. They come from the simulation, or were
//! recorded of real processes; the checker ([`check`]) does not care, and shares no rule with what it checks.

mod books;
mod check;
#[cfg(test)]
mod corrupt;
mod seats;

use std::collections::BTreeMap;

pub use check::{Verdict, Wrong, check, hex};
use common::{PaymentId, RefundId, ReservationId, ShowId};
use regional::show::Group;
use serde::{Deserialize, Serialize};

/// Milliseconds on the clock of whoever recorded it; one clock for all that a client did.
pub type Millis = u64;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct History {
    pub operations: Vec<Operation>,
    pub journals: Vec<Journal>,
    /// The provider's; none: there was no provider to ask, and S5 is not decided.
    pub books: Option<Books>,
    pub models: Vec<Model>,
}

/// One call of one client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Operation {
    pub client: u32,
    pub show: ShowId,
    /// As the journal holds it: a digest, in hex. None: it had no key.
    pub key: Option<String>,
    /// For people.
    pub what: String,
    pub start: Millis,
    pub end: Millis,
    pub outcome: Told,
}

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Done, at this place of the journal; `repeated`: it was done before.
    Ok {
        epoch: u64,
        seq: u64,
        index: u32,
        repeated: bool,
    },
    /// It was so already.
    Already,
    Refused {
        code: String,
    },
    /// Surely not done.
    NotDone,
    Unknown,
    /// A read that showed everything up to `seq`; `stamped`: it said that it may be old.
    Read {
        epoch: u64,
        seq: u64,
        stamped: bool,
    },
}

/// What one region holds of one show.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Journal {
    pub region: String,
    pub show: ShowId,
    /// Entries behind this are not known to be committed there.
    pub committed: u64,
    /// From the first on.
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub seq: u64,
    pub ballot: Ballot,
    /// Chained: over the entry before too.
    pub hash: String,
    pub groups: Vec<Group>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    pub epoch: u64,
    pub attempt: u64,
    pub session: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Books {
    pub charges: Vec<Charge>,
    pub refunds: Vec<GivenBack>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Charge {
    pub id: PaymentId,
    pub amount: i64,
    pub captured: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GivenBack {
    pub id: RefundId,
    pub charge: PaymentId,
    pub amount: i64,
}

/// What a region's read models say of one show, up to entry `upto`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Model {
    pub region: String,
    pub show: ShowId,
    pub upto: u64,
    pub reservations: BTreeMap<ReservationId, ModelReservation>,
    pub payments: BTreeMap<PaymentId, ModelPayment>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelReservation {
    /// `reserved`, `paid`, `canceled`, `expired`, `refunded`
    pub status: String,
    /// By number, in order.
    pub seats: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelPayment {
    /// `pending`, `completed`, `failed`, `refunded`, `partially_refunded`
    pub status: String,
    pub refunded: i64,
}
