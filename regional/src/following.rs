//! Following `global`'s feed: authority and catalogue, kept in the region's own Postgres so that a process
//! starts and sells while `global` is down.
//!
//! Invariant: what an update brings is committed together with its position, so a stream that is taken up
//! again misses nothing. Authority changes in memory first (a revocation holds at once) and again when the
//! stream repeats the update.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use common::authz::jwt::JwkSet;
use common::authz::{Authority, Inheritance, Policy, Rule};
use common::catalogue::Movie;
use common::feed::{Follower, Wanted, apply_to_authority, follow};
use common::ops::Dependency;
use common::personal::MonthKeys;
use common::proto::feed::revocation::Who;
use common::proto::feed::update::Update as Kind;
use common::proto::feed::{self, Update};
use common::seal::SealingKey;
use common::{RegionName, SessionId, UserId};
use deadpool_postgres::{Pool, Transaction};
use jiff::Timestamp;
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::Json;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use uuid::Uuid;

mod metrics;

use metrics::METRICS;

/// Heartbeats move nothing but the time at which `global` was last heard; that is written this seldom.
const HEARTBEAT_WRITE_SECS: i64 = 30;

const WANTED: Wanted = Wanted { movies: true, month_keys: true };

/// The policy as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct KeptPolicy {
    version: i64,
    rules: Vec<Rule>,
    roles: Vec<Inheritance>,
}

impl From<&feed::Policy> for KeptPolicy {
    fn from(policy: &feed::Policy) -> Self {
        let rules = policy.rules.iter().map(|r| Rule {
            role: r.role.clone(),
            region: r.region.clone(),
            resource: r.resource.clone(),
            action: r.action.clone(),
        });
        let roles =
            policy.roles.iter().map(|r| Inheritance { role: r.role.clone(), includes: r.includes.clone() });
        Self { version: policy.version, rules: rules.collect(), roles: roles.collect() }
    }
}

/// Where what was heard is kept.
#[derive(Clone)]
pub struct Kept {
    pub pool: Pool,
    /// For what is secret of it.
    pub sealing: SealingKey,
    /// In this process; told here.
    pub month_keys: MonthKeys,
}

const MONTH_KEYS: &str = "month-keys";

impl Kept {
    /// Brings back what was last heard; at boot, as [`load_last`] does with authority.
    pub async fn load_month_keys(&self) -> anyhow::Result<()> {
        let row = self.pool.get().await?.query_one("SELECT month_keys FROM feed_state", &[]).await?;
        let Some(sealed) = row.try_get::<_, Option<&[u8]>>(0)? else { return Ok(()) };
        let opened = self.sealing.open(MONTH_KEYS, sealed)?;
        self.month_keys.set(&feed::MonthKeys::decode(opened.as_slice())?)
    }

    async fn keep_month_keys(
        &self,
        transaction: &Transaction<'_>,
        keys: &feed::MonthKeys,
    ) -> anyhow::Result<()> {
        let sealed = self.sealing.seal(MONTH_KEYS, &keys.encode_to_vec());
        transaction.execute("UPDATE feed_state SET month_keys = $1", &[&sealed]).await?;
        Ok(())
    }
}

/// Brings what was last heard into `authority`; at boot, before the feed is reached.
pub async fn load_last(pool: &Pool, authority: &Authority) -> anyhow::Result<()> {
    let client = pool.get().await?;
    let state = client.query_one("SELECT position, policy, jwks, heard_at FROM feed_state", &[]).await?;
    METRICS.position.set(state.try_get("position")?);
    if let Some(heard_at) = state.try_get::<_, Option<Timestamp>>("heard_at")? {
        METRICS.heard(heard_at);
    }
    if let Some(Json(policy)) = state.try_get::<_, Option<Json<KeptPolicy>>>("policy")? {
        authority.set_policy(Policy::new(policy.version, &policy.rules, &policy.roles).await?);
    }
    if let Some(Json(keys)) = state.try_get::<_, Option<Json<JwkSet>>>("jwks")? {
        authority.set_keys(&keys);
    }
    let now = Timestamp::now().as_second();
    let query = "SELECT kind, subject, min_version, expires_at FROM feed_revocations WHERE expires_at > $1";
    for row in client.query(query, &[&now]).await? {
        let (subject, expires_at): (Uuid, i64) = (row.try_get("subject")?, row.try_get("expires_at")?);
        match row.try_get("kind")? {
            "session" => authority.revoke_session(SessionId(subject), expires_at),
            _ => authority.revoke_user_below(UserId(subject), row.try_get("min_version")?, expires_at),
        }
    }
    Ok(())
}

/// Follows until `stop`. `health` is up as soon as tokens can be checked and rights decided, be it from what
/// an earlier process heard, and stays up: old news is better than none, and its age is a metric.
pub fn spawn(
    kept: Kept,
    authority: Arc<Authority>,
    channel: Channel,
    region: &RegionName,
    health: Dependency,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let (kept_position, kept_at_secs) = (AtomicI64::new(0), AtomicI64::new(0));
    let follower = RegionFollower { kept, authority, health, kept_position, kept_at_secs };
    follower.report_ready();
    tokio::spawn(follow(channel, format!("regional {region}"), WANTED, follower, stop))
}

struct RegionFollower {
    kept: Kept,
    authority: Arc<Authority>,
    health: Dependency,
    /// What is in Postgres: the position, and when `heard_at` was written (unix seconds).
    kept_position: AtomicI64,
    kept_at_secs: AtomicI64,
}

