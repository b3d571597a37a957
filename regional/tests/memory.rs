//! What shows take in memory, counted by the allocator: of the hosts, the journal's writer, the projector and
//! the live seat map, as a regional process has them, in the bytes that they asked for.
//!
//! `MEMORY_ACTIVE` sets how many shows are led beside 100,000 that are only known; 2,000 take two minutes in a
//! release build: `MEMORY_ACTIVE=2000 cargo test --release -p regional --test memory -- --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]
#![allow(clippy::print_stdout, reason = "the figures are for docs/benchmarks.md")]

use std::alloc::System;
use std::ops::Range;
use std::time::{Duration, Instant};

use migrations::Schema;
use migrations::testing::{Options, TestPostgres};
use regional::bench::{Booking, Design, Marquee, Outcome, SEATS_A_BOOKING};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KIB: usize = 1024;

/// A show that nobody has asked for two seconds keeps its state once.
const REST: Duration = Duration::from_millis(2_500);

/// What is allocated now, in bytes.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    // What is made larger or smaller in place counts among the others.
    stats.bytes_allocated - stats.bytes_deallocated
}

/// What stays allocated when all shows rest: the least within a little more than they take to.
async fn rested() -> usize {
    let end = Instant::now() + REST;
    let mut least = allocated();
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(50)).await;
        least = least.min(allocated());
    }
    least
}

/// So many of the seats of each of these shows go, all shows at once, each booking after the last.
async fn sell(marquee: &Marquee, shows: Range<u32>, seats: u32, paid: bool) {
    let sell = async |show: u32| {
        for seat in (0..seats - 1).step_by(SEATS_A_BOOKING as usize) {
            let booking = Booking { show, seat };
            if paid {
                marquee.sell(booking).await.unwrap();
            } else {
                assert_eq!(marquee.book(booking).await.unwrap(), Outcome::Booked);
            }
        }
    };
    futures::future::join_all(shows.map(sell)).await;
    marquee.settled().await;
}

/// One process; what it allocates once for all shows is there before anything is measured.
async fn process(server: &TestPostgres, name: &str, shows: u32, seats: u32) -> Marquee {
    let url = server.migrated(name, Schema::Regional).await;
    let marquee = Marquee::start(&url, shows, seats).await.unwrap();
    sell(&marquee, 0..shows, seats / 3, true).await;
    marquee
}

/// What of a show's seats is gone, and what it may take then: at rest, and just after it sold.
struct Mix {
    how: &'static str,
    part: u32,
    paid: bool,
    most: [usize; 2],
}

/// Leads `shows` shows more for each mix, and sells it.
async fn measure(server: &TestPostgres, shows: u32, seats: u32, mixes: &[Mix]) {
    let mut marquee = process(server, &format!("seats{seats}"), shows, seats).await;
    let mut before = rested().await;
    for Mix { how, part, paid, most: [most, most_busy] } in mixes {
        let first = marquee.shows();
        let each = |allocated: usize| allocated.saturating_sub(before) / shows as usize;
        marquee.lead_more(shows, seats).await.unwrap();
        let empty = each(allocated());
        sell(&marquee, first..first + shows, seats / part, *paid).await;
        let busy = each(allocated());
        let resting = rested().await;
        let sold = each(resting);
        println!(
            "{seats} seats: {} KiB empty, {} KiB with {how} ({} KiB just after)",
            empty / KIB,
            sold / KIB,
            busy / KIB
        );
        assert!(empty <= *most && sold <= *most, "{empty} and {sold} bytes of at most {most}");
        assert!(busy <= *most_busy, "{busy} bytes of at most {most_busy} while it sells");
        // What is counted are shows, not nothing.
        assert!(empty > seats as usize && sold > empty + seats as usize * 16, "{empty} and {sold} bytes");
        before = resting;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shows_fit_into_memory() {
    let server = tokio::task::spawn_blocking(|| TestPostgres::start_with(Options { fsync: false }));
    let server = server.await.unwrap();
    let mix = |how, part, paid, most: [usize; 2]| Mix { how, part, paid, most: most.map(|most| most * KIB) };
    // Between two runs, buffers that all shows share differ by a dozen KiB a show (38 to 51 were seen with a third paid,
    // 88 to 129 with all). That of 5,000 seats would be 1 MiB.
    let small = [
        mix("a third held", 3, false, [48, 64]),
        mix("a third paid, with tickets and keys", 3, true, [64, 96]),
        mix("all paid, with tickets and keys", 1, true, [144, 240]),
    ];
    measure(&server, 120, 300, &small).await;
    let large = [
        mix("a third held", 3, false, [400, 700]),
        mix("a third paid, with tickets and keys", 3, true, [640, 1_280]),
    ];
    measure(&server, 12, 5_000, &large).await;

    let active: u32 = std::env::var("MEMORY_ACTIVE").map_or(50, |text| text.parse().unwrap());
    let mut marquee = process(&server, "many", 2, 300).await;
    let before = rested().await;
    marquee.know_more(100_000);
    let known = allocated().saturating_sub(before);
    marquee.lead_more(active, 300).await.unwrap();
    let all = rested().await.saturating_sub(before);
    println!(
        "100,000 shows known: {} MiB; and {active} of 300 seats led: {} MiB",
        known / KIB / KIB,
        all / KIB / KIB
    );
    assert!(known <= 100_000 * 128, "{known} bytes for shows that are only known");
    assert!(all - known <= active as usize * 64 * KIB, "{all} bytes in all");
}
