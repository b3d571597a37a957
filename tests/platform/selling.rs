//! A show's own rules, and what staff do to a show: seat limits, single gaps, the best seats, seats off sale,
//! another time, no show at all; and the live seat map that tells of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, fresh_key, list, text};
use crate::stage::{self, ADULT, adults, seat_map};
use crate::world::{World, step, until};

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    rules_of_the_show(world).await;
    best_seats(world).await;
    blocks(world).await;
    events(world).await;
    another_time(world).await;
    no_show_at_all(world).await;
}

async fn rules_of_the_show(world: &World) {
    step("how many seats a customer may have; no single gap where the show says so; not before the sale");
    let manager = world.staff("manager", Some("eu")).await;
    let base = stage::new_show(world, "eu", 2, 6).await;
    let make = async |hours: i64, member: &str, value: Value| {
        let mut body = stage::show_body(&base.hall, &base.movie, &stage::in_hours(hours));
        body[member] = value;
        text(&manager.post_once("/v1/shows", body).await.ok(201), "id")
    };
    let limited = make(72, "max_seats_per_customer", json!(2)).await;
    let gapless = make(96, "single_gap_rule", json!(true)).await;
    let early = make(120, "on_sale_at", json!(stage::in_hours(24))).await;
    let buyer = world.customer("eu").await.client;
    let reserve = |show: &str, seats: &[&str]| {
        buyer.post_once(&format!("/v1/shows/{show}/reservations"), adults(seats))
    };
    reserve(&limited, &["A1", "A2", "A3"]).await.problem(409, "seat-limit");
    reserve(&limited, &["A1"]).await.ok(201);
    reserve(&limited, &["A2", "A3"]).await.problem(409, "seat-limit");
    reserve(&gapless, &["A3"]).await.ok(201);
    reserve(&gapless, &["A5"]).await.problem(409, "single-seat-gap");
    reserve(&gapless, &["A4", "A5", "A6"]).await.ok(201);
    reserve(&early, &["A1"]).await.problem(409, "not-on-sale");
}

