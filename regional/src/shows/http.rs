//! The calls about shows.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use common::authz::{Authorized, Permission};
use common::http::{Conditions, Edge, Front, Json, Page, Paging, Path, Query};
use common::problem::ProblemDetails;
use common::{CinemaId, MovieId, Problem, ShowId};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::create::{NewShow, create};
use super::view::{ShowView, Suggestion};
use super::{events, manage};
use crate::app::{App, db_failed};
use crate::asking::{Whence, about, wants_freshest};
use crate::cinemas::model::parse_point;
use crate::halls::layout::SeatType;
use crate::live::wire::SeatMapAnswer;
use crate::live::{Coding, Form};
use crate::show::{Show, best_seats};

const SEATS: &str = "/v1/shows/{id}/seats";

pub const PERMISSIONS: &[(&str, &str, Permission)] = &[
    ("GET", "/v1/shows", Permission::Public),
    ("POST", "/v1/shows", Permission::RoleInBody("show", "write")),
    ("GET", "/v1/shows/{id}", Permission::Public),
    ("PATCH", "/v1/shows/{id}", Permission::Role("show", "write")),
    ("POST", "/v1/shows/{id}/cancel", Permission::Role("show", "cancel")),
    ("POST", "/v1/shows/{id}/blocks", Permission::Role("show", "block")),
    ("DELETE", "/v1/shows/{id}/blocks", Permission::Role("show", "block")),
    ("GET", SEATS, Permission::Public),
    ("GET", "/v1/shows/{id}/seats/events", Permission::Public),
    ("GET", "/v1/shows/{id}/best-seats", Permission::Public),
];

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, post))
        .routes(routes!(read, manage::change))
        .routes(routes!(manage::cancel))
        .routes(routes!(manage::block, manage::unblock))
        .routes(routes!(seats))
        .routes(routes!(events::watch))
        .routes(routes!(best))
}

#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ShowSearch {
    movie_id: Option<MovieId>,
    cinema_id: Option<CinemaId>,
    /// Shows that start at or after this; now, where it is absent.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Shows that start before this.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// `latitude,longitude` in degrees: the nearest cinemas' shows first.
    #[param(example = "52.517,13.389")]
    near: Option<String>,
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Nearest cinema first where a point is given, then by start. The distance of all is 0 without one.
const LIST: &str = "
SELECT s.view || jsonb_build_object('availability', jsonb_build_object(
           'total', p.free + p.held + p.sold + p.blocked,
           'free', p.free, 'held', p.held, 'sold', p.sold, 'blocked', p.blocked)) AS view,
       s.starts_at, s.id, d.distance
  FROM shows s
  JOIN projected p ON p.show_id = s.id
  JOIN cinemas c ON c.id = s.cinema_id
 CROSS JOIN LATERAL (SELECT CASE WHEN $5::float8 IS NULL THEN 0
                                 ELSE distance_m(c.latitude, c.longitude, $5, $6) END AS distance) d
 WHERE ($1::uuid IS NULL OR s.movie_id = $1) AND ($2::uuid IS NULL OR s.cinema_id = $2)
   AND s.starts_at >= $3 AND ($4::timestamptz IS NULL OR s.starts_at < $4)
   AND ($7::bigint IS NULL OR (d.distance, s.starts_at, s.id) > ($7, $8::timestamptz, $9::uuid))
 ORDER BY d.distance, s.starts_at, s.id LIMIT $10";

