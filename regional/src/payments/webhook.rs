//! What the provider tells by itself: at least once, in any order. Its word is only a hint to ask: the
//! provider's books decide.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::http::Path;
use common::{PaymentId, Problem};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use ring::hmac;

use super::saga::{self, Stuck};
use crate::app::App;
use crate::host::HostError;
use crate::show::WithId;

/// A signature older than this is a replay.
const MAX_AGE_SECS: i64 = 300;

/// Tell of a payment's outcome
///
/// For payment providers. Signed as in Standard Webhooks: `webhook-id`, `webhook-timestamp`,
/// `webhook-signature`.
#[utoipa::path(
    post, path = "/v1/webhooks/payments/{provider}", tag = "payments", operation_id = "receive_payment_webhook",
    params(("provider" = String, Path, example = "test")),
    request_body(content = Object, description = "the provider's event"),
    responses((status = 204, description = "Taken"))
)]
pub async fn receive(
    State(app): State<App>,
    Path(provider): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<impl IntoResponse, Problem> {
    if provider != "test" {
        return Err(Problem::not_found("payment provider"));
    }
    let secret = app.config.payments.webhook_secret.reveal();
    if !signed(secret.as_bytes(), &headers, &body, Timestamp::now().as_second()) {
        return Err(Problem::bad_request("webhook-signature-invalid", "the signature does not hold"));
    }
    let event: serde_json::Value = serde_json::from_slice(&body)
        .map_err(|_| Problem::bad_request("malformed-json", "the body is not JSON"))?;
    let id = event["charge"]["id"].as_str().and_then(|id| id.parse::<PaymentId>().ok());
    let id = id.ok_or_else(|| Problem::invalid("charge.id", "is not a payment of ours"))?;
    match settle(&app, id).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(Stuck::Host(error)) => Err(error.into()),
        Err(Stuck::Provider(error)) => {
            tracing::warn!(payment = %id, %error, "a webhook cannot be followed up yet");
            Err(Problem::unavailable("provider-unavailable", "the provider's books cannot be read now", 5))
        }
    }
}

async fn settle(app: &App, id: PaymentId) -> Result<(), Stuck> {
    let host = app.hosts.get(id.show()).await?;
    let Some(payment) = host.read(|show| show.payments.get(&id).map(WithId::to_owned)) else {
        // Not by a leader that was replaced: the provider would tell nobody else.
        host.was_current().await?;
        return Err(HostError::NoShow.into());
    };
    saga::hinted(app, &host, &payment).await.map(drop)
}

/// Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`, in constant time.
fn signed(secret: &[u8], headers: &HeaderMap, body: &[u8], now_secs: i64) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(id), Some(timestamp), Some(signatures)) =
        (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"))
    else {
        return false;
    };
    if !timestamp.parse::<i64>().is_ok_and(|at| (now_secs - at).abs() <= MAX_AGE_SECS) {
        return false;
    }
    let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    signatures
        .split(' ')
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
        .any(|signature| hmac::verify(&key, &message, &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(secret: &[u8], at: i64, body: &[u8]) -> HeaderMap {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let message = [b"evt_1.", at.to_string().as_bytes(), b".", body].concat();
        let signature = format!("v1,{}", STANDARD.encode(hmac::sign(&key, &message)));
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", "evt_1".parse().unwrap());
        headers.insert("webhook-timestamp", at.to_string().parse().unwrap());
        headers.insert("webhook-signature", signature.parse().unwrap());
        headers
    }

    #[test]
    fn only_fresh_and_whole_words_of_the_provider_pass() {
        let good = headers(b"secret", 1_000, b"{}");
        assert!(signed(b"secret", &good, b"{}", 1_010));
        assert!(!signed(b"secret", &good, b"{ }", 1_010));
        assert!(!signed(b"other", &good, b"{}", 1_010));
        assert!(!signed(b"secret", &good, b"{}", 2_000));
        assert!(!signed(b"secret", &HeaderMap::new(), b"{}", 1_010));
    }
}
