//! `POST`, `PATCH` and `DELETE` of one film.

use axum::extract::State;
use axum::response::Response;
use common::authz::Authorized;
use common::catalogue::Movie;
use common::http::{Conditions, Json, Path, all_fields, tagged};
use common::problem::ProblemDetails;
use common::{MovieId, Problem};
use http::{HeaderValue, StatusCode, header};
use jiff::civil::Date;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::rules::Facts;
use super::store;
use crate::app::App;
use crate::audit;
use crate::client::Client;
use crate::fault::{Fault, Result};
use crate::feed;

/// What is absent or `null` is not known.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMovie {
    #[schema(example = "Following", min_length = 1, max_length = 300)]
    pub title: String,
    #[schema(example = "1999-04-04")]
    pub release_date: Option<Date>,
    #[schema(example = 69, minimum = 1, maximum = 1440)]
    pub runtime_min: Option<i32>,
    #[schema(example = "R", max_length = 200)]
    pub rating: Option<String>,
    #[schema(max_length = 200)]
    pub genre: Option<String>,
    #[schema(max_length = 200)]
    pub director: Option<String>,
    #[schema(max_length = 200)]
    pub distributor: Option<String>,
    #[schema(max_items = 100)]
    pub cast: Option<Vec<String>>,
    #[schema(max_length = 10000)]
    pub synopsis: Option<String>,
}

fn is_known(fault: &Fault) -> bool {
    fault.unique_index() == Some("movies_natural_key")
}

fn exists() -> Problem {
    Problem::conflict("movie-exists", "there is a film with this title and release date")
}

/// What the audit log keeps of a film.
fn noted(movie: &Movie) -> Option<Value> {
    Some(json!(movie))
}

