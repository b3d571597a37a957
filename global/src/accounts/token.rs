//! `POST /v1/auth/token`: the OAuth 2 token endpoint (RFC 6749, section 5), as a form or as JSON.

use std::time::{Duration, Instant};

use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use common::authz::Claims;
use common::authz::authority::{ACCESS_TOKEN_TYPE, AUDIENCE};
use common::http::{Json, from_json, whole_body};
use common::problem::ProblemDetails;
use common::{Problem, SessionId};
use deadpool_postgres::GenericClient;
use http::{HeaderValue, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::sessions::{self, RefreshToken};
use super::store::{self, Account};
use crate::app::App;
use crate::client::Client;
use crate::fault::Result;
use crate::metrics::METRICS;
use crate::passwords::Check;
use crate::person_keys;
use crate::throttle::{Attempt, SlowDown};

/// `grant_type=password` needs `username` and `password`, `grant_type=refresh_token` needs `refresh_token`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    #[schema(example = "password")]
    pub grant_type: String,
    /// The username or the email address.
    pub username: Option<String>,
    pub password: Option<String>,
    pub refresh_token: Option<String>,
    /// Taken for the sake of OAuth 2 clients that always send it; without effect.
    #[serde(rename = "scope")]
    pub _scope: Option<String>,
    /// Taken for the sake of OAuth 2 clients that always send it; without effect.
    #[serde(rename = "client_id")]
    pub _client_id: Option<String>,
}

/// RFC 6749, section 5.1.
#[derive(Serialize, utoipa::ToSchema)]
pub struct TokenResponse {
    /// An EdDSA JWT.
    pub access_token: String,
    #[schema(example = "Bearer")]
    pub token_type: &'static str,
    /// Seconds.
    #[schema(example = 600)]
    pub expires_in: u32,
    /// Good once; the next comes with the next access token.
    pub refresh_token: String,
}

/// A form or a JSON object, with the same fields.
pub struct FormOrJson(TokenRequest);

impl<S: Send + Sync> FromRequest<S> for FormOrJson {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> std::result::Result<Self, Problem> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let is_form = content_type
            .and_then(|v| v.split(';').next())
            .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"));
        if !is_form {
            return Json::from_request(request, state).await.map(|Json(body)| Self(body));
        }
        let body = whole_body(request, state).await?;
        let mut fields = Map::new();
        for (name, value) in form_urlencoded::parse(&body) {
            if fields.insert(name.to_string(), Value::String(value.into_owned())).is_some() {
                return Err(Problem::invalid(name, "is given twice"));
            }
        }
        from_json(Value::Object(fields).to_string().as_bytes()).map(Self)
    }
}

