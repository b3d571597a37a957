//! The feed in Postgres: positions, revocations, what is sent whole, and reading it all in order.
//!
//! Invariant: a position is drawn under the lock of `feed_head`'s row and becomes visible with its
//! transaction, so positions appear in order and whoever has read up to N missed nothing below N.

use common::authz::jwt::JwkSet;
use common::feed::Wanted;
use common::proto::feed::{self as proto, Update, revocation, update};
use common::seal::SealingKey;
use common::{SessionId, UserId};
use deadpool_postgres::{GenericClient, Pool};
use jiff::Timestamp;
use tokio_postgres::IsolationLevel;

use crate::fault::Result;
use crate::{db, keys, movies, person_keys, policy};

/// Held by every transaction that writes to the feed, from its start: all take it first, so none can wait
/// for another in a circle.
const FEED_LOCK: i64 = 0x6d61_7271_7565_6502;

/// What the feed sends whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    Policy,
    Keys,
    MonthKeys,
}

impl Whole {
    fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Keys => "keys",
            Self::MonthKeys => "month_keys",
        }
    }

    /// In the order in which they are sent: who can check tokens knows the months already.
    const ALL: [Self; 3] = [Self::MonthKeys, Self::Policy, Self::Keys];

    fn is_wanted(self, wanted: Wanted) -> bool {
        self != Self::MonthKeys || wanted.month_keys
    }
}

/// Must be the first statement of a transaction that writes to the feed.
pub async fn lock(db: &impl GenericClient) -> Result<()> {
    db::run(db, "SELECT pg_advisory_xact_lock($1)", &[&FEED_LOCK]).await?;
    Ok(())
}

/// Draws `count` positions and answers the last of them.
pub async fn draw(db: &impl GenericClient, count: usize) -> Result<i64> {
    let count = i64::try_from(count).expect("a batch fits in memory");
    let sql = "UPDATE feed_head SET position = position + $1 RETURNING position";
    Ok(db::one(db, sql, &[&count]).await?.get(0))
}

pub async fn head(db: &impl GenericClient) -> Result<i64> {
    Ok(db::one(db, "SELECT position FROM feed_head", &[]).await?.get(0))
}

/// Raises the version of what is sent whole; answers (version, position).
pub async fn changed(db: &impl GenericClient, whole: Whole) -> Result<(i64, i64)> {
    let position = draw(db, 1).await?;
    let sql = "INSERT INTO feed_wholes (name, version, position) VALUES ($1, 1, $2)
               ON CONFLICT (name) DO UPDATE SET version = feed_wholes.version + 1, position = $2
               RETURNING version";
    let version = db::one(db, sql, &[&whole.name(), &position]).await?.get(0);
    Ok((version, position))
}

/// The present version; none before the first change.
pub async fn version(db: &impl GenericClient, whole: Whole) -> Result<Option<i64>> {
    let row = db::row(db, "SELECT version FROM feed_wholes WHERE name = $1", &[&whole.name()]).await?;
    Ok(row.map(|r| r.get(0)))
}

/// Voids the access tokens of these sessions; answers the last position.
pub async fn revoke_sessions(
    db: &impl GenericClient,
    sessions: &[SessionId],
    expires_at: Timestamp,
) -> Result<i64> {
    if sessions.is_empty() {
        return head(db).await;
    }
    let last = draw(db, sessions.len()).await?;
    let ids: Vec<_> = sessions.iter().map(|s| s.0).collect();
    let sql = "INSERT INTO revocations (position, session_id, expires_at)
               SELECT $1 + n - cardinality($2::uuid[]), id, $3
               FROM unnest($2::uuid[]) WITH ORDINALITY AS t (id, n)";
    db::run(db, sql, &[&last, &ids, &expires_at]).await?;
    Ok(last)
}

/// Voids a user's access tokens below `min_version`; answers the position.
pub async fn revoke_user(
    db: &impl GenericClient,
    user: UserId,
    min_version: i64,
    expires_at: Timestamp,
) -> Result<i64> {
    let position = draw(db, 1).await?;
    let sql = "INSERT INTO revocations (position, user_id, min_version, expires_at) VALUES ($1, $2, $3, $4)";
    db::run(db, sql, &[&position, &user.0, &min_version, &expires_at]).await?;
    Ok(position)
}

/// Forgets revocations of tokens that have all expired.
pub async fn purge(db: &impl GenericClient) -> Result<u64> {
    db::run(db, "DELETE FROM revocations WHERE expires_at < now()", &[]).await
}

