//! `marquee bench show watch`: how long after a booking's answer every watcher of the show's seat map has
//! heard of it, through one regional process, while bookings come at a fixed rate.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::stream::{self, StreamExt};
use regional::bench::Seen;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;

use super::booking::two_seats;
use super::events::{changed_seats, listen};
use super::stage::{Stage, seat_name};
use super::wire::{Wire, Wires, get, post};
use crate::bench::turns::{Work, line_of};
use crate::bench::{Pace, Report, Target};
use crate::launcher::Progress;

const SEATS: u32 = 5_000;
/// Connecting at once.
const PARALLEL: usize = 64;
/// After the last booking the watchers have so long to hear of it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Files beside the connections.
const OTHER_FILES: u64 = 300;
/// Vectors that watchers write into, so that they do not wait for each other.
const SHELVES: usize = 64;

#[derive(Clone, Debug)]
pub struct WatchPlan {
    pub pace: Pace,
    pub watchers: usize,
    /// Bookings a second.
    pub rate: f64,
}

/// What watchers write down: which booking they heard of, and when.
struct Heard {
    started: Instant,
    bookings: HashMap<Vec<u8>, u32>,
    shelves: Vec<Mutex<Vec<(u32, Duration)>>>,
    arrived: AtomicUsize,
    listening: AtomicUsize,
}

/// Files may be opened up to the hard limit from now on, also by processes started later.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, connecting says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Refuses what the limits of this process or the server's do not allow.
fn enough_files(pid: u32, watchers: usize) -> anyhow::Result<()> {
    let needed = watchers as u64 + OTHER_FILES;
    let own = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let server = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(u64::MAX);
    anyhow::ensure!(
        own.min(server) >= needed,
        "{watchers} watchers need {needed} open files here and in the server; allowed are {own} here and \
         {server} there: `ulimit -n {needed}` before starting both"
    );
    Ok(())
}

pub async fn watch(data: &Path, plan: &WatchPlan, progress: &Progress) -> anyhow::Result<Report> {
    raise_file_limit();
    let stage = Stage::open(data, 4, progress).await?;
    enough_files(stage.regional_pid, plan.watchers)?;
    let show = stage.shows(SEATS, 1, progress).await?.remove(0);
    let heard = Arc::new(Heard {
        started: Instant::now(),
        bookings: (0..SEATS / 2).map(|n| (seat_name(2 * n).into_bytes(), n)).collect(),
        shelves: (0..SHELVES).map(|_| Mutex::default()).collect(),
        arrived: AtomicUsize::new(0),
        listening: AtomicUsize::new(0),
    });
    let before = resident_kib(stage.regional_pid);
    let connecting = Instant::now();
    let watchers = connect(stage.regional, &show, plan.watchers, &heard, progress).await?;
    let connecting = connecting.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = resident_kib(stage.regional_pid);

    let buyer = Buyer {
        wires: Wires::to(stage.regional),
        show,
        tokens: stage.tokens.clone(),
        next: AtomicU32::new(0),
    };
    let buyer = Arc::new(buyer);
    progress.add_total(plan.pace.rounds as u64);
    buyer.buy(plan.rate, plan.pace.warm_up(), heard.started).await?;
    let mut rounds = Vec::new();
    for round in 0..plan.pace.rounds {
        let seen = one_round(&buyer, &heard, plan).await?;
        progress.done(&format!("round {}: {} changes heard", round + 1, seen.done));
        rounds.push(seen);
    }
    let dropped = plan.watchers - heard.listening.load(Ordering::Relaxed);
    drop(watchers);

    let title = format!(
        "{} watchers of one show of 5,000 seats, {} bookings a second; from a booking's answer to each watcher",
        plan.watchers, plan.rate
    );
    let mut report = Report::new("watch", title, "heard", plan.pace);
    report.lines = vec![line_of("marquee", Work::Clients(plan.watchers), &rounds)?];
    let line = &report.lines[0];
    let (p99, failed) = (line.p99_ms, line.failed);
    let each = (after - before) as f64 / plan.watchers as f64;
    report.targets.push(Target::at_most("p99 until a watcher has heard, ms", 250.0, p99));
    report.targets.push(Target::at_most("watchers dropped", 0.0, dropped as f64));
    report.targets.push(Target::at_most("changes that did not arrive", 0.0, failed as f64));
    report.notes.push(format!("memory of the server: {each:.1} KiB a watcher"));
    report.notes.push(format!("all were connected after {:.1} s", connecting.as_secs_f64()));
    Ok(report)
}

