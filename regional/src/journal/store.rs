//! Reading journals, promising ballots. Every statement about journals that is
//! not an append stands here.

use std::sync::atomic::{AtomicU64, Ordering};

use common::ShowId;
use deadpool_postgres::{Object, Pool};
use futures::stream::TryChunksError;
use futures::{Stream, StreamExt, TryStreamExt};
use tokio_postgres::Row;

use super::entry::{Ballot, Entry, Head, Stored, chain};
use crate::show::{self, Show};

/// So many entries of a long journal are read together.
const PAGE: usize = 256;
/// Pages that are read at once.
const PAGES: usize = 4;

/// The journals in one store.
#[derive(Clone)]
pub struct Journal {
    pool: Pool,
}

/// Why a journal could not be read or promised.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the show has no journal here")]
    Unknown,
    #[error("a later ballot was promised: {0:?}")]
    Refused(Ballot),
    #[error("the show is archived")]
    Archived,
    /// An operator's case: nothing is guessed.
    #[error("the journal of {show} is corrupt at {seq}: {why}")]
    Corrupt { show: ShowId, seq: u64, why: String },
    #[error("the store cannot be reached: {0}")]
    Store(String),
}

impl From<tokio_postgres::Error> for JournalError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(describe(&error))
    }
}

impl From<deadpool_postgres::PoolError> for JournalError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        Self::Store(error.to_string())
    }
}

/// The error with its cause; tokio-postgres' own text is only "db error".
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |db| format!("{}: {}", db.code().code(), db.message()))
}

/// Postgres has no unsigned integers; these numbers count from one and never reach the sign.
pub(super) fn big(number: u64) -> i64 {
    i64::try_from(number).expect("sequence numbers, epochs and sessions stay below 2^63")
}

pub(super) fn number(row: &Row, column: &str) -> u64 {
    u64::try_from(row.get::<_, i64>(column)).expect("the schema keeps these columns positive")
}

pub(super) fn ballot(row: &Row, prefix: &str) -> Ballot {
    Ballot {
        epoch: number(row, &format!("{prefix}epoch")),
        session: number(row, &format!("{prefix}session")),
        attempt: number(row, &format!("{prefix}attempt")),
    }
}

fn head(row: &Row) -> Head {
    Head {
        promised: ballot(row, "promised_"),
        accepted: ballot(row, "accepted_"),
        seq: number(row, "seq"),
        committed: number(row, "committed"),
        hash: row.get("hash"),
        nonce: row.get("nonce"),
    }
}

impl Journal {
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    pub(crate) async fn client(&self) -> Result<deadpool_postgres::Object, JournalError> {
        Ok(self.pool.get().await?)
    }

