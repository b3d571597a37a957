//! Halls and their layouts. A layout is immutable once stored; a change is a new version, and a show keeps
//! the version that it was created with.

pub mod layout;
pub mod model;
mod store;

#[cfg(test)]
mod tests;

use axum::extract::State;
use axum::response::Response;
use common::authz::{Authorized, Permission};
use common::http::{Conditions, Json, Path, tagged};
use common::problem::ProblemDetails;
use common::{CinemaId, Currency, HallId, Problem};
use http::StatusCode;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{App, db_failed};
use crate::asking::Whence;
use crate::audit::{self, Line};
use crate::cinemas::created_at;
use layout::Layout;
use model::{Hall, NewHall, NewLayout};

pub const PERMISSIONS: &[(&str, &str, Permission)] = &[
    ("POST", "/v1/cinemas/{id}/halls", Permission::Role("hall", "write")),
    ("GET", "/v1/halls/{id}", Permission::Public),
    ("PUT", "/v1/halls/{id}/layout", Permission::Role("hall", "write")),
];

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(read)).routes(routes!(replace_layout))
}

/// All that a new show takes from its hall and cinema.
#[derive(Clone, Debug, PartialEq)]
pub struct HallForShow {
    pub hall_id: HallId,
    pub hall_name: String,
    pub cinema_id: CinemaId,
    pub cinema_name: String,
    pub cinema_address: String,
    /// Degrees.
    pub latitude: f64,
    pub longitude: f64,
    /// IANA name, known to the program's own table.
    pub time_zone: String,
    pub currency: Currency,
    pub layout_version: i32,
    pub layout: Layout,
}

/// The hall as a show created now would get it; none where there is no such hall here. The caller has made
/// sure that the hall's home is this region.
pub async fn current(app: &App, id: HallId) -> Result<Option<HallForShow>, Problem> {
    let client = app.db().await?;
    store::for_show(&client, id).await.map_err(db_failed)
}

/// Add a hall to a cinema
///
/// The layout is given seat by seat (`rows`) or as a rectangle (`grid`).
#[utoipa::path(
    post, path = "/v1/cinemas/{id}/halls", tag = "halls", operation_id = "create_hall",
    params(("id" = CinemaId, Path, description = "the cinema")),
    request_body = NewHall,
    responses(
        (status = 201, description = "Created", body = Hall,
         headers(("ETag" = String), ("Location" = String, description = "its path"))),
        (status = 421, description = "`not-owner`: the cinema's home region could not be asked",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn create(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Path(cinema): Path<CinemaId>,
    Json(new): Json<NewHall>,
) -> Result<Response, Problem> {
    if !cinema.is_home(app.region()) {
        return Err(app.elsewhere(cinema.home_tag(), "cinema"));
    }
    let (name, layout) = new.checked()?;
    let id = HallId::new(app.region());
    let mut client = app.db().await?;
    let transaction = client.transaction().await.map_err(db_failed)?;
    if !store::insert(&transaction, id, cinema, &name, &layout).await.map_err(db_failed)? {
        return Err(Problem::not_found("cinema"));
    }
    let line = Line::now(app.region(), authorized.user(), whence.place(), "hall.create", id.to_string());
    let facts = json!({ "cinema_id": cinema, "name": name, "layout": audited(1, &layout) });
    audit::put(&transaction, &[line.after(facts)]).await.map_err(db_failed)?;
    transaction.commit().await.map_err(db_failed)?;
    app.audit.now();
    let hall = Hall::new(id, cinema, name, 1, layout);
    Ok(created_at(format!("/v1/halls/{id}"), tagged(StatusCode::CREATED, 1, &hall)))
}

/// Read a hall and its present layout
#[utoipa::path(
    get, path = "/v1/halls/{id}", tag = "halls", operation_id = "get_hall",
    params(
        ("id" = HallId, Path),
        ("If-None-Match" = Option<String>, Header, description = "an `ETag` seen before"),
    ),
    responses(
        (status = 200, description = "The hall", body = Hall, headers(("ETag" = String))),
        (status = 304, description = "As before"),
        (status = 421, description = "`not-owner`: its home region could not be asked",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn read(
    State(app): State<App>,
    conditions: Conditions,
    Path(id): Path<HallId>,
) -> Result<Response, Problem> {
    here(&app, id)?;
    let client = app.db().await?;
    let (hall, _) =
        store::get(&client, id).await.map_err(db_failed)?.ok_or_else(|| Problem::not_found("hall"))?;
    Ok(conditions.answer(hall.version.into(), &hall))
}

/// Replace a hall's layout
///
/// The new layout becomes a new version, for shows created from now on; existing shows keep theirs. A layout
/// equal to the present one changes nothing.
#[utoipa::path(
    put, path = "/v1/halls/{id}/layout", tag = "halls", operation_id = "replace_hall_layout",
    params(
        ("id" = HallId, Path),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that was read"),
    ),
    request_body = NewLayout,
    responses(
        (status = 200, description = "The hall as it is now", body = Hall, headers(("ETag" = String))),
        (status = 412, description = "`precondition-failed`: it has changed since it was read",
         body = ProblemDetails, content_type = "application/problem+json"),
        (status = 421, description = "`not-owner`: its home region could not be asked",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn replace_layout(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    conditions: Conditions,
    Path(id): Path<HallId>,
    Json(new): Json<NewLayout>,
) -> Result<Response, Problem> {
    here(&app, id)?;
    let layout = new.checked()?;
    let mut client = app.db().await?;
    let transaction = client.transaction().await.map_err(db_failed)?;
    let gone = || Problem::not_found("hall");
    if !store::lock(&transaction, id).await.map_err(db_failed)? {
        return Err(gone());
    }
    let (mut hall, present) = store::get(&transaction, id).await.map_err(db_failed)?.ok_or_else(gone)?;
    conditions.require_version(hall.version.into())?;
    if layout != present {
        let before = audited(hall.version, &present);
        store::replace_layout(&transaction, id, &layout).await.map_err(db_failed)?;
        (hall, _) = store::get(&transaction, id).await.map_err(db_failed)?.ok_or_else(gone)?;
        let line = Line::now(app.region(), authorized.user(), whence.place(), "hall.layout", id.to_string());
        let line = line.before(before).after(audited(hall.version, &layout));
        audit::put(&transaction, &[line]).await.map_err(db_failed)?;
    }
    transaction.commit().await.map_err(db_failed)?;
    app.audit.now();
    Ok(tagged(StatusCode::OK, hall.version.into(), &hall))
}

/// What the audit log is told of a layout, of which every version is kept.
fn audited(version: i32, layout: &Layout) -> Value {
    json!({ "version": version, "rows": layout.rows.len(), "seats": layout.capacity() })
}

/// 421 to its home, where that is another region.
fn here(app: &App, id: HallId) -> Result<(), Problem> {
    if id.is_home(app.region()) { Ok(()) } else { Err(app.elsewhere(id.home_tag(), "hall")) }
}
