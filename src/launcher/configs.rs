//! The configuration file of each Marquee process, made from the platform's ports and secrets.
//!
//! Written as data, not with the services' own types: what a config file may say is a public contract, and
//! the services check it at boot.

use anyhow::Context;
use common::RegionName;
use serde_json::{Value, json};

use super::options::Options;
use super::parts::{Part, Place, Service};
use super::ports::Ports;
use super::secrets::Secrets;
use super::{certificates, postgres, redis};

/// What all configurations are made from.
pub struct Facts<'a> {
    pub options: &'a Options,
    pub regions: &'a [RegionName],
    pub ports: &'a Ports,
    pub secrets: &'a Secrets,
}

/// Every port that a platform of these regions needs.
pub fn port_names(regions: &[RegionName]) -> Vec<String> {
    // Gateways first, so that with a port base they have the memorable numbers.
    let mut names: Vec<String> = regions.iter().map(|r| format!("gateway-{r}")).collect();
    names.extend(
        ["global", "global.ops", "global.grpc", "provider", "control", "postgres-global"].map(String::from),
    );
    for region in regions {
        names.extend([
            format!("gateway-{region}.ops"),
            format!("regional-{region}"),
            format!("regional-{region}.ops"),
            format!("regional-{region}.grpc"),
            format!("raft-{region}"),
            format!("raft-{region}.ops"),
            format!("postgres-{region}"),
            format!("redis-{region}"),
        ]);
    }
    names
}

/// Every secret that a platform of these regions needs.
pub fn secret_names(regions: &[RegionName]) -> Vec<String> {
    let mut names: Vec<String> =
        ["master-key", "postgres-global", "provider-api-key", "provider-webhook-secret", "account-admin"]
            .map(String::from)
            .to_vec();
    for region in regions {
        names.extend([format!("postgres-{region}"), format!("redis-{region}")]);
    }
    names
}

/// The address to ask whether a part is ready, and where its operations port is.
pub fn operations_port(part: &Part) -> Option<String> {
    match part.service {
        Service::Postgres | Service::Redis | Service::Provider => None,
        _ => Some(format!("{}.ops", part.name())),
    }
}

/// Where `global` puts its text messages, under its own folder.
pub fn sms_folder(folder: &std::path::Path) -> std::path::PathBuf {
    folder.join("sms")
}

/// Where `global` puts its mails, under its own folder.
pub fn mail_folder(folder: &std::path::Path) -> std::path::PathBuf {
    folder.join("mail")
}

impl Facts<'_> {
    pub fn postgres_url(&self, place: &Place) -> String {
        let name = format!("postgres-{place}");
        postgres::url(self.secrets.get(&name), &self.ports.address(&name))
    }

    pub fn redis_url(&self, region: &RegionName) -> String {
        let name = format!("redis-{region}");
        redis::url(self.secrets.get(&name), &self.ports.address(&name))
    }

    fn registry_urls(&self) -> Vec<String> {
        self.regions.iter().map(|r| self.ports.url(&format!("raft-{r}"))).collect()
    }

    /// The part's configuration as TOML; none for those that are not ours.
    pub fn toml(&self, part: &Part, folder: &std::path::Path) -> anyhow::Result<Option<String>> {
        let config = match (part.service, &part.place) {
            (Service::Postgres | Service::Redis, _) => return Ok(None),
            (Service::Global, _) => self.global(folder),
            (Service::Provider, _) => self.provider(folder),
            (Service::Raft, Place::Region(region)) => self.raft(region, folder),
            (Service::Regional, Place::Region(region)) => self.regional(region, folder),
            (Service::Gateway, Place::Region(region)) => self.gateway(region, folder),
            (service, Place::Global) => anyhow::bail!("there is no {service} outside the regions"),
        };
        toml::to_string(&config).map(Some).with_context(|| format!("the configuration of {part}"))
    }

    fn global(&self, folder: &std::path::Path) -> Value {
        json!({
            "listen": self.ports.listen("global"),
            "ops_listen": self.ports.address("global.ops"),
            "grpc_listen": self.ports.listen("global.grpc"),
            "peer_tls": certificates::setting(folder),
            "postgres_url": self.postgres_url(&Place::Global),
            "master_key": self.secrets.get("master-key"),
            "regions": self.regions,
            "log_format": self.options.log_format,
            "bootstrap_admin": {
                "username": "admin",
                "email": "admin@marquee.example",
                "password": self.secrets.get("account-admin"),
            },
            "mail": {
                "folder": mail_folder(folder),
                "link_url": self.regions.first().map(|r| self.ports.url(&format!("gateway-{r}"))),
            },
            "sms": { "folder": sms_folder(folder), "sender": "Marquee" },
        })
    }

    fn raft(&self, region: &RegionName, folder: &std::path::Path) -> Value {
        let node_id = |r: &RegionName| self.regions.iter().position(|known| known == r).map_or(0, |i| i + 1);
        let peers: Vec<Value> = self
            .regions
            .iter()
            .map(|r| json!({ "id": node_id(r), "region": r, "url": self.ports.url(&format!("raft-{r}")) }))
            .collect();
        let mut config = json!({
            "node_id": node_id(region),
            "region": region,
            "data_dir": folder.join("data"),
            "listen": self.ports.listen(&format!("raft-{region}")),
            "ops_listen": self.ports.address(&format!("raft-{region}.ops")),
            "peer_tls": certificates::setting(folder),
            "peers": peers,
            "bootstrap": node_id(region) == 1,
            "log_format": self.options.log_format,
        });
        if self.options.no_homecoming {
            config["moves"] = json!({ "home_per_sec": 0 });
        }
        config
    }

    fn regional(&self, region: &RegionName, folder: &std::path::Path) -> Value {
        let mut config = json!({
            "region": region,
            "regions": self.regions,
            "listen": self.ports.listen(&format!("regional-{region}")),
            "ops_listen": self.ports.address(&format!("regional-{region}.ops")),
            "replication": {
                "listen": self.ports.listen(&format!("regional-{region}.grpc")),
                "advertise": self.ports.url(&format!("regional-{region}.grpc")),
            },
            "peer_tls": certificates::setting(folder),
            "http_url": self.ports.url(&format!("regional-{region}")),
            "postgres_url": self.postgres_url(&Place::Region(region.clone())),
            "redis_url": self.redis_url(region),
            "registry_urls": self.registry_urls(),
            "global_grpc_url": self.ports.url("global.grpc"),
            "master_key": self.secrets.get("master-key"),
            "payments": {
                "provider_url": self.ports.url("provider"),
                "api_key": self.secrets.get("provider-api-key"),
                "webhook_secret": self.secrets.get("provider-webhook-secret"),
            },
            "log_format": self.options.log_format,
        });
        if let Some(secs) = self.options.hold_secs {
            config["hold_secs"] = json!(secs);
        }
        config
    }

    fn gateway(&self, region: &RegionName, folder: &std::path::Path) -> Value {
        let regions: Vec<Value> = self
            .regions
            .iter()
            .map(|r| {
                let mut region = json!({
                    "name": r,
                    "display_name": display_name(r),
                    "gateway_url": self.ports.url(&format!("gateway-{r}")),
                    "regional_url": self.ports.url(&format!("regional-{r}")),
                });
                if let Some((latitude, longitude)) = place(r) {
                    region["latitude"] = json!(latitude);
                    region["longitude"] = json!(longitude);
                }
                region
            })
            .collect();
        let mut config = json!({
            "region": region,
            "listen": self.ports.address(&format!("gateway-{region}")),
            "ops_listen": self.ports.address(&format!("gateway-{region}.ops")),
            "peer_tls": certificates::setting(folder),
            "regions": regions,
            "global_url": self.ports.url("global"),
            "global_grpc_url": self.ports.url("global.grpc"),
            "registry_urls": self.registry_urls(),
            "redis_url": self.redis_url(region),
            "upstream": { "read_from_copies": true },
            "log_format": self.options.log_format,
        });
        if self.options.no_limits {
            config["limits"] = no_limits();
        }
        config
    }

    fn provider(&self, folder: &std::path::Path) -> Value {
        let webhook_urls: Vec<String> = self
            .regions
            .iter()
            .map(|r| format!("{}/v1/webhooks/payments/test", self.ports.url(&format!("gateway-{r}"))))
            .collect();
        json!({
            "listen": self.ports.address("provider"),
            "data_file": folder.join("books.redb"),
            "api_key": self.secrets.get("provider-api-key"),
            "webhook_secret": self.secrets.get("provider-webhook-secret"),
            "webhook_urls": webhook_urls,
            "log_format": self.options.log_format,
        })
    }
}

