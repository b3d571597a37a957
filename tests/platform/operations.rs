//! What operators see and what they live through: every service's operations port; any voter, any regional
//! process, the cache, a database, a gateway and the global service killed with -9 and started again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Answer, Call, Client, fresh_key, list, text};
use crate::stage::{self, Show, adults};
use crate::world::{World, kill, start, step, until};

/// A part that was killed is back within this.
const BACK: Duration = Duration::from_secs(30);
/// A lost region's shows are sold by another within this; usually in a sixth of it.
const TAKEN_OVER: Duration = Duration::from_secs(30);

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    operations_ports(world).await;
    let show = stage::new_show(world, "eu", 6, 10).await;
    let customer = world.customer("us").await.client;
    voters(world, &show, &customer).await;
    regional(world, &show, &customer).await;
    redis(world, &show, &customer).await;
    postgres(world, &show, &customer).await;
    gateway(world, &show, &customer).await;
    whole_region(world).await;
    // Last, and with a fresh token: while it is down nobody signs in.
    global(world, &show).await;
}

async fn operations_ports(world: &World) {
    step("every service answers /livez, /readyz and /metrics on a port of its own");
    let run = world.run();
    let mut names = Vec::new();
    for (region, services) in &run.operations {
        for service in services.keys() {
            names.push((region.clone(), service.clone()));
        }
    }
    assert!(run.postgres.contains_key("global"), "run.json tells every database");
    for region in run.gateways.keys() {
        assert!(run.postgres[region].starts_with("postgres://") && run.redis[region].starts_with("redis://"));
        for service in ["regional", "gateway", "raft"] {
            assert!(
                names.contains(&(region.clone(), service.to_owned())),
                "no operations port: {region} {service}"
            );
        }
    }
    assert!(names.contains(&("global".to_owned(), "global".to_owned())), "{names:?}");
    for (region, service) in names {
        let port = world.operations(&region, &service);
        assert_eq!(port.get("/livez").await.code(), 200);
        let ready = port.get("/readyz").await;
        assert_eq!(
            (ready.code(), ready.json()["missing"].clone()),
            (200, json!([])),
            "{region} {service}: {ready}"
        );
        let metrics = port.get("/metrics").await;
        assert!(metrics.header("content-type").starts_with("text/plain"), "{metrics}");
        let text = String::from_utf8(metrics.body).unwrap();
        let build = format!("service=\"{service}\"");
        assert!(text.contains("marquee_build_info") && text.contains(&build), "{region} {service}: {text}");
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            assert!(
                name.starts_with("marquee_") || name.starts_with("process_"),
                "{region} {service}: {line}"
            );
        }
        // What is public is not here, and the reverse (journey "bad-input").
        assert_eq!(port.get("/v1/movies").await.code(), 404);
    }
}

async fn ready(world: &World, region: &str, service: &str) {
    let port = world.operations(region, service);
    until(&format!("{service} of {region} ready"), BACK, async || {
        let answer = port.get("/readyz").attempt().await.ok()?;
        (answer.code() == 200).then_some(())
    })
    .await;
}

/// Repeats a call under its key, as a client does after "unavailable" or a broken connection.
async fn patiently(what: &str, within: Duration, call: Call) -> Answer {
    until(what, within, async || {
        let answer = call.attempt().await.ok()?;
        if answer.code() >= 500 {
            answer.any_problem();
            return None;
        }
        Some(answer)
    })
    .await
}

async fn voters(world: &World, show: &Show, customer: &Client) {
    let manager = world.staff("manager", Some("eu")).await;
    let before = epoch_of(customer, show).await;
    let regions: Vec<String> = world.run().gateways.into_keys().collect();
    for (day, region) in regions.iter().enumerate() {
        step(&format!(
            "kill -9 of {region}'s voter: shows stay owned, selling goes on, a new show is registered"
        ));
        kill(world, region, Some("raft")).await;
        let seat = format!("A{}", day + 1);
        stage::buy(customer, &show.id, &[&seat]).await;
        let body = stage::show_body(&show.hall, &show.movie, &stage::in_hours(24 * (10 + day as i64)));
        let call = manager.post_once("/v1/shows", body);
        let made = patiently("a show registered with two voters of three", BACK, call).await.ok(201);
        // It is owned, and sells through another region.
        stage::reserve(customer, &text(&made, "id"), &["A1"]).await;
        start(world, region, Some("raft")).await;
        ready(world, region, "raft").await;
        assert_eq!(epoch_of(customer, show).await, before, "nothing changed hands");
    }
    step("kill -9 of two voters: what is sold goes on, new shows wait, and are registered when one is back");
    kill(world, &regions[0], Some("raft")).await;
    kill(world, &regions[1], Some("raft")).await;
    stage::buy(customer, &show.id, &["A9"]).await;
    let body = stage::show_body(&show.hall, &show.movie, &stage::in_hours(24 * 20));
    let call = manager.post_once("/v1/shows", body);
    let refused = call.clone().await;
    refused.any_problem();
    assert!(refused.code() == 503 && !refused.header("retry-after").is_empty(), "{refused}");
    start(world, &regions[0], Some("raft")).await;
    patiently("the show registered once there is a majority", BACK, call).await.ok(201);
    start(world, &regions[1], Some("raft")).await;
    ready(world, &regions[0], "raft").await;
    ready(world, &regions[1], "raft").await;
}

