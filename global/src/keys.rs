//! The keys that sign access tokens: sealed in Postgres, replaced when they grow old, published ahead of
//! their first use so that every service knows a key before it meets a token of it.

use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::State;
use common::authz::jwt::{Jwk, JwkSet, SigningKey};
use common::http::Json;
use common::seal::SealingKey;
use deadpool_postgres::{GenericClient, Pool};
use jiff::Timestamp;

use crate::app::App;
use crate::fault::{Fault, Result};
use crate::feed::store::{self, Whole};
use crate::{audit, db};

/// So long a new key is only published; by then every follower has it.
const PUBLISHED_FIRST: Duration = Duration::from_secs(60);
/// The current one and the one before are always published.
const PUBLISHED: i64 = 2;
const CLOCKS_DIFFER_SECS: f64 = 60.0;
const SEAL_CONTEXT: &str = "access-token-key";

struct Stored {
    key: SigningKey,
    created_at: Timestamp,
}

/// The private keys as this process has them, newest first.
pub struct KeyRing {
    sealing: SealingKey,
    keys: ArcSwap<Vec<Stored>>,
}

impl KeyRing {
    pub fn new(sealing: SealingKey) -> Self {
        Self { sealing, keys: ArcSwap::default() }
    }

    /// Makes a key if there is none or the newest is older than `max_age_days`, and forgets keys of which
    /// no token can be about; answers the feed's position if it changed anything.
    pub async fn ensure(&self, pool: &Pool, max_age_days: u32, token_secs: u32) -> Result<Option<i64>> {
        let mut client = pool.get().await?;
        let tx = client.transaction().await?;
        store::lock(&tx).await?;
        let sql = "SELECT 1 FROM signing_keys WHERE created_at > now() - make_interval(days => $1) LIMIT 1";
        let days = i32::try_from(max_age_days).unwrap_or(i32::MAX);
        let made = match db::row(&tx, sql, &[&days]).await? {
            Some(_) => None,
            None => Some(self.make(&tx).await?),
        };
        // A key signs until its successor has been published long enough; then its tokens run out. The one
        // before the newest stays, so that the published set always tells both.
        let sql = "DELETE FROM signing_keys k
                   WHERE kid NOT IN (SELECT kid FROM signing_keys ORDER BY created_at DESC LIMIT $1)
                     AND EXISTS (SELECT 1 FROM signing_keys n WHERE n.created_at > k.created_at
                                 AND n.created_at < now() - make_interval(secs => $2))";
        let over = f64::from(token_secs) + PUBLISHED_FIRST.as_secs_f64() + CLOCKS_DIFFER_SECS;
        let forgotten = db::run(&tx, sql, &[&PUBLISHED, &over]).await?;
        if made.is_none() && forgotten == 0 {
            return Ok(None);
        }
        let (_, position) = store::changed(&tx, Whole::Keys).await?;
        tx.commit().await?;
        if let Some(kid) = made {
            tracing::info!(kid, "a new signing key");
        }
        Ok(Some(position))
    }

    /// Makes a new key now; answers its id. It signs once all know it, and the present one stays good until
    /// its last token has run out; with `drop_others` it signs at once and no other token is good any more.
    pub async fn rotate(&self, pool: &Pool, drop_others: bool) -> Result<String> {
        let mut client = pool.get().await?;
        let tx = client.transaction().await?;
        store::lock(&tx).await?;
        let kid = self.make(&tx).await?;
        if drop_others {
            db::run(&tx, "DELETE FROM signing_keys WHERE kid <> $1", &[&kid]).await?;
        }
        store::changed(&tx, Whole::Keys).await?;
        let entry = audit::Entry {
            actor: None,
            action: "keys.rotate",
            target: kid.clone(),
            before: None,
            after: Some(serde_json::json!({ "others_dropped": drop_others })),
            address: "",
        };
        audit::write(&tx, entry).await?;
        tx.commit().await?;
        Ok(kid)
    }

    async fn make(&self, tx: &impl GenericClient) -> Result<String> {
        let key = SigningKey::generate();
        let sealed = self.sealing.seal(SEAL_CONTEXT, key.pkcs8());
        // Not the transaction's beginning: two keys of one moment would have no order.
        let sql = "INSERT INTO signing_keys (kid, public_key, sealed, created_at)
                   VALUES ($1, $2, $3, clock_timestamp())";
        db::run(tx, sql, &[&key.kid(), &key.public().as_slice(), &sealed]).await?;
        Ok(key.kid().to_owned())
    }

    /// Reads the keys again. Fails when the master key does not open them.
    pub async fn reload(&self, pool: &Pool) -> anyhow::Result<()> {
        let client = pool.get().await?;
        let sql = "SELECT sealed, created_at FROM signing_keys ORDER BY created_at DESC";
        let rows = db::rows(&client, sql, &[])
            .await
            .map_err(|fault: Fault| anyhow::anyhow!(fault.into_problem().detail))?;
        let open = |row: &tokio_postgres::Row| -> anyhow::Result<Stored> {
            let pkcs8 = self.sealing.open(SEAL_CONTEXT, row.get("sealed"))?;
            Ok(Stored { key: SigningKey::from_pkcs8(&pkcs8)?, created_at: row.get("created_at") })
        };
        self.keys.store(std::sync::Arc::new(rows.iter().map(open).collect::<anyhow::Result<_>>()?));
        Ok(())
    }

    /// Signs with the newest key that has been published long enough, or with the oldest there is. None:
    /// there is no key yet.
    pub fn sign(&self, typ: &str, claims: &impl serde::Serialize) -> Option<String> {
        let keys = self.keys.load();
        let now = Timestamp::now();
        let known =
            |s: &&Stored| Duration::try_from(now - s.created_at).is_ok_and(|age| age >= PUBLISHED_FIRST);
        let stored = keys.iter().find(known).or_else(|| keys.last())?;
        Some(stored.key.sign(typ, claims))
    }
}

/// The public keys, newest first: the coming one for a minute, the current, and those whose tokens may still
/// be about.
pub async fn published(db: &impl GenericClient) -> Result<JwkSet> {
    let sql = "SELECT public_key FROM signing_keys ORDER BY created_at DESC";
    let rows = db::rows(db, sql, &[]).await?;
    let keys = rows.iter().filter_map(|r| r.get::<_, &[u8]>(0).try_into().ok());
    Ok(JwkSet { keys: keys.map(Jwk::ed25519).collect() })
}

/// The public keys that verify access tokens.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", operation_id = "get_jwks",
    responses((status = 200, description = "Current and previous signing keys (RFC 7517)", body = JwkSet)))]
pub async fn jwks(State(app): State<App>) -> Result<Json<JwkSet>> {
    let db = app.db().await?;
    Ok(Json(published(&db).await?))
}
