//! A new show: checked, its hall booked, its ownership registered, its journal begun.

use std::collections::BTreeSet;

use common::catalogue::Movie;
use common::{Amount, Currency, FieldError, HallId, MovieId, Problem, ShowId, UserId};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::booking;
use super::view::ends_at;
use crate::app::App;
use crate::asking::Whence;
use crate::halls::layout::SeatType;
use crate::halls::{self, HallForShow};
use crate::host::Host;
use crate::movies;
use crate::show::{Created, Event, Group, PlanRow, PlanSeat, PriceLine, RefundTier};

/// For films of unknown length.
const USUAL_RUNTIME_MIN: i32 = 120;
/// What goes back when a customer cancels: all of it until two hours before the start.
const REFUND_TIERS: [RefundTier; 1] = [RefundTier { until_secs_before_start: 2 * 3600, percent: 100 }];
const MAX_PRICE: i64 = 100_000_000;
const MAX_PRICES: usize = 100;
pub(super) const FURTHEST: SignedDuration = SignedDuration::from_hours(24 * 730);

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewShow {
    pub hall_id: HallId,
    pub movie_id: MovieId,
    /// In the future, at most two years ahead.
    #[schema(value_type = String, format = DateTime)]
    pub starts_at: Timestamp,
    /// None: at once.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub on_sale_at: Option<Timestamp>,
    /// At least one for each seat type of the hall.
    #[schema(min_items = 1, max_items = 100)]
    pub prices: Vec<NewPrice>,
    #[schema(minimum = 1, maximum = 1000)]
    pub max_seats_per_customer: Option<u32>,
    /// Whether a single free seat may not be left between taken ones.
    pub single_gap_rule: Option<bool>,
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPrice {
    pub seat_type: SeatType,
    /// `adult`, `child`, …
    #[schema(pattern = "^[a-z][a-z0-9_]{0,31}$", example = "adult")]
    pub category: String,
    /// Minor units, at most 100,000,000.
    pub amount: Amount,
    /// With a bare number; the cinema's, or 422.
    pub currency: Option<Currency>,
}

/// Creates the show and leads it here. `hall` and the caller's rights have been checked.
pub async fn create(app: &App, by: UserId, whence: Whence, new: NewShow) -> Result<Host, Problem> {
    let hall = halls::current(app, new.hall_id).await?;
    let hall = hall.ok_or_else(|| Problem::invalid("hall_id", "there is no such hall"))?;
    let movie = movies::find(app, new.movie_id).await?;
    let movie = movie.ok_or_else(|| Problem::invalid("movie_id", "there is no such movie"))?;
    let now = Timestamp::now();
    let prices = check(&new, &hall, now)?;
    let id = ShowId::new(app.region());
    let facts = facts(app, id, &new, hall, movie, prices);

    booking::book(app, id, facts.hall, facts.starts_at, ends_at(&facts, facts.starts_at)).await?;
    let registered = app.registry.create_show(id, app.region()).await;
    let created = match registered {
        Ok(record) => {
            app.view.note(record);
            let events = vec![Event::Created(Box::new(facts))];
            let from = whence.address.map(|address| address.to_string());
            let group = Group { at: now, by: Some(by), key: None, trace: whence.trace, from, events };
            app.hosts.create(id, group).await.map_err(Problem::from)
        }
        Err(error) => {
            tracing::warn!(%error, "a show cannot be registered");
            Err(Problem::unavailable("registry-unavailable", "shows cannot be created at the moment", 2))
        }
    };
    if created.is_err() {
        // The reconciler frees the hall too, should this process end here.
        booking::free(app, id).await;
    }
    created
}

/// The prices in the cinema's currency, or every field at fault.
fn check(new: &NewShow, hall: &HallForShow, now: Timestamp) -> Result<Vec<PriceLine>, Problem> {
    let mut faults = Vec::new();
    let mut fault = |field: String, message: String| faults.push(FieldError { field, message });
    if new.starts_at <= now {
        fault("starts_at".into(), "must be in the future".into());
    } else if new.starts_at.duration_since(now) > FURTHEST {
        fault("starts_at".into(), "must be within two years".into());
    }
    if new.on_sale_at.is_some_and(|at| at >= new.starts_at) {
        fault("on_sale_at".into(), "must be before the start".into());
    }
    if new.max_seats_per_customer.is_some_and(|limit| !(1..=1_000).contains(&limit)) {
        fault("max_seats_per_customer".into(), "must be between 1 and 1000".into());
    }
    if new.prices.len() > MAX_PRICES {
        fault("prices".into(), format!("at most {MAX_PRICES}"));
    }
    let (mut lines, mut seen) = (Vec::new(), BTreeSet::new());
    for (at, price) in new.prices.iter().enumerate().take(MAX_PRICES) {
        let amount = price.amount.minor(hall.currency);
        if amount.is_none() || price.currency.is_some_and(|c| c != hall.currency) {
            fault(format!("prices[{at}].currency"), format!("the cinema sells in {}", hall.currency));
        }
        let amount = amount.unwrap_or(0);
        if !(0..=MAX_PRICE).contains(&amount) {
            fault(format!("prices[{at}].amount"), format!("must be between 0 and {MAX_PRICE} minor units"));
        }
        if !is_category(&price.category) {
            fault(format!("prices[{at}].category"), "must be 1 to 32 of a-z, 0-9 and _".into());
        }
        if !seen.insert((price.seat_type, price.category.as_str())) {
            fault(format!("prices[{at}]"), "this seat type and category has a price already".into());
        }
        lines.push(PriceLine { seat_type: price.seat_type, category: price.category.clone(), amount });
    }
    let in_hall: BTreeSet<SeatType> =
        hall.layout.rows.iter().flat_map(|row| row.seats.iter().map(|seat| seat.kind)).collect();
    for kind in in_hall.iter().filter(|kind| !lines.iter().any(|line| line.seat_type == **kind)) {
        fault("prices".into(), format!("the hall has {} seats, which have no price", kind.as_str()));
    }
    common::http::all_fields(faults)?;
    Ok(lines)
}

fn is_category(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn facts(
    app: &App,
    id: ShowId,
    new: &NewShow,
    hall: HallForShow,
    movie: Movie,
    prices: Vec<PriceLine>,
) -> Created {
    let seat = |seat: &halls::layout::LayoutSeat| PlanSeat {
        number: seat.number,
        kind: seat.kind,
        x: Some(seat.x as f32),
    };
    let row = |row: &halls::layout::LayoutRow| PlanRow {
        row: row.row.clone(),
        y: row.seats.first().map(|seat| seat.y as f32),
        seats: row.seats.iter().map(seat).collect(),
    };
    Created {
        show: id,
        home: app.region().clone(),
        cinema: hall.cinema_id,
        cinema_name: hall.cinema_name,
        address: hall.cinema_address,
        hall: hall.hall_id,
        hall_name: hall.hall_name,
        layout_version: hall.layout_version,
        movie: movie.id,
        title: movie.title,
        runtime_min: movie.runtime_min.unwrap_or(USUAL_RUNTIME_MIN),
        time_zone: hall.time_zone,
        currency: hall.currency,
        starts_at: new.starts_at,
        on_sale_at: new.on_sale_at,
        rows: hall.layout.rows.iter().map(row).collect(),
        prices,
        max_seats_per_customer: new.max_seats_per_customer,
        single_gap_rule: new.single_gap_rule.unwrap_or(false),
        refund_tiers: REFUND_TIERS.to_vec(),
        hold_secs: app.config.hold_secs,
    }
}
