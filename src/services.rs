//! One service in one process: its configuration, its logs, its stop.

use std::future::Future;
use std::path::Path;

use common::config::{self, Config};
use common::telemetry::{self, LogFormat};
use tokio_util::sync::CancellationToken;

/// Loads the configuration, starts the logs, and runs the service until SIGTERM or Ctrl-C.
async fn serve<C: Config, F: Future<Output = anyhow::Result<()>>>(
    file: Option<&Path>,
    format: impl Fn(&C) -> LogFormat,
    run: impl FnOnce(C, CancellationToken) -> F,
) -> anyhow::Result<()> {
    let config: C = config::load(file)?;
    telemetry::start(format(&config));
    let stop = CancellationToken::new();
    let signal = stop.clone();
    tokio::spawn(async move {
        common::http::stop_signal().await;
        tracing::info!("asked to stop");
        signal.cancel();
    });
    run(config, stop).await
}

pub async fn global(file: Option<&Path>) -> anyhow::Result<()> {
    serve(file, |c: &global::Config| c.log_format, global::run).await
}

pub async fn regional(file: Option<&Path>) -> anyhow::Result<()> {
    serve(file, |c: &regional::Config| c.log_format, regional::run).await
}

pub async fn raft(file: Option<&Path>) -> anyhow::Result<()> {
    serve(file, |c: &raft::Config| c.log_format, raft::run).await
}

pub async fn gateway(file: Option<&Path>) -> anyhow::Result<()> {
    serve(file, |c: &gateway::Config| c.log_format, gateway::run).await
}

/// The usual design behind a region's handlers, for `marquee bench`.
pub async fn naive(file: Option<&Path>) -> anyhow::Result<()> {
    serve(file, |c: &regional::Config| c.log_format, regional::bench::serve_naive).await
}

pub async fn test_provider(file: Option<&Path>) -> anyhow::Result<()> {
    serve(file, |c: &crate::provider::Config| c.log_format, crate::provider::run).await
}
