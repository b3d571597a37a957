//! One region's service: cinemas, halls, shows; the show core and its journal; payments, tickets, check-in.
//!
//! The way of a booking: `reservations` (HTTP) → `host` (one task a show) → `show` (pure decide and apply) →
//! `journal` (Postgres, compare-and-set) → answer; `projection` folds the journal into read models, and
//! `payments` settles what is open.
//!
//! Invariant: this crate reaches no other region's database and knows nothing of the gateway.

pub mod app;
pub mod archive;
mod asking;
pub mod audit;
pub mod bench;
pub mod cinemas;
pub mod config;
mod contacts;
pub mod following;
pub mod halls;
pub mod host;
pub mod journal;
pub mod live;
pub mod metrics;
pub mod movies;
pub mod notices;
mod operators;
pub mod payments;
pub mod projection;
mod refusals;
pub mod relay;
pub mod replicas;
pub mod replication;
pub mod reservations;
pub mod session;
pub mod show;
pub mod shows;
#[cfg(test)]
mod testing;
pub mod tickets;
pub mod verify;

use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use common::authz::{Authority, Permission, Permissions};
use common::http::{Edge, guarded, with_edge};
use common::ops::{Dependency, Health};
use common::personal::MonthKeys;
use common::seal::SealingKey;
use deadpool_postgres::Pool;
use migrations::Schema;
use raft::client::{RegistryClient, RegistryView};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::{OpenApi, RefOr};
use utoipa_axum::router::OpenApiRouter;

use app::{App, Parts};
pub use config::Config;
use journal::Journal;
use replicas::caught_up::CaughtUp;
use session::{Announced, Keeper};

/// How long requests under way may take once the process is told to stop.
const DRAIN: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(500);

/// Every route of the service, with its permission.
fn api() -> (OpenApiRouter<App>, Vec<(&'static str, &'static str, Permission)>) {
    let routes = movies::routes()
        .merge(cinemas::routes())
        .merge(halls::routes())
        .merge(shows::routes())
        .merge(reservations::routes())
        .merge(payments::routes())
        .merge(tickets::routes())
        .merge(operators::routes());
    let permissions = [
        movies::PERMISSIONS,
        cinemas::PERMISSIONS,
        halls::PERMISSIONS,
        shows::PERMISSIONS,
        reservations::PERMISSIONS,
        payments::PERMISSIONS,
        tickets::PERMISSIONS,
        operators::PERMISSIONS,
    ];
    (routes, permissions.concat())
}

/// The guarded routes and their document.
fn router(app: &App) -> anyhow::Result<(Router, OpenApi)> {
    let (routes, permissions) = api();
    let permissions = Permissions::new(Some(app.region().clone()), app.regions().to_vec(), &permissions);
    let (router, mut document) =
        guarded(routes, app.authority().clone(), permissions).map_err(anyhow::Error::msg)?;
    tell_of_archives(&mut document);
    Ok((router.with_state(app.clone()), document))
}

/// Whatever concerns one show may meet one that was archived.
fn tell_of_archives(document: &mut OpenApi) {
    let gone = common::http::problem("`show-archived`: the show is over and its records are archived");
    let of_shows = ["/v1/shows/{", "/v1/reservations/{", "/v1/payments/{", "/v1/tickets/{"];
    for (path, item) in &mut document.paths.paths {
        if of_shows.iter().any(|prefix| path.starts_with(prefix)) {
            let operations =
                [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                operation.responses.responses.entry("410".into()).or_insert(RefOr::T(gone.clone()));
            }
        }
    }
}

/// Runs the service until `stop`.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let health = Health::default();
    let needs = [health.needs("postgres"), health.needs("registry"), health.needs("feed")];
    let ops = common::ops::serve(config.ops_listen.parse()?, "regional", health.clone(), stop.clone());
    let mut ops = tokio::spawn(ops);
    tokio::select! {
        result = serve(config, needs, stop) => result,
        result = &mut ops => result?.context("the operations port"),
    }
}

