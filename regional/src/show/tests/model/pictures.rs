//! What can be seen of a show: drawn from the core and from the model in the same form, for comparing.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use super::slow::Slow;

#[derive(Debug, PartialEq)]
pub struct Picture {
    /// Each seat's status and whose it is.
    pub seats: BTreeMap<String, (SeatStatus, Option<ReservationId>)>,
    pub reservations: BTreeMap<ReservationId, Seen>,
    /// Status and how much went back.
    pub payments: BTreeMap<PaymentId, (PaymentStatus, i64, i64)>,
    pub refunds: BTreeMap<RefundId, (PaymentId, i64, RefundStatus)>,
    pub strays: BTreeSet<PaymentId>,
    pub next_deadline: Option<Timestamp>,
    pub canceled: bool,
    pub starts_at: Timestamp,
    pub on_sale_at: Option<Timestamp>,
}

#[derive(Debug, PartialEq)]
pub struct Seen {
    pub status: ReservationStatus,
    /// Name, category, price.
    pub seats: Vec<(String, String, i64)>,
    pub total: i64,
    pub expires_at: Timestamp,
    pub waived: Vec<Rule>,
    /// Seat and status.
    pub tickets: Vec<(String, TicketStatus)>,
}

pub fn of_show(show: &Show) -> Picture {
    let name = |seat: u32| show.plan.place(seat).name.to_owned();
    let seats = (0..).zip(show.seat_states()).map(|(seat, state)| {
        let owner = match state {
            SeatState::Held(id) | SeatState::Sold(id) => Some(id),
            SeatState::Free | SeatState::Blocked => None,
        };
        (name(seat), (state.status(), owner))
    });
    let seen = |r: WithId<'_, Reservation>| Seen {
        status: r.status,
        seats: r
            .seats
            .iter()
            .map(|l| (name(l.seat), show.category(l.category).to_owned(), l.amount))
            .collect(),
        total: r.total_minor(),
        expires_at: r.expires_at.time(),
        waived: r.waivers.iter().map(|w| w.rule).collect(),
        tickets: r.tickets().map(|t| (name(t.seat), t.status)).collect(),
    };
    Picture {
        seats: seats.collect(),
        reservations: show.reservations.values().map(|r| (r.id, seen(r))).collect(),
        payments: show.payments.values().map(|p| (p.id, (p.status, p.amount, p.refunded))).collect(),
        strays: show.strays.clone(),
        refunds: show
            .refunds
            .values()
            .map(|r| (r.id, (show.payment_of(&r).id, r.amount, r.status)))
            .collect(),
        next_deadline: show.next_deadline(),
        canceled: show.status == ShowStatus::Canceled,
        starts_at: show.starts_at,
        on_sale_at: show.on_sale_at,
    }
}

pub fn of_model(slow: &Slow) -> Picture {
    let seen = |b: &super::slow::Booking| Seen {
        status: b.status,
        seats: b.seats.clone(),
        total: (if b.seats.is_empty() { &b.lost } else { &b.seats }).iter().map(|line| line.2).sum(),
        expires_at: b.expires_at,
        waived: b.waived.clone(),
        tickets: b.tickets.iter().map(|t| (t.seat.clone(), t.status)).collect(),
    };
    Picture {
        seats: slow.seats.iter().map(|(name, seat)| (name.clone(), (seat.status, seat.owner))).collect(),
        reservations: slow.bookings.iter().map(|(id, b)| (*id, seen(b))).collect(),
        payments: slow.statuses(),
        strays: slow.strays.clone(),
        refunds: slow.refunds.iter().map(|(id, r)| (*id, (r.payment, r.amount, r.status))).collect(),
        next_deadline: slow.next_deadline(),
        canceled: slow.canceled,
        starts_at: slow.starts_at,
        on_sale_at: slow.on_sale_at,
    }
}

/// Everything that a show knows, also what cannot be seen from outside, in a fixed order.
pub fn whole(show: &Show) -> String {
    format!(
        "{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
        (show.status, show.starts_at, show.on_sale_at, show.seq, show.last_at),
        (&show.seats, &show.more_categories),
        show.reservations,
        show.payments,
        show.refunds,
        (&show.blocks, &show.strays),
        (&show.deadlines, &show.keys),
        &show.admissions
    )
}
