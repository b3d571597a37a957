//! One statement a booking that takes the seats only if all are free; no lock on the show.

use deadpool_postgres::Pool;
use uuid::Uuid;

use super::tables::{EVENT, connection, numbers, prepare};
use super::{Booking, Design, Outcome};

const FUNCTION: &str = "
CREATE OR REPLACE FUNCTION ref_book(a_show int, a_seats int[], a_id uuid, a_customer uuid, a_event bytea)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE taken int;
BEGIN
    UPDATE ref_seats SET status = 1, reservation = a_id
     WHERE show_id = a_show AND seat = ANY(a_seats) AND status = 0;
    GET DIAGNOSTICS taken = ROW_COUNT;
    IF taken <> cardinality(a_seats) THEN RAISE EXCEPTION 'taken' USING ERRCODE = 'P0001'; END IF;
    INSERT INTO ref_reservations (id, show_id, customer, seats, total)
    VALUES (a_id, a_show, a_customer, a_seats, 2000);
    INSERT INTO ref_journal (show_id, events) VALUES (a_show, a_event);
    RETURN true;
END $$";

pub struct BestStatement(Pool);

impl BestStatement {
    pub async fn start(url: &str, connections: usize, shows: u32, seats: u32) -> anyhow::Result<Self> {
        let pool = migrations::pool(url, connections)?;
        prepare(&pool, shows, seats).await?;
        pool.get().await?.batch_execute(FUNCTION).await?;
        Ok(Self(pool))
    }
}

#[tonic::async_trait]
impl Design for BestStatement {
    async fn book(&self, booking: Booking) -> anyhow::Result<Outcome> {
        let (show, seats) = numbers(booking)?;
        let client = connection(&self.0).await?;
        let book = client.prepare_cached("SELECT ref_book($1, $2, $3, $4, $5)").await?;
        let (id, customer) = (Uuid::now_v7(), Uuid::now_v7());
        match client.query_one(&book, &[&show, &seats, &id, &customer, &EVENT]).await {
            Ok(_) => Ok(Outcome::Booked),
            Err(error) if error.code().is_some_and(|code| code.code() == "P0001") => Ok(Outcome::Taken),
            Err(error) => Err(error.into()),
        }
    }
}
