//! The rendered map against the obvious one, codings and conditions, and what watchers hear under load.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use common::http::Conditions;
use flate2::read::GzDecoder;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::wire::*;
use super::*;
use crate::show::{Created, Event as ShowEvent, Group, tests::facts};

fn metrics() -> Metrics {
    Metrics::new(&prometheus::Registry::new()).unwrap()
}

fn show_of(facts: Created) -> Show {
    let events = vec![ShowEvent::Created(Box::new(facts))];
    let group = Group { at: Timestamp::now(), by: None, key: None, trace: None, from: None, events };
    Show::fold(None, 1, &[group]).unwrap().unwrap()
}

fn live_of(show: &Show) -> Arc<Live> {
    Live::new(3, show.seq - 1, show, Publisher::default(), Arc::default(), metrics())
}

/// The change that an entry makes: `seats` are then `status`.
fn turn(live: &Arc<Live>, seq: u64, seats: &[u32], status: SeatStatus) {
    live.change(seq, Timestamp::now(), seats.iter().map(|seat| (*seat as usize, status)));
}

/// What serde makes of the same map: slow, and plainly right.
fn obvious(show: &Show, live: &Live, seats: &[SeatStatus]) -> Value {
    let plan = &show.plan;
    let seats = plan.places().zip(seats).map(|(place, status)| SeatView {
        seat: place.name,
        kind: place.kind,
        status: *status,
        prices: plan
            .facts
            .prices
            .iter()
            .filter(|p| p.seat_type == place.kind)
            .map(|p| CategoryPrice { category: &p.category, amount: plan.money(p.amount) })
            .collect(),
    });
    let map =
        SeatMap { show_id: plan.facts.show, epoch: live.epoch, seq: live.seq(), seats: seats.collect() };
    serde_json::to_value(map).unwrap()
}

fn conditions(none_match: Option<&str>) -> Conditions {
    let given = none_match.map(|tag| (http::header::IF_NONE_MATCH, HeaderValue::from_str(tag).unwrap()));
    Conditions::of(&given.into_iter().collect())
}

async fn get(live: &Live, form: Form, coding: Coding, none_match: Option<&str>) -> Response<Bytes> {
    live.version().answer(live, form, coding, &conditions(none_match)).await
}

fn body(response: Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

fn header(response: &Response<Bytes>, name: &str) -> String {
    response.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn the_rendered_map_is_what_serde_would_make_of_it() {
    let mut facts = facts();
    facts.rows[1].row = "Ré\"ng\\ \u{1}".into();
    let show = show_of(facts);
    let live = live_of(&show);
    let mut seats = vec![SeatStatus::Free; 8];
    let all = [SeatStatus::Held, SeatStatus::Sold, SeatStatus::Blocked, SeatStatus::Free];
    for (seq, status) in (2..).zip(all) {
        let seat = seq as usize % 8;
        seats[seat] = status;
        turn(&live, seq, &[seat as u32], status);
        let full = body(get(&live, Form::Full, Coding::Identity, None).await);
        assert_eq!(full, obvious(&show, &live, &seats));
        let compact = body(get(&live, Form::Compact, Coding::Identity, None).await);
        let letters: String = seats.iter().map(|s| letter(*s)).collect();
        assert_eq!((&compact["statuses"], &compact["seq"]), (&json!(letters), &full["seq"]));
        let layout = body(get(&live, Form::Layout, Coding::Identity, None).await);
        let names = |map: &Value| -> Vec<Value> {
            map["seats"].as_array().unwrap().iter().map(|s| s["seat"].clone()).collect()
        };
        assert_eq!(names(&layout), names(&full), "a letter's place tells its seat");
        let tag = header(&get(&live, Form::Layout, Coding::Identity, None).await, "etag");
        assert_eq!(compact["layout"], tag.trim_matches('"'), "the map names its layout");
    }
}

#[tokio::test]
async fn a_version_is_rendered_once_and_told_apart_by_its_tags() {
    let mut facts = facts();
    let seats = facts.rows[1].seats[0].clone();
    facts.rows[1].seats = (1..=200).map(|number| crate::show::PlanSeat { number, ..seats.clone() }).collect();
    let show = show_of(facts);
    let live = live_of(&show);
    let plain = get(&live, Form::Full, Coding::Identity, None).await;
    let packed = get(&live, Form::Full, Coding::Gzip, None).await;
    let tags = [header(&plain, "etag"), header(&packed, "etag")];
    assert_ne!(tags[0], tags[1], "other bytes, another tag");
    assert_eq!(
        (header(&packed, "content-encoding"), header(&packed, "vary")),
        ("gzip".into(), "accept-encoding".into())
    );
    assert_eq!(header(&plain, "vary"), "accept-encoding");
    let (plain, packed) = (plain.into_body(), packed.into_body());
    let mut unpacked = Vec::new();
    GzDecoder::new(&*packed).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
    assert!(packed.len() * 5 < plain.len());
    // The same memory, not a copy.
    assert_eq!(get(&live, Form::Full, Coding::Identity, None).await.body().as_ptr(), plain.as_ptr());
    for tag in &tags {
        for given in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let answer = get(&live, Form::Full, Coding::Gzip, Some(&given)).await;
            assert_eq!(answer.status(), StatusCode::NOT_MODIFIED, "{given}");
            assert!(!header(&answer, "etag").is_empty() && !header(&answer, "x-as-of").is_empty());
        }
    }
    turn(&live, 2, &[5], SeatStatus::Held);
    let next = get(&live, Form::Full, Coding::Identity, Some(&tags[0])).await;
    assert_eq!(next.status(), StatusCode::OK);
    // An entry that changes no seat is no new version.
    turn(&live, 3, &[5], SeatStatus::Held);
    let again = get(&live, Form::Full, Coding::Identity, Some(&header(&next, "etag"))).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(live.metrics.seat_maps.rendered.get(), 2, "once a version");
}

#[test]
fn gzip_is_sent_to_whom_takes_it() {
    for (accept, expected) in [
        ("gzip", Coding::Gzip),
        ("br, GZIP;q=0.5", Coding::Gzip),
        ("gzip;q=0", Coding::Identity),
        ("gzip; q=0.0, br", Coding::Identity),
        ("identity", Coding::Identity),
        ("", Coding::Identity),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("accept-encoding", HeaderValue::from_static(accept));
        assert_eq!(Coding::accepted(&headers), expected, "{accept:?}");
    }
    assert_eq!(Coding::accepted(&HeaderMap::new()), Coding::Identity);
}

/// The next event of a watcher's stream: its name, id, and data.
async fn heard(stream: &mut axum::body::BodyDataStream) -> Option<(String, u64, Value)> {
    let next = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("an event");
    let text = String::from_utf8(next?.unwrap().to_vec()).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_default().to_owned()
    };
    let seq = field("id").split_once('.').unwrap().1.parse().unwrap();
    Some((field("event"), seq, serde_json::from_str(&field("data")).unwrap()))
}

