//! `make sim`: many seeds over all cores, or one that is told in full. The simulation itself knows no thread
//! and no clock; they are here.
#![expect(clippy::print_stdout, reason = "this talks to a person")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use simulation::{Counts, Run, run};

/// Of a failing seed's trace, so many last lines are printed.
const TAIL: usize = 60;

fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SEED") {
        return replay(seed);
    }
    many(number("FIRST").unwrap_or(1), number("SEEDS").unwrap_or(2_000))
}

fn replay(seed: u64) -> ExitCode {
    let run = run(seed, None, true);
    for line in &run.words {
        println!("{line}");
    }
    println!("{} events, trace {:016x}", run.events, run.trace);
    told(&run)
}

fn told(run: &Run) -> ExitCode {
    match &run.broken {
        None => {
            println!("seed {}: sound; every show served {:?} ms after healing", run.seed, run.served_after);
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!(
                "seed {}: {} broken at {} ms: {}",
                run.seed, violation.invariant, violation.at, violation.why
            );
            ExitCode::FAILURE
        }
    }
}

/// Of all seeds together.
#[derive(Default)]
struct Found {
    counts: Counts,
    failed: Vec<(u64, String)>,
    slowest: u64,
}

fn many(first: u64, seeds: u64) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {per_sec}, {eta} left");
    let bar = ProgressBar::new(seeds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let (next, events) = (AtomicU64::new(first), AtomicU64::new(0));
    let found: Mutex<Found> = Mutex::default();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let run = run(seed, None, false);
                    events.fetch_add(run.events, Ordering::Relaxed);
                    bar.inc(1);
                    let Ok(mut found) = found.lock() else { return };
                    found.counts.take_in(&run.counts);
                    found.slowest = found.slowest.max(run.served_after.unwrap_or(0));
                    if let Some(violation) = &run.broken {
                        let why =
                            format!("{} at {} ms: {}", violation.invariant, violation.at, violation.why);
                        found.failed.push((seed, why));
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let took = began.elapsed().as_secs_f64();
    let Found { counts, mut failed, slowest } = found.into_inner().unwrap_or_default();
    for line in counts.lines() {
        println!("{line}");
    }
    for missing in counts.missing() {
        println!("   never: {missing}");
    }
    let (rate, events) = (seeds as f64 / took, events.into_inner());
    println!("{seeds} seeds, {events} events in {took:.0} s: {rate:.0} seeds/s on {cores} cores");
    println!("after healing, every show served within {slowest} ms");
    failed.sort_unstable();
    let Some((seed, _)) = failed.first() else { return ExitCode::SUCCESS };
    for (seed, why) in &failed {
        println!("seed {seed}: {why}");
    }
    println!("{} seeds failed; the first of them ends so:", failed.len());
    let run = run(*seed, None, true);
    for line in run.words.iter().skip(run.words.len().saturating_sub(TAIL)) {
        println!("{line}");
    }
    told(&run);
    println!("replay: make sim SEED={seed}");
    ExitCode::FAILURE
}
