//! What one regional process is told at boot.

use common::RegionName;
use common::config::{Config as Checked, Secret, check};
use common::region::check_distinct_tags;
use common::telemetry::LogFormat;
use common::tls::Certificates;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The region that this process serves.
    pub region: RegionName,
    /// All regions of the platform, this one included.
    pub regions: Vec<RegionName>,
    /// `ip:port` of the HTTP API, for gateways only.
    pub listen: String,
    pub ops_listen: String,
    pub replication: Replication,
    /// Who this process is to the platform's others.
    pub peer_tls: Certificates,
    /// Where gateways reach this process.
    pub http_url: String,
    pub postgres_url: Secret,
    pub postgres_connections: usize,
    pub redis_url: Secret,
    /// The registry's voters.
    pub registry_urls: Vec<String>,
    pub global_grpc_url: String,
    /// The `iss` of access tokens and tickets.
    pub issuer: String,
    /// Seals the ticket key in Postgres.
    pub master_key: Secret,
    /// How long seats are held for a reservation that is not paid.
    pub hold_secs: u32,
    pub payments: Payments,
    /// Whether `global` is told of what people are to hear by mail or message.
    pub notices: bool,
    pub log_format: LogFormat,
}

/// Where other regions' processes bring their shows' journals.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Replication {
    /// `ip:port`.
    pub listen: String,
    /// The URL by which they reach it; empty: that of `listen`.
    pub advertise: String,
}

impl Default for Replication {
    fn default() -> Self {
        Self { listen: "127.0.0.1:7081".into(), advertise: String::new() }
    }
}

impl Replication {
    pub fn url(&self) -> String {
        if self.advertise.is_empty() { format!("http://{}", self.listen) } else { self.advertise.clone() }
    }
}

/// The payment provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Payments {
    pub provider_url: String,
    pub api_key: Secret,
    pub webhook_secret: Secret,
    /// After this the outcome of a call is unknown and settled by asking.
    pub timeout_ms: u64,
}

impl Default for Payments {
    fn default() -> Self {
        Self {
            provider_url: String::new(),
            api_key: Secret::default(),
            webhook_secret: Secret::default(),
            timeout_ms: 2_000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let region: RegionName = "local".parse().expect("a valid name");
        Self {
            regions: vec![region.clone()],
            region,
            listen: "127.0.0.1:8081".into(),
            ops_listen: "127.0.0.1:9081".into(),
            replication: Replication::default(),
            peer_tls: Certificates::default(),
            http_url: String::new(),
            postgres_url: Secret::default(),
            postgres_connections: 16,
            redis_url: Secret::default(),
            registry_urls: Vec::new(),
            global_grpc_url: String::new(),
            issuer: "marquee".into(),
            master_key: Secret::default(),
            hold_secs: 600,
            payments: Payments::default(),
            notices: true,
            log_format: LogFormat::default(),
        }
    }
}

impl Checked for Config {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let p = &mut problems;
        check::socket(p, "listen", &self.listen);
        check::socket(p, "ops_listen", &self.ops_listen);
        check::socket(p, "replication.listen", &self.replication.listen);
        if !self.replication.advertise.is_empty() {
            check::url(p, "replication.advertise", &self.replication.advertise);
        }
        self.peer_tls.problems(p, &[("replication.listen", &self.replication.listen)]);
        check::url(p, "http_url", &self.http_url);
        check::url(p, "global_grpc_url", &self.global_grpc_url);
        check::url(p, "payments.provider_url", &self.payments.provider_url);
        check::required(p, "postgres_url", self.postgres_url.reveal());
        let redis = self.redis_url.reveal();
        if !redis.is_empty() && redis::Client::open(redis).is_err() {
            p.push("`redis_url` must be a URL such as redis://host:port".into());
        }
        check::required(p, "payments.api_key", self.payments.api_key.reveal());
        check::required(p, "payments.webhook_secret", self.payments.webhook_secret.reveal());
        check::required(p, "issuer", &self.issuer);
        if self.registry_urls.is_empty() {
            p.push("`registry_urls` needs at least one URL".into());
        }
        for url in &self.registry_urls {
            check::url(p, "registry_urls", url);
        }
        if !self.regions.contains(&self.region) {
            p.push("`regions` must contain `region`".into());
        }
        if let Err(collision) = check_distinct_tags(&self.regions) {
            p.push(format!("`regions`: {collision}"));
        }
        if let Err(why) = common::seal::SealingKey::from_text(self.master_key.reveal()) {
            p.push(format!("`master_key`: {why}"));
        }
        if !(1..=3_600).contains(&self.hold_secs) {
            p.push("`hold_secs` must be between 1 and 3600".into());
        }
        if self.postgres_connections < 4 {
            p.push("`postgres_connections` must be at least 4".into());
        }
        problems
    }
}
