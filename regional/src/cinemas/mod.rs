//! Cinemas: created and changed by managers of their region, found by anyone. A cinema's id tells its home;
//! asked for another region's, the answer is 421 with the region that has it.

pub mod model;
mod store;

#[cfg(test)]
mod tests;

use axum::extract::State;
use axum::response::Response;
use common::authz::{Authorized, Permission};
use common::http::{Conditions, Json, Page, Paging, Path, Query, tagged};
use common::problem::ProblemDetails;
use common::{CinemaId, Problem};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{App, db_failed};
use crate::asking::Whence;
use crate::audit::{self, Line};
use crate::movies::text;
use model::{Cinema, CinemaDetails, CinemaPatch, ListedCinema, NewCinema, parse_point};

pub const PERMISSIONS: &[(&str, &str, Permission)] = &[
    ("GET", "/v1/cinemas", Permission::Public),
    ("POST", "/v1/cinemas", Permission::Role("cinema", "write")),
    ("GET", "/v1/cinemas/{id}", Permission::Public),
    ("PATCH", "/v1/cinemas/{id}", Permission::Role("cinema", "write")),
];

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(read, change))
}

/// The query string of `GET /v1/cinemas`.
#[derive(Clone, Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CinemaSearch {
    /// `latitude,longitude` in degrees: nearest first, with `distance_m`. Without it: by name.
    #[param(example = "52.517,13.389")]
    pub near: Option<String>,
    /// Words of the name or address; typos are forgiven.
    #[param(max_length = 200)]
    pub q: Option<String>,
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// List the region's cinemas
///
/// Nearest first where `near` is sent, else by name.
#[utoipa::path(
    get, path = "/v1/cinemas", tag = "cinemas", operation_id = "list_cinemas",
    params(CinemaSearch, ("If-None-Match" = Option<String>, Header, description = "an `ETag` seen before")),
    responses(
        (status = 200, description = "A page of cinemas", body = Page<ListedCinema>,
         headers(("ETag" = String, description = "changes with the content"))),
        (status = 304, description = "As before"),
    )
)]
async fn list(
    State(app): State<App>,
    conditions: Conditions,
    Query(query): Query<CinemaSearch>,
) -> Result<Response, Problem> {
    let q = text::search_text(query.q.as_deref())?;
    let near = query.near.as_deref().map(parse_point).transpose()?;
    let paging = Paging { limit: query.limit, cursor: query.cursor };
    let (limit, after) = (paging.limit()?, paging.after()?);
    let foreign = || Problem::invalid("cursor", "is not a cursor that this list gave");
    let (client, region, q) = (app.db().await?, app.region(), q.as_deref());
    let page = match near {
        Some(point) => {
            let after = after.map(|c| place(&c, 'd', |d| d.parse().ok()).ok_or_else(foreign)).transpose()?;
            let found = store::by_distance(&client, region, point, q, after.as_ref(), limit + 1)
                .await
                .map_err(db_failed)?;
            let found = found.into_iter().map(|(cinema, m)| ListedCinema { cinema, distance_m: Some(m) });
            let distance = |c: &ListedCinema| c.distance_m.unwrap_or_default();
            Page::of(found.collect(), limit, |c| format!("d{} {}", distance(c), c.cinema.id.0))
        }
        None => {
            let name = |n: &str| (!text::has_control(n)).then(|| n.to_owned());
            let after = after.map(|c| place(&c, 'n', name).ok_or_else(foreign)).transpose()?;
            let found =
                store::by_name(&client, region, q, after.as_ref(), limit + 1).await.map_err(db_failed)?;
            let page = Page::of(found, limit, |(c, name_key)| format!("n{name_key} {}", c.id.0));
            let listed = |(cinema, _)| ListedCinema { cinema, distance_m: None };
            Page { items: page.items.into_iter().map(listed).collect(), next_cursor: page.next_cursor }
        }
    };
    Ok(conditions.answer(0, &page))
}

/// Reads a cursor: a mark for the order, the key, a blank, the id.
fn place<K>(cursor: &str, mark: char, key: impl Fn(&str) -> Option<K>) -> Option<(K, uuid::Uuid)> {
    let (text, id) = cursor.strip_prefix(mark)?.rsplit_once(' ')?;
    Some((key(text)?, id.parse().ok()?))
}

