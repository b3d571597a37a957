//! The provider's HTTP face. Errors are `{"error": {"code", "message"}}`, a shape of its own on purpose:
//! Marquee must not lean on a provider that answers like Marquee.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use ring::hmac;
use serde::Deserialize;
use serde_json::Value;

use super::store::{Charge, Created, Refunded, Store};

/// How long an answer that "gets lost" is held back.
const LOST_ANSWER: Duration = Duration::from_secs(30);
const MAX_AMOUNT: i64 = 100_000_000_000;

pub fn routes(store: Arc<Store>, api_key: &str) -> Router {
    let key = Arc::new(ApiKey::new(api_key));
    Router::new()
        .route("/v1/charges", post(create_charge).get(list_charges))
        .route("/v1/charges/{id}", get(get_charge))
        .route("/v1/changes", get(list_changes))
        .route("/v1/charges/{id}/cancel", post(cancel_charge))
        .route("/v1/refunds", post(create_refund))
        .route("/v1/refunds/{id}", get(get_refund))
        .layer(middleware::from_fn_with_state(key, require_key))
        .route("/livez", get(async || "alive\n"))
        .with_state(store)
}

/// The key that callers must bring, compared in constant time: both sides are hashed under a random key
/// first, so that neither length nor prefix shows in the time it takes.
struct ApiKey {
    key: hmac::Key,
    expected: hmac::Tag,
}

impl ApiKey {
    fn new(api_key: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        let expected = hmac::sign(&key, api_key.as_bytes());
        Self { key, expected }
    }

    fn accepts(&self, presented: &str) -> bool {
        hmac::verify(&self.key, presented.as_bytes(), self.expected.as_ref()).is_ok()
    }
}

async fn require_key(State(key): State<Arc<ApiKey>>, request: Request, next: Next) -> Response {
    let presented = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "))
        .unwrap_or_default();
    if key.accepts(presented) {
        next.run(request).await
    } else {
        error(StatusCode::UNAUTHORIZED, "unauthorized", "send the API key as a bearer token").into_response()
    }
}

/// An error as the caller gets it.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": { "code": self.code, "message": self.message } });
        (self.status, Json(body)).into_response()
    }
}

fn error(status: StatusCode, code: &'static str, message: &str) -> Refusal {
    Refusal { status, code, message: message.to_owned() }
}

fn bad_request(message: &str) -> Refusal {
    error(StatusCode::BAD_REQUEST, "bad_request", message)
}

