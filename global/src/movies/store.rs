//! The catalogue in Postgres. Every write draws a position of the feed for each film it touches; the caller
//! holds the feed's lock.

use common::MovieId;
use common::catalogue::Movie;
use common::proto::feed::{self as proto, Update, update};
use deadpool_postgres::GenericClient;
use serde_json::json;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::rules::Facts;
use crate::db;
use crate::fault::Result;

impl Facts {
    pub fn of(movie: &Movie) -> Self {
        Self {
            title: movie.title.clone(),
            release_date: movie.release_date,
            runtime_min: movie.runtime_min,
            rating: movie.rating.clone(),
            genre: movie.genre.clone(),
            director: movie.director.clone(),
            distributor: movie.distributor.clone(),
            cast: movie.cast.clone(),
            synopsis: movie.synopsis.clone(),
        }
    }

    fn into_movie(self, id: MovieId, version: i64) -> Movie {
        Movie {
            id,
            title: self.title,
            release_date: self.release_date,
            runtime_min: self.runtime_min,
            rating: self.rating,
            genre: self.genre,
            director: self.director,
            distributor: self.distributor,
            cast: self.cast,
            synopsis: self.synopsis,
            version,
        }
    }
}

fn from_row(row: &Row) -> Movie {
    let facts = Facts {
        title: row.get("title"),
        release_date: row.get("release_date"),
        runtime_min: row.get("runtime_min"),
        rating: row.get("rating"),
        genre: row.get("genre"),
        director: row.get("director"),
        distributor: row.get("distributor"),
        cast: row.get("cast"),
        synopsis: row.get("synopsis"),
    };
    facts.into_movie(MovieId(row.get("id")), row.get("version"))
}

/// The columns of [`from_row`].
macro_rules! select_movie {
    ($rest:literal) => {
        concat!(
            "SELECT id, title, release_date, runtime_min, rating, genre, director, distributor, \"cast\",
                    synopsis, version, deleted, position, natural_key FROM movies ",
            $rest
        )
    };
}

pub async fn find_for_update(db: &impl GenericClient, id: MovieId) -> Result<Option<Movie>> {
    let sql = select_movie!("WHERE id = $1 AND NOT deleted FOR UPDATE");
    Ok(db::row(db, sql, &[&id.0]).await?.as_ref().map(from_row))
}

pub async fn find_for_feed(db: &impl GenericClient, id: MovieId) -> Result<Option<proto::Movie>> {
    let row = db::row(db, select_movie!("WHERE id = $1"), &[&id.0]).await?;
    Ok(row.map(|row| from_row(&row).into_feed(row.get("deleted"))))
}

/// Films whose last change is after a position, in the order of the changes.
pub async fn changed_after(db: &impl GenericClient, after: i64, limit: i64) -> Result<Vec<Update>> {
    let sql = select_movie!("WHERE position > $1 ORDER BY position LIMIT $2");
    let update = |row: &Row| Update {
        position: row.get("position"),
        update: Some(update::Update::Movie(from_row(row).into_feed(row.get("deleted")))),
    };
    Ok(db::rows(db, sql, &[&after, &limit]).await?.iter().map(update).collect())
}

/// Films by natural key.
pub async fn find_by_keys(db: &impl GenericClient, keys: &[String]) -> Result<Vec<(String, Movie)>> {
    let sql = select_movie!("WHERE natural_key = ANY($1) AND NOT deleted");
    let rows = db::rows(db, sql, &[&keys]).await?;
    Ok(rows.iter().map(|row| (row.get("natural_key"), from_row(row))).collect())
}

/// Films as the rows of a set, their positions counted up to `last`.
fn as_records(movies: &[Movie], last: i64) -> Json<serde_json::Value> {
    let count = i64::try_from(movies.len()).expect("a batch fits in memory");
    let record = |(movie, i): (&Movie, i64)| {
        json!({
            "id": movie.id.0,
            "title": movie.title,
            "release_date": movie.release_date,
            "runtime_min": movie.runtime_min,
            "rating": movie.rating,
            "genre": movie.genre,
            "director": movie.director,
            "distributor": movie.distributor,
            "cast": movie.cast,
            "synopsis": movie.synopsis,
            "version": movie.version,
            "natural_key": Facts::of(movie).natural_key(),
            "position": last - count + 1 + i,
        })
    };
    Json(movies.iter().zip(0..).map(record).collect())
}

/// Fails with the unique index `movies_natural_key` when a film is there already.
pub async fn insert(db: &impl GenericClient, movies: &[Movie], last_position: i64) -> Result<()> {
    let sql = r#"INSERT INTO movies (id, title, release_date, runtime_min, rating, genre, director, distributor,
                                     "cast", synopsis, version, natural_key, position)
                 SELECT id, title, release_date, runtime_min, rating, genre, director, distributor,
                        "cast", synopsis, version, natural_key, position
                 FROM jsonb_to_recordset($1::jsonb) AS r (id uuid, title text, release_date date,
                      runtime_min integer, rating text, genre text, director text, distributor text,
                      "cast" text[], synopsis text, version bigint, natural_key text, position bigint)"#;
    db::run(db, sql, &[&as_records(movies, last_position)]).await?;
    Ok(())
}

/// Writes films that are there already, with the versions they carry. Fails as [`insert`] does.
pub async fn update(db: &impl GenericClient, movies: &[Movie], last_position: i64) -> Result<()> {
    let sql = r#"UPDATE movies m SET title = r.title, release_date = r.release_date,
                        runtime_min = r.runtime_min, rating = r.rating, genre = r.genre,
                        director = r.director, distributor = r.distributor, "cast" = r."cast",
                        synopsis = r.synopsis, version = r.version, natural_key = r.natural_key,
                        position = r.position
                 FROM jsonb_to_recordset($1::jsonb) AS r (id uuid, title text, release_date date,
                      runtime_min integer, rating text, genre text, director text, distributor text,
                      "cast" text[], synopsis text, version bigint, natural_key text, position bigint)
                 WHERE m.id = r.id"#;
    db::run(db, sql, &[&as_records(movies, last_position)]).await?;
    Ok(())
}

/// A deleted film stays, so that followers learn of it and old tickets keep its name.
pub async fn delete(db: &impl GenericClient, id: MovieId, position: i64) -> Result<()> {
    let sql = "UPDATE movies SET deleted = true, version = version + 1, position = $2 WHERE id = $1";
    db::run(db, sql, &[&id.0, &position]).await?;
    Ok(())
}

/// A new film of these facts.
pub fn new_movie(facts: Facts) -> Movie {
    facts.into_movie(MovieId(Uuid::now_v7()), 1)
}

/// The film with other facts, one version on.
pub fn changed_movie(movie: &Movie, facts: Facts) -> Movie {
    facts.into_movie(movie.id, movie.version + 1)
}
