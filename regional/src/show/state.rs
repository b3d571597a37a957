//! What a show's journal folds to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use common::{Money, PaymentId, RefundId, ReservationId, TicketId, UserId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::{Created, Key, Origin, Rule, SeatLine};
use crate::halls::layout::SeatType;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReservationStatus {
    Reserved,
    Paid,
    Canceled,
    Expired,
    Refunded,
}

#[derive(Clone, Debug)]
pub struct Reservation {
    pub id: ReservationId,
    pub reference: String,
    pub customer: Option<UserId>,
    pub contact: Option<String>,
    /// What it holds now; empty once it is over.
    pub seats: Vec<SeatLine>,
    /// What it last held, for showing it when it is over.
    pub given_up: Vec<SeatLine>,
    pub status: ReservationStatus,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// Since when its buyer has held seats without paying; before `created_at` where holds follow each other.
    pub held_since: Timestamp,
    pub origin: Option<Origin>,
    pub payments: Vec<PaymentId>,
    pub tickets: Vec<Ticket>,
    /// Rules that staff set aside for it.
    pub waivers: Vec<Waiver>,
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
    pub category: String,
    pub status: TicketStatus,
    pub admission: Option<Admission>,
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
    Failed { reason: String, declined: bool },
}

#[derive(Clone, Debug)]
pub struct Payment {
    pub id: PaymentId,
    pub reservation: ReservationId,
    pub method: Method,
    pub token: Option<String>,
    pub amount: i64,
    pub status: PaymentStatus,
    pub first: Option<FirstResult>,
    /// Why no money moved, where none did.
    pub failure: Option<String>,
    /// Sum of refunds started and not failed.
    pub refunded: i64,
    /// It came for nothing: what it paid for is had by nobody, or by another payment.
    pub unclaimed: bool,
    pub started_at: Timestamp,
    pub settled_at: Option<Timestamp>,
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
    pub reason: String,
    pub status: RefundStatus,
    pub at: Timestamp,
}

impl Refund {
    /// Whether the money is still on its way.
    pub fn is_open(&self) -> bool {
        self.status == RefundStatus::Pending
    }
}

/// A key that was used: what was asked, and where in the journal what it did stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UsedKey {
    pub body: [u8; 16],
    pub seq: u64,
    pub index: u32,
    pub at: Timestamp,
}

/// One seat of the hall, as it does not change.
#[derive(Debug)]
pub struct Place {
    /// `A1`
    pub name: String,
    pub kind: SeatType,
}

/// Where a seat is, in seats to the right and rows from the screen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub x: f32,
    pub y: f32,
}

/// What never changes once a show is created; shared by all copies of its state.
#[derive(Debug)]
pub struct Plan {
    pub facts: Created,
    pub places: Vec<Place>,
    by_name: HashMap<String, u32>,
    spots: Vec<Spot>,
    rows: Vec<Range<u32>>,
    /// The x of the screen's middle; the least and the greatest y.
    middle: f32,
    depth: (f32, f32),
}

/// Seats of a row further apart than this have an aisle between them.
const NEIGHBOURS: f32 = 1.5;

impl Plan {
    pub(super) fn new(facts: Created) -> Self {
        let places: Vec<Place> = facts
            .rows
            .iter()
            .flat_map(|row| {
                row.seats.iter().map(|s| Place { name: format!("{}{}", row.row, s.number), kind: s.kind })
            })
            .collect();
        let by_name = (0..).zip(&places).map(|(index, place)| (place.name.clone(), index)).collect();
        let (mut spots, mut rows) = (Vec::with_capacity(places.len()), Vec::with_capacity(facts.rows.len()));
        for (y, row) in (0_u16..).zip(&facts.rows) {
            let first = spots.len() as u32;
            // Older journals have no places on the map; then a row's seats stand side by side from the left.
            spots.extend((0_u16..).zip(&row.seats).map(|(x, seat)| Spot {
                x: seat.x.unwrap_or_else(|| x.into()),
                y: row.y.unwrap_or_else(|| y.into()),
            }));
            rows.push(first..spots.len() as u32);
        }
        let range = |of: fn(&Spot) -> f32| {
            let values = || spots.iter().map(of);
            (values().fold(f32::INFINITY, f32::min), values().fold(f32::NEG_INFINITY, f32::max))
        };
        let (left, right) = range(|spot| spot.x);
        let depth = range(|spot| spot.y);
        Self { facts, places, by_name, spots, rows, middle: (left + right) / 2.0, depth }
    }

