//! The one pipeline that appends: what waits from all shows goes into one statement, so that a thousand
//! busy shows cost one commit. A show whose head is not as expected fails alone.

use std::sync::Arc;
use std::time::Duration;

use common::ShowId;
use deadpool_postgres::Pool;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::error::SqlState;

use super::entry::{Ballot, Head, chain};
use super::store::{big, describe};
use crate::metrics::Metrics;
use crate::show::{self, Group};

/// At most this many shows in one statement.
const MAX_BATCH: usize = 256;

/// After this the outcome is unknown.
const DEADLINE: Duration = Duration::from_secs(5);

/// A batch of one show for its next entry.
pub struct Append {
    pub show: ShowId,
    pub ballot: Ballot,
    /// The head it was decided against.
    pub head: Head,
    pub at: Timestamp,
    pub groups: Vec<Arc<Group>>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Committed and flushed; this is the head now.
    Done(Head),
    /// The head was not as expected: another leads. Nothing was written.
    Lost,
    /// Nothing was written.
    Failed(String),
    /// To be settled with the head that it would have made.
    Unknown(Head),
}

struct Waiting {
    append: Append,
    next: Head,
    events: Vec<u8>,
    answer: oneshot::Sender<Appended>,
}

#[derive(Clone)]
pub struct Writer(mpsc::Sender<Waiting>);

/// One statement is one transaction. Rows are locked in order of show, so that two writers cannot deadlock.
const APPEND: &str = "
WITH batch AS (
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[],
                         $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::timestamptz[],
                         $12::bytea[], $13::bytea[])
        AS b (show_id, seq, hash, epoch, session, attempt, accepted_epoch, accepted_session, accepted_attempt,
              nonce, at, new_hash, events)
), locked AS (
    SELECT h.show_id FROM show_head h JOIN batch b USING (show_id)
     WHERE h.seq = b.seq AND h.nonce = b.nonce AND h.hash = b.hash
       AND (h.promised_epoch, h.promised_session, h.promised_attempt) = (b.epoch, b.session, b.attempt)
       AND (h.accepted_epoch, h.accepted_session, h.accepted_attempt)
         = (b.accepted_epoch, b.accepted_session, b.accepted_attempt)
     ORDER BY h.show_id FOR UPDATE OF h
), won AS (
    UPDATE show_head h
       SET seq = b.seq + 1, committed = b.seq + 1, hash = b.new_hash,
           accepted_epoch = b.epoch, accepted_session = b.session, accepted_attempt = b.attempt
      FROM batch b JOIN locked USING (show_id)
     WHERE h.show_id = b.show_id
    RETURNING h.show_id
), written AS (
    INSERT INTO show_journal (show_id, seq, epoch, session, attempt, at, format, hash, events)
    SELECT b.show_id, b.seq + 1, b.epoch, b.session, b.attempt, b.at, $14, b.new_hash, b.events
      FROM batch b JOIN won USING (show_id)
    RETURNING show_id
)
SELECT show_id FROM written";

impl Writer {
    /// Starts the pipeline; it ends when the last handle is gone.
    pub fn start(pool: Pool, metrics: Metrics) -> Self {
        let (sender, receiver) = mpsc::channel(4 * MAX_BATCH);
        tokio::spawn(run(pool, receiver, metrics));
        Self(sender)
    }

    /// Appends one entry; the answer is one of four, never a guess.
    pub async fn append(&self, append: Append) -> Appended {
        let events = show::encode(&append.groups);
        let seq = append.head.seq + 1;
        let hash = chain(&append.head.hash, append.show, seq, append.ballot, show::FORMAT, &events);
        let next = Head {
            promised: append.ballot,
            accepted: append.ballot,
            seq,
            committed: seq,
            hash,
            nonce: append.head.nonce,
        };
        let (answer, result) = oneshot::channel();
        let unknown = next.clone();
        if self.0.send(Waiting { append, next, events, answer }).await.is_err() {
            return Appended::Failed("the journal's writer has stopped".into());
        }
        result.await.unwrap_or(Appended::Unknown(unknown))
    }
}