#[tonic::async_trait]
impl Follower for RegionFollower {
    async fn position(&self) -> anyhow::Result<i64> {
        let client = self.kept.pool.get().await?;
        let position = client.query_one("SELECT position FROM feed_state", &[]).await?.try_get(0)?;
        self.kept_position.store(position, Ordering::Relaxed);
        METRICS.position.set(position);
        Ok(position)
    }

    async fn apply(&self, updates: Vec<Update>) -> anyhow::Result<()> {
        let now = Timestamp::now();
        let mut worth_writing = Vec::with_capacity(updates.len());
        for update in updates {
            // What cannot be read is passed over: held fast on it, the stream would bring no revocation any more.
            let sound = match self.apply_here(&update).await {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!(position = update.position, error = %format!("{error:#}"), "an update is not usable");
                    METRICS.refused.inc();
                    false
                }
            };
            if self.is_worth_writing(&update, now) {
                worth_writing.push((update, sound));
            }
        }
        if let Some(position) = worth_writing.iter().map(|(update, _)| update.position).max() {
            self.keep(worth_writing, position, now).await?;
            let before = self.kept_position.fetch_max(position, Ordering::Relaxed);
            self.kept_at_secs.store(now.as_second(), Ordering::Relaxed);
            METRICS.position.set(before.max(position));
        }
        METRICS.heard(now);
        self.report_ready();
        Ok(())
    }

    fn connection(&self, fault: Option<String>) {
        METRICS.connected.set(i64::from(fault.is_none()));
    }
}

impl RegionFollower {
    fn report_ready(&self) {
        if self.authority.ready() {
            self.health.up();
        }
    }

    async fn apply_here(&self, update: &Update) -> anyhow::Result<()> {
        if let Some(Kind::MonthKeys(keys)) = &update.update {
            self.kept.month_keys.set(keys)?;
        }
        apply_to_authority(&self.authority, update).await
    }

    fn is_worth_writing(&self, update: &Update, now: Timestamp) -> bool {
        let heartbeat = matches!(update.update, Some(Kind::Heartbeat(_)) | None);
        let due = self.kept_at_secs.load(Ordering::Relaxed) + HEARTBEAT_WRITE_SECS <= now.as_second();
        !heartbeat || due || update.position > self.kept_position.load(Ordering::Relaxed)
    }

    /// Commits updates with the position they reach. With each: whether it was usable.
    async fn keep(&self, updates: Vec<(Update, bool)>, position: i64, now: Timestamp) -> anyhow::Result<()> {
        let mut client = self.kept.pool.get().await?;
        let transaction = client.transaction().await?;
        for (update, sound) in updates {
            match update.update {
                Some(Kind::Policy(policy)) if sound => keep_policy(&transaction, &policy).await?,
                Some(Kind::Keys(keys)) if sound => keep_keys(&transaction, &keys).await?,
                Some(Kind::MonthKeys(keys)) if sound => {
                    self.kept.keep_month_keys(&transaction, &keys).await?;
                }
                Some(Kind::Revocation(revocation)) if sound => {
                    keep_revocation(&transaction, &revocation, now).await?;
                }
                Some(Kind::Movie(movie)) => keep_movie(&transaction, movie).await?,
                _ => {}
            }
        }
        let advance = transaction
            .prepare_cached("UPDATE feed_state SET position = greatest(position, $1), heard_at = $2")
            .await?;
        transaction.execute(&advance, &[&position, &now]).await?;
        transaction.commit().await?;
        Ok(())
    }
}

async fn keep_policy(transaction: &Transaction<'_>, policy: &feed::Policy) -> anyhow::Result<()> {
    let newer = "UPDATE feed_state SET policy = $1
                 WHERE policy IS NULL OR (policy->>'version')::bigint <= $2";
    transaction.execute(newer, &[&Json(KeptPolicy::from(policy)), &policy.version]).await?;
    Ok(())
}

async fn keep_keys(transaction: &Transaction<'_>, keys: &feed::Keys) -> anyhow::Result<()> {
    let keys: JwkSet = serde_json::from_str(&keys.jwks)?;
    transaction.execute("UPDATE feed_state SET jwks = $1", &[&Json(keys)]).await?;
    Ok(())
}

async fn keep_revocation(
    transaction: &Transaction<'_>,
    revocation: &feed::Revocation,
    now: Timestamp,
) -> anyhow::Result<()> {
    let (kind, subject, min_version) = match &revocation.who {
        Some(Who::SessionId(id)) => ("session", id.parse::<SessionId>()?.0, 0),
        Some(Who::User(user)) => ("user", user.user_id.parse::<UserId>()?.0, user.min_version),
        None => return Ok(()),
    };
    let upsert =
        "INSERT INTO feed_revocations (kind, subject, min_version, expires_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (kind, subject) DO UPDATE SET
             min_version = greatest(feed_revocations.min_version, excluded.min_version),
             expires_at = greatest(feed_revocations.expires_at, excluded.expires_at)";
    transaction.execute(upsert, &[&kind, &subject, &min_version, &revocation.expires_at]).await?;
    transaction.execute("DELETE FROM feed_revocations WHERE expires_at <= $1", &[&now.as_second()]).await?;
    Ok(())
}

async fn keep_movie(transaction: &Transaction<'_>, message: feed::Movie) -> anyhow::Result<()> {
    let deleted = message.deleted;
    let movie = match Movie::try_from(message) {
        Ok(movie) => movie,
        Err(error) => {
            tracing::error!(%error, "a film of the feed has no usable id");
            METRICS.refused.inc();
            return Ok(());
        }
    };
    crate::movies::store::put(transaction, &movie, deleted).await?;
    Ok(())
}

/// How long ago `global` was last heard; none if never.
pub fn age() -> Option<Duration> {
    METRICS.age()
}

#[cfg(test)]
mod tests;