/// Create a cinema
///
/// It belongs to the region that answers, for good.
#[utoipa::path(
    post, path = "/v1/cinemas", tag = "cinemas", operation_id = "create_cinema",
    request_body = NewCinema,
    responses(
        (status = 201, description = "Created", body = CinemaDetails,
         headers(("ETag" = String), ("Location" = String, description = "its path"))),
    )
)]
async fn create(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Json(new): Json<NewCinema>,
) -> Result<Response, Problem> {
    let new = new.checked()?;
    let id = CinemaId::new(app.region());
    let mut client = app.db().await?;
    let transaction = client.transaction().await.map_err(db_failed)?;
    store::insert(&transaction, id, &new).await.map_err(db_failed)?;
    let created = details(&app, &transaction, id).await?;
    let line = Line::now(app.region(), authorized.user(), whence.place(), "cinema.create", id.to_string());
    let line = line.after(audited(&created.cinema));
    audit::put(&transaction, &[line]).await.map_err(db_failed)?;
    transaction.commit().await.map_err(db_failed)?;
    app.audit.now();
    Ok(created_at(format!("/v1/cinemas/{id}"), tagged(StatusCode::CREATED, created.cinema.version, &created)))
}

/// Adds the path of what was created.
pub fn created_at(path: String, mut response: Response) -> Response {
    let location = HeaderValue::try_from(path).expect("ids are visible ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// Read a cinema and its halls
#[utoipa::path(
    get, path = "/v1/cinemas/{id}", tag = "cinemas", operation_id = "get_cinema",
    params(
        ("id" = CinemaId, Path),
        ("If-None-Match" = Option<String>, Header, description = "an `ETag` seen before"),
    ),
    responses(
        (status = 200, description = "The cinema", body = CinemaDetails, headers(("ETag" = String))),
        (status = 304, description = "As before"),
        (status = 421, description = "`not-owner`: its home region could not be asked",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn read(
    State(app): State<App>,
    conditions: Conditions,
    Path(id): Path<CinemaId>,
) -> Result<Response, Problem> {
    let client = app.db().await?;
    let found = details(&app, &client, id).await?;
    Ok(conditions.answer(found.cinema.version, &found))
}

/// Change a cinema
///
/// Absent fields stay as they are. `If-Match` with the `ETag` that was read guards against overwriting
/// someone else's change.
#[utoipa::path(
    patch, path = "/v1/cinemas/{id}", tag = "cinemas", operation_id = "update_cinema",
    params(
        ("id" = CinemaId, Path),
        ("If-Match" = Option<String>, Header, description = "the `ETag` that was read"),
    ),
    request_body = CinemaPatch,
    responses(
        (status = 200, description = "The cinema as it is now", body = CinemaDetails, headers(("ETag" = String))),
        (status = 412, description = "`precondition-failed`: it has changed since it was read",
         body = ProblemDetails, content_type = "application/problem+json"),
        (status = 421, description = "`not-owner`: its home region could not be asked",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn change(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    conditions: Conditions,
    Path(id): Path<CinemaId>,
    Json(patch): Json<CinemaPatch>,
) -> Result<Response, Problem> {
    here(&app, id)?;
    let mut client = app.db().await?;
    let transaction = client.transaction().await.map_err(db_failed)?;
    let cinema = store::get(&transaction, app.region(), id, true)
        .await
        .map_err(db_failed)?
        .ok_or_else(|| Problem::not_found("cinema"))?;
    let present = CinemaPatch::default().onto(&cinema);
    let changed = patch.onto(&cinema).checked()?;
    conditions.require_version(cinema.version)?;
    if changed != present {
        store::update(&transaction, id, &changed).await.map_err(db_failed)?;
    }
    let now = details(&app, &transaction, id).await?;
    if changed != present {
        let line =
            Line::now(app.region(), authorized.user(), whence.place(), "cinema.update", id.to_string());
        let line = line.before(audited(&cinema)).after(audited(&now.cinema));
        audit::put(&transaction, &[line]).await.map_err(db_failed)?;
    }
    transaction.commit().await.map_err(db_failed)?;
    app.audit.now();
    Ok(tagged(StatusCode::OK, now.cinema.version, &now))
}

/// What the audit log is told of a cinema.
fn audited(cinema: &Cinema) -> serde_json::Value {
    json!({
        "name": cinema.name, "address": cinema.address, "latitude": cinema.latitude, "longitude": cinema.longitude,
        "time_zone": cinema.time_zone, "currency": cinema.currency, "version": cinema.version,
    })
}

async fn details(
    app: &App,
    client: &impl deadpool_postgres::GenericClient,
    id: CinemaId,
) -> Result<CinemaDetails, Problem> {
    here(app, id)?;
    let cinema = store::get(client, app.region(), id, false)
        .await
        .map_err(db_failed)?
        .ok_or_else(|| Problem::not_found("cinema"))?;
    let halls = store::halls(client, id).await.map_err(db_failed)?;
    Ok(CinemaDetails { cinema, halls })
}

/// 421 to its home, where that is another region.
fn here(app: &App, id: CinemaId) -> Result<(), Problem> {
    if id.is_home(app.region()) { Ok(()) } else { Err(app.elsewhere(id.home_tag(), "cinema")) }
}
