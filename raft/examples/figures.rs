//! Commands a second and their p99, of three voters and of three nodes of etcd, in turns on the same machine:
//! `figures [--rounds N] [--seconds S] [--clients 1,16,64] [--etcd PROGRAM]`; `scripts/bench-registry` runs it.
//! With `--memory 100000,1000000`: what the voters take with so many shows, each registered by a command of its own.
//!
//! Both run as processes of their own with their logs flushed; each client waits for its answer and speaks to
//! the leader. A command registers a show, a put stores as many bytes.

#![allow(clippy::print_stdout, reason = "it speaks to a person")]
#![allow(clippy::unwrap_used, reason = "a measurement may fail by panicking")]

use std::future::Future;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::tls::Tls;
use common::{RegionName, ShowId};
use futures::{StreamExt, stream};
use raft::client::RegistryClient;
use raft::{Config, Peer};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

const REGIONS: [&str; 3] = ["eu", "us", "ap"];

/// etcd's messages, as far as they are needed here (its `rpc.proto`, by field numbers).
mod etcd {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Put {
        #[prost(bytes = "vec", tag = "1")]
        pub key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub value: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Header {
        #[prost(uint64, tag = "2")]
        pub member_id: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Nothing {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Status {
        #[prost(message, optional, tag = "1")]
        pub header: Option<Header>,
        #[prost(uint64, tag = "4")]
        pub leader: u64,
    }
}

/// Processes that end with the value.
struct Group(Vec<Child>);

impl Drop for Group {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn free_addresses() -> Vec<String> {
    (0..6).map(|_| common::loopback::unused_address().unwrap().to_string()).collect()
}

fn start_etcd(program: &str, dir: &Path) -> (Group, Vec<String>) {
    let addresses = free_addresses();
    let url = |at: usize| format!("http://{}", addresses[at]);
    let all: Vec<String> = (0..3).map(|i| format!("n{i}={}", url(3 + i))).collect();
    let children = (0..3).map(|i| {
        let log = std::fs::File::create(dir.join(format!("n{i}.log"))).unwrap();
        Command::new(program)
            .args(["--name", &format!("n{i}"), "--data-dir"])
            .arg(dir.join(format!("n{i}")))
            .args(["--listen-client-urls", &url(i), "--advertise-client-urls", &url(i)])
            .args(["--listen-peer-urls", &url(3 + i), "--initial-advertise-peer-urls", &url(3 + i)])
            .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    });
    (Group(children.collect()), (0..3).map(url).collect())
}

fn start_voters(dir: &Path) -> (Group, Vec<String>) {
    let addresses = free_addresses();
    let urls: Vec<String> = addresses[..3].iter().map(|address| format!("http://{address}")).collect();
    let region = |i: usize| -> RegionName { REGIONS[i].parse().unwrap() };
    let peers: Vec<Peer> =
        (0..3).map(|i| Peer { id: i as u64 + 1, region: region(i), url: urls[i].clone() }).collect();
    let children = (0..3).map(|i| {
        let config = Config {
            node_id: i as u64 + 1,
            region: REGIONS[i].into(),
            data_dir: dir.join(REGIONS[i]),
            listen: addresses[i].clone(),
            ops_listen: addresses[3 + i].clone(),
            peers: peers.clone(),
            bootstrap: i == 0,
            ..Config::default()
        };
        let file = dir.join(format!("{}.json", REGIONS[i]));
        std::fs::write(&file, serde_json::to_vec(&config).unwrap()).unwrap();
        let this = std::env::current_exe().unwrap();
        Command::new(this).arg("voter").arg(file).stdout(Stdio::null()).spawn().unwrap()
    });
    (Group(children.collect()), urls)
}

async fn leader_of(urls: &[String]) -> String {
    let client = RegistryClient::new(urls, &Tls::plain()).unwrap();
    loop {
        if let Ok(status) = client.leader_status().await
            && let Some(at) = REGIONS.iter().position(|region| *region == status.leader)
        {
            return urls[at].clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn unary<A, B>(channel: &Channel, path: &'static str, message: A) -> Result<B, tonic::Status>
where
    A: prost::Message + 'static,
    B: prost::Message + Default + 'static,
{
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec = tonic_prost::ProstCodec::default();
    let path = http::uri::PathAndQuery::from_static(path);
    Ok(grpc.unary(tonic::Request::new(message), path, codec).await?.into_inner())
}

async fn etcd_leader(urls: &[String]) -> Channel {
    loop {
        for url in urls {
            let channel = Tls::plain().channel(url, "").unwrap();
            let asked = unary(&channel, "/etcdserverpb.Maintenance/Status", etcd::Nothing {});
            if let Ok(etcd::Status { header: Some(header), leader }) = asked.await
                && header.member_id == leader
            {
                return channel;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Commands a second and p99 in milliseconds.
async fn measure<F>(clients: usize, seconds: f64, one: impl Fn() -> F + Clone + Send + 'static) -> (f64, f64)
where
    F: Future<Output = bool> + Send + 'static,
{
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let one = one.clone();
        tasks.spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < until {
                let asked = Instant::now();
                assert!(one().await, "a command failed");
                took.push(asked.elapsed().as_secs_f64() * 1000.0);
            }
            took
        });
    }
    let mut took: Vec<f64> = tasks.join_all().await.into_iter().flatten().collect();
    let rate = took.len() as f64 / begun.elapsed().as_secs_f64();
    took.sort_by(f64::total_cmp);
    (rate, took[(took.len() - 1) * 99 / 100])
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn argument(name: &str, default: &str) -> String {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name);
    at.and_then(|at| arguments.get(at + 1)).cloned().unwrap_or_else(|| default.to_owned())
}

#[tokio::main]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some("voter") {
        let file = std::env::args().nth(2).unwrap();
        let config: Config = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        raft::run(config, CancellationToken::new()).await.unwrap();
        return;
    }
    let rounds: usize = argument("--rounds", "5").parse().unwrap();
    let seconds: f64 = argument("--seconds", "2").parse().unwrap();
    let clients: Vec<usize> =
        argument("--clients", "1,16,64").split(',').map(|n| n.parse().unwrap()).collect();
    let program = argument("--etcd", "");
    let dir = tempfile::tempdir_in(argument("--dir", "/tmp")).unwrap();
    let (voters, urls) = start_voters(dir.path());
    let leader = leader_of(&urls).await;
    let registry = RegistryClient::new(&[leader], &Tls::plain()).unwrap();
    let nodes = (!program.is_empty()).then(|| start_etcd(&program, dir.path()));
    let etcd = match &nodes {
        Some((_, urls)) => Some(etcd_leader(urls).await),
        None => None,
    };

    println!(
        "{:>7}  {:>22}  {:>22}  {:>6}",
        "clients", "registry: /s   p99 ms", "etcd: /s   p99 ms", "ratio"
    );
    for count in clients {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let registry = registry.clone();
            let one = move || {
                let registry = registry.clone();
                async move {
                    let home: RegionName = REGIONS[0].parse().unwrap();
                    registry.create_show(ShowId::new(&home), &home).await.is_ok()
                }
            };
            ours.push(measure(count, seconds, one).await);
            if let Some(channel) = etcd.clone() {
                let one = move || {
                    let channel = channel.clone();
                    async move {
                        let home: RegionName = REGIONS[0].parse().unwrap();
                        let key = ShowId::new(&home).to_string().into_bytes();
                        let put = etcd::Put { key, value: vec![b'x'; 64] };
                        unary::<_, etcd::Nothing>(&channel, "/etcdserverpb.KV/Put", put).await.is_ok()
                    }
                };
                theirs.push(measure(count, seconds, one).await);
            }
        }
        let column = |of: &[(f64, f64)]| {
            let rate = median(of.iter().map(|(rate, _)| *rate).collect());
            (rate, median(of.iter().map(|(_, p99)| *p99).collect()))
        };
        let (rate, p99) = column(&ours);
        if theirs.is_empty() {
            println!("{count:>7}  {rate:>13.0} {p99:>8.2}");
            continue;
        }
        let (other, other_p99) = column(&theirs);
        let ratio = rate / other;
        println!("{count:>7}  {rate:>13.0} {p99:>8.2}  {other:>13.0} {other_p99:>8.2}  {ratio:>6.2}");
    }
    for shows in argument("--memory", "").split(',').filter(|of| !of.is_empty()) {
        grow(&registry, shows.parse().unwrap()).await;
        // The last snapshot, and what raft still holds of the log.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let each = voters.0.iter().map(|voter| format!("{:.0}", resident_mib(voter.id())));
        let disk = REGIONS.map(|region| disk_mib(&dir.path().join(region))).map(|mib| format!("{mib:.0}"));
        println!(
            "{shows} shows: voters take {} MiB of memory and {} of disk",
            each.collect::<Vec<_>>().join(", "),
            disk.join(", ")
        );
    }
    drop((voters, nodes));
}

/// Registers shows until there are so many.
async fn grow(registry: &RegistryClient, shows: u64) {
    let known = registry.leader_status().await.unwrap().shows;
    let bar = indicatif::ProgressBar::new(shows).with_position(known);
    bar.set_style(
        indicatif::ProgressStyle::with_template("{wide_bar} {pos}/{len} shows, {eta} left").unwrap(),
    );
    let homes: Vec<RegionName> = REGIONS.iter().map(|region| region.parse().unwrap()).collect();
    let made = stream::iter(known..shows).map(|no| {
        let (home, bar) = (homes[no as usize % homes.len()].clone(), bar.clone());
        async move {
            registry.create_show(ShowId::new(&home), &home).await.unwrap();
            bar.inc(1);
        }
    });
    made.buffer_unordered(512).collect::<()>().await;
    bar.finish_and_clear();
}

fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

fn disk_mib(folder: &Path) -> f64 {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries.map(|entry| entry.metadata().unwrap().len()).sum::<u64>() as f64 / f64::from(1 << 20)
}
