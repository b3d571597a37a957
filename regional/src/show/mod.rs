//! The show core: the rules of the business, and nothing else.
//!
//! [`decide`] turns a command and the present state into events or a refusal; [`Show::apply`] folds events
//! into the state. The journal of a show is the list of its events; the state is what it folds to.
//!
//! Invariant: no I/O, no clock, no chance, no async (a test reads these files and refuses them): time, ids
//! and chance come with the command, so that every replica folds the same journal to the same state.

mod apply;
mod best;
mod buyers;
mod command;
mod contact;
mod decide;
mod event;
mod index;
mod keys;
mod manage;
mod moment;
mod money;
mod payment;
mod plan;
mod reading;
mod slab;
mod state;
#[cfg(test)]
pub(crate) mod tests;

pub use best::best_seats;
pub use command::{
    Asked, Cancel, ChangeSeats, ChangeShow, CheckIn, Command, CreateShow, Decision, KeyUse, NewRefund,
    Outcome, Refusal, Reserve, StartPayment, Wish,
};
pub use contact::{Contact, ContactDigest};
pub use decide::{chosen, decide, due};
pub use event::{
    Before, Cancellation, Created, Event, FORMAT, GivenBack, Group, Key, Origin, PlanRow, PlanSeat,
    PriceLine, RefundTier, Rule, SeatLine, decode, encode,
};
pub use moment::Moment;
pub use money::{Quote, quote};
pub use payment::{FirstResult, Method, Payment, PaymentStatus, Refund, RefundStatus};
pub use plan::{Category, Place, Plan, Row, Spot};
pub use slab::{Named, Owned, Slab, Slot, WithId};
pub use state::{
    Admission, Line, Reservation, ReservationStatus, Seat, SeatState, SeatStatus, Show, ShowStatus, Ticket,
    TicketStatus, Waiver,
};
