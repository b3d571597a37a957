//! Doing what the schedule says, to processes, links and disks, and taking it back.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use marquee::launcher::{Place, Platform, Service, Site, Sites};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::faults::{Fault, Region, SMALL_DISK, Stopped};
use crate::rooms::{GLOBAL, REGIONS, call};
use crate::say;
use crate::stage::Operator;
use crate::wan::Wan;

/// How far a backup or a standby falls behind before it takes over.
const BEHIND: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// Room for a database and its log, and not much more: at first, and for what each minute's load adds.
const DISK_MIB: u64 = 700;
const DISK_MIB_A_MINUTE: u64 = 40;

pub struct Injector {
    pub platform: Platform,
    pub wan: Wan,
    pub sites: Sites,
    /// For asking who leads the registry.
    pub http: reqwest::Client,
    pub operator: Operator,
    /// Processes that were told to stop, and go on when the fault ends.
    stopped: Vec<u32>,
}

fn place(region: Region) -> Place {
    Place::Region(REGIONS[region].parse().expect("a region's name"))
}

/// Puts the region's Postgres on a small disk of its own, before there is anything. The mount is the run's alone.
pub fn small_disk(data: &Path, lasting: Duration) -> anyhow::Result<()> {
    let folder = data.join("servers").join(format!("postgres-{}", REGIONS[SMALL_DISK]));
    fs::create_dir_all(&folder)?;
    let owner = postgres_user()?;
    let size = DISK_MIB + DISK_MIB_A_MINUTE * lasting.as_secs() / 60;
    let options = format!("size={size}m,mode=0700,uid={},gid={}", owner.0, owner.1);
    call(
        "mount",
        [OsString::from("-t"), "tmpfs".into(), "-o".into(), options.into(), "tmpfs".into(), folder.into()],
    )
}

/// Lets go of it, so that the folder can be removed.
pub fn remove_small_disk(data: &Path) {
    let folder = data.join("servers").join(format!("postgres-{}", REGIONS[SMALL_DISK]));
    if let Err(error) = call("umount", ["--lazy".as_ref(), folder.as_os_str()]) {
        say(&format!("{error:#}"));
    }
}

/// As whom the launcher runs Postgres when it is root.
fn postgres_user() -> anyhow::Result<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd")?;
    let of = |name: &str| {
        passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.first() == Some(&name))
                .then(|| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)))
                .flatten()
        })
    };
    of("postgres").or_else(|| of("nobody")).context("no user for Postgres")
}

