//! Sign-up and what a token says. Signing in is `token.rs`, sessions are `sessions.rs`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use common::authz::{Authorized, Claims};
use common::http::{Json, all_fields};
use common::problem::ProblemDetails;
use common::{Problem, UserId};
use http::{StatusCode, header};
use serde::Deserialize;

use super::store::{self, NewAccount};
use super::{User, rules};
use crate::app::App;
use crate::audit;
use crate::client::Client;
use crate::fault::{Fault, Result};
use crate::mail::outbox::{self, Kind};
use crate::metrics::METRICS;

/// What everybody is at first.
pub const FIRST_ROLE: &str = "customer";

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignUp {
    #[schema(example = "ann@example.org", max_length = 254)]
    pub email: String,
    /// Letters, digits, `.`, `_` and `-`; upper and lower case are the same name.
    #[schema(example = "ann", min_length = 3, max_length = 32)]
    pub username: String,
    #[schema(example = "Ann Example", min_length = 1, max_length = 100)]
    pub name: String,
    #[schema(example = "a seat in row F", min_length = 10, max_length = 256)]
    pub password: String,
}

/// Create an account; a mail with a verification link goes to its address.
#[utoipa::path(post, path = "/v1/auth/signup", tag = "auth", operation_id = "sign_up", request_body = SignUp,
    responses(
        (status = 201, description = "The account, with the role `customer`", body = User),
        (status = 409, description = "`email-taken`, `username-taken`", body = ProblemDetails,
            content_type = "application/problem+json")))]
pub async fn sign_up(State(app): State<App>, client: Client, Json(body): Json<SignUp>) -> Result<Response> {
    let (email, username, name) = (body.email.trim(), body.username.trim(), body.name.trim());
    let refused = |problem: Problem| {
        METRICS.signups.with_label_values(&["refused"]).inc();
        problem
    };
    all_fields(rules::new_account(email, username, name, &body.password)).map_err(refused)?;
    let password_hash = app.passwords.hash(body.password).await?;
    let id = UserId::new();
    let new = NewAccount { id, email, username, name, password_hash: &password_hash };

    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    store::insert(&tx, &new, FIRST_ROLE).await.map_err(|fault| match taken(&fault) {
        Some(problem) => refused(problem).into(),
        None => fault,
    })?;
    let (target, address) = (id.to_string(), client.address.as_str());
    let action = "user.signup";
    audit::write(&tx, audit::Entry { actor: Some(id), action, target, before: None, after: None, address })
        .await?;
    outbox::put(&tx, Kind::Verify, Some(id), email).await?;
    let account = store::find(&tx, id).await?.ok_or_else(|| Problem::internal("a new account is gone"))?;
    tx.commit().await?;
    app.mail.now();
    METRICS.signups.with_label_values(&["ok"]).inc();
    Ok((StatusCode::CREATED, [(header::LOCATION, "/v1/me")], Json(account.user)).into_response())
}

/// 409 for a name or an address that somebody has.
pub fn taken(fault: &Fault) -> Option<Problem> {
    match fault.unique_index()? {
        "users_email" => {
            Some(Problem::conflict("email-taken", "there is an account with this email address"))
        }
        "users_username" => {
            Some(Problem::conflict("username-taken", "there is an account with this username"))
        }
        _ => None,
    }
}

/// What the caller's access token says.
#[utoipa::path(get, path = "/v1/auth/verify", tag = "auth", operation_id = "verify_token",
    responses((status = 200, description = "The token is good; its claims", body = Claims)))]
pub async fn verify(authorized: Authorized) -> Result<Json<Claims>> {
    Ok(Json(Claims::clone(&authorized.actor()?.claims)))
}
