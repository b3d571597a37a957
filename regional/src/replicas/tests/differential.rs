//! The same messages, lost, doubled, late and in any order, to replicas in Postgres and to those in memory: the
//! same answers and the same journals. Leaders run over it all, several of one show at once.
//!
//! `REPLICA_SEEDS` sets how many schedules are tried, `REPLICA_SEED` which one alone.

use std::collections::{BTreeMap, BTreeSet};

use migrations::Schema;
use migrations::testing::{Options, TestPostgres};
use prost::Message;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::replicas::wire::{self, Asked};
use crate::replication::memory::Store;
use crate::replication::{Effect, Leader, Limits, Strict, Term};

const REGIONS: [&str; 3] = ["ap", "eu", "us"];
const STEPS: usize = 150;

/// A replica in both forms.
struct Twin {
    memory: BTreeMap<ShowId, Store<Regional>>,
    postgres: ReplicaStore,
}

struct World {
    random: SmallRng,
    shows: Vec<ShowId>,
    twins: BTreeMap<RegionName, Twin>,
    /// The youngest last.
    leaders: Vec<(ShowId, Leader<Regional>)>,
    requests: Vec<(RegionName, ShowId, Request)>,
    answers: Vec<(RegionName, ShowId, Reply)>,
    epoch: u64,
    now: u64,
    committed: usize,
    seen: BTreeMap<&'static str, usize>,
}

impl World {
    async fn new(server: &TestPostgres, seed: u64) -> Self {
        let mut twins = BTreeMap::new();
        for name in REGIONS {
            let url = server.migrated(&format!("{name}_{seed}"), Schema::Regional).await;
            let pool = migrations::pool(&url, 8).unwrap();
            let postgres = store(&pool, Fixed::member(), Guard::default());
            twins.insert(region(name), Twin { memory: BTreeMap::new(), postgres });
        }
        Self {
            random: SmallRng::seed_from_u64(seed),
            shows: (0..3).map(|_| ShowId::new(&region("eu"))).collect(),
            twins,
            leaders: Vec::new(),
            requests: Vec::new(),
            answers: Vec::new(),
            epoch: 0,
            now: 0,
            committed: 0,
            seen: BTreeMap::new(),
        }
    }

    fn replicas() -> BTreeSet<RegionName> {
        REGIONS.into_iter().map(region).collect()
    }

    fn lead(&mut self) {
        let show = *self.shows.choose(&mut self.random).unwrap();
        self.epoch += self.random.random_range(0..2);
        let attempt = self.random.random_range(1..1_000_000);
        let replicas = Self::replicas();
        let term = Term {
            ballot: Ballot { epoch: self.epoch.max(1), session: 1 + self.random.random_range(0..3), attempt },
            own: region(REGIONS.choose(&mut self.random).unwrap()),
            incarnations: replicas.iter().map(|region| (region.clone(), 0)).collect(),
            replicas,
            prior: BTreeSet::new(),
        };
        // Little memory and small messages, so that the own store is read and entries go in several messages.
        let limits = Limits { message: 300, kept: 400, under_way: 8 };
        let (leader, effects) = Leader::start(Strict, limits, term);
        self.leaders.push((show, leader));
        if self.leaders.len() > 6 {
            self.leaders.remove(0);
        }
        self.take(show, effects);
    }

    fn take(&mut self, show: ShowId, effects: Vec<Effect<Regional>>) {
        for effect in effects {
            match effect {
                Effect::Send { to, request } => self.requests.push((to, show, request)),
                Effect::Committed { .. } => self.committed += 1,
                Effect::Chosen { .. } | Effect::Settled { .. } | Effect::Stopped(_) => {}
            }
        }
    }

    /// Something that no message brings about.
    fn stir(&mut self) {
        self.now += self.random.random_range(0..400);
        let Some(at) = (!self.leaders.is_empty()).then(|| self.random.random_range(0..self.leaders.len()))
        else {
            return self.lead();
        };
        let (show, now) = (self.leaders[at].0, self.now);
        let text = format!("{:x}", self.random.random::<u128>()).repeat(self.random.random_range(0..4));
        let leader = &mut self.leaders[at].1;
        let effects = match self.random.random_range(0..12) {
            _ if leader.is_chosen() => leader.begin(payload(show, "led"), now),
            0 => return self.lead(),
            1..=2 => leader.nudge_all(),
            3..=4 => leader.tick(now),
            5 => leader.own_unknown(),
            _ => leader.propose(payload(show, &text)).map(|(_, effects)| effects).unwrap_or_default(),
        };
        self.take(show, effects);
    }