/// Sign in, or renew the tokens of a session.
///
/// A refresh token is good once. One that comes a second time ends the whole session: somebody else has it.
#[utoipa::path(post, path = "/v1/auth/token", tag = "auth", operation_id = "create_token",
    request_body(content(
        (TokenRequest = "application/x-www-form-urlencoded"),
        (TokenRequest = "application/json"))),
    responses(
        (status = 200, description = "The tokens", body = TokenResponse),
        (status = 400, description = "`unsupported-grant-type`, `malformed-json`", body = ProblemDetails,
            content_type = "application/problem+json"),
        (status = 401, description = "`invalid-credentials`; `invalid-grant` for a refresh token that is not good",
            body = ProblemDetails, content_type = "application/problem+json"),
        (status = 403, description = "`account-disabled`", body = ProblemDetails,
            content_type = "application/problem+json"),
        (status = 429, description = "`too-many-attempts`: too many failures for this account from this address",
            body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "`busy`: too many sign-ins at once",
            body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn create(
    State(app): State<App>,
    client: Client,
    FormOrJson(request): FormOrJson,
) -> Result<Response> {
    let tokens = match request.grant_type.as_str() {
        "password" => {
            let username = required("username", request.username)?;
            let password = required("password", request.password)?;
            with_password(&app, &client, &username, password).await?
        }
        "refresh_token" => {
            let token = RefreshToken(required("refresh_token", request.refresh_token)?);
            with_refresh_token(&app, &client, &token).await?
        }
        _ => {
            let detail = "`grant_type` must be `password` or `refresh_token`";
            return Err(Problem::bad_request("unsupported-grant-type", detail).into());
        }
    };
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((no_store, Json(tokens)).into_response())
}

fn required(field: &str, value: Option<String>) -> std::result::Result<String, Problem> {
    value.ok_or_else(|| Problem::invalid(field, format!("missing field `{field}`")))
}

fn count(result: &str) {
    METRICS.signins.with_label_values(&[result]).inc();
}

pub fn invalid_credentials() -> Problem {
    let detail = "the username or the password is not right";
    Problem::new(StatusCode::UNAUTHORIZED, "invalid-credentials", detail)
}

/// Counts an attempt; 429 once too many for this account have failed from this address.
pub async fn slow_down(
    app: &App,
    db: &impl GenericClient,
    account: &str,
    client: &Client,
) -> Result<Attempt> {
    let counted = app.throttle.attempt(db, account, &client.address).await?;
    counted.map_err(|SlowDown(pause)| {
        count("slow_down");
        let detail = "too many failed attempts; wait before the next";
        let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", detail);
        let up = pause + Duration::from_millis(999);
        problem.retry_after_secs = Some(u32::try_from(up.as_secs()).unwrap_or(u32::MAX));
        problem.into()
    })
}

/// What an attempt came to. One that failed without a judgement, by no fault of the caller's, does not count.
pub async fn judged<T>(app: &App, attempt: Attempt, judgement: Result<T>) -> Result<(Attempt, T)> {
    match judgement {
        Ok(judgement) => Ok((attempt, judgement)),
        Err(fault) => {
            let given_back = async { attempt.unjudged(&app.db().await?).await };
            if let Err(fault) = given_back.await {
                tracing::warn!(
                    error = fault.into_problem().detail,
                    "an attempt counts that was never judged"
                );
            }
            Err(fault)
        }
    }
}

async fn with_password(app: &App, client: &Client, login: &str, password: String) -> Result<TokenResponse> {
    let attempt = slow_down(app, &app.db().await?, login, client).await?;
    let started = Instant::now();
    let judgement = judge(app, login, password.clone()).await;
    let (attempt, (account, check)) = judged(app, attempt, judgement).await?;
    let stored = account.as_ref().and_then(|a| a.password_hash.clone());
    let account = match account {
        Some(account) if check != Check::Wrong => account,
        _ => {
            count("wrong");
            app.passwords.level_failure(started).await;
            return Err(invalid_credentials().into());
        }
    };
    attempt.succeeded(&app.db().await?).await?;
    let mut proved = stored;
    if let (Check::RightButOutdated, Some(old)) = (check, &proved) {
        let new = app.passwords.hash(password).await?;
        if store::renew_hash(&app.db().await?, account.user.id, old, &new).await? {
            proved = Some(new);
        }
    }

    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    // Read again: it may have been disabled, deleted or given another password since.
    let account = match store::find_for_token(&tx, account.user.id).await? {
        // A password that was right a moment ago opens no session after the reset that ended them all.
        Some(account) if !account.deleted && account.password_hash == proved => account,
        _ => return Err(invalid_credentials().into()),
    };
    if account.user.disabled {
        count("disabled");
        let detail = "this account is disabled";
        return Err(Problem::new(StatusCode::FORBIDDEN, "account-disabled", detail).into());
    }
    let (session, refresh) = (SessionId::new(), RefreshToken::generate());
    sessions::insert(&tx, session, account.user.id, &refresh, client, session_end(app)).await?;
    tx.commit().await?;
    count("ok");
    issue(app, &account, session, refresh)
}

/// The account of this name, if there is one, and whether the password is its own.
async fn judge(app: &App, login: &str, password: String) -> Result<(Option<Account>, Check)> {
    let account = {
        let db = app.db().await?;
        // Postgres takes no NUL in text, and no account's name has one.
        if login.contains('\0') { None } else { store::find_by_login(&db, login).await? }
    };
    let stored = account.as_ref().and_then(|a| a.password_hash.clone());
    let check = app.passwords.check(password, stored).await?;
    Ok((account, check))
}

async fn with_refresh_token(app: &App, client: &Client, old: &RefreshToken) -> Result<TokenResponse> {
    let refused = || {
        count("refused");
        let detail = "the refresh token is not good (any more); sign in again";
        Problem::new(StatusCode::UNAUTHORIZED, "invalid-grant", detail)
    };
    let new = RefreshToken::generate();
    let mut db = app.db().await?;
    let tx = db.transaction().await?;
    let Some((session, user)) = sessions::rotate(&tx, old, &new, client, session_end(app)).await? else {
        let reused = sessions::of_spent(&tx, old).await?;
        drop(tx);
        drop(db);
        if let Some((session, user)) = reused {
            count("reused");
            tracing::warn!(%session, %user, "a spent refresh token came back; the session ends");
            sessions::end_and_publish(app, user, session, "session.reuse", None, client).await?;
        }
        return Err(refused().into());
    };
    let account = match store::find_for_token(&tx, user).await? {
        Some(account) if !account.user.disabled && !account.deleted => account,
        _ => return Err(refused().into()),
    };
    tx.commit().await?;
    count("refreshed");
    issue(app, &account, session, new)
}

fn session_end(app: &App) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(app.config.refresh_token_secs.into())
}

fn issue(app: &App, account: &Account, session: SessionId, refresh: RefreshToken) -> Result<TokenResponse> {
    let now = Timestamp::now().as_second();
    let claims = Claims {
        iss: app.config.issuer.clone(),
        aud: AUDIENCE.into(),
        sub: account.user.id,
        sid: session,
        jti: uuid::Uuid::now_v7().simple().to_string(),
        iat: now,
        nbf: now,
        exp: now + i64::from(app.config.access_token_secs),
        username: account.user.username.clone().unwrap_or_default(),
        roles: account.user.roles.clone(),
        ver: account.token_version,
        // One that the platform no longer has is no wish.
        region: account.user.region.clone().filter(|region| app.config.regions.contains(region)),
        pk: account.person_salt.and_then(|salt| {
            let key = person_keys::of(&app.sealing, account.user.id, salt);
            app.month_keys.to_claim(account.user.id, now, &key)
        }),
    };
    let access_token = app.keys.sign(ACCESS_TOKEN_TYPE, &claims).ok_or_else(|| {
        Problem::unavailable("starting", "the signing keys are not loaded yet; try again", 1)
    })?;
    let expires_in = app.config.access_token_secs;
    Ok(TokenResponse { access_token, token_type: "Bearer", expires_in, refresh_token: refresh.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use proptest::prelude::*;

    fn parse(content_type: &str, body: Vec<u8>) -> std::result::Result<TokenRequest, Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let request =
            Request::builder().header(header::CONTENT_TYPE, content_type).body(Body::from(body)).unwrap();
        runtime.block_on(FormOrJson::from_request(request, &())).map(|FormOrJson(request)| request)
    }

    proptest! {
        /// A body is a request or a 4xx, in either form.
        #[test]
        fn any_body_is_a_request_or_refused(
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "(grant_type|username|password|scope|x)=[a-z%&=+0-9]{0,30}".prop_map(String::into_bytes),
                r#"\{"grant_type":("password"|null|5|\[\]|\{\})(,"username":".{0,9}")?\}"#.prop_map(String::into_bytes),
            ],
            form in any::<bool>(),
        ) {
            let kind = if form { "application/x-www-form-urlencoded" } else { "application/json" };
            if let Err(problem) = parse(kind, body) {
                prop_assert!(problem.status.is_client_error(), "{problem:?}");
            }
        }

        #[test]
        fn what_is_sent_is_what_is_checked(username in any::<String>(), password in any::<String>()) {
            let json = serde_json::json!({"grant_type": "password", "username": username, "password": password});
            let form = form_urlencoded::Serializer::new(String::new())
                .append_pair("grant_type", "password")
                .append_pair("username", &username)
                .append_pair("password", &password)
                .finish();
            for (kind, body) in
                [("application/json", json.to_string()), ("application/x-www-form-urlencoded; charset=utf-8", form)]
            {
                let read = parse(kind, body.into_bytes()).unwrap();
                prop_assert_eq!(read.username.as_deref(), Some(username.as_str()));
                prop_assert_eq!(read.password.as_deref(), Some(password.as_str()));
            }
        }
    }
}
