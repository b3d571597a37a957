//! Seat maps that are answered past the layers are answered as the layers would; halls are booked once.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use common::authz::Permission;
use common::http::{Edge, serve_behind, with_edge};
use common::{HallId, ShowId};
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{PERMISSIONS, booking, ready_maps};
use crate::app::App;
use crate::host::tests::{database, process_with, show, wish};

async fn serving(app: &App, edge: &Edge, routes: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ready, routes) = (ready_maps(app, edge), with_edge(routes, edge.clone()));
    tokio::spawn(serve_behind(ready, listener, routes, CancellationToken::new(), Duration::ZERO));
    address
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = reqwest::Client::new().get(format!("http://{address}{path}"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    Answer { status, headers, body: answer.text().await.unwrap() }
}

/// All that a reader sees, but what is another for each request.
fn seen(answer: &Answer) -> (StatusCode, Vec<(String, String)>, String) {
    let own = |name: &str| ["date", "x-request-id"].contains(&name);
    let told = answer.headers.iter().filter(|(name, _)| !own(name.as_str()));
    let mut told: Vec<(String, String)> =
        told.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    told.sort();
    (answer.status, told, answer.body.clone())
}

#[test]
fn what_is_answered_past_the_layers_needs_no_permission() {
    let stated: Vec<_> = PERMISSIONS.iter().filter(|(_, path, _)| path.ends_with("/seats")).collect();
    assert_eq!(stated, [&("GET", "/v1/shows/{id}/seats", Permission::Public)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_is_the_same_past_the_layers_and_through_them() {
    let (_server, url) = database(false).await;
    let app = process_with(&url, 1, "").await;
    let id = show(&app).await;
    let edge = Edge::new("regional", Some(app.region())).unwrap();
    let whole = serving(&app, &edge, crate::router(&app).unwrap().0).await;
    // Behind this one are no routes: what it answers was ready.
    let bare = serving(&app, &edge, Router::new()).await;
    let path = format!("/v1/shows/{id}/seats");
    let ready = async |query: &str, headers: &[(&str, &str)]| {
        let answer = get(bare, &format!("{path}{query}"), headers).await;
        (answer.status != StatusCode::NOT_FOUND).then_some(answer)
    };

    assert!(ready("", &[]).await.is_none(), "nobody has asked for it yet");
    for query in ["", "?format=full", "?format=compact", "?format=layout"] {
        for coding in ["identity", "gzip"] {
            let asked = [("accept-encoding", coding)];
            // Asked for in an unusual way it goes through the layers, where it is rendered.
            let separator = if query.is_empty() { "?" } else { "&" };
            let layers = get(whole, &format!("{path}{query}{separator}"), &asked).await;
            assert_eq!(layers.status, StatusCode::OK);
            let past = ready(query, &asked).await.unwrap();
            assert_eq!(seen(&past), seen(&layers), "{query} {coding}");
            assert_eq!(
                (&past.headers["x-region"], past.headers.contains_key("x-as-of")),
                (&"eu".parse().unwrap(), true)
            );
            let tag = past.headers["etag"].to_str().unwrap();
            let asked = [("accept-encoding", coding), ("if-none-match", tag)];
            let layers = get(whole, &format!("{path}{query}{separator}"), &asked).await;
            assert_eq!(layers.status, StatusCode::NOT_MODIFIED);
            assert_eq!(seen(&ready(query, &asked).await.unwrap()), seen(&layers), "{query} {coding}");
        }
    }

    let id_of = async |given: &str| {
        let answer = ready("", &[("x-request-id", given)]).await.unwrap();
        answer.headers["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id_of("req_mine").await, "req_mine");
    let long = "x".repeat(129);
    for made in [id_of(&long).await, id_of("").await] {
        assert!(made.starts_with("req_") && made.len() == 36, "{made}");
    }

    assert!(ready("", &[("cache-control", "no-cache")]).await.is_none());
    assert!(ready("?format=other", &[]).await.is_none());
    let counted = || {
        let told = prometheus::TextEncoder::new().encode_to_string(&prometheus::gather()).unwrap();
        let line = r#"marquee_http_requests_total{code="200",method="GET",route="/v1/shows/{id}/seats"} "#;
        told.lines().find_map(|told| told.strip_prefix(line)?.parse::<u64>().ok())
    };
    let before = counted().unwrap();
    get(whole, &path, &[]).await;
    ready("", &[]).await.unwrap();
    assert_eq!(counted(), Some(before + 2));

    app.hosts.ask(id, wish(id, "A3", None)).await.unwrap();
    assert!(ready("", &[]).await.is_none(), "what was rendered before the change is nobody's answer");
    assert!(get(whole, &path, &[]).await.body.contains("\"held\""));
    assert!(ready("", &[]).await.unwrap().body.contains("\"held\""));
    app.hosts.retire();
    assert!(ready("", &[]).await.is_none(), "no longer led here");
}

/// Many at once for one hall and overlapping times. Without a lock nearly every round of these ended in a
/// deadlock that Postgres broke by failing somebody.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_bookings_at_once_one_is_made_and_the_others_are_told_why() {
    let (_server, url) = database(false).await;
    let app = process_with(&url, 1, "").await;
    let region = app.region().clone();
    for round in 0..20 {
        let (hall, at) = (HallId::new(&region), Timestamp::now() + SignedDuration::from_hours(round));
        let mut asked = JoinSet::new();
        for minute in 0..8 {
            let (app, show) = (app.clone(), ShowId::new(&region));
            let starts = at + SignedDuration::from_mins(minute);
            asked.spawn(async move {
                booking::book(&app, show, hall, starts, starts + SignedDuration::from_hours(2)).await
            });
        }
        let answers = asked.join_all().await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
        assert!(refused.clone().all(|problem| problem.code == "hall-busy"), "{answers:?}");
    }
}

/// A change that is asked for again, and a show that moves within the time it has: neither is in its own way.
#[tokio::test(flavor = "multi_thread")]
async fn a_show_is_not_in_its_own_way() {
    let (_server, url) = database(false).await;
    let app = process_with(&url, 1, "").await;
    let (hall, show) = (HallId::new(app.region()), ShowId::new(app.region()));
    let at = Timestamp::now();
    for starts in [at, at, at + SignedDuration::from_mins(30)] {
        booking::book(&app, show, hall, starts, starts + SignedDuration::from_hours(2)).await.unwrap();
    }
    let bookings = "SELECT count(*) FROM hall_bookings WHERE show_id = $1";
    let count = async || {
        app.pool.get().await.unwrap().query_one(bookings, &[&show.0]).await.unwrap().get::<_, i64>(0)
    };
    assert_eq!(count().await, 2);
    booking::keep_one(&app, show, at).await;
    assert_eq!(count().await, 1);
    booking::free(&app, show).await;
    assert_eq!(count().await, 0);
}
