//! Whoever follows the journal: tails it by position, catches up after any pause, and never shows what is not
//! committed. With several regions a store holds entries that may yet be replaced; here they are written by
//! hand.

use std::time::{Duration, Instant};

use common::ShowId;
use tokio_util::sync::CancellationToken;

use super::{Rule, Store, verify};
use crate::testing::TestRegion;
use crate::testing::journals::{story, write};

/// A sweep or two.
const PATIENCE: Duration = Duration::from_secs(30);

async fn number(region: &TestRegion, select: &str, show: ShowId) -> i64 {
    let client = region.app.pool.get().await.unwrap();
    client.query_opt(select, &[&show.0]).await.unwrap().map_or(0, |row| row.get(0))
}

async fn projected(region: &TestRegion, show: ShowId) -> i64 {
    number(region, "SELECT seq FROM projected WHERE show_id = $1", show).await
}

async fn commit(region: &TestRegion, show: ShowId, committed: i64) {
    let client = region.app.pool.get().await.unwrap();
    let update = "UPDATE show_head SET committed = $2 WHERE show_id = $1";
    assert_eq!(client.execute(update, &[&show.0, &committed]).await.unwrap(), 1);
}

async fn comes_to(region: &TestRegion, show: ShowId, seq: i64) {
    let deadline = Instant::now() + PATIENCE;
    while projected(region, show).await != seq {
        assert!(Instant::now() < deadline, "the read models are not at {seq}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The read models are the fold of what is committed: no more, no less.
async fn fits(region: &TestRegion) {
    let store = Store { region: "eu".into(), pool: region.app.pool.clone() };
    let report = verify(&[store], |_| ()).await.unwrap();
    let wrong: Vec<_> = report.breaches.iter().filter(|breach| breach.rule == Rule::ReadModel).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(report.regions["eu"].behind, 0);
}

fn run(region: &TestRegion) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let stop = CancellationToken::new();
    let task = tokio::spawn(crate::projector(&region.app).run(stop.clone()));
    (stop, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_never_projected() {
    let region = TestRegion::start(None).await;
    let drafts = story();
    let last = i64::try_from(drafts.len()).unwrap();
    let show = write(&region.app.pool, &drafts).await;
    commit(&region, show, 2).await;
    let (stop, _task) = run(&region);
    // However often it is told.
    for _ in 0..3 {
        region.app.projector.nudge(show);
    }
    comes_to(&region, show, 2).await;
    fits(&region).await;
    let tickets = "SELECT count(*) FROM tickets WHERE show_id = $1";
    assert_eq!(number(&region, tickets, show).await, 0, "the tickets come with the third entry and later");
    // One by one, with the followers told only by the commit mark.
    for committed in [3, 4, last - 1] {
        commit(&region, show, committed).await;
        region.app.projector.nudge(show);
        comes_to(&region, show, committed).await;
        fits(&region).await;
    }
    // And with nobody telling: the sweep finds it.
    commit(&region, show, last).await;
    comes_to(&region, show, last).await;
    fits(&region).await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_catches_up_from_where_it_stood() {
    let region = TestRegion::start(None).await;
    let last = i64::try_from(story().len()).unwrap();
    let mut shows = Vec::new();
    for _ in 0..20 {
        let show = write(&region.app.pool, &story()).await;
        commit(&region, show, 4).await;
        shows.push(show);
    }
    let (stop, task) = run(&region);
    for show in &shows {
        comes_to(&region, *show, 4).await;
    }
    // It stops; the journals go on, for some of them; another process takes over with nothing but the store.
    stop.cancel();
    task.await.unwrap();
    for show in &shows[5..] {
        commit(&region, *show, last).await;
    }
    let (stop, _task) = run(&region);
    for (at, show) in shows.iter().enumerate() {
        comes_to(&region, *show, if at < 5 { 4 } else { last }).await;
    }
    fits(&region).await;
    stop.cancel();
}
