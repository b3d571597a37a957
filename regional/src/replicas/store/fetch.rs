//! Reading a journal for others: one consistent read, bounded in bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use common::ShowId;
use deadpool_postgres::Pool;
use tokio_postgres::IsolationLevel;

use super::statements::{self, BadRow};
use super::{Means, Told};
use crate::journal::Ballot;
use crate::replicas::{Entry, Head, Mark, guard};
use crate::replication::Strict;
use crate::replication::replica::Replica;

const DEADLINE: Duration = Duration::from_secs(5);

/// Of one answer: its entries in bytes, of which one is always sent, and how many.
const BYTES: i64 = 1 << 20;
const ENTRIES: i64 = 2_048;

const HEAD: &str = "
SELECT promised_epoch, promised_session, promised_attempt,
       accepted_epoch AS epoch, accepted_session AS session, accepted_attempt AS attempt,
       seq, hash, committed, incarnation
  FROM show_head WHERE show_id = $1";

const PAGE: &str = "
SELECT seq, epoch, session, attempt, at, format, hash, events
  FROM (SELECT *, sum(octet_length(events) + 96) OVER (ORDER BY seq) AS upto_here
          FROM (SELECT * FROM show_journal WHERE show_id = $1 AND seq > $2 ORDER BY seq LIMIT $3) AS next) AS page
 WHERE upto_here <= $4 OR seq = $2 + 1 ORDER BY seq";

/// The answer to Fetch; none where the store cannot be read.
pub async fn fetch(means: &Means, show: ShowId, ballot: Ballot, after: u64) -> Option<Told> {
    match tokio::time::timeout(DEADLINE, read(means, show, ballot, after)).await {
        Ok(Ok(told)) => {
            means.metrics.answered(&told.reply.answer);
            Some(told)
        }
        Ok(Err(error)) => {
            tracing::warn!(%show, error = %format!("{error:#}"), "cannot fetch");
            None
        }
        Err(_) => None,
    }
}

pub async fn head(pool: &Pool, show: ShowId) -> anyhow::Result<Option<Head>> {
    let row = pool.get().await?.query_opt(HEAD, &[&show.0]).await?;
    row.map(|row| statements::head(&row).ok_or(BadRow(show))).transpose().map_err(Into::into)
}

async fn read(means: &Means, show: ShowId, ballot: Ballot, after: u64) -> anyhow::Result<Told> {
    let standing = means.standings.standing(show);
    let mut client = means.pool.get().await?;
    let snapshot = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let snapshot = snapshot.read_only(true).start().await?;
    let head = match snapshot.query_opt(HEAD, &[&show.0]).await? {
        Some(row) => statements::head(&row).ok_or(BadRow(show))?,
        None => Head::empty(0),
    };
    let select =
        "SELECT seq, epoch, session, attempt, hash FROM show_journal WHERE show_id = $1 AND seq = $2";
    let before = match after {
        0 => Some(Mark::default()),
        _ => match snapshot.query_opt(select, &[&show.0, &after.cast_signed()]).await? {
            Some(row) => Some(statements::mark(&row).ok_or(BadRow(show))?),
            None => None,
        },
    };
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&show.0, &after.cast_signed(), &ENTRIES, &BYTES];
    let statement = snapshot.prepare_cached(PAGE).await?;
    let rows = snapshot.query(&statement, &params).await?;
    let entries: Option<Vec<Entry>> = rows.iter().map(|row| statements::entry(show, row)).collect();
    let entries = entries.ok_or(BadRow(show))?;
    snapshot.commit().await?;
    // Read after all that the answer rests on.
    let mark = guard::read(&client).await?;
    let held: BTreeMap<u64, Mark> = BTreeMap::new();
    let replica = Replica { rules: Strict, standing, head: &head, held: &held };
    anyhow::ensure!(means.guard.lost().is_none(), "the store went back in time");
    Ok(Told { reply: replica.fetched(ballot, before, entries), mark })
}
