//! The designs that others use, written as well as they can be: the same rows, the same server.

use deadpool_postgres::Pool;
use uuid::Uuid;

use super::{Booking, Design, SEATS_A_BOOKING};

const SCHEMA: &str = "
DROP TABLE IF EXISTS ref_seats, ref_reservations, ref_journal;
CREATE TABLE ref_seats (show_id int NOT NULL, seat int NOT NULL, status smallint NOT NULL DEFAULT 0,
                        reservation uuid, PRIMARY KEY (show_id, seat)) WITH (fillfactor = 70);
CREATE TABLE ref_reservations (id uuid PRIMARY KEY, show_id int NOT NULL, customer uuid NOT NULL,
                               seats int[] NOT NULL, total bigint NOT NULL,
                               created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE ref_journal (id bigserial PRIMARY KEY, show_id int NOT NULL, events bytea NOT NULL,
                          at timestamptz NOT NULL DEFAULT now());";

/// About as long as one reservation's event.
const EVENT: &[u8] = &[b'x'; 280];

/// Empties the tables and puts `shows` shows of `seats` free seats in.
async fn prepare(pool: &Pool, shows: u32, seats: u32) -> anyhow::Result<()> {
    let client = pool.get().await?;
    client.batch_execute(SCHEMA).await?;
    let fill = "INSERT INTO ref_seats (show_id, seat) SELECT s, n FROM generate_series(0, $1 - 1) s, generate_series(0, $2 - 1) n";
    client.execute(fill, &[&i32::try_from(shows)?, &i32::try_from(seats)?]).await?;
    client.batch_execute("VACUUM ANALYZE ref_seats").await?;
    Ok(())
}

fn numbers(booking: Booking) -> anyhow::Result<(i32, Vec<i32>)> {
    let first = i32::try_from(booking.seat)?;
    Ok((i32::try_from(booking.show)?, (first..first + i32::try_from(SEATS_A_BOOKING)?).collect()))
}

/// The usual design: one transaction a booking, the seats locked by `SELECT … FOR UPDATE`.
pub struct Naive(Pool);

impl Naive {
    pub async fn start(url: &str, connections: usize, shows: u32, seats: u32) -> anyhow::Result<Self> {
        let pool = migrations::pool(url, connections)?;
        prepare(&pool, shows, seats).await?;
        Ok(Self(pool))
    }
}

#[tonic::async_trait]
impl Design for Naive {
    fn name(&self) -> &'static str {
        "naive"
    }

    async fn book(&self, booking: Booking) -> anyhow::Result<bool> {
        let (show, seats) = numbers(booking)?;
        let mut client = self.0.get().await?;
        let transaction = client.transaction().await?;
        let lock = transaction
            .prepare_cached(
                "SELECT status FROM ref_seats WHERE show_id = $1 AND seat = ANY($2) ORDER BY seat FOR UPDATE",
            )
            .await?;
        let rows = transaction.query(&lock, &[&show, &seats]).await?;
        if rows.iter().any(|row| row.get::<_, i16>(0) != 0) {
            return Ok(false);
        }
        let (id, customer) = (Uuid::now_v7(), Uuid::now_v7());
        let insert = transaction
            .prepare_cached("INSERT INTO ref_reservations (id, show_id, customer, seats, total) VALUES ($1, $2, $3, $4, 2000)")
            .await?;
        transaction.execute(&insert, &[&id, &show, &customer, &seats]).await?;
        let update = transaction
            .prepare_cached(
                "UPDATE ref_seats SET status = 1, reservation = $3 WHERE show_id = $1 AND seat = ANY($2)",
            )
            .await?;
        transaction.execute(&update, &[&show, &seats, &id]).await?;
        let journal =
            transaction.prepare_cached("INSERT INTO ref_journal (show_id, events) VALUES ($1, $2)").await?;
        transaction.execute(&journal, &[&show, &EVENT]).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// One statement a booking that takes the seats only if all are free; no lock on the show.
pub struct BestStatement(Pool);

impl BestStatement {
    pub async fn start(url: &str, connections: usize, shows: u32, seats: u32) -> anyhow::Result<Self> {
        let pool = migrations::pool(url, connections)?;
        prepare(&pool, shows, seats).await?;
        let function = "
CREATE OR REPLACE FUNCTION ref_book(a_show int, a_seats int[], a_id uuid, a_customer uuid, a_event bytea)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE taken int;
BEGIN
    UPDATE ref_seats SET status = 1, reservation = a_id
     WHERE show_id = a_show AND seat = ANY(a_seats) AND status = 0;
    GET DIAGNOSTICS taken = ROW_COUNT;
    IF taken <> cardinality(a_seats) THEN RAISE EXCEPTION 'taken' USING ERRCODE = 'P0001'; END IF;
    INSERT INTO ref_reservations (id, show_id, customer, seats, total) VALUES (a_id, a_show, a_customer, a_seats, 2000);
    INSERT INTO ref_journal (show_id, events) VALUES (a_show, a_event);
    RETURN true;
END $$";
        pool.get().await?.batch_execute(function).await?;
        Ok(Self(pool))
    }
}

#[tonic::async_trait]
impl Design for BestStatement {
    fn name(&self) -> &'static str {
        "best single statement"
    }

    async fn book(&self, booking: Booking) -> anyhow::Result<bool> {
        let (show, seats) = numbers(booking)?;
        let client = self.0.get().await?;
        let book = client.prepare_cached("SELECT ref_book($1, $2, $3, $4, $5)").await?;
        let (id, customer) = (Uuid::now_v7(), Uuid::now_v7());
        match client.query_one(&book, &[&show, &seats, &id, &customer, &EVENT]).await {
            Ok(_) => Ok(true),
            Err(error) if error.code().is_some_and(|code| code.code() == "P0001") => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the server can take at most: the same journal bytes, written by one connection in large batches.
pub struct Limit(Pool);

impl Limit {
    pub async fn start(url: &str) -> anyhow::Result<Self> {
        let pool = migrations::pool(url, 1)?;
        prepare(&pool, 0, 0).await?;
        Ok(Self(pool))
    }

    /// Writes batches of `batch` bookings for `time`; bookings a second.
    pub async fn measure(&self, batch: usize, time: std::time::Duration) -> anyhow::Result<f64> {
        let client = self.0.get().await?;
        let insert = client
            .prepare_cached(
                "INSERT INTO ref_journal (show_id, events) SELECT 1, e FROM unnest($1::bytea[]) e",
            )
            .await?;
        let events = vec![EVENT; batch];
        let (started, mut written) = (std::time::Instant::now(), 0);
        while started.elapsed() < time {
            written += client.execute(&insert, &[&events]).await?;
        }
        Ok(written as f64 / started.elapsed().as_secs_f64())
    }
}
