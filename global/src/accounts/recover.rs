//! A forgotten password: `POST /v1/auth/password/forgot` and `…/reset`.
//!
//! Invariant: "forgot" does the same for every address, one row in the outbox. Whether there is an account is
//! looked up by the sender of mail, when the caller has long had its answer.

use axum::extract::State;
use common::http::{Json, all_fields};
use common::problem::ProblemDetails;
use http::StatusCode;
use serde::Deserialize;

use super::email::bad_token;
use super::{rules, sessions, store, token};
use crate::app::App;
use crate::audit;
use crate::client::Client;
use crate::fault::Result;
use crate::feed;
use crate::mail::outbox::{self, Kind};
use crate::mail::tokens::{self, Purpose};

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgotPassword {
    #[schema(example = "ann@example.org", max_length = 254)]
    pub email: String,
}

/// Mail a token for a new password, if there is an account with this address.
#[utoipa::path(post, path = "/v1/auth/password/forgot", tag = "auth", operation_id = "forgot_password",
    request_body = ForgotPassword,
    responses(
        (status = 202, description = "Whether or not there is such an account"),
        (status = 429, description = "`too-many-attempts`: too often for this address from there",
            body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn forgot(
    State(app): State<App>,
    client: Client,
    Json(body): Json<ForgotPassword>,
) -> Result<StatusCode> {
    let email = body.email.trim();
    all_fields(rules::email(email).into_iter().collect())?;
    let db = app.db().await?;
    token::slow_down(&app, &db, &format!("forgot {email}"), &client).await?;
    outbox::put(&db, Kind::Reset, None, email).await?;
    app.mail.now();
    Ok(StatusCode::ACCEPTED)
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResetPassword {
    /// From the mail.
    pub token: String,
    #[schema(min_length = 10, max_length = 256)]
    pub password: String,
}

/// Set a new password with the token from the mail; all sessions of the account end.
///
/// The token is good once and for 30 minutes; a password that is refused does not use it up.
#[utoipa::path(post, path = "/v1/auth/password/reset", tag = "auth", operation_id = "reset_password",
    request_body = ResetPassword,
    responses(
        (status = 204, description = "The new password holds; all sessions have ended"),
        (status = 422, description = "`invalid-mail-token`: wrong, used or too old; or a weak password",
            body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn reset(
    State(app): State<App>,
    client: Client,
    Json(body): Json<ResetPassword>,
) -> Result<StatusCode> {
    let db = app.db().await?;
    let user = tokens::owner(&db, &body.token, Purpose::Reset).await?.ok_or_else(bad_token)?;
    let account = store::find(&db, user).await?.ok_or_else(bad_token)?.user;
    drop(db);
    let names = [account.username.as_deref(), account.email.as_deref(), Some(&account.name)];
    let own: Vec<&str> = names.into_iter().flatten().collect();
    all_fields(rules::password("password", &body.password, &own).into_iter().collect())?;
    let hash = app.passwords.hash(body.password).await?;

    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    feed::store::lock(&tx).await?;
    store::find_for_update(&tx, user).await?.filter(|a| !a.deleted).ok_or_else(bad_token)?;
    tokens::spend(&tx, &body.token, Purpose::Reset).await?.ok_or_else(bad_token)?;
    store::set_password(&tx, user, &hash).await?;
    // Who reads the mail that goes there has the address.
    store::set_verified(&tx, user).await?;
    let ended = sessions::end_all(&tx, user, None).await?;
    let position = feed::store::revoke_sessions(&tx, &ended, app.tokens_expired_at()).await?;
    let entry = audit::Entry {
        actor: Some(user),
        action: "user.reset_password",
        target: user.to_string(),
        before: None,
        after: None,
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    if let Some(address) = &account.email {
        outbox::put(&tx, Kind::PasswordChanged, Some(user), address).await?;
    }
    for name in names.into_iter().flatten() {
        app.throttle.forget(&tx, name, &client.address).await?;
    }
    tx.commit().await?;
    drop(db);
    app.mail.now();
    app.feed.published(position).await;
    Ok(StatusCode::NO_CONTENT)
}
