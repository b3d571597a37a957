//! What each command does.

mod archives;
mod operators;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use common::RegionName;
use marquee::api::Api;
use marquee::import;
use marquee::launcher::{self, Control, Options, Platform, Progress, Run};
use marquee::regions;
use marquee::services;

use crate::benching::{self, write_json};
use crate::cli::{Command, Ctl, Database, Databases, GlobalOrder, GlobalService, Import, Order, Up};

pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(up) => platform(up).await,
        Command::Ctl(ctl) => control(ctl).await,
        Command::Migrate { kind } => migrate(kind).await,
        Command::Import { what: Import::Movies { file, data, url } } => {
            import_movies(&file, &data, url).await
        }
        Command::Bench { what } => benching::run(what).await,
        Command::Verify { databases, json } => verify(databases, json).await,
        Command::AcceptStore { region, databases } => accept_store(&region, databases).await,
        Command::Certificates { regions, out } => certificates(&regions, &out),
        Command::Archive(order) => archives::run(order).await,
        Command::Global(GlobalService { config, order: None }) => services::global(config.as_deref()).await,
        Command::Global(GlobalService { config, order: Some(GlobalOrder::RotateKeys { drop_others }) }) => {
            rotate_keys(config.as_deref(), drop_others).await
        }
        Command::Regional(service) => services::regional(service.config.as_deref()).await,
        Command::Raft(service) => services::raft(service.config.as_deref()).await,
        Command::Gateway(service) => services::gateway(service.config.as_deref()).await,
        Command::TestProvider(service) => services::test_provider(service.config.as_deref()).await,
        Command::Guard { .. } => anyhow::bail!("the guard runs before all else"),
    }
}

fn certificates(regions: &[RegionName], out: &Path) -> anyhow::Result<()> {
    for folder in launcher::make_certificates(regions, out)? {
        println!("{}", folder.display());
    }
    Ok(())
}

async fn platform(up: Up) -> anyhow::Result<()> {
    let options = Options {
        regions: up.regions,
        data: up.data,
        port_base: up.port_base,
        demo: !up.empty,
        reset: up.reset,
        hold_secs: up.hold_secs,
        no_limits: up.no_limits,
        quiet: false,
        log_format: up.logs.into(),
        ..Options::default()
    };
    let stop = options.stop.clone();
    tokio::spawn(async move {
        common::http::stop_signal().await;
        stop.cancel();
        common::http::stop_signal().await;
        // Impatience: whatever still runs dies with this process.
        std::process::exit(130);
    });
    let (stop, started) = (options.stop.clone(), Instant::now());
    let platform = match Platform::start(options).await {
        Err(_) if stop.is_cancelled() => {
            eprintln!("stopped before everything was up");
            return Ok(());
        }
        started => started?,
    };
    eprintln!("ready after {:.1} s", started.elapsed().as_secs_f64());
    launcher::print_report(&platform.run(), platform.data());
    stop.cancelled().await;
    eprintln!("stopping …");
    platform.stop().await;
    eprintln!("stopped");
    Ok(())
}

async fn control(ctl: Ctl) -> anyhow::Result<()> {
    let local = || Control::of(&ctl.data);
    let (verb, parts) = match &ctl.order {
        Order::Status => {
            for state in local()?.status().await? {
                let pid = state.pid.map_or_else(|| "not running".to_owned(), |pid| pid.to_string());
                println!("{:<17} {:<9} {pid}", state.region, state.service);
            }
            return Ok(());
        }
        Order::Kill(target) => ("killed", local()?.kill(&target.place, target.service.as_deref()).await?),
        Order::Start(target) => ("started", local()?.start(&target.place, target.service.as_deref()).await?),
        Order::Move { .. }
        | Order::Drain { .. }
        | Order::Undrain { .. }
        | Order::Restored { .. }
        | Order::GiveUp { .. }
        | Order::Ownership { .. }
        | Order::Cluster => return operators::order(&ctl).await,
    };
    if parts.is_empty() {
        println!("nothing to do");
    }
    for part in parts {
        println!("{verb} {part}");
    }
    Ok(())
}

