//! The gateway's configuration; see `common::config` for where its values come from.

use common::RegionName;
use common::config::{Secret, check};
use common::telemetry::LogFormat;
use common::tls::Certificates;
use serde::{Deserialize, Serialize};

use crate::address::Network;
use crate::nearest::Point;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The region in which this gateway stands; one of `regions`.
    pub region: RegionName,
    pub listen: String,
    pub ops_listen: String,
    pub regions: Vec<RegionConfig>,
    pub global_url: String,
    pub global_grpc_url: String,
    /// All voters of the ownership registry; any one of them will do.
    pub registry_urls: Vec<String>,
    pub redis_url: Secret,
    /// Who signs access tokens.
    pub issuer: String,
    /// Addresses or networks (`10.0.0.0/8`) whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<String>,
    /// A file in MaxMind's format, of countries or cities; empty: nobody's address tells anything.
    pub address_database: String,
    pub server: ServerConfig,
    pub tls: TlsConfig,
    /// Who this process is to the platform's others.
    pub peer_tls: Certificates,
    pub cors: Cors,
    pub limits: Limits,
    pub upstream: Upstream,
    pub log_format: LogFormat,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionConfig {
    pub name: RegionName,
    pub display_name: String,
    /// Where clients reach the region's gateway; told to them, not used here.
    pub gateway_url: String,
    pub regional_url: String,
    /// Where the region is, in degrees north and east; without both it is nobody's nearest by address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latitude: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longitude: Option<f64>,
}

impl RegionConfig {
    pub fn place(&self) -> Option<Point> {
        Some(Point { latitude: self.latitude?, longitude: self.longitude? })
    }
}

/// What one client may hold, and for how long.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Threads that serve connections; 0: one a processor.
    pub workers: usize,
    /// How late the process may be with its own work before it refuses any.
    pub max_lag_ms: u64,
    /// Further ones are closed at once.
    pub max_connections: usize,
    /// For a TLS handshake, for a request's head, and between two requests of one connection.
    pub header_timeout_ms: u64,
    /// Between two pieces of a streamed body.
    pub body_idle_timeout_ms: u64,
    /// How long a client may leave its answer unread.
    pub write_stall_ms: u64,
    pub max_headers: usize,
    /// A request's line and headers together.
    pub max_head_bytes: usize,
    /// Requests at once on one HTTP/2 connection.
    pub max_streams: u32,
}

/// Both files in PEM, or neither.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    pub cert_file: String,
    pub key_file: String,
}

impl TlsConfig {
    pub fn is_on(&self) -> bool {
        !self.cert_file.is_empty()
    }
}

/// Which other sites' pages may call us from a browser.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// `https://tickets.example`; `*` alone for all. None: only pages of this very origin.
    pub allowed_origins: Vec<String>,
}

/// A bucket that refills with `per_sec` requests and holds at most `burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub per_sec: u32,
    pub burst: u32,
}

/// A request counts against its user, where a token proves one, and against its address; each class of
/// calls apart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Calls that prove or make an account; always by address.
    pub auth_per_address: Rate,
    /// Reserving, paying, canceling, checking in.
    pub sell_per_user: Rate,
    pub sell_per_address: Rate,
    pub write_per_user: Rate,
    pub write_per_address: Rate,
    pub read_per_user: Rate,
    pub read_per_address: Rate,
    /// Lists over many shows or people.
    pub report_per_user: Rate,
    pub report_per_address: Rate,
    /// All signed-in customers of one address together, for each class of calls: a company, a carrier.
    pub users_per_address: Rate,
    /// Whoever has a role beyond a customer's, for each class of calls; by user alone, since many of a
    /// house share an address.
    pub staff_per_user: Rate,
    /// A Redis slower than this is treated as gone.
    pub redis_timeout_ms: u64,
}

