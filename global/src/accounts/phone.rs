//! Proving that a phone number is its owner's: `POST /v1/me/phone/verify`, and the message once more.

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
use crate::mail::outbox;
use crate::sms::codes;

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyPhone {
    /// From the message.
    #[schema(example = "123456", pattern = "^[0-9]{6}$")]
    pub code: String,
}

/// 422 for a code that no message brought, that was used or tried too often, or that is too old: which of these, nobody
/// is told.
fn bad_code() -> Problem {
    let detail = "the code is not good (any more); ask for another message";
    Problem::unprocessable("invalid-phone-code", detail).field("code", "is not good (any more)")
}

/// Confirm the caller's phone number with the code that was sent to it.
///
/// A code is good for ten minutes and five tries.
#[utoipa::path(post, path = "/v1/me/phone/verify", tag = "accounts", operation_id = "verify_phone",
    request_body = VerifyPhone,
    responses(
        (status = 204, description = "The number is confirmed; messages go there, where they are wanted"),
        (status = 422, description = "`invalid-phone-code`: wrong, used, tried too often or too old",
            body = ProblemDetails, content_type = "application/problem+json"),
        (status = 429, description = "`too-many-attempts`", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn verify(
    State(app): State<App>,
    authorized: Authorized,
    client: Client,
    Json(body): Json<VerifyPhone>,
) -> Result<StatusCode> {
    let user = authorized.actor()?.user();
    let mut db = app.db().await?;
    let attempt = token::slow_down(&app, &db, &codes::account(user), &client).await?;
    let phone = codes::try_out(&db, &app.sealing, user, body.code.trim()).await?.ok_or_else(bad_code)?;
    let tx = db.transaction().await?;
    if !codes::spend(&tx, user, &phone).await? || !store::set_phone_verified(&tx, user, &phone).await? {
        return Err(bad_code().into());
    }
    let entry = audit::Entry {
        actor: Some(user),
        action: "user.verify_phone",
        target: user.to_string(),
        before: None,
        after: None,
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    attempt.succeeded(&tx).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Send a code to the caller's number once more, unless one went there within the last minute or the number is confirmed.
#[utoipa::path(post, path = "/v1/me/phone/resend", tag = "accounts", operation_id = "resend_phone_code",
    responses(
        (status = 202, description = "It will be sent, if there is a number to confirm"),
        (status = 409, description = "`no-messages`: this platform sends none", body = ProblemDetails,
            content_type = "application/problem+json"),
        (status = 429, description = "`too-many-attempts`", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn resend(State(app): State<App>, authorized: Authorized, client: Client) -> Result<StatusCode> {
    let user = authorized.actor()?.user();
    if !app.config.sms.is_on() {
        return Err(Problem::conflict("no-messages", "this platform sends no text messages").into());
    }
    let db = app.db().await?;
    token::slow_down(&app, &db, &codes::account(user), &client).await?;
    if store::unproved_number(&db, user).await?.is_some() {
        outbox::put_phone_code(&db, user).await?;
        app.sms.now();
    }
    Ok(StatusCode::ACCEPTED)
}
