//! One run, from the first process to the judgement.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use marquee::launcher::{Options, Platform};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::arguments::Arguments;
use crate::faults::{FILL_DISK, Planned, schedule};
use crate::inject::{self, Injector};
use crate::journals;
use crate::judge::{Judgement, judge, notices};
use crate::load::Load;
use crate::record::{Kind, Outcome};
use crate::report::{Happened, Told, seen};
use crate::rooms::{Apart, REGIONS, ROUND_TRIPS, Rooms};
use crate::say;
use crate::stage::Stage;
use crate::wan;

/// Seats that nobody pays for are free again after this.
const HOLD_SECS: u64 = 20;
/// What the protocol promises after all faults are over.
const HEALED_WITHIN: Duration = Duration::from_secs(60);
/// Payments, refunds and read models come to rest within this; the reconciler looks once a minute.
const REST_WITHIN: Duration = Duration::from_secs(120);
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Whether S1 to S7 held and everything came back.
pub fn run(marquee: &Path, arguments: &Arguments, apart: Apart) -> anyhow::Result<bool> {
    // A small disk of its own takes a mount.
    let possible = |kind: &str| apart == Apart::Namespaces || kind != FILL_DISK;
    let wanted = |kind: &str| arguments.only.as_deref().is_none_or(|only| kind.starts_with(only));
    let planned = schedule(arguments.seed, arguments.lasting, |kind| wanted(kind) && possible(kind));
    say(&format!(
        "seed {}, {} faults in {} s; again with --seed {}",
        arguments.seed,
        planned.len(),
        arguments.lasting.as_secs(),
        arguments.seed
    ));
    // Before any other thread, since it looks into other namespaces.
    let rooms = Rooms::open(apart, ROUND_TRIPS)?;
    marquee::bench::http::watch::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(within(marquee, arguments, &planned, rooms));
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

async fn within(
    marquee: &Path,
    arguments: &Arguments,
    planned: &[Planned],
    rooms: Rooms,
) -> anyhow::Result<bool> {
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        common::http::stop_signal().await;
        say("stopping …");
        asked.cancel();
        common::http::stop_signal().await;
        // Impatience: the kernel clears away what is left.
        std::process::exit(130);
    });
    let (_temporary, data) = data_folder(arguments.keep.as_deref())?;
    match rooms.apart {
        Apart::Namespaces => inject::small_disk(&data, arguments.lasting)?,
        Apart::Proxies => wan::proxy::start(&rooms.wan, &rooms.sites, data.clone()),
    }
    let options = Options {
        regions: REGIONS.iter().map(|region| region.parse()).collect::<Result<_, _>>()?,
        data: data.clone(),
        program: marquee.to_owned(),
        hold_secs: Some(HOLD_SECS),
        no_limits: true,
        sites: rooms.sites.clone(),
        patience: Duration::from_secs(180),
        stop: stop.clone(),
        ..Options::default()
    };
    let started = Instant::now();
    let platform = match Platform::start(options).await {
        Ok(platform) => platform,
        Err(error) => {
            put_away(rooms.apart, &data);
            return Err(error);
        }
    };
    say(&format!("the platform is up after {:.0} s", started.elapsed().as_secs_f64()));
    let done = tokio::select! {
        done = on_platform(&platform, arguments, planned, &rooms) => done,
        () = stop.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    rooms.wan.change(|links| links.heal());
    platform.stop().await;
    put_away(rooms.apart, &data);
    done
}

fn put_away(apart: Apart, data: &Path) {
    if apart == Apart::Namespaces {
        inject::remove_small_disk(data);
    }
}

/// The platform's folder: `keep`, or one that is removed with the first value.
pub fn data_folder(keep: Option<&Path>) -> anyhow::Result<(TempDir, PathBuf)> {
    let temporary = tempfile::Builder::new().prefix("marquee-chaos-").tempdir_in("/var/tmp")?;
    let data = keep.map_or_else(|| temporary.path().join("data"), Path::to_owned);
    // Servers run as other users and pass through here.
    for folder in [temporary.path(), &data, &data.join("servers")] {
        std::fs::create_dir_all(folder)?;
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    }
    Ok((temporary, data))
}

