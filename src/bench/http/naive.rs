//! The usual design as a platform would run it: its server in the regional process's place, and a gateway of
//! its own in front, started from the same configuration files with other addresses. That gateway follows a
//! registry of its own in which nothing stands: from the platform's it would learn of the real processes.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::Command;

use super::children::{Running, Scratch, free_address};
use super::stage::Stage;
use super::wire::{Wire, get};

const PATIENCE: Duration = Duration::from_secs(20);

pub struct NaivePlatform {
    _scratch: Scratch,
    _server: Running,
    _registry: Running,
    gateway: Running,
    postgres: String,
}

impl NaivePlatform {
    /// `shows` of `seats` free seats each, those of the stage.
    pub async fn start(stage: &Stage, shows: &[String], seats: &[String]) -> anyhow::Result<Self> {
        let postgres = stage.run.postgres.get(&stage.region).context("the region has no Postgres")?.clone();
        regional::bench::prepare_naive_http(&postgres, shows, seats).await?;
        let scratch = Scratch::new()?;
        let listening = |address: SocketAddr| format!("listen = \"{address}\"");

        let address = free_address()?;
        let text = with_lines(&stage.regional_config, &[("listen", listening(address))])?;
        let server = marquee(&scratch, "naive", &["bench", "naive-server"], &text, address).await?;

        let (registry_address, ops) = (free_address()?, free_address()?);
        let text = registry(stage, registry_address, ops, scratch.path())?;
        let registry = marquee(&scratch, "raft", &["raft"], &text, registry_address).await?;

        let (address, ops) = (free_address()?, free_address()?);
        let lines = [
            ("listen", listening(address)),
            ("ops_listen", format!("ops_{}", listening(ops))),
            ("registry_urls", format!("registry_urls = [\"http://{registry_address}\"]")),
        ];
        let text = with_lines(&stage.gateway_config, &lines)?;
        // Whatever names the regional process there names the naive one here.
        let text = text.replace(&stage.regional.to_string(), &server.address.to_string());
        let gateway = marquee(&scratch, "gateway", &["gateway"], &text, address).await?;
        ready(ops).await?;
        Ok(Self { _scratch: scratch, _server: server, _registry: registry, gateway, postgres })
    }

    pub fn address(&self) -> SocketAddr {
        self.gateway.address
    }

    /// Stops it and removes its tables. An error where not all of `booked` stand in them: then something else
    /// was measured.
    pub async fn end(self, booked: f64) -> anyhow::Result<()> {
        let written = regional::bench::forget_naive_http(&self.postgres).await?;
        anyhow::ensure!(
            written as f64 >= booked,
            "of {booked} bookings the naive design wrote {written}: its gateway asked somebody else"
        );
        Ok(())
    }
}

/// Starts this very program.
async fn marquee(
    scratch: &Scratch,
    name: &str,
    command: &[&str],
    config: &str,
    address: SocketAddr,
) -> anyhow::Result<Running> {
    let file = scratch.path().join(format!("{name}.toml"));
    write_private(&file, config)?;
    let mut process = Command::new(std::env::current_exe()?);
    process.args(["guard", "--parent", &std::process::id().to_string(), "--"]);
    process.arg(std::env::current_exe()?).args(command).arg("--config").arg(&file);
    Running::start(process, address, &scratch.path().join(format!("{name}.log"))).await
}

/// A registry of one voter that nobody registers with; to the gateway it is one of the platform's.
fn registry(stage: &Stage, address: SocketAddr, ops: SocketAddr, folder: &Path) -> anyhow::Result<String> {
    let platforms: serde_json::Value = toml::from_str(&std::fs::read_to_string(&stage.raft_config)?)?;
    Ok(toml::to_string(&serde_json::json!({
        "node_id": 1,
        "region": stage.region,
        "data_dir": folder.join("raft"),
        "listen": address,
        "ops_listen": ops,
        "bootstrap": true,
        "peers": [{ "id": 1, "region": stage.region, "url": format!("http://{address}") }],
        "peer_tls": platforms["peer_tls"],
    }))?)
}

/// A configuration with some of its lines replaced, by their keys.
fn with_lines(config: &Path, lines: &[(&str, String)]) -> anyhow::Result<String> {
    let mut text = String::new();
    for line in std::fs::read_to_string(config)?.lines() {
        let key = line.split(" = ").next().unwrap_or_default();
        let other = lines.iter().find(|(replaced, _)| *replaced == key);
        text += other.map_or(line, |(_, other)| other);
        text.push('\n');
    }
    for (key, line) in lines {
        anyhow::ensure!(text.contains(line), "no {key} in {}", config.display());
    }
    Ok(text)
}

/// It holds passwords.
fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    Ok(file.write_all(text.as_bytes())?)
}

async fn ready(ops: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Ok(mut wire) = Wire::connect(ops).await
            && let Ok(answer) = wire.ask(&get(ops, "/readyz", "")).await
            && answer.status == 200
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the second gateway is not ready")
}