async fn regional(world: &World, show: &Show, customer: &Client) {
    let owner = stage::owner(world, &show.id).await;
    step(&format!(
        "kill -9 of {owner}'s regional process: another region takes its shows over, with all that was answered"
    ));
    let path = format!("/v1/shows/{}/reservations", show.id);
    let (key, body) = (fresh_key(), adults(&["B1", "B2"]));
    let held = customer.post(&path, body.clone()).key(&key).await.ok(201);
    let (paid, _) = stage::buy(customer, &show.id, &["B3"]).await;
    let seats = stage::seat_map(customer, &show.id).await;
    let epoch = epoch_of(customer, show).await;
    kill(world, &owner, Some("regional")).await;
    let asked = Instant::now();
    let call = customer.post_once(&path, adults(&["B5"]));
    let answer = patiently("a sale by another region", TAKEN_OVER, call).await;
    step(&format!("answered {:?} after the kill", asked.elapsed()));
    let b5 = answer.ok(201);
    assert_ne!(stage::owner(world, &show.id).await, owner);
    assert!(epoch_of(customer, show).await > epoch, "under a ballot of its own");
    let again = customer.post(&path, body.clone()).key(&key).await;
    assert_eq!(again.header("idempotent-replayed"), "true", "{again}");
    assert_eq!(again.ok(201)["id"], held["id"]);
    assert_eq!(stage::reservation_now(customer, &text(&paid, "id")).await, paid);
    let release = customer.post_once(&format!("/v1/reservations/{}/cancel", text(&b5, "id")), json!({}));
    patiently("a hold let go", BACK, release).await.ok(200);
    assert_eq!(stage::seat_map(customer, &show.id).await, seats);
    // What it does not own is not touched by it, and a list says who is missing in it.
    customer.get("/v1/movies?limit=1").await.ok(200);
    let mine = customer.get("/v1/reservations").await.ok(200);
    assert_eq!(mine["incomplete_regions"], json!([owner]), "{mine}");

    start(world, &owner, Some("regional")).await;
    ready(world, &owner, "regional").await;
    let again = customer.post(&path, body).key(&key);
    let again = patiently("the same answer with all regions up", BACK, again).await;
    assert_eq!(again.header("idempotent-replayed"), "true", "{again}");
    assert_eq!(again.ok(201)["id"], held["id"]);
    stage::pay(customer, &held, "tok_ok").await.ok(201);

    step("its owner killed while a payment is under way: it is settled all the same");
    let owner = stage::owner(world, &show.id).await;
    let held = stage::reserve(customer, &show.id, &["B7"]).await;
    let pay = format!("/v1/reservations/{}/payments", text(&held, "id"));
    let call = customer.post(&pay, json!({"method": "card", "token": "tok_timeout"})).key(&fresh_key());
    let paying = tokio::spawn({
        let call = call.clone();
        async move { call.attempt().await }
    });
    until("the payment's start", Duration::from_secs(5), async || {
        let payments = stage::payments_of(customer, &text(&held, "id")).await;
        (!payments.is_empty()).then_some(())
    })
    .await;
    kill(world, &owner, Some("regional")).await;
    // Its answer is lost, a 503, or the next owner's; it is settled in any case.
    drop(paying.await);
    settles(world, customer, &held).await;
    let again = patiently("the repeated payment", BACK, call).await;
    assert!(again.code() < 300, "{again}");
    let payments = stage::payments_of(customer, &text(&held, "id")).await;
    assert_eq!(payments.len(), 1, "{payments:?}");
    start(world, &owner, Some("regional")).await;
    ready(world, &owner, "regional").await;
}

