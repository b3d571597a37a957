//! The statements by which a replica's journals are read and written, on a connection of their own. Each takes
//! many shows at once.
//!
//! Invariant: heads are locked in the order of their shows, so that two transactions never wait for each other
//! in a circle.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use common::ShowId;
use deadpool_postgres::{ClientWrapper, Object, Pool};
use jiff::Timestamp;
use tokio_postgres::{Row, Statement};
use uuid::Uuid;

use crate::journal::Ballot;
use crate::replicas::guard::{self, StoreMark};
use crate::replicas::{Entry, Hash, Head, Mark, Payload};

const LOCK: &str = "
SELECT show_id, promised_epoch, promised_session, promised_attempt,
       accepted_epoch AS epoch, accepted_session AS session, accepted_attempt AS attempt,
       seq, hash, committed, incarnation
  FROM show_head WHERE show_id = ANY ($1::uuid[]) ORDER BY show_id FOR UPDATE";

const MARKS: &str = "
SELECT j.show_id, j.seq, j.epoch, j.session, j.attempt, j.hash
  FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS b (show_id, first, last)
  JOIN show_journal j ON j.show_id = b.show_id AND j.seq BETWEEN b.first AND b.last";

const CREATE: &str = "
INSERT INTO show_head (show_id, promised_epoch, promised_session, promised_attempt, incarnation)
SELECT b.show_id, 0, 0, 0, b.incarnation
  FROM unnest($1::uuid[], $2::bigint[]) AS b (show_id, incarnation) ORDER BY b.show_id
    ON CONFLICT DO NOTHING";

const CUT: &str = "
DELETE FROM show_journal j USING unnest($1::uuid[], $2::bigint[]) AS b (show_id, upto)
 WHERE j.show_id = b.show_id AND j.seq > b.upto";

/// What was projected of entries that are gone (a disowned store's) is projected anew.
const UNPROJECT: &str = "
DELETE FROM projected p USING unnest($1::uuid[], $2::bigint[]) AS b (show_id, upto)
 WHERE p.show_id = b.show_id AND p.seq > b.upto";

const ADD: &str = "
INSERT INTO show_journal (show_id, seq, epoch, session, attempt, at, format, hash, events)
SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[],
                     $7::smallint[], $8::bytea[], $9::bytea[])";

const HEADS: &str = "
UPDATE show_head h
   SET promised_epoch = b.pe, promised_session = b.ps, promised_attempt = b.pa,
       accepted_epoch = b.ae, accepted_session = b.asn, accepted_attempt = b.aa,
       seq = b.seq, hash = b.hash, committed = b.committed, incarnation = b.incarnation
  FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
              $8::bigint[], $9::bytea[], $10::bigint[], $11::bigint[])
    AS b (show_id, pe, ps, pa, ae, asn, aa, seq, hash, committed, incarnation)
 WHERE h.show_id = b.show_id";

/// Few shows beside a table: each row is found by its key, whatever the planner thinks of the arrays.
const SETTINGS: &str = "SET plan_cache_mode = force_generic_plan; SET enable_hashjoin = off;
    SET enable_mergejoin = off; SET enable_seqscan = off; SET jit = off; SET lock_timeout = '3s'";

/// A row that no program of ours wrote.
#[derive(Debug, thiserror::Error)]
#[error("the store's row of {0} cannot be read")]
pub struct BadRow(pub ShowId);

/// A connection that only a lane uses.
#[derive(Clone)]
pub struct Connection {
    client: Arc<ClientWrapper>,
    lock: Statement,
    marks: Statement,
    create: Statement,
    cut: Statement,
    unproject: Statement,
    add: Statement,
    heads: Statement,
    mark: Statement,
}

/// What a transaction changes of one show.
pub struct Change<'a> {
    pub show: ShowId,
    pub cut_after: Option<u64>,
    pub add: Vec<&'a Entry>,
    pub head: &'a Head,
}

/// The heads that are there, and the marks asked for; a show whose rows cannot be read has an error in place of
/// its head.
#[derive(Default)]
pub struct Found {
    pub heads: HashMap<ShowId, Result<Head, BadRow>>,
    pub marks: HashMap<ShowId, BTreeMap<u64, Mark>>,
}

