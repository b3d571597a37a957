//! The one pipeline that appends: what waits from all shows goes into one statement, so that a thousand
//! busy shows cost one commit. A show whose head is not as expected fails alone.
//!
//! Invariant: the entries of a show reach Postgres in the order in which they were given, on one connection,
//! each in a later statement than the one it goes on from.

use std::borrow::Borrow;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::ShowId;
use deadpool_postgres::{ClientWrapper, Object, Pool};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use jiff::Timestamp;
use prometheus::HistogramTimer;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::entry::{Ballot, Head, chain};
use super::store::{big, describe};
use crate::metrics::Metrics;
use crate::replicas::{Entry, Mark};
use crate::show::{self, Group};

/// At most this many shows in one statement.
const MAX_BATCH: usize = 256;

/// Statements under way at once: while one is committed, the next is on its way there. More would only make
/// them smaller.
const OVERLAP: usize = 2;

/// After this the outcome is unknown.
const DEADLINE: Duration = Duration::from_secs(5);

/// One entry of one show on its way into the journal, encoded and hashed.
pub struct Append {
    show: ShowId,
    ballot: Ballot,
    at: Timestamp,
    /// The head it goes on from: the hash covers place, ballot and content of all before.
    before: Vec<u8>,
    next: Head,
    format: i16,
    events: Bytes,
}

impl Append {
    /// `head`: the one it was decided against.
    pub fn new<G: Borrow<Group>>(
        show: ShowId,
        ballot: Ballot,
        head: &Head,
        at: Timestamp,
        groups: &[G],
    ) -> Self {
        let (format, events) = (show::FORMAT, Bytes::from(show::encode(groups)));
        let seq = head.seq + 1;
        let hash = chain(&head.hash, show, seq, ballot, format, &events);
        let next = Head { promised: ballot, accepted: ballot, seq, committed: seq, hash, nonce: head.nonce };
        Self { show, ballot, at, before: head.hash.clone(), next, format, events }
    }

    /// What a leader gives its own store: `entry`, of its own ballot, right after `prev`; how far is
    /// committed then.
    pub fn of(prev: &Mark, entry: Entry, committed: u64) -> Self {
        let Entry { seq, ballot, digest, payload } = entry;
        let hash = digest.as_slice().to_vec();
        Self {
            show: payload.show,
            ballot,
            at: payload.at,
            before: prev.digest.as_slice().to_vec(),
            next: Head { promised: ballot, accepted: ballot, seq, committed, hash, nonce: 0 },
            format: payload.format,
            events: payload.events,
        }
    }

