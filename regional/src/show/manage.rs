//! What staff do to a show: seats off sale, another time, no show at all.

use std::collections::BTreeSet;

use common::RefundId;
use jiff::Timestamp;

use super::command::{ChangeShow, Refusal};
use super::event::{Cancellation, Event, GivenBack};
use super::money::paid_by;
use super::slab::WithId;
use super::state::{Reservation, ReservationStatus, SeatStatus, Show, ShowStatus};

type Decided = Result<Vec<Event>, Refusal>;

/// Takes free seats off sale; those that are so already stay as they are.
pub(super) fn block(show: &Show, names: &[String], reason: &str) -> Decided {
    scheduled(show)?;
    let seats = named(show, names)?;
    let state = |seat: &u32| show.seats[*seat as usize].status();
    let taken = |seat: &&u32| matches!(state(seat), SeatStatus::Held | SeatStatus::Sold);
    let unavailable: Vec<String> =
        seats.iter().filter(taken).map(|seat| show.plan.place(*seat).name.to_owned()).collect();
    if !unavailable.is_empty() {
        return Err(Refusal::SeatsUnavailable(unavailable));
    }
    let seats: Vec<u32> = seats.into_iter().filter(|seat| state(seat) == SeatStatus::Free).collect();
    Ok(if seats.is_empty() { Vec::new() } else { vec![Event::Blocked { seats, reason: reason.to_owned() }] })
}

/// Puts seats on sale again; those that are not blocked stay as they are.
pub(super) fn unblock(show: &Show, names: &[String]) -> Decided {
    let seats = named(show, names)?;
    let seats: Vec<u32> =
        seats.into_iter().filter(|s| show.seats[*s as usize].status() == SeatStatus::Blocked).collect();
    Ok(if seats.is_empty() { Vec::new() } else { vec![Event::Unblocked { seats }] })
}

fn named(show: &Show, names: &[String]) -> Result<BTreeSet<u32>, Refusal> {
    if names.is_empty() {
        return Err(Refusal::NoSeats);
    }
    let unknown: Vec<String> = names.iter().filter(|name| show.plan.seat(name).is_none()).cloned().collect();
    if unknown.is_empty() {
        Ok(names.iter().filter_map(|name| show.plan.seat(name)).collect())
    } else {
        Err(Refusal::UnknownSeats(unknown))
    }
}

/// Another time; a show that has begun keeps its own.
pub(super) fn change(show: &Show, command: &ChangeShow, now: Timestamp) -> Decided {
    scheduled(show)?;
    if now >= show.starts_at {
        return Err(Refusal::WrongState("the show has begun"));
    }
    let mut events = Vec::new();
    if let Some(starts_at) = command.starts_at.filter(|at| *at != show.starts_at) {
        events.push(Event::Rescheduled { starts_at, was: Some(show.starts_at) });
    }
    if let Some(on_sale_at) = command.on_sale_at.filter(|at| *at != show.on_sale_at) {
        events.push(Event::OnSaleChanged { on_sale_at, was: show.on_sale_at });
    }
    Ok(events)
}

/// Ends the sale for good. What was sold is canceled by [`cancel_rest`], so that a full hall is not one entry.
pub(super) fn cancel_show(show: &Show, reason: &str) -> Decided {
    match show.status {
        ShowStatus::Scheduled => Ok(vec![Event::ShowCanceled { reason: reason.to_owned() }]),
        ShowStatus::Canceled => Ok(Vec::new()),
    }
}

fn scheduled(show: &Show) -> Result<(), Refusal> {
    match show.status {
        ShowStatus::Scheduled => Ok(()),
        ShowStatus::Canceled => Err(Refusal::WrongState("the show is canceled")),
    }
}

/// Everything back to everybody, a few at a time: a repeat goes on where the last one ended. A reservation
/// with a payment under way waits for its outcome.
pub(super) fn cancel_rest(show: &Show, limit: usize, chance: u32, now: Timestamp) -> Decided {
    if show.status != ShowStatus::Canceled {
        return Err(Refusal::WrongState("the show is not canceled"));
    }
    let left = show.left_to_cancel().take(limit).enumerate();
    Ok(left
        .map(|(n, reservation)| {
            let chance = chance.wrapping_add(u32::try_from(n).unwrap_or(u32::MAX));
            let id = RefundId::new(show.plan.facts.show, now, chance);
            let refund = paid_by(show, &reservation)
                .filter(|payment| payment.remainder() > 0)
                .map(|payment| GivenBack { refund: id, payment: payment.id, amount: payment.remainder() });
            let seats = reservation.seats.iter().map(|line| line.seat).collect();
            Event::Canceled(Cancellation { reservation: reservation.id, seats, refund, was: None })
        })
        .collect())
}

impl Show {
    /// Of a canceled show, the live reservations that can be canceled now.
    pub fn left_to_cancel(&self) -> impl Iterator<Item = WithId<'_, Reservation>> {
        self.reservations.values().filter(|reservation| {
            let live = matches!(reservation.status, ReservationStatus::Reserved | ReservationStatus::Paid);
            live && !self.payments_of(reservation).any(|payment| payment.is_open())
        })
    }
}
