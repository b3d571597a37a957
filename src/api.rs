//! A small client of the public API, as any integrator would write one: waits out limits, repeats what may be
//! repeated, and keeps the problem's code when it gives up.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde_json::Value;

/// How often a call is repeated before its failure counts.
const MAX_TRIES: u32 = 8;
/// Above this a server's `Retry-After` is not waited for.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Why a call did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server said no.
    #[error("{method} {path}: {status} {code}: {detail}")]
    Refused { method: Method, path: String, status: u16, code: String, detail: String },
    /// Nothing, or nothing readable, came back.
    #[error("{method} {path}: {reason}")]
    NoAnswer { method: Method, path: String, reason: String },
}

impl Failure {
    /// The problem's stable code; `no-answer` when there was none.
    pub fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            Self::NoAnswer { .. } => "no-answer",
        }
    }
}

#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
    patient: bool,
}

impl Api {
    /// Talks to the gateway at `url`, as nobody.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .connect_timeout(Duration::from_secs(3))
            .no_proxy()
            .user_agent(concat!("marquee/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { http, url: url.trim_end_matches('/').to_owned(), token: None, patient: true })
    }

    /// The same, every refusal being final: for those who count refusals.
    #[must_use]
    pub fn impatient(mut self) -> Self {
        self.patient = false;
        self
    }

    /// The same person at another gateway.
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), ..self.clone() }
    }

    /// The same connections, as somebody.
    pub async fn signed_in(&self, username: &str, password: &str) -> Result<Self, Failure> {
        let body = serde_json::json!({"grant_type": "password", "username": username, "password": password});
        let answer = self.call(Method::POST, "/v1/auth/token", Some(&body), None).await?;
        let token = answer["access_token"].as_str().map(str::to_owned);
        Ok(Self { token, ..self.clone() })
    }

    /// The access token, of somebody.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None::<&()>, None).await
    }

    pub async fn put(&self, path: &str, body: &impl Serialize) -> Result<Value, Failure> {
        self.call(Method::PUT, path, Some(body), None).await
    }

    /// Under an idempotency key of its own, so that a repeat does nothing twice.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, Failure> {
        let key = format!("{:032x}", rand::random::<u128>());
        self.call(Method::POST, path, Some(body), Some(&key)).await
    }

    /// Every page of a list.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{separator}limit=200{next}")).await?;
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(cursor) => next = format!("&cursor={}", encode(cursor)),
                None => return Ok(items),
            }
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        key: Option<&str>,
    ) -> Result<Value, Failure> {
        self.exchange(&method, path, || {
            let mut request = self.http.request(method.clone(), format!("{}{path}", self.url));
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            if let Some(body) = body { request.json(body) } else { request }
        })
        .await
    }

    /// A body of another kind than JSON.
    pub async fn upload(&self, path: &str, content_type: &str, body: Vec<u8>) -> Result<Value, Failure> {
        self.exchange(&Method::POST, path, || {
            self.http
                .post(format!("{}{path}", self.url))
                .header("content-type", content_type)
                .timeout(Duration::from_secs(120))
                .body(body.clone())
        })
        .await
    }

    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> Result<Value, Failure> {
        let mut tries = 1;
        loop {
            let mut request = request();
            if let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            let (failure, pause) = match request.send().await {
                Ok(answer) => match read(method, path, answer).await {
                    Ok(value) => return Ok(value),
                    Err(outcome) => outcome,
                },
                Err(error) => {
                    let reason = if error.is_timeout() {
                        "no answer in time"
                    } else {
                        "the gateway cannot be reached"
                    };
                    (no_answer(method, path, reason), Some(backoff(tries)))
                }
            };
            match pause {
                Some(pause) if self.patient && tries < MAX_TRIES => tokio::time::sleep(pause).await,
                _ => return Err(failure),
            }
            tries += 1;
        }
    }
}

/// The body, or the failure and how long to wait before trying again, if that makes sense.
async fn read(
    method: &Method,
    path: &str,
    answer: reqwest::Response,
) -> Result<Value, (Failure, Option<Duration>)> {
    let status = answer.status();
    let retry_after = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let text = answer
        .bytes()
        .await
        .map_err(|_| (no_answer(method, path, "the answer did not arrive whole"), Some(backoff(1))))?;
    if status.is_success() {
        if text.is_empty() {
            return Ok(Value::Null);
        }
        return serde_json::from_slice(&text)
            .map_err(|_| (no_answer(method, path, "the answer is not JSON"), None));
    }
    let problem: Value = serde_json::from_slice(&text).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or_default().to_owned();
    let fields: Vec<String> = problem["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|e| {
            format!("{} {}", e["field"].as_str().unwrap_or("?"), e["message"].as_str().unwrap_or_default())
        })
        .collect();
    let failure = Failure::Refused {
        method: method.clone(),
        path: path.to_owned(),
        status: status.as_u16(),
        code: problem["code"].as_str().unwrap_or("unknown").to_owned(),
        detail: if fields.is_empty() { detail } else { format!("{detail} ({})", fields.join("; ")) },
    };
    let again = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    let pause = retry_after.map_or_else(|| backoff(2), Duration::from_secs).min(MAX_PAUSE);
    Err((failure, again.then_some(pause)))
}

fn no_answer(method: &Method, path: &str, reason: &str) -> Failure {
    Failure::NoAnswer { method: method.clone(), path: path.to_owned(), reason: reason.to_owned() }
}

/// Doubling, with a random half, so that many clients do not come back together.
fn backoff(tries: u32) -> Duration {
    let whole_ms = 50_u64 << tries.min(6);
    Duration::from_millis(whole_ms / 2 + rand::random_range(0..=whole_ms / 2))
}

/// Percent-encodes a value for a query string.
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        use std::fmt::Write;
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode("Amélie & Co"), "Am%C3%A9lie%20%26%20Co");
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        assert!(backoff(1) <= Duration::from_millis(100));
        assert!(backoff(40) <= Duration::from_millis(3200));
    }
}
