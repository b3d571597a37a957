//! Sessions in Postgres, and the calls by which a user sees and ends them.
//!
//! A session has one good refresh token at a time, stored hashed. Exchanging it is one conditional
//! statement, so of two who try at once one wins and the other is a reuse.

use axum::extract::State;
use common::authz::Authorized;
use common::http::{Json, Page, Paging, Path, Query};
use common::{Problem, SessionId, UserId};
use deadpool_postgres::GenericClient;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::audit::{self, parse_cursor};
use crate::client::Client;
use crate::db;
use crate::fault::Result;
use crate::feed::store;

/// A refresh token as the client has it.
pub struct RefreshToken(pub String);

impl RefreshToken {
    pub fn generate() -> Self {
        let secret: [u8; 32] = rand::random();
        Self(format!("mrt_{}", data_encoding::BASE64URL_NOPAD.encode(&secret)))
    }

    /// 256 bits of chance need no salt and no slow hash.
    pub fn hash(&self) -> Vec<u8> {
        Sha256::digest(self.0.as_bytes()).to_vec()
    }
}

pub async fn insert(
    db: &impl GenericClient,
    id: SessionId,
    user: UserId,
    refresh: &RefreshToken,
    client: &Client,
    expires_at: Timestamp,
) -> Result<()> {
    let sql = "INSERT INTO sessions (id, user_id, refresh_hash, device, address, expires_at)
               VALUES ($1, $2, $3, $4, $5, $6)";
    let params: &db::Params<'_> =
        &[&id.0, &user.0, &refresh.hash(), &client.device, &client.address, &expires_at];
    db::run(db, sql, params).await?;
    Ok(())
}

/// Exchanges the good refresh token for the next one. None: it is not the good one of a living session.
pub async fn rotate(
    db: &impl GenericClient,
    old: &RefreshToken,
    new: &RefreshToken,
    client: &Client,
    expires_at: Timestamp,
) -> Result<Option<(SessionId, UserId)>> {
    let sql = "UPDATE sessions SET refresh_hash = $2, device = $3, address = $4, expires_at = $5,
                                   last_seen_at = now()
               WHERE refresh_hash = $1 AND ended_at IS NULL AND expires_at > now() RETURNING id, user_id";
    let params: &db::Params<'_> = &[&old.hash(), &new.hash(), &client.device, &client.address, &expires_at];
    let Some(row) = db::row(db, sql, params).await? else { return Ok(None) };
    let session = SessionId(row.get(0));
    let sql = "INSERT INTO spent_refresh_tokens (hash, session_id) VALUES ($1, $2)";
    db::run(db, sql, &[&old.hash(), &session.0]).await?;
    Ok(Some((session, UserId(row.get(1)))))
}

/// The living session whose refresh token this once was.
pub async fn of_spent(db: &impl GenericClient, old: &RefreshToken) -> Result<Option<(SessionId, UserId)>> {
    let sql = "SELECT s.id, s.user_id FROM spent_refresh_tokens t JOIN sessions s ON s.id = t.session_id
               WHERE t.hash = $1 AND s.ended_at IS NULL";
    let row = db::row(db, sql, &[&old.hash()]).await?;
    Ok(row.map(|row| (SessionId(row.get(0)), UserId(row.get(1)))))
}

/// Ends one session of the user's, if it lives.
pub async fn end(db: &impl GenericClient, user: UserId, session: SessionId) -> Result<bool> {
    let sql = "UPDATE sessions SET ended_at = now() WHERE id = $1 AND user_id = $2 AND ended_at IS NULL";
    Ok(db::run(db, sql, &[&session.0, &user.0]).await? > 0)
}

/// Ends all sessions of the user's but one; answers which.
pub async fn end_all(
    db: &impl GenericClient,
    user: UserId,
    but: Option<SessionId>,
) -> Result<Vec<SessionId>> {
    let sql = "UPDATE sessions SET ended_at = now()
               WHERE user_id = $1 AND ended_at IS NULL AND ($2::uuid IS NULL OR id <> $2) RETURNING id";
    let rows = db::rows(db, sql, &[&user.0, &but.map(|s| s.0)]).await?;
    Ok(rows.iter().map(|row| SessionId(row.get(0))).collect())
}

/// Forgets sessions that are over, with their spent tokens: a week after, when nobody asks any more.
pub async fn purge(db: &impl GenericClient) -> Result<u64> {
    let sql = "DELETE FROM sessions WHERE expires_at < now() - interval '7 days'
               OR ended_at < now() - interval '7 days'";
    db::run(db, sql, &[]).await
}

impl App {
    /// By then every access token that is good now has expired.
    pub fn tokens_expired_at(&self) -> Timestamp {
        // The margin covers a clock of a server that is behind.
        Timestamp::now() + SignedDuration::from_secs(i64::from(self.config.access_token_secs) + 60)
    }
}