async fn run(pool: Pool, mut receiver: mpsc::Receiver<Waiting>, metrics: Metrics) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while receiver.recv_many(&mut batch, MAX_BATCH).await > 0 {
        metrics.journal_batch_shows.observe(batch.len() as f64);
        let timer = metrics.journal_append_seconds.start_timer();
        let outcome = write(&pool, &batch).await;
        timer.observe_duration();
        let label = match &outcome {
            Ok(_) => "done",
            Err(Failure::NotDone(_)) => "failed",
            Err(Failure::Unknown(_)) => "unknown",
        };
        metrics.journal_statements.with_label_values(&[label]).inc();
        for waiting in batch.drain(..) {
            let answer = match &outcome {
                Ok(won) if won.contains(&waiting.append.show) => Appended::Done(waiting.next),
                Ok(_) => Appended::Lost,
                Err(Failure::NotDone(why)) => Appended::Failed(why.clone()),
                Err(Failure::Unknown(_)) => Appended::Unknown(waiting.next),
            };
            // A host that is gone learns it from the journal when it leads again.
            let _ = waiting.answer.send(answer);
        }
        if let Err(failure) = outcome {
            tracing::error!(%failure, "append failed");
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("not done: {0}")]
    NotDone(String),
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

async fn write(pool: &Pool, batch: &[Waiting]) -> Result<Vec<ShowId>, Failure> {
    let client = pool.get().await.map_err(|e| Failure::NotDone(e.to_string()))?;
    let statement = client.prepare_cached(APPEND).await.map_err(|e| Failure::NotDone(describe(&e)))?;
    let of = |f: fn(&Waiting) -> u64| batch.iter().map(|w| big(f(w))).collect::<Vec<i64>>();
    let shows: Vec<uuid::Uuid> = batch.iter().map(|w| w.append.show.0).collect();
    let seqs = of(|w| w.append.head.seq);
    let hashes: Vec<&[u8]> = batch.iter().map(|w| w.append.head.hash.as_slice()).collect();
    let ballots =
        [of(|w| w.append.ballot.epoch), of(|w| w.append.ballot.session), of(|w| w.append.ballot.attempt)];
    let accepted = [
        of(|w| w.append.head.accepted.epoch),
        of(|w| w.append.head.accepted.session),
        of(|w| w.append.head.accepted.attempt),
    ];
    let nonces: Vec<i64> = batch.iter().map(|w| w.append.head.nonce).collect();
    let ats: Vec<Timestamp> = batch.iter().map(|w| w.append.at).collect();
    let new_hashes: Vec<&[u8]> = batch.iter().map(|w| w.next.hash.as_slice()).collect();
    let events: Vec<&[u8]> = batch.iter().map(|w| w.events.as_slice()).collect();
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 14] = [
        &shows,
        &seqs,
        &hashes,
        &ballots[0],
        &ballots[1],
        &ballots[2],
        &accepted[0],
        &accepted[1],
        &accepted[2],
        &nonces,
        &ats,
        &new_hashes,
        &events,
        &show::FORMAT,
    ];
    match tokio::time::timeout(DEADLINE, client.query(&statement, &params)).await {
        Ok(Ok(rows)) => Ok(rows.iter().map(|row| ShowId(row.get(0))).collect()),
        Ok(Err(error)) if surely_rolled_back(&error) => Err(Failure::NotDone(describe(&error))),
        Ok(Err(error)) => Err(Failure::Unknown(describe(&error))),
        Err(_) => {
            // The statement may still be running on this connection; it must not serve anyone else.
            drop(deadpool_postgres::Object::take(client));
            Err(Failure::Unknown("no answer in time".into()))
        }
    }
}

/// Whether the server itself said that the statement failed. Of a shutdown, a lost connection or a cancel
/// that may have met the commit, nobody can say.
fn surely_rolled_back(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| {
        let code = db.code();
        let class = &code.code()[..2];
        *code != SqlState::QUERY_CANCELED && !matches!(class, "08" | "57" | "58" | "XX")
    })
}