fn listen(live: &Arc<Live>, seen: Option<u64>) -> axum::body::BodyDataStream {
    Body::new(live.watch(seen, false).unwrap().stream(live.metrics.clone())).into_data_stream()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_watcher_ends_with_the_state_however_fast_it_changes() {
    let show = show_of(facts());
    let live = live_of(&show);
    let mut watchers: Vec<_> = (0..50).map(|_| listen(&live, None)).collect();
    for watcher in &mut watchers {
        assert_eq!(heard(watcher).await.unwrap().0, "snapshot");
    }
    let last = 2_000;
    let writer = {
        let live = live.clone();
        tokio::spawn(async move {
            let all = [SeatStatus::Held, SeatStatus::Sold, SeatStatus::Free];
            for seq in 2..=last {
                turn(&live, seq, &[(seq % 8) as u32], all[(seq / 8) as usize % 3]);
                if seq.is_multiple_of(100) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        })
    };
    let mut frames = 0;
    for watcher in &mut watchers {
        let (mut at, mut seats) = (1, std::collections::BTreeMap::new());
        while at < last {
            let (kind, seq, data) = heard(watcher).await.unwrap();
            assert!(kind == "change" && seq > at, "{kind} {seq} after {at}");
            (at, frames) = (seq, frames + 1);
            for seat in data["seats"].as_array().unwrap() {
                seats.insert(seat["seat"].to_string(), seat["status"].clone());
            }
        }
        let map = body(get(&live, Form::Full, Coding::Identity, None).await);
        for seat in map["seats"].as_array().unwrap() {
            assert_eq!(seats[&seat["seat"].to_string()], seat["status"]);
        }
    }
    writer.await.unwrap();
    assert!(frames < 50 * 200, "{frames} events to 50 watchers for 2,000 changes");
    assert_eq!(live.metrics.watchers.get(), 50);
    drop(watchers);
    assert_eq!((live.metrics.watchers.get(), live.watchers()), (0, 0));
}

#[tokio::test]
async fn whoever_comes_back_hears_what_it_missed_and_nothing_twice() {
    let show = show_of(facts());
    let live = live_of(&show);
    for seq in 2..=5 {
        turn(&live, seq, &[seq as u32], SeatStatus::Held);
    }
    // In the middle: the two changes after; at the end: only what comes; before the beginning: everything.
    let (kind, seq, data) = heard(&mut listen(&live, Some(3))).await.unwrap();
    assert_eq!((kind.as_str(), seq), ("change", 5));
    assert_eq!(data["seats"], json!([{"seat": "B1", "status": "held"}, {"seat": "B2", "status": "held"}]));
    let mut current = listen(&live, Some(5));
    turn(&live, 6, &[0], SeatStatus::Sold);
    let (kind, seq, data) = heard(&mut current).await.unwrap();
    assert_eq!(
        (kind.as_str(), seq, &data["seats"]),
        ("change", 6, &json!([{"seat": "A1", "status": "sold"}]))
    );
    for unknown in [None, Some(99)] {
        assert_eq!(heard(&mut listen(&live, unknown)).await.unwrap().0, "snapshot");
    }
    let later = Live::new(4, 5, &show, Publisher::default(), Arc::default(), metrics());
    assert_eq!(heard(&mut listen(&later, Some(2))).await.unwrap().0, "snapshot", "unknown to a new leader");
}

#[tokio::test]
async fn the_slow_are_let_go_and_the_end_is_told() {
    let show = show_of(facts());
    let live = live_of(&show);
    let (mut slow, mut quick) = (listen(&live, None), listen(&live, None));
    assert_eq!(heard(&mut quick).await.unwrap().0, "snapshot");
    for seq in 2..(3 + KEPT as u64) {
        turn(&live, seq, &[0], if seq % 2 == 0 { SeatStatus::Held } else { SeatStatus::Free });
        assert_eq!(heard(&mut quick).await.unwrap().1, seq, "nobody waits for the slow one");
    }
    assert_eq!(heard(&mut slow).await.unwrap().0, "snapshot");
    assert!(heard(&mut slow).await.is_none());
    assert_eq!(live.metrics.watchers_dropped.get(), 1);
    live.end();
    assert!(heard(&mut quick).await.is_none());
    assert!(live.watch(None, false).is_none());
}
