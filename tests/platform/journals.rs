//! After all that was done to the platform: its journals, as `marquee verify` reads them, and what the archive
//! would take.

use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::Value;

use crate::world::{World, step};

pub async fn walk(world: Arc<World>) {
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
