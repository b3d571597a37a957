//! After all that was done to the platform: its journals, as `marquee verify` reads them, and what the archive
//! would take.

use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::list;
use crate::world::{World, step, until};

/// Half a minute of patience, and then ten shows a second.
const HOMECOMING: Duration = Duration::from_secs(180);
/// The registry's patience before it sends shows home.
const HOME_AFTER_MS: u64 = 30_000;
const NO_MORE: Duration = Duration::from_secs(3);
const FOLLOWED: Duration = Duration::from_secs(30);

pub async fn walk(world: Arc<World>) {
    step("the shows of regions that were lost come home, and every table follows its journal");
    let operator = world.staff("operator", None).await;
    // What an operator has moved stays where it is, so it is not waited for none.
    let seen = Mutex::new((Vec::new(), Instant::now()));
    until("the last show's homecoming", HOMECOMING, async || {
        let cluster = operator.get("/v1/cluster").await.ok(200);
        let regions = list(&cluster, "regions");
        let counts: Vec<Value> = regions.iter().map(|region| region["shows_elsewhere"].clone()).collect();
        let settled = |region: &Value| {
            region["state"] == "up" && region["well_for_ms"].as_u64().is_some_and(|ms| ms > HOME_AFTER_MS)
        };
        let mut seen = seen.lock().unwrap();
        if counts != seen.0 || !regions.iter().all(settled) {
            *seen = (counts, Instant::now());
        }
        (seen.1.elapsed() > NO_MORE).then_some(())
    })
    .await;
    for region in world.run().gateways.into_keys() {
        let port = world.operations(&region, "regional");
        until("the tables to follow", FOLLOWED, async || {
            let metrics = port.get("/metrics").await;
            let text = String::from_utf8_lossy(&metrics.body).into_owned();
            let behind = text
                .lines()
                .find(|line| line.starts_with("marquee_projection_shows_behind"))
                .map(str::to_owned);
            behind.expect("the metric").ends_with(" 0").then_some(())
        })
        .await;
    }

    step("marquee verify reads every journal and finds nothing wrong");
    let file = world.data.join("verify.json");
    let file = file.to_str().unwrap();
    let verified = marquee(&world, &["verify", "--json", file]);
    assert!(verified.status.success(), "{}\n{}", text(&verified.stdout), text(&verified.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(report["breaches"], Value::Array(Vec::new()));
    let regions = report["regions"].as_object().unwrap();
    assert_eq!(regions.len(), world.run().gateways.len());
    for (region, read) in regions {
        let count = |name: &str| read[name].as_u64().unwrap();
        assert!(count("shows") > 0 && count("entries") >= count("shows"), "{region}: {read}");
        assert_eq!(count("behind"), 0, "{region}: tables have not followed");
    }

    step("marquee archive refuses the future, and takes nothing that has not ended");
    let refused = marquee(&world, &["archive", "--before", "2999-01-01"]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("in the future"));
    let folder = world.data.join("archive");
    let folder = folder.to_str().unwrap();
    let archived = marquee(&world, &["archive", "--before", "2026-01-01", "--to", folder]);
    assert!(archived.status.success(), "{}", text(&archived.stderr));
    for line in text(&archived.stdout).lines().skip(1) {
        let counts: Vec<&str> = line.split_whitespace().skip(1).collect();
        assert_eq!(counts, ["0"; 4], "{line}");
    }
}

fn marquee(world: &World, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_marquee"));
    command.args(words).env("MARQUEE_DATA", &world.data).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
