//! A show gets another owner while it is asked for: its customers hardly notice.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use common::ShowId;
use futures::StreamExt;
use http::Response;
use serde_json::json;
use support::registry::FakeRegistry;
use support::{Fake, Reply, Running, answer, closed_port, config, eventually, not_owner, problem, region};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

fn new_show() -> ShowId {
    ShowId::new(&region("eu"))
}

/// A gateway before `eu` and `us`, which both keep the show; `eu` owns it, and `us` from [`moved`] on.
async fn gateway(show: ShowId, eu: String, us: &Fake) -> (Running, FakeRegistry) {
    let registry = FakeRegistry::default();
    registry.show(show, "eu", 1, &["eu", "us"]);
    let mut config = config(&[("eu", eu), ("us", us.url())]).await;
    config.registry_urls = vec![registry.start().await];
    let gateway = Running::start(config).await;
    eventually("the registry is heard", || async { gateway.app.ownership.epoch(show).is_some() }).await;
    (gateway, registry)
}

fn moved(registry: &FakeRegistry, show: ShowId) -> Instant {
    registry.show(show, "us", 2, &["eu", "us"]);
    Instant::now()
}

fn soon(told: Instant) {
    assert!(told.elapsed() < Duration::from_secs(2), "after {:?}", told.elapsed());
}

#[tokio::test]
async fn what_a_lost_region_cannot_take_waits_for_the_next_owner() {
    let show = new_show();
    let us = Fake::start(|got, _| answer(201, got.body.clone())).await;
    let (gateway, registry) = gateway(show, format!("http://{}", closed_port().await), &us).await;
    let path = format!("/v1/shows/{show}/check-ins");
    // No key, and none is made: nothing was sent, so waiting is safe.
    let asked: Vec<_> =
        (0..20).map(|n| tokio::spawn(gateway.post(&path).body(format!("{n}")).send())).collect();
    let held = gateway.metrics.held.clone();
    eventually("all wait", || async { held.get() >= 20 }).await;
    let told = moved(&registry, show);
    for request in asked {
        assert_eq!(request.await.unwrap().unwrap().status(), 201);
    }
    soon(told);
    assert_eq!(us.got().len(), 20);
}

#[tokio::test]
async fn who_has_one_region_is_told_at_once() {
    let show = new_show();
    let registry = FakeRegistry::default();
    registry.show(show, "eu", 1, &["eu"]);
    let mut config = config(&[("eu", format!("http://{}", closed_port().await))]).await;
    config.registry_urls = vec![registry.start().await];
    let gateway = Running::start(config).await;
    eventually("the registry is heard", || async { gateway.app.ownership.epoch(show).is_some() }).await;
    let begun = Instant::now();
    let refused = gateway.post(&format!("/v1/shows/{show}/check-ins")).body("{}").send().await.unwrap();
    assert_eq!((refused.status().as_u16(), begun.elapsed() < Duration::from_secs(5)), (503, true));
    assert_eq!(problem(refused).await["code"], "region-unavailable");
}

#[tokio::test]
async fn an_owner_that_falls_silent_is_left_for_the_next_under_the_same_key() {
    let show = new_show();
    let eu = Fake::start(|_, _| Reply::Hang).await;
    let us = Fake::ok("us").await;
    let (gateway, registry) = gateway(show, eu.url(), &us).await;
    let path = format!("/v1/shows/{show}/reservations");
    let keyed = tokio::spawn(gateway.post(&path).header("idempotency-key", "mine").body("{}").send());
    let unkeyed = gateway.post(&path).header("x-deadline-ms", "3000").body("{}").send();
    let unkeyed = tokio::spawn(unkeyed);
    eventually("both were asked", || async { eu.got().len() == 2 }).await;
    let told = moved(&registry, show);
    assert_eq!(keyed.await.unwrap().unwrap().text().await.unwrap(), "us");
    soon(told);
    assert_eq!((us.got().len(), us.got()[0].header("idempotency-key")), (1, "mine"));
    // Whether that one was carried out nobody can say.
    assert_eq!(unkeyed.await.unwrap().unwrap().status(), 504);
    assert_eq!(us.got().len(), 1);
}

#[tokio::test]
async fn a_new_owner_that_does_not_lead_yet_is_asked_again() {
    let show = new_show();
    let eu = Fake::start(|_, _| not_owner("us", 2)).await;
    let us = Fake::start(|_, n| match n {
        0..3 => support::json(503, &json!({"code": "show-unavailable", "status": 503})),
        _ => answer(201, "done"),
    })
    .await;
    let (gateway, _registry) = gateway(show, eu.url(), &us).await;
    let asked = gateway.post(&format!("/v1/shows/{show}/check-ins")).body("{}").send().await.unwrap();
    assert_eq!((asked.status().as_u16(), us.got().len()), (201, 4));
}

