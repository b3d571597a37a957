//! The outbox in Postgres. A row is claimed for a while by the process that sends it; who dies leaves it to
//! the next when the claim ends.

use common::UserId;
use deadpool_postgres::GenericClient;
use jiff::Timestamp;
use uuid::Uuid;

use super::tokens::Purpose;
use crate::db;
use crate::fault::Result;
use crate::notices;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Verify,
    Reset,
    PasswordChanged,
    AddressChanged,
    /// A text message with the code for its number.
    PhoneCode,
    /// Of what happened to an order.
    News(notices::Kind),
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Verify,
        Self::Reset,
        Self::PasswordChanged,
        Self::AddressChanged,
        Self::PhoneCode,
        Self::News(notices::Kind::OrderConfirmed),
        Self::News(notices::Kind::ShowCanceled),
        Self::News(notices::Kind::ShowRescheduled),
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Reset => "reset",
            Self::PasswordChanged => "password_changed",
            Self::AddressChanged => "address_changed",
            Self::PhoneCode => "phone_code",
            Self::News(kind) => kind.as_str(),
        }
    }

    pub fn purpose(self) -> Option<Purpose> {
        match self {
            Self::Verify => Some(Purpose::Verify),
            Self::Reset => Some(Purpose::Reset),
            Self::PasswordChanged | Self::AddressChanged | Self::PhoneCode | Self::News(_) => None,
        }
    }
}

/// Longer than one attempt can take.
pub const CLAIM_SECS: f64 = 60.0;

/// By what it goes; each is sent by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    Mail,
    /// Mail about orders, of which there may be thousands at once.
    Order,
    Sms,
}

impl Channel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Order => "order",
            Self::Sms => "sms",
        }
    }
}

/// A mail or a message that this process is to send.
pub struct Claimed {
    pub id: Uuid,
    /// Of what happened to an order.
    pub text: Option<String>,
    /// None: of a newer release; it is left to that.
    pub kind: Option<Kind>,
    pub user: Option<UserId>,
    pub address: String,
    pub created_at: Timestamp,
    pub attempts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Sent,
    /// There is nobody (any more) to tell.
    Dropped,
    /// The server will never take it.
    Refused,
    /// It was tried long enough.
    GivenUp,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::GivenUp => "given_up",
        }
    }
}

/// To be called in the transaction of what it tells of; nudge the sender once that has committed.
pub async fn put(db: &impl GenericClient, kind: Kind, user: Option<UserId>, address: &str) -> Result<()> {
    let sql = "INSERT INTO mail_outbox (id, kind, user_id, address) VALUES ($1, $2, $3, $4)";
    db::run(db, sql, &[&Uuid::now_v7(), &kind.as_str(), &user.map(|u| u.0), &address]).await?;
    Ok(())
}

pub async fn claim(db: &impl GenericClient, channel: Channel) -> Result<Option<Claimed>> {
    let sql = "UPDATE mail_outbox SET attempts = attempts + 1, due_at = now() + make_interval(secs => $1)
               WHERE id = (SELECT id FROM mail_outbox WHERE done_at IS NULL AND due_at <= now() AND channel = $2
                           ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED)
               RETURNING id, kind, user_id, address, text, created_at, attempts";
    let Some(row) = db::row(db, sql, &[&CLAIM_SECS, &channel.as_str()]).await? else { return Ok(None) };
    let kind: &str = row.get("kind");
    Ok(Some(Claimed {
        id: row.get("id"),
        text: row.get("text"),
        kind: Kind::ALL.into_iter().find(|k| k.as_str() == kind),
        user: row.get::<_, Option<_>>("user_id").map(UserId),
        address: row.get("address"),
        created_at: row.get("created_at"),
        attempts: u32::try_from(row.get::<_, i32>("attempts")).unwrap_or(1),
    }))
}

/// A message with the code for the account's number; as [`put`].
pub async fn put_phone_code(db: &impl GenericClient, user: UserId) -> Result<()> {
    let sql = "INSERT INTO mail_outbox (id, kind, user_id, address, channel) VALUES ($1, $2, $3, '', 'sms')";
    db::run(db, sql, &[&Uuid::now_v7(), &Kind::PhoneCode.as_str(), &user.0]).await?;
    Ok(())
}

/// A mail or a message of a region's notice.
pub struct ToTell<'a> {
    pub id: Uuid,
    pub channel: Channel,
    pub kind: notices::Kind,
    pub user: Option<UserId>,
    /// Empty: the account's, when it is sent.
    pub address: &'a str,
    pub text: String,
}

/// Under ids that are made of the event's: told again, they are there already. Answers how many were not.
pub async fn tell(db: &impl GenericClient, rows: &[ToTell<'_>]) -> Result<u64> {
    let sql = "INSERT INTO mail_outbox (id, channel, kind, user_id, address, text)
               SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[])
               ON CONFLICT (id) DO NOTHING";
    if rows.is_empty() {
        return Ok(0);
    }
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let channels: Vec<_> = rows.iter().map(|row| row.channel.as_str()).collect();
    let kinds: Vec<_> = rows.iter().map(|row| row.kind.as_str()).collect();
    let users: Vec<_> = rows.iter().map(|row| row.user.map(|user| user.0)).collect();
    let addresses: Vec<_> = rows.iter().map(|row| row.address).collect();
    let texts: Vec<_> = rows.iter().map(|row| row.text.as_str()).collect();
    db::run(db, sql, &[&ids, &channels, &kinds, &users, &addresses, &texts]).await
}

/// The claim's end: nobody sends it any more, and its address and text are forgotten.
pub async fn done(db: &impl GenericClient, id: Uuid, outcome: Outcome) -> Result<()> {
    let sql = "UPDATE mail_outbox SET done_at = now(), outcome = $2, address = NULL, text = NULL
               WHERE id = $1 AND done_at IS NULL";
    db::run(db, sql, &[&id, &outcome.as_str()]).await?;
    Ok(())
}

pub async fn again_in(db: &impl GenericClient, id: Uuid, secs: f64) -> Result<()> {
    let sql = "UPDATE mail_outbox SET due_at = now() + make_interval(secs => $2)
               WHERE id = $1 AND done_at IS NULL";
    db::run(db, sql, &[&id, &secs]).await?;
    Ok(())
}

/// How many wait, and for how many seconds the oldest.
pub async fn waiting(db: &impl GenericClient, channels: &[Channel]) -> Result<(i64, f64)> {
    let sql = "SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8
               FROM mail_outbox WHERE done_at IS NULL AND channel = ANY($1)";
    let channels: Vec<_> = channels.iter().map(|channel| channel.as_str()).collect();
    let row = db::one(db, sql, &[&channels]).await?;
    Ok((row.get(0), row.get(1)))
}

/// What an account is to be told no more, and what its mails carried; for its deletion.
pub async fn forget(db: &impl GenericClient, user: UserId, address: Option<&str>) -> Result<()> {
    // A forgotten password is asked for by an address alone.
    let sql =
        "DELETE FROM mail_outbox WHERE user_id = $1 OR (done_at IS NULL AND lower(address) = lower($2))";
    db::run(db, sql, &[&user.0, &address]).await?;
    db::run(db, "DELETE FROM mail_tokens WHERE user_id = $1", &[&user.0]).await?;
    Ok(())
}

pub async fn purge(db: &impl GenericClient) -> Result<u64> {
    db::run(db, "DELETE FROM mail_outbox WHERE done_at < now() - interval '7 days'", &[]).await
}
