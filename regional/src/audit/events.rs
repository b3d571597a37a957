//! What a show's journal has for the audit log. Pure: the same entry gives the same lines, ids included, wherever
//! and whenever it is read.

use common::{AuditId, ReservationId, ShowId};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Line;
use crate::show::{Cancellation, Created, Event, Group, Show};

/// A group of which something may be told, with its place in the journal.
#[derive(Clone, Debug)]
pub struct Audited {
    pub seq: u64,
    pub index: usize,
    pub group: Group,
}

/// Those of an entry's groups that are worth a look; `news`: for what customers are told, too.
pub fn worth_telling<'a>(
    seq: u64,
    groups: impl IntoIterator<Item = &'a Group>,
    news: bool,
) -> impl Iterator<Item = Audited> {
    let told = |group: &Group| group.by.is_some() && group.events.iter().any(Event::is_told_to_audit);
    let is_news = move |group: &Group| news && group.events.iter().any(crate::notices::is_news);
    let of_people = groups.into_iter().enumerate().filter(move |(_, group)| told(group) || is_news(group));
    of_people.map(move |(index, group)| Audited { seq, index, group: group.clone() })
}

/// The lines of a group; `show` is the state with it, or after it.
pub fn lines(show: &Show, audited: &Audited) -> Vec<Line> {
    let Audited { seq, index, group } = audited;
    if group.by.is_none() {
        return Vec::new();
    }
    let id = show.plan.facts.show;
    let told = group.events.iter().enumerate().filter_map(|(n, event)| {
        let (action, target, before, after) = told(show, group, event)?;
        Some(Line {
            id: AuditId(event_id(PURPOSE, id, *seq, *index, n, group.at)),
            at: group.at,
            actor: group.by,
            action,
            target,
            before,
            after,
            address: group.from.clone().unwrap_or_default(),
            region: show.plan.facts.home.clone(),
        })
    });
    told.collect()
}

type Told = (&'static str, String, Option<Value>, Option<Value>);

/// None: the customers' own business.
fn told(show: &Show, group: &Group, event: &Event) -> Option<Told> {
    let id = show.plan.facts.show.to_string();
    let names = |seats: &[u32]| -> Vec<&str> { seats.iter().map(|s| show.plan.place(*s).name).collect() };
    Some(match event {
        Event::Created(facts) => ("show.create", id, None, Some(created(facts))),
        Event::Rescheduled { starts_at, was } => {
            let before = was.map(|was| json!({ "starts_at": was }));
            ("show.reschedule", id, before, Some(json!({ "starts_at": starts_at })))
        }
        Event::OnSaleChanged { on_sale_at, was } => {
            let (before, after) = (json!({ "on_sale_at": was }), json!({ "on_sale_at": on_sale_at }));
            ("show.on_sale", id, Some(before), Some(after))
        }
        Event::ShowCanceled { reason } => {
            let after = json!({ "status": "canceled", "reason": plain(reason) });
            ("show.cancel", id, Some(json!({ "status": "scheduled" })), Some(after))
        }
        Event::Blocked { seats, reason } => {
            let after = json!({ "seats": names(seats), "status": "blocked", "reason": plain(reason) });
            ("show.block", id, Some(json!({ "status": "free" })), Some(after))
        }
        Event::Unblocked { seats } => {
            let after = json!({ "seats": names(seats), "status": "free" });
            ("show.unblock", id, Some(json!({ "status": "blocked" })), Some(after))
        }
        // Why is for the customer, in words that may name one; it stays in the journal.
        Event::RefundStarted { refund, payment, amount, release, was, .. } => {
            let before = was.map(|was| json!({ "refunded": show.plan.money(was) }));
            let after =
                json!({ "refund_id": refund, "amount": show.plan.money(*amount), "frees_seats": release });
            ("payment.refund", payment.to_string(), before, Some(after))
        }
        Event::Canceled(Cancellation { reservation, seats, refund, was })
            if !is_own(show, group, *reservation) =>
        {
            let refund = refund.as_ref().map(|back| {
                json!({ "refund_id": back.refund, "payment_id": back.payment, "amount": show.plan.money(back.amount) })
            });
            let before = was.as_ref().map(|was| json!({ "status": was.status, "seats": names(&was.seats) }));
            let after = json!({ "seats_given_up": names(seats), "refund": refund });
            ("reservation.cancel", reservation.to_string(), before, Some(after))
        }
        Event::Reserved { reservation, seats, waived, .. }
        | Event::SeatsChanged { reservation, seats, waived }
            if !waived.is_empty() =>
        {
            let seats: Vec<u32> = seats.iter().map(|line| line.seat).collect();
            let after = json!({ "seats": names(&seats), "waived": waived });
            ("reservation.waive", reservation.to_string(), None, Some(after))
        }
        Event::CheckedIn { ticket, at, forced: true, .. } => {
            ("ticket.force_check_in", ticket.to_string(), None, Some(json!({ "admitted_at": at })))
        }
        _ => return None,
    })
}

fn is_own(show: &Show, group: &Group, reservation: ReservationId) -> bool {
    show.reservations.get(&reservation).is_some_and(|r| r.customer.is_some() && r.customer == group.by)
}

fn created(facts: &Created) -> Value {
    json!({
        "cinema_id": facts.cinema, "hall_id": facts.hall, "layout_version": facts.layout_version,
        "movie_id": facts.movie, "starts_at": facts.starts_at, "on_sale_at": facts.on_sale_at,
        "currency": facts.currency, "prices": facts.prices, "refund_tiers": facts.refund_tiers,
        "max_seats_per_customer": facts.max_seats_per_customer, "single_gap_rule": facts.single_gap_rule,
        "hold_secs": facts.hold_secs,
    })
}

/// No NUL, which Postgres does not take in JSON, nor any other control character.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

const PURPOSE: &str = "marquee audit line of a show's event";

/// A UUIDv7 of the event's time, and a digest of its place and of what the id is for.
pub fn event_id(purpose: &str, show: ShowId, seq: u64, index: usize, n: usize, at: Timestamp) -> Uuid {
    let mut place = Sha256::new();
    place.update(purpose.as_bytes());
    place.update(show.0.as_bytes());
    for number in [seq, index as u64, n as u64] {
        place.update(number.to_be_bytes());
    }
    let mut digest = [0; 10];
    digest.copy_from_slice(&place.finalize()[..10]);
    let millis = u64::try_from(at.as_millisecond()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &digest).into_uuid()
}
