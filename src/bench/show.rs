//! `marquee bench show`: the show core against the designs it is meant to beat, in process, on the Postgres of
//! a running platform's first region.
//!
//! The designs take turns within each round, so that what else the machine does meets them alike; the figures
//! are medians over the rounds, and what counts are the ratios.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use migrations::Schema;
use regional::bench::{
    BestStatement, Design, Desk, HOT_SEATS, Limit, Marquee, Naive, SPREAD_SEATS, Seen, Spread, run,
};
use serde::Serialize;

use crate::launcher::{Progress, Run};

/// Connections at which the usual design is at its best on few cores.
const BEST_CONNECTIONS: usize = 4;
/// Connections are made and statements prepared before anything counts.
const WARM_UP: Duration = Duration::from_millis(500);
/// Bookings in one statement of the limit.
const LIMIT_BATCH: usize = 200;

#[derive(Clone, Debug)]
pub struct ShowPlan {
    pub spread: Spread,
    pub rounds: usize,
    pub time: Duration,
    /// Clients of Marquee; the references run at their best and at the first of these.
    pub clients: Vec<usize>,
}

impl ShowPlan {
    fn turns(&self) -> Vec<Turn> {
        let mut turns = vec![Turn::Naive(BEST_CONNECTIONS), Turn::Best(BEST_CONNECTIONS)];
        if let Some(first) = self.clients.first() {
            turns.extend([Turn::Naive(*first), Turn::Best(*first)]);
        }
        turns.extend(self.clients.iter().map(|clients| Turn::Marquee(*clients)));
        turns
    }

    /// How often progress is told.
    pub fn steps(&self) -> u64 {
        (self.rounds * self.turns().len()) as u64
    }
}

/// One design at one number of clients.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub design: String,
    pub clients: usize,
    /// Medians over the rounds.
    pub bookings_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub rounds: Vec<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ShowOutcome {
    pub kind: &'static str,
    pub lines: Vec<Line>,
    /// Journal rows a second by one connection in large batches.
    pub limit_per_second: f64,
    /// Marquee's best over each reference's best.
    pub ratios: BTreeMap<String, f64>,
}

/// One measurement: a design with its number of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Naive(usize),
    Best(usize),
    Marquee(usize),
}

impl Turn {
    fn name(self) -> (String, usize) {
        match self {
            Self::Naive(clients) => ("naive".into(), clients),
            Self::Best(clients) => ("best single statement".into(), clients),
            Self::Marquee(clients) => ("marquee".into(), clients),
        }
    }
}

/// Measures; `run` is the platform whose Postgres is used.
pub async fn show(platform: &Run, plan: &ShowPlan, progress: &Progress) -> anyhow::Result<ShowOutcome> {
    let url = platform.postgres.iter().find(|(name, _)| *name != "global").map(|(_, url)| url.clone());
    let database = Database::create(&url.context("the platform has no region")?).await?;
    let turns = plan.turns();
    let (mut seen, mut limits): (Vec<Vec<Seen>>, Vec<f64>) = (vec![Vec::new(); turns.len()], Vec::new());
    for round in 0..plan.rounds {
        limits.push(Limit::start(&database.url).await?.measure(LIMIT_BATCH, plan.time).await?);
        for (turn, seen) in turns.iter().zip(&mut seen) {
            let one = measure(&database, *turn, plan).await?;
            let (name, clients) = turn.name();
            let per_second = one.bookings as f64 / one.seconds;
            progress.done(&format!("round {}: {name}, {clients} clients: {per_second:.0}/s", round + 1));
            seen.push(one);
        }
    }
    database.drop().await?;
    let lines: Vec<Line> =
        turns.iter().zip(&seen).map(|(turn, seen)| line(*turn, seen)).collect::<anyhow::Result<_>>()?;
    let ratios = ratios(&lines);
    let kind = if plan.spread == Spread::Hot { "hot" } else { "spread" };
    Ok(ShowOutcome { kind, lines, limit_per_second: median(limits), ratios })
}