async fn on_platform(
    platform: &Platform,
    arguments: &Arguments,
    planned: &[Planned],
    rooms: &Rooms,
) -> anyhow::Result<bool> {
    let run = platform.run();
    let stage = Stage::build(&run).await.context("the stage")?;
    say(&format!("{} shows, {} customers", stage.shows.len(), stage.customers.len()));
    let operator = stage.operator.clone();
    let mut injector = Injector::new(platform.clone(), rooms.wan.clone(), rooms.sites.clone(), operator)?;
    let load = Load::new(stage, arguments.seed)?;
    let closing = CancellationToken::new();
    let _closes = closing.clone().drop_guard();
    tokio::spawn(load.clone().go_on(arguments.rate, closing.clone()));
    tokio::spawn(load.clone().stay_signed_in(closing.clone()));
    tokio::spawn(tell(load.clone(), closing.clone()));

    let mut happened: Vec<Happened> = Vec::new();
    for (no, next) in planned.iter().enumerate() {
        let wait = next.at.saturating_sub(load.record.now());
        tokio::time::sleep(wait).await;
        say(&format!(
            "{:4.0} s  {} ({} of {})",
            load.record.now().as_secs_f64(),
            next.fault,
            no + 1,
            planned.len()
        ));
        happened.push(one(&mut injector, &load, next).await);
    }
    tokio::time::sleep(arguments.lasting.saturating_sub(load.record.now())).await;
    let healed_after = all_serve(&load).await;
    let sold_for = load.record.now();
    closing.cancel();
    let unsettled = load.settle_all(SETTLED_WITHIN).await;
    say(&format!("customers have gone; {unsettled} outcomes are unknown still"));
    let attempts = load.record.all();
    let stores = journals::stores(&run)?;
    let deadline = Instant::now() + REST_WITHIN;
    let mut judgement: Judgement;
    loop {
        judgement = judge(&run, &stores, &attempts).await?;
        if judgement.wrong.is_empty() || Instant::now() >= deadline {
            break;
        }
        say(&format!("{} things are not right yet, such as {}", judgement.wrong.len(), judgement.wrong[0]));
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let notices = notices(judgement.history.clone());
    let told = Told {
        apart: rooms.apart,
        seed: arguments.seed,
        lasting: arguments.lasting,
        sold_for,
        rate: arguments.rate,
        left_out: load.left_out.load(std::sync::atomic::Ordering::Relaxed),
        attempts: &attempts,
        faults: &happened,
        packets: rooms.wan.counts(),
        entries: judgement.entries,
        compared: judgement.compared,
        unsettled,
        wrong: &judgement.wrong,
        notices,
        healed_after,
    };
    told.write_files(&arguments.out, &judgement.history)?;
    eprintln!("{}", told.to_markdown());
    say(&format!("the report is {}", arguments.out.join("report.md").display()));
    let sold = attempts.iter().any(|attempt| matches!(attempt.outcome, Outcome::Ok { .. }));
    if !sold {
        bail!("nothing was sold, so nothing was tested");
    }
    Ok(judgement.wrong.is_empty() && notices && healed_after.is_some())
}

/// One fault, from its beginning to its end.
async fn one(injector: &mut Injector, load: &Load, planned: &Planned) -> Happened {
    let mut notes = Vec::new();
    // Any region may be asked; the first that answers is as good as another.
    let mut owners = std::collections::BTreeMap::new();
    for place in 0..REGIONS.len() {
        if owners.len() < load.stage.shows.len() {
            owners = load.stage.owners(load.http(), place).await;
        }
    }
    let begun_before = load.record.now();
    let concerned = match injector.begin(planned.fault).await {
        Ok(region) => region,
        Err(error) => {
            notes.push(format!("could not be done: {error:#}"));
            None
        }
    };
    let begun = match planned.fault {
        // These take a while to prepare; customers notice at the end of it.
        crate::faults::Fault::RestoreOlder(_) | crate::faults::Fault::PromoteStandby(_) => load.record.now(),
        _ => begun_before,
    };
    let is_concerned =
        |show| concerned.is_none_or(|region| owners.get(show).is_some_and(|owner| owner == REGIONS[region]));
    let shows = load.stage.shows.iter().filter(|show| is_concerned(show)).copied().collect();
    tokio::time::sleep(planned.lasts.saturating_sub(load.record.now().saturating_sub(begun_before))).await;
    match injector.end(planned.fault).await {
        Ok(surprises) => {
            notes.extend(surprises.into_iter().map(|part| format!("{part} had ended by itself")));
        }
        Err(error) => notes.push(format!("could not be taken back: {error:#}")),
    }
    let ended = load.record.now();
    for note in &notes {
        say(&format!("        {note}"));
    }
    let happened =
        Happened { planned: *planned, name: planned.fault.to_string(), begun, ended, shows, notes };
    let first = seen(&happened, Duration::MAX, &load.record.all()).first;
    let first = first.map_or_else(|| "none yet".to_owned(), |first| format!("{:.1} s", first.as_secs_f64()));
    say(&format!(
        "        taken back after {:.1} s; first success of its {} shows: {first}",
        happened.ended.saturating_sub(begun).as_secs_f64(),
        happened.shows.len(),
    ));
    happened
}

/// Waits until every show has answered through every gateway; how long that took.
async fn all_serve(load: &Load) -> Option<Duration> {
    let began = load.record.now();
    loop {
        let now = load.record.now();
        let wanted = load.stage.shows.len() * load.stage.gateways.len();
        let served: std::collections::BTreeSet<_> = load
            .record
            .all()
            .into_iter()
            .filter(|a| {
                a.start >= began && a.kind != Kind::Look && !matches!(a.outcome, Outcome::Unknown { .. })
            })
            .map(|attempt| (attempt.show, attempt.gateway))
            .collect();
        if served.len() == wanted {
            return Some(now.saturating_sub(began));
        }
        if now.saturating_sub(began) > HEALED_WITHIN {
            say(&format!("only {} of {wanted} shows and gateways serve", served.len()));
            return None;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A line every few seconds.
async fn tell(load: Arc<Load>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(STATUS_EVERY) => {}
        }
        let now = load.record.now();
        let (all, ok) = load.record.since(now.saturating_sub(STATUS_EVERY));
        let secs = STATUS_EVERY.as_secs_f64();
        say(&format!(
            "{:4.0} s  {:4.0} commands a second, {:4.0} ok, {} wait, {} unknown",
            now.as_secs_f64(),
            all as f64 / secs,
            ok as f64 / secs,
            load.waiting().0,
            load.waiting().1
        ));
    }
}
