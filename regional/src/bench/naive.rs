//! The usual design: one transaction a booking, the seats locked by `SELECT … FOR UPDATE`.

use deadpool_postgres::Pool;
use uuid::Uuid;

use super::tables::{EVENT, INSERT_JOURNAL, INSERT_RESERVATION, connection, numbers, prepare};
use super::{Booking, Design, Outcome};

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
    async fn book(&self, booking: Booking) -> anyhow::Result<Outcome> {
        let (show, seats) = numbers(booking)?;
        let mut client = connection(&self.0).await?;
        let transaction = client.transaction().await?;
        let lock = transaction
            .prepare_cached(
                "SELECT status FROM ref_seats WHERE show_id = $1 AND seat = ANY($2) ORDER BY seat FOR UPDATE",
            )
            .await?;
        let rows = transaction.query(&lock, &[&show, &seats]).await?;
        if rows.iter().any(|row| row.get::<_, i16>(0) != 0) {
            return Ok(Outcome::Taken);
        }
        let (id, customer) = (Uuid::now_v7(), Uuid::now_v7());
        let insert = transaction.prepare_cached(INSERT_RESERVATION).await?;
        transaction.execute(&insert, &[&id, &show, &customer, &seats]).await?;
        let update = transaction
            .prepare_cached(
                "UPDATE ref_seats SET status = 1, reservation = $3 WHERE show_id = $1 AND seat = ANY($2)",
            )
            .await?;
        transaction.execute(&update, &[&show, &seats, &id]).await?;
        let journal = transaction.prepare_cached(INSERT_JOURNAL).await?;
        transaction.execute(&journal, &[&show, &EVENT]).await?;
        transaction.commit().await?;
        Ok(Outcome::Booked)
    }
}
