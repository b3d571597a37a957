//! Asking: so many clients that each wait for their answer, or so many arrivals a second whoever waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::{Design, Desk, Outcome};

/// Before asking a busy design again.
const PAUSE: Duration = Duration::from_millis(1);
/// After the last arrival of an open loop, its answers are waited for so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than this under way at once, and an arrival is given up instead: the design has lost.
const MOST_UNDER_WAY: u64 = 50_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// The next request follows the answer: what is slow is asked less.
    Closed { clients: usize },
    /// Requests come when they come, and their latency counts from then (no coordinated omission).
    Open { per_second: f64 },
}

/// What one run saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub done: u64,
    /// Refusals on the way to what was done.
    pub refused: u64,
    /// Never answered, or answered with an error.
    pub failed: u64,
    pub seconds: f64,
    /// From asking first (in an open loop: from the intended start) to the durable answer.
    pub latencies_us: Vec<u32>,
    /// The seats ran out before the time did.
    pub sold_out: bool,
    /// How much longer the read models took.
    pub behind_seconds: f64,
}

impl Seen {
    pub fn add(&mut self, other: Self) {
        self.done += other.done;
        self.refused += other.refused;
        self.failed += other.failed;
        self.latencies_us.extend(other.latencies_us);
        self.sold_out |= other.sold_out;
    }

    pub fn record(&mut self, since: Instant) {
        self.done += 1;
        self.latencies_us.push(u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
}

/// Asks for `time`, then waits until the read models have followed.
pub async fn run(
    design: &Arc<dyn Design>,
    desk: &Arc<Desk>,
    load: Load,
    time: Duration,
) -> anyhow::Result<Seen> {
    let started = Instant::now();
    let mut seen = match load {
        Load::Closed { clients } => closed(design, desk, clients, time).await?,
        Load::Open { per_second } => open(design, desk, per_second, time).await?,
    };
    seen.seconds = started.elapsed().as_secs_f64();
    design.settled().await;
    seen.behind_seconds = started.elapsed().as_secs_f64() - seen.seconds;
    Ok(seen)
}

async fn closed(
    design: &Arc<dyn Design>,
    desk: &Arc<Desk>,
    clients: usize,
    time: Duration,
) -> anyhow::Result<Seen> {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (design, desk) = (design.clone(), desk.clone());
        tasks.spawn(async move {
            let mut seen = Seen::default();
            while Instant::now() < until && !seen.sold_out {
                customer(&*design, &desk, Instant::now(), &mut seen).await?;
            }
            anyhow::Ok(seen)
        });
    }
    let mut all = Seen::default();
    while let Some(seen) = tasks.join_next().await {
        all.add(seen??);
    }
    Ok(all)
}

/// One customer, who chooses again when refused.
async fn customer(design: &dyn Design, desk: &Desk, wanted: Instant, seen: &mut Seen) -> anyhow::Result<()> {
    let Some(mut booking) = desk.choose() else {
        seen.sold_out = true;
        return Ok(());
    };
    loop {
        match design.book(booking).await? {
            Outcome::Booked => {
                desk.gone(booking);
                seen.record(wanted);
                return Ok(());
            }
            Outcome::Taken => {
                anyhow::ensure!(desk.collides(), "{booking:?} was taken by somebody else");
                seen.refused += 1;
                desk.gone(booking);
                match desk.choose() {
                    Some(next) => booking = next,
                    None => {
                        seen.sold_out = true;
                        return Ok(());
                    }
                }
            }
            Outcome::Busy => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn open(
    design: &Arc<dyn Design>,
    desk: &Arc<Desk>,
    per_second: f64,
    time: Duration,
) -> anyhow::Result<Seen> {
    let started = Instant::now();
    let arrivals = (per_second * time.as_secs_f64()) as u64;
    let (all, under_way) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicU64::new(0)));
    let mut given_up = 0;
    for arrival in 0..arrivals {
        let intended = started + Duration::from_secs_f64(arrival as f64 / per_second);
        if intended > Instant::now() {
            tokio::time::sleep_until(intended.into()).await;
        }
        if under_way.fetch_add(1, Ordering::Relaxed) >= MOST_UNDER_WAY {
            under_way.fetch_sub(1, Ordering::Relaxed);
            given_up += 1;
            continue;
        }
        let (design, desk) = (design.clone(), desk.clone());
        let (all, under_way) = (all.clone(), under_way.clone());
        tokio::spawn(async move {
            let mut seen = Seen::default();
            if let Err(error) = customer(&*design, &desk, intended, &mut seen).await {
                tracing::warn!(%error, "a booking failed");
                seen.failed += 1;
            }
            all.lock().await.add(seen);
            under_way.fetch_sub(1, Ordering::Relaxed);
        });
    }
    let deadline = Instant::now() + PATIENCE;
    while under_way.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
        tokio::time::sleep(PAUSE).await;
    }
    let mut seen = std::mem::take(&mut *all.lock().await);
    seen.failed += given_up + under_way.load(Ordering::Relaxed);
    Ok(seen)
}