/// How long and how often the services behind are tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    pub connect_timeout_ms: u64,
    /// From the request's head to the answer's head, retries and re-routes included.
    pub deadline_ms: u64,
    /// The same for uploads, whose bodies are streamed.
    pub upload_deadline_ms: u64,
    /// What one region may take in a list of all regions.
    pub region_deadline_ms: u64,
    /// Attempts at one region before the client is told.
    pub max_tries: u32,
    /// Requests at once with one process behind; the others wait for a moment.
    pub max_in_flight: usize,
    /// Requests that may wait at once for a show that changes hands, and the size of their bodies together.
    pub max_waiting: usize,
    pub max_waiting_kib: usize,
    /// Whether a region that keeps a copy of a show may answer for it.
    pub read_from_copies: bool,
    /// Not where the owner is only so little further: a copy may be a tenth of a second late.
    pub copy_worth_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: "local".parse().expect("a valid name"),
            listen: "127.0.0.1:8080".into(),
            ops_listen: "127.0.0.1:9080".into(),
            regions: Vec::new(),
            global_url: String::new(),
            global_grpc_url: String::new(),
            registry_urls: Vec::new(),
            redis_url: Secret::default(),
            issuer: "marquee".into(),
            trusted_proxies: Vec::new(),
            address_database: String::new(),
            server: ServerConfig::default(),
            tls: TlsConfig::default(),
            peer_tls: Certificates::default(),
            cors: Cors::default(),
            limits: Limits::default(),
            upstream: Upstream::default(),
            log_format: LogFormat::default(),
        }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            workers: 0,
            max_lag_ms: 100,
            max_connections: 50_000,
            header_timeout_ms: 15_000,
            body_idle_timeout_ms: 15_000,
            write_stall_ms: 30_000,
            max_headers: 100,
            max_head_bytes: 32 * 1024,
            max_streams: 128,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let rate = |per_sec, burst| Rate { per_sec, burst };
        Self {
            auth_per_address: rate(20, 100),
            sell_per_user: rate(50, 200),
            sell_per_address: rate(500, 1000),
            write_per_user: rate(50, 200),
            write_per_address: rate(500, 1000),
            read_per_user: rate(200, 400),
            read_per_address: rate(2000, 4000),
            report_per_user: rate(20, 60),
            report_per_address: rate(100, 300),
            users_per_address: rate(20_000, 40_000),
            staff_per_user: rate(200, 400),
            redis_timeout_ms: 50,
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 1_000,
            deadline_ms: 10_000,
            upload_deadline_ms: 300_000,
            region_deadline_ms: 2_000,
            max_tries: 4,
            max_in_flight: 1_024,
            max_waiting: 2_000,
            max_waiting_kib: 64 * 1024,
            read_from_copies: false,
            copy_worth_ms: 20,
        }
    }
}

impl common::config::Config for Config {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        check::socket(&mut problems, "listen", &self.listen);
        check::socket(&mut problems, "ops_listen", &self.ops_listen);
        check::url(&mut problems, "global_url", &self.global_url);
        check::url(&mut problems, "global_grpc_url", &self.global_grpc_url);
        if self.registry_urls.is_empty() {
            problems.push("`registry_urls` is required".into());
        }
        for (i, url) in self.registry_urls.iter().enumerate() {
            check::url(&mut problems, &format!("registry_urls[{i}]"), url);
        }
        if redis::Client::open(self.redis_url.reveal()).is_err() {
            problems.push("`redis_url` must be a URL such as redis://host:port".into());
        }
        check::required(&mut problems, "issuer", &self.issuer);
        self.check_regions(&mut problems);
        for (i, text) in self.trusted_proxies.iter().enumerate() {
            if text.parse::<Network>().is_err() {
                problems.push(format!("`trusted_proxies[{i}]` must be an address or a network"));
            }
        }
        self.limits.check(&mut problems);
        self.server.check(&mut problems);
        self.peer_tls.problems(&mut problems, &[]);
        if self.tls.cert_file.is_empty() != self.tls.key_file.is_empty() {
            problems.push("`tls.cert_file` and `tls.key_file` belong together".into());
        }
        for (i, origin) in self.cors.allowed_origins.iter().enumerate() {
            let any = origin == "*" && self.cors.allowed_origins.len() == 1;
            let is_origin = ["http://", "https://"].iter().any(|scheme| {
                origin.strip_prefix(scheme).is_some_and(|host| !host.is_empty() && !host.contains('/'))
            });
            if !any && !is_origin {
                problems.push(format!("`cors.allowed_origins[{i}]` must be as https://host, or `*` alone"));
            }
        }
        let upstream = &self.upstream;
        for (field, value) in [
            ("connect_timeout_ms", upstream.connect_timeout_ms),
            ("deadline_ms", upstream.deadline_ms),
            ("upload_deadline_ms", upstream.upload_deadline_ms),
            ("region_deadline_ms", upstream.region_deadline_ms),
            ("max_tries", upstream.max_tries.into()),
            ("max_in_flight", upstream.max_in_flight as u64),
            ("max_waiting", upstream.max_waiting as u64),
            ("max_waiting_kib", upstream.max_waiting_kib as u64),
        ] {
            if value == 0 {
                problems.push(format!("`upstream.{field}` must be at least 1"));
            }
        }
        problems
    }
}

