//! The whole platform, end to end, through HTTP only: one test starts three regions with the launcher that
//! `marquee up` uses and walks journeys through them, in order; another starts a single region whose
//! reservations expire within seconds.
//!
//! `E2E_JOURNEYS=tokens,roles` walks only these; `E2E_SEED=n` repeats a run's choices;
//! `E2E_KEEP=dir` keeps the data there and goes on with what an earlier run left;
//! `UPDATE_SNAPSHOTS=1` rewrites the snapshots; `E2E_PROGRAM=file` is run instead of the program that was built with
//! the tests. (`MARQUEE_…` is the configuration of services.)
#![allow(clippy::unwrap_used, reason = "a test may")]

mod audit;
mod bad_input;
mod bad_values;
mod catalogue;
mod check_in;
mod client;
mod contention;
mod contract;
mod erasure;
mod expiry;
mod given_up;
mod journals;
mod logs;
mod operations;
mod orders;
mod payments;
mod purchase;
mod readme;
mod refunds;
mod roles;
mod routes;
mod schema;
mod selling;
mod services;
mod stage;
mod tokens;
mod world;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use marquee::launcher::{Options, Platform};
use world::{World, step, until};

type Walk = fn(Arc<World>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! journeys {
    ($($name:literal => $walk:path,)*) => {
        &[$(($name, |world| Box::pin($walk(world)))),*]
    };
}

/// In this order: the two before the last break things on purpose, and the last looks at what is left.
const JOURNEYS: &[(&str, Walk)] = journeys! {
    "catalogue" => catalogue::walk,
    "purchase" => purchase::walk,
    "selling" => selling::walk,
    "check-in" => check_in::walk,
    "refunds" => refunds::walk,
    "payments" => payments::walk,
    "roles" => roles::walk,
    "contention" => contention::walk,
    "tokens" => tokens::walk,
    "audit" => audit::walk,
    "orders" => orders::walk,
    "routes" => routes::walk,
    "contract" => contract::walk,
    "bad-input" => bad_input::walk,
    "readme" => readme::walk,
    "schema" => schema::walk,
    "erasure" => erasure::walk,
    "services" => services::walk,
    "operations" => operations::walk,
    "given-up" => given_up::walk,
    "journals" => journals::walk,
};

/// Platforms start one after the other: two at once would only make each other's deadlines tight.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn options(regions: &[&str], data: &Path, demo: bool, hold_secs: Option<u64>) -> Options {
    Options {
        regions: regions.iter().map(|r| r.parse().unwrap()).collect(),
        demo,
        hold_secs,
        data: data.to_owned(),
        program: program(),
        ..Options::default()
    }
}

/// What is tested: the program as it was built with the tests, or another, such as a release build to be measured.
fn program() -> PathBuf {
    std::env::var_os("E2E_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_marquee").into()).into()
}

fn seed() -> u64 {
    std::env::var("E2E_SEED").ok().map_or_else(rand::random, |s| s.parse().expect("E2E_SEED: a number"))
}

async fn start(options: Options, seed: u64) -> World {
    let data = options.data.clone();
    let started = Instant::now();
    let platform =
        Platform::start(options).await.unwrap_or_else(|e| panic!("the platform did not start: {e:#}"));
    step(&format!("platform started in {:?}, seed {seed}", started.elapsed()));
    World::new(platform, &data, seed)
}

/// Stops it and sees that every process it had is gone.
async fn stop(world: &World) {
    let pids: Vec<_> =
        world.run().processes.into_iter().map(|p| (format!("{} of {}", p.name, p.region), p.pid)).collect();
    assert!(!pids.is_empty(), "run.json names no process");
    world.platform.stop().await;
    for (name, pid) in pids {
        until(&format!("the end of {name} ({pid})"), Duration::from_secs(10), async || {
            (!alive(pid)).then_some(())
        })
        .await;
    }
    step("stopped; none of its processes is left");
}

/// Whether a process of this id runs (a zombie does not).
fn alive(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'),
        Err(_) if cfg!(target_os = "linux") => false,
        Err(_) => rustix::process::Pid::from_raw(pid.cast_signed())
            .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()),
    }
}

/// A data folder: a new one that goes with the test, or the one that is to be kept.
struct DataFolder {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl DataFolder {
    fn new(name: &str) -> Self {
        if let Some(kept) = std::env::var_os("E2E_KEEP") {
            return Self { path: Path::new(&kept).join(name), _temporary: None };
        }
        let temporary = tempfile::Builder::new().prefix("marquee-test-").tempdir().unwrap();
        Self { path: temporary.path().to_owned(), _temporary: Some(temporary) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_regions() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let folder = DataFolder::new("three-regions");
    let world = start(options(&["eu", "us", "ap"], &folder.path, true, None), seed()).await;
    let world = Arc::new(world);
    let wanted = std::env::var("E2E_JOURNEYS").ok();
    let chosen = |name: &str| wanted.as_ref().is_none_or(|w| w.split(',').any(|part| part == name));
    let mut failed = Vec::new();
    for (name, walk) in JOURNEYS.iter().filter(|(name, _)| chosen(name)) {
        step(&format!("journey: {name}"));
        let started = Instant::now();
        // A task of its own: its panic ends this journey, and the platform is still stopped properly.
        if tokio::spawn(walk(world.clone())).await.is_err() {
            failed.push(*name);
        }
        let verdict = if failed.last() == Some(name) { "FAILED" } else { "passed" };
        step(&format!("journey: {name} {verdict} in {:?}", started.elapsed()));
    }
    step(&format!("{} answers of 429 were waited out", client::WAITED_OUT.load(Ordering::Relaxed)));
    if !failed.is_empty() {
        show_logs(&folder.path);
    }
    stop(&world).await;
    assert!(failed.is_empty(), "journeys failed: {failed:?} (seed {}); see the panics above", world.seed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_region_where_holds_expire() {
    let _turn = ONE_AT_A_TIME.lock().await;
    if std::env::var("E2E_JOURNEYS").is_ok_and(|wanted| !wanted.split(',').any(|w| w == "expiry")) {
        return;
    }
    let folder = DataFolder::new("one-region");
    let world = Arc::new(start(options(&["solo"], &folder.path, false, Some(2)), seed()).await);
    let walked = tokio::spawn(expiry::walk(world.clone())).await;
    if walked.is_err() {
        show_logs(&folder.path);
    }
    stop(&world).await;
    assert!(walked.is_ok(), "the journey failed (seed {}); see the panic above", world.seed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_region_whose_logs_are_read() {
    let _turn = ONE_AT_A_TIME.lock().await;
    if std::env::var("E2E_JOURNEYS").is_ok_and(|wanted| !wanted.split(',').any(|w| w == "logs")) {
        return;
    }
    let folder = DataFolder::new("logs");
    logs::walk(&folder.path).await;
}

/// The errors that services logged, since their data folder goes with the test.
fn show_logs(data: &Path) {
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "log") {
                let log = std::fs::read_to_string(&path).unwrap_or_default();
                let errors: Vec<&str> =
                    log.lines().filter(|l| l.contains("\"ERROR\"") || l.contains("panicked")).collect();
                for line in errors.iter().rev().take(20).rev() {
                    step(&format!("{}: {line}", path.strip_prefix(data).unwrap_or(&path).display()));
                }
            }
        }
    }
}
