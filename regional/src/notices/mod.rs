//! What customers are told of what happened in shows' journals: that an order is paid, that a show is canceled.
//! `global` knows who wants to be told, and where; what leaves the region says what, when and which seats.
//!
//! Invariant: derived from the journal as the audit log's lines are (`audit`): with the read models of the same entry,
//! by every region that keeps the journal, under an id of the event's place, so that one of each is sent.

mod outbox;
mod sender;
#[cfg(test)]
mod tests;

use common::UserId;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::audit::{Audited, event_id};
use crate::show::{Event, Reservation, Show, ShowStatus, WithId};
use crate::shows::view::local_text;

pub use outbox::put;
pub use sender::run;

/// Of an older event nobody is told any more: read models that are rebuilt fold years.
pub const NEWS: SignedDuration = SignedDuration::from_hours(72);

#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    pub id: Uuid,
    pub at: Timestamp,
    pub customer: UserId,
    pub kind: &'static str,
    pub reference: String,
    pub title: String,
    /// By the cinema's clock.
    pub starts_at: String,
    pub cinema: String,
    pub seats: Vec<String>,
}

/// Whether a customer may have to be told of it.
pub fn is_news(event: &Event) -> bool {
    matches!(event, Event::PaymentCompleted { .. } | Event::Canceled(_))
}

/// The notices of a group; `show` is the state with it, or after it.
pub fn notices(show: &Show, audited: &Audited) -> Vec<Notice> {
    let Audited { seq, index, group } = audited;
    let told = group.events.iter().enumerate().filter_map(|(n, event)| {
        let (kind, reservation) = match event {
            Event::PaymentCompleted { payment, .. } => {
                ("order_confirmed", show.reservation_of(show.payments.get(payment)?.value()))
            }
            // By nobody: the system, which cancels only what a show that was called off leaves.
            Event::Canceled(cancellation) if group.by.is_none() && show.status == ShowStatus::Canceled => {
                ("show_canceled", show.reservations.get(&cancellation.reservation)?)
            }
            _ => return None,
        };
        let id =
            event_id("marquee notice of a show's event", show.plan.facts.show, *seq, *index, n, group.at);
        notice(show, reservation, kind, id, group.at)
    });
    told.collect()
}

/// None: nobody with an account, or nothing that was paid for.
fn notice(
    show: &Show,
    reservation: WithId<'_, Reservation>,
    kind: &'static str,
    id: Uuid,
    at: Timestamp,
) -> Option<Notice> {
    let facts = &show.plan.facts;
    let seats: Vec<String> =
        reservation.tickets().map(|ticket| show.plan.place(ticket.seat).name.to_owned()).collect();
    let customer = reservation.customer.filter(|_| !seats.is_empty())?;
    Some(Notice {
        id,
        at,
        customer,
        kind,
        reference: reservation.reference.to_string(),
        title: facts.title.clone(),
        starts_at: local_text(show.starts_at, &facts.time_zone),
        cinema: facts.cinema_name.clone(),
        seats,
    })
}