/// Every limit that a gateway knows, out of reach.
fn no_limits() -> Value {
    let known = json!(gateway::Config::default().limits);
    let rates = known.as_object().into_iter().flatten().filter(|(_, limit)| limit["per_sec"].is_number());
    let most = json!({"per_sec": 1_000_000, "burst": 1_000_000});
    rates.map(|(name, _)| (name.clone(), most.clone())).collect::<serde_json::Map<_, _>>().into()
}

fn display_name(region: &RegionName) -> String {
    match region.as_str() {
        "eu" => "Europe".to_owned(),
        "us" => "United States".to_owned(),
        "ap" => "Asia Pacific".to_owned(),
        other => other.to_uppercase(),
    }
}

/// Where such a region would stand: Frankfurt, Virginia, Singapore.
fn place(region: &RegionName) -> Option<(f64, f64)> {
    match region.as_str() {
        "eu" => Some((50.1, 8.7)),
        "us" => Some((39.0, -77.5)),
        "ap" => Some((1.3, 103.8)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_limits_every_rate_of_the_gateways_is_raised() {
        let limits = no_limits();
        for rate in ["auth_per_address", "sell_per_user", "users_per_address", "staff_per_user"] {
            assert_eq!(limits[rate]["per_sec"], 1_000_000, "{limits}");
        }
        assert!(limits.get("redis_timeout_ms").is_none());
    }

    #[test]
    fn every_part_of_ours_gets_a_configuration_that_is_toml() {
        let folder = tempfile::tempdir().unwrap();
        let regions: Vec<RegionName> = ["eu", "us"].iter().map(|r| r.parse().unwrap()).collect();
        let options = Options::default();
        let ports = Ports::choose(folder.path(), &port_names(&regions), None).unwrap();
        let secrets = Secrets::open(folder.path(), &secret_names(&regions)).unwrap();
        let facts = Facts { options: &options, regions: &regions, ports: &ports, secrets: &secrets };
        let places = [Place::Global, Place::Region(regions[0].clone()), Place::Region(regions[1].clone())];
        let mut bootstraps = 0;
        for part in places.iter().flat_map(|p| p.services().iter().map(|s| Part::new(*s, p))) {
            let Some(text) = facts.toml(&part, folder.path()).unwrap() else { continue };
            assert!(text.contains("listen = \"127.0.0.1:"), "{part}: {text}");
            bootstraps += usize::from(text.contains("bootstrap = true"));
        }
        assert_eq!(bootstraps, 1);
    }
}
