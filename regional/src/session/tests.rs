//! A keeper on a real Postgres, before a real voter.

use std::time::Instant;

use migrations::Schema;
use migrations::testing::TestPostgres;
use raft::client::{RegionState, RegistryView};
use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::testing::region;

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A voter alone, until dropped.
pub struct Voter {
    pub registry: RegistryClient,
    pub view: RegistryView,
    _dir: tempfile::TempDir,
    stop: CancellationToken,
}

impl Drop for Voter {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Voter {
    pub fn start() -> Self {
        let [listen, ops_listen] = [(); 2].map(|()| common::loopback::unused_address().unwrap().to_string());
        let dir = tempfile::tempdir().unwrap();
        let url = format!("http://{listen}");
        let config = raft::Config {
            node_id: 1,
            region: "eu".into(),
            data_dir: dir.path().into(),
            peers: vec![raft::Peer { id: 1, region: region("eu"), url: url.clone() }],
            bootstrap: true,
            listen,
            ops_listen,
            liveness: raft::Liveness { region_timeout_ms: 2000, steady_ms: 1000, ..Default::default() },
            ..raft::Config::default()
        };
        let stop = CancellationToken::new();
        tokio::spawn(raft::run(config, stop.clone()));
        let registry = RegistryClient::new(&[url], &common::tls::Tls::plain()).unwrap();
        let view = registry.watch(stop.clone());
        Self { registry, view, _dir: dir, stop }
    }

    fn state(&self, name: &str) -> Option<RegionState> {
        self.view.regions().into_iter().find(|r| r.name == region(name)).map(|r| r.state)
    }
}

pub fn announced(name: &str) -> Announced {
    Announced {
        region: region(name),
        http_url: format!("http://{name}"),
        replication_url: String::new(),
        ticket_keys: Vec::new(),
    }
}

async fn keep(voter: &Voter, postgres: &TestPostgres, name: &str) -> Session {
    let url = postgres.migrated(name, Schema::Regional).await;
    let no = announced(name).open(&voter.registry).await.unwrap();
    let keeper = Keeper {
        registry: voter.registry.clone(),
        announced: announced(name),
        pool: migrations::pool(&url, 1).unwrap(),
        guard: Guard::default(),
        caught_up: CaughtUp::default(),
    };
    keeper.start(no, voter.stop.clone())
}

/// To the server's children, which do its work.
fn signal(postgres: &TestPostgres, signal: Signal) {
    let children = format!("/proc/{0}/task/{0}/children", postgres.pid());
    for child in std::fs::read_to_string(children).unwrap().split_whitespace() {
        let child = Pid::from_raw(child.parse().unwrap()).unwrap();
        // One that has just ended does no work either.
        let _ = kill_process(child, signal);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_well_only_while_its_own_postgres_takes_writes() {
    let voter = Voter::start();
    let start = || tokio::task::spawn_blocking(TestPostgres::start);
    let (eu_postgres, us_postgres) = (start().await.unwrap(), start().await.unwrap());
    let eu = keep(&voter, &eu_postgres, "eu").await;
    let us = keep(&voter, &us_postgres, "us").await;
    eventually("both are up", || ["eu", "us"].map(|name| voter.state(name)) == [Some(RegionState::Up); 2])
        .await;

    signal(&eu_postgres, Signal::STOP);
    eventually("eu's Postgres hangs", || voter.state("eu") == Some(RegionState::Down)).await;
    assert_eq!(voter.state("us"), Some(RegionState::Up));
    let first = eu.no().unwrap();
    assert!(voter.view.sessions().iter().any(|session| session.no == first), "the process itself lives");
    signal(&eu_postgres, Signal::CONT);
    eventually("it writes again", || voter.state("eu") == Some(RegionState::Up)).await;
    assert_eq!(eu.no(), Some(first));

    // Its store lost something: the session ends, and another is opened.
    let mut seen = eu.clone();
    seen.0.mark_unchanged();
    voter.registry.store_lost(&region("eu"), 0).await.unwrap();
    timeout(Duration::from_secs(30), seen.changed()).await.unwrap();
    eventually("another session", || eu.no().is_some_and(|no| no > first)).await;
    assert!(us.no().is_some_and(|no| no < eu.no().unwrap()), "of another region: not touched");
}

#[tokio::test]
async fn a_fixed_session_never_changes() {
    let mut session = Session::fixed(3);
    assert_eq!(session.no(), Some(3));
    assert!(timeout(Duration::from_millis(20), session.changed()).await.is_err());
    assert_eq!(Session::fixed(NONE).no(), None);
}
