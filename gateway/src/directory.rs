//! The services behind: `global`, the regions, and the processes of each region as they announce themselves
//! to the registry. Whether a region answers, and how far away it is, is probed here.
//!
//! A show goes to one process of its owner's region, the same from every gateway (rendezvous hashing), so
//! that one process leads it. That is for speed: the journal is safe whoever is asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use axum::body::Body;
use common::http::REGION;
use common::{Problem, RegionName, ShowId};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri};
use prometheus::IntCounter;
use raft::client::RegionState;
use tokio_util::sync::CancellationToken;
use tower::retry::budget::TpsBudget;

use crate::config::Config;
use crate::nearest::Point;
use crate::ownership::Ownership;
use crate::proxy::{Breaker, Client, Gate, Links, Outgoing};
use crate::server::workers;

const PROBE_INTERVAL: Duration = Duration::from_secs(2);
const PROBE_DEADLINE: Duration = Duration::from_secs(1);
/// One lost probe is a hiccup.
const PROBES_TO_BE_DOWN: u64 = 2;

/// One in five requests may be a second attempt, and ten a second at least: what is down is not buried.
const RETRY_SHARE: f32 = 0.2;
const RETRIES_AT_LEAST_PER_SEC: u32 = 10;
const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// How much may go to one service at once, and from how many threads.
#[derive(Clone, Copy, Debug)]
struct Room {
    requests: usize,
    workers: usize,
}

/// A service behind: `global`, a region's address, or one process of a region.
#[derive(Debug)]
pub struct Upstream {
    /// None for `global`.
    pub region: Option<RegionName>,
    pub uri: Uri,
    authority: Authority,
    pub host: HeaderValue,
    pub links: Links,
    /// The counter of its good answers, once there was one.
    pub answers: OnceLock<IntCounter>,
    pub breaker: Breaker,
    pub gate: Gate,
    pub retries: TpsBudget,
}

impl Upstream {
    fn new(region: Option<RegionName>, url: &str, room: Room) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("not a URL: {url}"))?;
        let scheme = uri.scheme().with_context(|| format!("no scheme: {url}"))?;
        anyhow::ensure!(*scheme == Scheme::HTTP, "only http:// is spoken to services behind: {url}");
        let authority = uri.authority().with_context(|| format!("no host: {url}"))?.clone();
        Ok(Self {
            region,
            host: HeaderValue::from_str(authority.as_str())?,
            uri,
            authority,
            links: Links::new(room.workers),
            answers: OnceLock::new(),
            breaker: Breaker::default(),
            gate: Gate::new(room.requests),
            retries: TpsBudget::new(RETRY_WINDOW, RETRIES_AT_LEAST_PER_SEC, RETRY_SHARE),
        })
    }

    /// For metrics and logs.
    pub fn label(&self) -> &str {
        self.region.as_ref().map_or("global", RegionName::as_str)
    }
}

pub struct Region {
    pub name: RegionName,
    pub display_name: String,
    pub gateway_url: String,
    pub place: Option<Point>,
    pub upstream: Arc<Upstream>,
    up: AtomicBool,
    missed: AtomicU64,
    /// Microseconds; 0: not known. Of the last few probes the best is closest to the way itself.
    round_trip_us: AtomicU64,
    /// Whether the registry wants customers to go there.
    closed: AtomicBool,
}

impl Region {
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Whether to send those there who could go elsewhere. Before the first probes all are thought well.
    pub fn is_healthy(&self) -> bool {
        self.missed.load(Ordering::Relaxed) < PROBES_TO_BE_DOWN && !self.closed.load(Ordering::Relaxed)
    }

