//! `marquee bench all`: everything, one after the other, on a platform of its own that is stopped and removed
//! afterwards.

use std::path::Path;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use regional::bench::{Demand, Spread};

use super::core::CorePlan;
use super::cost::FlatPlan;
use super::http::booking::HttpPlan;
use super::http::children::Scratch;
use super::http::mixed::MixedPlan;
use super::http::read::ReadPlan;
use super::http::watch::{WatchPlan, raise_file_limit};
use super::{Pace, Report, core, cost, http};
use crate::launcher::{Options, Platform, Progress, Run};

#[derive(Clone, Debug)]
pub struct WholePlan {
    pace: Pace,
    clients: Vec<usize>,
    connections: Vec<usize>,
    /// Of the open loops: what every design can bear, so that latency tells them apart.
    rate: f64,
    /// Visitors a second.
    mixed_rate: f64,
    /// Where bookings go over many.
    shows: u32,
    watchers: usize,
    watch_pace: Pace,
    entries: u64,
    show_entries: u64,
}

impl WholePlan {
    /// About ten minutes with five rounds on two cores.
    pub fn of(rounds: usize) -> Self {
        Self {
            pace: Pace { rounds, time: Duration::from_secs(1) },
            clients: vec![64, 256, 1_024, 4_096],
            connections: vec![4, 8, 16, 64],
            rate: 1_000.0,
            mixed_rate: 300.0,
            shows: 1_000,
            watchers: 10_000,
            watch_pace: Pace { rounds, time: Duration::from_secs(4) },
            entries: 1_000_000,
            show_entries: 10_000,
        }
    }

    /// Shows that everything runs; no more.
    pub fn short() -> Self {
        let pace = Pace { rounds: 1, time: Duration::from_millis(200) };
        Self {
            pace,
            clients: vec![4, 64],
            connections: vec![4, 64],
            rate: 50.0,
            mixed_rate: 100.0,
            shows: 60,
            watchers: 50,
            watch_pace: Pace { rounds: 1, time: Duration::from_millis(600) },
            entries: 10_000,
            show_entries: 500,
        }
    }
}

type Part<'a> = (&'static str, LocalBoxFuture<'a, anyhow::Result<Report>>);

/// Measures the parts whose names are in `only` (all where it is empty); `keep` gets each report at once.
pub async fn whole(
    plan: &WholePlan,
    only: &[String],
    progress: &Progress,
    mut keep: impl FnMut(Report) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    raise_file_limit();
    let folder = Scratch::new()?;
    // Servers may run as users of their own, which must walk down to it.
    let options = Options {
        regions: vec!["eu".parse()?],
        data: folder.path().to_path_buf(),
        no_limits: true,
        ..Options::default()
    };
    progress.line("a platform of one region starts");
    let platform = Platform::start(options).await?;
    let measured = async {
        for (name, part) in parts(plan, folder.path(), &platform.run(), progress) {
            if only.is_empty() || only.iter().any(|wanted| wanted == name) {
                progress.line(&format!("— {name}"));
                keep(part.await.map_err(|error| error.context(name))?)?;
            }
        }
        anyhow::Ok(())
    };
    let measured = tokio::select! {
        measured = measured => measured,
        () = common::http::stop_signal() => Err(anyhow::anyhow!("interrupted")),
    };
    platform.stop().await;
    measured
}

fn parts<'a>(plan: &'a WholePlan, data: &'a Path, run: &'a Run, progress: &'a Progress) -> Vec<Part<'a>> {
    let core = move |spread, demand, rates: Vec<f64>| -> LocalBoxFuture<'a, _> {
        let (clients, connections) = match (spread, demand) {
            (Spread::Hot, Demand::Distinct) => (plan.clients.clone(), plan.connections.clone()),
            _ => (plan.clients[..plan.clients.len().min(2)].to_vec(), ends(&plan.connections)),
        };
        Box::pin(async move {
            let (shows, pace) = (plan.shows, plan.pace);
            let plan = CorePlan { spread, demand, shows, pace, clients, connections, rates };
            core::core(run, &plan, progress).await
        })
    };
    let by_http = move |spread| -> LocalBoxFuture<'a, _> {
        let (shows, pace, demand) = (plan.shows, plan.pace, Demand::Distinct);
        let plan = HttpPlan { spread, demand, shows, pace, clients: vec![64], rates: Vec::new() };
        Box::pin(async move { http::booking::booking(data, &plan, progress).await })
    };
    vec![
        ("hot", core(Spread::Hot, Demand::Distinct, Vec::new())),
        ("hot-popular", core(Spread::Hot, Demand::Popular, Vec::new())),
        ("hot-open", core(Spread::Hot, Demand::Distinct, vec![plan.rate])),
        ("spread", core(Spread::Even, Demand::Distinct, Vec::new())),
        ("hot-http", by_http(Spread::Hot)),
        ("spread-http", by_http(Spread::Even)),
        ("latency", Box::pin(cost::latency(data, plan.pace, progress))),
        ("read", {
            let plan = ReadPlan { pace: plan.pace, clients: 64 };
            Box::pin(async move { http::read::read(data, &plan, progress).await })
        }),
        ("watch", {
            let plan = WatchPlan { pace: plan.watch_pace, watchers: plan.watchers, rate: 5.0 };
            Box::pin(async move { http::watch::watch(data, &plan, progress).await })
        }),
        ("mixed", {
            let plan = MixedPlan { pace: plan.watch_pace, rate: plan.mixed_rate };
            Box::pin(async move { http::mixed::mixed(data, &plan, progress).await })
        }),
        ("flat", {
            let (pace, entries, show_entries) = (plan.pace, plan.entries, plan.show_entries);
            let plan = FlatPlan { pace, entries, show_entries };
            Box::pin(async move { cost::flat(run, &plan, progress).await })
        }),
    ]
}

fn ends(numbers: &[usize]) -> Vec<usize> {
    let mut ends: Vec<usize> = numbers.first().into_iter().chain(numbers.last()).copied().collect();
    ends.dedup();
    ends
}
