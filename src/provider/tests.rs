//! The whole provider over HTTP, as its client sees it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use ring::hmac;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Config, run};

const KEY: &str = "sk_test_for_this_test";
const SECRET: &str = "a webhook secret";

struct Provider {
    url: String,
    http: reqwest::Client,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Provider {
    async fn start(webhook_urls: Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = common::loopback::unused_address().unwrap().to_string();
        let config = Config {
            listen: listen.clone(),
            data_file: folder.path().join("books.redb"),
            api_key: common::config::Secret::new(KEY),
            webhook_secret: common::config::Secret::new(SECRET),
            webhook_urls,
            ..Config::default()
        };
        let stop = CancellationToken::new();
        tokio::spawn(run(config, stop.clone()));
        let (url, http) = (format!("http://{listen}"), reqwest::Client::new());
        let deadline = Instant::now() + Duration::from_secs(10);
        while http.get(format!("{url}/livez")).send().await.is_err() {
            assert!(Instant::now() < deadline, "the provider does not come up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { url, http, stop, _folder: folder }
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(KEY).json(&body);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let answer = self.http.get(format!("{}{path}", self.url)).bearer_auth(KEY).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }
}

fn charge(id: &str, amount: i64, token: &str) -> Value {
    json!({"id": id, "amount": amount, "currency": "EUR", "token": token})
}

#[tokio::test]
async fn charges_and_refunds_as_the_client_sees_them() {
    let provider = Provider::start(Vec::new()).await;
    let unsigned = provider.http.get(format!("{}/v1/charges", provider.url)).send().await.unwrap();
    assert_eq!(unsigned.status(), StatusCode::UNAUTHORIZED);

    let (status, first) = provider.post("/v1/charges", charge("pay_1", 1250, "tok_ok")).await;
    let expected = json!({"id": "pay_1", "status": "succeeded", "reason": null, "amount": 1250,
        "currency": "EUR", "refunded": 0});
    assert_eq!((status, &first), (StatusCode::OK, &expected));
    assert_eq!(provider.post("/v1/charges", charge("pay_1", 1250, "tok_ok")).await.1, first);
    assert_eq!(provider.post("/v1/charges", charge("pay_1", 1, "tok_ok")).await.0, StatusCode::CONFLICT);
    for (token, reason) in [
        ("tok_declined", "card_declined"),
        ("tok_insufficient_funds", "insufficient_funds"),
        ("4242424242424242", "invalid_token"),
    ] {
        let (_, declined) = provider.post("/v1/charges", charge(&format!("pay_{token}"), 5, token)).await;
        assert_eq!((&declined["status"], &declined["reason"]), (&json!("declined"), &json!(reason)));
    }
    assert_eq!(provider.post("/v1/charges", charge("", 5, "tok_ok")).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(provider.post("/v1/charges", charge("pay_0", 0, "tok_ok")).await.0, StatusCode::BAD_REQUEST);
    let (status, _) = provider.post("/v1/charges", charge("pay_f", 5, "tok_fail_once")).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(provider.get("/v1/charges/pay_f").await.0, StatusCode::NOT_FOUND);
    assert_eq!(provider.post("/v1/charges", charge("pay_f", 5, "tok_fail_once")).await.0, StatusCode::OK);

    let refund = json!({"id": "ref_1", "charge": "pay_1", "amount": 1000});
    assert_eq!(provider.post("/v1/refunds", refund).await.1["status"], "succeeded");
    let too_much = json!({"id": "ref_2", "charge": "pay_1", "amount": 251});
    assert_eq!(provider.post("/v1/refunds", too_much).await.1["status"], "failed");
    assert_eq!(provider.get("/v1/refunds/ref_2").await.1["reason"], "amount_too_large");
    assert_eq!(provider.get("/v1/charges/pay_1").await.1["refunded"], 1000);

    let (_, canceled) =
        provider.post("/v1/charges/pay_late/cancel", json!({"amount": 7, "currency": "EUR"})).await;
    assert_eq!(canceled["status"], "canceled");
    assert_eq!(provider.post("/v1/charges", charge("pay_late", 7, "tok_ok")).await.1["status"], "canceled");
    let (_, rest) = provider.get("/v1/charges?after=pay_1&limit=2").await;
    assert_eq!(rest["charges"].as_array().unwrap().len(), 2);
    provider.stop.cancel();
}

type Heard = Arc<Mutex<Vec<(HeaderMap, String)>>>;

#[tokio::test]
async fn a_late_charge_is_told_by_a_signed_webhook_until_somebody_takes_it() {
    let heard = Heard::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    // The first delivery is refused, the second taken.
    let hear = async |State(heard): State<Heard>, headers: HeaderMap, body: String| {
        let mut heard = heard.lock().unwrap();
        heard.push((headers, body));
        if heard.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
    };
    let app = axum::Router::new().route("/hook", post(hear)).with_state(heard.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });

    // Nobody listens at the first URL.
    let provider = Provider::start(vec!["http://127.0.0.1:1/hook".into(), format!("{base}/hook")]).await;
    let (_, pending) = provider.post("/v1/charges", charge("pay_1", 900, "tok_late")).await;
    assert_eq!(pending["status"], "pending");
    let deadline = Instant::now() + Duration::from_secs(20);
    while heard.lock().unwrap().len() < 2 {
        assert!(Instant::now() < deadline, "no second delivery");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard[0].0["webhook-id"], heard[1].0["webhook-id"]);
    for (headers, body) in &heard {
        let event: Value = serde_json::from_str(body).unwrap();
        assert_eq!(event["type"], "charge.updated");
        assert_eq!(
            (&event["charge"]["id"], &event["charge"]["status"]),
            (&json!("pay_1"), &json!("succeeded"))
        );
        let part = |name: &str| headers[name].to_str().unwrap().to_owned();
        let signed = format!("{}.{}.{body}", part("webhook-id"), part("webhook-timestamp"));
        let signature = part("webhook-signature");
        let tag = data_encoding::BASE64.decode(signature.strip_prefix("v1,").unwrap().as_bytes()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        hmac::verify(&key, signed.as_bytes(), &tag).unwrap();
    }
    assert_eq!(provider.get("/v1/charges/pay_1").await.1["status"], "succeeded");
    provider.stop.cancel();
}
