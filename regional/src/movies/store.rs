//! The region's copy of the catalogue. Rows of deleted films stay, marked, so that no older message can
//! bring them back; a row is only ever replaced by the same or a later version.

use common::MovieId;
use common::catalogue::Movie;
use deadpool_postgres::GenericClient;
use tokio_postgres::{Error, Row};

use super::text::fold;

/// What a search or a look-up reads, in the order of [`movie`].
pub const COLUMNS: &str = "id, title, release_date, runtime_min, rating, genre, director, distributor, \
     cast_names, synopsis, version";

pub fn movie(row: &Row) -> Result<Movie, Error> {
    Ok(Movie {
        id: MovieId(row.try_get("id")?),
        title: row.try_get("title")?,
        release_date: row.try_get("release_date")?,
        runtime_min: row.try_get("runtime_min")?,
        rating: row.try_get("rating")?,
        genre: row.try_get("genre")?,
        director: row.try_get("director")?,
        distributor: row.try_get("distributor")?,
        cast: row.try_get("cast_names")?,
        synopsis: row.try_get("synopsis")?,
        version: row.try_get("version")?,
    })
}

/// Whether a film is known here.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    Yes(Box<Movie>),
    Deleted,
    Never,
}

pub async fn get(client: &impl GenericClient, id: MovieId) -> Result<Known, Error> {
    let statement =
        client.prepare_cached(&format!("SELECT {COLUMNS}, deleted FROM movies WHERE id = $1")).await?;
    Ok(match client.query_opt(&statement, &[&id.0]).await? {
        None => Known::Never,
        Some(row) if row.try_get("deleted")? => Known::Deleted,
        Some(row) => Known::Yes(Box::new(movie(&row)?)),
    })
}

/// Stores what the feed or a look-up said, unless a later version is here already.
pub async fn put(client: &impl GenericClient, movie: &Movie, deleted: bool) -> Result<(), Error> {
    let statement = client
        .prepare_cached(
            "INSERT INTO movies (id, title, title_key, release_date, runtime_min, rating, genre, director,
                                 distributor, cast_names, synopsis, version, deleted)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             ON CONFLICT (id) DO UPDATE SET
                 title = excluded.title, title_key = excluded.title_key,
                 release_date = excluded.release_date, runtime_min = excluded.runtime_min,
                 rating = excluded.rating, genre = excluded.genre, director = excluded.director,
                 distributor = excluded.distributor, cast_names = excluded.cast_names,
                 synopsis = excluded.synopsis, version = excluded.version, deleted = excluded.deleted
             WHERE movies.version <= excluded.version",
        )
        .await?;
    client
        .execute(
            &statement,
            &[
                &movie.id.0,
                &movie.title,
                &fold(&movie.title),
                &movie.release_date,
                &movie.runtime_min,
                &movie.rating,
                &movie.genre,
                &movie.director,
                &movie.distributor,
                &movie.cast,
                &movie.synopsis,
                &movie.version,
                &deleted,
            ],
        )
        .await?;
    Ok(())
}
