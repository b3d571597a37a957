//! A small HTTP client for one gateway and one caller. Every answer knows what was asked, so that a failed
//! expectation tells the whole exchange; every error answer is held to the form of RFC 9457.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// How often a 429 was waited out; told at the end, since a limit that bites a patient client matters.
pub static WAITED_OUT: AtomicU64 = AtomicU64::new(0);

const PATIENCE: u32 = 60;

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    pub fn new(http: reqwest::Client, base: &str) -> Self {
        Self { http, base: base.trim_end_matches('/').to_owned(), token: None }
    }

    /// The same gateway, as whoever the token proves.
    pub fn bearing(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same caller at another gateway.
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), ..self.clone() }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    pub fn call(&self, method: Method, path: &str) -> Call {
        Call {
            http: self.http.clone(),
            method,
            url: format!("{}{path}", self.base),
            token: self.token.clone(),
            headers: HeaderMap::new(),
            body: None,
            chunked: false,
            patient: true,
        }
    }

    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: Value) -> Call {
        self.call(Method::POST, path).json(body)
    }

    /// A POST with a fresh idempotency key.
    pub fn post_once(&self, path: &str, body: Value) -> Call {
        self.post(path, body).key(&fresh_key())
    }
}

/// An idempotency key (or nonce) that nobody has used.
pub fn fresh_key() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("test-{:016x}-{}", rand::random::<u64>(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A request under construction; awaiting it sends it.
#[derive(Clone)]
pub struct Call {
    http: reqwest::Client,
    method: Method,
    url: String,
    token: Option<String>,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
    chunked: bool,
    patient: bool,
}

impl Call {
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, HeaderValue::from_str(value).expect("a header's value"));
        self
    }

    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub fn json(self, body: Value) -> Self {
        self.raw("application/json", body.to_string().into_bytes())
    }

    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        let escape = |text: &str| {
            let bytes = text.bytes().map(|b| match b {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(b).to_string(),
                _ => format!("%{b:02X}"),
            });
            bytes.collect::<String>()
        };
        let pairs: Vec<String> = fields.iter().map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect();
        self.raw("application/x-www-form-urlencoded", pairs.join("&").into_bytes())
    }

    pub fn raw(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("content-type", content_type)
    }

    /// Sends the body in pieces, with no length in advance.
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// Takes a 429 as the answer instead of waiting it out.
    pub fn impatient(mut self) -> Self {
        self.patient = false;
        self
    }

    async fn send(&self) -> Result<reqwest::Response, reqwest::Error> {
        let mut request = self.http.request(self.method.clone(), &self.url).headers(self.headers.clone());
        // A header of one's own wins.
        if let (Some(token), false) = (&self.token, self.headers.contains_key("authorization")) {
            request = request.bearer_auth(token);
        }
        if let Some(body) = &self.body {
            request = if self.chunked {
                let pieces: Vec<_> =
                    body.chunks(16 * 1024).map(|c| Ok::<_, Infallible>(c.to_vec())).collect();
                request.body(reqwest::Body::wrap_stream(futures::stream::iter(pieces)))
            } else {
                request.body(body.clone())
            };
        }
        request.send().await
    }

    /// The status alone; a body without end is not waited for.
    pub async fn status(&self) -> u16 {
        self.stream().await.status().as_u16()
    }

    /// The answer with its body still coming.
    pub async fn stream(&self) -> reqwest::Response {
        match self.begin().await {
            Ok(response) => response,
            Err(error) => panic!("{self}\n  had no answer: {error:?}"),
        }
    }

    /// Sends it; the error is one of transport (nothing listens, the connection broke, 60 s passed).
    pub async fn attempt(&self) -> Result<Answer, reqwest::Error> {
        let response = self.begin().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await?.to_vec();
        Ok(Answer { asked: self.to_string(), status, headers, body })
    }

    /// The answer's head, once it is not 429.
    async fn begin(&self) -> Result<reqwest::Response, reqwest::Error> {
        let mut refusals = 0;
        loop {
            let response = self.send().await?;
            if !self.patient || response.status() != StatusCode::TOO_MANY_REQUESTS || refusals >= PATIENCE {
                return Ok(response);
            }
            refusals += 1;
            WAITED_OUT.fetch_add(1, Ordering::Relaxed);
            let after =
                response.headers().get("retry-after").and_then(|secs| secs.to_str().ok()?.parse().ok());
            tokio::time::sleep(Duration::from_secs(after.expect("a 429 says when to come back"))).await;
        }
    }
}

/// With a header of any bytes, well-formed text or not.
pub fn adorned(mut call: Call, name: &'static str, value: &[u8]) -> Call {
    call.headers.insert(name, HeaderValue::from_bytes(value).expect("bytes that HTTP can carry"));
    call
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = self.body.as_deref().map(short).unwrap_or_default();
        write!(f, "{} {} {body}", self.method, self.url)
    }
}

impl IntoFuture for Call {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.attempt().await {
                Ok(answer) => answer,
                Err(error) => panic!("{self}\n  had no answer: {error:?}"),
            }
        })
    }
}

fn short(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(1500) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], bytes.len()),
        None => text.into_owned(),
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub asked: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  → {} {:?}\n  {}", self.asked, self.status, self.headers, short(&self.body))
    }
}

impl Answer {
    pub fn code(&self) -> u16 {
        self.status.as_u16()
    }

    /// A header's text; empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// The body, if this was the status.
    #[track_caller]
    pub fn ok(&self, status: u16) -> Value {
        assert_eq!(self.code(), status, "{self}");
        assert!(!self.header("x-request-id").is_empty(), "no X-Request-Id: {self}");
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The problem, if it is one with this status and code and has the form that every problem has.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.any_problem();
        assert_eq!((self.code(), body["code"].as_str().unwrap_or_default()), (status, code), "{self}");
        body
    }

    /// Checks the form of a problem (RFC 9457, and what the contract adds).
    #[track_caller]
    pub fn any_problem(&self) -> Value {
        assert!(self.code() >= 400, "not an error: {self}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self}");
        let body = self.json();
        let code = body["code"].as_str().unwrap_or_else(|| panic!("no code: {self}"));
        assert_eq!(body["type"], format!("/problems/{code}"), "{self}");
        assert_eq!(body["status"], self.code(), "{self}");
        assert!(body["title"].is_string() && body["detail"].is_string(), "{self}");
        assert_eq!(body["instance"], self.header("x-request-id"), "{self}");
        for error in body["errors"].as_array().into_iter().flatten() {
            assert!(error["field"].is_string() && error["message"].is_string(), "{self}");
        }
        body
    }

    /// A 422 that names `field` (or something inside it).
    #[track_caller]
    pub fn names_field(&self, field: &str) {
        let body = self.any_problem();
        assert_eq!(self.code(), 422, "{self}");
        let named = body["errors"].as_array().into_iter().flatten().any(|error| {
            let at = error["field"].as_str().unwrap_or_default();
            at == field || at.starts_with(&format!("{field}[")) || at.starts_with(&format!("{field}."))
        });
        assert!(named, "`{field}` is not named: {self}");
    }
}

/// A string member of a JSON object.
#[track_caller]
pub fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_else(|| panic!("no text `{member}` in {value}")).to_owned()
}

/// An array member of a JSON object.
#[track_caller]
pub fn list(value: &Value, member: &str) -> Vec<Value> {
    value[member].as_array().unwrap_or_else(|| panic!("no list `{member}` in {value}")).clone()
}