async fn connect(
    address: SocketAddr,
    show: &str,
    watchers: usize,
    heard: &Arc<Heard>,
    progress: &Progress,
) -> anyhow::Result<JoinSet<()>> {
    progress.add_total(watchers as u64);
    progress.message(&format!("{watchers} watchers connect"));
    let path = format!("/v1/shows/{show}/seats/events?format=compact");
    let request = get(address, &path, "accept: text/event-stream\r\n");
    let mut connected = stream::iter(0..watchers)
        .map(|_| async { Wire::connect(address).await?.stream(&request).await })
        .buffer_unordered(PARALLEL);
    let (mut tasks, mut number) = (JoinSet::new(), 0);
    while let Some(stream) = connected.next().await {
        let (stream, first) = stream.context("a watcher cannot connect")?;
        progress.tick(1);
        heard.listening.fetch_add(1, Ordering::Relaxed);
        let heard = heard.clone();
        tasks.spawn(async move {
            let shelf = &heard.shelves[number % SHELVES];
            let _ended = listen(stream, first, |event| {
                let at = heard.started.elapsed();
                for booking in changed_seats(event).filter_map(|seat| heard.bookings.get(seat)) {
                    shelf.lock().expect("no code panics while holding it").push((*booking, at));
                    heard.arrived.fetch_add(1, Ordering::Relaxed);
                }
            })
            .await;
            heard.listening.fetch_sub(1, Ordering::Relaxed);
        });
        number += 1;
    }
    Ok(tasks)
}

async fn one_round(buyer: &Arc<Buyer>, heard: &Heard, plan: &WatchPlan) -> anyhow::Result<Seen> {
    // What is still on its way belongs to the round before.
    tokio::time::sleep(Duration::from_millis(300)).await;
    heard.take();
    let started = Instant::now();
    let answered = buyer.buy(plan.rate, plan.pace.time, heard.started).await?;
    let expected = answered.len() * heard.listening.load(Ordering::Relaxed);
    let deadline = Instant::now() + PATIENCE;
    while heard.arrived.load(Ordering::Relaxed) < expected && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let arrivals = heard.take();
    let mut seen = Seen { seconds: started.elapsed().as_secs_f64(), ..Seen::default() };
    for (booking, at) in arrivals {
        let Some(answered) = answered.get(&booking) else { continue };
        // Some hear of it before the buyer does.
        let late = at.saturating_sub(*answered).as_micros();
        seen.latencies_us.push(u32::try_from(late).unwrap_or(u32::MAX));
    }
    seen.done = seen.latencies_us.len() as u64;
    seen.failed = (expected as u64).saturating_sub(seen.done);
    Ok(seen)
}

impl Heard {
    fn take(&self) -> Vec<(u32, Duration)> {
        self.arrived.store(0, Ordering::Relaxed);
        let take = |shelf: &Mutex<Vec<_>>| {
            std::mem::take(&mut *shelf.lock().expect("no code panics while holding it"))
        };
        self.shelves.iter().flat_map(take).collect()
    }
}

struct Buyer {
    wires: Wires,
    show: String,
    tokens: Vec<String>,
    next: AtomicU32,
}

impl Buyer {
    /// Books at a fixed rate for a while; when each booking was answered, since `epoch`.
    async fn buy(
        self: &Arc<Self>,
        rate: f64,
        time: Duration,
        epoch: Instant,
    ) -> anyhow::Result<HashMap<u32, Duration>> {
        let (started, mut tasks) = (Instant::now(), JoinSet::new());
        for n in 0..(rate * time.as_secs_f64()).ceil() as u64 {
            let at = started + Duration::from_secs_f64(n as f64 / rate);
            tokio::time::sleep_until(at.into()).await;
            let buyer = self.clone();
            tasks.spawn(async move { buyer.book().await.map(|number| (number, epoch.elapsed())) });
        }
        let mut answered = HashMap::new();
        while let Some(booking) = tasks.join_next().await {
            answered.extend([booking??]);
        }
        Ok(answered)
    }

    async fn book(&self) -> anyhow::Result<u32> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        anyhow::ensure!(
            number < SEATS / 2,
            "the show is sold out: fewer rounds, seconds or bookings a second"
        );
        let token = &self.tokens[number as usize % self.tokens.len()];
        let path = format!("/v1/shows/{}/reservations", self.show);
        let (status, body) =
            self.wires.ask(&post(self.wires.address, &path, token, &two_seats(2 * number))).await?;
        anyhow::ensure!(status == 201, "{status}: {}", String::from_utf8_lossy(&body));
        Ok(number)
    }
}

/// Memory in use by a process.
fn resident_kib(pid: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
