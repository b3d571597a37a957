//! One service in one process: its configuration, its logs, its stop.

use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::Path;

use common::config::{self, Config};
use common::telemetry::{self, LogFormat};
use regional::replicas::guard::Lost;
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
    let ended = serve(file, |c: &regional::Config| c.log_format, regional::run).await;
    match ended {
        Err(lost) if lost.is::<Lost>() => Err(begin_anew(&lost)),
        ended => ended,
    }
}

/// Another life of the same process, with nothing of this one's memory: whoever supervises it need not notice.
fn begin_anew(why: &anyhow::Error) -> anyhow::Error {
    tracing::error!(%why, "beginning anew");
    let failed = match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program).args(std::env::args_os().skip(1)).exec(),
        Err(error) => error,
    };
    anyhow::Error::from(failed).context("the process cannot begin anew")
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
