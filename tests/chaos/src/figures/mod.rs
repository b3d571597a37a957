//! `make figures`: what the protocol costs with 80 ms between regions. The platform stands in the same namespaces
//! and network as under `make chaos`; nothing is broken but what is measured. Each part gives figures of several
//! rounds, of which the median counts; a table, `figures.json` and a plot a part go to the folder of results.
//!
//! Invariant: a figure that could not be taken is an error, never a number.

mod catch_up;
mod failover;
mod ground;
mod latency;
mod moves;
mod plot;
mod report;
mod throughput;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use marquee::bench::Machine;
use marquee::launcher::{Options, Platform, Sites};
use tokio_util::sync::CancellationToken;

use crate::arguments::Arguments;
use crate::rooms::{Apart, GLOBAL, REGIONS, Rooms, RoundTrips};
use crate::run::data_folder;
use crate::say;
use ground::Ground;
use report::{Part, Results};

/// 80 ms between any two regions; `global` stands near the first.
const ROUND_TRIPS: RoundTrips =
    [(0, 1, 80), (1, 2, 80), (0, 2, 80), (0, GLOBAL, 10), (1, GLOBAL, 80), (2, GLOBAL, 80)];
/// Shows that somebody wants when their region is lost.
const HOT: usize = 1_000;
/// Shows that are only known.
const REGISTERED: usize = 100_000;
/// The longest that reserved seats may be held: nothing is to run out while something is measured.
const HOLD_SECS: u64 = 3_600;

const PARTS: [&str; 6] = ["latency", "moves", "catch-up", "failover", "failover-100000", "throughput"];

pub fn run(marquee: &Path, arguments: &Arguments, apart: Apart, rounds: usize) -> anyhow::Result<()> {
    anyhow::ensure!(
        apart == Apart::Namespaces,
        "figures need network namespaces: a proxy has costs of its own"
    );
    // Before any other thread, since it looks into other namespaces.
    let rooms = Rooms::open(apart, ROUND_TRIPS)?;
    marquee::bench::http::watch::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = all(marquee, arguments, rounds, &rooms) => done,
            () = common::http::stop_signal() => Err(anyhow::anyhow!("interrupted")),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

async fn all(marquee: &Path, arguments: &Arguments, rounds: usize, rooms: &Rooms) -> anyhow::Result<()> {
    let mut machine = Machine::look();
    // It was asked of this program, and the platform may be another.
    machine.optimised = marquee.parent().is_some_and(|folder| folder.ends_with("release"));
    say(&machine.to_string());
    let mut results = Results::new(machine, &arguments.out);
    let wanted = |part: &str| arguments.only.as_deref().is_none_or(|only| only.split(',').any(|o| o == part));
    let mut parts: Vec<&str> = PARTS.into_iter().filter(|part| wanted(part)).collect();
    anyhow::ensure!(!parts.is_empty(), "of these parts, with commas between: {}", PARTS.join(", "));
    // It needs two platforms of its own, in one place.
    let throughput = parts.pop_if(|part| *part == "throughput").is_some();
    if !parts.is_empty() {
        let (_temporary, data) = data_folder(arguments.keep.as_deref())?;
        let platform = start(marquee, &data, &REGIONS, rooms.sites.clone()).await?;
        let measured = apart(&platform, rooms, &parts, rounds, &mut results).await;
        platform.stop().await;
        measured?;
    }
    if throughput {
        say("— throughput");
        results.add(throughput::measure(marquee, rounds).await.context("throughput")?)?;
    }
    say(&format!("figures and plots are in {}", arguments.out.display()));
    Ok(())
}

/// The parts that take place in regions that are apart.
async fn apart(
    platform: &Platform,
    rooms: &Rooms,
    parts: &[&str],
    rounds: usize,
    results: &mut Results,
) -> anyhow::Result<()> {
    let ground = Ground::prepare(platform, rooms).await.context("the ground")?;
    for part in parts {
        say(&format!("— {part}"));
        let measured: anyhow::Result<Part> = match *part {
            "latency" => latency::measure(&ground, rounds).await,
            "moves" => moves::measure(&ground, rounds).await,
            "catch-up" => catch_up::measure(&ground, rounds).await,
            "failover" => failover::measure(&ground, rounds).await,
            _ => {
                ground.register(REGISTERED).await?;
                failover::measure(&ground, rounds).await
            }
        };
        results.add(measured.context((*part).to_owned())?)?;
    }
    Ok(())
}

/// A platform of these regions, without limits.
async fn start(marquee: &Path, data: &Path, regions: &[&str], sites: Sites) -> anyhow::Result<Platform> {
    let options = Options {
        regions: regions.iter().map(|region| region.parse()).collect::<Result<_, _>>()?,
        data: data.to_owned(),
        program: marquee.to_owned(),
        hold_secs: Some(HOLD_SECS),
        no_limits: true,
        no_homecoming: true,
        sites,
        patience: Duration::from_secs(180),
        stop: CancellationToken::new(),
        ..Options::default()
    };
    Platform::start(options).await
}
