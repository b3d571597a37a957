//! Planned moves: how long nobody is served while a show that sells changes hands; how many moves a second an
//! operator gets; how long a region takes to drain.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use common::ShowId;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use marquee::api::Api;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::HOT;
use super::ground::{Ground, region, signed_in};
use super::report::{Part, ms};
use crate::rooms::REGIONS;
use crate::say;

/// Customers of the show that moves, each of whom reserves and cancels without a pause.
const BUYERS: usize = 32;
/// Moves in one round.
const MOVES: usize = 4;
/// From one move to the next.
const EVERY: Duration = Duration::from_secs(3);
const ORDERS_AT_ONCE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(120);

pub async fn measure(ground: &Ground, rounds: usize) -> anyhow::Result<Part> {
    ground.sign_in_again().await?;
    let mut part = Part::new("moves", "Planned moves, 80 ms between regions");
    under_load(ground, rounds, &mut part).await?;
    at_once(ground, rounds, &mut part).await?;
    drained(ground, rounds, &mut part).await?;
    Ok(part)
}

/// One answered request: when it was sent, when it was answered.
struct Answered {
    sent: Instant,
    at: Instant,
}

#[derive(Default)]
struct Sales {
    answered: Mutex<Vec<Answered>>,
    failed: Mutex<BTreeMap<String, usize>>,
}

