//! Everything a request may need, in one value.

use std::sync::Arc;
use std::time::Duration;

use common::authz::Authority;
use tokio_util::sync::CancellationToken;

use crate::address::Network;
use crate::config::{Config, Upstream};
use crate::directory::Directory;
use crate::limits::Limiter;
use crate::metrics::Metrics;
use crate::nearest::{Places, open_places};
use crate::openapi::{self, Document};
use crate::ownership::Ownership;
use crate::proxy::{Client, SharedStreams, Waiting};
use crate::server::pressure::Pressure;
use crate::server::workers;

pub type App = Arc<Gateway>;

const SWEEP_EVERY: Duration = Duration::from_secs(15);

/// The gateway's dependencies.
pub struct Gateway {
    pub upstream: Upstream,
    /// How long a body may pause.
    pub body_idle: Duration,
    pub directory: Directory,
    pub ownership: Ownership,
    pub client: Client,
    pub authority: Arc<Authority>,
    pub limiter: Limiter,
    pub trusted: Vec<Network>,
    pub places: Option<Places>,
    pub waiting: Waiting,
    pub streams: Arc<SharedStreams>,
    pub pressure: Arc<Pressure>,
    pub document: Document,
    pub metrics: Metrics,
}

impl Gateway {
    pub fn new(config: &Config, ownership: Ownership, metrics: Metrics) -> anyhow::Result<App> {
        let connect_timeout = Duration::from_millis(config.upstream.connect_timeout_ms);
        let trusted: Result<Vec<Network>, _> = config.trusted_proxies.iter().map(|t| t.parse()).collect();
        let workers = workers::count(config.server.workers);
        Ok(Arc::new(Self {
            upstream: config.upstream.clone(),
            body_idle: Duration::from_millis(config.server.body_idle_timeout_ms),
            directory: Directory::new(config)?,
            ownership,
            client: Client::new(connect_timeout, metrics.clone()),
            authority: Authority::new(&config.issuer),
            limiter: Limiter::new(
                config.limits.clone(),
                config.redis_url.reveal(),
                workers,
                metrics.clone(),
            )?,
            trusted: trusted?,
            places: open_places(config)?,
            waiting: Waiting::new(config.upstream.max_waiting, config.upstream.max_waiting_kib),
            streams: SharedStreams::counting(metrics.watchers.clone(), metrics.watchers_dropped.clone())
                .into(),
            pressure: Pressure::new(Duration::from_millis(config.server.max_lag_ms), workers).into(),
            document: Document::default(),
            metrics,
        }))
    }

    /// The work beside the requests: probes, the document, the limiter's broom. Until `stop`.
    pub fn start_background(self: &Arc<Self>, stop: &CancellationToken) {
        let (app, until) = (self.clone(), stop.clone());
        tokio::spawn(async move { app.directory.probe(&app.client, until).await });
        let (app, until) = (self.clone(), stop.clone());
        tokio::spawn(async move { app.directory.follow(&app.ownership, until).await });
        let (app, until) = (self.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = until.cancelled() => {}
                () = openapi::keep_fresh(&app) => {}
                () = sweep(&app) => {}
            }
        });
    }
}

/// Lets go of what nobody has used for long.
async fn sweep(app: &Gateway) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        app.limiter.sweep();
        app.directory.sweep();
    }
}
