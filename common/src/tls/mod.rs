//! Mutual TLS between the platform's own processes (gRPC), under the platform's own authority.
//!
//! Invariant: a certificate's DNS names say who its holder is, such as `regional.eu.marquee.internal` for `eu`'s
//! regional processes; whoever claims to be somebody is compared with that ([`Caller`]), not with what the
//! message says. Without certificates the ports are for loopback only ([`Certificates::problems`]).
//! Files are looked at again with each new connection: renewed certificates take no restart.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tonic::transport::{Channel, Endpoint};

pub use self::connections::{Connection, address};
use self::live::{Shown, Source};
use crate::RegionName;

/// Where a process finds its certificate; all empty: it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Certificates {
    /// The platform's authority (PEM).
    pub ca_file: PathBuf,
    /// The certificate, with what is between it and the authority (PEM).
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

impl Certificates {
    fn files(&self) -> [&Path; 3] {
        [&self.ca_file, &self.cert_file, &self.key_file]
    }

    fn are_there(&self) -> bool {
        self.files().iter().any(|file| !file.as_os_str().is_empty())
    }

    /// What is wrong with the setting `peer_tls`; `listens` are the ports that it is to protect, each with its
    /// setting's name.
    pub fn problems(&self, problems: &mut Vec<String>, listens: &[(&str, &str)]) {
        if self.are_there() && self.files().iter().any(|file| file.as_os_str().is_empty()) {
            problems.push("`peer_tls` needs `ca_file`, `cert_file` and `key_file`".into());
        }
        for (setting, listen) in listens.iter().filter(|_| !self.are_there()) {
            if listen.parse().is_ok_and(|at: SocketAddr| !at.ip().is_loopback()) {
                problems.push(format!("`{setting}` is not on loopback: that needs `peer_tls`"));
            }
        }
    }

    /// Reads them.
    ///
    /// # Errors
    /// Names the file that cannot be read, or says what is wrong with what is in them.
    pub fn load(&self) -> anyhow::Result<Tls> {
        if !self.are_there() {
            return Ok(Tls::plain());
        }
        Ok(Tls(Some(Arc::new(Source::files(self)?))))
    }
}

/// What a process shows others and asks of them; nothing at all where it is plain. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Option<Arc<Source>>);

impl Tls {
    /// No TLS: on one machine, and in tests.
    pub const fn plain() -> Self {
        Self(None)
    }

    fn is_plain(&self) -> bool {
        self.0.is_none()
    }

    fn now(&self) -> Option<Shown> {
        self.0.as_ref().map(|source| source.now())
    }

    /// A channel to `url`, where somebody called `name` must answer; it notices dead peers and heals by itself.
    /// Connects when first used.
    ///
    /// # Errors
    /// As [`endpoint`].
    pub fn channel(&self, url: &str, name: &str) -> Result<Channel, tonic::transport::Error> {
        Ok(endpoint(url)?
            .connect_timeout(Duration::from_secs(2))
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(self.connector(name)))
    }
}

/// The way to `url`, to be gone with [`Tls::connector`]. Addresses are announced without regard to TLS: what is
/// spoken is the caller's own setting, not the URL's scheme.
///
/// # Errors
/// Where `url` is none.
pub fn endpoint(url: &str) -> Result<Endpoint, tonic::transport::Error> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).unwrap_or(url);
    Endpoint::from_shared(format!("http://{rest}"))
}

/// The other side of a connection. The authority has vouched for it before anything was read; what is left is
/// who it is.
#[derive(Clone, Debug)]
pub enum Caller {
    /// There is no TLS here.
    Anybody,
    Holder(Option<CertificateDer<'static>>),
}

impl Caller {
    /// Whether it is whom it claims to be.
    pub fn is(&self, name: &str) -> bool {
        let certificate = match self {
            Self::Anybody => return true,
            Self::Holder(certificate) => certificate.as_ref(),
        };
        let name = rustls_pki_types::ServerName::try_from(name).ok();
        let parsed = certificate.and_then(|certificate| webpki::EndEntityCert::try_from(certificate).ok());
        parsed.zip(name).is_some_and(|(parsed, name)| parsed.verify_is_valid_for_subject_name(&name).is_ok())
    }
}

/// The names in certificates. They end so that they are nobody's outside.
pub mod names {
    use super::RegionName;

    /// All voters of the registry.
    pub const REGISTRY: &str = "registry.marquee.internal";
    /// All regional processes, of whichever region.
    pub const REGIONAL: &str = "regional.marquee.internal";
    pub const GLOBAL: &str = "global.marquee.internal";
    pub const GATEWAY: &str = "gateway.marquee.internal";

    /// A region's regional processes.
    pub fn regional(region: &RegionName) -> String {
        format!("{region}.{REGIONAL}")
    }
}

pub mod authority;
mod connections;
mod live;
#[cfg(test)]
mod tests;
