//! What the server can take at most: what Marquee writes, by one connection in large batches, with nobody to
//! wait for and nothing decided. And what one bare commit takes.

use std::pin::pin;
use std::time::{Duration, Instant};

use common::{RegionName, ReservationId, ShowId, UserId};
use deadpool_postgres::{Pool, Transaction};
use jiff::{SignedDuration, Timestamp};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{SEATS_A_BOOKING, Seen, Spread};
use crate::show::{self, Event, Group, SeatLine};

const HEADS: &str = "
INSERT INTO show_head (show_id, promised_epoch, promised_session, promised_attempt)
SELECT s, 1, 1, 1 FROM unnest($1::uuid[]) s";

/// One journal row a show, its head moved on: the least that keeps two processes from extending one show.
const APPEND: &str = "
WITH b AS (SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS b (show_id, hash, events)),
won AS (UPDATE show_head h SET seq = h.seq + 1, committed = h.seq + 1, hash = b.hash
          FROM b WHERE h.show_id = b.show_id RETURNING h.show_id, h.seq)
INSERT INTO show_journal (show_id, seq, epoch, session, attempt, at, format, hash, events)
SELECT show_id, won.seq, 1, 1, 1, now(), $4, b.hash, b.events FROM b JOIN won USING (show_id)";

const RESERVATIONS: &str = "
COPY reservations (show_id, own, customer, reference, status, created_at, expires_at, rest) FROM STDIN BINARY";
const COLUMNS: [Type; 8] = [
    Type::UUID,
    Type::BYTEA,
    Type::UUID,
    Type::TEXT,
    Type::TEXT,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMPTZ,
    Type::TEXT,
];

/// What the row keeps beside its columns.
const REST: &str = r#"{"s":[["A1","standard","adult",1000],["A2","standard","adult",1000]]}"#;

/// Bookings in one transaction.
pub const LIMIT_BATCH: usize = 200;

pub struct Limit {
    pool: Pool,
    shows: Vec<ShowId>,
    /// Of each show in a batch.
    bookings: usize,
    with_reservations: bool,
}

impl Limit {
    /// In the (migrated) database: all of a batch for one show, or each booking for another.
    pub async fn start(url: &str, spread: Spread, with_reservations: bool) -> anyhow::Result<Self> {
        let pool = migrations::pool(url, 1)?;
        let region: RegionName = "bench".parse()?;
        let in_batch = if spread == Spread::Hot { 1 } else { LIMIT_BATCH };
        let shows: Vec<ShowId> = (0..in_batch).map(|_| ShowId::new(&region)).collect();
        let ids: Vec<Uuid> = shows.iter().map(|show| show.0).collect();
        pool.get().await?.execute(HEADS, &[&ids]).await?;
        Ok(Self { pool, shows, bookings: LIMIT_BATCH / in_batch, with_reservations })
    }

    /// Writes batches for `time`.
    pub async fn measure(&self, time: Duration) -> anyhow::Result<Seen> {
        let mut client = self.pool.get().await?;
        let append = client.prepare_cached(APPEND).await?;
        let shows: Vec<Uuid> = self.shows.iter().map(|show| show.0).collect();
        let (events, hashes) = (self.events(), vec![vec![7_u8; 32]; shows.len()]);
        let (started, mut seen) = (Instant::now(), Seen::default());
        while started.elapsed() < time {
            let transaction = client.transaction().await?;
            transaction.execute(&append, &[&shows, &hashes, &events, &show::FORMAT]).await?;
            if self.with_reservations {
                self.reservations(&transaction).await?;
            }
            transaction.commit().await?;
            seen.done += LIMIT_BATCH as u64;
        }
        seen.seconds = started.elapsed().as_secs_f64();
        Ok(seen)
    }

    /// As the projector writes them: copied in.
    async fn reservations(&self, transaction: &Transaction<'_>) -> anyhow::Result<()> {
        let sink = transaction.copy_in(RESERVATIONS).await?;
        let mut rows = pin!(BinaryCopyInWriter::new(sink, &COLUMNS));
        let now = Timestamp::now();
        for show in self.shows.iter().flat_map(|show| std::iter::repeat_n(*show, self.bookings)) {
            let (own, customer) = (reservation(show).own(), UserId::new().0);
            let own = &own[..];
            rows.as_mut()
                .write(&[&show.0, &own, &customer, &"BENCH", &"reserved", &now, &now, &REST])
                .await?;
        }
        rows.finish().await?;
        Ok(())
    }

    /// Each show's entry, in the very form in which Marquee writes it.
    fn events(&self) -> Vec<Vec<u8>> {
        let group = |show: ShowId, n: usize| {
            let seat = |seat| SeatLine { seat, category: "adult".into(), amount: 1_000 };
            let first = u32::try_from(n).unwrap_or(0) * SEATS_A_BOOKING;
            let customer = Some(UserId::new());
            let event = Event::Reserved {
                reservation: reservation(show),
                reference: "BENCH".into(),
                customer,
                contact: None,
                seats: (first..first + SEATS_A_BOOKING).map(seat).collect(),
                expires_at: Timestamp::now() + SignedDuration::from_hours(1),
                held_since: None,
                origin: None,
                waived: Vec::new(),
            };
            Group {
                at: Timestamp::now(),
                by: customer,
                key: None,
                trace: None,
                from: None,
                events: vec![event],
            }
        };
        let entry = |show: &ShowId| {
            let groups: Vec<Group> = (0..self.bookings).map(|n| group(*show, n)).collect();
            show::encode(&groups)
        };
        self.shows.iter().map(entry).collect()
    }
}

fn reservation(show: ShowId) -> ReservationId {
    ReservationId::new(show, Timestamp::now(), rand::random())
}

/// One connection that writes one small row after the other, each with a commit of its own.
pub struct Commits(Pool);

impl Commits {
    pub async fn start(url: &str) -> anyhow::Result<Self> {
        let pool = migrations::pool(url, 1)?;
        pool.get().await?.batch_execute("CREATE TABLE IF NOT EXISTS ref_commits (n bigint NOT NULL)").await?;
        Ok(Self(pool))
    }

    pub async fn measure(&self, time: Duration) -> anyhow::Result<Seen> {
        let client = self.0.get().await?;
        let insert = client.prepare_cached("INSERT INTO ref_commits (n) VALUES (1)").await?;
        let (started, mut seen) = (Instant::now(), Seen::default());
        while started.elapsed() < time {
            let asked = Instant::now();
            client.execute(&insert, &[]).await?;
            seen.record(asked);
        }
        seen.seconds = started.elapsed().as_secs_f64();
        Ok(seen)
    }
}