async fn migrate(kind: Database) -> anyhow::Result<()> {
    let url = std::env::var("MARQUEE_POSTGRES_URL")
        .context("set MARQUEE_POSTGRES_URL; a URL with a password has no place on a command line")?;
    let schema = match kind {
        Database::Global => migrations::Schema::Global,
        Database::Regional => migrations::Schema::Regional,
    };
    match schema.migrate(&url).await? {
        0 => println!("the schema is up to date"),
        applied => println!("{applied} migrations applied"),
    }
    Ok(())
}

async fn accept_store(region: &RegionName, databases: Databases) -> anyhow::Result<()> {
    let stores = regions::stores(&databases.data, databases.databases.as_deref())?;
    let store = stores.iter().find(|store| store.region == region.as_str());
    let store = store.with_context(|| format!("no database of `{region}` is named"))?;
    regional::replicas::recovery::accept(&store.pool).await?;
    println!("declared; the region's processes act upon it within seconds");
    Ok(())
}

/// Breaches shown; the file has them all.
const SHOWN: usize = 200;

async fn verify(databases: Databases, json: Option<PathBuf>) -> anyhow::Result<()> {
    let stores = regions::stores(&databases.data, databases.databases.as_deref())?;
    let progress = Progress::new(regional::verify::size(&stores).await?, false);
    let report = regional::verify::verify(&stores, |breaches| {
        progress.tick(1);
        for breach in breaches {
            progress.message(&format!("{} {} {}", breach.region, breach.show, breach.rule));
        }
    })
    .await;
    progress.finish();
    let report = report?;
    write_json(json.as_deref(), &report)?;
    let columns = ["region", "shows", "archived", "entries", "behind", "breaches"];
    println!("{}", columns.map(|column| format!("{column:>10}")).join(" "));
    for (region, of) in &report.regions {
        let counts = [of.shows, of.archived, of.entries, of.behind, of.breaches];
        println!("{region:>10} {}", counts.map(|count| format!("{count:>10}")).join(" "));
    }
    println!("\n{} shows compared between regions", report.compared);
    if report.regions.values().any(|region| region.behind > 0) {
        println!("behind: their tables have not followed the journal yet, and were not compared");
    }
    for breach in report.breaches.iter().take(SHOWN) {
        let seq = breach.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
        let invariant = breach.rule.invariant().unwrap_or("--");
        println!(
            "{invariant} {:<12} {} {} {seq}: {}",
            breach.rule, breach.region, breach.show, breach.detail
        );
    }
    match report.breaches.len() {
        0 => Ok(()),
        many => anyhow::bail!("{many} breaches"),
    }
}

async fn rotate_keys(config: Option<&Path>, drop_others: bool) -> anyhow::Result<()> {
    let kid = global::rotate_keys(&common::config::load(config)?, drop_others).await?;
    println!("{kid}");
    Ok(())
}

async fn import_movies(file: &Path, data: &Path, url: Option<String>) -> anyhow::Result<()> {
    let content = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let account = given("MARQUEE_USERNAME").zip(given("MARQUEE_PASSWORD"));
    let (url, (username, password)) = match url {
        Some(url) => (url, account.context("set MARQUEE_USERNAME and MARQUEE_PASSWORD to an admin's")?),
        None => {
            let run = Run::read(data)?;
            let url = run.gateways.values().next().cloned().context("the platform has no gateway")?;
            let admin = run.account("admin").map(|a| (a.username.clone(), a.password.clone()));
            (url, account.or(admin).context("run.json names no admin")?)
        }
    };
    let api = Api::new(&url)?.signed_in(&username, &password).await?;
    let progress = Progress::new(0, false);
    let summary = import::movies(&api, &content, &progress).await;
    progress.finish();
    let summary = summary?;
    for bad in &summary.bad {
        println!(
            "line {}: {} ({})",
            bad.line,
            bad.reason,
            if bad.title.is_empty() { "no title" } else { &bad.title }
        );
    }
    println!();
    for (outcome, rows) in &summary.outcomes {
        println!("{outcome:<12} {rows:>7}");
    }
    println!("{:<12} {:>7}", "rows", summary.outcomes.values().sum::<usize>());
    anyhow::ensure!(summary.kept() > 0, "no row was good");
    Ok(())
}
