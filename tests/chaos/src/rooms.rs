//! Where a run takes place: namespaces of its own for network, mounts and processes, and in these a network
//! namespace for each place, joined by TUN devices to the [`Wan`]. The run itself stands in one more, where the
//! customers are.
//!
//! Invariant: all of them are without a name and are held by processes of the run only, so they end with it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use marquee::launcher::{Site, Sites};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tappers::{Interface, Tun};

use crate::wan::{Links, Wan};

pub const REGIONS: [&str; 3] = ["eu", "us", "ap"];
/// The places in the network's order: the regions, `global`, and the customers.
pub const GLOBAL: usize = 3;
const CUSTOMERS: usize = 4;
const PLACES: usize = 5;

/// Round trips in milliseconds, as between Frankfurt, Virginia and Singapore, somewhat shortened.
const ROUND_TRIPS: [(usize, usize, u64); 6] =
    [(0, 1, 80), (1, 2, 120), (0, 2, 40), (0, GLOBAL, 10), (1, GLOBAL, 80), (2, GLOBAL, 40)];

/// Set in the process that stands in the namespaces already.
const INSIDE: &str = "CHAOS_INSIDE";
const DEVICE: &str = "wan0";
const PATIENCE: Duration = Duration::from_secs(5);

fn address(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(place + 1).unwrap_or(u8::MAX))
}

/// The place at an address.
pub fn place_at(address: [u8; 4]) -> Option<usize> {
    match address {
        [10, 77, 0, last] => usize::from(last).checked_sub(1).filter(|place| *place < PLACES),
        _ => None,
    }
}

/// Runs `work` inside namespaces of its own, which takes a process of its own for all but the first call.
/// `wanted`: it is an error where there cannot be any, else it is said and left.
pub fn inside(wanted: bool, work: impl FnOnce() -> anyhow::Result<bool>) -> anyhow::Result<bool> {
    if std::env::var_os(INSIDE).is_some() {
        return work();
    }
    if let Some(missing) = missing() {
        let why = format!("each region stands in a network namespace of its own, and there is no {missing}");
        ensure!(!wanted, "{why}");
        crate::say(&format!("NOT RUN: {why}"));
        return Ok(true);
    }
    let own = std::env::current_exe()?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private"]);
    // With its own processes: whatever is left of them dies with the first.
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(own).args(std::env::args_os().skip(1)).env(INSIDE, "yes");
    Err(command.exec()).context("unshare (util-linux) cannot be run")
}

/// What a run cannot be without.
fn missing() -> Option<&'static str> {
    let is_there = |program: &str| {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).any(|folder| folder.join(program).exists())
    };
    if !rustix::process::geteuid().is_root() {
        return Some("root here");
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("/dev/net/tun");
    }
    ["unshare", "nsenter", "ip", "mount"].into_iter().find(|program| !is_there(program))
}

/// The places, as long as the run goes on.
pub struct Rooms {
    pub sites: Sites,
    pub wan: Wan,
    /// Each holds a place's namespace.
    _holders: Vec<Child>,
}

impl Rooms {
    pub fn open() -> anyhow::Result<Self> {
        call("ip", ["link", "set", "lo", "up"])?;
        let (mut holders, mut devices, mut sites) = (Vec::new(), Vec::new(), BTreeMap::new());
        for place in 0..CUSTOMERS {
            let holder = Command::new("unshare")
                .args(["--net", "--", "sleep", "infinity"])
                .stdin(Stdio::null())
                .spawn()
                .context("unshare (util-linux)")?;
            let network = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
            holders.push(holder);
            wait_until_apart(&network)?;
            devices.push(device_in(&network)?);
            configure(Some(&network), place)?;
            let name = REGIONS.get(place).copied().unwrap_or("global");
            sites.insert(name.to_owned(), Site { host: address(place), network });
        }
        devices.push(Tun::new_named(Interface::new(DEVICE)?)?);
        configure(None, CUSTOMERS)?;
        let mut links = Links::new(PLACES);
        for (a, b, time) in ROUND_TRIPS {
            links.round_trip(a, b, Duration::from_millis(time));
        }
        for place in 0..CUSTOMERS {
            links.round_trip(place, CUSTOMERS, Duration::from_millis(2));
        }
        Ok(Self { sites, wan: Wan::start(devices, links)?, _holders: holders })
    }
}

/// The holder has left our namespace once its link reads otherwise.
fn wait_until_apart(network: &Path) -> anyhow::Result<()> {
    let (own, deadline) = (std::fs::read_link("/proc/self/ns/net")?, Instant::now() + PATIENCE);
    while std::fs::read_link(network).is_ok_and(|there| there == own) {
        ensure!(Instant::now() < deadline, "no network namespace could be made");
        std::thread::yield_now();
    }
    Ok(())
}

/// A device belongs to the namespace in which it was opened, so a thread goes there for it.
fn device_in(network: &Path) -> anyhow::Result<Tun> {
    let network = std::fs::File::open(network)?;
    let opened = std::thread::spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        Tun::new_named(Interface::new(DEVICE)?)
    });
    opened.join().ok().context("the thread that opens a TUN device")?.context("no TUN device")
}

fn configure(network: Option<&Path>, place: usize) -> anyhow::Result<()> {
    let own = format!("{}/24", address(place));
    let commands: [&[&str]; 3] = [
        &["link", "set", "lo", "up"],
        &["address", "add", &own, "dev", DEVICE],
        &["link", "set", DEVICE, "mtu", "1500", "up"],
    ];
    for words in commands {
        match network {
            None => call("ip", words)?,
            Some(network) => {
                let net = format!("--net={}", network.display());
                call("nsenter", [&net, "--", "ip"].iter().chain(words))?;
            }
        }
    }
    Ok(())
}

/// Runs a command that must succeed.
pub fn call<T: AsRef<OsStr>>(program: &str, words: impl IntoIterator<Item = T>) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("{program} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {}", said.trim());
    Ok(())
}
