//! What a show's journal folds to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use common::{PaymentId, RefundId, ReservationId, TicketId, UserId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thin_vec::ThinVec;

use super::buyers::Buyers;
use super::event::{Key, Origin, Rule, SeatLine};
use super::index::{Index, hash};
use super::keys::Keys;
use super::plan::{Category, Plan};
use super::slab::{Named, Slab, Slot};

/// How a reservation is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Card,
    Online,
    Cash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShowStatus {
    Scheduled,
    Canceled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatState {
    Free,
    Held(ReservationId),
    Sold(ReservationId),
    /// Off sale by staff; the reason is in [`Show::blocks`].
    Blocked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SeatStatus {
    Free,
    Held,
    Sold,
    Blocked,
}

impl SeatState {
    pub fn status(self) -> SeatStatus {
        match self {
            Self::Free => SeatStatus::Free,
            Self::Held(_) => SeatStatus::Held,
            Self::Sold(_) => SeatStatus::Sold,
            Self::Blocked => SeatStatus::Blocked,
        }
    }
}

/// A seat as the state keeps it: its status in two bits, and the slot of the reservation that has it in the
/// others. [`Show::seat_state`] tells whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat(u32);

impl Seat {
    pub(super) const FREE: Self = Self(SeatStatus::Free as u32);
    pub(super) const BLOCKED: Self = Self(SeatStatus::Blocked as u32);

    /// A billion reservations of one show would not fit into memory.
    pub(super) fn held(by: Slot) -> Self {
        Self(by.number() << 2 | SeatStatus::Held as u32)
    }

    pub(super) fn sold(to: Slot) -> Self {
        Self(to.number() << 2 | SeatStatus::Sold as u32)
    }

    pub fn status(self) -> SeatStatus {
        [SeatStatus::Free, SeatStatus::Held, SeatStatus::Sold, SeatStatus::Blocked][self.0 as usize & 3]
    }

    pub fn is_free(self) -> bool {
        self == Self::FREE
    }

    fn taken_by(self) -> Option<Slot> {
        Slot::from_number(self.0 >> 2)
    }
}

/// One seat of a reservation, with its price at the time; [`Show::category`] tells the category's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub seat: u32,
    pub category: Category,
    pub amount: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReservationStatus {
    Reserved,
    Paid,
    Canceled,
    Expired,
    Refunded,
}

/// Lists are thin, since most of them are empty, or of one or two.
#[derive(Clone, Debug)]
pub struct Reservation {
    pub id: ReservationId,
    pub reference: Box<str>,
    pub customer: Option<UserId>,
    pub contact: Option<Box<str>>,
    /// What it holds now; empty once it is over.
    pub seats: ThinVec<Line>,
    /// What it last held, for showing it when it is over.
    pub given_up: ThinVec<Line>,
    pub status: ReservationStatus,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// Since when its buyer has held seats without paying; before `created_at` where holds follow each other.
    pub held_since: Timestamp,
    pub origin: Option<Origin>,
    pub payments: ThinVec<PaymentId>,
    pub tickets: ThinVec<Ticket>,
    /// Rules that staff set aside for it.
    pub waivers: ThinVec<Waiver>,
}

impl Named for Reservation {
    type Id = ReservationId;

    fn id(&self) -> &ReservationId {
        &self.id
    }
}

/// A rule set aside, by whom and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Waiver {
    pub rule: Rule,
    pub by: Option<UserId>,
    pub at: Timestamp,
}

impl Reservation {
    /// Whether it has seats, or may have them.
    pub fn is_live(&self) -> bool {
        matches!(self.status, ReservationStatus::Reserved | ReservationStatus::Paid)
    }

    /// The category that a seat of it was sold in.
    pub fn category_of(&self, seat: u32) -> Option<Category> {
        let line = self.seats.iter().chain(&self.given_up).find(|line| line.seat == seat);
        line.map(|line| line.category)
    }

    /// The price of the seats it holds, or held when it ended.
    pub fn total_minor(&self) -> i64 {
        let lines = if self.seats.is_empty() { &self.given_up } else { &self.seats };
        lines.iter().fold(0, |sum: i64, line| sum.saturating_add(line.amount))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TicketStatus {
    Valid,
    Admitted,
    Canceled,
    Refunded,
}

#[derive(Clone, Debug)]
pub struct Ticket {
    pub id: TicketId,
    pub seat: u32,
    pub status: TicketStatus,
    pub admission: Option<Box<Admission>>,
}

#[derive(Clone, Debug)]
pub struct Admission {
    pub at: Timestamp,
    pub by: Option<UserId>,
    pub nonce: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    Pending,
    Completed,
    Failed,
    Refunded,
    PartiallyRefunded,
}

/// How a payment was first answered; what a repeat under its key is answered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstResult {
    Pending,
    Completed,
    Failed { reason: Box<str>, declined: bool },
}

#[derive(Clone, Debug)]
pub struct Payment {
    pub id: PaymentId,
    pub reservation: ReservationId,
    pub method: Method,
    pub token: Option<Box<str>>,
    pub amount: i64,
    pub status: PaymentStatus,
    pub first: Option<FirstResult>,
    /// Why no money moved, where none did.
    pub failure: Option<Box<str>>,
    /// Sum of refunds started and not failed.
    pub refunded: i64,
    /// It came for nothing: what it paid for is had by nobody, or by another payment.
    pub unclaimed: bool,
    pub started_at: Timestamp,
    pub settled_at: Option<Timestamp>,
}

impl Named for Payment {
    type Id = PaymentId;

    fn id(&self) -> &PaymentId {
        &self.id
    }
}

impl Payment {
    /// Whether the provider may still move money under it.
    pub fn is_open(&self) -> bool {
        self.status == PaymentStatus::Pending
    }

    pub fn remainder(&self) -> i64 {
        self.amount.saturating_sub(self.refunded)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    Pending,
    Completed,
    Failed,
}

#[derive(Clone, Debug)]
pub struct Refund {
    pub id: RefundId,
    pub payment: PaymentId,
    pub amount: i64,
    pub reason: Box<str>,
    pub status: RefundStatus,
    pub at: Timestamp,
}

impl Named for Refund {
    type Id = RefundId;

    fn id(&self) -> &RefundId {
        &self.id
    }
}

impl Refund {
    /// Whether the money is still on its way.
    pub fn is_open(&self) -> bool {
        self.status == RefundStatus::Pending
    }
}

/// A show as far as its journal goes.
#[derive(Clone, Debug)]
pub struct Show {
    pub plan: Arc<Plan>,
    pub status: ShowStatus,
    /// As last rescheduled.
    pub starts_at: Timestamp,
    pub on_sale_at: Option<Timestamp>,
    /// The number of the last entry folded in.
    pub seq: u64,
    /// The time of the last entry; the next is not before it.
    pub last_at: Timestamp,
    pub seats: Box<[Seat]>,
    pub reservations: Slab<Reservation>,
    pub payments: Slab<Payment>,
    pub refunds: Slab<Refund>,
    /// Seats off sale, with the reason.
    pub blocks: BTreeMap<u32, String>,
    /// Categories that stand in the journal, but not among the prices.
    pub(super) more_categories: Vec<Box<str>>,
    /// Each ticket's reservation, and its place there.
    pub(super) tickets: Index<(Slot, u32)>,
    pub(super) buyers: Buyers,
    pub(super) nonces: HashMap<Box<str>, TicketId>,
    pub(super) keys: Keys,
    /// Unpaid reservations by deadline.
    pub(super) deadlines: BTreeSet<(Timestamp, Slot)>,
}

impl Show {
    /// The reservation and ticket of a ticket id.
    pub fn ticket(&self, id: TicketId) -> Option<(&Reservation, &Ticket)> {
        let (slot, at) = self.ticket_place(id)?;
        let reservation = &self.reservations[slot];
        reservation.tickets.get(at as usize).map(|ticket| (reservation, ticket))
    }

    pub(super) fn ticket_place(&self, id: TicketId) -> Option<(Slot, u32)> {
        self.tickets.find(hash(Some(id)), |place| ticket_at(&self.reservations, place) == Some(id))
    }

    /// One seat as it is now, and whose it is.
    pub fn seat_state(&self, seat: u32) -> SeatState {
        let state = self.seats[seat as usize];
        match (state.status(), state.taken_by()) {
            (SeatStatus::Held, Some(by)) => SeatState::Held(self.reservations[by].id),
            (SeatStatus::Sold, Some(to)) => SeatState::Sold(self.reservations[to].id),
            (SeatStatus::Blocked, _) => SeatState::Blocked,
            (SeatStatus::Free | SeatStatus::Held | SeatStatus::Sold, _) => SeatState::Free,
        }
    }

    /// All seats, by their index.
    pub fn seat_states(&self) -> impl Iterator<Item = SeatState> {
        (0..self.plan.seats()).map(|seat| self.seat_state(seat))
    }

    /// The name of a category.
    pub fn category(&self, category: Category) -> &str {
        let (at, known) = (usize::from(category.0), self.plan.categories());
        known.get(at).unwrap_or_else(|| &self.more_categories[at - known.len()])
    }

    /// A line of an event as the state keeps it; none where its category stands nowhere in the show yet.
    pub fn line(&self, line: &SeatLine) -> Option<Line> {
        let mut known = self.plan.categories().iter().chain(&self.more_categories);
        let at = known.position(|name| **name == *line.category)?;
        let category = Category(u16::try_from(at).ok()?);
        Some(Line { seat: line.seat, category, amount: line.amount })
    }

    /// The reservations of the customer, or for the same contact.
    pub fn of_buyer<'a>(
        &'a self,
        customer: Option<UserId>,
        contact: Option<&str>,
    ) -> impl Iterator<Item = &'a Reservation> + use<'a> {
        let (buyers, all) = (&self.buyers, &self.reservations);
        let own = customer.map(|customer| buyers.of_customer(all, customer));
        let same = contact.map(|contact| buyers.of_contact(all, contact));
        let others = same.into_iter().flatten();
        let others = others.filter(move |r| customer.is_none() || r.customer != customer);
        own.into_iter().flatten().chain(others)
    }

    /// Seats held or bought by the customer, or for the same contact.
    pub fn seats_of(&self, customer: Option<UserId>, contact: Option<&str>) -> usize {
        self.of_buyer(customer, contact).map(|r| r.seats.len()).sum()
    }

    /// Seats held or bought from this address, by whomsoever.
    pub fn seats_from(&self, origin: Origin) -> usize {
        self.buyers.of_origin(&self.reservations, origin).map(|r| r.seats.len()).sum()
    }

    /// Whether a free seat has no free neighbour, once those in `taken` are. `walls`: the end of a row or an
    /// aisle counts like a taken seat.
    pub(super) fn is_single_gap(&self, seat: u32, taken: &impl Fn(u32) -> bool, walls: bool) -> bool {
        let free = |seat: u32| self.seats[seat as usize].is_free() && !taken(seat);
        (seat as usize) < self.seats.len()
            && free(seat)
            && self.plan.beside(seat).iter().all(|beside| beside.map_or(walls, |beside| !free(beside)))
    }

    /// When the host should next look for reservations whose time is over.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// How many seats are free, held, sold, blocked.
    pub fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for seat in &self.seats {
            counts[seat.status() as usize] += 1;
        }
        counts
    }

    /// Where the first use of this key stands in the journal: (seq, index in the entry).
    pub fn key_use(&self, key: &Key) -> Option<(u64, u32)> {
        self.keys.get(&key.id).map(|used| (used.seq, used.index))
    }
}

pub(super) fn ticket_at(all: &Slab<Reservation>, (slot, at): (Slot, u32)) -> Option<TicketId> {
    all[slot].tickets.get(at as usize).map(|ticket| ticket.id)
}
