//! What a show's journal folds to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use common::{Money, PaymentId, RefundId, ReservationId, TicketId, UserId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::{Created, Key, SeatLine};
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
    Blocked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
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
    pub payments: Vec<PaymentId>,
    pub tickets: Vec<Ticket>,
}

impl Reservation {
    /// The price of the seats it holds, or held when it ended.
    pub fn total_minor(&self) -> i64 {
        let lines = if self.seats.is_empty() { &self.given_up } else { &self.seats };
        lines.iter().map(|line| line.amount).sum()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
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
    pub started_at: Timestamp,
    pub settled_at: Option<Timestamp>,
}

impl Payment {
    /// Whether the provider may still move money under it.
    pub fn is_open(&self) -> bool {
        self.status == PaymentStatus::Pending
    }

    pub fn remainder(&self) -> i64 {
        self.amount - self.refunded
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

/// What never changes once a show is created; shared by all copies of its state.
#[derive(Debug)]
pub struct Plan {
    pub facts: Created,
    pub places: Vec<Place>,
    by_name: HashMap<String, u32>,
}

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
        Self { facts, places, by_name }
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
    /// The number of the last entry folded in.
    pub seq: u64,
    /// The time of the last entry; the next is not before it.
    pub last_at: Timestamp,
    pub seats: Vec<SeatState>,
    pub reservations: BTreeMap<ReservationId, Reservation>,
    pub payments: BTreeMap<PaymentId, Payment>,
    pub refunds: BTreeMap<RefundId, Refund>,
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

    /// Seats that the customer holds or has bought.
    pub fn seats_of(&self, customer: UserId) -> usize {
        let own = self.reservations.values().filter(|r| r.customer == Some(customer));
        own.map(|r| r.seats.len()).sum()
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