/// A show, and the first and last entry whose marks are wanted; none where `last` is before `first`.
pub type Range = (ShowId, u64, u64);

impl Connection {
    pub async fn open(pool: &Pool) -> anyhow::Result<Self> {
        // Its settings are the lane's alone, so it never goes back.
        let client = Object::take(pool.get().await?);
        client.batch_execute(SETTINGS).await?;
        let (lock, marks) = (client.prepare(LOCK).await?, client.prepare(MARKS).await?);
        let unproject = client.prepare(UNPROJECT).await?;
        let (create, cut) = (client.prepare(CREATE).await?, client.prepare(CUT).await?);
        let (add, heads) = (client.prepare(ADD).await?, client.prepare(HEADS).await?);
        let mark = guard::prepare(&client).await?;
        Ok(Self { client: Arc::new(client), lock, marks, create, cut, unproject, add, heads, mark })
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Begins a transaction, locks the heads that are there and reads marks.
    pub async fn begin(&self, ranges: &[Range]) -> Result<Found, tokio_postgres::Error> {
        let (begun, found) = tokio::join!(self.client.batch_execute("BEGIN"), self.find(ranges));
        begun?;
        found
    }

    /// Makes heads that are missing, of empty journals, and locks and reads as [`Self::begin`] does.
    pub async fn create(
        &self,
        missing: &[(ShowId, u64)],
        ranges: &[Range],
    ) -> Result<Found, tokio_postgres::Error> {
        let (shows, incarnations): (Vec<Uuid>, Vec<i64>) =
            missing.iter().map(|(show, incarnation)| (show.0, incarnation.cast_signed())).unzip();
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&shows, &incarnations];
        let (created, found) = tokio::join!(self.client.execute(&self.create, &params), self.find(ranges));
        created?;
        found
    }

