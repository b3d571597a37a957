//! `run.json`: what a running platform tells others about itself. Written whole or not at all, readable by
//! its owner only, since it holds passwords.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::files;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Region → the gateway's public URL.
    pub gateways: BTreeMap<String, String>,
    /// Region or `global` → service → the URL of its operations port.
    pub operations: BTreeMap<String, BTreeMap<String, String>>,
    /// Region or `global` → URL with credentials.
    pub postgres: BTreeMap<String, String>,
    /// Region → URL with password.
    pub redis: BTreeMap<String, String>,
    /// What runs now.
    pub processes: Vec<Process>,
    pub accounts: Vec<Account>,
    pub provider: Provider,
    /// The folder in which each mail that the platform sends is an `.eml` file.
    #[serde(default)]
    pub mail: std::path::PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The service: `regional`, `postgres`, …
    pub name: String,
    /// The region, or `global`.
    pub region: String,
    pub pid: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub username: String,
    pub password: String,
    pub role: String,
    /// Where the role holds; none where it holds everywhere.
    pub region: Option<String>,
}

/// The payment provider's stand-in, as its own client would reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    pub url: String,
    pub api_key: String,
    pub webhook_secret: String,
}

impl Run {
    pub const FILE: &str = "run.json";

    /// Reads the description of the platform that runs on this data folder.
    pub fn read(data: &Path) -> anyhow::Result<Self> {
        let file = data.join(Self::FILE);
        let text = std::fs::read(&file).with_context(|| {
            format!("{}: not readable; is a platform running there (`marquee up`)?", file.display())
        })?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))
    }

    pub fn write(&self, data: &Path) -> anyhow::Result<()> {
        files::write_private(&data.join(Self::FILE), &serde_json::to_vec_pretty(self)?, None)
    }

    /// The first account with this role.
    pub fn account(&self, role: &str) -> Option<&Account> {
        self.accounts.iter().find(|a| a.role == role)
    }

    /// The account with this role in this region.
    pub fn account_in(&self, role: &str, region: &str) -> Option<&Account> {
        self.accounts.iter().find(|a| a.role == role && a.region.as_deref() == Some(region))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_promised_shape_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let run = Run {
            gateways: [("eu".into(), url(1))].into(),
            operations: [
                ("eu".into(), [("regional".into(), url(2)), ("gateway".into(), url(3))].into()),
                ("global".into(), [("global".into(), url(4))].into()),
            ]
            .into(),
            processes: vec![Process { name: "regional".into(), region: "eu".into(), pid: 1 }],
            accounts: vec![Account {
                username: "admin".into(),
                password: "p".into(),
                role: "admin".into(),
                region: None,
            }],
            ..Run::default()
        };
        run.write(folder.path()).unwrap();
        let file = folder.path().join("run.json");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(json["gateways"]["eu"], "http://127.0.0.1:1");
        assert_eq!(json["operations"]["global"]["global"], "http://127.0.0.1:4");
        assert_eq!(json["processes"][0], serde_json::json!({"name": "regional", "region": "eu", "pid": 1}));
        assert_eq!(json["accounts"][0]["region"], serde_json::Value::Null);
        assert_eq!(Run::read(folder.path()).unwrap(), run);
    }
}