/// List shows
///
/// Those of the region that answers (pin one with `X-Region`), or of the cinema named. Soonest first; with
/// `near`, the nearest cinema's first.
#[utoipa::path(
    get, path = "/v1/shows", tag = "shows", operation_id = "list_shows",
    params(ShowSearch, ("If-None-Match" = Option<String>, Header, description = "an `ETag` seen before")),
    responses(
        (status = 200, description = "A page of shows", body = Page<ShowView>,
         headers(("ETag" = String, description = "changes with the content"))),
        (status = 304, description = "As before"),
    )
)]
async fn list(
    State(app): State<App>,
    conditions: Conditions,
    Query(query): Query<ShowSearch>,
) -> Result<Response, Problem> {
    if let Some(cinema) = query.cinema_id.filter(|cinema| !cinema.is_home(app.region())) {
        return Err(app.elsewhere(cinema.home_tag(), "cinema"));
    }
    let paging = Paging { limit: query.limit, cursor: query.cursor.clone() };
    let (limit, after) = (paging.limit()?, paging.after()?);
    let after = after.map(|text| {
        position(&text).ok_or_else(|| Problem::invalid("cursor", "is not a cursor that this list gave"))
    });
    let (distance, starts_at, id) =
        after.transpose()?.map_or((None, None, None), |(d, at, id)| (Some(d), Some(at), Some(id)));
    let near = query.near.as_deref().map(parse_point).transpose()?;
    let (latitude, longitude) = near.unzip();
    let from = query.from.unwrap_or_else(Timestamp::now);
    let (movie, cinema) = (query.movie_id.map(|m| m.0), query.cinema_id.map(|c| c.0));
    app.projector.caught_up().await;
    let rows = app
        .db()
        .await?
        .query(
            LIST,
            &[
                &movie,
                &cinema,
                &from,
                &query.to,
                &latitude,
                &longitude,
                &distance,
                &starts_at,
                &id,
                &(limit + 1),
            ],
        )
        .await
        .map_err(db_failed)?;
    let items: Vec<(Value, String)> = rows
        .iter()
        .map(|row| {
            let (at, id): (Timestamp, uuid::Uuid) = (row.get("starts_at"), row.get("id"));
            (row.get("view"), format!("{} {at} {id}", row.get::<_, i64>("distance")))
        })
        .collect();
    let page = Page::of(items, limit, |(_, position)| position.clone());
    let next_cursor = page.next_cursor;
    let items = page.items.into_iter().map(|(view, _)| view).collect();
    Ok(conditions.answer(0, &Page::<Value> { items, next_cursor }))
}

