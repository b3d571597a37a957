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
    /// With a role in the region of its cinema: anybody's reservation of this reference; else one's own.
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
    let after = position::<ReservationId>(after)?.map(|(at, id)| Place::of(at, id.own(), id.show()));
    let reference = query.reference.map(|text| text.trim().to_ascii_uppercase());
    let me = authorized.actor()?.user().0;
    let homes = homes_read(&app, &authorized, "reservation");
    // Only with a reference in hand may staff look beyond their own.
    let customer = if reference.is_some() && !homes.is_empty() { None } else { Some(me) };
    app.projector.caught_up().await;
    let is_told = |row: &Row| {
        let is_own = row.get::<_, Option<uuid::Uuid>>("customer") == Some(me);
        is_own || homes.iter().any(|home| ShowId(row.get("show_id")).is_home(home))
    };
    let found = owned(&app, OWN, &[&customer, &reference], limit, after, is_told).await?;
    let mut page = reservations(&found, limit).map_err(db_failed)?;
    app.contacts.reveal(&authorized, &mut page.items).await;
    Ok(Json(page))
}

/// One row more than `limit`, where there is one. Each region tells of the shows that it owns now, so that all of them
/// together tell each once. After the parameters of `filters` the statement has those of the place and of the limit.
pub(crate) async fn owned(
    app: &App,
    statement: &str,
    filters: &[&(dyn ToSql + Sync)],
    limit: i64,
    mut after: Option<Place>,
    is_told: impl Fn(&Row) -> bool,
) -> Result<Vec<Row>, Problem> {
    let wanted = limit + 1;
    let mut found = Vec::new();
    let db = app.db().await?;
    loop {
        let (created_at, own, show) = Place::columns(after.as_ref());
        let mut params = filters.to_vec();
        params.extend([&created_at as &(dyn ToSql + Sync), &own, &show, &wanted]);
        let rows = db.query(statement, &params).await.map_err(db_failed)?;
        let is_last = i64::try_from(rows.len()).is_ok_and(|count| count < wanted);
        after = rows.last().map(Place::of_row);
        found.extend(rows.into_iter().filter(|row| app.owns(ShowId(row.get("show_id"))) && is_told(row)));
        if is_last || i64::try_from(found.len()).is_ok_and(|count| count >= wanted) {
            found.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
            return Ok(found);
        }
    }
}

/// The regions in whose cinemas the caller may read everybody's `resource`, by role.
pub(crate) fn homes_read(app: &App, authorized: &Authorized, resource: &str) -> Vec<RegionName> {
    app.regions().iter().filter(|home| authorized.may(Some(home), resource, "read")).cloned().collect()
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
    let after = position::<ReservationId>(after)?.map(|(at, id)| Place::of(at, id.own(), id.show()));
    let (created_at, own, _) = Place::columns(after.as_ref());
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

/// A row's place in a list that is newest first, as the tables' columns have it.
pub(crate) struct Place {
    created_at: Timestamp,
    own: Vec<u8>,
    show: uuid::Uuid,
}

impl Place {
    pub fn of(created_at: Timestamp, own: [u8; 10], show: ShowId) -> Self {
        Self { created_at, own: own.to_vec(), show: show.0 }
    }

    fn of_row(row: &Row) -> Self {
        Self { created_at: row.get("created_at"), own: row.get("own"), show: row.get("show_id") }
    }

    /// As parameters of a statement: time, own part, show.
    pub fn columns(after: Option<&Self>) -> (Option<Timestamp>, Option<&[u8]>, Option<uuid::Uuid>) {
        (after.map(|p| p.created_at), after.map(|p| &*p.own), after.map(|p| p.show))
    }
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
