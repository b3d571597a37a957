//! A process's start on a store that the registry remembers further on.

use std::time::Duration;

use migrations::Schema;
use migrations::testing::TestPostgres;

use super::*;
use crate::replicas::caught_up::CaughtUp;
use crate::replicas::run::admit;
use crate::session::Keeper;
use crate::session::tests::{Voter, announced, eventually};

/// What a new process begins with.
fn process(server: &TestPostgres) -> (Guard, Pool) {
    let guard = Guard::default();
    let pool = migrations::pool_with(&server.url("eu"), 4, Some(guard.hook())).unwrap();
    (guard, pool)
}

async fn until_admitted(voter: &Voter, (guard, pool): &(Guard, Pool)) -> (u64, Vec<String>) {
    let mut refusals = Vec::new();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        match admit(&voter.registry, &announced("eu"), guard, pool).await {
            Ok(session) => return (session, refusals),
            Err(error) => refusals.push(format!("{error:#}")),
        }
        assert!(std::time::Instant::now() < deadline, "{refusals:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn off(
    mut server: TestPostgres,
    change: impl FnOnce(&mut TestPostgres) + Send + 'static,
) -> TestPostgres {
    let changed = tokio::task::spawn_blocking(move || {
        change(&mut server);
        server
    });
    changed.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_starts_on_an_older_store_has_its_incarnation_counted_on_first() {
    let voter = Voter::start();
    let server = tokio::task::spawn_blocking(TestPostgres::start).await.unwrap();
    server.migrated("eu", Schema::Regional).await;
    let (keep, kept) = std::sync::mpsc::channel();
    let server = off(server, move |server| keep.send(server.snapshot()).unwrap()).await;
    let snapshot = kept.recv().unwrap();

    // The first life: its beats tell how far the store is.
    let first = process(&server);
    let (session, _) = until_admitted(&voter, &first).await;
    assert_eq!(first.0.incarnation(), 0);
    let (guard, pool) = first.clone();
    let stop = tokio_util::sync::CancellationToken::new();
    let keeper = Keeper {
        registry: voter.registry.clone(),
        announced: announced("eu"),
        pool,
        guard: guard.clone(),
        caught_up: CaughtUp::default(),
    };
    keeper.start(session, stop.clone());
    let before = guard.mark().unwrap();
    eventually("it is told that the store moved on", || {
        guard.mark().is_some_and(|mark| mark.flushed > before.flushed)
    })
    .await;
    tokio::time::timeout(Duration::from_secs(10), async {
        // What the registry heard of it.
        loop {
            let beat = raft::client::Beat { healthy: true, caught_up: true };
            let eu = region("eu");
            let told = voter.registry.beat(session, &eu, beat, None, Duration::from_secs(1)).await;
            if told.is_ok_and(|told| told.highest.is_some_and(|mark| mark.flushed > before.flushed)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    stop.cancel();

    // A restart of what is whole needs nothing.
    let server = off(server, TestPostgres::crash_and_restart).await;
    let second = process(&server);
    let (_, refusals) = until_admitted(&voter, &second).await;
    assert_eq!((refusals, second.0.incarnation()), (vec![], 0));

    let server = off(server, move |server| server.go_back_to(&snapshot)).await;
    let third = process(&server);
    let (session, refusals) = until_admitted(&voter, &third).await;
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(refusals[0].contains("went back in time"), "{refusals:?}");
    assert_eq!((third.0.incarnation(), third.0.lost()), (1, None));
    eventually("the registry tells", || voter.view.incarnation(&region("eu")) == 1).await;
    assert!(voter.view.sessions().iter().any(|open| open.no == session));

    // It is its own measure now.
    let fourth = process(&server);
    let (_, refusals) = until_admitted(&voter, &fourth).await;
    assert_eq!((refusals, fourth.0.incarnation()), (vec![], 1));
}
