//! Proving that an email address is its owner's: `POST /v1/auth/email/verify`, and the mail once more.

use axum::extract::State;
use common::Problem;
use common::authz::Authorized;
use common::http::Json;
use common::problem::ProblemDetails;
use http::StatusCode;
use serde::Deserialize;

use super::{store, token};
use crate::app::App;
use crate::audit;
use crate::client::Client;
use crate::fault::Result;
use crate::mail::outbox::{self, Kind};
use crate::mail::tokens::{self, Purpose};

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyEmail {
    /// From the mail.
    pub token: String,
}

/// 422 for a token that no mail brought, that was used, or that is too old: which of these, nobody is told.
pub fn bad_token() -> Problem {
    let detail = "the token is not good (any more); ask for another mail";
    Problem::unprocessable("invalid-mail-token", detail).field("token", "is not good (any more)")
}

/// Confirm an email address with the token that was mailed to it.
#[utoipa::path(post, path = "/v1/auth/email/verify", tag = "auth", operation_id = "verify_email",
    request_body = VerifyEmail,
    responses(
        (status = 204, description = "The address is confirmed"),
        (status = 422, description = "`invalid-mail-token`: wrong, used, or older than a day",
            body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn verify(
    State(app): State<App>,
    client: Client,
    Json(body): Json<VerifyEmail>,
) -> Result<StatusCode> {
    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    let user = tokens::spend(&tx, &body.token, Purpose::Verify).await?.ok_or_else(bad_token)?;
    store::set_verified(&tx, user).await?;
    let entry = audit::Entry {
        actor: Some(user),
        action: "user.verify_email",
        target: user.to_string(),
        before: None,
        after: None,
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Mail the verification link to the caller's address once more, unless one went there within the last minute
/// or the address is confirmed.
#[utoipa::path(post, path = "/v1/auth/email/resend", tag = "auth", operation_id = "resend_verification",
    responses(
        (status = 202, description = "It will be mailed"),
        (status = 429, description = "`too-many-attempts`", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn resend(State(app): State<App>, authorized: Authorized, client: Client) -> Result<StatusCode> {
    let user = authorized.actor()?.user();
    let db = app.db().await?;
    token::slow_down(&app, &db, &format!("resend {user}"), &client).await?;
    let account = store::find(&db, user).await?.filter(|a| !a.deleted);
    let account = account.ok_or_else(|| Problem::unauthorized("this account is no more"))?.user;
    if let Some(address) = account.email.filter(|_| !account.email_verified) {
        outbox::put(&db, Kind::Verify, Some(user), &address).await?;
        app.mail.now();
    }
    Ok(StatusCode::ACCEPTED)
}