async fn epoch_of(customer: &Client, show: &Show) -> u64 {
    let path = format!("/v1/shows/{}/seats", show.id);
    let answer = customer.get(&path).header("cache-control", "no-cache").await;
    answer.header("x-show-epoch").parse().unwrap_or_else(|_| panic!("an epoch: {answer}"))
}

async fn settles(world: &World, customer: &Client, reservation: &Value) {
    let id = text(reservation, "id");
    until("the reservation paid", Duration::from_secs(45), async || {
        let now = customer.get(&format!("/v1/reservations/{id}")).header("cache-control", "no-cache").await;
        (now.code() == 200 && now.json()["status"] == "paid").then_some(())
    })
    .await;
    let payments = stage::payments_of(customer, &id).await;
    assert_eq!((payments.len(), &payments[0]["status"]), (1, &json!("completed")));
    if let Some(provider) = world.provider() {
        let charge = provider.get(&format!("/v1/charges/{}", text(&payments[0], "id"))).await.json();
        assert_eq!((&charge["status"], &charge["refunded"]), (&json!("succeeded"), &json!(0)), "{charge}");
    }
}

async fn redis(world: &World, show: &Show, customer: &Client) {
    step("kill -9 of a region's Redis: requests go on, with limits kept in the process");
    for region in ["us", "eu"] {
        kill(world, region, Some("redis")).await;
    }
    for n in 1..=8 {
        stage::buy(customer, &show.id, &[&format!("C{n}")]).await;
    }
    let nobody = world.gateway("us");
    let answer = nobody.get("/v1/movies?limit=1").await;
    answer.ok(200);
    assert!(!answer.header("ratelimit").is_empty(), "limits hold without Redis: {answer}");
    for region in ["us", "eu"] {
        start(world, region, Some("redis")).await;
    }
    for region in ["us", "eu"] {
        ready(world, region, "gateway").await;
        ready(world, region, "regional").await;
    }
}

async fn postgres(world: &World, show: &Show, customer: &Client) {
    let owner = stage::owner(world, &show.id).await;
    step(&format!(
        "kill -9 of {owner}'s Postgres: readyz names it, selling goes on, and what was done is there afterwards"
    ));
    let (paid, _) = stage::buy(customer, &show.id, &["D1"]).await;
    kill(world, &owner, Some("postgres")).await;
    let path = format!("/v1/shows/{}/reservations", show.id);
    let (key, body) = (fresh_key(), adults(&["D2"]));
    let call = customer.post(&path, body).key(&key);
    // The two other regions are a majority: who leads goes on, or another region does soon.
    let held = patiently("a sale without the owner's Postgres", TAKEN_OVER, call.clone()).await.ok(201);
    let port = world.operations(&owner, "regional");
    until("readyz naming Postgres", BACK, async || {
        let answer = port.get("/readyz").attempt().await.ok()?;
        (answer.code() == 503 && answer.json()["missing"].to_string().contains("postgres")).then_some(())
    })
    .await;
    assert_eq!(port.get("/livez").await.code(), 200, "its process is well");
    start(world, &owner, Some("postgres")).await;
    ready(world, &owner, "regional").await;
    let again = patiently("the same answer afterwards", BACK, call).await;
    assert_eq!(again.header("idempotent-replayed"), "true", "{again}");
    assert_eq!(again.ok(201)["id"], held["id"]);
    assert_eq!(stage::reservation_now(customer, &text(&paid, "id")).await["status"], "paid");
    assert_eq!(stage::seat_map(customer, &show.id).await["D1"], "sold");
}

async fn gateway(world: &World, show: &Show, customer: &Client) {
    step("kill -9 of a gateway: the others serve the same customer");
    kill(world, "us", Some("gateway")).await;
    assert!(customer.get("/v1/movies?limit=1").attempt().await.is_err(), "nothing listens");
    let elsewhere = customer.at(world.gateway("ap").base());
    stage::buy(&elsewhere, &show.id, &["E1"]).await;
    start(world, "us", Some("gateway")).await;
    ready(world, "us", "gateway").await;
    stage::buy(customer, &show.id, &["E2"]).await;
}

