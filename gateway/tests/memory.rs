//! The ownership map of a gateway stays small: 66 bytes a show were seen, so 66 MB for a million.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use common::{RegionName, ShowId};
use raft::client::{RegistryView, ShowRecord};

/// A million take the same bytes each, and this test five times as long.
const SHOWS: usize = 200_000;
const MOST_BYTES_A_SHOW: usize = 80;

/// What the process holds, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn shows_are_known_in_a_few_dozen_bytes_each() {
    let regions: Vec<RegionName> = ["eu", "us", "ap"].iter().map(|name| name.parse().unwrap()).collect();
    let view = RegistryView::default();
    let record = |n: usize, epoch| ShowRecord {
        id: ShowId::new(&regions[n % 3]),
        home: regions[n % 3].clone(),
        owner: regions[n % 3].clone(),
        epoch,
        replicas: regions.clone(),
        prior: Vec::new(),
    };
    let before = resident();
    let mut moved = None;
    for n in 0..SHOWS {
        let mut record = record(n, 1);
        view.note(record.clone());
        if n % 100 == 0 {
            // Shows that move cost nothing more.
            record.epoch = 2;
            record.owner = regions[(n + 1) % 3].clone();
            view.note(record.clone());
            moved = Some(record);
        }
    }
    assert_eq!(view.len(), SHOWS);
    let moved = moved.unwrap();
    assert_eq!(view.show(moved.id), Some(moved));
    let each = (resident() - before) / SHOWS;
    println!("{each} bytes a show");
    assert!((16..=MOST_BYTES_A_SHOW).contains(&each), "{each} bytes a show");
}
