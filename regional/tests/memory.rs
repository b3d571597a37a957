//! What shows take in memory, counted by the allocator: of the hosts, the journal's writer, the projector and
//! the live seat map, as a regional process has them, in the bytes that they asked for.
//!
//! `MEMORY_ACTIVE` sets how many shows are led beside 100,000 that are only known; 2,000 take two minutes in a
//! release build: `MEMORY_ACTIVE=2000 cargo test --release -p regional --test memory -- --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![allow(clippy::print_stdout, reason = "the figures are for docs/benchmarks.md")]

use std::alloc::System;
use std::time::{Duration, Instant};

use migrations::Schema;
use migrations::testing::{Options, TestPostgres};
use regional::bench::{Booking, Design, Marquee, SEATS_A_BOOKING};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KIB: usize = 1024;

/// A show that nobody has asked for two seconds keeps its state once; then it is measured.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is allocated now, in bytes.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    // What is made larger or smaller in place counts among the others.
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Bytes a show, once they are few enough, or when they ought to be.
async fn bytes_a_show(before: usize, shows: u32, most: usize) -> usize {
    let end = Instant::now() + PATIENCE;
    loop {
        let each = allocated().saturating_sub(before) / shows as usize;
        if each <= most || Instant::now() > end {
            return each;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn sell(marquee: &Marquee, shows: std::ops::Range<u32>, seats: std::ops::Range<u32>) {
    let sell = async |show: u32| {
        for seat in seats.clone().step_by(SEATS_A_BOOKING as usize) {
            marquee.sell(Booking { show, seat }).await.unwrap();
        }
    };
    futures::future::join_all(shows.map(sell)).await;
    marquee.settled().await;
}

/// One process; what it allocates once for all shows is there before anything is measured.
async fn process(server: &TestPostgres, name: &str, seats: u32) -> Marquee {
    let url = server.migrated(name, Schema::Regional).await;
    let marquee = Marquee::start(&url, 1, seats).await.unwrap();
    sell(&marquee, 0..1, 0..4).await;
    marquee
}

async fn measure(server: &TestPostgres, shows: u32, seats: u32, most: usize) {
    let mut marquee = process(server, &format!("seats{seats}"), seats).await;
    let before = allocated();
    marquee.lead_more(shows, seats).await.unwrap();
    let led = bytes_a_show(before, shows, most).await;
    let third = seats / 3 / SEATS_A_BOOKING * SEATS_A_BOOKING;
    sell(&marquee, 1..1 + shows, 0..third).await;
    let busy = allocated().saturating_sub(before) / shows as usize;
    let sold = bytes_a_show(before, shows, most).await;
    println!(
        "{seats} seats: {} KiB empty, {} KiB with a third sold ({} KiB while it sells)",
        led / KIB,
        sold / KIB,
        busy / KIB
    );
    assert!(led <= most && sold <= most, "{led} and {sold} bytes of at most {most}");
    // What is counted are shows, not nothing.
    assert!(led > seats as usize && sold > led + third as usize * 50, "{led} and {sold} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_fit_into_memory() {
    let server = tokio::task::spawn_blocking(|| TestPostgres::start_with(Options { fsync: false }));
    let server = server.await.unwrap();
    measure(&server, 20, 300, 64 * KIB).await;
    measure(&server, 2, 5_000, 1_024 * KIB).await;

    let active: u32 = std::env::var("MEMORY_ACTIVE").map_or(100, |text| text.parse().unwrap());
    let mut marquee = process(&server, "many", 300).await;
    let before = allocated();
    marquee.know_more(100_000);
    let known = allocated() - before;
    marquee.lead_more(active, 300).await.unwrap();
    sell(&marquee, 1..1 + active, 0..20).await;
    let all = bytes_a_show(before, 1, known + active as usize * 64 * KIB).await;
    println!(
        "100,000 shows known: {} MiB; {active} of 300 seats led too, of each 20 sold: {} MiB",
        known / KIB / KIB,
        all / KIB / KIB
    );
    assert!(known <= 100_000 * 128, "{known} bytes for shows that are only known");
    assert!(all - known <= active as usize * 64 * KIB, "{all} bytes in all");
}
