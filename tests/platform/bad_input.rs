//! Whatever is sent, the answer is a problem with a stable code, and nothing is half-written.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::bad_values;
use crate::client::{Client, adorned, fresh_key};
use crate::stage::{self, Show, adults};
use crate::world::{World, step};

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    let show = stage::new_show(world, "eu", 3, 6).await;
    let customer = world.customer("us").await.client;
    let manager = world.staff("manager", Some("eu")).await;
    stage::buy(&customer, &show.id, &["A1"]).await;
    let seats_before = stage::seat_map(&customer, &show.id).await;
    let count = async |path: &str| {
        let answer =
            manager.get(path).header("x-region", "eu").header("cache-control", "no-cache").await.ok(200);
        answer["items"].as_array().map(Vec::len)
    };
    let shows = format!("/v1/shows?cinema_id={}&limit=200", show.cinema);
    let cinemas = "/v1/cinemas?limit=200";
    let before = (count(&shows).await, count(cinemas).await);

    malformed(&customer, &show).await;
    sizes(&customer, &show).await;
    seats(&customer, &show).await;
    ids_and_paths(world, &customer, &show).await;
    bad_values::cinemas_and_halls(&manager, &show).await;
    bad_values::shows_and_prices(&manager, &show).await;
    bad_values::accounts(world).await;
    queries(world, &show).await;
    headers(&customer, &show).await;

    assert_eq!(stage::seat_map(&customer, &show.id).await, seats_before, "something was half-written");
    assert_eq!((count(&shows).await, count(cinemas).await), before, "something was half-written");
    bad_values::racing_shows(&manager, &show).await;
    let mine = customer.get("/v1/reservations").await.ok(200);
    assert_eq!(mine["items"].as_array().map(Vec::len), Some(1), "{mine}");
}

fn reservations(show: &Show) -> String {
    format!("/v1/shows/{}/reservations", show.id)
}

async fn malformed(customer: &Client, show: &Show) {
    step("malformed JSON, bad UTF-8, unknown fields, wrong types");
    let path = reservations(show);
    let send =
        |body: &[u8]| customer.call(Method::POST, &path).key(&fresh_key()).raw("application/json", body);
    let not_json: [&[u8]; 8] = [
        b"",
        b"{",
        b"{\"seats\":",
        b"nonsense",
        b"{\"seats\": [{\"seat\": \"\xff\xfe\"}]}",
        b"{'seats': []}",
        b"{\"seats\": [{\"seat\": \"B1\"}]} {}",
        b"{\"seats\": [{\"seat\": \"\\ud800\"}]}",
    ];
    for body in not_json {
        send(body).await.problem(400, "malformed-json");
    }
    for body in ["[]", "null", "3", "\"seats\"", "true"] {
        let answer = send(body.as_bytes()).await;
        answer.any_problem();
        assert_eq!(answer.code(), 422, "{answer}");
    }
    let ill: [(Value, &str); 9] = [
        (json!({"seats": [{"seat": "B1", "category": "adult"}], "price": 1}), "price"),
        (json!({"seats": [{"seat": "B1", "category": "adult", "amount": 1}]}), "seats"),
        (json!({"seats": "B1"}), "seats"),
        (json!({"seats": ["B1"]}), "seats"),
        (json!({"seats": [{"seat": 1, "category": "adult"}]}), "seats"),
        (json!({"seats": [{"category": "adult"}]}), "seats"),
        (json!({"seats": {"seat": "B1"}}), "seats"),
        (json!({"seats": null}), "seats"),
        (json!({"seats": [{"seat": "B1", "category": "adult"}], "contact_email": "nobody"}), "contact_email"),
    ];
    for (body, field) in ill {
        customer.post_once(&path, body).await.names_field(field);
    }
    for content_type in ["text/plain", "application/xml", "multipart/form-data; boundary=x", "x"] {
        let body = adults(&["B1"]).to_string();
        let call = customer.call(Method::POST, &path).key(&fresh_key()).raw(content_type, body);
        assert_eq!(call.await.any_problem()["status"], 415, "{content_type}");
    }
    let no_type = customer.call(Method::POST, &path).key(&fresh_key()).await;
    no_type.any_problem();
    assert!(matches!(no_type.code(), 400 | 415), "{no_type}");
}

