//! Fake services on real sockets, a real private Redis, and gateways in front of them.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::future::Future;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

pub mod mmdb;
pub mod registry;

use axum::body::Body;
use bytes::Bytes;
use common::RegionName;
use common::config::Secret;
use common::http::Edge;
use gateway::app::App;
use gateway::config::RegionConfig;
use gateway::metrics::Metrics;
use gateway::ownership::Ownership;
use gateway::{Config, Gateway};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

/// A request as a fake service got it.
#[derive(Clone, Debug)]
pub struct Got {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// What a fake does with a request.
pub enum Reply {
    Answer(Response<Body>),
    /// Closes the connection without a word.
    Break,
    /// Answers after a while.
    Later(Duration, Response<Body>),
    /// Never answers.
    Hang,
    /// Never answers, and drops what it holds when the asker goes away.
    HangHolding(tokio_util::sync::DropGuard),
}

pub fn answer(status: u16, body: impl Into<Body>) -> Reply {
    Reply::Answer(Response::builder().status(status).body(body.into()).unwrap())
}

pub fn json(status: u16, body: &serde_json::Value) -> Reply {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status.try_into().unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    Reply::Answer(response)
}

pub fn not_owner(owner: &str, epoch: u64) -> Reply {
    json(421, &serde_json::json!({"code": "not-owner", "status": 421, "owner": owner, "epoch": epoch}))
}

/// An HTTP service that keeps what it got.
pub struct Fake {
    pub addr: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

type Handler = dyn Fn(&Got, usize) -> Reply + Send + Sync;

impl Fake {
    /// `handler` gets the request and how many came before it.
    pub async fn start(handler: impl Fn(&Got, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), handler).await
    }

    pub async fn start_on(
        addr: SocketAddr,
        handler: impl Fn(&Got, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serving(TcpListener::bind(addr).await.unwrap(), handler)
    }

    pub fn serving(
        listener: TcpListener,
        handler: impl Fn(&Got, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let addr = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let handler: Arc<Handler> = Arc::new(handler);
        let (kept, until) = (got.clone(), stop.clone());
        let tasks = TaskTracker::new();
        let served = tasks.clone();
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = until.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, _)) = accepted else { continue };
                let (kept, handler, until) = (kept.clone(), handler.clone(), until.clone());
                served.spawn(async move {
                    let service =
                        hyper::service::service_fn(|request| serve(request, kept.clone(), handler.clone()));
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        () = until.cancelled() => {}
                        _ = served => {}
                    }
                });
            }
        });
        Self { addr, got, stop, tasks }
    }

    /// Ends it, and returns when nothing of it is left: its port closed, and all its connections.
    pub async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub async fn ok(name: &'static str) -> Self {
        Self::start(move |_, _| answer(200, name)).await
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What came, without the gateway's own questions.
    pub fn got(&self) -> Vec<Got> {
        let all = self.got.lock().unwrap();
        all.iter().filter(|got| got.uri.path() != "/openapi.json").cloned().collect()
    }
}

async fn serve(
    request: Request<Incoming>,
    kept: Arc<Mutex<Vec<Got>>>,
    handler: Arc<Handler>,
) -> Result<Response<Body>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let got = Got { method: head.method, uri: head.uri, headers: head.headers, body };
    let own_question = got.uri.path() == "/openapi.json";
    let before = {
        let mut kept = kept.lock().unwrap();
        let before = kept.iter().filter(|got| got.uri.path() != "/openapi.json").count();
        kept.push(got.clone());
        before
    };
    let reply = handler(&got, if own_question { 0 } else { before });
    match reply {
        Reply::Answer(response) => Ok(response),
        Reply::Break => Err(std::io::Error::other("broken on purpose")),
        Reply::Later(pause, response) => {
            tokio::time::sleep(pause).await;
            Ok(response)
        }
        Reply::Hang => std::future::pending().await,
        Reply::HangHolding(_held) => std::future::pending().await,
    }
}

/// An address where nobody listens.
pub async fn closed_port() -> SocketAddr {
    common::loopback::unused_address().unwrap()
}

/// A configuration whose upstreams are all away, until a test names them.
pub async fn config(regions: &[(&str, String)]) -> Config {
    let away = format!("http://{}", closed_port().await);
    Config {
        region: region(regions[0].0),
        regions: regions
            .iter()
            .map(|(name, url)| RegionConfig {
                name: region(name),
                display_name: name.to_uppercase(),
                gateway_url: format!("https://{name}.example"),
                regional_url: url.clone(),
                latitude: None,
                longitude: None,
            })
            .collect(),
        global_url: away.clone(),
        global_grpc_url: away.clone(),
        registry_urls: vec![away],
        redis_url: Secret::new(format!("redis://{}", closed_port().await)),
        ..Config::default()
    }
}

/// Metrics and the edge are registered once a process.
pub fn instruments() -> (Edge, Metrics) {
    static ONCE: OnceLock<(Edge, Metrics)> = OnceLock::new();
    ONCE.get_or_init(|| (Edge::new("gateway", Some(&region("eu"))).unwrap(), Metrics::register().unwrap()))
        .clone()
}

/// A gateway that serves until dropped.
pub struct Running {
    pub url: String,
    pub addr: SocketAddr,
    pub app: App,
    pub metrics: Metrics,
    pub http: reqwest::Client,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Running {
    pub async fn start(config: Config) -> Self {
        let stop = CancellationToken::new();
        let (edge, metrics) = instruments();
        let ownership =
            Ownership::follow(&config.registry_urls, &common::tls::Tls::plain(), stop.clone()).unwrap();
        let app = Gateway::new(&config, ownership, metrics.clone()).unwrap();
        app.start_background(&stop);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let public = gateway::Public::new(app.clone(), edge, &config).unwrap();
        let (served, until) = (app.clone(), stop.clone());
        tokio::spawn(async move {
            gateway::server::serve(listener, public, &served, &config, until, Duration::ZERO).await
        });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { url: format!("http://{addr}"), addr, app, metrics, http, stop }
    }

    pub fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{}{path}", self.url))
    }

    pub fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }
}

pub async fn problem(response: reqwest::Response) -> serde_json::Value {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert!(response.headers().contains_key("x-region"));
    let body: serde_json::Value = response.json().await.unwrap();
    assert_eq!(body["instance"], id.as_str());
    body
}

/// Waits for a condition, not for a time.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds().await {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A private Redis that keeps nothing on disk; ended when dropped.
pub struct Redis {
    child: Child,
    pub addr: SocketAddr,
}

impl Redis {
    pub async fn start(addr: SocketAddr) -> Self {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &addr.port().to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir", "/tmp"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0) {
            // `nobody`: a server needs no rights.
            std::os::unix::process::CommandExt::uid(&mut command, 65534);
        }
        let child = command.spawn().expect("redis-server is installed");
        let redis = Self { child, addr };
        eventually("redis answers", || async { redis.keys().await.is_some() }).await;
        redis
    }

    pub fn url(&self) -> Secret {
        Secret::new(format!("redis://{}", self.addr))
    }

    /// All keys; none when it does not answer.
    pub async fn keys(&self) -> Option<Vec<String>> {
        let client = redis::Client::open(self.url().reveal()).unwrap();
        let ask = async {
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            redis::cmd("KEYS").arg("*").query_async(&mut connection).await.ok()
        };
        tokio::time::timeout(Duration::from_secs(1), ask).await.ok().flatten()
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have been ended by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
