//! The keys that personal data outside of this service is held under (`common::personal`): each account's own,
//! and one for every month.
//!
//! Invariant: an account's key is derived from its salt, which goes with the account's other data; a month's is
//! made ahead, and its row is deleted some months after it. No copy of either is kept but by the feed's followers,
//! who forget what is not told again.

use common::UserId;
use common::personal::Month;
use common::proto::feed as proto;
use common::seal::SealingKey;
use deadpool_postgres::{GenericClient, Pool};
use jiff::Timestamp;
use uuid::Uuid;

use crate::db;
use crate::fault::Result;
use crate::feed::store::{self, Whole};

/// Shows are sold ahead, and regions may be cut off for long.
const MADE_AHEAD: u16 = 36;

/// An account's key; the salt alone gives none, nor does the master key.
pub fn of(sealing: &SealingKey, user: UserId, salt: Uuid) -> SealingKey {
    let input = [user.0.as_bytes().as_slice(), salt.as_bytes()].concat();
    SealingKey::from_bytes(sealing.derive("a person's data", &input))
}

/// The keys of those among these who have not been deleted.
pub async fn of_users(
    db: &impl GenericClient,
    sealing: &SealingKey,
    users: &[UserId],
) -> Result<proto::PersonKeys> {
    let ids: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let sql = "SELECT id, person_salt FROM users WHERE id = ANY($1) AND person_salt IS NOT NULL AND deleted_at IS NULL";
    let rows = db::rows(db, sql, &[&ids]).await?;
    let key = |row: &tokio_postgres::Row| {
        let user = UserId(row.get(0));
        proto::PersonKey {
            user_id: user.to_string(),
            key: of(sealing, user, row.get(1)).bytes().to_vec().into(),
        }
    };
    Ok(proto::PersonKeys { keys: rows.iter().map(key).collect() })
}

/// Makes the keys that are lacking and destroys those of months that ended more than `kept_months` ago; answers
/// the feed's position if it changed anything.
pub async fn ensure_months(pool: &Pool, sealing: &SealingKey, kept_months: u16) -> Result<Option<i64>> {
    let this = Month::of(Timestamp::now()).0;
    let (first, last) = (this.saturating_sub(kept_months), this.saturating_add(MADE_AHEAD));
    let mut client = pool.get().await?;
    let (low, high) = (i32::from(first), i32::from(last));
    let sql = "SELECT count(*) = $2::int - $1::int + 1 AND bool_and(month BETWEEN $1 AND $2) FROM month_keys";
    if db::one(&client, sql, &[&low, &high]).await?.get::<_, Option<bool>>(0) == Some(true) {
        return Ok(None);
    }
    let tx = client.transaction().await?;
    store::lock(&tx).await?;
    let sql = "DELETE FROM month_keys WHERE month NOT BETWEEN $1 AND $2";
    let mut changed = db::run(&tx, sql, &[&low, &high]).await?;
    for month in first..=last {
        let sealed = sealing.seal(&context(month), SealingKey::generate().bytes());
        let sql = "INSERT INTO month_keys (month, sealed) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        changed += db::run(&tx, sql, &[&i32::from(month), &sealed]).await?;
    }
    if changed == 0 {
        return Ok(None);
    }
    let (_, position) = store::changed(&tx, Whole::MonthKeys).await?;
    tx.commit().await?;
    tracing::info!(changed, "keys of months were made or destroyed");
    Ok(Some(position))
}

/// All that there are, for the feed.
pub async fn months(db: &impl GenericClient, sealing: &SealingKey) -> Result<proto::MonthKeys> {
    let rows = db::rows(db, "SELECT month, sealed FROM month_keys ORDER BY month", &[]).await?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let month = u16::try_from(row.get::<_, i32>(0)).unwrap_or_default();
        match sealing.open(&context(month), row.get(1)) {
            Ok(key) => keys.push(proto::MonthKey { month: month.into(), key: key.into() }),
            // Followers do without one month rather than without the feed.
            Err(error) => tracing::error!(month, %error, "the key of a month is not usable"),
        }
    }
    Ok(proto::MonthKeys { keys })
}

fn context(month: u16) -> String {
    format!("month-key {month}")
}
