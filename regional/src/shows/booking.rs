//! When a hall is taken: one film at a time.

use common::{HallId, Problem, ShowId};
use jiff::Timestamp;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::view::TURNAROUND;
use crate::app::{App, db_failed};

/// The database refuses an overlap, whoever comes first. Whoever books a hall waits for the one before: of two
/// that insert overlapping times at once, each would wait for the other, and Postgres would end one as deadlocked.
/// A booking that the show has already is left as it is.
const BOOK: &str = "
INSERT INTO hall_bookings (show_id, hall_id, during)
SELECT $1::uuid, $2::uuid, tstzrange($3, $4)
  FROM (SELECT pg_advisory_xact_lock(hashtextextended($5, 0))) AS one_at_a_time
    ON CONFLICT (show_id, during) DO NOTHING";

/// Books the hall until `ends_at` and the time it takes to clean it.
pub(super) async fn book(
    app: &App,
    show: ShowId,
    hall: HallId,
    starts_at: Timestamp,
    ends_at: Timestamp,
) -> Result<(), Problem> {
    let until = ends_at + TURNAROUND;
    let params: [&(dyn ToSql + Sync); 5] = [&show.0, &hall.0, &starts_at, &until, &hall.to_string()];
    match app.db().await?.execute(BOOK, &params).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(&SqlState::EXCLUSION_VIOLATION) => {
            Err(Problem::conflict("hall-busy", "another show is in the hall then (runtime plus 20 minutes)"))
        }
        Err(error) => Err(db_failed(error)),
    }
}

/// Frees the hall of a show that did not come to be. The reconciler does the same later.
pub(super) async fn free(app: &App, show: ShowId) {
    let delete = "DELETE FROM hall_bookings b WHERE show_id = $1
                     AND NOT EXISTS (SELECT 1 FROM show_journal j WHERE j.show_id = b.show_id)";
    let_go(app, show, delete, &[&show.0]).await;
}

/// Lets go of the show's bookings at other times than its own. The reconciler does the same later.
pub(super) async fn keep_one(app: &App, show: ShowId, starts_at: Timestamp) {
    let delete = "DELETE FROM hall_bookings WHERE show_id = $1 AND lower(during) <> $2";
    let_go(app, show, delete, &[&show.0, &starts_at]).await;
}

async fn let_go(app: &App, show: ShowId, delete: &str, params: &[&(dyn ToSql + Sync)]) {
    let freed = async { anyhow::Ok(app.pool.get().await?.execute(delete, params).await?) };
    if let Err(error) = freed.await {
        tracing::warn!(%error, %show, "a hall stays booked until the reconciler comes by");
    }
}