    /// The head once it is written; the entry after it goes on from there, even before it is.
    pub fn next(&self) -> &Head {
        &self.next
    }
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
    answer: oneshot::Sender<Appended>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Writer(mpsc::UnboundedSender<Waiting>);

/// One statement is one transaction. A hash stands for all that came before, so that with the promised ballot
/// it is the whole head. Heads are found by their key, in the order of what is given, which is that of shows:
/// two writers lock them in the same order and cannot deadlock. (Did a plan ever take another order, the one
/// that Postgres then ends is a statement that surely was not done.)
const APPEND: &str = "
WITH won AS (
    UPDATE show_head h
       SET seq = h.seq + 1, committed = greatest(h.committed, b.committed), hash = b.new_hash,
           accepted_epoch = b.epoch, accepted_session = b.session, accepted_attempt = b.attempt
      FROM unnest($1::uuid[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                  $7::timestamptz[], $8::bytea[], $9::bytea[], $10::smallint[])
        AS b (show_id, hash, committed, epoch, session, attempt, at, new_hash, events, format)
     WHERE h.show_id = b.show_id AND h.hash = b.hash
       AND (h.promised_epoch, h.promised_session, h.promised_attempt) = (b.epoch, b.session, b.attempt)
    RETURNING b.show_id, h.seq, b.epoch, b.session, b.attempt, b.at, b.format, b.new_hash, b.events
)
INSERT INTO show_journal (show_id, seq, epoch, session, attempt, at, format, hash, events)
SELECT show_id, seq, epoch, session, attempt, at, format, new_hash, events FROM won
RETURNING show_id";

/// The plan never gets better by knowing the values, and making it anew costs as much as the statement; shows
/// are few beside a statement's table, so each head is found by its key.
const SETTINGS: &str = "SET plan_cache_mode = force_generic_plan; SET enable_hashjoin = off;
    SET enable_mergejoin = off; SET enable_seqscan = off; SET jit = off";

impl Writer {
    /// Starts the pipeline; it ends when the last handle is gone.
    pub fn start(pool: Pool, metrics: Metrics) -> Self {
        // Bounded by the shows, of which each has few entries under way.
        let (sender, receiver) = mpsc::unbounded_channel();
        let lane = Lane { pool, metrics, connection: None, queue: VecDeque::new() };
        tokio::spawn(lane.run(receiver));
        Self(sender)
    }

    /// Appends one entry; the answer is one of four, never a guess. It is on its way when this returns: the
    /// entry that goes on from it may be given before the answer is there.
    pub fn append(&self, append: Append) -> impl Future<Output = Appended> + Send + 'static {
        let (answer, result) = oneshot::channel();
        let unknown = append.next.clone();
        let sent = self.0.send(Waiting { append, answer }).is_ok();
        async move {
            if !sent {
                return Appended::Failed("the journal's writer has stopped".into());
            }
            result.await.unwrap_or(Appended::Unknown(unknown))
        }
    }
}

/// The writer's task with its own connection.
struct Lane {
    pool: Pool,
    metrics: Metrics,
    connection: Option<Connection>,
    /// What waits for its turn.
    queue: VecDeque<Waiting>,
}

#[derive(Clone)]
struct Connection {
    client: Arc<ClientWrapper>,
    append: Statement,
}

/// What became of one statement.
struct Written {
    batch: Vec<Waiting>,
    outcome: Result<HashSet<ShowId>, Failure>,
}

impl Lane {
    async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<Waiting>) {
        let mut under_way = FuturesOrdered::new();
        let mut arrived = Vec::with_capacity(MAX_BATCH);
        loop {
            tokio::select! {
                // First, so that a statement is sent before the next one is made.
                biased;
                Some(written) = under_way.next(), if !under_way.is_empty() => self.answer(written),
                count = receiver.recv_many(&mut arrived, MAX_BATCH), if self.queue.is_empty() => {
                    if count == 0 {
                        break;
                    }
                    self.queue.extend(arrived.drain(..));
                }
                () = std::future::ready(()), if !self.queue.is_empty() && under_way.len() < OVERLAP => {
                    // What came meanwhile goes along.
                    while self.queue.len() < MAX_BATCH && let Ok(waiting) = receiver.try_recv() {
                        self.queue.push_back(waiting);
                    }
                    let batch = self.next_batch();
                    self.metrics.journal_batch_shows.observe(batch.len() as f64);
                    match self.connect().await {
                        Ok(connection) => {
                            let timer = self.metrics.journal_append_seconds.start_timer();
                            under_way.push_back(write(connection, batch, timer));
                        }
                        Err(why) => self.answer(Written { batch, outcome: Err(Failure::NotDone(why)) }),
                    }
                }
            }
        }
        while let Some(written) = under_way.next().await {
            self.answer(written);
        }
    }

    /// One entry a show: what goes on from an entry of this statement waits for the next.
    fn next_batch(&mut self) -> Vec<Waiting> {
        let mut shows = HashSet::with_capacity(self.queue.len());
        let (mut batch, mut later) = (Vec::with_capacity(self.queue.len()), VecDeque::new());
        for waiting in self.queue.drain(..) {
            if batch.len() < MAX_BATCH && shows.insert(waiting.append.show) {
                batch.push(waiting);
            } else {
                later.push_back(waiting);
            }
        }
        self.queue = later;
        batch.sort_unstable_by_key(|waiting| waiting.append.show);
        batch
    }