impl Injector {
    pub fn new(platform: Platform, wan: Wan, sites: Sites, operator: Operator) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
        Ok(Self { platform, wan, sites, http, operator, stopped: Vec::new() })
    }

    /// Answers the region that it concerns, where it is one.
    pub async fn begin(&mut self, fault: Fault) -> anyhow::Result<Option<Region>> {
        let platform = self.platform.clone();
        let kill = async |region, service| platform.kill(&place(region), service).await.map(drop);
        match fault {
            Fault::KillPostgres(at) => kill(at, Some(Service::Postgres)).await?,
            Fault::KillRegional(at) => kill(at, Some(Service::Regional)).await?,
            Fault::KillRegion(at) => kill(at, None).await?,
            Fault::KillRegistryLeader => {
                let leader = self.registry_leader().await?;
                kill(leader, Some(Service::Raft)).await?;
                return Ok(Some(leader));
            }
            Fault::Stop(at, part) => {
                let service = match part {
                    Stopped::Postgres => Service::Postgres,
                    Stopped::Regional => Service::Regional,
                    Stopped::Raft => Service::Raft,
                    Stopped::Gateway => Service::Gateway,
                };
                self.stop(at, &[service]);
            }
            Fault::StopRegion(at) => self.stop(at, &Service::ALL),
            Fault::CutOff(at) => self.wan.change(|links| {
                for other in (0..=GLOBAL).filter(|other| *other != at) {
                    links.change(at, other, |link| link.cut = true);
                    links.change(other, at, |link| link.cut = true);
                }
            }),
            Fault::CutOneWay(from, to) => {
                self.wan.change(|links| links.change(from, to, |link| link.cut = true));
                return Ok(None);
            }
            Fault::CutBetween(a, b) => {
                self.wan.change(|links| {
                    links.change(a, b, |link| link.cut = true);
                    links.change(b, a, |link| link.cut = true);
                });
                return Ok(None);
            }
            Fault::Lose(per_mille) => {
                self.wan.change(|links| {
                    for (from, to) in (0..GLOBAL).flat_map(|from| (0..GLOBAL).map(move |to| (from, to))) {
                        links.change(from, to, |link| link.loss_per_mille = per_mille);
                    }
                });
                return Ok(None);
            }
            Fault::RestoreOlder(at) => self.restore_older(at).await?,
            Fault::PromoteStandby(at) => self.promote_standby(at).await?,
            Fault::LoseRedis(at) => {
                let url = self.platform.run().redis[REGIONS[at]].clone();
                flush_redis(&url).await?;
                kill(at, Some(Service::Redis)).await?;
            }
            Fault::FillDisk(at) => fill(&self.folder(at).join("ballast"))?,
        }
        Ok(match fault {
            Fault::KillPostgres(at)
            | Fault::KillRegional(at)
            | Fault::KillRegion(at)
            | Fault::Stop(at, _)
            | Fault::StopRegion(at)
            | Fault::CutOff(at)
            | Fault::RestoreOlder(at)
            | Fault::PromoteStandby(at)
            | Fault::FillDisk(at) => Some(at),
            _ => None,
        })
    }

    /// Takes everything back, whatever it was: links whole, stopped processes going on, room on the disk, missing
    /// parts started. Answers what had ended by itself.
    pub async fn end(&mut self, fault: Fault) -> anyhow::Result<Vec<String>> {
        self.wan.change(|links| links.heal());
        for pid in self.stopped.drain(..) {
            signal(pid, Signal::CONT);
        }
        let _ = fs::remove_file(self.folder(SMALL_DISK).join("ballast"));
        let mut surprises = Vec::new();
        for region in 0..REGIONS.len() {
            for part in self.platform.start_part(&place(region), None).await? {
                let expected = match fault {
                    Fault::KillPostgres(at) => at == region && part.service == Service::Postgres,
                    Fault::KillRegional(at) => at == region && part.service == Service::Regional,
                    Fault::KillRegistryLeader => part.service == Service::Raft,
                    Fault::KillRegion(at) => at == region,
                    Fault::LoseRedis(at) => at == region && part.service == Service::Redis,
                    // Postgres ends when it cannot write its log.
                    Fault::FillDisk(at) => at == region && part.service == Service::Postgres,
                    _ => false,
                };
                if !expected {
                    surprises.push(part.to_string());
                }
            }
        }
        Ok(surprises)
    }

    fn folder(&self, region: Region) -> PathBuf {
        self.platform.data().join("servers").join(format!("postgres-{}", REGIONS[region]))
    }

    fn pid(&self, region: Region, service: Service) -> Option<u32> {
        let (at, parts) = (place(region), self.platform.parts());
        parts.into_iter().find(|(part, _)| part.place == at && part.service == service)?.1
    }

    fn stop(&mut self, region: Region, services: &[Service]) {
        let pids: Vec<u32> = services.iter().filter_map(|service| self.pid(region, *service)).collect();
        for pid in pids {
            // Children first: a parent that sees them stopped could think about it.
            for pid in children(pid).into_iter().chain([pid]) {
                signal(pid, Signal::STOP);
                self.stopped.push(pid);
            }
        }
    }

    async fn registry_leader(&self) -> anyhow::Result<Region> {
        for gateway in self.platform.run().gateways.values() {
            let asked = self.operator.get(&self.http, &format!("{gateway}/v1/cluster")).await;
            let Some(answer) = asked else { continue };
            let leader = answer["registry"]["leader"].as_str();
            if let Some(leader) = leader.and_then(|leader| REGIONS.iter().position(|r| *r == leader)) {
                return Ok(leader);
            }
        }
        bail!("nobody tells who leads the registry")
    }

    /// A backup is taken while customers buy, and some seconds later it is all there is.
    async fn restore_older(&self, region: Region) -> anyhow::Result<()> {
        let folder = self.folder(region);
        let backup = folder.join("backup");
        self.copy_of(region, &backup, &[]).await?;
        tokio::time::sleep(BEHIND).await;
        self.platform.kill(&place(region), Some(Service::Postgres)).await?;
        exchange(&folder, &backup)?;
        self.platform.start_part(&place(region), Some(Service::Postgres)).await.map(drop)
    }

    /// A standby follows, falls behind, and takes over when the first is killed: what it had not heard is lost.
    async fn promote_standby(&self, region: Region) -> anyhow::Result<()> {
        let (folder, site) = (self.folder(region), self.site(region)?);
        let copy = folder.join("standby");
        self.copy_of(region, &copy, &["--write-recovery-conf"]).await?;
        let own = marquee_port(&self.platform, region)?;
        let port = common::loopback::unused_address()?.port();
        let postgres = self.programs(region)?.join("postgres");
        let owner = fs::metadata(&folder)?;
        let mut command = match &site.network {
            Some(network) => {
                let mut command = std::process::Command::new("nsenter");
                let mut net = OsString::from("--net=");
                net.push(network);
                let user = [format!("--setuid={}", owner.uid()), format!("--setgid={}", owner.gid())];
                command.arg(net).args(user).arg("--").arg(postgres);
                command
            }
            None => {
                let mut command = std::process::Command::new(postgres);
                if rustix::process::geteuid().is_root() {
                    command.uid(owner.uid()).gid(owner.gid());
                }
                command
            }
        };
        command.arg("-D").arg(&copy);
        let host = site.network.as_ref().map_or(Ipv4Addr::LOCALHOST, |_| site.host);
        for setting in [
            format!("port={port}"),
            format!("listen_addresses={host}"),
            "unix_socket_directories=".into(),
            "logging_collector=off".into(),
            "max_connections=100".into(),
        ] {
            command.args(["-c", &setting]);
        }
        let log = fs::File::create(folder.join("standby.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut command = tokio::process::Command::from(command);
        let mut standby = command.kill_on_drop(true).spawn().context("the standby")?;
        let url = self.platform.run().postgres[REGIONS[region]].clone();
        wait_for(&url, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')").await?;
        // Who sends to it falls silent; what is committed from now on it does not hear.
        let pid = self.pid(region, Service::Postgres).context("Postgres does not run")?;
        let senders: Vec<u32> =
            children(pid).into_iter().filter(|child| title(*child).contains("walsender")).collect();
        ensure!(!senders.is_empty(), "nobody sends to the standby");
        for sender in &senders {
            signal(*sender, Signal::STOP);
        }
        tokio::time::sleep(BEHIND).await;
        self.platform.kill(&place(region), Some(Service::Postgres)).await?;
        for sender in senders {
            signal(sender, Signal::KILL);
        }
        let standby_url = url.replace(&format!(":{own}/"), &format!(":{port}/"));
        ensure!(standby_url != url, "the standby's port is not in its URL");
        wait_for(&standby_url, "SELECT pg_promote()").await?;
        wait_for(&standby_url, "SELECT NOT pg_is_in_recovery()").await?;
        let pid = standby.id().context("the standby ended")?;
        signal(pid, Signal::INT);
        tokio::time::timeout(PATIENCE, standby.wait()).await.context("the standby does not stop")??;
        exchange(&folder, &copy)?;
        self.platform.start_part(&place(region), Some(Service::Postgres)).await.map(drop)
    }

    fn site(&self, region: Region) -> anyhow::Result<&Site> {
        self.sites.get(REGIONS[region]).context("a region without a site")
    }

    /// Where Postgres' programs are: beside the one that runs.
    fn programs(&self, region: Region) -> anyhow::Result<PathBuf> {
        let pid = self.pid(region, Service::Postgres).context("Postgres does not run")?;
        let program = fs::read_link(format!("/proc/{pid}/exe"))?;
        Ok(program.parent().context("a program in no folder")?.to_owned())
    }

    async fn copy_of(&self, region: Region, to: &Path, more: &[&str]) -> anyhow::Result<()> {
        let _ = fs::remove_dir_all(to);
        let url = self.platform.run().postgres[REGIONS[region]].clone();
        let program = self.programs(region)?.join("pg_basebackup");
        let mut command = tokio::process::Command::new(program);
        command.arg("-D").arg(to).args(["-X", "stream", "-c", "fast", "-d", &url]).args(more);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output =
            tokio::time::timeout(PATIENCE, command.output()).await.context("the backup takes long")??;
        ensure!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr).trim());
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let owner = fs::metadata(self.folder(region))?;
        let owner = format!("{}:{}", owner.uid(), owner.gid());
        call("chown", [OsString::from("-R"), owner.into(), to.into()])
    }
}

