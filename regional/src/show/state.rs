//! What a show's journal folds to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{PaymentId, ReservationId, ShowBound, ShowId, TicketId, UserId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thin_vec::ThinVec;

use super::buyers::Buyers;
use super::contact::{Contact, ContactDigest};
use super::event::{Key, Origin, Rule, SeatLine};
use super::index::{Index, hash};
use super::keys::Keys;
use super::moment::Moment;
use super::payment::{Payment, Refund};
use super::plan::{Category, Plan};
use super::slab::{Named, Slab, Slot, WithId};

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

/// A show has hundreds, so it is as small as it can be: lists are thin, since most of them are empty, or of one
/// or two; what is the same for the whole show is not in it.
#[derive(Clone, Debug)]
pub struct Reservation {
    pub(super) own: [u8; 10],
    pub reference: Box<str>,
    pub customer: Option<UserId>,
    pub contact: Option<Contact>,
    /// What it holds now; empty once it is over.
    pub seats: ThinVec<Line>,
    /// What it last held, and what of it was paid and canceled before: for showing it when it is over.
    pub given_up: ThinVec<Line>,
    pub status: ReservationStatus,
    pub created_at: Moment,
    pub expires_at: Moment,
    /// Since when its buyer has held seats without paying; before `created_at` where holds follow each other.
    pub held_since: Moment,
    /// As bytes, which need no room between them and the others.
    pub(super) origin: Option<[u8; 8]>,
    /// The first one; each tells the next. [`Show::payments_of`] tells all.
    pub(super) payments: Option<Slot>,
    pub(super) tickets: ThinVec<Ticket>,
    /// Rules that staff set aside for it.
    pub waivers: ThinVec<Waiver>,
}

impl Named for Reservation {
    type Id = ReservationId;

    fn own(&self) -> [u8; 10] {
        self.own
    }
}

/// A rule set aside, by whom and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Waiver {
    pub rule: Rule,
    pub by: Option<UserId>,
    pub at: Timestamp,
}

impl<'a> WithId<'a, Reservation> {
    /// In the order of the seats.
    pub fn tickets(self) -> impl Iterator<Item = WithId<'a, Ticket>> {
        self.value().tickets.iter().map(move |ticket| WithId::within(self.id.show(), ticket))
    }
}

impl Reservation {
    /// Whether it has seats, or may have them.
    pub fn is_live(&self) -> bool {
        matches!(self.status, ReservationStatus::Reserved | ReservationStatus::Paid)
    }

    pub fn origin(&self) -> Option<Origin> {
        self.origin.map(|bytes| Origin(u64::from_ne_bytes(bytes)))
    }

    pub fn has_tickets(&self) -> bool {
        !self.tickets.is_empty()
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
    pub(super) own: [u8; 10],
    pub status: TicketStatus,
    pub seat: u32,
    /// The first of them, where it was admitted more often; [`Show::admission`] tells of it.
    pub(super) admission: Option<Slot>,
}

impl Named for Ticket {
    type Id = TicketId;

    fn own(&self) -> [u8; 10] {
        self.own
    }
}

/// That a ticket was let in, under the scanner's own number for it.
#[derive(Clone, Debug)]
pub struct Admission {
    pub at: Moment,
    pub by: Option<UserId>,
    pub(super) ticket: [u8; 10],
    pub(super) nonce: Box<str>,
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
    /// When the present leader began.
    pub led_at: Moment,
    pub seats: Box<[Seat]>,
    pub reservations: Slab<Reservation>,
    pub payments: Slab<Payment>,
    pub refunds: Slab<Refund>,
    /// Payments that no entry tells of but the one that gives their money back.
    pub strays: BTreeSet<PaymentId>,
    /// Seats off sale, with the reason.
    pub blocks: BTreeMap<u32, String>,
    /// Categories that stand in the journal, but not among the prices.
    pub(super) more_categories: Vec<Box<str>>,
    /// Each ticket's reservation, and its place there.
    pub(super) tickets: Index<(Slot, u32)>,
    pub(super) buyers: Buyers,
    /// Whoever was let in, found by nonce.
    pub(super) admissions: Vec<Admission>,
    pub(super) nonces: Index<Slot>,
    pub(super) keys: Keys,
    /// Unpaid reservations by deadline.
    pub(super) deadlines: BTreeSet<(Moment, Slot)>,
}

impl Show {
    pub fn id(&self) -> ShowId {
        self.plan.facts.show
    }