    /// The writer's own connection, made anew where it was lost.
    async fn connect(&mut self) -> Result<Connection, String> {
        if let Some(connection) = self.connection.as_ref().filter(|c| !c.client.is_closed()) {
            return Ok(connection.clone());
        }
        let client = self.pool.get().await.map_err(|error| error.to_string())?;
        // Its settings are the writer's alone, so it never goes back.
        let client = Object::take(client);
        client.batch_execute(SETTINGS).await.map_err(|error| describe(&error))?;
        let append = client.prepare(APPEND).await.map_err(|error| describe(&error))?;
        let connection = Connection { client: Arc::new(client), append };
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    fn answer(&mut self, Written { batch, outcome }: Written) {
        let label = match &outcome {
            Ok(_) => "done",
            Err(Failure::NotDone(_)) => "failed",
            Err(Failure::Unknown(_)) => "unknown",
        };
        self.metrics.journal_statements.with_label_values(&[label]).inc();
        for Waiting { append, answer } in batch {
            let appended = match &outcome {
                Ok(won) if won.contains(&append.show) => Appended::Done(append.next),
                Ok(_) => Appended::Lost,
                Err(Failure::NotDone(why)) => Appended::Failed(why.clone()),
                Err(Failure::Unknown(_)) => Appended::Unknown(append.next),
            };
            // A host that is gone learns it from the journal when it leads again.
            let _ = answer.send(appended);
        }
        if let Err(failure) = outcome {
            tracing::error!(%failure, "append failed");
            if matches!(failure, Failure::Unknown(_)) {
                // A statement may still be running there; nothing more is sent after it.
                self.connection = None;
            }
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

async fn write(connection: Connection, batch: Vec<Waiting>, timer: HistogramTimer) -> Written {
    let outcome = execute(&connection, &batch).await;
    timer.observe_duration();
    Written { batch, outcome }
}

async fn execute(connection: &Connection, batch: &[Waiting]) -> Result<HashSet<ShowId>, Failure> {
    let of = |f: fn(&Append) -> u64| batch.iter().map(|w| big(f(&w.append))).collect::<Vec<i64>>();
    let shows: Vec<uuid::Uuid> = batch.iter().map(|w| w.append.show.0).collect();
    let hashes: Vec<&[u8]> = batch.iter().map(|w| w.append.before.as_slice()).collect();
    let committed = of(|a| a.next.committed);
    let formats: Vec<i16> = batch.iter().map(|w| w.append.format).collect();
    let ballots = [of(|a| a.ballot.epoch), of(|a| a.ballot.session), of(|a| a.ballot.attempt)];
    let ats: Vec<Timestamp> = batch.iter().map(|w| w.append.at).collect();
    let new_hashes: Vec<&[u8]> = batch.iter().map(|w| w.append.next.hash.as_slice()).collect();
    let events: Vec<&[u8]> = batch.iter().map(|w| w.append.events.as_ref()).collect();
    let params: [&(dyn ToSql + Sync); 10] = [
        &shows,
        &hashes,
        &committed,
        &ballots[0],
        &ballots[1],
        &ballots[2],
        &ats,
        &new_hashes,
        &events,
        &formats,
    ];
    let asked = connection.client.query(&connection.append, &params);
    match tokio::time::timeout(DEADLINE, asked).await {
        Ok(Ok(rows)) => Ok(rows.iter().map(|row| ShowId(row.get(0))).collect()),
        Ok(Err(error)) if surely_rolled_back(&error) => Err(Failure::NotDone(describe(&error))),
        Ok(Err(error)) => Err(Failure::Unknown(describe(&error))),
        Err(_) => Err(Failure::Unknown("no answer in time".into())),
    }
}

/// Whether the server itself said that the statement failed. Of a shutdown, a lost connection or a cancel
/// that may have met the commit, nobody can say.
pub(crate) fn surely_rolled_back(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| {
        let code = db.code();
        let class = &code.code()[..2];
        *code != SqlState::QUERY_CANCELED && !matches!(class, "08" | "57" | "58" | "XX")
    })
}