/// Runs blocking work on the store; its failure is a 500 without internals.
async fn on_store<T: Send + 'static>(
    store: Arc<Store>,
    work: impl FnOnce(&Store) -> anyhow::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(move || work(&store)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(failure)) => {
            tracing::error!(error = %failure, "the store failed");
            Err(error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "try again"))
        }
        Err(_) => Err(error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "try again")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewCharge {
    id: String,
    amount: i64,
    currency: String,
    token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelCharge {
    amount: i64,
    currency: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRefund {
    id: String,
    charge: String,
    amount: i64,
}

#[derive(Deserialize)]
struct Listing {
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
struct Changes {
    since_ms: i64,
    after: Option<String>,
    limit: Option<usize>,
}

fn check(id: &str, amount: i64, currency: Option<&str>) -> Result<(), Refusal> {
    if id.is_empty() || id.len() > 128 {
        return Err(bad_request("an id has 1 to 128 characters"));
    }
    if !(1..=MAX_AMOUNT).contains(&amount) {
        return Err(bad_request("an amount is positive, in minor units"));
    }
    if currency.is_some_and(|c| c.len() != 3 || !c.bytes().all(|b| b.is_ascii_uppercase())) {
        return Err(bad_request("a currency is three capital letters"));
    }
    Ok(())
}

fn body<T>(body: Result<Json<T>, JsonRejection>) -> Result<T, Refusal> {
    body.map(|Json(value)| value).map_err(|rejection| bad_request(&rejection.body_text()))
}

async fn create_charge(
    State(store): State<Arc<Store>>,
    charge: Result<Json<NewCharge>, JsonRejection>,
) -> Result<Response, Refusal> {
    let new = body(charge)?;
    check(&new.id, new.amount, Some(&new.currency))?;
    let created = on_store(store, move |s| s.create(&new.id, new.amount, &new.currency, &new.token)).await?;
    Ok(match created {
        Created::Charge(charge) => Json(charge).into_response(),
        Created::AnswerLate(charge) => {
            tokio::time::sleep(LOST_ANSWER).await;
            Json(charge).into_response()
        }
        Created::Lost => {
            tokio::time::sleep(LOST_ANSWER).await;
            return Err(error(StatusCode::GATEWAY_TIMEOUT, "timeout", "the card network did not answer"));
        }
        Created::FailedOnce => return Err(error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "try again")),
        Created::Mismatch => {
            let why = "this id belongs to a charge over another amount";
            return Err(error(StatusCode::CONFLICT, "id_reused", why));
        }
    })
}

async fn get_charge(State(store): State<Arc<Store>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    Ok(match on_store(store, move |s| s.charge(&id)).await? {
        Some(charge) => Json(charge).into_response(),
        None => return Err(error(StatusCode::NOT_FOUND, "not_found", "there is no such charge")),
    })
}

async fn list_charges(
    State(store): State<Arc<Store>>,
    Query(listing): Query<Listing>,
) -> Result<Response, Refusal> {
    let limit = listing.limit.unwrap_or(100).clamp(1, 1000);
    let charges = on_store(store, move |s| s.list(listing.after.as_deref(), limit)).await?;
    Ok(Json(serde_json::json!({ "charges": charges })).into_response())
}

/// `next` is `milliseconds:id`, opaque to callers.
async fn list_changes(
    State(store): State<Arc<Store>>,
    Query(listing): Query<Changes>,
) -> Result<Response, Refusal> {
    let limit = listing.limit.unwrap_or(500).clamp(1, 1000);
    let after = match listing.after.as_deref().map(|after| after.split_once(':')) {
        None => None,
        Some(Some((ms, id))) if ms.parse::<i64>().is_ok() => {
            ms.parse().ok().map(|ms: i64| (ms, id.to_owned()))
        }
        Some(_) => return Err(bad_request("`after` is not the `next` of a page")),
    };
    let changes = on_store(store, move |s| {
        s.changes(listing.since_ms, after.as_ref().map(|(ms, id)| (*ms, id.as_str())), limit)
    });
    let changes = changes.await?;
    let next =
        changes.last().filter(|_| changes.len() == limit).map(|(ms, charge)| format!("{ms}:{}", charge.id));
    let charges: Vec<Value> = changes
        .into_iter()
        .map(|(ms, charge)| {
            let changed_at = Timestamp::from_millisecond(ms).unwrap_or_default();
            let Charge { id, status, reason, amount, currency, refunded } = charge;
            serde_json::json!({ "id": id, "status": status, "reason": reason, "amount": amount,
                                "currency": currency, "refunded": refunded, "changed_at": changed_at })
        })
        .collect();
    Ok(Json(serde_json::json!({ "charges": charges, "next": next })).into_response())
}

async fn cancel_charge(
    State(store): State<Arc<Store>>,
    Path(id): Path<String>,
    request: Result<Json<CancelCharge>, JsonRejection>,
) -> Result<Response, Refusal> {
    let cancel = body(request)?;
    check(&id, cancel.amount, Some(&cancel.currency))?;
    let charge = on_store(store, move |s| s.cancel(&id, cancel.amount, &cancel.currency)).await?;
    Ok(Json(charge).into_response())
}

async fn create_refund(
    State(store): State<Arc<Store>>,
    refund: Result<Json<NewRefund>, JsonRejection>,
) -> Result<Response, Refusal> {
    let new = body(refund)?;
    check(&new.id, new.amount, None)?;
    Ok(match on_store(store, move |s| s.refund(&new.id, &new.charge, new.amount)).await? {
        Refunded::Refund(refund) => Json(refund).into_response(),
        Refunded::NoSuchCharge => {
            return Err(error(StatusCode::NOT_FOUND, "not_found", "there is no such charge"));
        }
        Refunded::Mismatch => {
            return Err(error(StatusCode::CONFLICT, "id_reused", "this id belongs to another refund"));
        }
    })
}

async fn get_refund(State(store): State<Arc<Store>>, Path(id): Path<String>) -> Result<Response, Refusal> {
    Ok(match on_store(store, move |s| s.refund_by_id(&id)).await? {
        Some(refund) => Json(refund).into_response(),
        None => return Err(error(StatusCode::NOT_FOUND, "not_found", "there is no such refund")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_key_is_accepted() {
        let key = ApiKey::new("sk_test_abcdef");
        assert!(key.accepts("sk_test_abcdef"));
        for wrong in ["", "sk_test_abcde", "sk_test_abcdefg", "SK_TEST_ABCDEF"] {
            assert!(!key.accepts(wrong), "{wrong}");
        }
    }
}