    /// The reservation and ticket of a ticket id.
    pub fn ticket(&self, id: TicketId) -> Option<(WithId<'_, Reservation>, WithId<'_, Ticket>)> {
        let (slot, at) = self.ticket_place(id)?;
        let reservation = self.reservations.at(slot);
        let ticket = reservation.value().tickets.get(at as usize)?;
        Some((reservation, WithId::within(self.id(), ticket)))
    }

    pub(super) fn ticket_place(&self, id: TicketId) -> Option<(Slot, u32)> {
        let own = Some(id.own()).filter(|_| id.show() == self.id());
        self.tickets.find(hash(own), |place| ticket_at(&self.reservations, place) == own)
    }

    pub fn admission(&self, ticket: &Ticket) -> Option<&Admission> {
        ticket.admission.map(|slot| &self.admissions[slot.at()])
    }

    /// The ticket that was let in under this nonce.
    pub(super) fn admitted_by(&self, nonce: &str) -> Option<TicketId> {
        let slot = self.nonces.find(hash(nonce), |slot| *self.admissions[slot.at()].nonce == *nonce)?;
        Some(TicketId::within(self.id(), self.admissions[slot.at()].ticket))
    }

    /// Oldest first.
    pub fn payments_of(&self, reservation: &Reservation) -> impl Iterator<Item = WithId<'_, Payment>> {
        let slots = std::iter::successors(reservation.payments, |slot| self.payments[*slot].next);
        slots.map(|slot| self.payments.at(slot))
    }

    /// What a payment is for.
    pub fn reservation_of(&self, payment: &Payment) -> WithId<'_, Reservation> {
        self.reservations.at(payment.reservation)
    }

    /// What a refund gives back.
    pub fn payment_of(&self, refund: &Refund) -> WithId<'_, Payment> {
        self.payments.at(refund.payment)
    }

    /// One seat as it is now, and whose it is.
    pub fn seat_state(&self, seat: u32) -> SeatState {
        let state = self.seats[seat as usize];
        match (state.status(), state.taken_by()) {
            (SeatStatus::Held, Some(by)) => SeatState::Held(self.reservations.at(by).id),
            (SeatStatus::Sold, Some(to)) => SeatState::Sold(self.reservations.at(to).id),
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
        contact: Option<ContactDigest>,
    ) -> impl Iterator<Item = WithId<'a, Reservation>> + use<'a> {
        let (buyers, all) = (&self.buyers, &self.reservations);
        let own = customer.map(|customer| buyers.of_customer(all, customer));
        let same = contact.map(|contact| buyers.of_contact(all, contact));
        let others = same.into_iter().flatten();
        let others = others.filter(move |r| customer.is_none() || r.customer != customer);
        own.into_iter().flatten().chain(others)
    }

    /// Seats held or bought by the customer, or for the same contact.
    pub fn seats_of(&self, customer: Option<UserId>, contact: Option<ContactDigest>) -> usize {
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
        self.deadlines.first().map(|(at, _)| at.time())
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
        self.keys.get(&key.id).map(|used| (used.seq.into(), used.index))
    }
}

/// What of a ticket's id is not the show's.
pub(super) fn ticket_at(all: &Slab<Reservation>, (slot, at): (Slot, u32)) -> Option<[u8; 10]> {
    all[slot].tickets.get(at as usize).map(|ticket| ticket.own)
}
