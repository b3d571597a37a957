//! `marquee bench show hot|spread`: the show core in process against the designs it is meant to beat, on the
//! Postgres (and Redis) of a running platform's first region.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use regional::bench::{
    BestStatement, Demand, Design, Desk, HOT_SEATS, Limit, Load, LockService, Marquee, Naive, SPREAD_SEATS,
    Seen, Spread, run,
};

use super::database::{Database, server};
use super::turns::{Turn, Work, take_turns};
use super::{Pace, Report, Target};
use crate::launcher::{Progress, Run};

/// What each is expected to sell a second at most: so many shows are made. More only takes longer to set up.
const NAIVE_MOST: f64 = 12_000.0;
const STATEMENT_MOST: f64 = 25_000.0;
const MARQUEE_MOST: f64 = 150_000.0;
/// More connections than this nobody gives one process.
const MOST_CONNECTIONS: usize = 64;

#[derive(Clone, Debug)]
pub struct CorePlan {
    pub spread: Spread,
    pub demand: Demand,
    /// Where they are many.
    pub shows: u32,
    pub pace: Pace,
    /// Clients of Marquee.
    pub clients: Vec<usize>,
    /// Clients, and connections, of the references.
    pub connections: Vec<usize>,
    /// Arrivals a second: where given, an open loop instead of clients.
    pub rates: Vec<f64>,
}

impl CorePlan {
    fn spread_over(&self) -> String {
        spread_over(self.spread, self.shows)
    }
}

pub(super) fn spread_over(spread: Spread, shows: u32) -> String {
    match spread {
        Spread::Hot => format!("one hot show of {HOT_SEATS} seats after the other"),
        Spread::Even => format!("{shows} shows of {SPREAD_SEATS} seats"),
    }
}

/// Where a turn happens.
#[derive(Clone)]
struct Stage {
    plan: CorePlan,
    url: String,
    redis: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Naive,
    Statement,
    Locks,
    Marquee,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Statement => "best single statement",
            Self::Locks => "lock service",
            Self::Marquee => "marquee",
        }
    }
}

pub async fn core(platform: &Run, plan: &CorePlan, progress: &Progress) -> anyhow::Result<Report> {
    let database = Database::create(&server(platform)?, "marquee_bench").await?;
    let redis = platform.redis.values().next().context("the platform has no Redis")?.clone();
    let stage = Stage { plan: plan.clone(), url: database.url.clone(), redis };
    let lines = take_turns(&stage.turns(), plan.pace, progress).await;
    database.drop().await?;

    let hot = plan.spread == Spread::Hot;
    let mut name = if hot { "hot" } else { "spread" }.to_owned();
    let mut title = format!("{}, in process: ", plan.spread_over());
    title += if plan.rates.is_empty() {
        "a closed loop"
    } else {
        name += "-open";
        "an open loop, latency from the intended start"
    };
    if plan.demand == Demand::Popular {
        name += "-popular";
        title += "; everybody wants the middle";
    }
    let mut report = Report::new(&name, title, "bookings", plan.pace);
    report.lines = lines?;
    judge(&mut report, plan);
    Ok(report)
}

impl Stage {
    fn turns(&self) -> Vec<Turn> {
        let mut turns = Vec::new();
        if self.plan.rates.is_empty() {
            for kind in [Kind::Naive, Kind::Statement, Kind::Locks] {
                turns.extend(self.plan.connections.iter().map(|n| self.turn(kind, Work::Clients(*n))));
            }
            turns.extend(self.plan.clients.iter().map(|n| self.turn(Kind::Marquee, Work::Clients(*n))));
        }
        for rate in &self.plan.rates {
            for kind in [Kind::Naive, Kind::Statement, Kind::Locks, Kind::Marquee] {
                turns.push(self.turn(kind, Work::Rate(*rate)));
            }
        }
        if self.plan.demand == Demand::Distinct && self.plan.rates.is_empty() {
            for with_reservations in [true, false] {
                let name = if with_reservations { "limit" } else { "limit, journal alone" };
                let (url, spread, time) = (self.url.clone(), self.plan.spread, self.plan.pace.time);
                turns.push(Turn::new(name, Work::Alone, move || {
                    let url = url.clone();
                    async move { Limit::start(&url, spread, with_reservations).await?.measure(time).await }
                }));
            }
        }
        turns
    }

    fn turn(&self, kind: Kind, work: Work) -> Turn {
        let stage = self.clone();
        Turn::new(kind.name(), work, move || {
            let stage = stage.clone();
            async move { stage.measure(kind, work).await }
        })
    }