    /// Some of the requests for one region, in any order, some twice, some never.
    async fn deliver(&mut self) {
        let Some((to, ..)) = self.requests.choose(&mut self.random).cloned() else { return };
        let mut batch = Vec::new();
        for _ in 0..self.random.random_range(1..12) {
            let of_region: Vec<usize> =
                (0..self.requests.len()).filter(|at| self.requests[*at].0 == to).collect();
            let Some(at) = of_region.choose(&mut self.random) else { break };
            let (_, show, request) = match self.random.random_range(0..10) {
                0 => self.requests[*at].clone(),
                _ => self.requests.swap_remove(*at),
            };
            if !self.random.random_ratio(1, 10) {
                batch.push((show, request));
            }
        }
        let twin = self.twins.get_mut(&to).unwrap();
        let mut told: Vec<(Pending, Reply)> = Vec::new();
        for (show, request) in &batch {
            // By way of the wire.
            let message = wire::asked(*show, request.clone()).encode_to_vec();
            let asked: Asked = proto::Request::decode(message.as_slice()).unwrap().try_into().unwrap();
            // What reads only is not in the line with what writes.
            let is_fetch = matches!(request, Request::Fetch { .. });
            if is_fetch {
                for (told, ..) in &mut told {
                    settle(told).await;
                }
            }
            let later = twin.postgres.ask_later(asked.show, asked.request.unwrap()).await.unwrap();
            let mut pending = Pending::Later(later);
            if is_fetch {
                settle(&mut pending).await;
            }
            let memory = twin.memory.entry(*show).or_insert_with(|| Store::empty(0));
            told.push((pending, memory.handle(Strict, Fixed::member().standing(*show), request.clone())));
        }
        for ((mut pending, expected), (show, request)) in told.into_iter().zip(batch) {
            let reply = settle(&mut pending).await;
            let (reply, expected) = (wire::answered(show, reply), wire::answered(show, expected));
            let (show, reply) = wire::reply(reply).unwrap();
            assert_eq!((show, reply.clone()), wire::reply(expected).unwrap(), "to {request:?} at {to}");
            *self.seen.entry(name(&reply.answer)).or_default() += 1;
            if !self.random.random_ratio(1, 10) {
                self.answers.push((to.clone(), show, reply));
            }
        }
    }

    fn answer(&mut self) {
        for _ in 0..self.random.random_range(0..8) {
            if self.answers.is_empty() {
                return;
            }
            let at = self.random.random_range(0..self.answers.len());
            let (from, show, reply) = self.answers.swap_remove(at);
            let mut effects = Vec::new();
            for (_, leader) in self.leaders.iter_mut().filter(|(of, _)| *of == show) {
                effects.extend(leader.answered(&from, reply.clone()));
            }
            self.take(show, effects);
        }
    }

    async fn same_journals(&self) {
        for (region, twin) in &self.twins {
            for (show, memory) in &twin.memory {
                let head = twin.postgres.head(*show).await.unwrap().unwrap_or_else(|| Head::empty(0));
                assert_eq!(head, memory.head, "{region}");
                let fetch = Request::Fetch { ballot: ballot(1, 1, 1), after: 0 };
                let told = twin.postgres.ask(*show, fetch).await.unwrap();
                let Answer::Entries { entries, .. } = told.reply.answer else { panic!("entries") };
                assert_eq!(entries, memory.entries, "{region}");
            }
        }
    }
}

enum Pending {
    Later(tokio::sync::oneshot::Receiver<Told>),
    Here(Reply),
}

async fn settle(pending: &mut Pending) -> Reply {
    if let Pending::Later(receiver) = pending {
        *pending = Pending::Here(receiver.await.expect("nothing fails here").reply);
    }
    let Pending::Here(reply) = pending else { unreachable!("it was just settled") };
    reply.clone()
}

fn name(answer: &Answer) -> &'static str {
    match answer {
        Answer::Promise { .. } => "promise",
        Answer::Appended { .. } => "appended",
        Answer::Mismatch { .. } => "mismatch",
        Answer::Refused { .. } => "refused",
        Answer::Entries { .. } => "entries",
        Answer::Reported { .. } => "reported",
        Answer::Unable(_) => "unable",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_answers_as_memory_does() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("REPLICA_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("REPLICA_SEEDS").unwrap_or(4)).map(|_| rand::random_range(0..1 << 32)).collect(),
    };
    let server = tokio::task::spawn_blocking(|| TestPostgres::start_with(Options { fsync: false }));
    let server = server.await.unwrap();
    let (mut committed, mut seen) = (0, BTreeMap::new());
    for seed in seeds {
        eprintln!("REPLICA_SEED={seed}");
        let mut world = World::new(&server, seed).await;
        for _ in 0..STEPS {
            for _ in 0..world.random.random_range(1..5) {
                world.stir();
            }
            world.deliver().await;
            world.answer();
        }
        world.same_journals().await;
        committed += world.committed;
        for (name, count) in world.seen {
            *seen.entry(name).or_insert(0) += count;
        }
    }
    eprintln!("{committed} commits, {seen:?}");
    assert!(committed > 0);
    for kind in ["promise", "appended", "mismatch", "refused", "entries"] {
        assert!(seen.contains_key(kind), "no {kind} in {seen:?}");
    }
}
