//! Dropping a year: its partition of the journal at once, then what is left of its shows, a few at a time.

use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use crate::journal::{Ballot, years};
use crate::verify::Store;

/// Shows whose last rows go in one transaction.
const AT_ONCE: i64 = 200;

#[derive(Clone, Debug, Serialize)]
pub struct Dropped {
    pub year: i16,
    /// How long the journal's table was locked.
    pub locked: Duration,
    /// Shows whose tombstones and lists went.
    pub shows: u64,
}

/// Drops a year that is over at `now`, if every show created in it is archived. A repeat goes on where one was
/// interrupted.
pub async fn drop_year(store: &Store, year: i16, now: Timestamp) -> anyhow::Result<Dropped> {
    anyhow::ensure!(year < years::year_of(now), "{year} is not over");
    let locked = detach(store, year).await?;
    let mut shows = 0;
    loop {
        match rest(store, year).await? {
            0 => return Ok(Dropped { year, locked, shows }),
            some => shows += some,
        }
    }
}

async fn detach(store: &Store, year: i16) -> anyhow::Result<Duration> {
    if !years::present(&store.pool).await?.contains(&year) {
        return Ok(Duration::ZERO);
    }
    let part = format!("show_journal_y{year}");
    let mut client = store.pool.get().await?;
    let transaction = client.transaction().await?;
    // Whoever waits for the lock makes all others wait behind; rather fail and be called again.
    transaction.batch_execute("SET LOCAL lock_timeout = '2s'").await?;
    let started = Instant::now();
    let lock = format!("LOCK TABLE show_journal, {part} IN ACCESS EXCLUSIVE MODE");
    transaction.batch_execute(&lock).await.context("the journal is busy; try again")?;
    let count = "SELECT count(*) FROM show_head WHERE show_id >= journal_year_floor($1)
                    AND show_id < journal_year_floor($1 + 1) AND promised_epoch < $2 AND seq > 0";
    let archived = i64::try_from(Ballot::ARCHIVED.epoch)?;
    let left: i64 = transaction.query_one(count, &[&i32::from(year), &archived]).await?.get(0);
    anyhow::ensure!(left == 0, "{left} shows of {year} are not archived; nothing was dropped");
    let exists = format!("SELECT EXISTS (SELECT FROM {part})");
    let entries: bool = transaction.query_one(&exists, &[]).await?.get(0);
    anyhow::ensure!(!entries, "{year} holds entries of no show; run `marquee verify`. Nothing was dropped");
    transaction
        .batch_execute(&format!("ALTER TABLE show_journal DETACH PARTITION {part}; DROP TABLE {part}"))
        .await?;
    transaction.commit().await?;
    Ok(started.elapsed())
}

/// Removes what some more shows of the year left; how many there were.
async fn rest(store: &Store, year: i16) -> anyhow::Result<u64> {
    let mut client = store.pool.get().await?;
    let transaction = client.transaction().await?;
    let select = "SELECT show_id FROM show_head
                   WHERE show_id >= journal_year_floor($1) AND show_id < journal_year_floor($1 + 1)
                     AND (promised_epoch = $2 OR seq = 0) ORDER BY show_id LIMIT $3 FOR UPDATE";
    let archived = i64::try_from(Ballot::ARCHIVED.epoch)?;
    let rows = transaction.query(select, &[&i32::from(year), &archived, &AT_ONCE]).await?;
    let shows: Vec<uuid::Uuid> = rows.iter().map(|row| row.get(0)).collect();
    for (table, column) in [
        ("tickets", "show_id"),
        ("refunds", "show_id"),
        ("hall_bookings", "show_id"),
        ("reservations", "show_id"),
        ("payments", "show_id"),
        ("shows", "id"),
        ("projected", "show_id"),
        ("show_head", "show_id"),
    ] {
        transaction.execute(&format!("DELETE FROM {table} WHERE {column} = ANY($1)"), &[&shows]).await?;
    }
    transaction.commit().await?;
    Ok(shows.len() as u64)
}
