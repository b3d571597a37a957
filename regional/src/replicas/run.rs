//! What a regional process runs for its replicas: the port for other regions, and the recovery of a store that
//! lost its tail.

use std::sync::Arc;

use tonic::transport::server::TcpIncoming;

use super::{recovery, server};
use crate::app::App;

/// Takes the port; `ip:port`.
pub fn bind(listen: &str) -> anyhow::Result<TcpIncoming> {
    let incoming = TcpIncoming::bind(listen.parse()?);
    Ok(incoming.map_err(|error| anyhow::anyhow!("{listen}: {error}"))?.with_nodelay(Some(true)))
}

/// Until the process stops.
pub fn start(app: &App, incoming: TcpIncoming) {
    let (region, view) = (app.region().clone(), app.view.clone());
    let served = server::Means {
        region: region.clone(),
        regions: app.regions().to_vec(),
        session: app.session.clone(),
        store: app.replicas.clone(),
        pool: app.pool.clone(),
        incarnation: Arc::new(move || view.incarnation(&region)),
        stop: app.stop.clone(),
    };
    tokio::spawn(async move {
        if let Err(error) = server::serve(incoming, served).await {
            tracing::error!(%error, "the port for other regions");
        }
    });
    let (view, registry) = (app.view.clone(), app.registry.clone());
    let records = recovery::ByRegistry { region: app.region().clone(), view, registry };
    tokio::spawn(recovery::run(recovery::Means {
        region: app.region().clone(),
        session: app.session.clone(),
        store: app.replicas.clone(),
        pool: app.pool.clone(),
        records: Arc::new(records),
        stop: app.stop.clone(),
    }));
}
