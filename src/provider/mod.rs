//! A payment provider's stand-in, as somebody else's fake would be: bearer key, idempotent charges and
//! refunds, cancels that defeat a late create, signed webhooks at least once, everything durable.
//!
//! Invariant: what was answered is on disk, and one id never means two charges. It knows nothing of what is
//! being sold; what a charge's card does is chosen by its token (`tok_ok`, `tok_late`, …).

mod api;
mod store;
#[cfg(test)]
mod tests;
mod webhooks;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use common::config::{Secret, check};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use store::{Charge, ChargeStatus, Refund, RefundStatus};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub listen: String,
    /// Where charges, refunds and undelivered webhooks are kept.
    pub data_file: PathBuf,
    pub api_key: Secret,
    pub webhook_secret: Secret,
    /// Tried in turn until one answers 2xx.
    pub webhook_urls: Vec<String>,
    pub log_format: common::telemetry::LogFormat,
}

impl common::config::Config for Config {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        check::socket(&mut problems, "listen", &self.listen);
        check::required(&mut problems, "data_file", &self.data_file.to_string_lossy());
        check::required(&mut problems, "api_key", self.api_key.reveal());
        check::required(&mut problems, "webhook_secret", self.webhook_secret.reveal());
        for url in &self.webhook_urls {
            check::url(&mut problems, "webhook_urls", url);
        }
        problems
    }
}

/// Serves until `stop`.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let store = Arc::new(
        store::Store::open(&config.data_file)
            .with_context(|| format!("the data file {}", config.data_file.display()))?,
    );
    let workers = [
        tokio::spawn(webhooks::settle_late_charges(store.clone(), stop.clone())),
        tokio::spawn(webhooks::deliver(
            store.clone(),
            config.webhook_urls.clone(),
            config.webhook_secret.clone(),
            stop.clone(),
        )),
    ];
    let listener = tokio::net::TcpListener::bind(&config.listen).await.context("listen")?;
    tracing::info!(listen = %config.listen, "the test payment provider is up");
    let app = api::routes(store, config.api_key.reveal());
    common::http::serve(listener, app, stop, Duration::from_secs(1)).await?;
    for worker in workers {
        let _ = tokio::time::timeout(Duration::from_secs(1), worker).await;
    }
    Ok(())
}