/// A part of the feed, in order, and the position up to which it is complete.
pub struct Batch {
    pub updates: Vec<Update>,
    pub up_to: i64,
}

/// What is sent whole, as it is now, marked with the follower's own position, and that position: it starts
/// over when the feed has never been where the follower says it was (a database restored from a backup).
pub async fn opening(pool: &Pool, sealing: &SealingKey, after: i64, wanted: Wanted) -> Result<Batch> {
    let mut client = pool.get().await?;
    let tx = snapshot(&mut client).await?;
    let head = head(&tx).await?;
    let after = if (0..=head).contains(&after) { after } else { 0 };
    let mut updates = Vec::new();
    for whole in Whole::ALL.into_iter().filter(|whole| whole.is_wanted(wanted)) {
        if version(&tx, whole).await?.is_some() {
            updates.push(read_whole(&tx, sealing, whole, after).await?);
        }
    }
    Ok(Batch { updates, up_to: after })
}

/// What came after a position: at most about `limit` of each kind.
pub async fn read(
    pool: &Pool,
    sealing: &SealingKey,
    after: i64,
    wanted: Wanted,
    limit: i64,
) -> Result<Batch> {
    let mut client = pool.get().await?;
    let tx = snapshot(&mut client).await?;
    let mut up_to = head(&tx).await?;

    let mut updates = revocations(&tx, after, limit).await?;
    cut(&mut up_to, &updates, limit);
    if wanted.movies {
        let films = movies::store::changed_after(&tx, after, limit).await?;
        cut(&mut up_to, &films, limit);
        updates.extend(films);
    }
    let sql = "SELECT name, position FROM feed_wholes WHERE position > $1";
    for row in db::rows(&tx, sql, &[&after]).await? {
        let whole = Whole::ALL.into_iter().find(|whole| whole.name() == row.get::<_, &str>(0));
        if let Some(whole) = whole.filter(|whole| whole.is_wanted(wanted)) {
            updates.push(read_whole(&tx, sealing, whole, row.get(1)).await?);
        }
    }
    updates.retain(|u| u.position <= up_to);
    updates.sort_by_key(|u| u.position);
    Ok(Batch { updates, up_to })
}

/// A kind that was cut off at the limit is complete only up to its last.
fn cut(up_to: &mut i64, updates: &[Update], limit: i64) {
    if i64::try_from(updates.len()).is_ok_and(|n| n >= limit) {
        *up_to = updates.last().map_or(*up_to, |u| u.position.min(*up_to));
    }
}

async fn snapshot(client: &mut deadpool_postgres::Object) -> Result<deadpool_postgres::Transaction<'_>> {
    let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    Ok(builder.start().await?)
}

async fn revocations(db: &impl GenericClient, after: i64, limit: i64) -> Result<Vec<Update>> {
    let sql = "SELECT position, session_id, user_id, min_version, expires_at FROM revocations
               WHERE position > $1 AND expires_at > now() ORDER BY position LIMIT $2";
    let rows = db::rows(db, sql, &[&after, &limit]).await?;
    let update = |row: &tokio_postgres::Row| {
        let who = match row.get::<_, Option<_>>("session_id") {
            Some(id) => revocation::Who::SessionId(SessionId(id).to_string()),
            None => revocation::Who::User(proto::UserVersion {
                user_id: UserId(row.get("user_id")).to_string(),
                min_version: row.get("min_version"),
            }),
        };
        let expires_at = row.get::<_, Timestamp>("expires_at").as_second();
        let revocation = proto::Revocation { who: Some(who), expires_at };
        Update { position: row.get("position"), update: Some(update::Update::Revocation(revocation)) }
    };
    Ok(rows.iter().map(update).collect())
}

async fn read_whole(
    db: &impl GenericClient,
    sealing: &SealingKey,
    whole: Whole,
    position: i64,
) -> Result<Update> {
    let update = match whole {
        Whole::Policy => {
            let version = version(db, whole).await?.unwrap_or_default();
            let rules = policy::store::load(db).await?;
            update::Update::Policy(rules.into_feed(version))
        }
        Whole::Keys => {
            let jwks: JwkSet = keys::published(db).await?;
            let jwks = serde_json::to_string(&jwks).expect("keys are plain data");
            update::Update::Keys(proto::Keys { jwks })
        }
        Whole::MonthKeys => update::Update::MonthKeys(person_keys::months(db, sealing).await?),
    };
    Ok(Update { position, update: Some(update) })
}