    /// Makes the empty journal of a show that was registered in this `incarnation` of the store, or later; a
    /// repeat changes nothing.
    pub async fn create(&self, show: ShowId, incarnation: u64) -> Result<(), JournalError> {
        let insert = "INSERT INTO show_head (show_id, promised_epoch, promised_session, promised_attempt,
                                             incarnation)
                      VALUES ($1, 0, 0, 0, $2) ON CONFLICT DO NOTHING";
        self.pool.get().await?.execute(insert, &[&show.0, &big(incarnation)]).await?;
        Ok(())
    }

    /// Promises `ballot`, durably, and answers the head; refused when a later one was promised. The same
    /// ballot is refused too: it belongs to one try.
    pub async fn prepare(&self, show: ShowId, ballot: Ballot) -> Result<Head, JournalError> {
        let promise = "UPDATE show_head
               SET promised_epoch = $2, promised_session = $3, promised_attempt = $4
             WHERE show_id = $1 AND (promised_epoch, promised_attempt, promised_session) < ($2, $4, $3)
            RETURNING *";
        let client = self.pool.get().await?;
        let parts = [big(ballot.epoch), big(ballot.session), big(ballot.attempt)];
        let row = client.query_opt(promise, &[&show.0, &parts[0], &parts[1], &parts[2]]).await?;
        if let Some(row) = row {
            return Ok(head(&row));
        }
        let present = client.query_opt("SELECT * FROM show_head WHERE show_id = $1", &[&show.0]).await?;
        Err(match present.map(|row| head(&row).promised) {
            None => JournalError::Unknown,
            Some(Ballot::ARCHIVED) => JournalError::Archived,
            Some(promised) => JournalError::Refused(promised),
        })
    }

    /// The head as it is now; none where the show has no journal here.
    pub async fn head(&self, show: ShowId) -> Result<Option<Head>, JournalError> {
        let select = "SELECT * FROM show_head WHERE show_id = $1";
        Ok(self.pool.get().await?.query_opt(select, &[&show.0]).await?.as_ref().map(head))
    }

    /// The entries after `after`, in order, up to `upto`; each checked against the one before.
    pub async fn entries(
        &self,
        show: ShowId,
        after: u64,
        upto: u64,
    ) -> Result<impl Stream<Item = Result<Entry, JournalError>> + use<>, JournalError> {
        let client = self.pool.get().await?;
        let mut before = (after, Vec::new());
        if after > 0 {
            let select = "SELECT hash FROM show_journal WHERE show_id = $1 AND seq = $2";
            let row = client.query_opt(select, &[&show.0, &big(after)]).await?;
            before.1 = row.ok_or_else(|| corrupt(show, after, "the entry is missing"))?.get(0);
        }
        let rows = rows(client, show, after, upto).await?;
        Ok(rows.map(move |row| {
            let entry = row?.read(show, before.0, &before.1)?;
            before = (entry.seq, entry.hash.clone());
            Ok(entry)
        }))
    }

    /// The entries after `after` that are committed.
    pub async fn committed_after(&self, show: ShowId, after: u64) -> Result<Vec<Entry>, JournalError> {
        let committed = self.committed(show).await?.unwrap_or_default();
        if committed <= after {
            return Ok(Vec::new());
        }
        self.entries(show, after, committed).await?.try_collect().await
    }

    /// One entry.
    pub async fn entry(&self, show: ShowId, seq: u64) -> Result<Entry, JournalError> {
        let entries = self.entries(show, seq - 1, seq).await?;
        let found: Vec<Entry> = entries.try_collect().await?;
        found.into_iter().next().ok_or_else(|| corrupt(show, seq, "the entry is missing"))
    }

    /// Folds the journal up to `upto`.
    pub async fn fold(&self, show: ShowId, upto: u64) -> Result<Option<Show>, JournalError> {
        self.fold_from(show, None, (0, Vec::new()), upto).await
    }

    /// The same, going on from a state whose last entry has this ballot, where the journal has that entry: of one
    /// number and ballot there is only one.
    pub async fn fold_on(
        &self,
        show: ShowId,
        known: Option<(Ballot, Show)>,
        upto: u64,
    ) -> Result<Option<Show>, JournalError> {
        let Some((ballot, state)) = known.filter(|(_, state)| state.seq <= upto) else {
            return self.fold(show, upto).await;
        };
        let select = "SELECT hash FROM show_journal
                       WHERE show_id = $1 AND seq = $2 AND (epoch, session, attempt) = ($3, $4, $5)";
        let parts = [state.seq, ballot.epoch, ballot.session, ballot.attempt].map(big);
        let client = self.pool.get().await?;
        let row = client.query_opt(select, &[&show.0, &parts[0], &parts[1], &parts[2], &parts[3]]).await?;
        drop(client);
        match row {
            Some(row) => self.fold_from(show, Some(state), (parts[0].unsigned_abs(), row.get(0)), upto).await,
            None => self.fold(show, upto).await,
        }
    }

    /// From the entry after the one of this number and hash on. Of a long journal, pages are read while others arrive
    /// and are folded.
    async fn fold_from(
        &self,
        show: ShowId,
        mut state: Option<Show>,
        from: (u64, Vec<u8>),
        upto: u64,
    ) -> Result<Option<Show>, JournalError> {
        let mut last = from.0;
        let rows = rows(self.pool.get().await?, show, last, upto).await?;
        let mut before = from;
        let pages = rows.try_chunks(PAGE).map(move |page| {
            let page = page.map_err(|TryChunksError(_, error)| error);
            let from = before.clone();
            if let Ok(rows) = &page
                && let Some(last) = rows.last()
            {
                before = (before.0 + rows.len() as u64, last.hash.clone());
            }
            async move { read(show, from, page?).await }
        });
        let mut pages = std::pin::pin!(pages.buffered(PAGES));
        while let Some(page) = pages.next().await {
            for entry in page? {
                last = entry.seq;
                state = Show::fold(state, last, &entry.groups).map_err(|why| corrupt(show, last, why))?;
            }
        }
        if last == upto { Ok(state) } else { Err(corrupt(show, last + 1, "the entry is missing")) }
    }

    /// The number of the last committed entry; none where the show has no journal here.
    pub async fn committed(&self, show: ShowId) -> Result<Option<u64>, JournalError> {
        let client = self.pool.get().await?;
        let row = client.query_opt("SELECT committed FROM show_head WHERE show_id = $1", &[&show.0]).await?;
        Ok(row.map(|row| number(&row, "committed")))
    }

    /// The number of the last entry here, committed or not; 0 where the show has no journal here.
    pub async fn last(&self, show: ShowId) -> Result<u64, JournalError> {
        let client = self.pool.get().await?;
        let row = client.query_opt("SELECT seq FROM show_head WHERE show_id = $1", &[&show.0]).await?;
        Ok(row.map_or(0, |row| number(&row, "seq")))
    }

    /// The last ballot promised: who leads the show, or tried to; none where it has no journal here.
    pub async fn promised(&self, show: ShowId) -> Result<Option<Ballot>, JournalError> {
        let client = self.pool.get().await?;
        let row = client.query_opt("SELECT * FROM show_head WHERE show_id = $1", &[&show.0]).await?;
        Ok(row.map(|row| head(&row).promised))
    }
}

