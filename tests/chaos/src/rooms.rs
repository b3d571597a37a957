//! Where a run takes place: namespaces of its own for network, mounts and processes, and in these a network
//! namespace for each place, joined by TUN devices to the [`Wan`]. The run itself stands in one more, where the
//! customers are. Where there can be none, all stand on loopback, and proxies between them ([`crate::wan::proxy`]).
//!
//! Invariant: all of them are without a name and are held by processes of the run only, so they end with it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use marquee::launcher::{Site, Sites};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tappers::{Interface, Tun};

use crate::wan::{Links, Wan, tun};

pub const REGIONS: [&str; 3] = ["eu", "us", "ap"];
/// The places in the network's order: the regions, `global`, and the customers.
pub const GLOBAL: usize = 3;
pub const CUSTOMERS: usize = 4;
const PLACES: usize = 5;

/// Round trips in milliseconds between two places.
pub type RoundTrips = [(usize, usize, u64); 6];
/// As between Frankfurt, Virginia and Singapore, somewhat shortened.
pub const ROUND_TRIPS: RoundTrips =
    [(0, 1, 80), (1, 2, 120), (0, 2, 40), (0, GLOBAL, 10), (1, GLOBAL, 80), (2, GLOBAL, 40)];

/// Set in the process that stands in the namespaces already.
const INSIDE: &str = "CHAOS_INSIDE";
const DEVICE: &str = "wan0";
const PATIENCE: Duration = Duration::from_secs(5);

fn address(place: usize) -> Ipv4Addr {
    Ipv4Addr::from([10, 77, 0, last(place)])
}

/// The last number of a place's address.
fn last(place: usize) -> u8 {
    u8::try_from(place + 1).unwrap_or(u8::MAX)
}

/// The place at an address.
pub fn place_at(address: [u8; 4]) -> Option<usize> {
    match address {
        [10, 77, 0, last] => usize::from(last).checked_sub(1).filter(|place| *place < PLACES),
        _ => None,
    }
}

/// A region, or `global`, by its name.
pub fn place_named(name: &str) -> Option<usize> {
    if name == "global" { Some(GLOBAL) } else { REGIONS.iter().position(|region| *region == name) }
}

/// How places are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// In network namespaces: every packet between them takes the network.
    Namespaces,
    /// By proxies on loopback: connections between them do.
    Proxies,
}

/// Runs `work` inside namespaces of its own, which takes a process of its own for all but the first call; on loopback
/// where it is asked to, or there cannot be any. `wanted`: it is an error where neither is possible, else it is said
/// and left.
pub fn inside(
    wanted: bool,
    loopback: bool,
    work: impl FnOnce(Apart) -> anyhow::Result<bool>,
) -> anyhow::Result<bool> {
    if std::env::var_os(INSIDE).is_some() {
        return work(Apart::Namespaces);
    }
    let missing = missing();
    if loopback || missing.is_some() {
        if let Some(missing) = missing {
            crate::say(&format!("network namespaces need {missing}"));
        }
        // Who connects is looked up in the kernel's tables.
        if Path::new("/proc/net/tcp").exists() {
            crate::say("places stand on loopback with proxies between them; no disk of its own is filled");
            return work(Apart::Proxies);
        }
        ensure!(!wanted, "places can be apart on Linux only");
        crate::say("NOT RUN: places can be apart on Linux only");
        return Ok(true);
    }
    let own = std::env::current_exe()?;
    if !wanted {
        on_loopback_too(&own)?;
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private"]);
    // With its own processes: whatever is left of them dies with the first.
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(own).args(std::env::args_os().skip(1)).env(INSIDE, "yes");
    Err(command.exec()).context("unshare (util-linux) cannot be run")
}

/// The form in the tests is also as it would be without root: a region is cut off, by proxies.
fn on_loopback_too(own: &Path) -> anyhow::Result<()> {
    let words = ["--loopback", "--seconds", "26", "--rate", "60", "--seed", "7", "--only", "cut-off"];
    let done = Command::new(own).args(words).args(["--out", "target/chaos/loopback"]).status()?;
    ensure!(done.success(), "the form on loopback ended with {done}");
    Ok(())
}

/// What a run cannot be without.
fn missing() -> Option<&'static str> {
    let is_there = |program: &str| {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).any(|folder| folder.join(program).exists())
    };
    if !rustix::process::geteuid().is_root() {
        return Some("root");
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("/dev/net/tun");
    }
    ["unshare", "nsenter", "ip", "mount"].into_iter().find(|program| !is_there(program))
}

/// The places, as long as the run goes on.
pub struct Rooms {
    pub apart: Apart,
    pub sites: Sites,
    pub wan: Wan,
    /// Each holds a place's namespace.
    _holders: Vec<Child>,
}

impl Rooms {
    /// To be called before there is any other thread.
    pub fn open(apart: Apart, round_trips: RoundTrips) -> anyhow::Result<Self> {
        match apart {
            Apart::Namespaces => Self::namespaces(round_trips),
            Apart::Proxies => Ok(Self::loopback(round_trips)),
        }
    }

    /// Each place has an address of its own, behind which a proxy is to stand.
    fn loopback(round_trips: RoundTrips) -> Self {
        let site = |place: usize| Site { host: Ipv4Addr::from([127, 77, 0, last(place)]), network: None };
        let sites = (0..CUSTOMERS).map(|place| (name(place), site(place))).collect();
        let wan = Wan::new(links(round_trips));
        Self { apart: Apart::Proxies, sites, wan, _holders: Vec::new() }
    }

    fn namespaces(round_trips: RoundTrips) -> anyhow::Result<Self> {
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
            sites.insert(name(place), Site { host: address(place), network: Some(network) });
        }
        devices.push(Tun::new_named(Interface::new(DEVICE)?)?);
        configure(None, CUSTOMERS)?;
        let wan = Wan::new(links(round_trips));
        tun::start(wan.clone(), devices)?;
        Ok(Self { apart: Apart::Namespaces, sites, wan, _holders: holders })
    }
}

/// Customers are near whichever gateway they use.
fn links(round_trips: RoundTrips) -> Links {
    let mut links = Links::new(PLACES);
    for (a, b, time) in round_trips {
        links.round_trip(a, b, Duration::from_millis(time));
    }
    for place in 0..CUSTOMERS {
        links.round_trip(place, CUSTOMERS, Duration::from_millis(2));
    }
    links
}

fn name(place: usize) -> String {
    REGIONS.get(place).copied().unwrap_or("global").to_owned()
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
    let opened = within(network, || Ok(Tun::new_named(Interface::new(DEVICE)?)?))?;
    opened.join().ok().context("the thread that opens a TUN device")?.context("no TUN device")
}

/// Does something at a place, on a thread of its own: what it opens and connects belongs there.
pub fn within<T: Send + 'static>(
    network: &Path,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<JoinHandle<anyhow::Result<T>>> {
    let network = std::fs::File::open(network)?;
    Ok(std::thread::spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    }))
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
