//! The journal's partitions: one a year, by the time in a show's id (V4 of the schema says why).
//!
//! This year's and the next two are made ahead. Invariant: a missing year loses nothing, since the default
//! partition takes what no year does; it costs the cheap dropping, and is told.

use std::time::Duration;

use anyhow::Context;
use deadpool_postgres::Pool;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Years made ahead of the present one: shows are created at most today, so one would do.
const AHEAD: i16 = 2;

/// How often the years are looked after.
const PERIOD: Duration = Duration::from_secs(3_600);

/// The year of a moment, as partitions count: in UTC.
pub fn year_of(at: Timestamp) -> i16 {
    at.to_zoned(TimeZone::UTC).year()
}

/// Makes the partition of `year`; false where it is there already.
pub async fn make(pool: &Pool, year: i16) -> anyhow::Result<bool> {
    let mut client = pool.get().await?;
    let transaction = client.transaction().await?;
    // Attaching waits for whoever uses the default partition, and others would queue behind it.
    transaction.batch_execute("SET LOCAL lock_timeout = '2s'").await?;
    let made = transaction.query_one("SELECT make_journal_year($1)", &[&i32::from(year)]).await?.get(0);
    transaction.commit().await?;
    Ok(made)
}

/// The years that have a partition, oldest first.
pub async fn present(pool: &Pool) -> anyhow::Result<Vec<i16>> {
    let select = "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                   WHERE i.inhparent = 'show_journal'::regclass ORDER BY c.relname";
    let rows = pool.get().await?.query(select, &[]).await?;
    let names = rows.iter().map(|row| row.get::<_, String>(0));
    Ok(names.filter_map(|name| name.strip_prefix("show_journal_y")?.parse().ok()).collect())
}

/// Whether the default partition holds anything.
pub async fn has_strays(pool: &Pool) -> anyhow::Result<bool> {
    let select = "SELECT EXISTS (SELECT FROM show_journal_other)";
    Ok(pool.get().await?.query_one(select, &[]).await?.get(0))
}

/// Makes the years around `now` that are missing; whether the default partition is in use after that.
pub async fn keep(pool: &Pool, now: Timestamp) -> anyhow::Result<bool> {
    let (this, there) = (year_of(now), present(pool).await?);
    for year in (this..=this + AHEAD).filter(|year| !there.contains(year)) {
        if make(pool, year).await.with_context(|| format!("the partition of {year}"))? {
            tracing::info!(year, "made a partition of the journal");
        }
    }
    has_strays(pool).await
}

/// Looks after the years until `stop`; at once first.
pub async fn run(pool: Pool, metrics: Metrics, stop: CancellationToken) {
    let mut period = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = period.tick() => {}
        }
        match keep(&pool, Timestamp::now()).await {
            Ok(strays) => {
                metrics.journal_strays.set(strays.into());
                if strays {
                    tracing::warn!("the journal has entries in show_journal_other, which no year takes");
                }
            }
            Err(error) => tracing::warn!(error = %format!("{error:#}"), "the journal's years"),
        }
    }
}
