//! What the API says of a show, and of its seats.

use common::{CinemaId, HallId, Money, MovieId, RegionName, ShowId};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::halls::layout::SeatType;
use crate::show::{Created, Show, ShowStatus};

/// A hall is busy this long after the film, for people to leave and cleaners to come.
pub const TURNAROUND: SignedDuration = SignedDuration::from_mins(20);

/// Before this local hour a show counts for the business day before.
const BUSINESS_DAY_BEGINS_HOUR: i8 = 6;

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ShowView {
    pub id: ShowId,
    /// The cinema's home region, whoever owns the show today.
    pub region: RegionName,
    pub cinema_id: CinemaId,
    pub cinema_name: String,
    pub hall_id: HallId,
    pub hall_name: String,
    pub layout_version: i32,
    pub movie_id: MovieId,
    pub title: String,
    pub runtime_min: i32,
    pub starts_at: Timestamp,
    /// In the cinema's zone, with its offset.
    #[schema(example = "2026-11-21T20:15:00+01:00")]
    pub starts_at_local: String,
    pub ends_at: Timestamp,
    /// The day it counts for in the books: a show at 01:00 belongs to the evening before.
    #[schema(example = "2026-11-21")]
    pub business_date: String,
    #[schema(example = "Europe/Berlin")]
    pub time_zone: String,
    pub on_sale_at: Option<Timestamp>,
    pub status: ShowStatus,
    pub prices: Vec<PriceView>,
    pub max_seats_per_customer: Option<u32>,
    pub single_gap_rule: bool,
    pub availability: Availability,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PriceView {
    pub seat_type: SeatType,
    #[schema(example = "adult")]
    pub category: String,
    pub amount: Money,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Availability {
    pub total: usize,
    pub free: usize,
    pub held: usize,
    pub sold: usize,
    pub blocked: usize,
}

/// When the film is over.
pub fn ends_at(facts: &Created, starts_at: Timestamp) -> Timestamp {
    starts_at + SignedDuration::from_mins(facts.runtime_min.into())
}

fn local(at: Timestamp, zone: &str) -> Zoned {
    // The zone was checked when the cinema was made; a server without it shows UTC rather than nothing.
    at.to_zoned(TimeZone::get(zone).unwrap_or(TimeZone::UTC))
}

/// RFC 3339 with the zone's offset, to the second.
pub fn local_text(at: Timestamp, zone: &str) -> String {
    local(at, zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// By the clock on the cinema's wall: on the day when clocks change, six o'clock is not six hours after midnight.
fn business_date(at: Timestamp, zone: &str) -> String {
    let local = local(at, zone);
    let date = local.date();
    let evening_before = local.hour() < BUSINESS_DAY_BEGINS_HOUR;
    let date = if evening_before { date.yesterday().unwrap_or(date) } else { date };
    date.to_string()
}

impl ShowView {
    pub fn of(show: &Show) -> Self {
        let facts = &show.plan.facts;
        let [free, held, sold, blocked] = show.counts();
        Self {
            id: facts.show,
            region: facts.home.clone(),
            cinema_id: facts.cinema,
            cinema_name: facts.cinema_name.clone(),
            hall_id: facts.hall,
            hall_name: facts.hall_name.clone(),
            layout_version: facts.layout_version,
            movie_id: facts.movie,
            title: facts.title.clone(),
            runtime_min: facts.runtime_min,
            starts_at: show.starts_at,
            starts_at_local: local_text(show.starts_at, &facts.time_zone),
            ends_at: ends_at(facts, show.starts_at),
            business_date: business_date(show.starts_at, &facts.time_zone),
            time_zone: facts.time_zone.clone(),
            on_sale_at: show.on_sale_at,
            status: show.status,
            prices: facts
                .prices
                .iter()
                .map(|p| PriceView {
                    seat_type: p.seat_type,
                    category: p.category.clone(),
                    amount: show.plan.money(p.amount),
                })
                .collect(),
            max_seats_per_customer: facts.max_seats_per_customer,
            single_gap_rule: facts.single_gap_rule,
            availability: Availability { total: show.seats.len(), free, held, sold, blocked },
        }
    }
}

/// Seats that one might take.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Suggestion {
    pub seats: Vec<SuggestedSeat>,
    pub total: Money,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SuggestedSeat {
    #[schema(example = "A1")]
    pub seat: String,
    #[serde(rename = "type")]
    pub kind: SeatType,
    #[schema(example = "adult")]
    pub category: String,
    pub price: Money,
}

impl Suggestion {
    /// None where a seat has no price in the category.
    pub fn of(show: &Show, seats: &[u32], category: &str) -> Option<Self> {
        let plan = &show.plan;
        let seat = |seat: &u32| {
            let place = plan.place(*seat);
            let price = plan.money(plan.price(*seat, category)?);
            let category = category.to_owned();
            Some(SuggestedSeat { seat: place.name.to_owned(), kind: place.kind, category, price })
        };
        let seats: Vec<SuggestedSeat> = seats.iter().map(seat).collect::<Option<_>>()?;
        let total = plan.money(seats.iter().map(|seat| seat.price.amount).sum());
        Some(Self { seats, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 05:59 belongs to the evening before and 06:00 to its own day, also when the night was an hour shorter
    /// or longer.
    #[test]
    fn a_business_day_begins_at_six_by_the_cinemas_clock() {
        for (utc, text, date) in [
            ("2027-03-01T19:15:00Z", "2027-03-01T20:15:00+01:00", "2027-03-01"),
            ("2027-03-02T00:30:00Z", "2027-03-02T01:30:00+01:00", "2027-03-01"),
            ("2027-03-28T03:59:00Z", "2027-03-28T05:59:00+02:00", "2027-03-27"),
            ("2027-03-28T04:00:00Z", "2027-03-28T06:00:00+02:00", "2027-03-28"),
            ("2027-03-28T04:30:00Z", "2027-03-28T06:30:00+02:00", "2027-03-28"),
            ("2027-10-31T00:30:00Z", "2027-10-31T02:30:00+02:00", "2027-10-30"),
            ("2027-10-31T01:30:00Z", "2027-10-31T02:30:00+01:00", "2027-10-30"),
            ("2027-10-31T04:59:00Z", "2027-10-31T05:59:00+01:00", "2027-10-30"),
            ("2027-10-31T05:00:00Z", "2027-10-31T06:00:00+01:00", "2027-10-31"),
        ] {
            let at: Timestamp = utc.parse().unwrap();
            assert_eq!(local_text(at, "Europe/Berlin"), text);
            assert_eq!(business_date(at, "Europe/Berlin"), date, "{text}");
        }
    }
}