    pub fn round_trip(&self) -> Option<Duration> {
        match self.round_trip_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    fn probed(&self, took: Option<Duration>) -> bool {
        match took {
            Some(took) => {
                self.missed.store(0, Ordering::Relaxed);
                let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
                let known = self.round_trip_us.load(Ordering::Relaxed);
                // Down at once, up slowly: a busy moment is not distance, a new way is noticed in a minute.
                let next = if known == 0 || took < known { took } else { known + (took - known) / 16 };
                self.round_trip_us.store(next, Ordering::Relaxed);
            }
            None => {
                self.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
        took.is_some() || (self.is_up() && self.missed.load(Ordering::Relaxed) < PROBES_TO_BE_DOWN)
    }
}

/// A region's processes, each with its part in the hashing.
type Processes = HashMap<RegionName, Vec<(u64, Arc<Upstream>)>>;

pub struct Directory {
    pub global: Arc<Upstream>,
    regions: Vec<Region>,
    own: usize,
    by_tag: HashMap<[u8; 2], usize>,
    processes: ArcSwap<Processes>,
    room: Room,
}

impl Directory {
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let room =
            Room { requests: config.upstream.max_in_flight, workers: workers::count(config.server.workers) };
        let mut regions = Vec::new();
        for region in &config.regions {
            regions.push(Region {
                name: region.name.clone(),
                display_name: region.display_name.clone(),
                gateway_url: region.gateway_url.clone(),
                place: region.place(),
                upstream: Upstream::new(Some(region.name.clone()), &region.regional_url, room)?.into(),
                up: AtomicBool::new(false),
                missed: AtomicU64::new(0),
                round_trip_us: AtomicU64::new(0),
                closed: AtomicBool::new(false),
            });
        }
        let own = regions.iter().position(|r| r.name == config.region);
        let own = own.context("the gateway's own region is not among the regions")?;
        let by_tag = regions.iter().enumerate().map(|(i, r)| (r.name.tag(), i)).collect();
        let global = Upstream::new(None, &config.global_url, room)?.into();
        Ok(Self { global, regions, own, by_tag, processes: ArcSwap::default(), room })
    }

    pub fn all(&self) -> &[Region] {
        &self.regions
    }

    pub fn own(&self) -> &Region {
        &self.regions[self.own]
    }

    pub fn named(&self, name: &str) -> Option<&Region> {
        self.regions.iter().find(|r| r.name.as_str() == name)
    }

    pub fn by_tag(&self, tag: [u8; 2]) -> Option<&Region> {
        self.by_tag.get(&tag).map(|i| &self.regions[*i])
    }

    /// The region that the caller asks for by `X-Region`: 422 `unknown-region` when there is none such.
    pub fn pinned(&self, headers: &HeaderMap) -> Result<Option<&Region>, Problem> {
        let Some(value) = headers.get(&REGION) else { return Ok(None) };
        match value.to_str().ok().and_then(|name| self.named(name.trim())) {
            Some(region) => Ok(Some(region)),
            None => Err(unknown_region("X-Region")),
        }
    }

    /// The process of the region that serves the show: the first by the hashing that is worth asking. The
    /// region's own address where no process has announced itself, or none of them is. `avoid` has just failed.
    pub fn process(&self, region: &Region, show: ShowId, avoid: Option<&Arc<Upstream>>) -> Arc<Upstream> {
        let processes = self.processes.load();
        let ranked = processes.get(&region.name).map(Vec::as_slice).unwrap_or_default();
        let best = ranked
            .iter()
            .filter(|(_, process)| !avoid.is_some_and(|avoid| Arc::ptr_eq(avoid, process)))
            .filter(|(_, process)| !process.breaker.is_open())
            .max_by_key(|(seed, _)| score(show, *seed));
        best.map_or_else(|| region.upstream.clone(), |(_, process)| process.clone())
    }

    /// Takes in which processes there are and which regions are closed, whenever the registry's copy
    /// changes, until `stop`.
    pub async fn follow(&self, ownership: &Ownership, stop: CancellationToken) {
        let mut changes = ownership.changes();
        let mut known = Vec::new();
        loop {
            let sessions: Vec<(RegionName, String)> =
                ownership.sessions().into_iter().map(|s| (s.region, s.http_url)).collect();
            if sessions != known {
                self.set_processes(&sessions);
                known = sessions;
            }
            for region in &self.regions {
                let state = ownership.state(&region.name);
                let closed = matches!(state, Some(RegionState::Down | RegionState::Draining));
                region.closed.store(closed, Ordering::Relaxed);
            }
            // A snapshot of a million shows is a million changes, which concern nobody here.
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn set_processes(&self, sessions: &[(RegionName, String)]) {
        let old = self.processes.load();
        let mut processes = Processes::new();
        for (name, url) in sessions {
            let Some(region) = self.named(name.as_str()) else { continue };
            let made = match Upstream::new(Some(name.clone()), url, self.room) {
                Ok(made) => made,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), region = %name, "a process has a bad URL");
                    continue;
                }
            };
            // What is known of a process stays known.
            let of_region = old.get(name).into_iter().flatten().map(|(_, process)| process);
            let same = of_region.chain([&region.upstream]).find(|u| u.authority == made.authority).cloned();
            let process = same.unwrap_or_else(|| Arc::new(made));
            processes.entry(name.clone()).or_default().push((seed(url), process));
        }
        self.processes.store(Arc::new(processes));
    }

    /// Closes connections to services that nobody has used for long.
    pub fn sweep(&self) {
        let processes = self.processes.load();
        let announced = processes.values().flatten().map(|(_, process)| process);
        let regions = self.regions.iter().map(|region| &region.upstream);
        for upstream in regions.chain(announced).chain([&self.global]) {
            upstream.links.sweep();
        }
    }

    /// Asks every region's service for a head, again and again, until `stop`.
    pub async fn probe(&self, client: &Client, stop: CancellationToken) {
        let probes = self.regions.iter().map(|region| probe_one(region, client));
        tokio::select! {
            () = stop.cancelled() => {}
            _ = futures::future::join_all(probes) => {}
        }
    }
}

/// 422 for a region that nobody has heard of; `field` is where it was named.
pub fn unknown_region(field: &str) -> Problem {
    Problem::unprocessable("unknown-region", "there is no region of that name; see /v1/regions")
        .field(field, "names no region")
}

/// FNV-1a: alike in every build of every gateway, which the standard library's hashes do not promise.
fn seed(url: &str) -> u64 {
    url.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn score(show: ShowId, seed: u64) -> u64 {
    let (high, low) = show.0.as_u64_pair();
    mix(mix(high ^ seed) ^ low)
}

/// The finalizer of splitmix64.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

async fn probe_one(region: &Region, client: &Client) {
    let question = Outgoing::new(Method::HEAD, PathAndQuery::from_static("/openapi.json"), HeaderMap::new());
    loop {
        let started = Instant::now();
        let deadline = tokio::time::Instant::now() + PROBE_DEADLINE;
        let took = client.probe(&region.upstream, &question, Body::empty(), deadline).await;
        let up = region.probed(took.is_ok().then(|| started.elapsed()));
        if region.up.swap(up, Ordering::Relaxed) != up {
            tracing::info!(region = %region.name, up, "a region's service changed");
        }
        let metrics = client.metrics();
        metrics.region_up.with_label_values(&[region.name.as_str()]).set(up.into());
        if let Some(took) = region.round_trip() {
            metrics.round_trip.with_label_values(&[region.name.as_str()]).set(took.as_secs_f64());
        }
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_spread_evenly_and_only_those_of_a_lost_process_move() {
        let seeds: Vec<u64> = (1..=5).map(|n| seed(&format!("http://10.0.0.{n}:8080"))).collect();
        let region: RegionName = "eu".parse().unwrap();
        let shows: Vec<ShowId> = (0..20_000).map(|_| ShowId::new(&region)).collect();
        let best =
            |show: ShowId, seeds: &[u64]| seeds.iter().copied().max_by_key(|s| score(show, *s)).unwrap();
        for seed in &seeds {
            let share = shows.iter().filter(|show| best(**show, &seeds) == *seed).count();
            assert!((3_600..=4_400).contains(&share), "{share} of 20000");
        }
        for show in shows {
            let (before, after) = (best(show, &seeds), best(show, &seeds[1..]));
            assert!(after == before || before == seeds[0]);
        }
    }

    #[test]
    fn a_round_trip_is_the_best_of_late() {
        let region = Region {
            name: "eu".parse().unwrap(),
            display_name: String::new(),
            gateway_url: String::new(),
            place: None,
            upstream: Upstream::new(None, "http://a", Room { requests: 1, workers: 1 }).unwrap().into(),
            up: AtomicBool::new(false),
            missed: AtomicU64::new(0),
            round_trip_us: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        };
        assert!(region.is_healthy() && region.round_trip().is_none());
        let ms = Duration::from_millis;
        for took in [40, 10, 500, 12] {
            assert!(region.probed(Some(ms(took))));
        }
        let known = region.round_trip().unwrap();
        assert!((ms(10)..ms(41)).contains(&known), "{known:?}");
        for n in 1..=3 {
            region.probed(None);
            assert_eq!(region.is_healthy(), n < PROBES_TO_BE_DOWN);
        }
    }
}
