//! What the API says of a reservation.

use common::{CinemaId, Currency, Money, PaymentId, ReservationId, ShowId, TicketId, UserId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::halls::layout::SeatType;
use crate::show::{
    Contact, Event, Group, Line, Reservation, ReservationStatus, Show, TicketStatus, Waiver, WithId,
};
use crate::shows::view::local_text;

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReservationView {
    pub id: ReservationId,
    /// Short, for people.
    #[schema(example = "K7QM2XPD")]
    pub reference: String,
    pub show_id: ShowId,
    pub status: ReservationStatus,
    pub seats: Vec<ReservedSeat>,
    pub total: Money,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// Seconds left to pay, by our clock; 0 once it is over.
    pub expires_in_seconds: i64,
    pub customer_id: Option<UserId>,
    /// Absent once its key is destroyed; to others than the customer also while the keys cannot be had.
    pub contact_email: Option<String>,
    /// What `contact_email` is opened from ([`crate::contacts`]).
    #[serde(skip)]
    pub sealed: Option<Contact>,
    pub payments: Vec<PaymentId>,
    pub tickets: Vec<TicketBrief>,
    /// Rules that staff set aside for it: which, who and when.
    pub waivers: Vec<Waiver>,
    pub show: ShowBrief,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReservedSeat {
    #[schema(example = "A1")]
    pub seat: String,
    #[serde(rename = "type")]
    pub kind: SeatType,
    #[schema(example = "adult")]
    pub category: String,
    pub price: Money,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TicketBrief {
    pub id: TicketId,
    #[schema(example = "A1")]
    pub seat: String,
    pub status: TicketStatus,
}

/// Enough of the show to print on a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ShowBrief {
    pub title: String,
    pub cinema_id: CinemaId,
    pub cinema_name: String,
    pub hall_name: String,
    pub starts_at: Timestamp,
    pub starts_at_local: String,
}

impl ShowBrief {
    pub fn of(show: &Show) -> Self {
        let facts = &show.plan.facts;
        Self {
            title: facts.title.clone(),
            cinema_id: facts.cinema,
            cinema_name: facts.cinema_name.clone(),
            hall_name: facts.hall_name.clone(),
            starts_at: show.starts_at,
            starts_at_local: local_text(show.starts_at, &facts.time_zone),
        }
    }
}

impl ReservationView {
    pub fn of(show: &Show, reservation: WithId<'_, Reservation>) -> Self {
        let plan = &show.plan;
        let lines = if reservation.seats.is_empty() { &reservation.given_up } else { &reservation.seats };
        Self {
            id: reservation.id,
            reference: reservation.reference.to_string(),
            show_id: plan.facts.show,
            status: reservation.status,
            seats: lines.iter().map(|line| reserved_seat(show, line)).collect(),
            total: plan.money(reservation.total_minor()),
            created_at: reservation.created_at.time(),
            expires_at: reservation.expires_at.time(),
            expires_in_seconds: seconds_left(reservation.status, reservation.expires_at.time()),
            customer_id: reservation.customer,
            contact_email: None,
            sealed: reservation.contact.clone(),
            payments: show.payments_of(&reservation).map(|payment| payment.id).collect(),
            tickets: reservation
                .tickets()
                .map(|t| TicketBrief { id: t.id, seat: plan.place(t.seat).name.to_owned(), status: t.status })
                .collect(),
            waivers: reservation.waivers.to_vec(),
            show: ShowBrief::of(show),
        }
    }

    /// As it was when this group made it: the first answer, however it went on since.
    pub fn first(show: &Show, group: &Group) -> Option<Self> {
        group.events.iter().find_map(|event| match event {
            Event::Reserved { seats, .. } => {
                // It is folded in, so the show knows all that it names.
                let lines = seats.iter().filter_map(|line| show.line(line)).collect();
                Reservation::begun(event, group, lines)
                    .map(|reservation| Self::of(show, WithId::within(show.id(), &reservation)))
            }
            _ => None,
        })
    }
}

fn reserved_seat(show: &Show, line: &Line) -> ReservedSeat {
    let place = show.plan.place(line.seat);
    ReservedSeat {
        seat: place.name.to_owned(),
        kind: place.kind,
        category: show.category(line.category).to_owned(),
        price: show.plan.money(line.amount),
    }
}

/// What the read model keeps of a reservation beside its columns; short names, since it is written for each.
#[derive(Debug, Serialize, Deserialize)]
pub struct Rest {
    /// Seats: name, type, category, price in minor units.
    s: Vec<(String, SeatType, String, i64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    p: Vec<PaymentId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    t: Vec<(TicketId, String, TicketStatus)>,
    /// Rules that staff set aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    w: Vec<Waiver>,
}

impl Rest {
    pub fn of(show: &Show, reservation: WithId<'_, Reservation>) -> Self {
        let name = |seat: u32| show.plan.place(seat).name.to_owned();
        let seat = |line: &Line| {
            let category = show.category(line.category).to_owned();
            (name(line.seat), show.plan.place(line.seat).kind, category, line.amount)
        };
        let lines = if reservation.seats.is_empty() { &reservation.given_up } else { &reservation.seats };
        Self {
            s: lines.iter().map(seat).collect(),
            p: show.payments_of(&reservation).map(|payment| payment.id).collect(),
            t: reservation.tickets().map(|t| (t.id, name(t.seat), t.status)).collect(),
            w: reservation.waivers.to_vec(),
        }
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }
}

/// A reservation's row, with what its show tells.
pub struct Stored {
    pub id: ReservationId,
    pub reference: String,
    pub status: ReservationStatus,
    pub customer: Option<UserId>,
    pub contact: Option<Contact>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub rest: Rest,
    pub show: ShowBrief,
    pub currency: Currency,
}

impl From<Stored> for ReservationView {
    fn from(stored: Stored) -> Self {
        let money = |amount: i64| Money::new(amount, stored.currency);
        Self {
            id: stored.id,
            reference: stored.reference,
            show_id: stored.id.show(),
            status: stored.status,
            total: money(stored.rest.s.iter().map(|(_, _, _, amount)| amount).sum()),
            seats: stored
                .rest
                .s
                .into_iter()
                .map(|(seat, kind, category, amount)| ReservedSeat {
                    seat,
                    kind,
                    category,
                    price: money(amount),
                })
                .collect(),
            created_at: stored.created_at,
            expires_at: stored.expires_at,
            expires_in_seconds: seconds_left(stored.status, stored.expires_at),
            customer_id: stored.customer,
            contact_email: None,
            sealed: stored.contact,
            payments: stored.rest.p,
            tickets: stored
                .rest
                .t
                .into_iter()
                .map(|(id, seat, status)| TicketBrief { id, seat, status })
                .collect(),
            waivers: stored.rest.w,
            show: stored.show,
        }
    }
}

/// By our clock; 0 once it is over.
fn seconds_left(status: ReservationStatus, expires_at: Timestamp) -> i64 {
    match status {
        ReservationStatus::Reserved => expires_at.duration_since(Timestamp::now()).as_secs().max(0),
        _ => 0,
    }
}
