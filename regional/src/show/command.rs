//! What can be asked of a show, and every named refusal.

use common::{PaymentId, RefundId, ReservationId, TicketId, UserId};
use jiff::Timestamp;

use super::contact::Contact;
use super::event::{Created, Event, Key, Origin};
use super::payment::Method;
use crate::halls::layout::SeatType;

pub type KeyUse = Key;

/// A command with its context. Ids and chance are the asker's; the core draws none.
#[derive(Clone, Debug)]
pub struct Asked {
    pub command: Command,
    pub by: Option<UserId>,
    pub key: Option<KeyUse>,
    pub trace: Option<String>,
    /// The address of staff, for the audit log; none for customers.
    pub from: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Command {
    Reserve(Reserve),
    ChangeSeats(ChangeSeats),
    StartPayment(StartPayment),
    /// What the provider said of a payment; `refund` is for money that has no reservation any more.
    SettlePayment {
        payment: PaymentId,
        outcome: Outcome,
        chance: u32,
        refund: RefundId,
    },
    /// The provider has money for a payment that this journal does not know.
    ReturnStray {
        payment: PaymentId,
        refund: RefundId,
        amount: i64,
    },
    Cancel(Cancel),
    Refund(NewRefund),
    /// What the provider said of a refund.
    SettleRefund {
        refund: RefundId,
        failed: Option<String>,
    },
    CheckIn(CheckIn),
    /// Ends the reservations whose time is over.
    ExpireDue,
    Block {
        seats: Vec<String>,
        reason: String,
    },
    Unblock {
        seats: Vec<String>,
    },
    ChangeShow(ChangeShow),
    CancelShow {
        reason: String,
    },
    /// After a show is canceled: cancels and refunds up to `limit` of the reservations that are left.
    /// `chance` makes the refunds' ids.
    CancelRest {
        limit: usize,
        chance: u32,
    },
}

#[derive(Clone, Debug)]
pub struct ChangeShow {
    pub starts_at: Option<Timestamp>,
    /// `Some(None)`: on sale at once.
    pub on_sale_at: Option<Option<Timestamp>>,
}

/// A show is created by its first entry, not decided against a state.
pub type CreateShow = Created;

#[derive(Clone, Debug)]
pub struct Reserve {
    pub id: ReservationId,
    /// Short, for people: on the mail, at the counter.
    pub reference: String,
    pub customer: Option<UserId>,
    pub contact: Option<Contact>,
    pub wish: Wish,
    /// Where the request came from, if that tells anything.
    pub origin: Option<Origin>,
    /// Staff are not held to the customers' limits, nor to the rule against single gaps; what they set aside
    /// so is journaled.
    pub by_staff: bool,
}

/// Which seats.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Name and category; none: the adult price.
    Seats(Vec<(String, Option<String>)>),
    /// The best that are free when it is decided.
    Best { count: usize, kind: Option<SeatType>, category: Option<String> },
}

#[derive(Clone, Debug)]
pub struct ChangeSeats {
    pub reservation: ReservationId,
    pub seats: Vec<(String, Option<String>)>,
    pub by_staff: bool,
}

#[derive(Clone, Debug)]
pub struct StartPayment {
    pub id: PaymentId,
    pub reservation: ReservationId,
    pub method: Method,
    pub token: Option<String>,
    /// Where no provider is asked (cash, nothing to pay), the tickets come at once.
    pub chance: u32,
}

/// What is known of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Completed,
    Pending,
    /// No money moved and none will.
    Failed {
        reason: String,
        declined: bool,
    },
}

#[derive(Clone, Debug)]
pub struct Cancel {
    pub reservation: ReservationId,
    /// None: all of it.
    pub seats: Option<Vec<String>>,
    pub by_staff: bool,
    /// For the refund, if there is one.
    pub refund: RefundId,
}

#[derive(Clone, Debug)]
pub struct NewRefund {
    pub id: RefundId,
    pub payment: PaymentId,
    /// Minor units; none: all that is left.
    pub amount: Option<i64>,
    pub reason: String,
}

#[derive(Clone, Debug)]
pub struct CheckIn {
    pub ticket: TicketId,
    pub nonce: String,
    /// When it happened, for scanners that were offline.
    pub at: Option<Timestamp>,
    pub force: bool,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Append these.
    Do(Vec<Event>),
    /// It was done before, under this key, at (seq, index): answer the same again.
    Repeat {
        seq: u64,
        index: u32,
    },
    /// It is so already; nothing to append.
    Already,
    Refuse(Refusal),
}

/// Why a show says no. Each has a stable code in the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    SeatsUnavailable(Vec<String>),
    UnknownSeats(Vec<String>),
    UnknownCategory {
        seat: String,
        category: String,
    },
    NoSeats,
    /// Fewer are free than `best` wants.
    NotEnoughSeats {
        free: usize,
    },
    /// They would leave these single seats between taken ones.
    SingleSeatGap(Vec<String>),
    /// A companion seat goes with the accessible one beside it.
    CompanionAlone(Vec<String>),
    DuplicateSeat(String),
    SeatLimit {
        limit: u32,
    },
    /// All customers behind one address together.
    AddressLimit {
        limit: u32,
    },
    /// One hold after another without paying; others have their turn until then.
    HoldLimit {
        until: Timestamp,
    },
    NotOnSale(&'static str),
    UnknownReservation,
    UnknownPayment,
    UnknownTicket,
    ReservationExpired,
    /// It is in a state that does not allow it: paid already, canceled, …
    WrongState(&'static str),
    PaymentUnderWay(PaymentId),
    RefundWindowClosed,
    RefundTooLarge {
        remainder: i64,
    },
    AlreadyAdmitted {
        at: Timestamp,
        by: Option<UserId>,
    },
    TicketCanceled,
    TicketRefunded,
    NonceReused,
    KeyReused,
}
