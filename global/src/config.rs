//! What `global` is told at its start.

use std::net::SocketAddr;

use common::config::{Secret, check};
use common::region::check_distinct_tags;
use common::seal::SealingKey;
use common::telemetry::LogFormat;
use common::tls::Certificates;
use common::{RegionName, config};
use serde::{Deserialize, Serialize};

use crate::accounts::rules;
use crate::mail::MailConfig;
use crate::sms::SmsConfig;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The public API, `ip:port`; gateways come here.
    pub listen: String,
    /// `/livez`, `/readyz`, `/metrics`.
    pub ops_listen: String,
    /// The feed.
    pub grpc_listen: String,
    /// Who this process is to those who follow the feed.
    pub peer_tls: Certificates,
    pub postgres_url: Secret,
    /// Seals the private signing keys at rest.
    pub master_key: Secret,
    /// The `iss` of every token.
    pub issuer: String,
    /// All regions that a role may name.
    pub regions: Vec<RegionName>,
    pub log_format: LogFormat,
    pub access_token_secs: u32,
    /// How long a session lives without being used.
    pub refresh_token_secs: u32,
    /// A signing key is replaced when it is older.
    pub signing_key_days: u32,
    /// What people without an account told a cinema (an address for one reservation) can be read for so many months
    /// after the month of the show; then its key is destroyed.
    pub contacts_kept_months: u16,
    pub argon2: Argon2Config,
    pub bootstrap_admin: BootstrapAdmin,
    pub mail: MailConfig,
    pub sms: SmsConfig,
}

/// Cost of a password's hash (RFC 9106); when it rises, hashes are renewed at the next sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Argon2Config {
    pub memory_kib: u32,
    pub iterations: u32,
    pub parallelism: u32,
    /// So many hashes are worked on at a time; 0: half as many as there are cores.
    pub at_once: u32,
    /// So many wait for that; more are answered 503.
    pub max_waiting: u32,
}

impl Default for Argon2Config {
    fn default() -> Self {
        Self { memory_kib: 19_456, iterations: 2, parallelism: 1, at_once: 0, max_waiting: 200 }
    }
}

impl Argon2Config {
    pub fn at_once(&self) -> usize {
        match self.at_once {
            0 => std::thread::available_parallelism().map_or(1, |cores| (usize::from(cores) / 2).max(1)),
            n => n as usize,
        }
    }
}

/// The admin that is created when there is none. All empty: nobody.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BootstrapAdmin {
    pub username: String,
    pub email: String,
    pub password: Secret,
}

impl BootstrapAdmin {
    pub fn is_wanted(&self) -> bool {
        !(self.username.is_empty() && self.email.is_empty() && self.password.reveal().is_empty())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7100".into(),
            ops_listen: "127.0.0.1:7101".into(),
            grpc_listen: "127.0.0.1:7102".into(),
            peer_tls: Certificates::default(),
            postgres_url: Secret::default(),
            master_key: Secret::default(),
            issuer: "marquee".into(),
            regions: Vec::new(),
            log_format: LogFormat::default(),
            access_token_secs: 600,
            refresh_token_secs: 2_592_000,
            signing_key_days: 90,
            contacts_kept_months: 3,
            argon2: Argon2Config::default(),
            bootstrap_admin: BootstrapAdmin::default(),
            mail: MailConfig::default(),
            sms: SmsConfig::default(),
        }
    }
}

impl config::Config for Config {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        check::socket(&mut problems, "listen", &self.listen);
        check::socket(&mut problems, "ops_listen", &self.ops_listen);
        check::socket(&mut problems, "grpc_listen", &self.grpc_listen);
        self.peer_tls.problems(&mut problems, &[("grpc_listen", &self.grpc_listen)]);
        check::required(&mut problems, "postgres_url", self.postgres_url.reveal());
        check::required(&mut problems, "issuer", &self.issuer);
        if let Err(why) = SealingKey::from_text(self.master_key.reveal()) {
            problems.push(format!("`master_key`: {why}"));
        }
        if self.regions.is_empty() {
            problems.push("`regions` must name at least one region".into());
        }
        if let Err(why) = check_distinct_tags(&self.regions) {
            problems.push(format!("`regions`: {why}"));
        }
        if !(10..=86_400).contains(&self.access_token_secs) {
            problems.push("`access_token_secs` must be between 10 and 86400".into());
        }
        if self.refresh_token_secs <= self.access_token_secs {
            problems.push("`refresh_token_secs` must be more than `access_token_secs`".into());
        }
        if self.signing_key_days == 0 {
            problems.push("`signing_key_days` must be at least 1".into());
        }
        if !(1..=120).contains(&self.contacts_kept_months) {
            problems.push("`contacts_kept_months` must be between 1 and 120".into());
        }
        if self.argon2.params().is_err() {
            problems.push("`argon2` has parameters that Argon2 does not take".into());
        }
        if self.argon2.max_waiting == 0 {
            problems.push("`argon2.max_waiting` must be at least 1".into());
        }
        problems.extend(self.mail.problems());
        problems.extend(self.sms.problems());
        if self.bootstrap_admin.is_wanted() {
            let admin = &self.bootstrap_admin;
            problems.extend(
                rules::new_account(&admin.email, &admin.username, "Admin", admin.password.reveal())
                    .into_iter()
                    .map(|e| format!("`bootstrap_admin.{}`: {}", e.field, e.message)),
            );
        }
        problems
    }
}

impl Config {
    pub(crate) fn address(text: &str) -> anyhow::Result<SocketAddr> {
        text.parse().map_err(|_| anyhow::anyhow!("`{text}` is not an address such as 127.0.0.1:8080"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::config::Config as _;

    #[test]
    fn the_defaults_lack_only_what_nobody_can_guess() {
        let problems = Config::default().problems();
        for field in ["postgres_url", "master_key", "regions"] {
            assert!(problems.iter().any(|p| p.contains(field)), "{field} in {problems:?}");
        }
        assert_eq!(problems.len(), 3, "{problems:?}");
    }
}