async fn measure(database: &Database, turn: Turn, plan: &ShowPlan) -> anyhow::Result<Seen> {
    let hot = plan.spread == Spread::Hot;
    let seats = if hot { HOT_SEATS } else { SPREAD_SEATS };
    let url = &database.url;
    let seconds = plan.time.as_secs_f64();
    // Enough for the fastest; more would only take longer to set up.
    let shows = |bookings_per_second: f64| {
        let bookings = bookings_per_second * (seconds + WARM_UP.as_secs_f64());
        if hot { (bookings / f64::from(HOT_SEATS / 2)).ceil() as u32 + 1 } else { 1_000 }
    };
    let (design, clients): (Arc<dyn Design>, usize) = match turn {
        Turn::Naive(clients) => {
            (Arc::new(Naive::start(url, clients.min(64), shows(2e4), seats).await?), clients)
        }
        Turn::Best(clients) => {
            (Arc::new(BestStatement::start(url, clients.min(64), shows(2e4), seats).await?), clients)
        }
        Turn::Marquee(clients) => {
            let marquee = Arc::new(Marquee::start(url, shows(1e5), seats).await?);
            let desk = Arc::new(Desk::new(plan.spread, shows(1e5), seats));
            run(marquee.clone(), desk.clone(), clients, WARM_UP).await?;
            let seen = run(marquee.clone(), desk, clients, plan.time).await?;
            marquee.projected().await;
            return Ok(seen);
        }
    };
    let desk = Arc::new(Desk::new(plan.spread, shows(2e4), seats));
    run(design.clone(), desk.clone(), clients, WARM_UP).await?;
    run(design, desk, clients, plan.time).await
}

fn line(turn: Turn, seen: &[Seen]) -> anyhow::Result<Line> {
    let (design, clients) = turn.name();
    let rounds: Vec<f64> = seen.iter().map(|one| one.bookings as f64 / one.seconds).collect();
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for one in seen {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 120_000_000, 3)?;
        for latency in &one.latencies_us {
            histogram.saturating_record(u64::from(*latency).max(1));
        }
        p50.push(histogram.value_at_quantile(0.5) as f64 / 1e3);
        p99.push(histogram.value_at_quantile(0.99) as f64 / 1e3);
    }
    let bookings_per_second = median(rounds.clone());
    Ok(Line { design, clients, bookings_per_second, p50_ms: median(p50), p99_ms: median(p99), rounds })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ratios(lines: &[Line]) -> BTreeMap<String, f64> {
    let best = |design: &str| {
        let of = lines.iter().filter(|line| line.design == design).map(|line| line.bookings_per_second);
        of.fold(f64::NAN, f64::max)
    };
    let marquee = best("marquee");
    ["naive", "best single statement"].map(|design| (format!("to {design}"), marquee / best(design))).into()
}

/// A database of its own on the platform's server.
struct Database {
    server: String,
    url: String,
}

const NAME: &str = "marquee_bench";

impl Database {
    async fn create(server: &str) -> anyhow::Result<Self> {
        let client = migrations::pool(server, 1)?.get().await?;
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {NAME}")).await?;
        client.batch_execute(&format!("CREATE DATABASE {NAME}")).await?;
        let (base, _) = server.rsplit_once('/').context("a Postgres URL names its database")?;
        let url = format!("{base}/{NAME}");
        Schema::Regional.migrate(&url).await?;
        Ok(Self { server: server.to_owned(), url })
    }

    async fn drop(self) -> anyhow::Result<()> {
        let client = migrations::pool(&self.server, 1)?.get().await?;
        client.batch_execute(&format!("DROP DATABASE {NAME} WITH (FORCE)")).await?;
        Ok(())
    }
}

impl ShowOutcome {
    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<24} {:>8} {:>12} {:>9} {:>9}\n",
            "design", "clients", "bookings/s", "p50 ms", "p99 ms"
        );
        for line in &self.lines {
            let Line { design, clients, bookings_per_second, p50_ms, p99_ms, .. } = line;
            text += &format!(
                "{design:<24} {clients:>8} {bookings_per_second:>12.0} {p50_ms:>9.2} {p99_ms:>9.2}\n"
            );
        }
        text += &format!(
            "\nlimit (journal rows, one connection, batches of {LIMIT_BATCH}): {:.0}/s\n",
            self.limit_per_second
        );
        for (what, ratio) in &self.ratios {
            text += &format!("marquee's best {what}'s best: {ratio:.1} times\n");
        }
        text
    }
}