async fn serve(config: Config, needs: [Dependency; 3], stop: CancellationToken) -> anyhow::Result<()> {
    let [postgres, registered, feed] = needs;
    let listener = tokio::net::TcpListener::bind(&config.listen).await.context("the HTTP port")?;
    let replication =
        replicas::run::bind(&config.replication.listen).context("the port for other regions")?;
    let guard = replicas::guard::Guard::default();
    let (url, connections) = (config.postgres_url.reveal(), config.postgres_connections);
    let pool = migrations::pool_with(url, connections, Some(guard.hook()))?;
    let Some(()) = until(&stop, &postgres, || Schema::Regional.check(&pool)).await else { return Ok(()) };
    let authority = Authority::new(config.issuer.clone());
    let sealing = SealingKey::from_text(config.master_key.reveal()).map_err(anyhow::Error::msg)?;
    let month_keys = MonthKeys::default();
    let kept =
        following::Kept { pool: pool.clone(), sealing: sealing.clone(), month_keys: month_keys.clone() };
    following::load_last(&pool, &authority).await.context("what was last heard from global")?;
    kept.load_month_keys().await.context("the keys of the months")?;
    let ticket_key = tickets::keys::own_key(&pool, &sealing).await.context("the ticket key")?;

    let tls = config.peer_tls.load().context("`peer_tls`")?;
    let registry = RegistryClient::new(&config.registry_urls, &tls)?;
    let view = registry.watch(stop.clone());
    let announced = vec![tickets::keys::announced(&ticket_key)];
    let announced = Announced {
        region: config.region.clone(),
        http_url: config.http_url.clone(),
        replication_url: config.replication.url(),
        ticket_keys: announced,
    };
    let admitted = || replicas::run::admit(&registry, &announced, &guard, &pool);
    let opened = until(&stop, &registered, admitted).await;
    let Some(opened) = opened else { return Ok(()) };
    let caught_up = CaughtUp::among(config.region.clone(), view.clone());
    let keeper = Keeper {
        registry: registry.clone(),
        announced,
        pool: migrations::pool_with(config.postgres_url.reveal(), 1, Some(guard.hook()))?,
        guard: guard.clone(),
        caught_up: caught_up.clone(),
    };
    let session = keeper.start(opened, stop.clone());
    let global = tls.channel(&config.global_grpc_url, common::tls::names::GLOBAL)?;
    following::spawn(kept, authority.clone(), global.clone(), &config.region, feed, stop.clone());

    let provider = payments::TestProvider::new(
        &config.payments.provider_url,
        config.payments.api_key.clone(),
        Duration::from_millis(config.payments.timeout_ms),
    )?;
    let metrics = metrics::Metrics::new(prometheus::default_registry())?;
    let region = config.region.clone();
    let app = App::new(Parts {
        config,
        pool: pool.clone(),
        guard,
        authority,
        month_keys,
        global,
        registry,
        view: view.clone(),
        session,
        endpoints: replicas::peers::sessions_of(view.clone()),
        tls,
        caught_up,
        ticket_key,
        provider: Box::new(provider),
        metrics,
        stop: stop.clone(),
    });
    replicas::run::start(&app, replication);
    app.hosts.follow_registry(&stop);
    let targets = replicas::compare::by_registry(region.clone(), app.session.clone(), app.view.clone());
    replicas::run::compare(&app, targets);
    tokio::spawn(projector(&app).run(stop.clone()));
    tokio::spawn(payments::Reconciler { app: app.clone() }.run(stop.clone()));
    tokio::spawn(payments::Sweep::new(app.clone()).run(stop.clone()));
    tokio::spawn(audit::run(app.clone(), stop.clone()));
    if app.config.notices {
        tokio::spawn(notices::run(app.clone(), stop.clone()));
    }
    tokio::spawn(journal::years::run(pool.clone(), app.metrics.clone(), stop.clone()));
    tokio::spawn(watch_health(pool, postgres, view, registered, stop.clone()));

    tokio::spawn(end_streams(app.clone()));
    tokio::spawn(follow_session(app.clone()));

    let (router, document) = router(&app)?;
    let document = document.to_json()?;
    let router = router.route("/openapi.json", get(move || async move { json(document) }));
    let edge = Edge::new("regional", Some(&region))?;
    let ready = shows::ready_maps(&app, &edge);
    tracing::info!(%region, session = opened, "serving");
    tokio::select! {
        served = common::http::serve_behind(ready, listener, with_edge(router, edge), stop, DRAIN) => served,
        // The next life of the process begins with another session, and recovers.
        lost = replicas::run::until_lost(&app.registry, &app) => Err(lost.into()),
    }
}

/// Watchers' streams never end by themselves, and a server that drains waits for them.
async fn end_streams(app: App) {
    app.stop.cancelled().await;
    for live in app.hosts.lives() {
        live.end();
    }
    app.relay.end();
}

fn json(document: String) -> impl axum::response::IntoResponse {
    ([(http::header::CONTENT_TYPE, "application/json")], document)
}

fn projector(app: &App) -> projection::Projector {
    projection::Projector {
        pool: app.pool.clone(),
        journal: Journal::new(app.pool.clone()),
        hosts: app.hosts.clone(),
        nudge: app.projector.clone(),
        metrics: app.metrics.clone(),
    }
}

/// Whatever was led under a session that has ended is let go of: the registry may have told others that this
/// process is gone.
async fn follow_session(app: App) {
    let mut session = app.session.clone();
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = session.changed() => app.hosts.session_ended().await,
        }
    }
}

/// Tries until it works, saying in `/readyz` why it does not; none when told to stop meanwhile.
async fn until<T, F: Future<Output = anyhow::Result<T>>>(
    stop: &CancellationToken,
    dependency: &Dependency,
    attempt: impl Fn() -> F,
) -> Option<T> {
    loop {
        match attempt().await {
            Ok(value) => {
                dependency.up();
                return Some(value);
            }
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "not there yet");
                dependency.down(format!("{error:#}"));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Keeps `/readyz` true: own dependencies only, never another region.
async fn watch_health(
    pool: Pool,
    postgres: Dependency,
    view: RegistryView,
    registry: Dependency,
    stop: CancellationToken,
) {
    let mut period = tokio::time::interval(Duration::from_secs(1));
    while !stop.is_cancelled() {
        period.tick().await;
        let reached = async { anyhow::Ok(pool.get().await?.simple_query("SELECT 1").await?) };
        match tokio::time::timeout(Duration::from_secs(3), reached).await {
            Ok(Ok(_)) => postgres.up(),
            Ok(Err(error)) => postgres.down(error.to_string()),
            Err(_) => postgres.down("no answer in time"),
        }
        // Present owners go on without the registry; it is missing only until it was first heard.
        if view.is_synced() {
            registry.up();
        } else {
            registry.down("not heard from yet");
        }
    }
}
