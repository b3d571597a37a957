//! Search in the catalogue: by title with typos forgiven, genre, year and where it is showing.
//!
//! Every order is total (its key, then the id) and the cursor is the last row's place in it, so pages
//! neither repeat nor skip a film while films come and go.

use common::catalogue::Movie;
use common::http::{Page, Paging};
use common::{CinemaId, Problem, RegionName};
use jiff::civil::Date;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::store::{self, COLUMNS};
use super::text;
use crate::app::{App, db_failed, not_owner};

/// The query string of `GET /v1/movies`.
#[derive(Clone, Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Search {
    /// Words of the title; typos are forgiven.
    #[param(max_length = 200, example = "godfahter")]
    pub q: Option<String>,
    #[param(max_length = 100, example = "Drama")]
    pub genre: Option<String>,
    /// Of release.
    #[param(minimum = 1800, maximum = 2200)]
    pub year: Option<i16>,
    /// Without it: `relevance` where `q` is sent, else `title`.
    #[param(inline)]
    pub sort: Option<Sort>,
    /// A region's name or a cinema's id: only films with a show to come there.
    pub showing_in: Option<String>,
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
pub enum Sort {
    #[serde(rename = "relevance")]
    Relevance,
    #[serde(rename = "title")]
    Title,
    /// Oldest first; unknown dates last.
    #[serde(rename = "release_date")]
    OldestFirst,
    /// Newest first; unknown dates last.
    #[serde(rename = "-release_date")]
    NewestFirst,
}

/// Below this similarity of the search text and any run of a title's words, a title is no match. Two
/// letters swapped in a word of nine give 0.5 to 0.6.
const LEAST_SIMILARITY: &str = "SET LOCAL pg_trgm.word_similarity_threshold = 0.42";

/// $1 folded search text, $2 the same as a LIKE pattern, $3 folded genre, $4 and $5 the year's first day and
/// the next year's, $6 region, $7 cinema. A null asks for nothing.
const FILTER: &str = "NOT m.deleted
    AND ($1::text IS NULL OR m.title_key %> $1 OR m.title_key LIKE $2)
    AND ($3::text IS NULL OR lower(m.genre) = $3)
    AND ($4::date IS NULL OR m.release_date >= $4 AND m.release_date < $5::date)
    AND ($6::text IS NULL OR EXISTS (
        SELECT FROM shows s
        WHERE s.movie_id = m.id AND s.home = $6 AND ($7::uuid IS NULL OR s.cinema_id = $7)
          AND s.starts_at > now() AND s.status <> 'canceled'))";

impl Sort {
    /// The order's key, its direction, and how the cursor's text ($8) becomes one.
    fn sql(self) -> (&'static str, &'static str, &'static str) {
        match self {
            // Whole titles before parts of longer ones; whole numbers, so that a cursor compares exactly.
            Self::Relevance => (
                "round((2 * word_similarity($1, m.title_key) + similarity($1, m.title_key)
                     + CASE WHEN m.title_key LIKE $2 THEN 1 ELSE 0 END) * 10000)::integer",
                "DESC",
                "$8::text::integer",
            ),
            Self::Title => ("m.title_key", "ASC", "$8::text COLLATE \"C\""),
            Self::OldestFirst => ("coalesce(m.release_date, date '9999-12-31')", "ASC", "$8::text::date"),
            Self::NewestFirst => ("coalesce(m.release_date, date '0001-01-01')", "DESC", "$8::text::date"),
        }
    }

    fn statement(self) -> String {
        let (key, direction, cursor) = self.sql();
        let beyond = if direction == "ASC" { ">" } else { "<" };
        format!(
            "WITH found AS (SELECT {COLUMNS}, {key} AS key FROM movies m WHERE {FILTER})
             SELECT found.*, key::text AS place FROM found
             WHERE $8::text IS NULL OR key {beyond} {cursor} OR (key = {cursor} AND id > $9::uuid)
             ORDER BY key {direction}, id LIMIT $10"
        )
    }

    /// Marks cursors, so that one of another order is refused.
    fn mark(self) -> char {
        match self {
            Self::Relevance => 'r',
            Self::Title => 't',
            Self::OldestFirst => 'o',
            Self::NewestFirst => 'n',
        }
    }

    fn place(self, cursor: &str) -> Option<(String, Uuid)> {
        let (key, id) = cursor.strip_prefix(self.mark())?.rsplit_once(' ')?;
        let sound = match self {
            Self::Relevance => key.parse::<i32>().is_ok(),
            Self::Title => !text::has_control(key),
            Self::OldestFirst | Self::NewestFirst => key.parse::<Date>().is_ok(),
        };
        sound.then_some((key.to_owned(), id.parse().ok()?))
    }
}

