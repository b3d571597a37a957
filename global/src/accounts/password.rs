//! `PUT /v1/auth/password`.

use axum::extract::State;
use common::Problem;
use common::authz::Authorized;
use common::http::{Json, all_fields};
use common::problem::ProblemDetails;
use http::StatusCode;
use serde::Deserialize;

use super::{rules, sessions, store, token};
use crate::app::App;
use crate::audit;
use crate::client::Client;
use crate::fault::Result;
use crate::feed;
use crate::mail::outbox::{self, Kind};
use crate::passwords::Check;

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    pub current_password: String,
    #[schema(min_length = 10, max_length = 256)]
    pub new_password: String,
}

/// Change the caller's own password; the caller's other sessions end.
#[utoipa::path(put, path = "/v1/auth/password", tag = "auth", operation_id = "change_password",
    request_body = ChangePassword,
    responses(
        (status = 204, description = "Changed; the other sessions have ended"),
        (status = 401, description = "`invalid-credentials`: the current password is not right; \
            or no valid access token", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "`password-changed`: another call changed it meanwhile", body = ProblemDetails,
            content_type = "application/problem+json"),
        (status = 429, description = "`too-many-attempts`", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn change(
    State(app): State<App>,
    authorized: Authorized,
    client: Client,
    Json(body): Json<ChangePassword>,
) -> Result<StatusCode> {
    let claims = &authorized.actor()?.claims;
    let gone = || Problem::unauthorized("this account is no more");
    let account = store::find(&app.db().await?, claims.sub).await?.ok_or_else(gone)?;
    let own = [account.user.username.as_deref(), account.user.email.as_deref(), Some(&account.user.name)];
    let own: Vec<&str> = own.into_iter().flatten().collect();
    all_fields(rules::password("new_password", &body.new_password, &own).into_iter().collect())?;

    // A stolen access token must not be a way to guess the password.
    let name = claims.sub.to_string();
    let attempt = token::slow_down(&app, &app.db().await?, &name, &client).await?;
    let check = app.passwords.check(body.current_password, account.password_hash.clone()).await;
    let (attempt, check) = token::judged(&app, attempt, check.map_err(Into::into)).await?;
    if check == Check::Wrong {
        let detail = "the current password is not right";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "invalid-credentials", detail).into());
    }
    attempt.succeeded(&app.db().await?).await?;
    let hash = app.passwords.hash(body.new_password).await?;

    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    feed::store::lock(&tx).await?;
    let present = store::find_for_update(&tx, claims.sub).await?.ok_or_else(gone)?;
    if present.password_hash != account.password_hash {
        return Err(Problem::conflict("password-changed", "the password was changed just now").into());
    }
    store::set_password(&tx, claims.sub, &hash).await?;
    let ended = sessions::end_all(&tx, claims.sub, Some(claims.sid)).await?;
    let position = feed::store::revoke_sessions(&tx, &ended, app.tokens_expired_at()).await?;
    let entry = audit::Entry {
        actor: Some(claims.sub),
        action: "user.password",
        target: name,
        before: None,
        after: None,
        address: &client.address,
    };
    audit::write(&tx, entry).await?;
    if let Some(address) = &present.user.email {
        outbox::put(&tx, Kind::PasswordChanged, Some(claims.sub), address).await?;
    }
    tx.commit().await?;
    app.mail.now();
    drop(db);
    app.feed.published(position).await;
    Ok(StatusCode::NO_CONTENT)
}