/// Whether the seats stand side by side in one row.
fn adjacent(seats: &[String]) -> bool {
    let rows: BTreeSet<char> = seats.iter().filter_map(|s| s.chars().next()).collect();
    let mut numbers: Vec<u32> = seats.iter().map(|s| s[1..].parse().unwrap()).collect();
    numbers.sort_unstable();
    rows.len() == 1 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

fn seats_of(reservation: &Value) -> Vec<String> {
    list(reservation, "seats").iter().map(|s| text(s, "seat")).collect()
}

async fn best_seats(world: &World) {
    step("ten customers at once want the best two: all have them, side by side, nobody loses a race");
    let show = stage::new_show(world, "eu", 6, 10).await.id;
    let path = format!("/v1/shows/{show}/reservations");
    let best = |count: u32| json!({"best": {"count": count, "category": "adult"}});
    let mut customers = Vec::new();
    for region in ["eu", "us", "ap", "eu", "us", "ap", "eu", "us", "ap", "eu"] {
        customers.push(world.customer(region).await.client);
    }
    let calls: Vec<_> = customers
        .iter()
        .map(|customer| {
            let call = customer.post_once(&path, best(2));
            tokio::spawn(async move { call.await })
        })
        .collect();
    let mut taken = BTreeSet::new();
    for call in calls {
        let held = call.await.unwrap().ok(201);
        let seats = seats_of(&held);
        assert!(seats.len() == 2 && adjacent(&seats), "{seats:?}");
        assert_eq!(held["total"]["amount"], 2 * ADULT, "{held}");
        assert!(seats.into_iter().all(|seat| taken.insert(seat)), "a seat was given twice");
    }
    let customer = &customers[0];
    let suggested = customer.get(&format!("/v1/shows/{show}/best-seats?count=3")).await.ok(200);
    assert!(adjacent(&seats_of(&suggested)), "{suggested}");
    assert_eq!(
        seat_map(customer, &show).await[&seats_of(&suggested)[0]],
        "free",
        "a suggestion takes nothing"
    );
    customer.post_once(&path, best(41)).await.any_problem();
    customer.post_once(&path, best(0)).await.names_field("best");
    let both = json!({"best": {"count": 1}, "seats": [{"seat": "A1"}]});
    assert_eq!(customer.post_once(&path, both).await.any_problem()["status"], 422);
}

async fn blocks(world: &World) {
    step("an employee of the region takes a seat off sale and gives it back");
    let show = stage::new_show(world, "eu", 2, 6).await.id;
    let customer = world.customer("us").await.client;
    let desk = world.staff("employee", Some("eu")).await;
    let path = format!("/v1/shows/{show}/blocks");
    let body = json!({"seats": ["B6"], "reason": "broken"});
    for stranger in [&customer, &world.staff("employee", Some("us")).await] {
        stranger.post_once(&path, body.clone()).await.problem(403, "forbidden");
    }
    desk.post_once(&path, body).await.ok(200);
    assert_eq!(seat_map(&customer, &show).await["B6"], "blocked");
    let reserve = format!("/v1/shows/{show}/reservations");
    customer.post_once(&reserve, adults(&["B6"])).await.problem(409, "seats-unavailable");
    stage::reserve(&customer, &show, &["B1"]).await;
    let held = json!({"seats": ["B1"], "reason": "too late"});
    desk.post_once(&path, held).await.problem(409, "seats-unavailable");
    desk.call(Method::DELETE, &path).json(json!({"seats": ["B6"]})).await.ok(200);
    assert_eq!(seat_map(&customer, &show).await["B6"], "free");
}

/// The next event of a stream: its id, kind and data. `rest` is what has come and was not read yet.
async fn next_event(stream: &mut reqwest::Response, rest: &mut String) -> (String, String, Value) {
    let read = async {
        loop {
            while let Some((block, after)) = rest.split_once("\n\n") {
                let field = |name: &str| {
                    let value = block.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
                    value.map(|v| v.trim_start().to_owned())
                };
                let event = (field("id"), field("event"), field("data"));
                *rest = after.to_owned();
                if let (Some(id), Some(kind), Some(data)) = event {
                    return (id, kind, serde_json::from_str(&data).expect("JSON in an event"));
                }
            }
            let more = stream.chunk().await.expect("a stream that stands").expect("a stream that goes on");
            rest.push_str(std::str::from_utf8(&more).expect("UTF-8"));
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("an event within ten seconds")
}

async fn events(world: &World) {
    step("a live seat map: the whole, then each change; a broken stream goes on where it was");
    let show = stage::new_show(world, "eu", 2, 4).await.id;
    let customer = world.customer("ap").await.client;
    let path = format!("/v1/shows/{show}/seats/events");
    let (mut stream, mut rest) = (customer.get(&path).stream().await, String::new());
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let (_, kind, map) = next_event(&mut stream, &mut rest).await;
    assert_eq!((kind.as_str(), list(&map, "seats").len()), ("snapshot", 8));
    let held = stage::reserve(&customer, &show, &["A2"]).await;
    let (id, kind, change) = next_event(&mut stream, &mut rest).await;
    assert_eq!((kind.as_str(), &change["seats"]), ("change", &json!([{"seat": "A2", "status": "held"}])));
    assert_eq!(id, format!("{}.{}", change["epoch"], change["seq"]));
    drop(stream);

    stage::pay(&customer, &held, "tok_ok").await.ok(201);
    let (mut stream, mut rest) =
        (customer.get(&path).header("last-event-id", &id).stream().await, String::new());
    let (_, kind, change) = next_event(&mut stream, &mut rest).await;
    assert_eq!((kind.as_str(), &change["seats"]), ("change", &json!([{"seat": "A2", "status": "sold"}])));
    let bad = customer.get(&path).header("last-event-id", "yesterday").await;
    assert_eq!(bad.any_problem()["status"], 422, "{bad}");
}

async fn another_time(world: &World) {
    step("a manager moves a show in time; not onto another show, and not over somebody's newer change");
    let show = stage::new_show(world, "eu", 2, 4).await;
    let manager = world.staff("manager", Some("eu")).await;
    let busy = stage::show_body(&show.hall, &show.movie, &stage::in_hours(72));
    manager.post_once("/v1/shows", busy).await.ok(201);
    let path = format!("/v1/shows/{}", show.id);
    let patch = |client: &Client, hours: i64| {
        client.call(Method::PATCH, &path).json(json!({"starts_at": stage::in_hours(hours)}))
    };
    let seen = manager.get(&path).header("cache-control", "no-cache").await;
    patch(&world.staff("employee", Some("eu")).await, 60).await.problem(403, "forbidden");
    patch(&world.staff("manager", Some("us")).await, 60).await.problem(403, "forbidden");
    patch(&manager, 72).await.problem(409, "hall-busy");
    let moved = patch(&manager, 60).header("if-match", seen.header("etag")).await.ok(200);
    assert_ne!(moved["starts_at"], seen.json()["starts_at"], "{moved}");
    let late = patch(&manager, 61).header("if-match", seen.header("etag")).await;
    assert_eq!(late.any_problem()["status"], 412, "{late}");
    let past = manager.call(Method::PATCH, &path).json(json!({"starts_at": "1999-12-31T23:00:00Z"}));
    past.await.names_field("starts_at");
    // Its old time is free again.
    let body = stage::show_body(&show.hall, &show.movie, &stage::in_hours(48));
    until("the old time free again", Duration::from_secs(10), async || {
        (manager.post_once("/v1/shows", body.clone()).await.code() == 201).then_some(())
    })
    .await;
}

async fn no_show_at_all(world: &World) {
    step("a canceled show gives everybody everything back and sells no more");
    let show = stage::new_show(world, "eu", 2, 4).await.id;
    let customer = world.customer("us").await.client;
    let (paid, _) = stage::buy(&customer, &show, &["A1", "A2"]).await;
    let held = stage::reserve(&customer, &show, &["B1"]).await;
    let cancel = format!("/v1/shows/{show}/cancel");
    let body = json!({"reason": "the projector failed"});
    for (role, region) in [("employee", "eu"), ("manager", "us")] {
        let stranger = world.staff(role, Some(region)).await;
        stranger.post_once(&cancel, body.clone()).await.problem(403, "forbidden");
    }
    let manager = world.staff("manager", Some("eu")).await;
    let key = fresh_key();
    for _ in 0..2 {
        let canceled = manager.post(&cancel, body.clone()).key(&key).await.ok(200);
        assert_eq!(canceled["status"], "canceled", "{canceled}");
    }
    let payment = until("the money back", Duration::from_secs(15), async || {
        let payments = stage::payments_of(&customer, &text(&paid, "id")).await;
        payments.into_iter().find(|p| p["status"] == "refunded")
    })
    .await;
    if let Some(provider) = world.provider() {
        let charge = provider.get(&format!("/v1/charges/{}", text(&payment, "id"))).await.json();
        assert_eq!(charge["refunded"], 2 * ADULT, "the provider's books");
    }
    let reserve = format!("/v1/shows/{show}/reservations");
    customer.post_once(&reserve, adults(&["B3"])).await.problem(409, "not-on-sale");
    let late = stage::pay(&customer, &held, "tok_ok").await;
    assert_eq!(late.any_problem()["status"], 409, "{late}");
}
