//! Everything a request may need, in one value; and the public surface, made from the routing table.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodFilter, any, get};
use axum::{Router, http};
use common::authz::Authority;
use common::http::{Edge, with_edge};
use tokio_util::sync::CancellationToken;
use utoipa_swagger_ui::SwaggerUi;

use crate::address::Network;
use crate::browser::with_browser_rules;
use crate::config::{Config, Upstream};
use crate::directory::Directory;
use crate::limits::{Limiter, limit};
use crate::metrics::Metrics;
use crate::nearest::{Places, open_places};
use crate::openapi::{self, Document};
use crate::ownership::Ownership;
use crate::proxy::{AnsweredBy, Client, Waiting, proxy};
use crate::{fanout, pages, regions, routes};

pub type App = Arc<Gateway>;

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
    pub document: Document,
    pub metrics: Metrics,
}

impl Gateway {
    pub fn new(config: &Config, ownership: Ownership, metrics: Metrics) -> anyhow::Result<App> {
        let connect_timeout = Duration::from_millis(config.upstream.connect_timeout_ms);
        let trusted: Result<Vec<Network>, _> = config.trusted_proxies.iter().map(|t| t.parse()).collect();
        Ok(Arc::new(Self {
            upstream: config.upstream.clone(),
            body_idle: Duration::from_millis(config.server.body_idle_timeout_ms),
            directory: Directory::new(config)?,
            ownership,
            client: Client::new(connect_timeout, metrics.clone()),
            authority: Authority::new(&config.issuer),
            limiter: Limiter::new(config.limits.clone(), config.redis_url.reveal(), metrics.clone())?,
            trusted: trusted?,
            places: open_places(config)?,
            waiting: Waiting::new(config.upstream.max_waiting, config.upstream.max_waiting_kib),
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
                () = app.limiter.sweep() => {}
            }
        });
    }
}

/// The public routes with all their layers.
pub fn public(app: App, edge: Edge, config: &Config) -> anyhow::Result<Router> {
    // Not as a fallback: layers do not reach fallbacks.
    let not_lists = MethodFilter::POST
        .or(MethodFilter::PUT)
        .or(MethodFilter::PATCH)
        .or(MethodFilter::DELETE)
        .or(MethodFilter::OPTIONS);
    let mut router = Router::new()
        .route("/v1/regions", get(regions::list))
        .route("/v1/regions/nearest", get(regions::nearest))
        .route("/v1/openapi.json", get(openapi::serve))
        .route("/account/verify", get(pages::account))
        .route("/account/reset", get(pages::account))
        .route("/account/tickets", get(pages::tickets))
        .route("/v1/reservations", get(fanout::reservations).on(not_lists, proxy))
        .route("/v1/payments", get(fanout::payments).on(not_lists, proxy));
    for pattern in routes::proxied() {
        router = router.route(pattern, any(proxy));
    }
    let docs = SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/v1/openapi.json"));
    let router = router
        .merge(docs)
        .route_layer(middleware::from_fn_with_state(app.clone(), limit))
        .route_layer(middleware::from_fn_with_state(app.clone(), log_access))
        .with_state(app);
    with_browser_rules(with_edge(router, edge), &config.cors)
}

/// One line a request; the request's id and trace come from the surrounding span. Errors of our own and
/// of services (5xx) are logged where they happen and by the edge.
async fn log_access(
    axum::extract::State(app): axum::extract::State<App>,
    pattern: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let method: http::Method = request.method().clone();
    let started = std::time::Instant::now();
    let response = next.run(request).await;
    if !response.status().is_server_error() {
        let region = match response.extensions().get::<AnsweredBy>() {
            Some(AnsweredBy(Some(region))) => region.as_str(),
            Some(AnsweredBy(None)) => "global",
            None => app.directory.own().name.as_str(),
        };
        let (code, millis) = (response.status().as_u16(), started.elapsed().as_secs_f64() * 1000.0);
        tracing::info!(%method, route = pattern.as_str(), code, millis, region, "request");
    }
    response
}
