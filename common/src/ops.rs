//! Each service's operations port: `/livez`, `/readyz`, `/metrics`. Never reached through the gateway.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use prometheus::{Encoder, TextEncoder};
use tokio_util::sync::CancellationToken;

/// What a process needs before it can serve. Every dependency starts as missing.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

impl Health {
    /// Announces a dependency; until [`Dependency::up`] it is missing.
    pub fn needs(&self, name: &'static str) -> Dependency {
        self.lock().insert(name, Some("not reached yet".into()));
        Dependency { health: self.clone(), name }
    }

    /// `name: why`, for all that is missing.
    pub fn missing(&self) -> Vec<String> {
        self.lock().iter().filter_map(|(name, why)| why.as_ref().map(|w| format!("{name}: {w}"))).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.0.lock().expect("no code panics while holding it")
    }
}

#[derive(Clone)]
pub struct Dependency {
    health: Health,
    name: &'static str,
}

impl Dependency {
    pub fn up(&self) {
        self.health.lock().insert(self.name, None);
    }

    pub fn down(&self, why: impl Into<String>) {
        self.health.lock().insert(self.name, Some(why.into()));
    }
}

/// Serves the operations port for the rest of the process's life; after `stop` it answers "not ready",
/// so that nobody sends more work while the process drains.
pub async fn serve(
    listen: SocketAddr,
    service: &'static str,
    health: Health,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let build = prometheus::IntGauge::with_opts(
        prometheus::Opts::new("marquee_build_info", "Always 1; the labels tell what runs.")
            .const_label("service", service)
            .const_label("version", env!("CARGO_PKG_VERSION")),
    )?;
    build.set(1);
    // A second call in one process (tests) finds it there already.
    let _ = prometheus::register(Box::new(build));

    let draining = health.needs("serving");
    draining.up();
    tokio::spawn(async move {
        stop.cancelled().await;
        draining.down("stopping");
    });

    let app = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(health);
    let listener = tokio::net::TcpListener::bind(listen).await?;
    axum::serve(listener, app).await?;
    Ok(())
}

async fn readyz(State(health): State<Health>) -> Response {
    let missing = health.missing();
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(serde_json::json!({ "ready": missing.is_empty(), "missing": missing }))).into_response()
}

async fn metrics() -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&prometheus::gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
