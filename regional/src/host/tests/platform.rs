//! Three regions, each a process with a database of its own, and between them links that can be cut. Whoever leads is
//! told so, since there is no registry here.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;
use tonic::transport::server::TcpIncoming;

use super::*;
use crate::replicas::compare::Target;
use crate::testing::until;

pub(super) const NAMES: [&str; 3] = ["eu", "us", "ap"];

/// One way between two regions, which can be cut.
struct Link {
    url: String,
    cut: Arc<AtomicBool>,
    /// Ends what goes over it now.
    connections: Arc<Mutex<CancellationToken>>,
}

impl Link {
    async fn to(target: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (cut, connections) =
            (Arc::new(AtomicBool::new(false)), Arc::<Mutex<CancellationToken>>::default());
        let (is_cut, present) = (cut.clone(), connections.clone());
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let ended = present.lock().unwrap().clone();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        () = ended.cancelled() => {}
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        Self { url, cut, connections }
    }

    fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
        if cut {
            std::mem::take(&mut *self.connections.lock().unwrap()).cancel();
        }
    }
}

pub(super) struct Platform {
    _server: TestPostgres,
    pub apps: BTreeMap<&'static str, App>,
    pub urls: BTreeMap<&'static str, String>,
    links: BTreeMap<(&'static str, &'static str), Arc<Link>>,
    /// Where each takes the others' journals.
    ports: BTreeMap<&'static str, std::net::SocketAddr>,
    lives: u64,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl Platform {
    pub async fn start() -> Self {
        let server = tokio::task::spawn_blocking(|| TestPostgres::start_with(Options { fsync: false }));
        let server = server.await.unwrap();
        let stop = CancellationToken::new();
        let (mut urls, mut incoming, mut links) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut ports = BTreeMap::new();
        for name in NAMES {
            urls.insert(name, server.migrated(name, Schema::Regional).await);
            let port = crate::replicas::run::bind("127.0.0.1:0").unwrap();
            let address = port.local_addr().unwrap();
            for from in NAMES.into_iter().filter(|from| *from != name) {
                links.insert((from, name), Arc::new(Link::to(address).await));
            }
            ports.insert(name, address);
            incoming.insert(name, port);
        }
        let (apps, guard) = (BTreeMap::new(), stop.clone().drop_guard());
        let mut platform = Self { _server: server, apps, urls, links, ports, lives: 0, stop, _guard: guard };
        for (name, port) in incoming {
            platform.begin(name, port);
        }
        platform
    }

    /// A process of the region begins to live.
    fn begin(&mut self, name: &'static str, port: TcpIncoming) {
        self.lives += 1;
        let ways: BTreeMap<RegionName, String> = NAMES
            .into_iter()
            .filter(|to| *to != name)
            .map(|to| (region(to), self.links[&(name, to)].url.clone()))
            .collect();
        let config =
            Config { region: region(name), regions: NAMES.map(region).to_vec(), ..Config::default() };
        let there = ways.clone();
        let endpoints: Endpoints = Arc::new(move |to| there.get(to).cloned().into_iter().collect());
        let app = process_of(config, &self.urls[name], self.lives, endpoints);
        crate::replicas::run::start(&app, port);
        app.hosts.follow_registry(&self.stop);
        let targets =
            (1..).zip(ways).map(|(session, (region, url))| Target { region, session, url, is_up: true });
        let targets: Vec<Target> = targets.collect();
        crate::replicas::run::compare(&app, Arc::new(move || targets.clone()));
        self.apps.insert(name, app);
    }

    /// Its process ends, with all that it knew, and another begins, which is told what the one before was told.
    pub async fn restart(&mut self, name: &'static str, shows: &[ShowId]) {
        let before = self.apps.remove(name).unwrap();
        before.stop.cancel();
        before.hosts.retire();
        let address = self.ports[name].to_string();
        let mut port = None;
        until("its port is free", || {
            port = crate::replicas::run::bind(&address).ok();
            std::future::ready(port.is_some())
        })
        .await;
        self.begin(name, port.unwrap());
        for record in shows.iter().filter_map(|show| before.view.show(*show)) {
            self.apps[name].view.note(record);
        }
    }

    /// Everybody hears that `owner` owns the show.
    pub fn owned(&self, show: ShowId, owner: &str, epoch: u64) {
        for app in self.apps.values() {
            Self::tell(app, show, owner, epoch);
        }
    }

    pub fn tell(app: &App, show: ShowId, owner: &str, epoch: u64) {
        let (home, owner, replicas) = (region("eu"), region(owner), NAMES.map(region).to_vec());
        app.view.note(ShowRecord { id: show, home, owner, epoch, replicas, prior: Vec::new() });
    }

    /// A show that eu leads.
    pub async fn show(&self) -> ShowId {
        let (id, group) = new_show();
        self.owned(id, "eu", 1);
        self.apps["eu"].hosts.create(id, group).await.unwrap();
        id
    }

    pub fn cut(&self, from: &'static str, to: &'static str, cut: bool) {
        self.links[&(from, to)].cut(cut);
    }

    /// Nothing comes from, or to, this region any more; or everything again.
    pub fn part(&self, name: &'static str, cut: bool) {
        for ((from, to), link) in &self.links {
            if *from == name || *to == name {
                link.cut(cut);
            }
        }
    }

    pub fn heal(&self) {
        self.links.values().for_each(|link| link.cut(false));
    }

    pub fn book(&self, at: &str, show: ShowId, seat: &str, key: Option<[u8; 16]>) -> JoinHandle<Heard> {
        let (app, asked) = (self.apps[at].clone(), wish(show, seat, key));
        tokio::spawn(async move { app.hosts.ask(show, asked).await.map(|(_, answer)| answer) })
    }

    pub async fn booked(&self, at: &str, show: ShowId, seat: &str) {
        let answer = self.book(at, show, seat, None).await.unwrap();
        assert!(matches!(answer, Ok(Answer::Done { .. })), "{seat}: {answer:?}");
    }

    /// What a region holds and knows to be committed: the head, and every entry's hash.
    pub async fn journal(&self, at: &str, show: ShowId) -> (i64, Vec<Vec<u8>>) {
        let client = self.apps[at].pool.get().await.unwrap();
        let head = "SELECT committed FROM show_head WHERE show_id = $1";
        let committed = client.query_opt(head, &[&show.0]).await.unwrap().map_or(0, |row| row.get(0));
        let select = "SELECT hash FROM show_journal WHERE show_id = $1 ORDER BY seq";
        let rows = client.query(select, &[&show.0]).await.unwrap();
        (committed, rows.iter().map(|row| row.get(0)).collect())
    }

    pub async fn lengths(&self, at: &str, shows: &[ShowId]) -> Vec<usize> {
        let journals = shows.iter().map(async |show| self.journal(at, *show).await.1.len());
        futures::future::join_all(journals).await
    }

    /// All regions come to hold the same journal, all of it committed.
    pub async fn agree(&self, show: ShowId) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let mut journals = Vec::new();
            for name in NAMES {
                journals.push(self.journal(name, show).await);
            }
            let (committed, hashes) = &journals[0];
            if journals.iter().all(|other| other == &journals[0]) && *committed == hashes.len() as i64 {
                return hashes.clone();
            }
            let told: Vec<_> = journals.iter().map(|(c, h)| (*c, h.len())).collect();
            assert!(Instant::now() < deadline, "the journals do not come to agree: {told:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(super) type Heard = Result<Answer, HostError>;

/// Held up in `at` by a lock on the show's head: an entry that is booked meanwhile reaches it, and is answered to
/// nobody, as the link is cut before.
pub(super) async fn strand(
    platform: &Platform,
    at: &'static str,
    show: ShowId,
    seat: &str,
    key: [u8; 16],
) -> JoinHandle<Heard> {
    until("it has followed", async || {
        platform.journal(at, show).await.1 == platform.journal("eu", show).await.1
    })
    .await;
    let mut client = platform.apps[at].pool.get().await.unwrap();
    let lock = client.transaction().await.unwrap();
    lock.execute("SELECT 1 FROM show_head WHERE show_id = $1 FOR UPDATE", &[&show.0]).await.unwrap();
    let asked = platform.book("eu", show, seat, Some(key));
    let waits = "SELECT count(*) FROM pg_stat_activity
                  WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let watcher = platform.apps[at].pool.get().await.unwrap();
    until("its store", async || watcher.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) > 0).await;
    platform.part("eu", true);
    lock.rollback().await.unwrap();
    asked
}
