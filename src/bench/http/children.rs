//! Processes that a measurement starts beside the platform: they end with it, and with us.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(20);
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// A folder of our own, removed when it is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> anyhow::Result<Self> {
        let name = format!("marquee-bench-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        Ok(Self(folder))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An address that nobody uses now.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(common::loopback::unused_address()?)
}

/// Killed when it is dropped.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
}

impl Running {
    /// Starts it and waits until something listens at `address`.
    pub async fn start(mut command: Command, address: SocketAddr, log: &Path) -> anyhow::Result<Self> {
        let output = std::fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
        let program = command.as_std().get_program().to_owned();
        let child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        let mut running = Self { child, address };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = running.child.try_wait()? {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                bail!("{} ended ({status}): {said}", program.display());
            }
            anyhow::ensure!(Instant::now() < deadline, "{} does not listen", program.display());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(running)
    }

    /// For what has children of its own, which a SIGKILL would leave behind: asks it to end, and waits a moment.
    pub fn end(&mut self) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let Some(pid) = pid else { return };
        let _ = rustix::process::kill_process(pid, Signal::TERM);
        let deadline = Instant::now() + ENDS_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
