//! `POST /v1/movies/import`: many films at once, as CSV or JSON lines.
//!
//! Good rows are kept whatever becomes of the others; a film is known by its natural key, so repeating an
//! import changes nothing. Rows are written some hundred a transaction: the feed's lock is not held long.

use std::collections::HashMap;

use axum::extract::{FromRequest, Request, State};
use bytes::Bytes;
use common::authz::Authorized;
use common::catalogue::Movie;
use common::http::{Json, whole_body};
use common::{MovieId, Problem, UserId};
use http::{StatusCode, header};
use serde::Serialize;
use serde_json::json;

use super::parse::{self, Row};
use super::rules::Facts;
use super::store;
use crate::app::App;
use crate::audit;
use crate::client::Client;
use crate::fault::Result;
use crate::feed;

/// About 700,000 films.
pub const MAX_IMPORT_BYTES: usize = 64 * 1024 * 1024;
const CHUNK: usize = 500;

/// What became of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Created,
    Updated,
    Unchanged,
    Rejected,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct RowReport {
    /// Where the row starts; the first line is 1.
    #[schema(minimum = 1)]
    pub line: u64,
    pub outcome: Outcome,
    pub title: Option<String>,
    /// The film; `null` for a rejected row.
    pub movie_id: Option<MovieId>,
    /// Why a row was rejected, for programs: `missing-title`, `duplicate`, `bad-date`, `bad-runtime`,
    /// `invalid-field`, `wrong-field-count`, `not-utf8`, `malformed-json`.
    pub code: Option<&'static str>,
    /// Why a row was rejected, for people.
    pub reason: Option<String>,
    /// What was put right.
    pub warnings: Vec<String>,
}

/// What became of an import, row by row.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ImportReport {
    /// How many rows there were.
    pub total: usize,
    pub created: usize,
    pub updated: usize,
    pub unchanged: usize,
    pub rejected: usize,
    /// Every row, in the order of its line.
    pub rows: Vec<RowReport>,
}

/// The body with what it is.
pub enum ImportBody {
    Csv(Bytes),
    JsonLines(Bytes),
}

impl<S: Send + Sync> FromRequest<S> for ImportBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> std::result::Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let essence = content_type.and_then(|v| v.split(';').next()).unwrap_or_default().trim();
        let make = match essence.to_ascii_lowercase().as_str() {
            "text/csv" | "application/csv" => Self::Csv,
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines" => Self::JsonLines,
            _ => {
                return Err(Problem::new(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "unsupported-media-type",
                    "send `content-type: text/csv` or `application/x-ndjson`",
                ));
            }
        };
        whole_body(request, state).await.map(make)
    }
}

/// Import films from CSV (with a header line) or JSON lines.
///
/// Columns: `title`, `release_date`, `runtime_min`, `rating`, `genre`, `director`, `distributor`, `cast`
/// (names between semicolons), `synopsis`; `source`, `imdb_rating` and `imdb_votes` are known and not kept.
/// Good rows are kept; a film that is known is updated with what the row knows. At most 64 MiB.
#[utoipa::path(post, path = "/v1/movies/import", tag = "movies", operation_id = "import_movies",
    request_body(content((String = "text/csv"), (serde_json::Value = "application/x-ndjson"))),
    responses((status = 200, description = "What became of each row", body = ImportReport)))]
pub async fn import(
    State(app): State<App>,
    authorized: Authorized,
    client: Client,
    body: ImportBody,
) -> Result<Json<ImportReport>> {
    let actor = authorized.actor()?.user();
    let today = jiff::Zoned::now().date();
    let rows = tokio::task::spawn_blocking(move || match body {
        ImportBody::Csv(bytes) => parse::csv(&bytes, today),
        ImportBody::JsonLines(bytes) => Ok(parse::json_lines(&bytes, today)),
    })
    .await
    .map_err(Problem::internal)??;
    let mut report = ImportReport {
        total: rows.len(),
        created: 0,
        updated: 0,
        unchanged: 0,
        rejected: 0,
        rows: Vec::new(),
    };
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let chunk: Vec<Row> = rows.by_ref().take(CHUNK).collect();
        report.rows.extend(write_chunk(&app, actor, &client, chunk).await?);
    }
    for row in &report.rows {
        *match row.outcome {
            Outcome::Created => &mut report.created,
            Outcome::Updated => &mut report.updated,
            Outcome::Unchanged => &mut report.unchanged,
            Outcome::Rejected => &mut report.rejected,
        } += 1;
    }
    Ok(Json(report))
}

/// The film with what the row knows; what the row does not know stays. None: nothing changes.
fn merged(movie: &Movie, new: &Facts) -> Option<Movie> {
    let old = Facts::of(movie);
    let facts = Facts {
        title: new.title.clone(),
        release_date: new.release_date.or(old.release_date),
        runtime_min: new.runtime_min.or(old.runtime_min),
        rating: new.rating.clone().or_else(|| old.rating.clone()),
        genre: new.genre.clone().or_else(|| old.genre.clone()),
        director: new.director.clone().or_else(|| old.director.clone()),
        distributor: new.distributor.clone().or_else(|| old.distributor.clone()),
        cast: if new.cast.is_empty() { old.cast.clone() } else { new.cast.clone() },
        synopsis: new.synopsis.clone().or_else(|| old.synopsis.clone()),
    };
    (facts != old).then(|| store::changed_movie(movie, facts))
}

async fn write_chunk(app: &App, actor: UserId, client: &Client, rows: Vec<Row>) -> Result<Vec<RowReport>> {
    let keys: Vec<String> = rows.iter().filter_map(|r| Some(r.facts.as_ref().ok()?.natural_key())).collect();
    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    feed::store::lock(&tx).await?;
    let known: HashMap<String, Movie> = store::find_by_keys(&tx, &keys).await?.into_iter().collect();

    let (mut created, mut updated, mut reports) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let (outcome, movie_id, refusal) = match row.facts {
            Err(refusal) => (Outcome::Rejected, None, Some(refusal)),
            Ok(facts) => match known.get(&facts.natural_key()) {
                None => {
                    let movie = store::new_movie(facts);
                    let id = movie.id;
                    created.push(movie);
                    (Outcome::Created, Some(id), None)
                }
                Some(movie) => match merged(movie, &facts) {
                    None => (Outcome::Unchanged, Some(movie.id), None),
                    Some(changed) => {
                        updated.push(changed);
                        (Outcome::Updated, Some(movie.id), None)
                    }
                },
            },
        };
        let (code, reason) = refusal.map(|r| (r.code, r.reason)).unzip();
        let (line, title, warnings) = (row.line, row.title, row.warnings);
        reports.push(RowReport { line, outcome, title, movie_id, code, reason, warnings });
    }
    if created.is_empty() && updated.is_empty() {
        return Ok(reports);
    }
    let mut position = 0;
    if !created.is_empty() {
        position = feed::store::draw(&tx, created.len()).await?;
        store::insert(&tx, &created, position).await?;
    }
    if !updated.is_empty() {
        position = feed::store::draw(&tx, updated.len()).await?;
        store::update(&tx, &updated, position).await?;
    }
    let lines = (reports.first().map(|r| r.line), reports.last().map(|r| r.line));
    let entry = audit::Entry {
        actor: Some(actor),
        action: "movie.import",
        target: "movies".into(),
        before: None,
        after: Some(json!({ "created": created.len(), "updated": updated.len(), "lines": lines })),
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    tx.commit().await?;
    drop(db);
    app.feed.published(position).await;
    Ok(reports)
}