fn marquee_port(platform: &Platform, region: Region) -> anyhow::Result<u16> {
    let url = &platform.run().postgres[REGIONS[region]];
    let port = url.rsplit_once('/').and_then(|(rest, _)| rest.rsplit_once(':')).map(|(_, port)| port);
    Ok(port.context("a URL without a port")?.parse()?)
}

/// The copy becomes the server's data.
fn exchange(folder: &Path, copy: &Path) -> anyhow::Result<()> {
    let (data, lost) = (folder.join("data"), folder.join("lost"));
    fs::rename(&data, &lost)?;
    fs::rename(copy, &data)?;
    Ok(fs::remove_dir_all(lost)?)
}

/// Until the statement answers true.
async fn wait_for(url: &str, statement: &str) -> anyhow::Result<()> {
    let (pool, deadline) = (migrations::pool(url, 1)?, Instant::now() + PATIENCE);
    loop {
        let answered = match pool.get().await {
            Ok(client) => client.query_one(statement, &[]).await.is_ok_and(|row| row.get(0)),
            Err(_) => false,
        };
        if answered {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not within {PATIENCE:?}: {statement}");
        tokio::time::sleep(POLL).await;
    }
}

/// Writes until there is no room.
fn fill(file: &Path) -> anyhow::Result<()> {
    let mut file = fs::File::create(file)?;
    for size in [1 << 20, 1 << 12, 1] {
        let zeros = vec![0; size];
        while file.write_all(&zeros).is_ok() {}
    }
    Ok(())
}

async fn flush_redis(url: &str) -> anyhow::Result<()> {
    let rest = url.strip_prefix("redis://:").context("a Redis URL of another form")?;
    let (password, address) = rest.trim_end_matches('/').rsplit_once('@').context("no address")?;
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(format!("AUTH {password}\r\nFLUSHALL\r\n").as_bytes()).await?;
    let (mut answer, mut read) = ([0; 64], 0);
    while !answer[..read].ends_with(b"+OK\r\n+OK\r\n") {
        let more = tokio::time::timeout(PATIENCE, stream.read(&mut answer[read..])).await??;
        ensure!(more > 0, "Redis answered {:?}", String::from_utf8_lossy(&answer[..read]));
        read += more;
    }
    Ok(())
}

fn signal(pid: u32, signal: Signal) {
    // One that has ended meanwhile needs no signal.
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        && let Err(error) = kill_process(pid, signal)
        && error != rustix::io::Errno::SRCH
    {
        say(&format!("{pid:?} could not be signalled: {error}"));
    }
}

fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name in brackets: state, parent.
        let parent_of =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parent_of == Some(parent)
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_child).collect()
}

fn title(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
