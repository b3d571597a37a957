//! The outbox in the region's Postgres.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Hearer, NEWS, Notice};

const PUT: &str = "
INSERT INTO notice_outbox (id, at, customer, contact, kind, reservation, reference, title, starts_at, was_starts_at,
                           cinema, seats)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (id) DO NOTHING";

/// Writes what is news still in the caller's transaction.
pub async fn put(client: &impl GenericClient, notices: &[Notice]) -> Result<(), tokio_postgres::Error> {
    let now = Timestamp::now();
    let news: Vec<&Notice> = notices.iter().filter(|notice| now.duration_since(notice.at) < NEWS).collect();
    if news.is_empty() {
        return Ok(());
    }
    let statement = client.prepare_cached(PUT).await?;
    let rows = news.into_iter().map(async |notice| {
        let (customer, contact) = match &notice.hearer {
            Hearer::Customer(customer) => (Some(customer.0), None),
            Hearer::Guest(contact) => (None, Some(contact.to_string())),
        };
        let reservation = notice.reservation.to_string();
        let params: [&(dyn ToSql + Sync); 12] = [
            &notice.id,
            &notice.at,
            &customer,
            &contact,
            &notice.kind,
            &reservation,
            &notice.reference,
            &notice.title,
            &notice.starts_at,
            &notice.was_starts_at,
            &notice.cinema,
            &notice.seats,
        ];
        client.execute(&statement, &params).await
    });
    // All on their way at once: one round trip.
    futures::future::try_join_all(rows).await?;
    Ok(())
}

pub(super) async fn waiting(
    client: &impl GenericClient,
    most: i64,
) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
    let select =
        "SELECT id, at, customer, contact, kind, reservation, reference, title, starts_at, was_starts_at, cinema, seats
           FROM notice_outbox ORDER BY at LIMIT $1";
    client.query(&client.prepare_cached(select).await?, &[&most]).await
}

pub(super) async fn forget(client: &impl GenericClient, ids: &[Uuid]) -> Result<(), tokio_postgres::Error> {
    let delete = "DELETE FROM notice_outbox WHERE id = ANY($1)";
    client.execute(&client.prepare_cached(delete).await?, &[&ids]).await?;
    Ok(())
}

/// What is no news any more, `global` having been away.
pub(super) async fn forget_old(client: &impl GenericClient) -> Result<(), tokio_postgres::Error> {
    let before = Timestamp::now() - NEWS;
    client.execute("DELETE FROM notice_outbox WHERE at < $1", &[&before]).await?;
    Ok(())
}
