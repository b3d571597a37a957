//! The global service: accounts, sessions, signing keys, roles and policy, the catalogue's write half, the
//! audit log, and the feed by which every other service follows them.
//!
//! Invariant: a change, its place in the feed and its audit line commit in one transaction. What regions
//! have (cinemas, shows, tickets) is unknown here.

mod accounts;
mod app;
mod audit;
mod client;
mod config;
mod db;
mod fault;
mod feed;
mod keys;
mod mail;
mod metrics;
mod movies;
mod notices;
mod passwords;
mod person_keys;
mod policy;
mod routes;
mod sms;
mod start;
mod teller;
mod throttle;
mod upkeep;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::http::{Edge, serve, with_edge};
use common::ops::Health;
use common::proto::audit::audit_log_server::AuditLogServer;
use common::proto::feed::feed_server::FeedServer;
use common::proto::notices::notices_server::NoticesServer;
use common::seal::SealingKey;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub use config::{Argon2Config, BootstrapAdmin, Config};
pub use mail::MailConfig;
pub use sms::SmsConfig;

use crate::app::App;

/// How long requests under way may take once the process is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs the service until `stop`; fails when it cannot start.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let health = Health::default();
    let (postgres, schema, authority) =
        (health.needs("postgres"), health.needs("schema"), health.needs("authority"));
    let ops_listen = Config::address(&config.ops_listen)?;
    let ops = tokio::spawn(common::ops::serve(ops_listen, "global", health, stop.clone()));
    // Whatever ends the service ends its tasks.
    let inner = stop.child_token();
    let _guard = inner.clone().drop_guard();

    let transport = mail::transport::Transport::new(&config.mail)?.map(Arc::new);
    let sms_provider = sms::provider::of(&config.sms)?;
    let app = App::new(config)?;
    if !start::wait_for_schema(&app, &schema, &inner).await? {
        return Ok(());
    }
    start::seed(&app).await?;

    let tasks = TaskTracker::new();
    tasks.spawn(app.feed.clone().watch_head(postgres, inner.clone()));
    let (own_authority, keys) = (app.authority.clone(), app.keys.clone());
    tasks.spawn(app.feed.clone().follow_own(
        own_authority,
        keys,
        app.month_keys.clone(),
        authority,
        inner.clone(),
    ));
    tasks.spawn(upkeep::run(app.clone(), inner.clone()));
    let (mails, messages) = (transport.is_some(), sms_provider.is_some());
    if let Some(transport) = transport.clone() {
        tasks.spawn(mail::sender::run_orders(app.clone(), transport, inner.clone()));
    }
    tasks.spawn(mail::sender::run(app.clone(), transport, inner.clone()));
    if let Some(provider) = sms_provider {
        tasks.spawn(sms::sender::run(app.clone(), provider, inner.clone()));
    }

    let grpc_listener = TcpListener::bind(Config::address(&app.config.grpc_listen)?).await?;
    let tls = app.config.peer_tls.load()?;
    let feed = feed::server::Server { feed: app.feed.clone(), tls: tls.clone(), stop: inner.clone() };
    let audit = audit::regions::Server { pool: app.pool.clone(), tls: tls.clone() };
    let notices = notices::server::Server { app: app.clone(), tls: tls.clone(), mails, messages };
    let incoming = tls.incoming(TcpIncoming::from(grpc_listener).with_nodelay(Some(true)));
    let grpc = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_service(FeedServer::new(feed))
        .add_service(AuditLogServer::new(audit))
        .add_service(NoticesServer::new(notices))
        .serve_with_incoming_shutdown(incoming, inner.clone().cancelled_owned());
    let mut grpc = tokio::spawn(grpc);

    let listener = TcpListener::bind(Config::address(&app.config.listen)?).await?;
    tracing::info!(listen = app.config.listen, grpc_listen = app.config.grpc_listen, "global serves");
    let router = with_edge(routes::router(app)?, edge()?);
    let http = serve(listener, router, inner.clone(), DRAIN);
    tokio::select! {
        ended = http => ended?,
        ended = &mut grpc => ended??,
    }
    inner.cancel();
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!("some tasks outlived the drain time");
    }
    grpc.abort();
    ops.abort();
    Ok(())
}

/// `marquee global rotate-keys`: makes a new signing key; running services hear of it by the feed. Answers its
/// id.
pub async fn rotate_keys(config: &Config, drop_others: bool) -> anyhow::Result<String> {
    let pool = migrations::pool(config.postgres_url.reveal(), 1)?;
    migrations::Schema::Global.check(&pool).await?;
    let sealing = SealingKey::from_text(config.master_key.reveal()).map_err(anyhow::Error::msg)?;
    let keys = keys::KeyRing::new(sealing);
    // A key sealed under another master key than the running services have would stop them.
    keys.reload(&pool).await?;
    keys.rotate(&pool, drop_others).await.map_err(|fault| anyhow::anyhow!(fault.into_problem().detail))
}

/// The HTTP metrics are a process's, not a service's: a second run in one process (tests) shares them.
fn edge() -> anyhow::Result<Edge> {
    static EDGE: Mutex<Option<Edge>> = Mutex::new(None);
    let mut slot = EDGE.lock().unwrap_or_else(PoisonError::into_inner);
    match &*slot {
        Some(edge) => Ok(edge.clone()),
        None => Ok(slot.insert(Edge::new("global", None)?).clone()),
    }
}
