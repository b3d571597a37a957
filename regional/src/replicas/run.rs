//! What a regional process runs for its replicas: the port for other regions, and the recovery of a store that
//! lost its tail.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use raft::client::{Beat, Mark, RegistryClient, RegistryError};
use tonic::transport::server::TcpIncoming;

use super::guard::{Guard, Lost, StoreMark};
use super::{compare, recovery, server};
use crate::app::App;
use crate::session::Announced;

/// How long one beat may take.
const BEAT: Duration = Duration::from_secs(2);
/// Between two tries to tell the registry of a loss.
const PAUSE: Duration = Duration::from_millis(300);

/// Takes the port; `ip:port`.
pub fn bind(listen: &str) -> anyhow::Result<TcpIncoming> {
    let incoming = TcpIncoming::bind(listen.parse()?);
    Ok(incoming.map_err(|error| anyhow::anyhow!("{listen}: {error}"))?.with_nodelay(Some(true)))
}

/// Opens a session, once the store is known to be no earlier than the registry heard of it. Else the registry counts
/// its incarnation on, which ends the session again; to be called anew.
pub async fn admit(
    registry: &RegistryClient,
    announced: &Announced,
    guard: &Guard,
    pool: &Pool,
) -> anyhow::Result<u64> {
    // Whoever cannot be asked has no place among those who serve.
    guard.check(pool, None).await?;
    let session = announced.open(registry).await?;
    // Nothing is said of the store before it is compared with what was heard of it.
    let asking = Beat { healthy: false, caught_up: false };
    let told = registry.beat(session, &announced.region, asking, None, BEAT).await?;
    if let Err(error) = guard.check(pool, told.highest.map(StoreMark::from)).await {
        anyhow::ensure!(guard.lost().is_some(), error);
        registry.store_lost(&announced.region, told.incarnation).await?;
        guard.begin_anew();
        anyhow::bail!("{error:#}; the registry has counted its incarnation on");
    }
    guard.is_of(told.incarnation);
    Ok(session)
}

/// Ends when the store was found to have gone back in time, and the registry knows it.
pub async fn until_lost(registry: &RegistryClient, app: &App) -> Lost {
    let guard = app.replicas.guard();
    let lost = guard.until_lost().await;
    // What is led here rests on what is gone.
    app.hosts.retire();
    app.replicas.metrics().store_lost.inc();
    loop {
        match registry.store_lost(app.region(), guard.incarnation()).await {
            Ok(_) => return lost,
            Err(RegistryError::Refused(why)) => {
                // Another process of the region was faster.
                tracing::info!(?why, "the registry knows of another incarnation");
                return lost;
            }
            Err(error) => tracing::error!(%error, %lost, "the registry is not told yet"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl From<Mark> for StoreMark {
    fn from(Mark { system, timeline, flushed }: Mark) -> Self {
        Self { system, timeline, flushed }
    }
}

impl From<StoreMark> for Mark {
    fn from(StoreMark { system, timeline, flushed }: StoreMark) -> Self {
        Self { system, timeline, flushed }
    }
}

/// Until the process stops.
pub fn start(app: &App, incoming: TcpIncoming) {
    let (region, view, guard) = (app.region().clone(), app.view.clone(), app.replicas.guard().clone());
    let served = server::Means {
        region: region.clone(),
        regions: app.regions().to_vec(),
        session: app.session.clone(),
        store: app.replicas.clone(),
        pool: app.pool.clone(),
        incarnation: Arc::new(move || view.incarnation(&region).max(guard.incarnation())),
        tls: app.tls.clone(),
        caught_up: app.caught_up.clone(),
        stop: app.stop.clone(),
    };
    tokio::spawn(async move {
        if let Err(error) = server::serve(incoming, served).await {
            tracing::error!(%error, "the port for other regions");
        }
    });
    let (view, registry) = (app.view.clone(), app.registry.clone());
    let guard = app.replicas.guard().clone();
    let records = recovery::ByRegistry { region: app.region().clone(), view, registry, guard };
    tokio::spawn(recovery::run(recovery::Means {
        region: app.region().clone(),
        session: app.session.clone(),
        store: app.replicas.clone(),
        pool: app.pool.clone(),
        records: Arc::new(records),
        tls: app.tls.clone(),
        caught_up: app.caught_up.clone(),
        stop: app.stop.clone(),
    }));
}

/// Tells other regions what they lack, until the process stops.
pub fn compare(app: &App, targets: compare::Targets) {
    tokio::spawn(compare::run(compare::Means {
        region: app.region().clone(),
        session: app.session.clone(),
        pool: app.pool.clone(),
        view: app.view.clone(),
        hosts: app.hosts.clone(),
        targets,
        tls: app.tls.clone(),
        stop: app.stop.clone(),
    }));
}