    /// Both on their way at once; the second begins when the first holds the locks.
    async fn find(&self, ranges: &[Range]) -> Result<Found, tokio_postgres::Error> {
        let shows: Vec<Uuid> = ranges.iter().map(|(show, ..)| show.0).collect();
        let wanted: Vec<&Range> = ranges.iter().filter(|(_, first, last)| first <= last).collect();
        let of: Vec<Uuid> = wanted.iter().map(|(show, ..)| show.0).collect();
        let firsts: Vec<i64> = wanted.iter().map(|(_, first, _)| first.cast_signed()).collect();
        let lasts: Vec<i64> = wanted.iter().map(|(.., last)| last.cast_signed()).collect();
        let lock: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&shows];
        let marks: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&of, &firsts, &lasts];
        let (heads, marks) = tokio::join!(self.client.query(&self.lock, &lock), async {
            if of.is_empty() { Ok(Vec::new()) } else { self.client.query(&self.marks, &marks).await }
        });
        let mut found = Found::default();
        for row in heads? {
            let show = ShowId(row.get("show_id"));
            found.heads.insert(show, head(&row).ok_or(BadRow(show)));
        }
        for row in marks? {
            let show = ShowId(row.get("show_id"));
            match mark(&row) {
                Some(mark) => {
                    found.marks.entry(show).or_default().insert(mark.seq, mark);
                }
                None => {
                    found.heads.insert(show, Err(BadRow(show)));
                }
            }
        }
        Ok(found)
    }

    /// Writes, commits, and reads how far the store is then.
    pub async fn finish(&self, changes: &[Change<'_>]) -> Result<StoreMark, tokio_postgres::Error> {
        let commit = async { self.client.batch_execute("COMMIT").await };
        let (cut, added, heads, committed, mark) = tokio::join!(
            self.write_cuts(changes),
            self.write_entries(changes),
            self.write_heads(changes),
            commit,
            guard::read_again(&self.client, &self.mark)
        );
        // A statement that failed turns the commit into a rollback, which is answered like a commit.
        cut?;
        added?;
        heads?;
        committed?;
        mark
    }

    async fn write_cuts(&self, changes: &[Change<'_>]) -> Result<(), tokio_postgres::Error> {
        let cuts = changes.iter().filter_map(|change| Some((change.show.0, change.cut_after?.cast_signed())));
        let (shows, uptos): (Vec<Uuid>, Vec<i64>) = cuts.unzip();
        if !shows.is_empty() {
            let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&shows, &uptos];
            self.client.execute(&self.cut, &params).await?;
            self.client.execute(&self.unproject, &params).await?;
        }
        Ok(())
    }

    async fn write_entries(&self, changes: &[Change<'_>]) -> Result<(), tokio_postgres::Error> {
        let entries: Vec<&Entry> = changes.iter().flat_map(|change| change.add.iter().copied()).collect();
        if entries.is_empty() {
            return Ok(());
        }
        let of = |f: fn(&Entry) -> u64| entries.iter().map(|e| f(e).cast_signed()).collect::<Vec<i64>>();
        let shows: Vec<Uuid> = entries.iter().map(|e| e.payload.show.0).collect();
        let (seqs, epochs) = (of(|e| e.seq), of(|e| e.ballot.epoch));
        let (sessions, attempts) = (of(|e| e.ballot.session), of(|e| e.ballot.attempt));
        let ats: Vec<Timestamp> = entries.iter().map(|e| e.payload.at).collect();
        let formats: Vec<i16> = entries.iter().map(|e| e.payload.format).collect();
        let hashes: Vec<&[u8]> = entries.iter().map(|e| e.digest.as_slice()).collect();
        let events: Vec<&[u8]> = entries.iter().map(|e| e.payload.events.as_ref()).collect();
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 9] =
            [&shows, &seqs, &epochs, &sessions, &attempts, &ats, &formats, &hashes, &events];
        self.client.execute(&self.add, &params).await?;
        Ok(())
    }

    async fn write_heads(&self, changes: &[Change<'_>]) -> Result<(), tokio_postgres::Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let of = |f: fn(&Head) -> u64| changes.iter().map(|c| f(c.head).cast_signed()).collect::<Vec<i64>>();
        let shows: Vec<Uuid> = changes.iter().map(|change| change.show.0).collect();
        let promised = [of(|h| h.promised.epoch), of(|h| h.promised.session), of(|h| h.promised.attempt)];
        let accepted =
            [of(|h| h.last.ballot.epoch), of(|h| h.last.ballot.session), of(|h| h.last.ballot.attempt)];
        let (seqs, committed) = (of(|h| h.last.seq), of(|h| h.committed));
        let incarnations = of(|h| h.incarnation);
        let hashes: Vec<&[u8]> = changes.iter().map(|change| change.head.last.digest.as_slice()).collect();
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 11] = [
            &shows,
            &promised[0],
            &promised[1],
            &promised[2],
            &accepted[0],
            &accepted[1],
            &accepted[2],
            &seqs,
            &hashes,
            &committed,
            &incarnations,
        ];
        self.client.execute(&self.heads, &params).await?;
        Ok(())
    }
}

fn number(row: &Row, column: &str) -> Option<u64> {
    u64::try_from(row.get::<_, i64>(column)).ok()
}

fn ballot(row: &Row, prefix: &str) -> Option<Ballot> {
    let part = |name: &str| number(row, &format!("{prefix}{name}"));
    Some(Ballot { epoch: part("epoch")?, session: part("session")?, attempt: part("attempt")? })
}

/// Of a row that has `seq`, a ballot and `hash`.
pub fn mark(row: &Row) -> Option<Mark> {
    let digest = Hash::from_slice(row.get("hash"))?;
    Some(Mark { seq: number(row, "seq")?, ballot: ballot(row, "")?, digest })
}

pub fn head(row: &Row) -> Option<Head> {
    Some(Head {
        incarnation: number(row, "incarnation")?,
        promised: ballot(row, "promised_")?,
        last: mark(row)?,
        committed: number(row, "committed")?,
    })
}

/// A whole row of the journal.
pub fn entry(show: ShowId, row: &Row) -> Option<Entry> {
    let Mark { seq, ballot, digest } = mark(row)?;
    let (at, format) = (row.get("at"), row.get("format"));
    let events = Bytes::from(row.get::<_, Vec<u8>>("events"));
    Some(Entry { seq, ballot, digest, payload: Payload { show, at, format, events } })
}
