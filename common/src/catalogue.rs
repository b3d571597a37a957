//! A film as the public API shows it; written by `global`, served by every region from the feed.
//!
//! On the wire between services what is unknown is an empty string or 0, in the API it is `null`; the two
//! conversions here are the only place that knows.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::{BadId, MovieId, proto};

/// A film of the catalogue. What is not known is `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Movie {
    pub id: MovieId,
    #[schema(example = "The Wizard of Oz")]
    pub title: String,
    #[schema(example = "1939-08-25")]
    pub release_date: Option<Date>,
    /// Minutes.
    #[schema(minimum = 1, example = 103)]
    pub runtime_min: Option<i32>,
    #[schema(example = "PG-13")]
    pub rating: Option<String>,
    #[schema(example = "Musical")]
    pub genre: Option<String>,
    pub director: Option<String>,
    pub distributor: Option<String>,
    pub cast: Vec<String>,
    pub synopsis: Option<String>,
    /// Rises with every change; the `ETag` is made of it.
    pub version: i64,
}

fn known(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl TryFrom<proto::feed::Movie> for Movie {
    type Error = BadId;

    /// Fails on an id that is none. Whether the film is deleted is the message's own to say.
    fn try_from(movie: proto::feed::Movie) -> Result<Self, BadId> {
        Ok(Self {
            id: movie.movie_id.parse()?,
            title: movie.title,
            release_date: movie.release_date.parse().ok(),
            runtime_min: (movie.runtime_min > 0).then_some(movie.runtime_min),
            rating: known(movie.rating),
            genre: known(movie.genre),
            director: known(movie.director),
            distributor: known(movie.distributor),
            cast: movie.cast,
            synopsis: known(movie.synopsis),
            version: movie.version,
        })
    }
}

impl Movie {
    /// The feed's message about this film.
    pub fn into_feed(self, deleted: bool) -> proto::feed::Movie {
        proto::feed::Movie {
            movie_id: self.id.to_string(),
            title: self.title,
            release_date: self.release_date.map(|d| d.to_string()).unwrap_or_default(),
            runtime_min: self.runtime_min.unwrap_or_default(),
            rating: self.rating.unwrap_or_default(),
            genre: self.genre.unwrap_or_default(),
            director: self.director.unwrap_or_default(),
            distributor: self.distributor.unwrap_or_default(),
            cast: self.cast,
            synopsis: self.synopsis.unwrap_or_default(),
            deleted,
            version: self.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feed_carries_a_film_whole() {
        let movie = Movie {
            id: MovieId::new(),
            title: "Following".into(),
            release_date: Some("1999-04-04".parse().unwrap()),
            runtime_min: None,
            rating: Some("R".into()),
            genre: None,
            director: Some("Christopher Nolan".into()),
            distributor: None,
            cast: vec!["Jeremy Theobald".into()],
            synopsis: None,
            version: 3,
        };
        assert_eq!(Movie::try_from(movie.clone().into_feed(false)), Ok(movie));
        assert!(Movie::try_from(proto::feed::Movie::default()).is_err());
    }
}
