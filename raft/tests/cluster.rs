//! Three real voters on real files and sockets: what was acknowledged stays, whoever is lost.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use std::time::{Duration, Instant};

use common::ShowId;
use common::proto::registry::registry_client::RegistryClient as GrpcClient;
use common::proto::registry::{CreateShowRequest, OpenSessionRequest, TicketKey};
use raft::client::{RegistryClient, RegistryError};
use support::{Group, create_shows, new_show, region, until};
use tokio_util::sync::CancellationToken;
use tonic::Code;

async fn assert_all_there(client: &RegistryClient, shows: &[ShowId]) {
    for id in shows {
        assert!(client.get_show(*id).await.unwrap().is_some(), "{id} was acknowledged and is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaders_stop_loses_nothing_and_its_return_heals() {
    let mut group = Group::started(3, |_| {});
    let client = group.client();
    let mut shows = create_shows(&client, 60).await;
    let record = client.get_show(shows[0]).await.unwrap().unwrap();
    assert_eq!(record.replicas, ["ap", "eu", "us"].map(region), "every region that holds a voter");
    assert_eq!(client.get_show(new_show("eu")).await.unwrap(), None);

    let lost = group.leader().await;
    group.voters[lost].stop().await;
    let begun = Instant::now();
    shows.extend(create_shows(&client, 60).await);
    println!("shows were created again {:?} after the leader's stop", begun.elapsed());
    assert_ne!(group.leader().await, lost);

    group.voters[lost].start();
    group.status_when(lost, |s| s.shows == 120 && !s.leader.is_empty()).await;
    // Through the returned voter alone, which forwards.
    assert_all_there(&group.voters[lost].client(), &shows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_voter_comes_back_from_what_its_disk_holds() {
    let mut group = Group::started(3, |_| {});
    let client = group.client();
    let eu = region("eu");
    let first = client.open_session(&eu, "http://eu-0", "", vec![]).await.unwrap();
    let mut shows = create_shows(&client, 30).await;
    for _ in 0..3 {
        let killed = group.leader().await;
        group.settled().await;
        group.voters[killed].kill();
        shows.extend(create_shows(&client, 30).await);
        group.voters[killed].start();
        group.status_when(killed, |s| s.shows == shows.len() as u64).await;
    }
    group.settled().await;
    // All at once: what is left is only what was flushed.
    group.voters.iter_mut().for_each(|v| v.kill());
    group.voters.iter_mut().for_each(|v| v.start());
    group.leader().await;
    assert_all_there(&client, &shows).await;
    let second = client.open_session(&eu, "http://eu-0", "", vec![]).await.unwrap();
    assert!(second > first, "session numbers only grow: {first}, {second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_lags_behind_the_log_is_brought_up_by_a_snapshot() {
    let mut group = Group::started(3, |config| {
        config.snapshot_every_entries = 20;
        config.keep_entries = 4;
    });
    let client = group.client();
    let lagging = (group.leader().await + 1) % 3;
    group.voters[lagging].stop().await;
    let mut shows = Vec::new();
    for _ in 0..150 {
        // One after the other, so that each is an entry of its own.
        shows.extend(create_shows(&client, 1).await);
    }
    group.voters[lagging].start();
    group.status_when(lagging, |s| s.shows == 150).await;

    // From its snapshots the whole group comes back too, and at other addresses.
    for voter in &mut group.voters {
        voter.stop().await;
    }
    group.move_house();
    group.voters.iter_mut().for_each(|v| v.start());
    group.leader().await;
    let client = group.client();
    assert_all_there(&client, &shows).await;
    shows.extend(create_shows(&client, 5).await);
    assert_all_there(&group.voters[lagging].client(), &shows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_promised_and_it_is_said() {
    let mut group = Group::started(3, |_| {});
    let client = group.client();
    let shows = create_shows(&client, 5).await;
    let left = group.leader().await;
    until("readiness", async || group.voters[left].ops("/readyz").await.filter(|a| a.0 == 200)).await;
    for other in [(left + 1) % 3, (left + 2) % 3] {
        group.voters[other].stop().await;
    }
    let begun = Instant::now();
    let alone = group.voters[left].client();
    let id = new_show("eu");
    assert!(matches!(alone.create_show(id, &region("eu")).await, Err(RegistryError::Unavailable(_))));
    assert!(matches!(alone.get_show(shows[0]).await, Err(RegistryError::Unavailable(_))));
    assert!(begun.elapsed() < Duration::from_secs(20), "every call has a deadline");
    let status = group.status_when(left, |s| s.leader.is_empty()).await;
    assert_eq!(status.shows, 5);
    let (_, body) =
        until("unreadiness", async || group.voters[left].ops("/readyz").await.filter(|a| a.0 == 503)).await;
    assert!(body.contains("leader: "), "{body}");

    group.voters[(left + 1) % 3].start();
    group.leader().await;
    let record = client.create_show(id, &region("eu")).await.unwrap();
    assert_eq!(record.epoch, 1);
    assert_all_there(&client, &shows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_arrive_together_share_log_entries() {
    let group = Group::started(3, |_| {});
    let client = group.client();
    let before = group.leader().await;
    let before = group.status_when(before, |_| true).await.last_log_index;
    let begun = Instant::now();
    create_shows(&client, 2000).await;
    let took = begun.elapsed();
    let leader = group.leader().await;
    let entries = group.status_when(leader, |s| s.shows == 2000).await.last_log_index - before;
    println!("2000 shows in {took:?} and {entries} entries");
    assert!(entries < 500, "{entries} entries for 2000 shows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_voter_is_a_group() {
    let mut group = Group::started(1, |_| {});
    let client = group.client();
    let id = new_show("eu");
    let record = client.create_show(id, &region("eu")).await.unwrap();
    assert_eq!(record.replicas, [region("eu")]);
    group.voters[0].stop().await;
    group.voters[0].start();
    assert_eq!(client.get_show(id).await.unwrap(), Some(record));
    let status = client.status().await.unwrap();
    assert_eq!((status.node.as_str(), status.leader.as_str(), status.shows), ("eu", "eu", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_repeats_are_harmless() {
    let group = Group::started(3, |_| {});
    let client = group.client();
    let mars = client.create_show(new_show("mars"), &region("mars")).await;
    assert!(matches!(mars, Err(RegistryError::Refused(_))), "{mars:?}");

    // A region that has no voter owns shows once one of its processes has announced itself.
    client.open_session(&region("mars"), "http://mars-0", "", vec![]).await.unwrap();
    let record = client.create_show(new_show("mars"), &region("mars")).await.unwrap();
    assert_eq!(record.replicas, ["ap", "eu", "mars", "us"].map(region));

    let mut raw = GrpcClient::connect(group.voters[0].url()).await.unwrap();
    let bad_show = CreateShowRequest { show_id: "mov_1".into(), home: "eu".into(), replicas: vec![] };
    assert_eq!(raw.create_show(bad_show).await.unwrap_err().code(), Code::InvalidArgument);
    let mut open = OpenSessionRequest {
        region: "eu".into(),
        http_url: "http://eu-0".into(),
        grpc_url: String::new(),
        ticket_keys: vec![TicketKey { kid: "k".into(), public_key: vec![1; 31].into() }],
        attempt: "one".into(),
    };
    assert_eq!(raw.open_session(open.clone()).await.unwrap_err().code(), Code::InvalidArgument);
    open.ticket_keys[0].public_key = vec![1; 32].into();
    let first = raw.open_session(open.clone()).await.unwrap().into_inner().no;
    let again = raw.open_session(open.clone()).await.unwrap().into_inner().no;
    assert_eq!(first, again, "a repeated attempt is the same session");
    open.attempt = "two".into();
    assert!(raw.open_session(open).await.unwrap().into_inner().no > first);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_voters_directory_is_refused() {
    let mut group = Group::started(3, |_| {});
    group.leader().await;
    group.voters[0].stop().await;
    let mut config = group.voters[1].config.clone();
    config.data_dir = group.voters[0].config.data_dir.clone();
    (config.listen, config.ops_listen) =
        (group.voters[0].config.listen.clone(), group.voters[0].config.ops_listen.clone());
    let error = raft::run(config, CancellationToken::new()).await.unwrap_err();
    assert!(format!("{error:#}").contains("belongs to voter 1"), "{error:#}");
}
