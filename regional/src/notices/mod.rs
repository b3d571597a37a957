//! What people are told of what happened in shows' journals: that an order is paid, that a show is canceled or has another
//! time. `global` knows where an account is told, and whether by message too; what leaves the region says what, when
//! and which seats.
//!
//! Invariant: derived from the journal as the audit log's lines are (`audit`): with the read models of the same entry,
//! by every region that keeps the journal, under an id of the event's place, so that one of each is sent. The address
//! of somebody without an account is sealed here, until it is told.

mod outbox;
mod sender;
#[cfg(test)]
mod tests;

use common::{ReservationId, UserId};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::audit::{Audited, event_id};
use crate::show::{
    Contact, Event, Reservation, ReservationStatus, Show, ShowStatus, Ticket, TicketStatus, WithId,
};
use crate::shows::view::local_text;

pub use outbox::put;
pub use sender::run;

/// Of an older event nobody is told any more: read models that are rebuilt fold years.
pub const NEWS: SignedDuration = SignedDuration::from_hours(72);

/// Whom a notice is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Hearer {
    Customer(UserId),
    /// Somebody without an account; the address, sealed.
    Guest(Contact),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    pub id: Uuid,
    pub at: Timestamp,
    pub hearer: Hearer,
    pub kind: &'static str,
    pub reservation: ReservationId,
    pub reference: String,
    pub title: String,
    /// By the cinema's clock.
    pub starts_at: String,
    /// Before it had another time; by the cinema's clock.
    pub was_starts_at: Option<String>,
    pub cinema: String,
    pub seats: Vec<String>,
}

/// Whether somebody may have to be told of it.
pub fn is_news(event: &Event) -> bool {
    matches!(event, Event::PaymentCompleted { .. } | Event::Canceled(_) | Event::Rescheduled { .. })
}

/// The notices of a group; `show` is the state with it, or after it.
pub fn notices(show: &Show, audited: &Audited) -> Vec<Notice> {
    let Audited { seq, index, group } = audited;
    let told = group.events.iter().enumerate().flat_map(|(n, event)| -> Vec<Notice> {
        let id = |purpose: &str| event_id(purpose, show.plan.facts.show, *seq, *index, n, group.at);
        match event {
            Event::PaymentCompleted { payment, .. } => {
                let paid = show.payments.get(payment).map(|payment| show.reservation_of(payment.value()));
                let told = |paid| notice(show, paid, "order_confirmed", id(PURPOSE), group.at, |_| true);
                paid.and_then(told).into_iter().collect()
            }
            // By nobody: the system, which cancels only what a show that was called off leaves.
            Event::Canceled(cancellation) if group.by.is_none() && show.status == ShowStatus::Canceled => {
                let canceled = show.reservations.get(&cancellation.reservation);
                let lost = |ticket: &Ticket| cancellation.seats.contains(&ticket.seat);
                let told = |canceled| notice(show, canceled, "show_canceled", id(PURPOSE), group.at, lost);
                canceled.and_then(told).into_iter().collect()
            }
            Event::Rescheduled { starts_at, was } => {
                let zone = &show.plan.facts.time_zone;
                let held = show.reservations.values().filter(|held| had_tickets(show, held, group.at));
                held.filter_map(|held| {
                    let id = id(&format!("{PURPOSE}, for {}", held.id));
                    let notice = notice(show, held, "show_rescheduled", id, group.at, |ticket| {
                        matches!(ticket.status, TicketStatus::Valid | TicketStatus::Admitted)
                    })?;
                    let starts_at = local_text(*starts_at, zone);
                    let was_starts_at = was.map(|was| local_text(was, zone));
                    Some(Notice { starts_at, was_starts_at, ..notice })
                })
                .collect()
            }
            _ => Vec::new(),
        }
    });
    told.collect()
}

const PURPOSE: &str = "marquee notice of a show's event";

/// Whether it is paid, and was already then: who paid later knew the new time.
fn had_tickets(show: &Show, held: &Reservation, then: Timestamp) -> bool {
    let paid = show.payments_of(held).filter(|payment| !payment.unclaimed).filter_map(|p| p.settled_at);
    held.status == ReservationStatus::Paid && paid.min().is_some_and(|at| at.time() <= then)
}

/// None: nobody who can be told, or nothing that was paid for. `meant`: which of the tickets.
fn notice(
    show: &Show,
    reservation: WithId<'_, Reservation>,
    kind: &'static str,
    id: Uuid,
    at: Timestamp,
    meant: impl Fn(&Ticket) -> bool,
) -> Option<Notice> {
    let facts = &show.plan.facts;
    let tickets = reservation.tickets().filter(|ticket| meant(ticket));
    let seats: Vec<String> = tickets.map(|ticket| show.plan.place(ticket.seat).name.to_owned()).collect();
    if seats.is_empty() {
        return None;
    }
    let hearer = match (reservation.customer, &reservation.contact) {
        (Some(customer), _) => Hearer::Customer(customer),
        (None, Some(contact)) => Hearer::Guest(contact.clone()),
        (None, None) => return None,
    };
    Some(Notice {
        id,
        at,
        hearer,
        kind,
        reservation: reservation.id,
        reference: reservation.reference.to_string(),
        title: facts.title.clone(),
        starts_at: local_text(show.starts_at, &facts.time_zone),
        was_starts_at: None,
        cinema: facts.cinema_name.clone(),
        seats,
    })
}
