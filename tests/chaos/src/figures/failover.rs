//! A region is killed whole: after what time its shows sell again. Each of a thousand shows is asked for through
//! another region's gateway, by a customer who comes within the first second and repeats until it is answered.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::future::join_all;

use super::HOT;
use super::ground::Ground;
use super::report::{Part, percentile};
use crate::rooms::REGIONS;
use crate::say;

/// What the protocol promises.
const TARGET_SECS: f64 = 5.0;
const PATIENCE: Duration = Duration::from_secs(90);
const AGAIN_AFTER: Duration = Duration::from_millis(50);

pub async fn measure(ground: &Ground, rounds: usize) -> anyhow::Result<Part> {
    let known = ground.view.len();
    let (mut first, mut nearly_all, mut all, mut refused) = (vec![], vec![], vec![], vec![]);
    // The registry's leader restarts every timer at its election, so that it matters whether it is lost too.
    let (mut with_leader, mut without) = (vec![], vec![]);
    for round in 0..rounds {
        // Another each time: what is only registered is spread over the regions still when one is lost.
        let lost = round % REGIONS.len();
        ground.sign_in_again().await?;
        ground.give_all_to(lost).await?;
        ground.warm(lost).await?;
        ground.rest().await?;
        let owned = ground.view.counts().get(&super::ground::region(lost)).map_or(0, |counts| counts.owned);
        let leads = ground.registry.leader_status().await?.leader == REGIONS[lost];
        let began = ground.lose(lost).await?;
        let served = join_all((0..ground.shows.len()).map(|no| until_served(ground, no, lost, began))).await;
        let failed: usize = served.iter().map(|(_, failed)| failed).sum();
        let after: Vec<f64> = served.iter().filter_map(|(after, _)| *after).collect();
        ensure!(after.len() == ground.shows.len(), "{} shows do not serve", ground.shows.len() - after.len());
        first.push(after.iter().copied().fold(f64::INFINITY, f64::min));
        nearly_all.push(percentile(&after, 99));
        all.push(after.iter().copied().fold(0.0, f64::max));
        refused.push(failed as f64);
        if leads { &mut with_leader } else { &mut without }.push(nearly_all[round]);
        say(&format!(
            "{}{} lost with {owned} shows: first success after {:.2} s, 99 % {:.2} s, all {:.2} s",
            REGIONS[lost],
            if leads { ", which led the registry," } else { "" },
            first[round],
            nearly_all[round],
            all[round]
        ));
        ground.bring_back(lost).await?;
        // After the last round nobody waits for it: the region's many other shows come home for minutes.
        if round + 1 < rounds {
            ground.rest().await?;
        }
    }
    let (name, shows) = if known > HOT {
        (format!("failover-{}", known - HOT), format!("{HOT} shows, {} more registered", known - HOT))
    } else {
        ("failover".to_owned(), format!("{HOT} shows"))
    };
    let mut part = Part::new(name, format!("kill -9 of a whole region: {shows}, 80 ms between regions"));
    part.add("until the first of its shows sells", "s", first);
    part.at_most(TARGET_SECS);
    part.add("until 99 % of them sell", "s", nearly_all);
    part.at_most(TARGET_SECS);
    part.add("until all of them sell", "s", all);
    for (of, led) in [(without, "did not lead"), (with_leader, "led")] {
        if !of.is_empty() {
            part.add(format!("99 %, where the region {led} the registry"), "s", of);
        }
    }
    part.add("requests refused meanwhile, and repeated", "requests", refused);
    Ok(part)
}

/// Seconds from the loss to the first success, and how many attempts had none.
async fn until_served(ground: &Ground, no: usize, lost: usize, began: Instant) -> (Option<f64>, usize) {
    tokio::time::sleep(Duration::from_millis(no as u64)).await;
    // Half of them at each of the other regions' gateways.
    let place = (lost + 1 + no % (REGIONS.len() - 1)) % REGIONS.len();
    let (key, mut failed) = (ground.key(), 0);
    loop {
        if ground.reserve(place, no, ground.shows[no], &key).await.ok {
            return (Some(began.elapsed().as_secs_f64()), failed);
        }
        failed += 1;
        if began.elapsed() > PATIENCE {
            return (None, failed);
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