impl Config {
    fn check_regions(&self, problems: &mut Vec<String>) {
        for (i, region) in self.regions.iter().enumerate() {
            check::url(problems, &format!("regions[{i}].gateway_url"), &region.gateway_url);
            check::url(problems, &format!("regions[{i}].regional_url"), &region.regional_url);
            let within = |value: Option<f64>, most: f64| value.is_none_or(|v| v.abs() <= most);
            if !within(region.latitude, 90.0) || !within(region.longitude, 180.0) {
                problems.push(format!("`regions[{i}].latitude`, `.longitude` are degrees"));
            }
            if region.latitude.is_some() != region.longitude.is_some() {
                problems.push(format!("`regions[{i}].latitude` and `.longitude` belong together"));
            }
        }
        let names: Vec<RegionName> = self.regions.iter().map(|r| r.name.clone()).collect();
        if !names.contains(&self.region) {
            problems.push(format!("`regions` must name this gateway's own region, `{}`", self.region));
        }
        if let Err(why) = common::region::check_distinct_tags(&names) {
            problems.push(format!("`regions`: {why}"));
        }
    }
}

impl ServerConfig {
    fn check(&self, problems: &mut Vec<String>) {
        // hyper's least.
        if self.max_head_bytes < 8192 {
            problems.push("`server.max_head_bytes` must be at least 8192".into());
        }
        for (field, is_zero) in [
            ("max_lag_ms", self.max_lag_ms == 0),
            ("max_connections", self.max_connections == 0),
            ("header_timeout_ms", self.header_timeout_ms == 0),
            ("body_idle_timeout_ms", self.body_idle_timeout_ms == 0),
            ("write_stall_ms", self.write_stall_ms == 0),
            ("max_headers", self.max_headers == 0),
            ("max_streams", self.max_streams == 0),
        ] {
            if is_zero {
                problems.push(format!("`server.{field}` must be at least 1"));
            }
        }
    }
}

impl Limits {
    fn check(&self, problems: &mut Vec<String>) {
        for (field, rate) in [
            ("auth_per_address", self.auth_per_address),
            ("sell_per_user", self.sell_per_user),
            ("sell_per_address", self.sell_per_address),
            ("report_per_user", self.report_per_user),
            ("report_per_address", self.report_per_address),
            ("users_per_address", self.users_per_address),
            ("staff_per_user", self.staff_per_user),
            ("write_per_user", self.write_per_user),
            ("write_per_address", self.write_per_address),
            ("read_per_user", self.read_per_user),
            ("read_per_address", self.read_per_address),
        ] {
            // Above a million a second the interval between two requests is no whole microsecond.
            if !(1..=1_000_000).contains(&rate.per_sec) || rate.burst == 0 {
                problems
                    .push(format!("`limits.{field}` needs 1 to 1000000 per_sec and a burst of at least 1"));
            }
        }
        if self.redis_timeout_ms == 0 {
            problems.push("`limits.redis_timeout_ms` must be at least 1".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::config::Config as _;

    #[test]
    fn every_wrong_field_is_named() {
        let problems =
            Config { trusted_proxies: vec!["here".into()], ..Config::default() }.problems().join("\n");
        for field in ["global_url", "registry_urls", "redis_url", "regions", "trusted_proxies[0]"] {
            assert!(problems.contains(&format!("`{field}`")), "{field}: {problems}");
        }
    }
}
