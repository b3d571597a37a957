//! Real voters and processes that beat, or do not: regions are lost in time and come back, shows are moved, drained
//! and taken home, and nobody but the leader decides.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::proto::registry::ownership_client::OwnershipClient;
use common::proto::registry::{MoveRequest, RegionRequest};
use common::{RegionName, ShowId};
use raft::client::{Beat, BeatError, Mark, RegionState, RegistryClient, RegistryError, RegistryView};
use support::{Group, REGIONS, create_shows, new_show, region, until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;

const WELL: Beat = Beat { healthy: true, caught_up: true };

/// A regional process as the registry knows it: it opens sessions and beats while it lives.
struct Process {
    session: Arc<Mutex<u64>>,
    beat: Arc<Mutex<Beat>>,
    heard: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Process {
    async fn start(client: &RegistryClient, name: &str, url: &str) -> Self {
        let (client, name, url) = (client.clone(), region(name), url.to_owned());
        let open = async |client: &RegistryClient| {
            client.open_session(&name, &url, "http://replication", vec![]).await.unwrap()
        };
        let session = Arc::new(Mutex::new(open(&client).await));
        let (beat, stop) = (Arc::new(Mutex::new(WELL)), CancellationToken::new());
        let count = Arc::new(AtomicUsize::new(0));
        let (no, what, until, counted) = (session.clone(), beat.clone(), stop.clone(), count.clone());
        tokio::spawn(async move {
            while !until.is_cancelled() {
                let (session, now) = (*no.lock().unwrap(), *what.lock().unwrap());
                let heard = client.beat(session, &name, now, None, Duration::from_secs(1)).await;
                counted.fetch_add(usize::from(heard.is_ok()), Ordering::Relaxed);
                if heard == Err(BeatError::Ended) {
                    let next = client.open_session(&name, &url, "http://replication", vec![]).await;
                    if let Ok(next) = next {
                        *no.lock().unwrap() = next;
                    }
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self { session, beat, heard: count, _stop: stop.drop_guard() }
    }

    fn session(&self) -> u64 {
        *self.session.lock().unwrap()
    }

    /// Waits until it has been heard so many times more.
    async fn is_heard(&self, times: usize) {
        let until_then = self.heard.load(Ordering::Relaxed) + times;
        until("beats", async || (self.heard.load(Ordering::Relaxed) >= until_then).then_some(())).await;
    }

    fn says(&self, beat: Beat) {
        *self.beat.lock().unwrap() = beat;
    }
}

fn code<T: std::fmt::Debug>(answer: Result<T, RegistryError>) -> String {
    match answer {
        Err(RegistryError::Refused(refused)) => refused.code,
        other => panic!("{other:?}"),
    }
}

struct Platform {
    group: Group,
    client: RegistryClient,
    view: RegistryView,
    processes: BTreeMap<&'static str, Process>,
    _stop: DropGuard,
}

impl Platform {
    async fn start() -> Self {
        let group = Group::started(3, |config| {
            config.liveness.session_timeout_ms = 1000;
            config.liveness.region_timeout_ms = 1500;
            config.liveness.boot_patience_ms = 20_000;
            config.liveness.steady_ms = 1000;
            config.moves.home_after_ms = 1000;
            config.moves.home_per_sec = 100;
        });
        let client = group.client();
        let stop = CancellationToken::new();
        let view = client.watch(stop.clone());
        let mut processes = BTreeMap::new();
        for name in REGIONS {
            processes.insert(name, Process::start(&client, name, &format!("http://{name}-0")).await);
        }
        Self { group, client, view, processes, _stop: stop.drop_guard() }
    }

    fn state(&self, name: &str) -> Option<RegionState> {
        self.view.regions().into_iter().find(|r| r.name == region(name)).map(|r| r.state)
    }

    async fn becomes(&self, name: &str, state: RegionState) {
        until("a region's state", async || (self.state(name) == Some(state)).then_some(())).await;
    }

    fn owned_by(&self, shows: &[ShowId], name: &str) -> usize {
        let owner = |id: &ShowId| self.view.show(*id).map(|show| show.owner);
        shows.iter().filter(|id| owner(id) == Some(region(name))).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_regions_shows_go_to_others_and_come_home() {
    let mut platform = Platform::start().await;
    let shows = create_shows(&platform.client, 90).await;
    until("the view", async || (platform.view.len() == 90).then_some(())).await;
    let endpoints = platform.view.sessions();
    assert!(endpoints.iter().all(|session| session.grpc_url == "http://replication"));
    let placed = shows.iter().copied().find(|id| id.is_home(&region("eu"))).unwrap();
    platform.client.move_show(placed, &region("ap"), 1).await.unwrap();

    let lost = Instant::now();
    drop(platform.processes.remove("us"));
    platform.becomes("us", RegionState::Down).await;
    let took = lost.elapsed();
    println!("the loss was decided after {took:?}");
    assert!(took > Duration::from_secs(1), "not before its time");
    until("its shows at others", async || (platform.owned_by(&shows, "us") == 0).then_some(())).await;
    until("its session's end", async || {
        let of_us = |session: &raft::client::SessionRecord| session.region == region("us");
        (!platform.view.sessions().iter().any(of_us)).then_some(())
    })
    .await;
    let epochs = |name: &str| {
        let of_home = shows.iter().filter(|id| id.is_home(&region(name)) && **id != placed);
        of_home.map(|id| platform.view.show(*id).unwrap().epoch).collect::<Vec<_>>()
    };
    assert!(epochs("us").iter().all(|epoch| *epoch == 2) && epochs("eu").iter().all(|epoch| *epoch == 1));

    // Back, but not caught up: not yet up.
    let back = Process::start(&platform.client, "us", "http://us-1").await;
    back.says(Beat { healthy: true, caught_up: false });
    back.is_heard(12).await;
    assert_eq!(platform.state("us"), Some(RegionState::Down));
    back.says(WELL);
    platform.becomes("us", RegionState::Up).await;
    until("its shows at home", async || (platform.owned_by(&shows, "us") == 30).then_some(())).await;
    assert_eq!(platform.view.show(placed).unwrap().owner, region("ap"), "an operator put it there");
    platform.processes.insert("us", back);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaders_end_restarts_the_timers_and_its_successor_goes_on() {
    let mut platform = Platform::start().await;
    let shows = create_shows(&platform.client, 30).await;
    let sessions: Vec<u64> = platform.processes.values().map(Process::session).collect();
    for _ in 0..2 {
        let leader = platform.group.leader().await;
        platform.group.voters[leader].stop().await;
        platform.group.leader().await;
        platform.group.voters[leader].start();
        platform.group.status_when(leader, |s| !s.leader.is_empty()).await;
    }
    for process in platform.processes.values() {
        process.is_heard(10).await;
    }
    let after: Vec<u64> = platform.processes.values().map(Process::session).collect();
    assert_eq!(sessions, after, "nobody was given up");

    // The leader and a region at once.
    let leader = platform.group.leader().await;
    let name = REGIONS[leader];
    let begun = Instant::now();
    drop(platform.processes.remove(name));
    platform.group.voters[leader].stop().await;
    platform.becomes(name, RegionState::Down).await;
    println!("with the registry's leader, after {:?}", begun.elapsed());
    until("its shows at others", async || (platform.owned_by(&shows, name) == 0).then_some(())).await;
    let others = platform.view.regions().into_iter().filter(|r| r.name != region(name));
    assert!(others.into_iter().all(|r| r.state == RegionState::Up));
    platform.group.voters[leader].start();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_process_is_gone_within_two_seconds_where_others_serve_on() {
    let platform = Platform::start().await;
    let second = Process::start(&platform.client, "eu", "http://eu-1").await;
    let has = |no: u64| platform.view.sessions().iter().any(|session| session.no == no);
    let no = second.session();
    until("its session", async || has(no).then_some(())).await;
    second.is_heard(10).await;
    assert!(has(no), "a living one stays");
    drop(second);
    let begun = Instant::now();
    until("its end", async || (!has(no)).then_some(())).await;
    println!("a dead process's session ended after {:?}", begun.elapsed());
    assert_eq!(platform.state("eu"), Some(RegionState::Up));

    // It was not dead after all.
    let late = platform.client.beat(no, &region("eu"), WELL, None, Duration::from_secs(2)).await;
    assert_eq!(late, Err(BeatError::Ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_region_is_emptied_and_refusals_tell_why() {
    let platform = Platform::start().await;
    let shows = create_shows(&platform.client, 60).await;
    let client = &platform.client;
    let [eu, us] = ["eu", "us"].map(region);
    assert_eq!(client.drain(&eu).await.unwrap().state, RegionState::Draining);
    assert_eq!(client.drain(&eu).await.unwrap().state, RegionState::Draining, "a repeat");
    until("no show left there", async || (platform.owned_by(&shows, "eu") == 0).then_some(())).await;

    let show = shows.iter().copied().find(|id| id.is_home(&us)).unwrap();
    let at = async |to: &RegionName, epoch| client.move_show(show, to, epoch).await;
    assert_eq!(code(at(&eu, 1).await), "region-not-up");
    assert_eq!(code(at(&region("mars"), 1).await), "not-a-replica");
    assert_eq!(code(at(&region("ap"), 9).await), "epoch-passed");
    assert_eq!(at(&region("ap"), 1).await.unwrap().epoch, 2);
    assert_eq!(at(&region("ap"), 1).await.unwrap().epoch, 2, "a repeat");
    assert_eq!(code(at(&us, 1).await), "epoch-passed", "of two moves one counts");
    assert_eq!(code(client.move_show(new_show("eu"), &us, 1).await), "unknown-show");
    let to_two = client.change_replicas(show, &[us.clone(), region("ap")], 2).await.unwrap();
    assert_eq!((to_two.epoch, to_two.prior.len()), (3, 3));
    assert_eq!(code(client.change_replicas(show, &[region("ap")], 3).await), "change-under-way");
    assert_eq!(code(client.settled(show, 2).await), "epoch-passed");
    assert!(client.settled(show, 3).await.unwrap().prior.is_empty());
    client.drain(&us).await.unwrap();
    assert_eq!(code(client.drain(&region("ap")).await), "last-region");
    assert_eq!(code(client.drain(&region("mars")).await), "unknown-region");
    for name in [&eu, &us] {
        assert_eq!(client.undrain(name).await.unwrap().state, RegionState::Up);
    }
    until("all at home", async || {
        (platform.owned_by(&shows, "eu") == 20 && platform.owned_by(&shows, "us") >= 19).then_some(())
    })
    .await;

    // Through a voter that only passes it on, the code arrives as well; and nonsense is no refusal.
    let other = (platform.group.leader().await + 1) % 3;
    let mut raw = OwnershipClient::connect(platform.group.voters[other].url()).await.unwrap();
    let request = MoveRequest { show_id: show.to_string(), to: "mars".into(), if_epoch: 3 };
    let status = raw.r#move(request).await.unwrap_err();
    assert_eq!(status.metadata().get("marquee-refusal").unwrap(), "not-a-replica");
    let bad = raw.drain(RegionRequest { region: "not a name".into() }).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_went_back_in_time_ends_its_regions_sessions() {
    let platform = Platform::start().await;
    let shows = create_shows(&platform.client, 3).await;
    let client = &platform.client;
    let eu = region("eu");
    let session = platform.processes["eu"].session();
    let mark = |flushed| Some(Mark { system: 1, timeline: 1, flushed });
    let within = Duration::from_secs(2);
    let first = client.beat(session, &eu, WELL, mark(500), within).await.unwrap();
    assert_eq!((first.highest, first.incarnation, first.state), (mark(500), 0, RegionState::Up));
    let second = client.beat(session, &eu, WELL, mark(400), within).await.unwrap();
    assert_eq!(second.highest, mark(500), "what was read after that must not be lower");
    assert_eq!(client.store_lost(&eu, 0).await.unwrap().incarnation, 1);
    assert_eq!(client.store_lost(&eu, 0).await.unwrap().incarnation, 1, "of two who notice one counts");
    until("another session", async || (platform.processes["eu"].session() > session).then_some(())).await;
    for show in shows {
        assert_eq!(client.get_show(show).await.unwrap().unwrap().epoch, 2);
    }
    let now = platform.processes["eu"].session();
    let beaten = client.beat(now, &eu, WELL, mark(10), within).await.unwrap();
    assert_eq!((beaten.highest, beaten.incarnation), (mark(10), 1));
}
