//! The usual design as a platform would run it: its server in the regional process's place, and a gateway of
//! its own in front, started from the same configuration files with other addresses.

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
    gateway: Running,
}

impl NaivePlatform {
    /// `shows` of `seats` free seats each, those of the stage.
    pub async fn start(stage: &Stage, shows: &[String], seats: &[String]) -> anyhow::Result<Self> {
        let postgres = stage.run.postgres.get(&stage.region).context("the region has no Postgres")?;
        regional::bench::prepare_naive_http(postgres, shows, seats).await?;
        let scratch = Scratch::new()?;
        let server =
            marquee(&scratch, "naive", &stage.regional_config, &["bench", "naive-server"], &[]).await?;
        // Whatever names the regional process in the gateway's configuration names the other one here.
        let (from, to) = (stage.regional.to_string(), server.address.to_string());
        let ops = free_address()?;
        let gateway = marquee(
            &scratch,
            "gateway",
            &stage.gateway_config,
            &["gateway"],
            &[(from, to), (of(&stage.gateway_config, "ops_listen")?, ops.to_string())],
        )
        .await?;
        ready(ops).await?;
        Ok(Self { _scratch: scratch, _server: server, gateway })
    }

    pub fn address(&self) -> SocketAddr {
        self.gateway.address
    }
}

/// Starts this very program with a copy of a configuration in which some texts are replaced.
async fn marquee(
    scratch: &Scratch,
    name: &str,
    config: &Path,
    command: &[&str],
    replaced: &[(String, String)],
) -> anyhow::Result<Running> {
    let address = free_address()?;
    let mut text = std::fs::read_to_string(config)?;
    for (from, to) in replaced {
        text = text.replace(from, to);
    }
    text = text
        .replace(&format!("\nlisten = \"{}\"", of(config, "listen")?), &format!("\nlisten = \"{address}\""));
    let copy = scratch.path().join(format!("{name}.toml"));
    write_private(&copy, &text)?;
    let mut process = Command::new(std::env::current_exe()?);
    process.args(["guard", "--parent", &std::process::id().to_string(), "--"]);
    process.arg(std::env::current_exe()?).args(command).arg("--config").arg(&copy);
    process.env("RUST_LOG", "warn");
    Running::start(process, address, &scratch.path().join(format!("{name}.log"))).await
}

/// It holds passwords.
fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// A text value of a configuration.
fn of(config: &Path, key: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(config)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    Ok(line.with_context(|| format!("no {key} in {}", config.display()))?.trim_matches('"').to_owned())
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
