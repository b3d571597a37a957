//! The outbox in the region's Postgres.

use common::{AuditId, UserId};
use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Line;

/// Lines of events come again when read models are rebuilt, or another process folds the same entry.
const PUT: &str = "
INSERT INTO audit_outbox (id, at, actor, action, target, before, after, address, region, due_at)
SELECT b.*, now() + make_interval(secs => $10)
  FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
              $9::text[])
    AS b (id, at, actor, action, target, before, after, address, region)
    ON CONFLICT (id) DO NOTHING";

/// Writes lines in the caller's transaction; wake the sender once that has committed.
pub async fn put(client: &impl GenericClient, lines: &[Line]) -> Result<(), tokio_postgres::Error> {
    put_due_in(client, lines, 0.0).await
}

/// As [`put`]; not told before so many seconds.
pub(super) async fn put_due_in(
    client: &impl GenericClient,
    lines: &[Line],
    secs: f64,
) -> Result<(), tokio_postgres::Error> {
    if lines.is_empty() {
        return Ok(());
    }
    let text = |value: &Option<Value>| value.as_ref().map(Value::to_string);
    let ids: Vec<Uuid> = lines.iter().map(|line| line.id.0).collect();
    let at: Vec<Timestamp> = lines.iter().map(|line| line.at).collect();
    let actors: Vec<Option<Uuid>> = lines.iter().map(|line| line.actor.map(|actor| actor.0)).collect();
    let actions: Vec<&str> = lines.iter().map(|line| line.action).collect();
    let targets: Vec<&str> = lines.iter().map(|line| line.target.as_str()).collect();
    let before: Vec<Option<String>> = lines.iter().map(|line| text(&line.before)).collect();
    let after: Vec<Option<String>> = lines.iter().map(|line| text(&line.after)).collect();
    let addresses: Vec<&str> = lines.iter().map(|line| line.address.as_str()).collect();
    let regions: Vec<&str> = lines.iter().map(|line| line.region.as_str()).collect();
    let params: [&(dyn ToSql + Sync); 10] =
        [&ids, &at, &actors, &actions, &targets, &before, &after, &addresses, &regions, &secs];
    client.execute(&client.prepare_cached(PUT).await?, &params).await?;
    Ok(())
}

/// The outcome of an order is known: it may be told.
pub(super) async fn settle(
    client: &impl GenericClient,
    id: AuditId,
    after: &Value,
) -> Result<(), tokio_postgres::Error> {
    let update = "UPDATE audit_outbox SET after = $2, due_at = now() WHERE id = $1";
    client.execute(&client.prepare_cached(update).await?, &[&id.0, &after.to_string()]).await?;
    Ok(())
}

/// `global` has them, or there is nothing to tell.
pub(super) async fn forget(client: &impl GenericClient, ids: &[Uuid]) -> Result<(), tokio_postgres::Error> {
    let delete = "DELETE FROM audit_outbox WHERE id = ANY($1) AND refused_at IS NULL";
    client.execute(&client.prepare_cached(delete).await?, &[&ids]).await?;
    Ok(())
}

pub(super) async fn refused(client: &impl GenericClient, ids: &[Uuid]) -> Result<(), tokio_postgres::Error> {
    let update = "UPDATE audit_outbox SET refused_at = now() WHERE id = ANY($1)";
    client.execute(&client.prepare_cached(update).await?, &[&ids]).await?;
    Ok(())
}

/// A row as it is told.
pub(super) struct Due {
    pub id: Uuid,
    pub at: Timestamp,
    pub actor: Option<UserId>,
    pub action: String,
    pub target: String,
    pub before: Option<String>,
    pub after: Option<String>,
    pub address: String,
    pub region: String,
}

/// The oldest that are due.
pub(super) async fn due(client: &impl GenericClient, most: i64) -> Result<Vec<Due>, tokio_postgres::Error> {
    let select = "SELECT id, at, actor, action, target, before, after, address, region FROM audit_outbox
                   WHERE refused_at IS NULL AND due_at <= now() ORDER BY due_at, id LIMIT $1";
    let rows = client.query(&client.prepare_cached(select).await?, &[&most]).await?;
    let due = |row: &tokio_postgres::Row| {
        Ok(Due {
            id: row.try_get("id")?,
            at: row.try_get("at")?,
            actor: row.try_get::<_, Option<Uuid>>("actor")?.map(UserId),
            action: row.try_get("action")?,
            target: row.try_get("target")?,
            before: row.try_get("before")?,
            after: row.try_get("after")?,
            address: row.try_get("address")?,
            region: row.try_get("region")?,
        })
    };
    rows.iter().map(due).collect()
}

/// How many wait, and for how many seconds the oldest; how many were refused.
pub(super) async fn waiting(client: &impl GenericClient) -> Result<(i64, f64, i64), tokio_postgres::Error> {
    let select = "SELECT count(*) FILTER (WHERE refused_at IS NULL),
                         coalesce(extract(epoch FROM now() - min(due_at) FILTER (WHERE refused_at IS NULL)), 0)::float8,
                         count(*) FILTER (WHERE refused_at IS NOT NULL) FROM audit_outbox";
    let row = client.query_one(&client.prepare_cached(select).await?, &[]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}
