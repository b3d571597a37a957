//! Shows led by quorum: three regions, and between them links that are cut.
//!
//! `REGIONS_SECONDS` makes the load longer, `REGIONS_SEED` replays its cuts.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::load::{Book, Tell, customers, ledgers};
use super::platform::{NAMES, Platform, strand};
use super::*;
use crate::testing::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_others_have_before_the_own_store_is_told_again_when_it_has_come() {
    let platform = Platform::start().await;
    let show = platform.show().await;
    platform.booked("eu", show, "A1").await;
    // Nothing can be written into eu's own journal for now; two of three are enough.
    let mut client = platform.apps["eu"].pool.get().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute("LOCK TABLE show_journal IN EXCLUSIVE MODE").await.unwrap();
    let first = platform.book("eu", show, "A2", Some([7; 16])).await.unwrap();
    assert!(matches!(first, Ok(Answer::Done { repeated: false, .. })), "{first:?}");
    let again = platform.book("eu", show, "A2", Some([7; 16]));
    let repeated = &platform.apps["eu"].metrics.commands.repeated;
    until("the host's word that it was done before", || async { repeated.get() > 0 }).await;
    transaction.rollback().await.unwrap();
    let again = again.await.unwrap();
    assert!(matches!(again, Ok(Answer::Done { repeated: true, .. })), "{again:?}");
    platform.agree(show).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_needs_two_of_three_regions() {
    let platform = Platform::start().await;
    let show = platform.show().await;
    platform.booked("eu", show, "A1").await;
    // One way only, and not this leader's: the third region is enough.
    platform.cut("eu", "us", true);
    platform.booked("eu", show, "A2").await;
    platform.cut("eu", "ap", true);
    let asked = platform.book("eu", show, "A3", None);
    // It is in the leader's own store, and that is all it is.
    until("the own store", async || platform.journal("eu", show).await.1.len() == 4).await;
    let host = platform.apps["eu"].hosts.get(show).await.unwrap();
    assert_eq!(host.read(Show::counts), [6, 2, 0, 0]);
    let (committed, _) = platform.journal("eu", show).await;
    assert!(committed <= 3 && !asked.is_finished());
    platform.cut("eu", "us", false);
    assert!(matches!(asked.await.unwrap(), Ok(Answer::Done { .. })));
    assert_eq!(host.read(Show::counts), [5, 3, 0, 0]);
    platform.heal();
    assert_eq!(platform.agree(show).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_was_away_catches_up_with_shows_that_rest_too() {
    let platform = Platform::start().await;
    let show = platform.show().await;
    platform.agree(show).await;
    platform.part("ap", true);
    for seat in &SEATS[..5] {
        platform.booked("eu", show, seat).await;
    }
    // It leaves memory, and nobody asks for it any more.
    until("the leader alone knows", async || platform.journal("us", show).await.0 == 6).await;
    platform.apps["eu"].hosts.retire();
    until("rest", async || platform.apps["eu"].metrics.shows_active.get() == 0).await;
    assert_eq!(platform.journal("ap", show).await.1.len(), 1);
    platform.part("ap", false);
    // The entry of a new reign, and all before it.
    assert_eq!(platform.agree(show).await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_region_lacks_is_found_though_nobody_remembers_it() {
    let mut platform = Platform::start().await;
    let mut shows = Vec::new();
    for _ in 0..20 {
        shows.push(platform.show().await);
    }
    for show in &shows {
        platform.agree(*show).await;
    }
    platform.part("ap", true);
    for show in &shows[..15] {
        platform.booked("eu", *show, "A1").await;
        until("us has it", async || platform.journal("us", *show).await.0 == 2).await;
    }
    // A show that ap never heard of; and all who know what ap lacks are gone.
    shows.push(platform.show().await);
    platform.restart("us", &shows).await;
    platform.restart("eu", &shows).await;
    assert_eq!(platform.apps["eu"].metrics.shows_active.get(), 0);
    platform.part("ap", false);
    for show in &shows {
        platform.agree(*show).await;
    }
    // What rests is not led for nothing, now or later.
    for show in &shows[15..20] {
        assert_eq!(platform.journal("eu", *show).await.1.len(), 1);
    }
    let ap = &platform.apps["ap"].metrics.replicas;
    until("ap is told that it lacks nothing", async || ap.count_behind("eu") == Some(0)).await;
    let led: Vec<usize> = platform.lengths("eu", &shows).await;
    assert_eq!(led[..15], [3; 15], "created, booked, led once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deposed_leader_left_open_is_settled_by_its_key_at_the_next() {
    let platform = Platform::start().await;
    let show = platform.show().await;
    platform.booked("eu", show, "A1").await;
    // What is asked last reaches one other region, and its answer never comes back: the next leader finds it.
    // What is asked after that reaches nobody.
    let [carried, stranded] = [[1; 16], [2; 16]];
    platform.part("ap", true);
    let first = strand(&platform, "us", show, "A2", carried).await;
    let second = platform.book("eu", show, "A3", Some(stranded));
    until("us holds it", async || platform.journal("us", show).await.1.len() == 3).await;
    until("eu holds both", async || platform.journal("eu", show).await.1.len() == 4).await;
    platform.part("ap", false);
    platform.part("eu", true);
    for name in ["us", "ap"] {
        Platform::tell(&platform.apps[name], show, "us", 2);
    }
    // The first was done, and is told again; the second was not, and its seat may go to somebody else.
    let again = platform.book("us", show, "A2", Some(carried)).await.unwrap();
    assert!(matches!(again, Ok(Answer::Done { repeated: true, .. })), "{again:?}");
    platform.booked("us", show, "A3").await;
    let other = platform.book("us", show, "A3", Some(stranded)).await.unwrap();
    assert!(matches!(other, Ok(Answer::Refused { .. })), "{other:?}");
    // The old leader shows what it knew to be committed, and hears the rest when it can.
    assert!(!first.is_finished() && !second.is_finished());
    let old = platform.apps["eu"].hosts.get(show).await.unwrap();
    assert_eq!(old.read(Show::counts), [7, 1, 0, 0]);
    platform.heal();
    Platform::tell(&platform.apps["eu"], show, "us", 2);
    for open in [first, second] {
        let heard = open.await.unwrap();
        assert!(matches!(heard, Err(HostError::OutcomeUnknown)), "{heard:?}");
    }
    let refused = platform.apps["eu"].hosts.get(show).await.err().unwrap();
    assert!(matches!(refused, HostError::NotOwner { epoch: 2, .. }), "{refused}");
    platform.booked("us", show, "B1").await;
    // eu's own end was replaced.
    let hashes = platform.agree(show).await;
    assert_eq!(hashes.len(), 6, "created, A1, A2, led, A3, B1");
    for url in platform.urls.values() {
        let ledger = ledger::Ledger::read(url, show.0).await.unwrap();
        assert_eq!(ledger.by_key.values().map(Vec::len).max(), Some(1), "a key has one effect");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_while_the_lead_wanders_and_links_break() {
    let env = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = env("REGIONS_SEED").unwrap_or_else(rand::random);
    let seconds = env("REGIONS_SECONDS").unwrap_or(5);
    eprintln!("REGIONS_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let platform = Platform::start().await;
    let (show, group) = crash::large_show();
    platform.owned(show, "eu", 1);
    platform.apps["eu"].hosts.create(show, group).await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let book = Arc::new(Mutex::new(Book::default()));
    let page = book.clone();
    let tell: Tell = Arc::new(move |line| page.lock().unwrap().line(line));
    let mut at_work = Vec::new();
    for app in platform.apps.values() {
        at_work.extend(customers(app, &[show], 4, chance.random::<u64>() >> 1, &tell, &stop));
    }
    let (began, mut epoch) = (Instant::now(), 1);
    while began.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_millis(chance.random_range(50..400))).await;
        platform.heal();
        match chance.random_range(0..4) {
            0 => platform.part(NAMES[chance.random_range(0..3)], true),
            1 => {
                let from = NAMES[chance.random_range(0..3)];
                let to = NAMES.into_iter().filter(|to| *to != from).nth(chance.random_range(0..2)).unwrap();
                platform.cut(from, to, true);
            }
            _ => {}
        }
        if chance.random_bool(0.6) {
            epoch += 1;
            let owner = NAMES[chance.random_range(0..3)];
            for (name, app) in &platform.apps {
                // Some hear of it only with the next change.
                if *name == owner || chance.random_bool(0.7) {
                    Platform::tell(app, show, owner, epoch);
                }
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    platform.heal();
    platform.owned(show, "us", epoch + 1);
    futures::future::join_all(at_work).await;
    drop(tell);

    let mut book = Arc::try_unwrap(book).ok().unwrap().into_inner().unwrap();
    let unknown = book.unknown();
    book.settle(&platform.apps["us"]).await;
    platform.agree(show).await;
    for url in platform.urls.values() {
        let read = ledgers(url, &[show], None).await.unwrap();
        book.compare(&read).unwrap();
        let ledger = &read[&show];
        eprintln!("{} entries, {} reigns", ledger.hashes.len(), ledger.led.len());
        assert!(ledger.led.len() > 2, "the lead stayed where it was");
    }
    eprintln!("{} done, {unknown} unknown at first", book.done());
    assert!(book.done() > 20);
}
