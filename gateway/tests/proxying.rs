//! What goes to which service, with which headers, and what happens when a service is not there.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use common::{CinemaId, HallId, ShowId, TicketId};
use http::{Method, Response};
use jiff::Timestamp;
use support::{
    Fake, Reply, Running, answer, closed_port, config, eventually, json, not_owner, problem, region,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A gateway of `eu` in front of three fakes that say their names.
async fn three() -> (Fake, Fake, Fake, Running) {
    let (global, eu, us) = (Fake::ok("global").await, Fake::ok("eu").await, Fake::ok("us").await);
    let mut config = config(&[("eu", eu.url()), ("us", us.url())]).await;
    config.global_url = global.url();
    let gateway = Running::start(config).await;
    (global, eu, us, gateway)
}

#[tokio::test]
async fn every_kind_of_path_reaches_its_service() {
    let (_global, _eu, _us, gateway) = three().await;
    let (eu, us) = (region("eu"), region("us"));
    let show = ShowId::new(&us);
    let ticket = TicketId::new(show, Timestamp::now(), 1);
    for (method, path, pinned, expected) in [
        ("GET", "/.well-known/jwks.json".to_owned(), None, "global"),
        ("POST", "/v1/auth/token".to_owned(), None, "global"),
        ("PUT", "/v1/users/usr_1/roles".to_owned(), None, "global"),
        ("GET", "/v1/movies?q=x".to_owned(), None, "eu"),
        ("GET", "/v1/movies?q=x".to_owned(), Some("us"), "us"),
        ("POST", "/v1/movies".to_owned(), Some("us"), "global"),
        ("DELETE", "/v1/movies/mov_1".to_owned(), None, "global"),
        ("POST", "/v1/movies/import".to_owned(), None, "global"),
        ("GET", "/v1/cinemas".to_owned(), None, "eu"),
        ("POST", "/v1/cinemas".to_owned(), Some("us"), "us"),
        ("GET", format!("/v1/cinemas/{}", CinemaId::new(&us)), None, "us"),
        ("GET", format!("/v1/cinemas/{}", CinemaId::new(&eu)), Some("us"), "eu"),
        ("POST", format!("/v1/cinemas/{}/halls", CinemaId::new(&us)), None, "us"),
        ("PUT", format!("/v1/halls/{}/layout", HallId::new(&us)), None, "us"),
        ("GET", format!("/v1/shows?cinema_id={}", CinemaId::new(&us)), None, "us"),
        ("GET", format!("/v1/shows?from=x&hall_id={}", HallId::new(&us)), None, "us"),
        ("GET", "/v1/shows".to_owned(), None, "eu"),
        ("GET", format!("/v1/shows/{show}"), None, "us"),
        ("GET", format!("/v1/shows/{show}/seats/events"), None, "us"),
        ("GET", "/v1/shows/nonsense".to_owned(), None, "eu"),
        ("GET", format!("/v1/shows/{}", ShowId::new(&region("gone"))), None, "eu"),
        ("POST", "/v1/reservations".to_owned(), None, "eu"),
        ("GET", "/v1/cluster".to_owned(), Some("us"), "us"),
        ("GET", format!("/v1/tickets/{ticket}"), None, "us"),
        ("GET", format!("/v1/tickets/{ticket}.svg"), None, "us"),
        ("GET", "/v1/tickets/keys".to_owned(), None, "eu"),
        ("POST", "/v1/webhooks/payments/test".to_owned(), None, "eu"),
    ] {
        let method = method.parse().unwrap();
        let mut request = gateway.http.request(method, format!("{}{path}", gateway.url));
        if let Some(pinned) = pinned {
            request = request.header("x-region", pinned);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.text().await.unwrap(), expected, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_of_the_gateway() {
    let (global, eu, us, gateway) = three().await;
    let unknown = problem(gateway.get("/v1/nothing").send().await.unwrap()).await;
    assert_eq!((unknown["status"].as_u64(), unknown["code"].as_str()), (Some(404), Some("not-found")));
    let internal = gateway.get("/openapi.json").send().await.unwrap();
    assert_eq!(internal.status(), 404);
    let method = problem(gateway.post("/v1/regions").send().await.unwrap()).await;
    assert_eq!(method["code"], "method-not-allowed");
    for path in ["/v1/movies", "/v1/regions", "/v1/regions/nearest", "/v1/reservations", "/v1/me"] {
        let request = gateway.get(path).header("x-region", "atlantis");
        let body = problem(request.send().await.unwrap()).await;
        assert_eq!(
            (body["status"].as_u64(), body["code"].as_str()),
            (Some(422), Some("unknown-region")),
            "{path}"
        );
    }
    assert!(global.got().is_empty() && eu.got().is_empty() && us.got().is_empty());
}

#[tokio::test]
async fn headers_of_one_hop_end_here() {
    let eu = Fake::start(|_, _| {
        let response = Response::builder()
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("x-request-id", "theirs")
            .header("x-region", "eu")
            .header("x-show-epoch", "7")
            .header("etag", "\"1\"");
        Reply::Answer(response.body(Body::from("ok")).unwrap())
    })
    .await;
    let gateway = Running::start(config(&[("eu", eu.url())]).await).await;
    let mut stream = tokio::net::TcpStream::connect(gateway.addr).await.unwrap();
    let request = "GET /v1/movies?q=a%20b HTTP/1.1\r\nhost: marquee.example\r\nconnection: close, x-drop-me\r\n\
        x-drop-me: 1\r\nte: trailers\r\nupgrade: h2c\r\nproxy-authorization: Basic eDp5\r\nkeep-alive: 1\r\n\
        x-forwarded-for: 1.2.3.4\r\nx-real-ip: 1.2.3.4\r\nx-forwarded-host: evil.example\r\nforwarded: for=1.2.3.4\r\n\
        x-request-id: mine\r\nauthorization: Bearer t\r\nx-region: eu\r\nidempotency-key: k\r\n\
        traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let answer = answer.to_lowercase();

    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    for kept in
        ["x-request-id: mine", "x-region: eu", "x-show-epoch: 7", "etag: \"1\"", "ratelimit: \"read\";r="]
    {
        assert!(answer.contains(kept), "{kept}: {answer}");
    }
    for ended in ["x-private", "keep-alive: timeout", "theirs"] {
        assert!(!answer.contains(ended), "{ended}: {answer}");
    }
    let got = eu.got().remove(0);
    assert_eq!(got.uri.to_string(), "/v1/movies?q=a%20b");
    assert_eq!(got.header("host"), eu.addr.to_string());
    assert_eq!(got.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(got.header("x-real-ip"), "127.0.0.1");
    assert_eq!(got.header("x-request-id"), "mine");
    assert_eq!(got.header("authorization"), "Bearer t");
    assert_eq!(got.header("idempotency-key"), "k");
    assert!(got.header("traceparent").starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
    assert!(!got.header("traceparent").contains("00f067aa0ba902b7"));
    for ended in [
        "x-drop-me",
        "te",
        "upgrade",
        "proxy-authorization",
        "keep-alive",
        "x-forwarded-host",
        "forwarded",
        "x-region",
    ] {
        assert!(!got.headers.contains_key(ended), "{ended}: {got:?}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_added() {
    let eu = Fake::ok("eu").await;
    let mut config = config(&[("eu", eu.url())]).await;
    config.trusted_proxies = vec!["127.0.0.0/8".into()];
    let gateway = Running::start(config).await;
    let request =
        gateway.get("/v1/movies").header("x-forwarded-for", "203.0.113.9").header("x-real-ip", "6.6.6.6");
    let response = request.header("x-forwarded-proto", "https").send().await.unwrap();
    assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
    let got = eu.got().remove(0);
    assert_eq!(got.header("x-forwarded-for"), "203.0.113.9, 127.0.0.1");
    assert_eq!(got.header("x-real-ip"), "203.0.113.9");
    assert_eq!(got.header("x-forwarded-proto"), "https");
}

#[tokio::test]
async fn a_stale_guess_is_corrected_and_remembered() {
    let eu = Fake::start(|_, _| not_owner("us", 2)).await;
    let us = Fake::start(|got, _| answer(201, got.body.clone())).await;
    let gateway = Running::start(config(&[("eu", eu.url()), ("us", us.url())]).await).await;
    let path = format!("/v1/shows/{}/reservations", ShowId::new(&region("eu")));
    for _ in 0..2 {
        // No key: "not mine" promises that nothing was done.
        let response = gateway.post(&path).body("{\"seats\":[]}").send().await.unwrap();
        assert_eq!(response.status(), 201);
        assert_eq!(response.text().await.unwrap(), "{\"seats\":[]}");
    }
    assert_eq!((eu.got().len(), us.got().len()), (1, 2));

    // A hall whose home has another name for it; and a creation that names its hall only in the body.
    for path in [format!("/v1/halls/{}", HallId::new(&region("eu"))), "/v1/shows".to_owned()] {
        assert_eq!(gateway.post(&path).body("x").send().await.unwrap().status(), 201, "{path}");
    }
}

#[tokio::test]
async fn regions_that_point_at_each_other_are_not_followed_for_ever() {
    let eu = Fake::start(|_, n| not_owner("us", 10 + n as u64 * 2)).await;
    let us = Fake::start(|_, n| not_owner("eu", 11 + n as u64 * 2)).await;
    let gateway = Running::start(config(&[("eu", eu.url()), ("us", us.url())]).await).await;
    let path = format!("/v1/shows/{}", ShowId::new(&region("eu")));
    let response = gateway.get(&path).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(problem(response).await["code"], "owner-unsettled");
    assert_eq!(eu.got().len() + us.got().len(), 4);
}

#[tokio::test]
async fn a_refusal_without_a_better_place_is_asked_again() {
    let eu = Fake::start(|_, n| if n < 2 { not_owner("eu", 1) } else { answer(200, "mine now") }).await;
    let gateway = Running::start(config(&[("eu", eu.url())]).await).await;
    let path = format!("/v1/shows/{}", ShowId::new(&region("eu")));
    assert_eq!(gateway.get(&path).send().await.unwrap().text().await.unwrap(), "mine now");

    let other = Fake::start(|_, _| json(421, &serde_json::json!({"code": "something-else"}))).await;
    let gateway = Running::start(config(&[("eu", other.url())]).await).await;
    let response = gateway.get(&path).send().await.unwrap();
    assert_eq!((response.status().as_u16(), other.got().len()), (421, 1));
}

#[tokio::test]
async fn only_what_may_be_repeated_is_repeated() {
    let breaks_once = || Fake::start(|_, n| if n == 0 { Reply::Break } else { answer(201, "done") });
    let path = format!("/v1/shows/{}/reservations", ShowId::new(&region("eu")));

    let eu = breaks_once().await;
    let gateway = Running::start(config(&[("eu", eu.url())]).await).await;
    let keyed = gateway.post(&path).header("idempotency-key", "k1").body("{}").send().await.unwrap();
    assert_eq!((keyed.status().as_u16(), eu.got().len()), (201, 2));
    assert_eq!(eu.got()[1].body, "{}");

    let eu = breaks_once().await;
    let gateway = Running::start(config(&[("eu", eu.url())]).await).await;
    let unkeyed = gateway.post(&path).body("{}").send().await.unwrap();
    assert_eq!(unkeyed.status(), 502);
    let unkeyed = problem(unkeyed).await;
    assert_eq!((unkeyed["code"].as_str(), unkeyed["region"].as_str()), (Some("upstream-broken"), Some("eu")));
    assert_eq!(eu.got().len(), 1);

    let eu = breaks_once().await;
    let gateway = Running::start(config(&[("eu", eu.url())]).await).await;
    let read = gateway.get(&path).send().await.unwrap();
    assert_eq!((read.status().as_u16(), eu.got().len()), (201, 2));
}

#[tokio::test]
async fn a_keyed_request_waits_for_a_region_that_is_starting() {
    let addr = closed_port().await;
    let mut config = config(&[("eu", format!("http://{addr}"))]).await;
    config.upstream.max_tries = 30;
    let gateway = Running::start(config).await;
    let before = gateway.metrics.retries.get();
    let asked = gateway.post("/v1/cinemas").header("idempotency-key", "k").body("{}").send();
    let started = async {
        let metrics = &gateway.metrics;
        eventually("a retry", || async { metrics.retries.get() > before }).await;
        Fake::start_on(addr, |_, _| answer(201, "up")).await
    };
    let (response, _fake) = tokio::join!(asked, started);
    assert_eq!(response.unwrap().status(), 201);
}

#[tokio::test]
async fn a_region_that_is_away_is_told_at_once_and_again() {
    let gateway = Running::start(config(&[("eu", format!("http://{}", closed_port().await))]).await).await;
    let before = gateway.metrics.retries.get();
    let response = gateway.post("/v1/cinemas").body("{}").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "2"));
    assert_eq!(problem(response).await["code"], "region-unavailable");
    let response = gateway.get("/v1/movies").send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(gateway.metrics.retries.get() >= before + 3);
    let response = gateway.get("/v1/me").send().await.unwrap();
    assert_eq!(problem(response).await["code"], "global-unavailable");
}

#[tokio::test]
async fn a_silent_region_costs_no_more_than_the_deadline() {
    let eu = Fake::start(|_, _| Reply::Hang).await;
    let mut config = config(&[("eu", eu.url())]).await;
    config.upstream.deadline_ms = 300;
    let gateway = Running::start(config).await;
    let started = Instant::now();
    let response = gateway.get("/v1/movies").send().await.unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(problem(response).await["code"], "upstream-timeout");
    assert!(started.elapsed() < Duration::from_secs(3));
}

fn chunks(count: usize) -> reqwest::Body {
    let mib = Bytes::from(vec![b'x'; 1024 * 1024]);
    let chunks = (0..count).map(move |_| Ok::<_, std::io::Error>(mib.clone()));
    reqwest::Body::wrap_stream(futures::stream::iter(chunks))
}

#[tokio::test]
async fn bodies_are_counted_before_anyone_else_sees_them() {
    let (global, eu, _us, gateway) = three().await;
    let told = gateway.post("/v1/cinemas").body(vec![b'x'; 1024 * 1024 + 1]).send().await.unwrap();
    assert_eq!(told.status(), 413);
    assert_eq!(problem(told).await["code"], "body-too-large");
    let counted = gateway.post("/v1/cinemas").body(chunks(3)).send().await.unwrap();
    assert_eq!(problem(counted).await["code"], "body-too-large");
    assert!(eu.got().is_empty());
    let whole = gateway.post("/v1/cinemas").body(chunks(1)).send().await.unwrap();
    assert_eq!((whole.status().as_u16(), eu.got()[0].body.len()), (200, 1024 * 1024));

    // An import is larger, and streamed.
    let import = gateway.post("/v1/movies/import").body(chunks(5)).send().await.unwrap();
    assert_eq!((import.status().as_u16(), global.got()[0].body.len()), (200, 5 * 1024 * 1024));
    let import = gateway.post("/v1/movies/import").body(chunks(66)).send().await.unwrap();
    assert_eq!(import.status(), 413);
    assert_eq!(global.got().len(), 1);
}

#[tokio::test]
async fn an_answer_streams_as_it_comes() {
    let held = Arc::new(AtomicUsize::new(0));
    let seen = held.clone();
    let eu = Fake::start(move |_, _| {
        let seen = seen.clone();
        let parts = futures::stream::unfold(0, move |n| {
            let seen = seen.clone();
            async move {
                match n {
                    0 => Some((Ok::<_, std::io::Error>(Bytes::from("data: 1\n\n")), 1)),
                    1 => {
                        // The second event comes only after the client has seen the first.
                        eventually("the first event arrived", || async { seen.load(Ordering::SeqCst) == 1 })
                            .await;
                        Some((Ok(Bytes::from("data: 2\n\n")), 2))
                    }
                    _ => None,
                }
            }
        });
        answer(200, Body::from_stream(parts))
    })
    .await;
    let gateway = Running::start(config(&[("eu", eu.url())]).await).await;
    let path = format!("/v1/shows/{}/seats/events", ShowId::new(&region("eu")));
    let mut response = gateway.get(&path).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "data: 1\n\n");
    held.store(1, Ordering::SeqCst);
    assert_eq!(response.chunk().await.unwrap().unwrap(), "data: 2\n\n");
    assert!(response.chunk().await.unwrap().is_none());
}

#[tokio::test]
async fn a_path_that_two_services_share_allows_what_either_does() {
    let global = Fake::start(|_, _| {
        let refused = Response::builder().status(405).header("allow", "PATCH, DELETE");
        Reply::Answer(refused.body("".into()).unwrap())
    })
    .await;
    let eu = Fake::start(|_, _| {
        let refused = Response::builder().status(405).header("allow", "PUT,GET");
        Reply::Answer(refused.body("".into()).unwrap())
    })
    .await;
    let mut config = config(&[("eu", eu.url())]).await;
    config.global_url = global.url();
    let gateway = Running::start(config).await;
    let allowed = async |path: &str| {
        let asked =
            gateway.http.request(Method::OPTIONS, format!("{}{path}", gateway.url)).send().await.unwrap();
        assert_eq!(asked.status(), 405);
        asked.headers()["allow"].to_str().unwrap().to_owned()
    };
    assert_eq!(allowed("/v1/movies/mov_1").await, "GET,HEAD,PATCH,DELETE");
    assert_eq!(allowed("/v1/halls").await, "PUT,GET");
}