/// The entries after `after`, in order, up to `upto`, as they are stored.
async fn rows(
    client: Object,
    show: ShowId,
    after: u64,
    upto: u64,
) -> Result<impl Stream<Item = Result<Stored, JournalError>> + use<>, JournalError> {
    let select = "SELECT seq, epoch, session, attempt, at, format, hash, events FROM show_journal
                   WHERE show_id = $1 AND seq > $2 AND seq <= $3 ORDER BY seq";
    let (show_id, from, to) = (show.0, big(after), big(upto));
    let statement = client.prepare_cached(select).await?;
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&show_id, &from, &to];
    let rows = client.query_raw(&statement, params).await?;
    // The connection goes back to the pool when the last row is read.
    Ok(rows.map(move |row| {
        let _held = &client;
        Ok(stored(&row?))
    }))
}

/// Reads a page of a journal that goes on from an entry of this number and hash; a full one beside other work.
async fn read(show: ShowId, from: (u64, Vec<u8>), page: Vec<Stored>) -> Result<Vec<Entry>, JournalError> {
    let full = page.len() == PAGE;
    let read = move || {
        let (mut last, mut before) = from;
        let mut entries = Vec::with_capacity(page.len());
        for row in page {
            let entry = row.read(show, last, &before)?;
            last = entry.seq;
            before.clone_from(&entry.hash);
            entries.push(entry);
        }
        Ok(entries)
    };
    if full { tokio::task::spawn_blocking(read).await.expect("reading does not panic") } else { read() }
}

fn corrupt(show: ShowId, seq: u64, why: impl Into<String>) -> JournalError {
    JournalError::Corrupt { show, seq, why: why.into() }
}

/// The columns of an entry, whatever they hold.
fn stored(row: &Row) -> Stored {
    Stored {
        seq: row.get("seq"),
        ballot: [row.get("epoch"), row.get("session"), row.get("attempt")],
        at: row.get("at"),
        format: row.get("format"),
        hash: row.get("hash"),
        events: row.get("events"),
    }
}

impl Stored {
    /// The entry, if it is whole and follows the one before, of this number and hash; else what is wrong, with
    /// the number of the entry that should stand here.
    pub fn read(self, show: ShowId, last: u64, before: &[u8]) -> Result<Entry, JournalError> {
        let seq = last + 1;
        if u64::try_from(self.seq) != Ok(seq) {
            return Err(corrupt(show, seq, "the entry is missing"));
        }
        let [Ok(epoch), Ok(session), Ok(attempt)] = self.ballot.map(u64::try_from) else {
            return Err(corrupt(show, seq, "its ballot is none"));
        };
        let ballot = Ballot { epoch, session, attempt };
        if chain(before, show, seq, ballot, self.format, &self.events) != self.hash {
            return Err(corrupt(show, seq, "its hash does not fit"));
        }
        let groups = show::decode(self.format, &self.events).map_err(|why| corrupt(show, seq, why))?;
        Ok(Entry { show, seq, ballot, at: self.at, hash: self.hash, groups })
    }
}

/// Draws the `attempt` part of ballots: it rises at every try of this process to lead any show.
#[derive(Default)]
pub struct Attempts(AtomicU64);

impl Attempts {
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The next one is higher than this, which another process has got to.
    pub fn beyond(&self, attempt: u64) {
        self.0.fetch_max(attempt, Ordering::Relaxed);
    }
}
