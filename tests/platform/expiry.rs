//! One region alone: everything works, and a reservation whose time runs out gives its seats back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::client::{Client, text};
use crate::stage::{self, adults, seat_map};
use crate::world::{World, step, until};

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    let region = world.run().gateways.into_keys().next().expect("a gateway");
    let show = opens_a_cinema(world, &region).await;
    let customer = world.customer(&region).await.client;
    buys_in_time(&customer, &show).await;
    comes_too_late(world, &region, &customer, &show).await;
    pays_while_time_runs_out(&customer, &show).await;
}

/// There is no demo data: the admin makes what a newcomer would.
async fn opens_a_cinema(world: &World, region: &str) -> String {
    step("the admin adds a film, a cinema, a hall and a show");
    let admin = world.staff("admin", None).await;
    let film =
        admin.post_once("/v1/movies", json!({"title": "The Only Film", "runtime_min": 95})).await.ok(201);
    let movie = text(&film, "id");
    until("the film in the region's own catalogue", Duration::from_secs(10), async || {
        (admin.get(&format!("/v1/movies/{movie}")).await.code() == 200).then_some(())
    })
    .await;
    let cinema = stage::new_cinema(&admin, region, "The Only Cinema").await;
    let hall = stage::new_hall(&admin, &cinema, 2, 5).await;
    let body = stage::show_body(&hall, &movie, &stage::in_hours(48));
    let show = admin.post_once("/v1/shows", body).await;
    assert_eq!(show.header("x-region"), region, "{show}");
    text(&show.ok(201), "id")
}

async fn buys_in_time(customer: &Client, show: &str) {
    step("reserves and pays in time");
    let (paid, _) = stage::buy(customer, show, &["A1"]).await;
    assert_eq!(paid["status"], "paid");
    let all = customer.get("/v1/reservations").await.ok(200);
    assert_eq!(
        (all["incomplete_regions"].clone(), all["items"].as_array().map(Vec::len)),
        (json!([]), Some(1))
    );
}

async fn comes_too_late(world: &World, region: &str, customer: &Client, show: &str) {
    step("a reservation that nobody pays expires: its seats are free, paying comes too late");
    let held = stage::reserve(customer, show, &["B1", "B2"]).await;
    assert!(held["expires_in_seconds"].as_i64().is_some_and(|s| s <= 2), "{held}");
    until("the seats free again", Duration::from_secs(10), async || {
        let map = seat_map(customer, show).await;
        (map["B1"] == "free" && map["B2"] == "free").then_some(())
    })
    .await;
    stage::pay(customer, &held, "tok_ok").await.problem(409, "reservation-expired");
    let now = stage::reservation_now(customer, &text(&held, "id")).await;
    assert_eq!((&now["status"], &now["expires_in_seconds"]), (&json!("expired"), &json!(0)), "{now}");
    assert!(stage::payments_of(customer, &text(&held, "id")).await.is_empty(), "nothing was charged");
    let other = world.customer(region).await.client;
    stage::buy(&other, show, &["B1", "B2"]).await;
    let path = format!("/v1/shows/{show}/reservations");
    customer.post_once(&path, adults(&["B1"])).await.problem(409, "seats-unavailable");
}

async fn pays_while_time_runs_out(customer: &Client, show: &str) {
    step("a payment under way when the time runs out: the seats wait for its end");
    let held = stage::reserve(customer, show, &["B4"]).await;
    // The provider answers after the hold is over.
    stage::pay(customer, &held, "tok_late").await.ok(201);
    let id = text(&held, "id");
    let paid = until("the reservation paid", Duration::from_secs(15), async || {
        let now = stage::reservation_now(customer, &id).await;
        assert!(
            matches!(now["status"].as_str(), Some("reserved" | "paid")),
            "money and seat part ways: {now}"
        );
        (now["status"] == "paid").then_some(now)
    })
    .await;
    assert_eq!(paid["tickets"].as_array().map(Vec::len), Some(1));
    assert_eq!(seat_map(customer, show).await["B4"], "sold");
}
