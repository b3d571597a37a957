//! What an acknowledgement costs a customer beside the owner, against what no protocol can do without: a message
//! to another region, one flushed write there, and the answer. Both by turns, both from within the owner's region.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use common::ShowId;
use serde_json::json;

use super::ground::Ground;
use super::report::{Part, median, ms, percentile};
use crate::rooms::{REGIONS, within};

/// Pairs in one round.
const PAIRS: usize = 60;
const OWNER: usize = 0;
const FOLLOWER: usize = 1;
/// One small row.
const BARE: &str = "INSERT INTO figures_bare (n) VALUES ($1)";

/// In milliseconds.
struct Seen {
    bare: Vec<f64>,
    reservation: Vec<f64>,
}

pub async fn measure(ground: &Ground, rounds: usize) -> anyhow::Result<Part> {
    let show = *ground.make_shows(OWNER, 1, (26, 50)).await?.first().context("no show")?;
    ground.sign_in_again().await?;
    let token = ground.token(0);
    let run = ground.platform.run();
    let (gateway, store) = (ground.gateways[OWNER].clone(), run.postgres[REGIONS[FOLLOWER]].clone());
    ground.stores[FOLLOWER]
        .pool
        .get()
        .await?
        .batch_execute("CREATE TABLE IF NOT EXISTS figures_bare (n bigint)")
        .await?;
    let site = ground.sites.get(REGIONS[OWNER]).and_then(|site| site.network.clone());
    let site = site.context("a region without a namespace")?;
    ground.rest().await?;
    // Whatever this thread connects to, it does so from the owner's region.
    let there = within(&site, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(by_turns(&gateway, &token, show, &store, rounds))
    })?;
    let seen = tokio::task::spawn_blocking(move || there.join()).await?;
    let seen = seen.ok().context("the thread in the owner's region")??;
    let of = |pick: fn(&Seen) -> f64| seen.iter().map(pick).collect::<Vec<f64>>();
    let mut part = Part::new("acknowledgement", "A reservation beside its owner, 80 ms between regions");
    part.add("bare round trip and one flushed write, p50", "ms", of(|seen| median(&seen.bare)));
    part.add("reservation, p50", "ms", of(|seen| median(&seen.reservation)));
    let bare = median(&of(|seen| median(&seen.bare)));
    part.at_most((bare * 1.25).max(bare + 5.0));
    part.add("reservation beyond the bare one, p50", "ms", of(|s| median(&s.reservation) - median(&s.bare)));
    part.add("bare round trip and one flushed write, p99", "ms", of(|seen| percentile(&seen.bare, 99)));
    part.add("reservation, p99", "ms", of(|seen| percentile(&seen.reservation, 99)));
    Ok(part)
}

async fn by_turns(
    gateway: &str,
    token: &str,
    show: ShowId,
    store: &str,
    rounds: usize,
) -> anyhow::Result<Vec<Seen>> {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
    let pool = migrations::pool(store, 1)?;
    let client = pool.get().await?;
    let bare = client.prepare(BARE).await?;
    let url = format!("{gateway}/v1/shows/{show}/reservations");
    let body = json!({"best": {"count": 1, "category": "adult"}});
    let mut seen = Vec::new();
    for round in 0..=rounds {
        let mut of = Seen { bare: Vec::new(), reservation: Vec::new() };
        for pair in 0..PAIRS {
            let began = Instant::now();
            client.execute(&bare, &[&i64::try_from(pair)?]).await?;
            of.bare.push(ms(began.elapsed()));
            let key = format!("latency-{round}-{pair}");
            let request = http.post(&url).bearer_auth(token).header("idempotency-key", key).json(&body);
            let began = Instant::now();
            let answer = request.send().await?;
            let status = answer.status();
            let text = answer.text().await?;
            of.reservation.push(ms(began.elapsed()));
            ensure!(status.is_success(), "a reservation was answered {status}: {text}");
        }
        // The first round fills caches.
        if round > 0 {
            seen.push(of);
        }
    }
    Ok(seen)
}
