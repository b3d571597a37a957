//! The tokens that mails carry: good once, for a while, for the address they were sent to. Stored hashed.
//!
//! A token is derived from its mail's id under the master key, not drawn: a mail that has to be sent again
//! carries the same one, although no database ever held it.

use common::UserId;
use common::seal::SealingKey;
use data_encoding::BASE64URL_NOPAD;
use deadpool_postgres::GenericClient;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::db;
use crate::fault::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Verify,
    Reset,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Reset => "reset",
        }
    }

    pub fn lifetime_secs(self) -> i32 {
        match self {
            Self::Verify => 24 * 3600,
            Self::Reset => 30 * 60,
        }
    }
}

pub fn derive(key: &SealingKey, purpose: Purpose, mail: Uuid) -> String {
    let secret = key.derive(&format!("mail-token/{}", purpose.as_str()), mail.as_bytes());
    format!("mt_{}", BASE64URL_NOPAD.encode(&secret))
}

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// Makes the token good from now on; a used one stays used.
pub async fn put(
    db: &impl GenericClient,
    token: &str,
    purpose: Purpose,
    user: UserId,
    address: &str,
) -> Result<()> {
    let sql = "INSERT INTO mail_tokens (hash, user_id, purpose, address, expires_at)
               VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))
               ON CONFLICT (hash) DO UPDATE SET expires_at = excluded.expires_at";
    let secs = f64::from(purpose.lifetime_secs());
    db::run(db, sql, &[&hash(token), &user.0, &purpose.as_str(), &address, &secs]).await?;
    Ok(())
}

/// Whether another good one went to the same address within the last minute.
pub async fn sent_just_now(
    db: &impl GenericClient,
    token: &str,
    purpose: Purpose,
    user: UserId,
    address: &str,
) -> Result<bool> {
    let sql = "SELECT 1 FROM mail_tokens WHERE user_id = $1 AND purpose = $2 AND hash <> $3 AND address = $4
               AND used_at IS NULL AND created_at > now() - interval '1 minute' LIMIT 1";
    Ok(db::row(db, sql, &[&user.0, &purpose.as_str(), &hash(token), &address]).await?.is_some())
}

/// Whose it is, while it is good and the account still has the address.
pub async fn owner(db: &impl GenericClient, token: &str, purpose: Purpose) -> Result<Option<UserId>> {
    let sql = "SELECT t.user_id FROM mail_tokens t JOIN users u ON u.id = t.user_id
               WHERE t.hash = $1 AND t.purpose = $2 AND t.used_at IS NULL AND t.expires_at > now()
                 AND u.deleted_at IS NULL AND lower(u.email) = lower(t.address)";
    Ok(db::row(db, sql, &[&hash(token), &purpose.as_str()]).await?.map(|row| UserId(row.get(0))))
}

/// Uses it, and all others of its owner and purpose with it. None: it is not good; of two who try at once
/// one wins.
pub async fn spend(db: &impl GenericClient, token: &str, purpose: Purpose) -> Result<Option<UserId>> {
    let Some(user) = owner(db, token, purpose).await? else { return Ok(None) };
    let sql = "UPDATE mail_tokens SET used_at = now() WHERE hash = $1 AND used_at IS NULL";
    if db::run(db, sql, &[&hash(token)]).await? == 0 {
        return Ok(None);
    }
    let sql =
        "UPDATE mail_tokens SET used_at = now() WHERE user_id = $1 AND purpose = $2 AND used_at IS NULL";
    db::run(db, sql, &[&user.0, &purpose.as_str()]).await?;
    Ok(Some(user))
}

/// Forgets tokens that have been over for a day: their mails are not sent again any more.
pub async fn purge(db: &impl GenericClient) -> Result<u64> {
    db::run(db, "DELETE FROM mail_tokens WHERE expires_at < now() - interval '5 days'", &[]).await
}