async fn sizes(customer: &Client, show: &Show) {
    step("bodies past 1 MiB, nesting without end");
    let path = reservations(show);
    let padded = |bytes: usize| {
        let mut body = adults(&["Z99"]).to_string().into_bytes();
        body.resize(bytes, b' ');
        customer.call(Method::POST, &path).key(&fresh_key()).raw("application/json", body)
    };
    padded(1024 * 1024).await.problem(422, "unknown-seat");
    for bytes in [1024 * 1024 + 1, 5 * 1024 * 1024] {
        assert_eq!(padded(bytes).await.any_problem()["status"], 413);
    }
    // Without a length that tells in advance.
    let chunked = padded(2 * 1024 * 1024).chunked().await;
    assert_eq!(chunked.any_problem()["status"], 413, "{chunked}");
    for deep in [
        "[".repeat(200_000),
        "{\"seats\":".repeat(50_000),
        format!("{{\"seats\":{}{}}}", "[".repeat(5000), "]".repeat(5000)),
        format!("{{\"x\":{}1{}}}", "{\"a\":".repeat(5000), "}".repeat(5000)),
    ] {
        let answer = customer.call(Method::POST, &path).key(&fresh_key()).raw("application/json", deep).await;
        answer.any_problem();
        assert!(matches!(answer.code(), 400 | 422), "{answer}");
    }
    let many: Vec<Value> =
        (0..20_000).map(|n| json!({"seat": format!("B{n}"), "category": "adult"})).collect();
    let answer = customer.post_once(&path, json!({"seats": many})).await;
    answer.any_problem();
    assert_eq!(answer.code(), 422, "{}", answer.status);
}

async fn seats(customer: &Client, show: &Show) {
    step("unknown, empty, doubled seats");
    let path = reservations(show);
    let send = |body: Value| customer.post_once(&path, body);
    for unknown in ["Z1", "B0", "B7", "B01", "b1", "B1 ", "B1\u{0}", "🎬", "B-1"] {
        send(adults(&[unknown])).await.problem(422, "unknown-seat");
    }
    for absurd in ["", "B999999999999999999999", &"B".repeat(100_000)] {
        send(adults(&[absurd])).await.names_field("seats");
    }
    send(adults(&["B1", "Z1"])).await.problem(422, "unknown-seat");
    send(adults(&[])).await.names_field("seats");
    send(adults(&["B1", "B1"])).await.names_field("seats");
    send(json!({"seats": [{"seat": "B1", "category": "emperor"}]})).await.names_field("seats");
    let answer = send(json!({})).await;
    answer.any_problem();
    assert_eq!(answer.code(), 422, "{answer}");
}