/// Every process of it at once: gateway, services, voter, Postgres, Redis.
async fn whole_region(world: &World) {
    let show = stage::new_show(world, "eu", 4, 10).await;
    let customer = world.customer("us").await.client;
    let (paid, _) = stage::buy(&customer, &show.id, &["A1"]).await;
    let held = stage::reserve(&customer, &show.id, &["A2"]).await;
    let owner = stage::owner(world, &show.id).await;
    let path = format!("/v1/shows/{}/seats", show.id);
    let copied = async || {
        let map = customer.get(&path).await;
        let seats = list(&map.ok(200), "seats");
        let status = |name: &str| seats.iter().find(|seat| seat["seat"] == name).map(|s| text(s, "status"));
        // So near to each other nobody reads a copy, which may be a moment late. But a gateway that has just been
        // started does not know yet how near they are.
        let all_there = [status("A1"), status("A2")] == [Some("sold".into()), Some("held".into())];
        (all_there && map.header("x-region") == owner).then_some(map)
    };
    let map = until("the owner's map to show both", BACK, copied).await;
    assert!(!map.header("x-as-of").is_empty(), "{map}");
    let freshest = customer.get(&path).header("cache-control", "no-cache").await;
    assert!(
        freshest.header("x-region") == owner && freshest.header("x-may-be-stale").is_empty(),
        "{freshest}"
    );
    step(&format!(
        "kill -9 of all of {owner}: what was sold stays sold, what was held is paid, selling goes on"
    ));
    assert_eq!(owner, "eu", "a new show is sold at home");
    kill(world, &owner, None).await;
    let killed = Instant::now();
    let map = customer.get(&path).await;
    step(&format!("the map is read {:?} after the kill", killed.elapsed()));
    map.ok(200);
    assert!(map.header("x-show-epoch") == "1" && map.header("x-may-be-stale") == "true", "{map}");
    let call = customer.post_once(&format!("/v1/shows/{}/reservations", show.id), adults(&["A3"]));
    patiently("a sale by another region", TAKEN_OVER, call).await.ok(201);
    step(&format!("sold {:?} after the kill", killed.elapsed()));
    let path = format!("/v1/reservations/{}/payments", text(&held, "id"));
    let call = customer.post_once(&path, json!({"method": "card", "token": "tok_ok"}));
    patiently("what was held before, paid", BACK, call).await.ok(201);
    let map = stage::seat_map(&customer, &show.id).await;
    assert_eq!([&map["A1"], &map["A2"], &map["A3"]], ["sold", "sold", "held"]);
    let taken = customer.post_once(&format!("/v1/shows/{}/reservations", show.id), adults(&["A1"])).await;
    taken.problem(409, "seats-unavailable");
    assert_eq!(stage::reservation_now(&customer, &text(&paid, "id")).await, paid);

    step(&format!("all of {owner} started again: it serves, and its gateway sells what another region owns"));
    start(world, &owner, None).await;
    ready(world, &owner, "regional").await;
    ready(world, &owner, "gateway").await;
    let there = customer.at(world.gateway(&owner).base());
    stage::buy(&there, &show.id, &["A5"]).await;
    assert_eq!(stage::reservation_now(&there, &text(&paid, "id")).await, paid);
}

async fn global(world: &World, show: &Show) {
    step("kill -9 of global: whoever is signed in goes on buying; sign-in is 503");
    let person = world.customer("us").await;
    kill(world, "global", Some("global")).await;
    stage::buy(&person.client, &show.id, &["F1"]).await;
    let sign_in = json!({"grant_type": "password", "username": person.username, "password": person.password});
    let call = world.gateway("us").post("/v1/auth/token", sign_in);
    let refused = call.clone().await;
    refused.any_problem();
    assert!(refused.code() == 503 && !refused.header("retry-after").is_empty(), "{refused}");
    world.gateway("us").get("/v1/movies?limit=1").await.ok(200);

    step("eu's regional process starts without global, and sells");
    kill(world, "eu", Some("regional")).await;
    start(world, "eu", Some("regional")).await;
    let path = format!("/v1/shows/{}/reservations", show.id);
    let call_eu = person.client.post_once(&path, adults(&["F2"]));
    patiently("a sale without global", BACK, call_eu).await.ok(201);
    ready(world, "eu", "regional").await;

    start(world, "global", Some("global")).await;
    ready(world, "global", "global").await;
    let tokens = patiently("sign-in", BACK, call).await.ok(200);
    let again = world.gateway("us").bearing(&text(&tokens, "access_token"));
    stage::buy(&again, &show.id, &["F3"]).await;
}