#[tokio::test]
async fn a_call_that_takes_a_key_gets_one_and_is_settled_under_it() {
    let show = new_show();
    let unknown = || support::json(503, &json!({"code": "outcome-unknown", "status": 503}));
    let eu = Fake::start(move |_, _| unknown()).await;
    let us = Fake::start(|_, _| {
        let replayed = Response::builder().header("idempotent-replayed", "true");
        Reply::Answer(replayed.body(Body::from("canceled")).unwrap())
    })
    .await;
    let (gateway, registry) = gateway(show, eu.url(), &us).await;
    let reservation = common::ReservationId::new(show, jiff::Timestamp::now(), 7);
    let asked = tokio::spawn(gateway.post(&format!("/v1/reservations/{reservation}/cancel")).send());
    eventually("it was asked", || async { !eu.got().is_empty() }).await;
    moved(&registry, show);
    let answered = asked.await.unwrap().unwrap();
    assert_eq!(answered.status(), 200);
    assert!(!answered.headers().contains_key("idempotent-replayed"), "the caller repeated nothing");
    let (before, after) = (eu.got(), us.got());
    let key = before[0].header("idempotency-key");
    assert!(key.starts_with("gw-") && after[0].header("idempotency-key") == key, "{key}");
}

#[tokio::test]
async fn once_an_attempt_may_have_acted_nobody_says_that_nothing_was_done() {
    let show = new_show();
    for later in ["show-unavailable", "overloaded"] {
        let eu = Fake::start(move |_, nth| match nth {
            0 => Reply::Break,
            _ => support::json(503, &json!({"code": later, "status": 503})),
        })
        .await;
        let us = Fake::start(|_, _| answer(201, "done")).await;
        let (gateway, _registry) = gateway(show, eu.url(), &us).await;
        let path = format!("/v1/shows/{show}/reservations");
        let asked = gateway.post(&path).header("idempotency-key", "k-1").body("{}").send().await.unwrap();
        assert_eq!((asked.status().as_u16(), eu.got().len() > 1), (503, true), "{later}");
        assert!(asked.headers().contains_key("retry-after"));
        assert_eq!(problem(asked).await["code"], "outcome-unknown", "{later}");
    }
}

fn event(seq: u64) -> String {
    format!("id: 1.{seq}\nevent: change\ndata: {{\"n\":{seq}}}\n\n")
}

fn stream(
    parts: impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
) -> Response<Body> {
    Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(parts)).unwrap()
}

/// Events from after the one that the watcher has seen, up to `upto`; then nothing more comes.
fn from_last(got: &support::Got, upto: u64) -> Reply {
    let seen: u64 = got.header("last-event-id").rsplit('.').next().unwrap().parse().unwrap_or(0);
    let parts = (seen + 1..=upto).map(|seq| Ok(Bytes::from(event(seq))));
    Reply::Answer(stream(futures::stream::iter(parts).chain(futures::stream::pending())))
}

/// The numbers of the events that a client gets, until there are `count`.
async fn numbers(response: &mut reqwest::Response, count: usize) -> Vec<u64> {
    let mut text = String::new();
    let begun = Instant::now();
    while text.matches("\n\n").count() < count {
        assert!(begun.elapsed() < Duration::from_secs(20), "only {text}");
        let chunk = tokio::time::timeout(Duration::from_secs(20), response.chunk()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk.expect("the stream goes on")).unwrap());
    }
    text.split("\n\n")
        .filter(|event| !event.is_empty())
        .map(|event| {
            assert!(event.starts_with("id: 1.") && event.contains("\ndata: {"), "a whole event: {event:?}");
            event[6..event.find('\n').unwrap()].parse().unwrap()
        })
        .collect()
}

#[tokio::test]
async fn a_stream_goes_on_at_the_next_owner_with_nothing_lost_or_doubled() {
    let show = new_show();
    // Ends in the middle of the fourth event.
    let torn = || {
        let text = format!("{}{}{}{}", event(1), event(2), event(3), &event(4)[..20]);
        let (first, rest) = text.split_at(45);
        let parts = [first.to_owned(), rest.to_owned()].map(|part| Ok(Bytes::from(part)));
        // Once its head is on its way: before, it would be no stream that broke.
        let broken = futures::stream::once(async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Err(std::io::Error::other("gone"))
        });
        stream(futures::stream::iter(parts).chain(broken))
    };
    let eu = Fake::start(move |_, n| match n {
        0 => Reply::Answer(torn()),
        _ => not_owner("us", 2),
    })
    .await;
    let us = Fake::start(|got, _| from_last(got, 6)).await;
    let (gateway, _registry) = gateway(show, eu.url(), &us).await;
    let resumed = gateway.metrics.resumed.get();
    let mut response = gateway.get(&format!("/v1/shows/{show}/seats/events")).send().await.unwrap();
    assert_eq!(numbers(&mut response, 6).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(us.got()[0].header("last-event-id"), "1.3");
    assert!(gateway.metrics.resumed.get() > resumed);
}

