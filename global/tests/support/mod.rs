//! The service as it runs, on free ports and a Postgres of its own; spoken to as its callers do.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its own part; tests may unwrap")]

pub mod mails;

use std::time::{Duration, Instant};

use common::config::{Config as _, Secret};
use global::{Argon2Config, BootstrapAdmin, Config};
use migrations::Schema;
use migrations::testing::TestPostgres;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const PASSWORD: &str = "a seat in row F";
pub const DEADLINE: Duration = Duration::from_secs(10);

pub struct Service {
    pub config: Config,
    pub client: reqwest::Client,
    stop: CancellationToken,
    running: Option<JoinHandle<anyhow::Result<()>>>,
}

fn free_address() -> String {
    common::loopback::unused_address().unwrap().to_string()
}

pub fn config(postgres_url: &str) -> Config {
    let config = Config {
        listen: free_address(),
        ops_listen: free_address(),
        grpc_listen: free_address(),
        postgres_url: Secret::new(postgres_url),
        master_key: Secret::new("a master key for tests only"),
        regions: ["eu", "us", "ap"].iter().map(|r| r.parse().unwrap()).collect(),
        argon2: Argon2Config { memory_kib: 256, iterations: 1, ..Argon2Config::default() },
        bootstrap_admin: BootstrapAdmin {
            username: "root".into(),
            email: "root@marquee.example".into(),
            password: Secret::new(PASSWORD),
        },
        ..Config::default()
    };
    assert_eq!(config.problems(), Vec::<String>::new());
    config
}

/// A Postgres with an empty global database, and the service on it.
pub async fn start() -> (TestPostgres, Service) {
    let postgres = TestPostgres::start();
    let url = postgres.migrated("global", Schema::Global).await;
    let service = Service::start(config(&url)).await;
    (postgres, service)
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self
    }

    /// A problem with this status and code.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.body["code"], code, "{}", answer.body);
        answer
    }

    pub fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_else(|| panic!("{field} in {}", self.body)).to_owned()
    }

    pub fn etag(&self) -> String {
        self.headers["etag"].to_str().unwrap().to_owned()
    }
}

impl Service {
    pub async fn start(config: Config) -> Self {
        let stop = CancellationToken::new();
        let running = tokio::spawn(global::run(config.clone(), stop.clone()));
        let mut service = Self { config, client: reqwest::Client::new(), stop, running: Some(running) };
        service.until_ready().await;
        service
    }

    async fn until_ready(&mut self) {
        let url = format!("http://{}/readyz", self.config.ops_listen);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if self.running.as_ref().unwrap().is_finished() {
                panic!("the service ended: {:?}", self.running.take().unwrap().await);
            }
            if self.client.get(&url).send().await.is_ok_and(|r| r.status() == StatusCode::OK) {
                return;
            }
            assert!(Instant::now() < deadline, "not ready in time");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops it gracefully.
    pub async fn stop(mut self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.running.take().unwrap()).await.unwrap().unwrap().unwrap();
    }

    pub fn request(&self, method: Method, path: &str, token: Option<&str>) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("http://{}{path}", self.config.listen));
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status, headers, body }
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.send(self.request(Method::GET, path, Some(token))).await
    }

    pub async fn call(&self, method: Method, path: &str, token: &str, body: Value) -> Answer {
        let token = (!token.is_empty()).then_some(token);
        self.send(self.request(method, path, token).json(&body)).await
    }

    pub async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call(Method::POST, path, token, body).await
    }

    pub async fn put(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, token, body).await
    }

    pub async fn patch(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, token, body).await
    }

    pub async fn delete(&self, path: &str, token: &str) -> Answer {
        self.send(self.request(Method::DELETE, path, Some(token))).await
    }

    /// Signs up; answers the user's id.
    pub async fn sign_up(&self, username: &str) -> String {
        let body = json!({
            "email": format!("{username}@marquee.example"),
            "username": username,
            "name": "Some Body",
            "password": PASSWORD,
        });
        self.post("/v1/auth/signup", "", body).await.expect(201).text("id")
    }

    pub async fn sign_in(&self, username: &str) -> Answer {
        let form = [("grant_type", "password"), ("username", username), ("password", PASSWORD)];
        self.send(self.request(Method::POST, "/v1/auth/token", None).form(&form)).await
    }

    /// An access token.
    pub async fn token(&self, username: &str) -> String {
        self.sign_in(username).await.expect(200).text("access_token")
    }

    pub async fn refresh(&self, refresh_token: &str) -> Answer {
        let body = json!({ "grant_type": "refresh_token", "refresh_token": refresh_token });
        self.post("/v1/auth/token", "", body).await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits until it holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