/// A search, checked.
struct Wanted {
    q: Option<String>,
    genre: Option<String>,
    years: Option<(Date, Date)>,
    showing: Option<(RegionName, Option<CinemaId>)>,
    sort: Sort,
    after: Option<(String, Uuid)>,
    limit: i64,
}

impl Search {
    fn check(self, app: &App) -> Result<Wanted, Problem> {
        let q = text::search_text(self.q.as_deref())?;
        let sort = match (self.sort, &q) {
            (Some(Sort::Relevance), None) => {
                return Err(Problem::invalid("sort", "`relevance` needs a search text `q`"));
            }
            (Some(sort), _) => sort,
            (None, Some(_)) => Sort::Relevance,
            (None, None) => Sort::Title,
        };
        let genre = self.genre.filter(|genre| !genre.trim().is_empty());
        if genre.as_deref().is_some_and(|g| text::has_control(g) || g.len() > 100) {
            return Err(Problem::invalid("genre", "is not a genre"));
        }
        let years = match self.year {
            None => None,
            Some(year @ 1800..=2200) => Some((Date::constant(year, 1, 1), Date::constant(year + 1, 1, 1))),
            Some(_) => return Err(Problem::invalid("year", "must be between 1800 and 2200")),
        };
        let paging = Paging { limit: self.limit, cursor: self.cursor };
        let after = match paging.after()? {
            None => None,
            Some(cursor) => Some(
                sort.place(&cursor)
                    .ok_or_else(|| Problem::invalid("cursor", "is not a cursor that this list gave"))?,
            ),
        };
        Ok(Wanted {
            q,
            genre: genre.map(|g| g.trim().to_lowercase()),
            years,
            showing: self.showing_in.map(|place| showing(app, &place)).transpose()?,
            sort,
            after,
            limit: paging.limit()?,
        })
    }
}

/// Where it must be showing: this region, or one of its cinemas. Another region answers for its own (421).
fn showing(app: &App, place: &str) -> Result<(RegionName, Option<CinemaId>), Problem> {
    let neither = || Problem::invalid("showing_in", "is neither a region nor a cinema");
    if let Ok(cinema) = place.parse::<CinemaId>() {
        if cinema.is_home(app.region()) {
            return Ok((app.region().clone(), Some(cinema)));
        }
        let home = app.regions().iter().find(|r| cinema.is_home(r)).ok_or_else(neither)?;
        return Err(not_owner(home, 0));
    }
    match app.regions().iter().find(|r| r.as_str() == place) {
        Some(region) if region == app.region() => Ok((region.clone(), None)),
        Some(region) => Err(not_owner(region, 0)),
        None => Err(neither()),
    }
}

/// One page of the films that were asked for.
pub async fn search(app: &App, search: Search) -> Result<Page<Movie>, Problem> {
    let wanted = search.check(app)?;
    let mut client = app.db().await?;
    let found = run(&mut client, &wanted).await.map_err(db_failed)?;
    let page = Page::of(found, wanted.limit, |(movie, place)| {
        format!("{}{place} {}", wanted.sort.mark(), movie.id.0)
    });
    let items = page.items.into_iter().map(|(movie, _)| movie).collect();
    Ok(Page { items, next_cursor: page.next_cursor })
}

async fn run(
    client: &mut deadpool_postgres::Client,
    wanted: &Wanted,
) -> Result<Vec<(Movie, String)>, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    if wanted.q.is_some() {
        transaction.batch_execute(LEAST_SIMILARITY).await?;
    }
    let statement = transaction.prepare_cached(&wanted.sort.statement()).await?;
    let (first, next) = wanted.years.unzip();
    let region = wanted.showing.as_ref().map(|(region, _)| region.as_str());
    let cinema = wanted.showing.as_ref().and_then(|(_, cinema)| cinema.map(|c| c.0));
    let (key, id) = wanted.after.as_ref().map(|(key, id)| (key, id)).unzip();
    let parameters: [&(dyn ToSql + Sync); 10] = [
        &wanted.q,
        &wanted.q.as_deref().map(text::containing),
        &wanted.genre,
        &first,
        &next,
        &region,
        &cinema,
        &key,
        &id,
        &(wanted.limit + 1),
    ];
    let rows = transaction.query(&statement, &parameters).await?;
    transaction.commit().await?;
    rows.iter().map(|row| Ok((store::movie(row)?, row.try_get("place")?))).collect()
}
