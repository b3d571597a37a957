//! Lists of reservations, from the read model.

use std::str::FromStr;

use anyhow::Context;
use axum::extract::State;
use common::authz::Authorized;
use common::http::{Json, Page, Paging, Path, Query};
use common::{Problem, RegionName, ReservationId, ShowId, UserId};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::view::{ReservationView, Stored};
use crate::app::{App, db_failed};

#[derive(Clone, Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OwnSearch {
    /// Only this region's.
    region: Option<RegionName>,
    /// With a role in this region: anybody's reservation of this reference; else one's own.
    #[param(max_length = 16)]
    reference: Option<String>,
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

// Ids sort as (own, show_id).
const OWN: &str = "
SELECT r.*, s.view AS show, s.currency FROM reservations r JOIN shows s ON s.id = r.show_id
 WHERE ($1::uuid IS NULL OR r.customer = $1) AND ($2::text IS NULL OR r.reference = $2)
   AND ($3::timestamptz IS NULL OR (r.created_at, r.own, r.show_id) < ($3, $4::bytea, $5::uuid))
 ORDER BY r.created_at DESC, r.own DESC, r.show_id DESC LIMIT $6";

/// List one's reservations
///
/// Newest first.
#[utoipa::path(
    get, path = "/v1/reservations", tag = "reservations", operation_id = "list_reservations",
    params(OwnSearch),
    responses((status = 200, description = "A page of reservations", body = Page<ReservationView>))
)]
pub(super) async fn own(
    State(app): State<App>,
    authorized: Authorized,
    Query(query): Query<OwnSearch>,
) -> Result<Json<Page<ReservationView>>, Problem> {
    if let Some(region) = query.region.filter(|region| region != app.region()) {
        return Err(app.elsewhere(region.tag(), "region"));
    }
    let paging = Paging { limit: query.limit, cursor: query.cursor };
    let (limit, after) = (paging.limit()?, paging.after()?);
    let mut after = position::<ReservationId>(after)?;
    let reference = query.reference.map(|text| text.trim().to_ascii_uppercase());
    let staff = authorized.may(Some(app.region()), "reservation", "read");
    // Only with a reference in hand may staff look beyond their own.
    let customer = if staff && reference.is_some() { None } else { Some(authorized.actor()?.user().0) };
    app.projector.caught_up().await;
    let (db, mut found) = (app.db().await?, Vec::new());
    // Each region tells of the shows that it owns now, so that all of them together tell each once.
    loop {
        let (created_at, own, show) = columns(&after);
        let params: [&(dyn ToSql + Sync); 6] =
            [&customer, &reference, &created_at, &own, &show, &(limit + 1)];
        let rows = db.query(OWN, &params).await.map_err(db_failed)?;
        let is_last = i64::try_from(rows.len()).is_ok_and(|count| count <= limit);
        if let Some(last) = rows.last() {
            after = Some((last.get("created_at"), id(last).map_err(db_failed)?));
        }
        found.extend(rows.into_iter().filter(|row| app.owns(ShowId(row.get("show_id")))));
        if is_last || i64::try_from(found.len()).is_ok_and(|count| count > limit) {
            break;
        }
    }
    found.truncate(usize::try_from(limit + 1).unwrap_or(usize::MAX));
    let mut page = reservations(&found, limit).map_err(db_failed)?;
    app.contacts.reveal(&authorized, &mut page.items).await;
    Ok(Json(page))
}

fn id(row: &Row) -> anyhow::Result<ReservationId> {
    ReservationId::of(ShowId(row.get("show_id")), row.get("own")).context("an id of another length")
}

#[derive(Clone, Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ShowListing {
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

const OF_SHOW: &str = "
SELECT r.*, s.view AS show, s.currency FROM reservations r JOIN shows s ON s.id = r.show_id
 WHERE r.show_id = $1 AND ($2::timestamptz IS NULL OR (r.created_at, r.own) < ($2, $3::bytea))
 ORDER BY r.created_at DESC, r.own DESC LIMIT $4";

/// List a show's reservations
///
/// Newest first; for staff.
#[utoipa::path(
    get, path = "/v1/shows/{id}/reservations", tag = "reservations", operation_id = "list_show_reservations",
    params(("id" = ShowId, Path), ShowListing),
    responses((status = 200, description = "A page of reservations", body = Page<ReservationView>))
)]
pub(super) async fn of_show(
    State(app): State<App>,
    authorized: Authorized,
    Path(show): Path<ShowId>,
    Query(query): Query<ShowListing>,
) -> Result<Json<Page<ReservationView>>, Problem> {
    let paging = Paging { limit: query.limit, cursor: query.cursor };
    let (limit, after) = (paging.limit()?, paging.after()?);
    let after = position::<ReservationId>(after)?;
    let (created_at, own, _) = columns(&after);
    // Learns whether there is such a show, and whether it is ours to answer for.
    app.hosts.get(show).await?;
    app.projector.caught_up().await;
    let rows = app
        .db()
        .await?
        .query(OF_SHOW, &[&show.0, &created_at, &own, &(limit + 1)])
        .await
        .map_err(db_failed)?;
    let mut page = reservations(&rows, limit).map_err(db_failed)?;
    app.contacts.reveal(&authorized, &mut page.items).await;
    Ok(Json(page))
}

/// A cursor's content, time and id; shared by the lists that are newest first.
pub(crate) fn position<T: FromStr>(after: Option<String>) -> Result<Option<(Timestamp, T)>, Problem> {
    let Some(after) = after else { return Ok(None) };
    let parts = after.split_once(' ').and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    match parts {
        Some(position) => Ok(Some(position)),
        None => Err(Problem::invalid("cursor", "is not a cursor that this list gave")),
    }
}

/// A position as the tables' columns have it: time, own part, show.
fn columns(
    after: &Option<(Timestamp, ReservationId)>,
) -> (Option<Timestamp>, Option<Vec<u8>>, Option<uuid::Uuid>) {
    let of = |(at, id): &(Timestamp, ReservationId)| (Some(*at), Some(id.own().to_vec()), Some(id.show().0));
    after.as_ref().map_or((None, None, None), of)
}

fn reservations(rows: &[Row], limit: i64) -> anyhow::Result<Page<ReservationView>> {
    let items = rows.iter().map(reservation).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Page::of(items, limit, |view| format!("{} {}", view.created_at, view.id)))
}

fn reservation(row: &Row) -> anyhow::Result<ReservationView> {
    let stored = Stored {
        id: id(row)?,
        reference: row.get("reference"),
        status: named(row.get("status"))?,
        customer: row.get::<_, Option<uuid::Uuid>>("customer").map(UserId),
        contact: row.get::<_, Option<&str>>("contact").and_then(|text| text.parse().ok()),
        created_at: row.get("created_at"),
        expires_at: row.get("expires_at"),
        rest: serde_json::from_str(row.get("rest"))?,
        show: serde_json::from_value(row.get("show"))?,
        currency: row.get::<_, &str>("currency").parse()?,
    };
    Ok(stored.into())
}

/// An enum as the tables call it, which is as the API calls it.
pub(crate) fn named<T: DeserializeOwned>(name: &str) -> anyhow::Result<T> {
    Ok(serde_json::from_value(serde_json::Value::from(name))?)
}