    pub(super) fn rows(&self) -> &[Range<u32>] {
        &self.rows
    }

    pub(super) fn at(&self, seat: u32) -> Spot {
        self.spots[seat as usize]
    }

    pub(super) fn middle(&self) -> f32 {
        self.middle
    }

    pub(super) fn depth(&self) -> (f32, f32) {
        self.depth
    }

    /// The seats directly beside this one, in its row and with no aisle between.
    pub(super) fn beside(&self, seat: u32) -> [Option<u32>; 2] {
        let left = seat.checked_sub(1).filter(|left| self.are_neighbours(*left, seat));
        let right = Some(seat + 1).filter(|right| self.are_neighbours(seat, *right));
        [left, right]
    }

    /// Whether `right` stands directly beside `left`, which is the seat before it.
    pub(super) fn are_neighbours(&self, left: u32, right: u32) -> bool {
        let row = self.rows.partition_point(|row| row.end <= left);
        self.rows.get(row).is_some_and(|row| row.contains(&right))
            && (self.at(right).x - self.at(left).x).abs() <= NEIGHBOURS
    }

    /// The seat's index, from its name.
    pub fn seat(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub fn place(&self, seat: u32) -> &Place {
        &self.places[seat as usize]
    }

    /// The price of a seat for a category of visitor, in minor units.
    pub fn price(&self, seat: u32, category: &str) -> Option<i64> {
        let kind = self.place(seat).kind;
        let line = self.facts.prices.iter().find(|p| p.seat_type == kind && p.category == category);
        line.map(|p| p.amount)
    }

    pub fn money(&self, amount: i64) -> Money {
        Money::new(amount, self.facts.currency)
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
    pub seats: Vec<SeatState>,
    pub reservations: BTreeMap<ReservationId, Reservation>,
    pub payments: BTreeMap<PaymentId, Payment>,
    pub refunds: BTreeMap<RefundId, Refund>,
    /// Seats off sale, with the reason.
    pub blocks: BTreeMap<u32, String>,
    pub(super) ticket_of: HashMap<TicketId, ReservationId>,
    pub(super) nonces: HashMap<String, TicketId>,
    pub(super) keys: HashMap<[u8; 16], UsedKey>,
    /// Keys by age, oldest first, for forgetting them.
    pub(super) keys_by_age: BTreeSet<(Timestamp, [u8; 16])>,
    /// Unpaid reservations by deadline.
    pub(super) deadlines: BTreeSet<(Timestamp, ReservationId)>,
}

impl Show {
    /// The reservation and ticket of a ticket id.
    pub fn ticket(&self, id: TicketId) -> Option<(&Reservation, &Ticket)> {
        let reservation = self.reservations.get(self.ticket_of.get(&id)?)?;
        reservation.tickets.iter().find(|t| t.id == id).map(|t| (reservation, t))
    }

    /// The reservations of the customer, or for the same contact.
    pub fn of_buyer(
        &self,
        customer: Option<UserId>,
        contact: Option<&str>,
    ) -> impl Iterator<Item = &Reservation> {
        self.reservations.values().filter(move |r| {
            let contact =
                contact.is_some_and(|c| r.contact.as_deref().is_some_and(|o| o.eq_ignore_ascii_case(c)));
            contact || (customer.is_some() && r.customer == customer)
        })
    }

    /// Seats held or bought by the customer, or for the same contact.
    pub fn seats_of(&self, customer: Option<UserId>, contact: Option<&str>) -> usize {
        self.of_buyer(customer, contact).map(|r| r.seats.len()).sum()
    }

    /// Seats held or bought from this address, by whomsoever.
    pub fn seats_from(&self, origin: Origin) -> usize {
        self.reservations.values().filter(|r| r.origin == Some(origin)).map(|r| r.seats.len()).sum()
    }

    /// Whether a free seat has no free neighbour, once those in `taken` are. `walls`: the end of a row or an
    /// aisle counts like a taken seat.
    pub(super) fn is_single_gap(&self, seat: u32, taken: &impl Fn(u32) -> bool, walls: bool) -> bool {
        let free = |seat: u32| self.seats[seat as usize] == SeatState::Free && !taken(seat);
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
