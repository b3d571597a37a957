//! What `marquee bench …` does with what was typed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use marquee::bench::core::CorePlan;
use marquee::bench::cost::FlatPlan;
use marquee::bench::http::booking::HttpPlan;
use marquee::bench::http::mixed::MixedPlan;
use marquee::bench::http::read::ReadPlan;
use marquee::bench::http::watch::WatchPlan;
use marquee::bench::whole::WholePlan;
use marquee::bench::{self, Machine, Outcome, Pace, Report};
use marquee::launcher::{Progress, Run};
use marquee::services;
use regional::bench::{Demand, Spread};

use crate::cli::{
    Bench, BenchBookings, BenchDemand, BenchFigures, BenchFlat, BenchMixed, BenchRead, BenchShow, BenchWatch,
};

pub async fn run(what: Bench) -> anyhow::Result<()> {
    match what {
        Bench::Purchase { data, clients, seconds, json } => purchase(&data, clients, seconds, json).await,
        Bench::NaiveServer(service) => services::naive(service.config.as_deref()).await,
        Bench::BareServer { listen, folder } => bench::http::bare::serve(listen, &folder).await,
        Bench::All { out, short, rounds, only } => all(&out, short, rounds as usize, &only).await,
        Bench::Show { what } => show(what).await,
    }
}

async fn show(what: BenchShow) -> anyhow::Result<()> {
    let machine = Machine::look();
    println!("{machine}");
    let progress = Progress::new(0, false);
    let (figures, report) = match what {
        BenchShow::Hot(args) => bookings(Spread::Hot, args, &progress).await?,
        BenchShow::Spread(args) => bookings(Spread::Even, args, &progress).await?,
        BenchShow::Read(BenchRead { figures, clients }) => {
            let plan = ReadPlan { pace: pace(&figures), clients: clients as usize };
            let report = bench::http::read::read(&figures.data, &plan, &progress).await?;
            (figures, report)
        }
        BenchShow::Watch(BenchWatch { figures, watchers, rate }) => {
            let plan = WatchPlan { pace: pace(&figures), watchers: watchers as usize, rate };
            let report = bench::http::watch::watch(&figures.data, &plan, &progress).await?;
            (figures, report)
        }
        BenchShow::Mixed(BenchMixed { figures, rate }) => {
            let plan = MixedPlan { pace: pace(&figures), rate };
            let report = bench::http::mixed::mixed(&figures.data, &plan, &progress).await?;
            (figures, report)
        }
        BenchShow::Latency(figures) => {
            let report = bench::cost::latency(&figures.data, pace(&figures), &progress).await?;
            (figures, report)
        }
        BenchShow::Flat(BenchFlat { figures, entries, show_entries }) => {
            let plan = FlatPlan { pace: pace(&figures), entries, show_entries };
            let report = bench::cost::flat(&Run::read(&figures.data)?, &plan, &progress).await?;
            (figures, report)
        }
    };
    progress.finish();
    println!("{}", report.table());
    if let Some(file) = &figures.svg {
        write(file, bench::svg(&report).as_bytes())?;
    }
    write_json(figures.json.as_deref(), &serde_json::json!({"machine": machine, "reports": [report]}))
}

async fn all(out: &Path, short: bool, rounds: usize, only: &[String]) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    let machine = Machine::look();
    println!("{machine}");
    let progress = Progress::new(0, false);
    let plan = if short { WholePlan::short() } else { WholePlan::of(rounds) };
    let mut reports: Vec<Report> = Vec::new();
    // What was measured is kept, also when something fails later.
    let finished = bench::whole::whole(&plan, only, &progress, |report| {
        progress.line(&report.table());
        write(&out.join(format!("{}.svg", report.name)), bench::svg(&report).as_bytes())?;
        reports.push(report);
        write_json(
            Some(&out.join("figures.json")),
            &serde_json::json!({"machine": machine, "short": short, "reports": reports}),
        )
    })
    .await;
    progress.finish();
    finished?;
    println!("figures and plots are in {}", out.display());
    Ok(())
}

fn pace(figures: &BenchFigures) -> Pace {
    Pace { rounds: figures.rounds as usize, time: Duration::from_secs_f64(figures.seconds) }
}

async fn bookings(
    spread: Spread,
    args: BenchBookings,
    progress: &Progress,
) -> anyhow::Result<(BenchFigures, Report)> {
    let all = |numbers: &[u32]| numbers.iter().map(|n| *n as usize).collect();
    let plan = CorePlan {
        spread,
        demand: match args.demand {
            BenchDemand::Distinct => Demand::Distinct,
            BenchDemand::Popular => Demand::Popular,
        },
        shows: args.shows,
        pace: pace(&args.figures),
        clients: all(&args.clients),
        connections: all(&args.connections),
        rates: args.rate.iter().map(|rate| f64::from(*rate)).collect(),
    };
    if args.http {
        let CorePlan { spread, demand, shows, pace, clients, rates, .. } = plan;
        let plan = HttpPlan { spread, demand, shows, pace, clients, rates };
        let report = bench::http::booking::booking(&args.figures.data, &plan, progress).await?;
        return Ok((args.figures, report));
    }
    let platform = Run::read(&args.figures.data)?;
    let report = bench::core::core(&platform, &plan, progress).await?;
    Ok((args.figures, report))
}

async fn purchase(data: &Path, clients: u32, seconds: u64, json: Option<PathBuf>) -> anyhow::Result<()> {
    let run = Run::read(data)?;
    let plan = bench::Plan { clients: clients as usize, duration: Duration::from_secs(seconds) };
    let progress = Progress::new(0, false);
    let outcome = bench::purchases(&run, plan, &progress).await;
    progress.finish();
    let outcome = outcome?;
    print(&outcome);
    write_json(json.as_deref(), &outcome)
}

pub fn write_json(file: Option<&Path>, figures: &impl serde::Serialize) -> anyhow::Result<()> {
    file.map_or(Ok(()), |file| write(file, &serde_json::to_vec_pretty(figures)?))
}

fn write(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    std::fs::write(file, content).with_context(|| format!("{} cannot be written", file.display()))
}

fn print(outcome: &Outcome) {
    println!(
        "\n{} purchases in {:.1} s: {:.1} purchases/s",
        outcome.purchases, outcome.seconds, outcome.purchases_per_second
    );
    println!(
        "closed loop: {} clients, each waiting for its answer; one seat a purchase, from {} shows, through {}\n",
        outcome.clients, outcome.shows, outcome.gateway
    );
    println!("{:<10} {:>9} {:>9} {:>9} {:>9}", "ms", "p50", "p90", "p99", "max");
    for (step, latency) in &outcome.latency_ms {
        println!(
            "{step:<10} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
            latency.p50, latency.p90, latency.p99, latency.max
        );
    }
    if outcome.errors.is_empty() {
        println!("\nno errors");
    } else {
        println!("\nerrors by code:");
        for (code, count) in &outcome.errors {
            println!("{code:<30} {count:>7}");
        }
    }
    if outcome.sold_out {
        println!("the free seats ran out before the time did; `up --reset` brings new ones");
    }
}
