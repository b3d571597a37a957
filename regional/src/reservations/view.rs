//! What the API says of a reservation.

use common::{CinemaId, Money, PaymentId, ReservationId, ShowId, TicketId, UserId};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::halls::layout::SeatType;
use crate::show::{Event, Group, Reservation, ReservationStatus, SeatLine, Show, TicketStatus, Waiver};
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
    pub contact_email: Option<String>,
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
#[derive(Clone, Debug, Serialize, ToSchema)]
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
    pub fn of(show: &Show, reservation: &Reservation) -> Self {
        let plan = &show.plan;
        let lines = if reservation.seats.is_empty() { &reservation.given_up } else { &reservation.seats };
        let left = reservation.expires_at.duration_since(Timestamp::now()).as_secs();
        let open = reservation.status == ReservationStatus::Reserved;
        Self {
            id: reservation.id,
            reference: reservation.reference.clone(),
            show_id: plan.facts.show,
            status: reservation.status,
            seats: lines.iter().map(|line| reserved_seat(show, line)).collect(),
            total: plan.money(reservation.total_minor()),
            created_at: reservation.created_at,
            expires_at: reservation.expires_at,
            expires_in_seconds: if open { left.max(0) } else { 0 },
            customer_id: reservation.customer,
            contact_email: reservation.contact.clone(),
            payments: reservation.payments.clone(),
            tickets: reservation
                .tickets
                .iter()
                .map(|t| TicketBrief { id: t.id, seat: plan.place(t.seat).name.clone(), status: t.status })
                .collect(),
            waivers: reservation.waivers.clone(),
            show: ShowBrief::of(show),
        }
    }

    /// As it was when this group made it: the first answer, however it went on since.
    pub fn first(show: &Show, group: &Group) -> Option<Self> {
        group.events.iter().find_map(|event| match event {
            Event::Reserved { .. } => {
                Reservation::begun(event, group).map(|reservation| Self::of(show, &reservation))
            }
            _ => None,
        })
    }
}

fn reserved_seat(show: &Show, line: &SeatLine) -> ReservedSeat {
    let place = show.plan.place(line.seat);
    ReservedSeat {
        seat: place.name.clone(),
        kind: place.kind,
        category: line.category.clone(),
        price: show.plan.money(line.amount),
    }
}

/// A stored view, with the seconds left as of now (where it tells them).
pub fn refreshed(mut view: serde_json::Value) -> serde_json::Value {
    if view.get("expires_in_seconds").is_none() {
        return view;
    }
    let left = match (view["status"].as_str(), view["expires_at"].as_str().map(str::parse::<Timestamp>)) {
        (Some("reserved"), Some(Ok(at))) => at.duration_since(Timestamp::now()).as_secs().max(0),
        _ => 0,
    };
    view["expires_in_seconds"] = left.into();
    view
}