async fn ids_and_paths(world: &World, customer: &Client, show: &Show) {
    step("ids of the wrong kind, unknown ids, unknown paths, wrong methods");
    let eu = "eu".parse().unwrap();
    let unknown = [
        format!("/v1/shows/{}", common::ShowId::new(&eu)),
        format!("/v1/shows/{}/seats", common::ShowId::new(&eu)),
        format!("/v1/shows/{}", show.hall),
        format!("/v1/shows/{}", show.id.to_uppercase()),
        format!("/v1/shows/{}0", show.id),
        "/v1/shows/shw_".into(),
        "/v1/shows/%ff%fe".into(),
        format!("/v1/shows/{}", "9".repeat(2000)),
        format!("/v1/halls/{}", show.id),
        format!("/v1/halls/{}", common::HallId::new(&eu)),
        format!("/v1/cinemas/{}", common::CinemaId::new(&eu)),
        "/v1/cinemas/1".into(),
        format!("/v1/movies/{}", common::MovieId::new()),
        "/v1/movies/'%20or%201=1".into(),
        format!("/v1/reservations/{}", show.id),
        format!("/v1/tickets/{}", show.id.replace("shw_", "tkt_")),
        format!("/v1/tickets/{}.exe", show.id),
        "/v1".into(),
        "/v2/shows".into(),
        "/v1/nothing".into(),
        "/".into(),
        "/openapi.json".into(),
        "/metrics".into(),
        "/livez".into(),
        "/readyz".into(),
    ];
    for path in unknown {
        let answer = customer.get(&path).await;
        answer.any_problem();
        assert_eq!(answer.code(), 404, "{answer}");
    }
    // A path that two readers could understand differently goes no further than the gateway.
    for path in ["/v1/shows/%00", "/v1/shows/..%2f..%2fetc%2fpasswd"] {
        customer.get(path).await.problem(400, "malformed-request");
    }
    let path = format!("/v1/shows/{}/reservations", common::ShowId::new(&eu));
    customer.post_once(&path, adults(&["A1"])).await.problem(404, "not-found");
    for (method, path) in [
        (Method::DELETE, "/v1/movies".to_owned()),
        (Method::PUT, format!("/v1/shows/{}/reservations", show.id)),
        (Method::POST, format!("/v1/shows/{}/seats", show.id)),
        (Method::DELETE, "/v1/auth/token".to_owned()),
        (Method::POST, "/v1/regions".to_owned()),
        (Method::PATCH, "/v1/openapi.json".to_owned()),
    ] {
        let answer = customer.call(method, &path).json(json!({})).await;
        answer.any_problem();
        assert_eq!(answer.code(), 405, "{answer}");
        assert!(!answer.header("allow").is_empty(), "a 405 says what is allowed (RFC 9110): {answer}");
    }
    let gone = world.gateway("us").get("/v1/me").await.problem(401, "invalid-token");
    assert!(gone["detail"].is_string());
}

async fn queries(world: &World, show: &Show) {
    step("queries that make no sense");
    let eu = world.gateway("eu");
    for path in [
        "/v1/movies?limit=0",
        "/v1/movies?limit=201",
        "/v1/movies?limit=many",
        "/v1/movies?limit=-1",
        "/v1/movies?limit=99999999999999999999",
        "/v1/movies?cursor=%21%21",
        "/v1/movies?year=soon",
        "/v1/movies?sort=upwards",
        "/v1/movies?colour=red",
        "/v1/cinemas?near=here",
        "/v1/cinemas?near=91,0",
        "/v1/cinemas?near=NaN,inf",
        "/v1/cinemas?limit=0",
        "/v1/shows?from=yesterday",
        "/v1/shows?cinema_id=5",
        &format!("/v1/shows?movie_id={}", show.id),
        "/v1/shows?limit=1000",
    ] {
        let answer = eu.get(path).await;
        answer.any_problem();
        assert!(matches!(answer.code(), 400 | 404 | 422), "{answer}");
    }
    for path in ["/v1/movies?q=%00", "/v1/movies?q=%ff", "/v1/movies?q=%25%27%22%5C_", "/v1/movies?q="] {
        let answer = eu.get(path).await;
        assert!(answer.code() < 500, "{answer}");
    }
    let long = eu.get(&format!("/v1/movies?q={}", "x".repeat(7000))).await;
    assert!(long.code() < 500, "{long}");
}

async fn headers(customer: &Client, show: &Show) {
    step("headers that lie, and a request id of one's own");
    let path = reservations(show);
    for key in ["", " ", &"k".repeat(256), "käse"] {
        let answer = adorned(customer.post(&path, adults(&["B1"])), "idempotency-key", key.as_bytes()).await;
        answer.any_problem();
        assert_eq!(answer.code(), 400, "{answer}");
    }
    let answer = customer.get("/v1/cinemas").header("x-region", "atlantis").await;
    answer.any_problem();
    assert!(matches!(answer.code(), 400 | 404 | 422), "{answer}");
    let answer = customer.get("/v1/nothing").header("x-request-id", "my-own-id-7").await;
    assert_eq!(answer.header("x-request-id"), "my-own-id-7", "{answer}");
    answer.problem(404, "not-found");
    let answer = customer.get("/v1/me").header("x-request-id", &"i".repeat(5000)).await;
    assert!(answer.code() == 200 && answer.header("x-request-id").len() <= 128, "{answer}");
}
