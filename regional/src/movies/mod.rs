//! The catalogue as this region has it: search and details. It is written by `global` alone and arrives by
//! the feed ([`crate::following`]); a film that the feed has not brought yet is asked for by name.

mod search;
pub mod store;
pub mod text;

#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use common::authz::Permission;
use common::catalogue::Movie;
use common::http::{Conditions, Page, Path, Query};
use common::problem::ProblemDetails;
use common::proto::feed::GetMovieRequest;
use common::proto::feed::feed_client::FeedClient;
use common::{CinemaId, HallId, MovieId, Problem, ShowId};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{App, db_failed};
use search::Search;
use store::Known;

pub const PERMISSIONS: &[(&str, &str, Permission)] =
    &[("GET", "/v1/movies", Permission::Public), ("GET", "/v1/movies/{id}", Permission::Public)];

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read))
}

/// How long `global` may take to say whether it knows a film.
const LOOK_UP_DEADLINE: Duration = Duration::from_secs(1);
/// Shows to come that a film's page lists.
const COMING_SHOWS: i64 = 20;

/// A film with its shows to come.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct MovieDetails {
    #[serde(flatten)]
    pub movie: Movie,
    /// The next ones in the region that answers, soonest first.
    pub coming_shows: Vec<ComingShow>,
}

#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ComingShow {
    pub id: ShowId,
    pub cinema_id: CinemaId,
    pub cinema_name: String,
    pub hall_id: HallId,
    pub hall_name: String,
    pub starts_at: Timestamp,
    /// In the cinema's time zone, with offset.
    #[schema(format = "date-time", example = "2026-11-20T20:15:00+01:00")]
    pub starts_at_local: String,
    /// `null`: already on sale.
    pub on_sale_at: Option<Timestamp>,
}

/// Search films
///
/// Titles are found in spite of typos. Answered from the region's own copy of the catalogue.
#[utoipa::path(
    get, path = "/v1/movies", tag = "movies", operation_id = "list_movies",
    params(Search, ("If-None-Match" = Option<String>, Header, description = "an `ETag` seen before")),
    responses(
        (status = 200, description = "A page of films", body = Page<Movie>,
         headers(("ETag" = String, description = "changes with the content"))),
        (status = 304, description = "As before"),
        (status = 421, description = "`not-owner`: `showing_in` names another region, which could not be asked",
         body = ProblemDetails, content_type = "application/problem+json"),
    )
)]
async fn list(
    State(app): State<App>,
    conditions: Conditions,
    Query(query): Query<Search>,
) -> Result<Response, Problem> {
    let page = search::search(&app, query).await?;
    Ok(conditions.answer(0, &page))
}

/// Read a film and its coming shows
#[utoipa::path(
    get, path = "/v1/movies/{id}", tag = "movies", operation_id = "get_movie",
    params(
        ("id" = MovieId, Path),
        ("If-None-Match" = Option<String>, Header, description = "an `ETag` seen before"),
    ),
    responses(
        (status = 200, description = "The film", body = MovieDetails,
         headers(("ETag" = String, description = "changes with the film and its coming shows"))),
        (status = 304, description = "As before"),
    )
)]
async fn read(
    State(app): State<App>,
    conditions: Conditions,
    Path(id): Path<MovieId>,
) -> Result<Response, Problem> {
    let movie = find(&app, id).await?.ok_or_else(|| Problem::not_found("movie"))?;
    let coming_shows = coming_shows(&app, id).await?;
    let version = movie.version;
    Ok(conditions.answer(version, &MovieDetails { movie, coming_shows }))
}

/// The film, unless there is none. One that is not known here is asked of `global` and kept; 503 where that
/// cannot be done, since nobody then knows whether it exists.
pub async fn find(app: &App, id: MovieId) -> Result<Option<Movie>, Problem> {
    match store::get(&app.db().await?, id).await.map_err(db_failed)? {
        Known::Yes(movie) => return Ok(Some(*movie)),
        Known::Deleted => return Ok(None),
        Known::Never => {}
    }
    let Some(message) = ask_global(app, id).await? else { return Ok(None) };
    let deleted = message.deleted;
    let movie = Movie::try_from(message).map_err(Problem::internal)?;
    store::put(&app.db().await?, &movie, deleted).await.map_err(db_failed)?;
    Ok((!deleted).then_some(movie))
}

async fn ask_global(app: &App, id: MovieId) -> Result<Option<common::proto::feed::Movie>, Problem> {
    let mut client = FeedClient::new(app.global_channel());
    let mut request = tonic::Request::new(GetMovieRequest { movie_id: id.to_string() });
    request.set_timeout(LOOK_UP_DEADLINE);
    let fault = match tokio::time::timeout(LOOK_UP_DEADLINE, client.get_movie(request)).await {
        Ok(Ok(movie)) => return Ok(Some(movie.into_inner())),
        Ok(Err(status)) if status.code() == tonic::Code::NotFound => return Ok(None),
        Ok(Err(status)) => status.message().to_owned(),
        Err(_) => "no answer in time".to_owned(),
    };
    tracing::warn!(fault, "a film cannot be looked up");
    Err(Problem::unavailable(
        "catalogue-unavailable",
        "this region does not know the film and the catalogue cannot be asked",
        2,
    ))
}

async fn coming_shows(app: &App, id: MovieId) -> Result<Vec<ComingShow>, Problem> {
    let client = app.db().await?;
    // The cinema's row is at its home only, so shows of other regions that are copied here fall out.
    let statement = client
        .prepare_cached(
            "SELECT s.id, s.cinema_id, c.name AS cinema_name, s.hall_id, h.name AS hall_name,
                    s.starts_at, s.on_sale_at, c.time_zone
             FROM shows s JOIN cinemas c ON c.id = s.cinema_id JOIN halls h ON h.id = s.hall_id
             WHERE s.movie_id = $1 AND s.starts_at > now() AND s.status <> 'canceled'
             ORDER BY s.starts_at, s.id LIMIT $2",
        )
        .await
        .map_err(db_failed)?;
    let rows = client.query(&statement, &[&id.0, &COMING_SHOWS]).await.map_err(db_failed)?;
    rows.iter().map(|row| coming_show(row).map_err(db_failed)).collect()
}

fn coming_show(row: &tokio_postgres::Row) -> anyhow::Result<ComingShow> {
    let starts_at: Timestamp = row.try_get("starts_at")?;
    let zone = TimeZone::get(row.try_get("time_zone")?)?;
    Ok(ComingShow {
        id: ShowId(row.try_get("id")?),
        cinema_id: CinemaId(row.try_get("cinema_id")?),
        cinema_name: row.try_get("cinema_name")?,
        hall_id: HallId(row.try_get("hall_id")?),
        hall_name: row.try_get("hall_name")?,
        starts_at,
        starts_at_local: local_time(starts_at, &zone),
        on_sale_at: row.try_get("on_sale_at")?,
    })
}

/// RFC 3339 with the zone's offset at that moment.
fn local_time(at: Timestamp, zone: &TimeZone) -> String {
    at.display_with_offset(zone.to_offset(at)).to_string()
}
