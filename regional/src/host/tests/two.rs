//! Two processes that both host the same shows, under load from both sides, taking the lead from one another
//! for seconds: no booking lost or doubled, both get on, one unbroken journal.
//!
//! `TWO_SECONDS` makes it longer (`make test-long`).

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::crash::{more_done, shows};
use super::load::{Book, Tell, customers, ledgers};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_sell_the_same_shows_and_both_get_on() {
    let seconds = std::env::var("TWO_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let (_server, url) = database(true).await;
    let apps = [process(&url, 1).await, process(&url, 2).await];
    let shows = shows(&apps[0], 2).await;
    let stop = Arc::new(AtomicBool::new(false));
    // One book: a key is a key, whoever is asked. And one for each, for counting.
    let book = Arc::new(Mutex::new(Book::default()));
    let each = [0, 1].map(|_| Arc::new(Mutex::new(Book::default())));
    let mut at_work = Vec::new();
    for (app, own) in apps.iter().zip(&each) {
        for show in &shows {
            owned_by(app, *show, "eu", 1);
        }
        let (all, own) = (book.clone(), own.clone());
        let tell: Tell = Arc::new(move |line| {
            all.lock().unwrap().line(line);
            own.lock().unwrap().line(line);
        });
        at_work.extend(customers(app, &shows, 6, rand::random::<u64>() >> 1, &tell, &stop));
    }
    let began = Instant::now();
    // Both get on, from beginning to end: neither waits for the other to stop.
    while began.elapsed() < Duration::from_secs(seconds) {
        for own in &each {
            more_done(own, 10).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    futures::future::join_all(at_work).await;
    let book = Arc::try_unwrap(book).ok();
    drop(each);
    let Some(book) = book else { panic!("somebody still writes") };
    let mut book = book.into_inner().unwrap();
    let read = ledgers(&url, &shows, None).await.unwrap();
    book.compare(&read).unwrap();
    book.settle(&apps[1]).await;
    let read = ledgers(&url, &shows, Some(&read)).await.unwrap();
    book.compare(&read).unwrap();
    for ledger in read.values() {
        let sessions: BTreeSet<i64> = ledger.led.iter().copied().collect();
        assert_eq!(sessions, BTreeSet::from([1, 2]));
        assert!(ledger.led.len() > 10, "the lead changed {} times only", ledger.led.len());
        eprintln!("{} entries, the lead changed {} times", ledger.hashes.len(), ledger.led.len());
    }
}
