//! `marquee archive …`.

use std::path::Path;

use anyhow::Context;
use common::ShowId;
use marquee::launcher::Progress;
use marquee::regions;
use regional::archive::{self, Plan, Step};
use regional::verify::Store;

use crate::cli::{Archive, Archives, Databases};

pub async fn run(order: Archive) -> anyhow::Result<()> {
    match order.what {
        None => archive(order).await,
        Some(Archives::Show { file, show: None }) => list(&file),
        Some(Archives::Show { file, show: Some(show) }) => print(&file, show),
        Some(Archives::Restore { file, show, databases }) => restore(&file, show, &databases).await,
        Some(Archives::DropYear { year, databases }) => drop_year(year, &databases).await,
    }
}

fn stores(databases: &Databases) -> anyhow::Result<Vec<Store>> {
    regions::stores(&databases.data, databases.databases.as_deref())
}

async fn archive(order: Archive) -> anyhow::Result<()> {
    let before = order.before.context("--before is required")?;
    let (folder, dry_run, forget_lists) = (order.to, order.dry_run, order.forget_lists);
    let plan = Plan { before, folder, dry_run, forget_lists };
    println!("{:>10} {:>10} {:>10} {:>10} {:>10}", "region", "ended", "archived", "entries", "left");
    let (mut left, mut files) = (Vec::new(), Vec::new());
    for store in stores(&order.databases)? {
        let progress = Progress::new(0, false);
        let outcome = archive::archive(&store, &plan, &mut |step| {
            match step {
                Step::Write(show) => {
                    progress.add_total(1);
                    progress.message(&format!("{} {show}", store.region));
                }
                Step::Removed(_) => progress.tick(1),
                Step::Finish | Step::Verify | Step::Remove(_) => {}
            }
            Ok(())
        })
        .await;
        progress.finish();
        let outcome = outcome?;
        let counts = [outcome.ended, outcome.archived, outcome.entries, outcome.left.len() as u64];
        println!("{:>10} {}", store.region, counts.map(|count| format!("{count:>10}")).join(" "));
        left.extend(outcome.left.into_iter().map(|left| (store.region.clone(), left)));
        files.extend(outcome.files);
    }
    for file in files {
        println!("{}", file.display());
    }
    for (region, left) in &left {
        println!("left in {region}: {}: {}", left.show, left.why);
    }
    let corrupt = left.iter().filter(|(_, left)| left.why.starts_with("corrupt")).count();
    anyhow::ensure!(corrupt == 0, "{corrupt} shows are corrupt; `marquee verify` tells more");
    Ok(())
}

fn list(file: &Path) -> anyhow::Result<()> {
    let contents = archive::read_file(file, |_, _| Ok(()))?;
    for show in &contents.shows {
        println!("{} {} {:>6} entries  {}", show.show, show.starts_at, show.seq, show.title);
    }
    println!("{}: {} shows, {} entries, whole", file.display(), contents.shows.len(), contents.entries);
    Ok(())
}

fn print(file: &Path, wanted: ShowId) -> anyhow::Result<()> {
    let mut entries = 0_u64;
    archive::read_file(file, |show, line| {
        if show.show == wanted {
            let ballot = line.ballot;
            println!(
                "{} {} ({}, {}, {}) {}\n  {}",
                line.seq, line.at, ballot.epoch, ballot.session, ballot.attempt, line.hash, line.events
            );
            entries += 1;
        }
        Ok(())
    })?;
    anyhow::ensure!(entries > 0, "{wanted} is not in {}", file.display());
    println!("{entries} entries; every hash fits");
    Ok(())
}

async fn restore(file: &Path, wanted: ShowId, databases: &Databases) -> anyhow::Result<()> {
    let (mut head, mut lines) = (None, Vec::new());
    let contents = archive::read_file(file, |show, line| {
        if show.show == wanted {
            head = Some(show.clone());
            lines.push(line.clone());
        }
        Ok(())
    })?;
    let head = head.with_context(|| format!("{wanted} is not in {}", file.display()))?;
    let stores = stores(databases)?;
    let store = stores.iter().find(|store| store.region == contents.region);
    let store = store.with_context(|| format!("the file is {}'s, which is not named", contents.region))?;
    archive::restore(store, &head, &lines).await?;
    println!("{wanted} is back in {} with {} entries", store.region, head.seq);
    Ok(())
}

async fn drop_year(year: i16, databases: &Databases) -> anyhow::Result<()> {
    for store in stores(databases)? {
        let dropped = archive::drop_year(&store, year, jiff::Timestamp::now())
            .await
            .with_context(|| store.region.clone())?;
        let locked = dropped.locked.as_secs_f64() * 1e3;
        println!(
            "{:>10} {year}: the journal was locked for {locked:.1} ms; {} shows forgotten",
            store.region, dropped.shows
        );
    }
    Ok(())
}
