//! What three regions cost in throughput on one machine: purchases through one gateway, of a platform of one
//! region and of one of three, by turns, both on loopback without delay.

use std::path::Path;

use anyhow::{Context, ensure};
use marquee::launcher::{Platform, Sites};
use serde_json::Value;

use super::ground::{shows, signed_in};
use super::report::{Part, median};
use crate::rooms::REGIONS;
use crate::run::data_folder;
use crate::stage;

/// `marquee bench purchase` goes through the first gateway by name.
const PLACE: usize = 2;
const CLIENTS: &str = "64";
const SECONDS: &str = "4";
const SHOWS: usize = 100;

pub async fn measure(marquee: &Path, rounds: usize) -> anyhow::Result<Part> {
    let (_first, alone) = data_folder(None)?;
    let (_second, three) = data_folder(None)?;
    let one = super::start(marquee, &alone, &REGIONS[PLACE..], Sites::new()).await?;
    let measured = async {
        let all = super::start(marquee, &three, &REGIONS, Sites::new()).await?;
        let measured = by_turns(marquee, [&one, &all], rounds).await;
        all.stop().await;
        measured
    };
    let measured = measured.await;
    one.stop().await;
    let [(one, one_ms), (three, three_ms)] = measured?;
    let mut part = Part::new(
        "throughput",
        "Purchases a second through one gateway, 64 clients, no delay between regions",
    );
    let ratio = median(&three) / median(&one);
    part.add("one region", "purchases/s", one);
    part.add("three regions", "purchases/s", three);
    part.add("three over one", "", vec![ratio]);
    part.add("one region, p50", "ms", one_ms);
    part.add("three regions, p50", "ms", three_ms);
    Ok(part)
}

/// Purchases a second and the middle one's milliseconds, by round, of each platform.
async fn by_turns(
    marquee: &Path,
    platforms: [&Platform; 2],
    rounds: usize,
) -> anyhow::Result<[(Vec<f64>, Vec<f64>); 2]> {
    for platform in platforms {
        let admin = signed_in(platform, &platform.run().gateways[REGIONS[PLACE]]).await?;
        let movie = stage::film(&admin).await?;
        shows(&admin, PLACE, &movie, SHOWS, (26, 40)).await?;
    }
    let mut seen = [(vec![], vec![]), (vec![], vec![])];
    for round in 0..=rounds {
        for turn in 0..platforms.len() {
            let no = (round + turn) % platforms.len();
            let (rate, p50) = purchases(marquee, platforms[no]).await?;
            // The first round fills caches.
            if round > 0 {
                seen[no].0.push(rate);
                seen[no].1.push(p50);
            }
        }
    }
    Ok(seen)
}

async fn purchases(marquee: &Path, platform: &Platform) -> anyhow::Result<(f64, f64)> {
    let file = platform.data().join("purchases.json");
    let mut command = tokio::process::Command::new(marquee);
    command.args(["bench", "purchase", "--clients", CLIENTS, "--seconds", SECONDS, "--data"]);
    command.arg(platform.data()).arg("--json").arg(&file).kill_on_drop(true);
    let output = command.output().await.context("marquee bench purchase")?;
    ensure!(output.status.success(), "bench purchase: {}", String::from_utf8_lossy(&output.stderr).trim());
    let seen: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    ensure!(seen["errors"].as_object().is_some_and(serde_json::Map::is_empty), "failed: {}", seen["errors"]);
    let number = |value: &Value| value.as_f64().with_context(|| format!("no figure in {seen}"));
    Ok((number(&seen["purchases_per_second"])?, number(&seen["latency_ms"]["purchase"]["p50"])?))
}