    async fn measure(&self, kind: Kind, work: Work) -> anyhow::Result<Seen> {
        let plan = &self.plan;
        let load = match work {
            Work::Clients(clients) => Load::Closed { clients },
            Work::Rate(per_second) => Load::Open { per_second },
            Work::Alone => Load::Closed { clients: 1 },
        };
        // In an open loop they get what most applications are given.
        let connections = match work {
            Work::Clients(clients) => clients.min(MOST_CONNECTIONS),
            _ => 16,
        };
        let time = plan.pace.time + plan.pace.warm_up();
        let (shows, seats) = match plan.spread {
            Spread::Hot => (shows(kind, time), HOT_SEATS),
            Spread::Even => (plan.shows, SPREAD_SEATS),
        };
        let url = &self.url;
        let design: Arc<dyn Design> = match kind {
            Kind::Naive => Arc::new(Naive::start(url, connections, shows, seats).await?),
            Kind::Statement => Arc::new(BestStatement::start(url, connections, shows, seats).await?),
            Kind::Locks => Arc::new(LockService::start(url, &self.redis, connections, shows, seats).await?),
            Kind::Marquee => Arc::new(Marquee::start(url, shows, seats).await?),
        };
        let desk = Arc::new(Desk::new(plan.spread, plan.demand, shows, seats));
        run(&design, &desk, load, plan.pace.warm_up()).await?;
        run(&design, &desk, load, plan.pace.time).await
    }
}

fn shows(kind: Kind, time: Duration) -> u32 {
    let most = match kind {
        Kind::Naive => NAIVE_MOST,
        Kind::Statement | Kind::Locks => STATEMENT_MOST,
        Kind::Marquee => MARQUEE_MOST,
    };
    hot_shows(most, time)
}

/// Hot shows for so many bookings a second.
pub(super) fn hot_shows(most: f64, time: Duration) -> u32 {
    // Unoptimised, nothing is as fast, and making shows takes its time.
    let most = if cfg!(debug_assertions) { most / 10.0 } else { most };
    (most * time.as_secs_f64() / f64::from(HOT_SEATS / 2)).ceil() as u32 + 1
}

/// The targets, and what the references are at their best.
fn judge(report: &mut Report, plan: &CorePlan) {
    let best = |report: &Report, design: &str| report.best(design).map(|line| line.per_second);
    for design in [Kind::Naive, Kind::Statement, Kind::Locks, Kind::Marquee].map(Kind::name) {
        if let Some(line) = report.best(design)
            && let Work::Clients(clients) = line.work
        {
            let note = format!("{design} is at its best with {clients} clients: {:.0}/s", line.per_second);
            report.notes.push(note);
        }
    }
    if !plan.rates.is_empty() || plan.demand == Demand::Popular {
        let locks = (best(report, "marquee"), best(report, "lock service"));
        report.ratio("marquee's best over the lock service's best", 1.0, locks.0, locks.1);
        return;
    }
    let marquee = best(report, "marquee");
    let (naive, statement) = (best(report, "naive"), best(report, "best single statement"));
    let at_64 = |report: &Report, design: &str| report.line(design, Work::Clients(64)).cloned();
    let hot = plan.spread == Spread::Hot;
    if hot && let (Some(ours), Some(theirs)) = (at_64(report, "marquee"), at_64(report, "naive")) {
        let what = "at 64 clients: marquee over naive";
        report.targets.push(Target::at_least(what, 40.0, ours.per_second / theirs.per_second));
    }
    let (over_naive, over_statement, of_limit) = if hot { (18.0, 6.0, 0.8) } else { (8.0, 4.5, 0.5) };
    report.ratio("marquee's best over naive's best", over_naive, marquee, naive);
    report.ratio("marquee's best over the best single statement's best", over_statement, marquee, statement);
    let limit = best(report, "limit");
    report.ratio("marquee's best over the limit", of_limit, marquee, limit);
    let followed = report.best("marquee").map(|line| line.followed_per_second);
    report.ratio("the same, until the read models have followed", of_limit, followed, limit);
    for design in ["naive", "best single statement"] {
        if let (Some(ours), Some(theirs)) = (at_64(report, "marquee"), at_64(report, design)) {
            let what = format!("at 64 clients: marquee's p99 over the p99 of {design}");
            report.targets.push(Target::at_most(what, 1.0, ours.p99_ms / theirs.p99_ms));
        }
    }
    let ends = plan.clients.iter().min().zip(plan.clients.iter().max());
    if let Some((fewest, most)) = ends.filter(|(fewest, most)| fewest < most) {
        let at = |clients: usize| report.line("marquee", Work::Clients(clients)).map(|l| l.per_second);
        let (few, many) = (at(*fewest), at(*most));
        report.ratio(&format!("marquee with {most} clients over {fewest} clients"), 1.0, many, few);
    }
}
