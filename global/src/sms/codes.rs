//! The codes that prove a phone number: six digits, good for ten minutes, for a few tries, for the number they were
//! sent to. Stored as a digest under the master key.
//!
//! As a mail's token, a code is derived from its message's id, not drawn: a message that has to be sent again carries the
//! same one, although no database ever held it. Its ten minutes begin when it is handed over.

use common::UserId;
use common::seal::SealingKey;
use deadpool_postgres::GenericClient;
use uuid::Uuid;

use crate::db;
use crate::fault::Result;

const LIFETIME_SECS: f64 = 600.0;
/// Of a code. A guess at a million codes succeeds once in two hundred thousand codes then.
const MOST_TRIES: i32 = 5;

/// What asking for codes, and trying them, is slowed down under.
pub fn account(user: UserId) -> String {
    format!("phone of {user}")
}

pub fn text(code: &str) -> String {
    format!("Marquee: {code} is the code for your phone number. It is good for ten minutes.")
}

/// All are alike but for a bias of one in billions.
fn derive(key: &SealingKey, message: Uuid) -> String {
    let secret = key.derive("phone-code", message.as_bytes());
    let number = secret[..8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{:06}", number % 1_000_000)
}

fn digest(key: &SealingKey, user: UserId, phone: &str, code: &str) -> Vec<u8> {
    key.derive("phone-code, given", format!("{user} {phone} {code}").as_bytes()).to_vec()
}

/// The message's code, good from now on, in place of any other; a repeat has had its tries. None: another one was
/// sent to the number within the last minute.
pub async fn make_good(
    db: &impl GenericClient,
    key: &SealingKey,
    message: Uuid,
    user: UserId,
    phone: &str,
) -> Result<Option<String>> {
    let code = derive(key, message);
    let sql = "INSERT INTO phone_codes AS c (user_id, phone, digest, expires_at)
               VALUES ($1, $2, $3, now() + make_interval(secs => $4))
               ON CONFLICT (user_id) DO UPDATE
                  SET tries = CASE WHEN c.digest = excluded.digest THEN c.tries ELSE 0 END,
                      created_at = CASE WHEN c.digest = excluded.digest THEN c.created_at ELSE now() END,
                      phone = excluded.phone, digest = excluded.digest, expires_at = excluded.expires_at
                WHERE c.digest = excluded.digest OR c.phone <> excluded.phone
                   OR c.created_at <= now() - interval '1 minute'";
    let digest = digest(key, user, phone, &code);
    let made = db::run(db, sql, &[&user.0, &phone, &digest, &LIFETIME_SECS]).await?;
    Ok((made > 0).then_some(code))
}

/// Uses up a try; the number that the code proves, if it is right. The transaction that goes on from there
/// must [`spend`] it.
pub async fn try_out(
    db: &impl GenericClient,
    key: &SealingKey,
    user: UserId,
    code: &str,
) -> Result<Option<String>> {
    // Counted by the same statement, so that ten tries at once are ten.
    let sql = "UPDATE phone_codes SET tries = tries + 1
               WHERE user_id = $1 AND tries < $2 AND expires_at > now() RETURNING phone, digest";
    let Some(row) = db::row(db, sql, &[&user.0, &MOST_TRIES]).await? else { return Ok(None) };
    let phone: String = row.get(0);
    Ok((row.get::<_, &[u8]>(1) == digest(key, user, &phone, code)).then_some(phone))
}

/// False: somebody else has just used it.
pub async fn spend(db: &impl GenericClient, user: UserId, phone: &str) -> Result<bool> {
    let sql = "DELETE FROM phone_codes WHERE user_id = $1 AND phone = $2";
    Ok(db::run(db, sql, &[&user.0, &phone]).await? > 0)
}

pub async fn forget(db: &impl GenericClient, user: UserId) -> Result<()> {
    db::run(db, "DELETE FROM phone_codes WHERE user_id = $1", &[&user.0]).await?;
    Ok(())
}

pub async fn purge(db: &impl GenericClient) -> Result<u64> {
    // Not at once: a message may be sent again.
    db::run(db, "DELETE FROM phone_codes WHERE expires_at < now() - interval '1 day'", &[]).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_six_digits_that_only_the_key_tells() {
        let (key, other) = (SealingKey::generate(), SealingKey::generate());
        let codes: HashSet<String> = (0..500).map(|_| derive(&key, Uuid::now_v7())).collect();
        assert!(codes.len() > 400, "hardly two alike: {}", codes.len());
        assert!(codes.iter().all(|code| code.len() == 6 && code.bytes().all(|b| b.is_ascii_digit())));
        let message = Uuid::now_v7();
        assert_eq!(derive(&key, message), derive(&key, message));
        assert!((0..9).any(|_| derive(&key, message) != derive(&other, message)));
        let (ann, bob) = (UserId::new(), UserId::new());
        let of = |user, phone: &str, code: &str| digest(&key, user, phone, code);
        let known = of(ann, "+4930123456", "123456");
        for different in [
            of(bob, "+4930123456", "123456"),
            of(ann, "+4930123457", "123456"),
            of(ann, "+4930123456", "123457"),
            digest(&other, ann, "+4930123456", "123456"),
        ] {
            assert_ne!(known, different);
        }
    }
}