#[tokio::test]
async fn a_stream_leaves_an_owner_that_is_cut_off_and_silent() {
    let show = new_show();
    let eu = Fake::start(|got, _| from_last(got, 2)).await;
    let us = Fake::start(|got, _| from_last(got, 4)).await;
    let (gateway, registry) = gateway(show, eu.url(), &us).await;
    let mut response = gateway.get(&format!("/v1/shows/{show}/seats/events")).send().await.unwrap();
    assert_eq!(numbers(&mut response, 2).await, [1, 2]);
    assert!(us.got().is_empty());
    moved(&registry, show);
    assert_eq!(numbers(&mut response, 2).await, [3, 4]);
    assert_eq!((eu.got().len(), us.got().len()), (1, 1));
}

#[tokio::test]
async fn a_stream_ends_when_its_show_has_and_is_not_held_for_a_client_that_left() {
    let show = new_show();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let eu = Fake::start(move |_, n| {
        count.store(n + 1, Ordering::SeqCst);
        match n {
            0 => Reply::Answer(stream(futures::stream::iter([Ok(Bytes::from(event(1)))]))),
            _ => support::json(410, &json!({"code": "show-archived", "status": 410})),
        }
    })
    .await;
    let us = Fake::ok("us").await;
    let (gateway, _registry) = gateway(show, eu.url(), &us).await;
    let mut response = gateway.get(&format!("/v1/shows/{show}/seats/events")).send().await.unwrap();
    assert_eq!(numbers(&mut response, 1).await, [1]);
    assert!(response.chunk().await.unwrap().is_none(), "it ends");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn those_who_watch_the_same_hear_one_stream_of_the_service() {
    let show = new_show();
    let (live, _) = broadcast::channel::<Bytes>(64);
    let last = Arc::new(AtomicU64::new(1));
    let (source, upto) = (live.clone(), last.clone());
    let eu = Fake::start(move |got, _| {
        let seen: u64 = got.header("last-event-id").rsplit('.').next().unwrap().parse().unwrap_or(0);
        let next = BroadcastStream::new(source.subscribe()).map(|event| event.map_err(std::io::Error::other));
        let before = (seen + 1..=upto.load(Ordering::SeqCst)).map(|seq| Ok(Bytes::from(event(seq))));
        Reply::Answer(stream(futures::stream::iter(before.collect::<Vec<_>>()).chain(next)))
    })
    .await;
    let us = Fake::ok("us").await;
    let (gateway, _registry) = gateway(show, eu.url(), &us).await;
    let path = format!("/v1/shows/{show}/seats/events");
    let tell = |seq: u64| {
        last.store(seq, Ordering::SeqCst);
        live.send(event(seq).into()).unwrap();
    };
    let one_is_left =
        async || eventually("one stream is left", || async { live.receiver_count() == 1 }).await;

    let mut first = gateway.get(&path).send().await.unwrap();
    assert_eq!(numbers(&mut first, 1).await, [1]);
    let mut second = gateway.get(&path).send().await.unwrap();
    assert_eq!(numbers(&mut second, 1).await, [1]);
    one_is_left().await;
    (2..=3).for_each(tell);
    assert_eq!((numbers(&mut first, 2).await, numbers(&mut second, 2).await), (vec![2, 3], vec![2, 3]));

    // Who comes back hears what it missed, and then the same as the others.
    let mut back = gateway.get(&path).header("last-event-id", "1.2").send().await.unwrap();
    assert_eq!(numbers(&mut back, 1).await, [3]);
    one_is_left().await;
    // The one whose stream it was goes; nobody else notices.
    drop(first);
    tell(4);
    assert_eq!((numbers(&mut second, 1).await, numbers(&mut back, 1).await), (vec![4], vec![4]));
    // The same in another form is another stream.
    let mut compact = gateway.get(&format!("{path}?format=compact")).send().await.unwrap();
    assert_eq!(numbers(&mut compact, 4).await, [1, 2, 3, 4]);
    tell(5);
    assert_eq!(numbers(&mut compact, 1).await, [5]);
    assert_eq!((live.receiver_count(), eu.got().len()), (2, 4));
    drop((second, back, compact));
    eventually("nothing is held for those who left", || async { live.receiver_count() == 0 }).await;
}
