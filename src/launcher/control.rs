//! How `marquee ctl` reaches a running platform: a loopback port, and a token that only the folder's owner
//! can read. The running launcher does the work, since the processes are its children.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::{Request, State as AppState};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ring::hmac;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::parts::{Place, Service};
use super::platform::{Inner, Platform, lock};
use super::{files, secrets};

const FILE: &str = "control.json";

#[derive(Serialize, Deserialize)]
struct Address {
    url: String,
    token: String,
}

/// One part, as `ctl status` tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub region: String,
    pub service: String,
    /// None when it does not run.
    pub pid: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    place: String,
    service: Option<String>,
}

pub(super) struct ControlServer {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    file: std::path::PathBuf,
}

impl ControlServer {
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(2), self.task).await;
        let _ = std::fs::remove_file(self.file);
    }
}

#[derive(Clone)]
struct App {
    /// Weak: the server must not keep a platform alive that everybody else has dropped.
    platform: std::sync::Weak<Inner>,
    key: Arc<hmac::Key>,
    expected: Arc<hmac::Tag>,
}

pub(super) async fn serve(platform: &Platform) -> anyhow::Result<ControlServer> {
    let inner = &platform.inner;
    let address = {
        let mut ports = lock(&inner.ports);
        ports.release("control");
        ports.address("control")
    };
    let listener = tokio::net::TcpListener::bind(&address).await.context("the control port")?;
    let token = secrets::random();
    let file = inner.folder.root().join(FILE);
    let told = Address { url: format!("http://{address}"), token: token.clone() };
    files::write_private(&file, &serde_json::to_vec(&told)?, None)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
    let expected = Arc::new(hmac::sign(&key, token.as_bytes()));
    let app = App { platform: Arc::downgrade(inner), key: Arc::new(key), expected };
    let routes = Router::new()
        .route("/status", get(status))
        .route("/kill", post(kill))
        .route("/start", post(start))
        .layer(middleware::from_fn_with_state(app.clone(), require_token))
        .with_state(app);
    let stop = CancellationToken::new();
    let server = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
    let task = tokio::spawn(async move {
        let _ = server.await;
    });
    Ok(ControlServer { stop, task, file })
}

async fn require_token(AppState(app): AppState<App>, request: Request, next: Next) -> Response {
    let given =
        request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let given = given.strip_prefix("Bearer ").unwrap_or_default();
    // Hashed first, so that the comparison takes the same time whatever is given.
    if hmac::verify(&app.key, given.as_bytes(), (*app.expected).as_ref()).is_ok() {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, "wrong token").into_response()
    }
}

impl App {
    fn platform(&self) -> Result<Platform, (StatusCode, String)> {
        let inner = self.platform.upgrade();
        inner.map(|inner| Platform { inner }).ok_or((StatusCode::GONE, "the platform is stopping".to_owned()))
    }
}

type Answer<T> = Result<Json<T>, (StatusCode, String)>;

fn refused(error: &anyhow::Error) -> (StatusCode, String) {
    (StatusCode::CONFLICT, format!("{error:#}"))
}

fn parse(target: &Target) -> anyhow::Result<(Place, Option<Service>)> {
    let place = target.place.parse().context("that is neither a region nor `global`")?;
    Ok((place, target.service.as_deref().map(str::parse).transpose()?))
}

async fn status(AppState(app): AppState<App>) -> Answer<Vec<State>> {
    let parts = app.platform()?.parts();
    let states = parts.into_iter().map(|(part, pid)| State {
        region: part.place.to_string(),
        service: part.service.to_string(),
        pid,
    });
    Ok(Json(states.collect()))
}

async fn kill(AppState(app): AppState<App>, Json(target): Json<Target>) -> Answer<Vec<String>> {
    let (place, service) = parse(&target).map_err(|e| refused(&e))?;
    let parts = app.platform()?.kill(&place, service).await.map_err(|e| refused(&e))?;
    Ok(Json(parts.iter().map(ToString::to_string).collect()))
}

async fn start(AppState(app): AppState<App>, Json(target): Json<Target>) -> Answer<Vec<String>> {
    let (place, service) = parse(&target).map_err(|e| refused(&e))?;
    let parts = app.platform()?.start_part(&place, service).await.map_err(|e| refused(&e))?;
    Ok(Json(parts.iter().map(ToString::to_string).collect()))
}

/// The client's side: a platform that another process runs.
pub struct Control {
    address: Address,
    http: reqwest::Client,
}

impl Control {
    pub fn of(data: &Path) -> anyhow::Result<Self> {
        let file = data.join(FILE);
        let text = std::fs::read(&file)
            .with_context(|| format!("no platform runs on {} (no {FILE} there)", data.display()))?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(120)).no_proxy().build()?;
        Ok(Self { address: serde_json::from_slice(&text)?, http })
    }

    pub async fn status(&self) -> anyhow::Result<Vec<State>> {
        self.call(self.http.get(format!("{}/status", self.address.url))).await
    }

    /// Answers the parts that were running.
    pub async fn kill(&self, place: &str, service: Option<&str>) -> anyhow::Result<Vec<String>> {
        self.order("kill", place, service).await
    }

    /// Answers the parts that were not running.
    pub async fn start(&self, place: &str, service: Option<&str>) -> anyhow::Result<Vec<String>> {
        self.order("start", place, service).await
    }

    async fn order(&self, verb: &str, place: &str, service: Option<&str>) -> anyhow::Result<Vec<String>> {
        let target = Target { place: place.to_owned(), service: service.map(str::to_owned) };
        self.call(self.http.post(format!("{}/{verb}", self.address.url)).json(&target)).await
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> anyhow::Result<T> {
        let answer = request
            .bearer_auth(&self.address.token)
            .send()
            .await
            .context("the platform does not answer; has it been stopped?")?;
        if answer.status().is_success() {
            return Ok(answer.json().await?);
        }
        anyhow::bail!("{}", answer.text().await.unwrap_or_default())
    }
}
