//! The watch as its users see it: a snapshot, then every change, whichever voter is lost.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::time::Duration;

use raft::client::RegistryView;
use support::{Group, create_shows, new_show, region, until};
use tokio_util::sync::CancellationToken;

async fn sees(view: &RegistryView, shows: usize) {
    until("the view's shows", async || (view.len() == shows).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_has_the_snapshot_then_every_change_and_survives_its_voters_end() {
    let mut group = Group::started(3, |_| {});
    let client = group.client();
    let key = common::proto::registry::TicketKey { kid: "k1".into(), public_key: vec![7; 32].into() };
    let eu = region("eu");
    let first = client.open_session(&eu, "http://eu-0", "grpc", vec![key]).await.unwrap();
    let before = create_shows(&client, 700).await;

    let stop = CancellationToken::new();
    let view = client.watch(stop.clone());
    tokio::time::timeout(support::DEADLINE, view.synced()).await.unwrap();
    sees(&view, 700).await;
    assert_eq!(view.show(before[0]), client.get_show(before[0]).await.unwrap());
    let regions = view.regions();
    assert_eq!((regions.len(), regions[0].ticket_keys[0].public_key), (1, [7; 32]));
    assert_eq!(view.sessions()[0].no, first);

    let mut changes = view.changes();
    let after = create_shows(&client, 40).await;
    sees(&view, 740).await;
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(view.show(after[0]).unwrap().id, after[0]);
    let second = client.open_session(&eu, "http://eu-0", "grpc", vec![]).await.unwrap();
    until("the newer session alone", async || {
        let open: Vec<u64> = view.sessions().iter().map(|s| s.no).collect();
        (open == [second]).then_some(())
    })
    .await;

    // One after the other is lost, so the one that is watched is among them.
    let mut expected = 740;
    for lost in 0..3 {
        group.voters[lost].stop().await;
        create_shows(&client, 10).await;
        expected += 10;
        sees(&view, expected).await;
        group.voters[lost].start();
        group.leader().await;
    }
    until("a fresh word", async || view.age().filter(|age| *age < Duration::from_secs(2))).await;
    assert!(view.is_synced());

    stop.cancel();
    let id = new_show("eu");
    until("a stopped watch", async || view.age().filter(|age| *age > Duration::from_secs(3))).await;
    client.create_show(id, &eu).await.unwrap();
    assert_eq!(view.show(id), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_of_a_cut_off_voter_turns_to_one_that_has_a_leader() {
    let mut group = Group::started(3, |_| {});
    let client = group.client();
    create_shows(&client, 5).await;
    // The first URL that a view follows is the first voter's; it now hears from no one.
    let mut alone = group.voters[0].config.clone();
    group.voters[0].stop().await;
    for peer in alone.peers.iter_mut().filter(|p| p.id != 1) {
        peer.url = "http://127.0.0.1:1".into();
    }
    // The others cannot reach it either.
    let moved = common::loopback::unused_address().unwrap().to_string();
    alone.listen = moved.clone();
    let cut_off = CancellationToken::new();
    let running = tokio::spawn(raft::run(alone, cut_off.clone()));

    let mut urls = group.urls();
    urls[0] = format!("http://{moved}");
    let view = raft::client::RegistryClient::new(&urls, &common::tls::Tls::plain())
        .unwrap()
        .watch(CancellationToken::new());
    tokio::time::timeout(support::DEADLINE, view.synced()).await.unwrap();
    create_shows(&client, 5).await;
    sees(&view, 10).await;
    cut_off.cancel();
    running.await.unwrap().unwrap();
}