/// Add a film to the catalogue.
#[utoipa::path(post, path = "/v1/movies", tag = "movies", operation_id = "create_movie", request_body = NewMovie,
    responses(
        (status = 201, description = "The film", body = Movie,
            headers(("ETag" = String, description = "For `If-Match`"))),
        (status = 409, description = "`movie-exists`: one with this title and release date", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn create(
    State(app): State<App>,
    authorized: Authorized,
    client: Client,
    Json(new): Json<NewMovie>,
) -> Result<Response> {
    let facts = Facts {
        title: new.title,
        release_date: new.release_date,
        runtime_min: new.runtime_min,
        rating: new.rating,
        genre: new.genre,
        director: new.director,
        distributor: new.distributor,
        cast: new.cast.unwrap_or_default(),
        synopsis: new.synopsis,
    }
    .tidied();
    all_fields(facts.faults())?;
    let movie = store::new_movie(facts);

    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    feed::store::lock(&tx).await?;
    let position = feed::store::draw(&tx, 1).await?;
    let movies = std::slice::from_ref(&movie);
    store::insert(&tx, movies, position).await.map_err(|f| if is_known(&f) { exists().into() } else { f })?;
    let entry = audit::Entry {
        actor: Some(authorized.actor()?.user()),
        action: "movie.create",
        target: movie.id.to_string(),
        before: None,
        after: noted(&movie),
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    tx.commit().await?;
    drop(db);
    app.feed.published(position).await;
    let mut response = tagged(StatusCode::CREATED, movie.version, &movie);
    let location = HeaderValue::try_from(format!("/v1/movies/{}", movie.id)).map_err(Problem::internal)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// A field that is there, be it `null`.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> std::result::Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// What is absent stays as it is; what is `null` is no longer known.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeMovie {
    #[schema(min_length = 1, max_length = 300, nullable = false)]
    #[serde(default, deserialize_with = "given")]
    pub title: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub release_date: Option<Option<Date>>,
    #[schema(minimum = 1, maximum = 1440)]
    #[serde(default, deserialize_with = "given")]
    pub runtime_min: Option<Option<i32>>,
    #[schema(max_length = 200)]
    #[serde(default, deserialize_with = "given")]
    pub rating: Option<Option<String>>,
    #[schema(max_length = 200)]
    #[serde(default, deserialize_with = "given")]
    pub genre: Option<Option<String>>,
    #[schema(max_length = 200)]
    #[serde(default, deserialize_with = "given")]
    pub director: Option<Option<String>>,
    #[schema(max_length = 200)]
    #[serde(default, deserialize_with = "given")]
    pub distributor: Option<Option<String>>,
    #[schema(max_items = 100)]
    #[serde(default, deserialize_with = "given")]
    pub cast: Option<Option<Vec<String>>>,
    #[schema(max_length = 10000)]
    #[serde(default, deserialize_with = "given")]
    pub synopsis: Option<Option<String>>,
}

impl ChangeMovie {
    fn applied_to(self, movie: &Movie) -> Facts {
        let old = Facts::of(movie);
        Facts {
            title: self.title.unwrap_or(old.title),
            release_date: self.release_date.unwrap_or(old.release_date),
            runtime_min: self.runtime_min.unwrap_or(old.runtime_min),
            rating: self.rating.unwrap_or(old.rating),
            genre: self.genre.unwrap_or(old.genre),
            director: self.director.unwrap_or(old.director),
            distributor: self.distributor.unwrap_or(old.distributor),
            cast: self.cast.map_or(old.cast, Option::unwrap_or_default),
            synopsis: self.synopsis.unwrap_or(old.synopsis),
        }
        .tidied()
    }
}

/// Change a film.
#[utoipa::path(patch, path = "/v1/movies/{id}", tag = "movies", operation_id = "update_movie",
    params(
        ("id" = MovieId, Path, description = "The film"),
        ("If-Match" = Option<String>, Header, description = "Only if the film is still at this `ETag`")),
    request_body = ChangeMovie,
    responses(
        (status = 200, description = "The film as it is now", body = Movie,
            headers(("ETag" = String, description = "For `If-Match`"))),
        (status = 409, description = "`movie-exists`: another one with this title and release date",
            body = ProblemDetails, content_type = "application/problem+json"),
        (status = 412, description = "`precondition-failed`", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn update(
    State(app): State<App>,
    authorized: Authorized,
    conditions: Conditions,
    client: Client,
    Path(id): Path<MovieId>,
    Json(change): Json<ChangeMovie>,
) -> Result<Response> {
    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    feed::store::lock(&tx).await?;
    let before = store::find_for_update(&tx, id).await?.ok_or_else(|| Problem::not_found("movie"))?;
    let facts = change.applied_to(&before);
    all_fields(facts.faults())?;
    conditions.require_version(before.version)?;
    if facts == Facts::of(&before) {
        return Ok(tagged(StatusCode::OK, before.version, &before));
    }
    let after = store::changed_movie(&before, facts);
    let position = feed::store::draw(&tx, 1).await?;
    let movies = std::slice::from_ref(&after);
    store::update(&tx, movies, position).await.map_err(|f| if is_known(&f) { exists().into() } else { f })?;
    let entry = audit::Entry {
        actor: Some(authorized.actor()?.user()),
        action: "movie.update",
        target: id.to_string(),
        before: noted(&before),
        after: noted(&after),
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    tx.commit().await?;
    drop(db);
    app.feed.published(position).await;
    Ok(tagged(StatusCode::OK, after.version, &after))
}

/// Take a film out of the catalogue. Shows and tickets that name it keep its name.
#[utoipa::path(delete, path = "/v1/movies/{id}", tag = "movies", operation_id = "delete_movie",
    params(
        ("id" = MovieId, Path, description = "The film"),
        ("If-Match" = Option<String>, Header, description = "Only if the film is still at this `ETag`")),
    responses(
        (status = 204, description = "The film is gone"),
        (status = 412, description = "`precondition-failed`", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn delete(
    State(app): State<App>,
    authorized: Authorized,
    conditions: Conditions,
    client: Client,
    Path(id): Path<MovieId>,
) -> Result<StatusCode> {
    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    feed::store::lock(&tx).await?;
    let before = store::find_for_update(&tx, id).await?.ok_or_else(|| Problem::not_found("movie"))?;
    conditions.require_version(before.version)?;
    let position = feed::store::draw(&tx, 1).await?;
    store::delete(&tx, id, position).await?;
    let entry = audit::Entry {
        actor: Some(authorized.actor()?.user()),
        action: "movie.delete",
        target: id.to_string(),
        before: noted(&before),
        after: None,
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    tx.commit().await?;
    drop(db);
    app.feed.published(position).await;
    Ok(StatusCode::NO_CONTENT)
}