async fn under_load(ground: &Ground, rounds: usize, part: &mut Part) -> anyhow::Result<()> {
    let show = *ground.make_shows(0, 1, (26, 50)).await?.first().context("no show")?;
    let admin = signed_in(&ground.platform, &ground.gateways[0]).await?;
    let (sales, stop) = (Sales::default(), CancellationToken::new());
    let (mut pauses, mut waits, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    let moves = async {
        tokio::time::sleep(EVERY).await;
        for round in 0..rounds {
            let (mut pause, mut wait) = (Vec::new(), Vec::new());
            let begun = Instant::now();
            for no in 0..MOVES {
                let to = (1 + round * MOVES + no) % REGIONS.len();
                let ordered = Instant::now();
                admin.post(&format!("/v1/shows/{show}/moves"), &json!({"to": REGIONS[to]})).await?;
                tokio::time::sleep(EVERY).await;
                let answered = sales.answered.lock().expect("no code panics while holding it");
                let around = answered.iter().filter(|sale| sale.at >= ordered);
                pause.push(longest_gap(around.clone().map(|sale| sale.at)));
                wait.push(around.map(|sale| ms(sale.at - sale.sent)).fold(0.0, f64::max));
            }
            let answered = sales.answered.lock().expect("no code panics while holding it");
            let of_round = answered.iter().filter(|sale| sale.at >= begun).count();
            rates.push(of_round as f64 / begun.elapsed().as_secs_f64());
            pauses.push(super::report::median(&pause));
            waits.push(wait.into_iter().fold(0.0, f64::max));
        }
        stop.cancel();
        anyhow::Ok(())
    };
    let buyers = join_all((0..BUYERS).map(|no| buy(ground, show, no, &sales, &stop)));
    let (moved, _) = tokio::join!(moves, buyers);
    moved?;
    let failed = sales.failed.into_inner().expect("no code panics while holding it");
    part.add(format!("pause of a move under load, median of {MOVES}"), "ms", pauses);
    part.at_most(1_000.0);
    part.add("longest that a request waited", "ms", waits);
    part.at_most(1_000.0);
    part.add("requests failed", "requests", vec![failed.values().sum::<usize>() as f64]);
    part.at_most(0.0);
    part.add(format!("load: {BUYERS} customers without a pause"), "requests/s", rates);
    for (why, count) in failed {
        part.note(format!("failed: {count} × {why}"));
    }
    Ok(())
}

/// Reserves and cancels, at all gateways by turns.
async fn buy(ground: &Ground, show: ShowId, no: usize, sales: &Sales, stop: &CancellationToken) {
    let place = no % REGIONS.len();
    let note = |sent: Instant, why: Option<String>| match why {
        None => {
            let answered = Answered { sent, at: Instant::now() };
            sales.answered.lock().expect("no code panics while holding it").push(answered);
        }
        Some(why) => {
            let mut failed = sales.failed.lock().expect("no code panics while holding it");
            *failed.entry(why).or_default() += 1;
        }
    };
    while !stop.is_cancelled() {
        let sent = Instant::now();
        let reserved = ground.reserve(place, no, show, &ground.key()).await;
        note(sent, (!reserved.ok).then_some(reserved.why));
        if reserved.id.is_empty() {
            continue;
        }
        let (sent, path) = (Instant::now(), format!("/v1/reservations/{}/cancel", reserved.id));
        let canceled = ground.ask(place, no, &path, &json!({}), &ground.key()).await;
        note(sent, (!canceled.ok).then_some(canceled.why));
    }
}

/// In milliseconds; the times come in their order.
fn longest_gap(times: impl Iterator<Item = Instant>) -> f64 {
    let (mut last, mut longest) = (None, 0.0_f64);
    for time in times {
        if let Some(last) = last.replace(time) {
            longest = longest.max(ms(time - last));
        }
    }
    longest
}

/// All shows to one region by single orders, until it leads them all.
async fn at_once(ground: &Ground, rounds: usize, part: &mut Part) -> anyhow::Result<()> {
    let mut rates = Vec::new();
    ground.give_all_to(0).await?;
    for round in 0..rounds {
        ground.rest().await?;
        let (from, to) = (round % REGIONS.len(), (round + 1) % REGIONS.len());
        let admin = signed_in(&ground.platform, &ground.gateways[from]).await?;
        let began = Instant::now();
        let orders = stream::iter(ground.shows.iter().copied()).map(|show| order(&admin, show, REGIONS[to]));
        let epochs: Vec<(ShowId, u64)> = orders.buffer_unordered(ORDERS_AT_ONCE).try_collect().await?;
        ground.led(to, &epochs).await?;
        rates.push(HOT as f64 / began.elapsed().as_secs_f64());
        say(&format!("{HOT} shows moved to {} after {:.1} s", REGIONS[to], began.elapsed().as_secs_f64()));
    }
    part.add(format!("moves a second: {HOT} shows, {ORDERS_AT_ONCE} orders at once"), "moves/s", rates);
    Ok(())
}

async fn order(admin: &Api, show: ShowId, to: &str) -> anyhow::Result<(ShowId, u64)> {
    let moved = admin.post(&format!("/v1/shows/{show}/moves"), &json!({ "to": to })).await?;
    Ok((show, moved["epoch"].as_u64().context("a move without an epoch")?))
}

/// A region is drained, until others lead all its shows.
async fn drained(ground: &Ground, rounds: usize, part: &mut Part) -> anyhow::Result<()> {
    let mut rates = Vec::new();
    for round in 0..rounds {
        let from = round % REGIONS.len();
        ground.give_all_to(from).await?;
        ground.rest().await?;
        let (name, elsewhere) = (region(from), &ground.gateways[(from + 1) % REGIONS.len()]);
        let admin = signed_in(&ground.platform, elsewhere).await?;
        // Some may have gone home meanwhile.
        let owned = ground.view.owned_by(&name).len();
        ensure!(owned > HOT / 4, "{name} owns {owned} shows only");
        let began = Instant::now();
        admin.post(&format!("/v1/regions/{name}/drain"), &json!({})).await?;
        while !ground.view.owned_by(&name).is_empty() {
            ensure!(began.elapsed() < PATIENCE, "{name} is not drained");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for to in (0..REGIONS.len()).filter(|to| *to != from) {
            let theirs: Vec<(ShowId, u64)> = ground.view.owned_by(&region(to));
            ground.led(to, &theirs).await?;
        }
        rates.push(owned as f64 / began.elapsed().as_secs_f64());
        say(&format!("{name} was drained of {owned} shows after {:.1} s", began.elapsed().as_secs_f64()));
        admin.post(&format!("/v1/regions/{name}/undrain"), &json!({})).await?;
    }
    part.add("drain of a region, by default 50 shows a second", "moves/s", rates);
    Ok(())
}
