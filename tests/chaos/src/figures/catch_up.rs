//! A region that was away: after what time it holds what the others wrote meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use common::ShowId;
use futures::future::join_all;
use marquee::launcher::Place;
use serde_json::json;

use super::ground::{Ground, region};
use super::report::Part;
use crate::rooms::REGIONS;
use crate::say;

/// Written while the region is away.
const ENTRIES: usize = 10_000;
/// Shows that sell, one customer each: every command is an entry of its own.
const SHOWS: usize = 200;
const OWNER: usize = 0;
const AWAY: usize = 1;
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);

pub async fn measure(ground: &Ground, rounds: usize) -> anyhow::Result<Part> {
    let shows = ground.make_shows(OWNER, SHOWS, (10, 10)).await?;
    let (mut whole, mut ready, mut behind) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        ground.sign_in_again().await?;
        ground.rest().await?;
        let before = held(ground, OWNER, &shows).await?;
        ground.lose(AWAY).await?;
        write(ground, &shows).await?;
        let wanted = held(ground, OWNER, &shows).await?;
        ground.rest().await?;
        let (began, away) = (Instant::now(), Place::Region(region(AWAY)));
        let started = ground.platform.start_part(&away, None);
        let caught_up = async {
            while held(ground, AWAY, &shows).await.unwrap_or(0) < wanted {
                ensure!(began.elapsed() < PATIENCE, "{} does not catch up", REGIONS[AWAY]);
                tokio::time::sleep(POLL).await;
            }
            Ok(began.elapsed())
        };
        let started = async {
            started.await?;
            anyhow::Ok(began.elapsed())
        };
        let (up, caught_up) = tokio::join!(started, caught_up);
        let (up, caught_up) = (up?, caught_up?);
        say(&format!("{} entries: ready after {up:.1?}, whole after {caught_up:.1?}", wanted - before));
        behind.push((wanted - before) as f64);
        whole.push(caught_up.as_secs_f64());
        ready.push(up.as_secs_f64());
        ground.bring_back(AWAY).await?;
    }
    let mut part =
        Part::new("catch-up", format!("A region comes back that lacks {ENTRIES} entries of {SHOWS} shows"));
    part.add("entries that it lacked", "entries", behind);
    part.add("from its start until it holds them all", "s", whole);
    part.add("from its start until all its processes are ready", "s", ready);
    Ok(part)
}

/// How many entries a region's store holds of the shows.
async fn held(ground: &Ground, place: usize, shows: &[ShowId]) -> anyhow::Result<u64> {
    let ids: Vec<uuid::Uuid> = shows.iter().map(|show| show.0).collect();
    let select = "SELECT coalesce(sum(seq), 0)::bigint FROM show_head WHERE show_id = ANY($1)";
    let held: i64 = ground.stores[place].pool.get().await?.query_one(select, &[&ids]).await?.get(0);
    Ok(u64::try_from(held)?)
}

/// Reserves and cancels until there are enough entries.
async fn write(ground: &Ground, shows: &[ShowId]) -> anyhow::Result<()> {
    let (begun, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let customer = async |no: usize, show: ShowId| {
        while begun.fetch_add(2, Ordering::Relaxed) < ENTRIES {
            let reserved = ground.reserve(OWNER, no, show, &ground.key()).await;
            let path = format!("/v1/reservations/{}/cancel", reserved.id);
            if !reserved.ok || !ground.ask(OWNER, no, &path, &json!({}), &ground.key()).await.ok {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    join_all(shows.iter().enumerate().map(|(no, show)| customer(no, *show))).await;
    let failed = failed.into_inner();
    ensure!(failed < ENTRIES / 20, "{failed} commands failed while the region was away");
    Ok(())
}