/// A cursor's content: distance, start, id.
fn position(text: &str) -> Option<(i64, Timestamp, uuid::Uuid)> {
    let mut parts = text.split(' ');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Create a show
///
/// In a hall of the caller's region. The show keeps the hall's layout of now.
#[utoipa::path(
    post, path = "/v1/shows", tag = "shows", operation_id = "create_show", request_body = NewShow,
    responses(
        (status = 201, description = "The show", body = ShowView,
         headers(("Location" = String, description = "the show's path"))),
        (status = 409, description = "`hall-busy`: it overlaps another show in that hall",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn post(
    State(app): State<App>,
    authorized: Authorized,
    whence: Whence,
    Json(new): Json<NewShow>,
) -> Result<Response, Problem> {
    if !new.hall_id.is_home(app.region()) {
        return Err(match app.elsewhere(new.hall_id.home_tag(), "hall") {
            unknown if unknown.status == StatusCode::NOT_FOUND => {
                Problem::invalid("hall_id", "there is no such hall")
            }
            elsewhere => elsewhere,
        });
    }
    authorized.require_in(Some(app.region()))?;
    let host = create(&app, authorized.actor()?.user(), whence, new).await?;
    let view = host.read(ShowView::of);
    let location = format!("/v1/shows/{}", view.id);
    let location = HeaderValue::from_str(&location).map_err(Problem::internal)?;
    Ok(about(&host, (StatusCode::CREATED, [(header::LOCATION, location)], Json(view))))
}

/// Read a show
#[utoipa::path(
    get, path = "/v1/shows/{id}", tag = "shows", operation_id = "get_show",
    params(
        ("id" = ShowId, Path),
        ("If-None-Match" = Option<String>, Header, description = "an `ETag` seen before"),
    ),
    responses(
        (status = 200, description = "The show", body = ShowView,
         headers(("ETag" = String, description = "changes with the show"),
                 ("X-Show-Epoch" = u64, description = "rises when the show changes hands"),
                 ("X-As-Of" = String, description = "when the last change that is known here was made"),
                 ("X-May-Be-Stale" = Option<String>, description = "`true` where there may be later changes"))),
        (status = 304, description = "As before"),
    )
)]
async fn read(
    State(app): State<App>,
    conditions: Conditions,
    Path(id): Path<ShowId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let freshest = wants_freshest(&headers);
    let answer =
        |show: &Show| conditions.answer(i64::try_from(show.seq).unwrap_or(i64::MAX), &ShowView::of(show));
    if let Some(copy) = app.copy(id, freshest).await {
        return Ok(copy.about(copy.read(answer)));
    }
    match app.hosts.get(id).await {
        Ok(host) => {
            if freshest && let Err(why) = host.was_current().await {
                tracing::debug!(show = %id, %why, "read as it is known here");
            }
            Ok(about(&host, host.read(answer)))
        }
        Err(why) => match app.copy_instead(id, freshest, &why).await {
            Some(copy) => Ok(copy.about(copy.read(answer))),
            None => Err(why.into()),
        },
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct MapQuery {
    /// `full`; `compact`, one letter a seat, in the order of `layout`; or `layout`, what does not change.
    #[serde(default)]
    #[param(inline)]
    format: Option<Form>,
}

/// Read a show's seat map
///
/// From memory, as of the last committed change of a seat; where another region leads the show, from a copy that
/// says of when it is, unless `Cache-Control: no-cache` asks for the leader's. A page that follows a map closely reads `layout`
/// once, then `compact`, or the events.
#[utoipa::path(
    get, path = "/v1/shows/{id}/seats", tag = "shows", operation_id = "get_seats",
    params(
        ("id" = ShowId, Path),
        MapQuery,
        ("If-None-Match" = Option<String>, Header, description = "an `ETag` seen before"),
    ),
    responses(
        (status = 200, description = "Every seat with its status and prices, or what `format` asks for",
         body = SeatMapAnswer<'static>,
         headers(("ETag" = String, description = "changes with any seat"),
                 ("X-Show-Epoch" = u64, description = "rises when the show changes hands"),
                 ("X-As-Of" = String, description = "when the last change that is known here was made"),
                 ("X-May-Be-Stale" = Option<String>, description = "`true` where there may be later changes"))),
        (status = 304, description = "As before"),
    )
)]
async fn seats(
    State(app): State<App>,
    conditions: Conditions,
    Path(id): Path<ShowId>,
    Query(query): Query<MapQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let freshest = wants_freshest(&headers);
    let live = match app.copy(id, freshest).await {
        Some(copy) => copy.live.clone(),
        None => match app.live(id).await {
            Ok(live) => live,
            Err(why) => {
                let copy = app.copy_instead(id, freshest, &why).await;
                copy.ok_or(why)?.live.clone()
            }
        },
    };
    if freshest {
        // Where it is led here, memory is what is committed already.
        app.relay.refresh(id).await;
        live.prove().await;
    }
    let form = query.format.unwrap_or_default();
    let answer = live.version().answer(&live, form, Coding::accepted(&headers), &conditions).await;
    Ok(answer.map(Body::from))
}

/// Seat maps that are led here and rendered already, as [`seats`] answers them.
pub fn ready_maps(app: &App, edge: &Edge) -> Front {
    let app = app.clone();
    Front::new(edge, SEATS, move |uri, headers| {
        let show = uri.path().strip_prefix("/v1/shows/")?.strip_suffix("/seats")?;
        let form = Form::of(uri.query())?;
        if headers.contains_key(header::CACHE_CONTROL) {
            return None;
        }
        let live = app.hosts.live(show.parse().ok()?)?;
        live.ready(form, Coding::accepted(headers), &Conditions::of(headers))
    })
}

#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct BestSearch {
    #[param(minimum = 1, maximum = 100)]
    count: usize,
    /// `standard` where absent, or any general type where the hall has no standard seats.
    #[serde(rename = "type")]
    kind: Option<SeatType>,
    /// `adult` where absent.
    #[param(max_length = 32)]
    category: Option<String>,
}

/// Suggest seats
///
/// The best that are free now. Only a suggestion: to have them, reserve with `best`, which never loses a race.
#[utoipa::path(
    get, path = "/v1/shows/{id}/best-seats", tag = "shows", operation_id = "suggest_seats",
    params(("id" = ShowId, Path), BestSearch),
    responses(
        (status = 200, description = "Seats side by side where there is room", body = Suggestion),
        (status = 409, description = "`seats-unavailable`: fewer than `count` are free",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn best(
    State(app): State<App>,
    Path(id): Path<ShowId>,
    Query(query): Query<BestSearch>,
) -> Result<Response, Problem> {
    if !(1..=100).contains(&query.count) {
        return Err(Problem::invalid("count", "must be between 1 and 100"));
    }
    let host = app.hosts.get(id).await?;
    let category = query.category.as_deref().unwrap_or("adult");
    let found = host.read(|show| {
        let seats = best_seats(show, query.count, query.kind, category)?;
        Suggestion::of(show, &seats, category)
    });
    let Some(found) = found else {
        let too_few =
            Problem::conflict("seats-unavailable", "fewer seats of that kind and category are free");
        return Err(host.unless_deposed(too_few).await);
    };
    Ok(about(&host, Json(found)))
}
