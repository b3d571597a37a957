//! Lists of reservations, from the read model.

use axum::extract::State;
use common::authz::Authorized;
use common::http::{Json, Page, Paging, Path, Query};
use common::{Problem, RegionName, ShowId};
use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Row;

use super::view::{ReservationView, refreshed};
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

const OWN: &str = "
SELECT view, created_at, id FROM reservations
 WHERE ($1::text IS NULL OR customer = $1) AND ($2::text IS NULL OR reference = $2)
   AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4::text))
 ORDER BY created_at DESC, id DESC LIMIT $5";

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
) -> Result<Json<Page<Value>>, Problem> {
    if let Some(region) = query.region.filter(|region| region != app.region()) {
        return Err(app.elsewhere(region.tag(), "region"));
    }
    let paging = Paging { limit: query.limit, cursor: query.cursor };
    let (limit, after) = (paging.limit()?, paging.after()?);
    let (created_at, id) = position(after)?;
    let reference = query.reference.map(|text| text.trim().to_ascii_uppercase());
    let staff = authorized.may(Some(app.region()), "reservation", "read");
    // Only with a reference in hand may staff look beyond their own.
    let customer =
        if staff && reference.is_some() { None } else { Some(authorized.actor()?.user().to_string()) };
    app.projector.caught_up().await;
    let rows = app
        .db()
        .await?
        .query(OWN, &[&customer, &reference, &created_at, &id, &(limit + 1)])
        .await
        .map_err(db_failed)?;
    Ok(Json(page(&rows, limit)))
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
SELECT view, created_at, id FROM reservations
 WHERE show_id = $1 AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3::text))
 ORDER BY created_at DESC, id DESC LIMIT $4";

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
    Path(show): Path<ShowId>,
    Query(query): Query<ShowListing>,
) -> Result<Json<Page<Value>>, Problem> {
    let paging = Paging { limit: query.limit, cursor: query.cursor };
    let (limit, after) = (paging.limit()?, paging.after()?);
    let (created_at, id) = position(after)?;
    // Learns whether there is such a show, and whether it is ours to answer for.
    app.hosts.get(show).await?;
    app.projector.caught_up().await;
    let rows = app
        .db()
        .await?
        .query(OF_SHOW, &[&show.0, &created_at, &id, &(limit + 1)])
        .await
        .map_err(db_failed)?;
    Ok(Json(page(&rows, limit)))
}

/// A cursor's content, time and id; shared by the lists that are newest first.
pub(crate) fn position(after: Option<String>) -> Result<(Option<Timestamp>, Option<String>), Problem> {
    let Some(after) = after else { return Ok((None, None)) };
    let parts = after.split_once(' ').and_then(|(at, id)| Some((at.parse().ok()?, id.to_owned())));
    match parts {
        Some((at, id)) => Ok((Some(at), Some(id))),
        None => Err(Problem::invalid("cursor", "is not a cursor that this list gave")),
    }
}

/// Rows of (view, created_at, id) as a page.
pub(crate) fn page(rows: &[Row], limit: i64) -> Page<Value> {
    let items: Vec<(Value, String)> = rows
        .iter()
        .map(|row| {
            let (at, id): (Timestamp, &str) = (row.get("created_at"), row.get("id"));
            (refreshed(row.get("view")), format!("{at} {id}"))
        })
        .collect();
    let page = Page::of(items, limit, |(_, position)| position.clone());
    Page { items: page.items.into_iter().map(|(view, _)| view).collect(), next_cursor: page.next_cursor }
}
