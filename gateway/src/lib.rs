//! The edge of a region: one HTTP surface in front of all services.
//!
//! It chooses who answers ([`routes`]), passes requests on ([`proxy`]), counts them ([`limits`]), asks all
//! regions where only all know ([`fanout`]) and publishes the document of the whole ([`openapi`]).
//!
//! Invariant: no business logic and no database. It may be lost at any time; nothing it knows is its own.

mod address;
pub mod app;
mod browser;
pub mod config;
mod directory;
mod fanout;
mod front;
mod identity;
mod limits;
pub mod metrics;
mod nearest;
mod openapi;
pub mod ownership;
mod pages;
mod proxy;
mod regions;
mod routes;
pub mod server;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use common::http::Edge;
use common::ops::Health;
use tokio_util::sync::CancellationToken;

pub use app::Gateway;
pub use config::Config;
pub use front::Public;

use identity::InMemory;
use metrics::Metrics;
use ownership::Ownership;

/// How long requests under way may take once the process is told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// Without the feed only limits by user are lost, so that a gateway that starts while `global` is away
/// waits no longer than this for it.
const FEED_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the gateway until `stop`, then lets it finish what is under way.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let health = Health::default();
    let registry_dependency = health.needs("registry");
    let feed_dependency = health.needs("feed");
    let ops_listen: SocketAddr = config.ops_listen.parse().context("ops_listen")?;
    let ops = common::ops::serve(ops_listen, "gateway", health, stop.clone());

    let serving = async {
        let tls = config.peer_tls.load()?;
        let edge = Edge::new("gateway", Some(&config.region))?;
        let metrics = Metrics::register()?;
        let ownership = Ownership::follow(&config.registry_urls, &tls, stop.clone())?;
        let app = Gateway::new(&config, ownership.clone(), metrics.clone())?;
        app.start_background(&stop);
        tokio::spawn(async move {
            ownership.synced().await;
            registry_dependency.up();
        });
        let patient = feed_dependency.clone();
        tokio::spawn(async move {
            tokio::time::sleep(FEED_PATIENCE).await;
            patient.up();
        });
        let follower = InMemory::new(app.authority.clone(), feed_dependency, metrics.clone());
        let channel = tls.channel(&config.global_grpc_url, common::tls::names::GLOBAL)?;
        let name = format!("gateway/{}", config.region);
        tokio::spawn(common::feed::follow(
            channel,
            name,
            common::feed::Wanted::default(),
            follower,
            stop.clone(),
        ));

        let listener = tokio::net::TcpListener::bind(&config.listen)
            .await
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        tracing::info!(listen = config.listen, region = %config.region, "gateway serves");
        let public = Public::new(app.clone(), edge, &config)?;
        server::serve(listener, public, &app, &config, stop.clone(), DRAIN).await
    };
    tokio::select! {
        served = serving => served,
        ops = ops => ops.context("the operations port"),
    }
}
