//! How a handler fails: with a problem of its own, or because the database does.

use axum::response::{IntoResponse, Response};
use common::Problem;
use deadpool_postgres::PoolError;

/// The error of every handler; made from problems and database errors by `?`.
#[derive(Debug)]
pub enum Fault {
    Problem(Problem),
    Database(tokio_postgres::Error),
    Pool(PoolError),
}

pub type Result<T> = std::result::Result<T, Fault>;

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<PoolError> for Fault {
    fn from(error: PoolError) -> Self {
        Self::Pool(error)
    }
}

impl Fault {
    /// The name of the unique index that refused, if one did.
    pub fn unique_index(&self) -> Option<&str> {
        let Self::Database(error) = self else { return None };
        let error = error.as_db_error()?;
        (error.code() == &tokio_postgres::error::SqlState::UNIQUE_VIOLATION).then(|| error.constraint())?
    }

    pub fn into_problem(self) -> Problem {
        match self {
            Self::Problem(problem) => problem,
            Self::Pool(error) => unreachable_database(&error),
            // Without an answer of the server's the connection broke; a retry finds another.
            Self::Database(error) if error.as_db_error().is_none() => unreachable_database(&error),
            Self::Database(error) => match error.as_db_error().map(|e| e.code().code()) {
                // Shutting down, out of resources, canceled by the statement timeout.
                Some(code) if code.starts_with("57") || code.starts_with("53") => {
                    unreachable_database(&error)
                }
                _ => Problem::internal(DbErrorText(&error)),
            },
        }
    }
}

fn unreachable_database(error: &dyn std::fmt::Display) -> Problem {
    tracing::warn!(%error, "the database does not serve");
    Problem::unavailable("database-unavailable", "the accounts' database cannot be reached", 1)
}

/// tokio-postgres shows only "db error" by itself.
struct DbErrorText<'a>(&'a tokio_postgres::Error);

impl std::fmt::Display for DbErrorText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_db_error() {
            Some(error) => write!(f, "{} {}", error.code().code(), error.message()),
            None => write!(f, "{}", self.0),
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        self.into_problem().into_response()
    }
}
