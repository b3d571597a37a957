//! What a million shows cost a process that watches. Alone in its binary: it reads the process's memory.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use raft::client::{RegistryView, ShowRecord};
use support::{new_show, region};

const SHOWS: usize = 1_000_000;

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    // Linux counts in pages of 4 KiB on every machine this is built for.
    pages * 4096
}

#[test]
fn a_million_shows_fit_into_a_hundred_megabytes() {
    let view = RegistryView::default();
    let all: Vec<_> = support::REGIONS.iter().map(|r| region(r)).collect();
    let before = resident_bytes();
    for i in 0..SHOWS {
        let home = all[i % 3].clone();
        let id = new_show(home.as_str());
        let owner = home.clone();
        view.note(ShowRecord { id, home, owner, epoch: 1, replicas: all.clone(), prior: vec![] });
    }
    let used = resident_bytes() - before;
    println!("{} bytes a show", used / SHOWS);
    assert_eq!(view.len(), SHOWS);
    assert!(used < 100 << 20, "{} MiB", used >> 20);
}