/// One sign-in of one device.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Session {
    pub id: SessionId,
    /// As the device calls itself.
    pub device: String,
    pub address: String,
    pub created_at: Timestamp,
    /// When its tokens were last renewed.
    pub last_seen_at: Timestamp,
    pub expires_at: Timestamp,
    /// Whether it is the one that asks.
    pub current: bool,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SessionsQuery {
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// The caller's own sessions, newest first.
#[utoipa::path(get, path = "/v1/auth/sessions", tag = "auth", operation_id = "list_sessions",
    params(SessionsQuery),
    responses((status = 200, description = "The caller's living sessions", body = Page<Session>)))]
pub async fn list(
    State(app): State<App>,
    authorized: Authorized,
    Query(query): Query<SessionsQuery>,
) -> Result<Json<Page<Session>>> {
    let claims = &authorized.actor()?.claims;
    let paging = Paging { limit: query.limit, cursor: query.cursor };
    let limit = paging.limit()?;
    let before = parse_cursor::<SessionId>(&paging)?.map(|s| s.0);
    let sql = "SELECT id, device, address, created_at, last_seen_at, expires_at FROM sessions
               WHERE user_id = $1 AND ended_at IS NULL AND expires_at > now()
                 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3";
    let db = app.db().await?;
    let rows = db::rows(&db, sql, &[&claims.sub.0, &before, &(limit + 1)]).await?;
    let sessions = rows
        .iter()
        .map(|row| {
            let id = SessionId(row.get("id"));
            Session {
                id,
                device: row.get("device"),
                address: row.get("address"),
                created_at: row.get("created_at"),
                last_seen_at: row.get("last_seen_at"),
                expires_at: row.get("expires_at"),
                current: id == claims.sid,
            }
        })
        .collect();
    Ok(Json(Page::of(sessions, limit, |s| s.id.to_string())))
}

/// Ends the session that asks.
#[utoipa::path(post, path = "/v1/auth/logout", tag = "auth", operation_id = "logout",
    responses((status = 204, description = "The session has ended; its tokens are void")))]
pub async fn logout(State(app): State<App>, authorized: Authorized, client: Client) -> Result<StatusCode> {
    let claims = &authorized.actor()?.claims;
    // A session that has ended meanwhile is what was asked for.
    end_and_publish(&app, claims.sub, claims.sid, "session.end", Some(claims.sub), &client).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends one of the caller's own sessions.
#[utoipa::path(delete, path = "/v1/auth/sessions/{id}", tag = "auth", operation_id = "end_session",
    params(("id" = SessionId, Path, description = "The session")),
    responses((status = 204, description = "The session has ended; its tokens are void")))]
pub async fn delete(
    State(app): State<App>,
    authorized: Authorized,
    client: Client,
    Path(id): Path<SessionId>,
) -> Result<StatusCode> {
    let user = authorized.actor()?.user();
    if end_and_publish(&app, user, id, "session.end", Some(user), &client).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("session").into())
    }
}

/// Ends all the caller's own sessions, the one that asks included.
#[utoipa::path(delete, path = "/v1/auth/sessions", tag = "auth", operation_id = "end_all_sessions",
    responses((status = 204, description = "All sessions have ended; their tokens are void")))]
pub async fn delete_all(
    State(app): State<App>,
    authorized: Authorized,
    client: Client,
) -> Result<StatusCode> {
    let user = authorized.actor()?.user();
    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    store::lock(&tx).await?;
    let ended = end_all(&tx, user, None).await?;
    let position = store::revoke_sessions(&tx, &ended, app.tokens_expired_at()).await?;
    let entry = audit::Entry {
        actor: Some(user),
        action: "session.end_all",
        target: user.to_string(),
        before: Some(serde_json::json!({ "sessions": ended })),
        after: None,
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    tx.commit().await?;
    drop(db);
    app.feed.published(position).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a session, voids its tokens everywhere and writes it down. False: there was none to end.
pub async fn end_and_publish(
    app: &App,
    user: UserId,
    session: SessionId,
    action: &'static str,
    actor: Option<UserId>,
    client: &Client,
) -> Result<bool> {
    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    store::lock(&tx).await?;
    if !end(&tx, user, session).await? {
        return Ok(false);
    }
    let position = store::revoke_sessions(&tx, &[session], app.tokens_expired_at()).await?;
    let (target, address) = (session.to_string(), client.address.as_str());
    audit::write(&tx, audit::Entry { actor, action, target, before: None, after: None, address }).await?;
    tx.commit().await?;
    drop(db);
    app.feed.published(position).await;
    Ok(true)
}
