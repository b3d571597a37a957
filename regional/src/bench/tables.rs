//! The tables of the designs that others use, and what all of them write.

use std::time::Duration;

use deadpool_postgres::{Object, Pool, Timeouts};

use super::{Booking, SEATS_A_BOOKING};

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
pub const EVENT: &[u8] = &[b'x'; 280];

pub const INSERT_RESERVATION: &str =
    "INSERT INTO ref_reservations (id, show_id, customer, seats, total) VALUES ($1, $2, $3, $4, 2000)";
pub const INSERT_JOURNAL: &str = "INSERT INTO ref_journal (show_id, events) VALUES ($1, $2)";

/// Whoever waits for a connection is slow, not lost.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

pub async fn connection(pool: &Pool) -> anyhow::Result<Object> {
    Ok(pool.timeout_get(&Timeouts { wait: PATIENCE, create: PATIENCE, recycle: PATIENCE }).await?)
}

/// Empties the tables and puts `shows` shows of `seats` free seats in.
pub async fn prepare(pool: &Pool, shows: u32, seats: u32) -> anyhow::Result<()> {
    let client = connection(pool).await?;
    client.batch_execute(SCHEMA).await?;
    let fill = "INSERT INTO ref_seats (show_id, seat)
                SELECT s, n FROM generate_series(0, $1 - 1) s, generate_series(0, $2 - 1) n";
    client.execute(fill, &[&i32::try_from(shows)?, &i32::try_from(seats)?]).await?;
    client.batch_execute("VACUUM ANALYZE ref_seats").await?;
    Ok(())
}

/// The show and its seats as the tables number them.
pub fn numbers(booking: Booking) -> anyhow::Result<(i32, Vec<i32>)> {
    let first = i32::try_from(booking.seat)?;
    Ok((i32::try_from(booking.show)?, (first..first + i32::try_from(SEATS_A_BOOKING)?).collect()))
}
