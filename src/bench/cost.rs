//! What one booking costs when nobody else asks, and whether that grows with the journal.

use std::path::Path;
use std::sync::Arc;

use regional::bench::{
    Commits, Demand, Design, Desk, HOT_SEATS, Load, Marquee, Seen, Spread, fill_journal, lead_time,
    long_show, run,
};

use super::core::hot_shows;
use super::database::{Database, server};
use super::http::booking::Shop;
use super::http::stage::Stage;
use super::turns::{Turn, Work, median, take_turns};
use super::{Pace, Report, Target};
use crate::launcher::{Progress, Run};

/// What one customer alone books a second at most.
const ALONE_MOST: f64 = 5_000.0;
const CLIENTS: usize = 64;
const CLIENTS_MOST: f64 = 100_000.0;
const FEW_ENTRIES: u64 = 1_000;

fn shows(most: f64, pace: Pace) -> u32 {
    hot_shows(most, pace.time + pace.warm_up())
}

/// In process on a fresh database.
async fn in_process(url: String, clients: usize, shows: u32, pace: Pace) -> anyhow::Result<Seen> {
    let design: Arc<dyn Design> = Arc::new(Marquee::start(&url, shows, HOT_SEATS).await?);
    let desk = Arc::new(Desk::new(Spread::Hot, Demand::Distinct, shows, HOT_SEATS));
    let load = Load::Closed { clients };
    run(&design, &desk, load, pace.warm_up()).await?;
    run(&design, &desk, load, pace.time).await
}

/// One customer at a time: in process and by a gateway, against one bare commit of the same server.
pub async fn latency(data: &Path, pace: Pace, progress: &Progress) -> anyhow::Result<Report> {
    let stage = Stage::open(data, 1, progress).await?;
    let few = shows(ALONE_MOST, pace) as usize * pace.rounds;
    let made = Arc::new(stage.shows(HOT_SEATS, few, progress).await?);
    let shop: Arc<dyn Design> = Arc::new(Shop::new(stage.gateway, made, stage.tokens.clone()));
    let desk = Arc::new(Desk::new(Spread::Hot, Demand::Distinct, u32::try_from(few)?, HOT_SEATS));
    let database = Database::create(&server(&stage.run)?, "marquee_bench").await?;
    let (url, again) = (database.url.clone(), database.url.clone());
    let turns = [
        Turn::new("bare commit", Work::Alone, move || {
            let url = url.clone();
            async move { Commits::start(&url).await?.measure(pace.time).await }
        }),
        Turn::new("marquee", Work::Alone, move || {
            in_process(again.clone(), 1, shows(ALONE_MOST, pace), pace)
        }),
        Turn::new("marquee, HTTP", Work::Alone, move || {
            let (shop, desk) = (shop.clone(), desk.clone());
            async move {
                run(&shop, &desk, Load::Closed { clients: 1 }, pace.warm_up()).await?;
                run(&shop, &desk, Load::Closed { clients: 1 }, pace.time).await
            }
        }),
    ];
    let lines = take_turns(&turns, pace, progress).await;
    database.drop().await?;
    let mut report = Report::new("latency", "one customer at a time", "bookings", pace);
    report.lines = lines?;
    let p50 = |design: &str| report.best(design).map_or(f64::NAN, |line| line.p50_ms);
    let commit = p50("bare commit");
    let beyond = ["marquee", "marquee, HTTP"].map(|design| (design, p50(design) - commit));
    for (design, beyond) in beyond {
        report.targets.push(Target::at_most(format!("{design}: p50 beyond one commit, ms"), 1.5, beyond));
    }
    Ok(report)
}

#[derive(Clone, Debug)]
pub struct FlatPlan {
    pub pace: Pace,
    pub entries: u64,
    pub show_entries: u64,
}

/// A long journal against a short one.
pub async fn flat(platform: &Run, plan: &FlatPlan, progress: &Progress) -> anyhow::Result<Report> {
    let server = server(platform)?;
    let short = Database::create(&server, "marquee_bench_short").await?;
    let long = Database::create(&server, "marquee_bench_long").await?;
    progress.message(&format!("writing {} journal entries", plan.entries));
    fill_journal(&short.url, FEW_ENTRIES).await?;
    fill_journal(&long.url, plan.entries).await?;
    let show = long_show(&long.url, plan.show_entries).await?;

    let named = |entries: u64| format!("{entries} entries");
    let turn = |entries: u64, database: &Database| {
        let (url, pace) = (database.url.clone(), plan.pace);
        Turn::new(named(entries), Work::Clients(CLIENTS), move || {
            in_process(url.clone(), CLIENTS, shows(CLIENTS_MOST, pace), pace)
        })
    };
    let turns = [turn(FEW_ENTRIES, &short), turn(plan.entries, &long)];
    let lines = take_turns(&turns, plan.pace, progress).await?;
    let mut lead_ms = Vec::new();
    for _ in 0..plan.pace.rounds.max(3) {
        lead_ms.push(lead_time(&long.url, show).await?.as_secs_f64() * 1e3);
    }
    short.drop().await?;
    long.drop().await?;

    let mut report =
        Report::new("flat", "a long journal against a short one, in process", "bookings", plan.pace);
    report.lines = lines;
    let at = |entries: u64| report.best(&named(entries)).map(|line| line.per_second);
    let (many, few) = (at(plan.entries), at(FEW_ENTRIES));
    report.ratio(&format!("with {} entries over {FEW_ENTRIES}", plan.entries), 0.9, many, few);
    let what = format!("beginning to lead a show of {} entries, ms", plan.show_entries);
    report.targets.push(Target::at_most(what, 50.0, median(lead_ms)));
    Ok(report)
}
