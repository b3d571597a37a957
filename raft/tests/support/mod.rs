//! Voters in this process, each in a runtime of its own, so that one can vanish without a goodbye.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::proto::registry::StatusReply;
use common::{RegionName, ShowId};
use raft::client::RegistryClient;
use raft::{Config, Peer};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const REGIONS: [&str; 3] = ["eu", "us", "ap"];
/// Far beyond what anything here takes, on a busy machine too.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

pub fn new_show(home: &str) -> ShowId {
    ShowId::new(&region(home))
}

struct Running {
    runtime: Runtime,
    stop: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
}

pub struct Voter {
    pub config: Config,
    running: Option<Running>,
}

impl Voter {
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "already running");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let ended = runtime.spawn(raft::run(self.config.clone(), stop.clone()));
        self.running = Some(Running { runtime, stop, ended });
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&mut self) {
        let Running { runtime, stop, ended } = self.running.take().unwrap();
        stop.cancel();
        tokio::time::timeout(DEADLINE, ended).await.unwrap().unwrap().unwrap();
        end(runtime);
    }

    /// Takes its runtime away without a word, and puts a copy of its files, made while they were open, in
    /// their place: what a killed process leaves. (A copy is not of one moment; see [`Group::settled`].)
    pub fn kill(&mut self) {
        let image = self.config.data_dir.with_extension("image");
        copy_dir(&self.config.data_dir, &image);
        end(self.running.take().unwrap().runtime);
        std::fs::remove_dir_all(&self.config.data_dir).unwrap();
        std::fs::rename(&image, &self.config.data_dir).unwrap();
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub fn client(&self) -> RegistryClient {
        RegistryClient::new(&[self.url()], &common::tls::Tls::plain()).unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.config.listen)
    }

    /// The status and body of a page on the operations port.
    pub async fn ops(&self, path: &str) -> Option<(u16, String)> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(&self.config.ops_listen).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: ops\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer))
    }
}

impl Drop for Voter {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.runtime.shutdown_background();
        }
    }
}

/// Waits until every task is gone, and with the last the lock on the voter's files; on a thread of its own,
/// since a runtime may not be waited for from within another.
fn end(runtime: Runtime) {
    std::thread::spawn(|| runtime.shutdown_timeout(DEADLINE)).join().unwrap();
}

fn free_addresses(count: usize) -> Vec<String> {
    (0..count).map(|_| common::loopback::unused_address().unwrap().to_string()).collect()
}

fn copy_dir(from: &Path, to: &PathBuf) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

pub struct Group {
    pub voters: Vec<Voter>,
    dir: TempDir,
}

impl Group {
    /// Not started yet; `adjust` may change each voter's configuration.
    pub fn new(size: usize, adjust: impl Fn(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addresses = free_addresses(2 * size);
        let address = |i: usize| addresses[i].clone();
        let peer = |i: usize| Peer {
            id: i as u64 + 1,
            region: region(REGIONS[i]),
            url: format!("http://{}", address(i)),
        };
        let peers: Vec<Peer> = (0..size).map(peer).collect();
        let voter = |i: usize| {
            let mut config = Config {
                node_id: i as u64 + 1,
                region: REGIONS[i].into(),
                data_dir: dir.path().join(REGIONS[i]),
                listen: address(i),
                ops_listen: address(size + i),
                peers: peers.clone(),
                bootstrap: i == 0,
                heartbeat_ms: 100,
                election_min_ms: 300,
                election_max_ms: 600,
                ..Config::default()
            };
            adjust(&mut config);
            Voter { config, running: None }
        };
        Self { voters: (0..size).map(voter).collect(), dir }
    }

    pub fn started(size: usize, adjust: impl Fn(&mut Config)) -> Self {
        let mut group = Self::new(size, adjust);
        group.voters.iter_mut().for_each(Voter::start);
        group
    }

    /// Gives all voters, none of which may be running, other addresses.
    pub fn move_house(&mut self) {
        let addresses = free_addresses(self.voters.len());
        for voter in &mut self.voters {
            assert!(!voter.is_running());
            for (peer, address) in voter.config.peers.iter_mut().zip(&addresses) {
                peer.url = format!("http://{address}");
            }
        }
        for (voter, address) in self.voters.iter_mut().zip(addresses) {
            voter.config.listen = address;
        }
    }

    pub fn client(&self) -> RegistryClient {
        RegistryClient::new(&self.urls(), &common::tls::Tls::plain()).unwrap()
    }

    pub fn urls(&self) -> Vec<String> {
        self.voters.iter().map(Voter::url).collect()
    }

    /// Waits until all running voters agree on a leader; its place.
    pub async fn leader(&self) -> usize {
        until("an agreed leader", async || {
            let mut leaders = Vec::new();
            for voter in self.voters.iter().filter(|v| v.is_running()) {
                leaders.push(voter.client().status().await.ok()?.leader);
            }
            leaders.dedup();
            let [leader] = leaders.as_slice() else { return None };
            self.voters.iter().position(|v| v.is_running() && v.config.region == *leader)
        })
        .await
    }

    /// Waits until every running voter has applied all there is; then none is writing.
    pub async fn settled(&self) {
        until("all voters to have all", async || {
            let mut at = Vec::new();
            for voter in self.voters.iter().filter(|v| v.is_running()) {
                let status = voter.client().status().await.ok()?;
                at.extend([status.applied_index, status.last_log_index]);
            }
            at.dedup();
            (at.len() == 1).then_some(())
        })
        .await;
    }

    pub async fn status_when(&self, voter: usize, reached: impl Fn(&StatusReply) -> bool) -> StatusReply {
        let client = self.voters[voter].client();
        until("a voter's status", async || client.status().await.ok().filter(|s| reached(s))).await
    }
}

/// Asks until there is an answer; panics after [`DEADLINE`].
pub async fn until<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < DEADLINE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Creates shows at the same time; their ids, once all are acknowledged.
pub async fn create_shows(client: &RegistryClient, count: usize) -> Vec<ShowId> {
    let mut created = tokio::task::JoinSet::new();
    for i in 0..count {
        let (client, home) = (client.clone(), REGIONS[i % REGIONS.len()]);
        created.spawn(async move {
            let id = new_show(home);
            let record = client.create_show(id, &region(home)).await.unwrap();
            assert_eq!((record.owner.as_str(), record.epoch), (home, 1));
            id
        });
    }
    created.join_all().await
}
