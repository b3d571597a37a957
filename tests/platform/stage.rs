//! Halls, shows and purchases that journeys start from, made through the public API like any manager's.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::client::{Client, list, text};
use crate::world::{Person, World};

/// What an adult pays for a standard seat in shows made here, in minor units.
pub const ADULT: i64 = 1250;
pub const CHILD: i64 = 800;

/// Of cinemas made here.
pub const ADDRESS: &str = "1 Test Street";

#[derive(Clone, Debug)]
pub struct Show {
    pub id: String,
    pub hall: String,
    pub cinema: String,
    pub movie: String,
}

/// A film of the catalogue, as the region's own copy has it.
pub async fn any_movie(world: &World, region: &str) -> Value {
    let movies = world.gateway(region).get("/v1/movies?limit=50").await.ok(200);
    let known = list(&movies, "items").into_iter().find(|m| m["runtime_min"].as_i64().is_some_and(|r| r > 0));
    known.expect("the catalogue has a film of known length")
}

pub fn cinema_body(name: &str, currency: &str) -> Value {
    json!({"name": name, "address": ADDRESS, "latitude": 50.0, "longitude": 8.0,
        "time_zone": "Europe/Berlin", "currency": currency})
}

pub async fn new_cinema(manager: &Client, region: &str, name: &str) -> String {
    let answer = manager.post_once("/v1/cinemas", cinema_body(name, "EUR")).header("x-region", region).await;
    text(&answer.ok(201), "id")
}

/// A hall of `rows` rows (A, B, …) with `seats` standard seats each.
pub async fn new_hall(manager: &Client, cinema: &str, rows: u32, seats: u32) -> String {
    let body = json!({"name": "Test hall", "grid": {"rows": rows, "seats": seats}});
    text(&manager.post_once(&format!("/v1/cinemas/{cinema}/halls"), body).await.ok(201), "id")
}

pub fn show_body(hall: &str, movie: &str, starts_at: &str) -> Value {
    json!({"hall_id": hall, "movie_id": movie, "starts_at": starts_at, "max_seats_per_customer": 20, "prices": [
            {"seat_type": "standard", "category": "adult", "amount": ADULT},
            {"seat_type": "standard", "category": "child", "amount": CHILD}]})
}

/// RFC 3339, so many hours from now, on the hour's own second.
pub fn in_hours(hours: i64) -> String {
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours);
    jiff::Timestamp::from_second(at.as_second()).expect("a near time").to_string()
}

/// A new show in two days, in a hall of its own, at most 20 seats a customer.
pub async fn new_show(world: &World, region: &str, rows: u32, seats: u32) -> Show {
    new_show_of(world, region, rows, seats, 20).await
}

pub async fn new_show_of(world: &World, region: &str, rows: u32, seats: u32, limit: u32) -> Show {
    let manager = world.staff("manager", Some(region)).await;
    let movie = text(&any_movie(world, region).await, "id");
    let cinema = new_cinema(&manager, region, &world.fresh("Cinema ")).await;
    let hall = new_hall(&manager, &cinema, rows, seats).await;
    let mut body = show_body(&hall, &movie, &in_hours(48));
    body["max_seats_per_customer"] = limit.into();
    let show = manager.post_once("/v1/shows", body).await.ok(201);
    Show { id: text(&show, "id"), hall, cinema, movie }
}

pub fn adults(seats: &[&str]) -> Value {
    let seats: Vec<Value> = seats.iter().map(|s| json!({"seat": s, "category": "adult"})).collect();
    json!({"seats": seats})
}

pub async fn reserve(customer: &Client, show: &str, seats: &[&str]) -> Value {
    customer.post_once(&format!("/v1/shows/{show}/reservations"), adults(seats)).await.ok(201)
}

pub async fn pay(customer: &Client, reservation: &Value, token: &str) -> crate::client::Answer {
    let path = format!("/v1/reservations/{}/payments", text(reservation, "id"));
    customer.post_once(&path, json!({"method": "card", "token": token})).await
}

/// Seats reserved and paid; answers the paid reservation and the completed payment.
pub async fn buy(customer: &Client, show: &str, seats: &[&str]) -> (Value, Value) {
    let reservation = reserve(customer, show, seats).await;
    let payment = pay(customer, &reservation, "tok_ok").await.ok(201);
    assert_eq!(payment["status"], "completed", "{payment}");
    (reservation_now(customer, &text(&reservation, "id")).await, payment)
}

/// The region that sells the show now.
pub async fn owner(world: &World, show: &str) -> String {
    let operator = world.staff("operator", None).await;
    text(&operator.get(&format!("/v1/shows/{show}/ownership")).await.ok(200), "owner")
}

pub async fn reservation_now(client: &Client, id: &str) -> Value {
    client.get(&format!("/v1/reservations/{id}")).header("cache-control", "no-cache").await.ok(200)
}

pub async fn payments_of(client: &Client, reservation: &str) -> Vec<Value> {
    let path = format!("/v1/reservations/{reservation}/payments");
    list(&client.get(&path).header("cache-control", "no-cache").await.ok(200), "items")
}

/// The signed tokens of a paid reservation's tickets, by seat.
pub async fn ticket_tokens(customer: &Client, paid: &Value) -> BTreeMap<String, String> {
    let mut tokens = BTreeMap::new();
    for ticket in list(paid, "tickets") {
        let whole = customer.get(&format!("/v1/tickets/{}", text(&ticket, "id"))).await.ok(200);
        tokens.insert(text(&ticket, "seat"), text(&whole, "token"));
    }
    assert!(!tokens.is_empty(), "no tickets in {paid}");
    tokens
}

/// Every seat's status, by seat, as the owner has it.
pub async fn seat_map(client: &Client, show: &str) -> BTreeMap<String, String> {
    let map =
        client.get(&format!("/v1/shows/{show}/seats")).header("cache-control", "no-cache").await.ok(200);
    assert_eq!(map["show_id"], show);
    list(&map, "seats").iter().map(|s| (text(s, "seat"), text(s, "status"))).collect()
}

/// How many seats have each status.
pub async fn seat_counts(client: &Client, show: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for status in seat_map(client, show).await.into_values() {
        *counts.entry(status).or_default() += 1;
    }
    counts
}

/// A customer with a paid ticket of a new show of `region`, for journeys about what comes after.
pub async fn customer_with_ticket(world: &World, region: &str) -> (Show, Person, Value) {
    let show = new_show(world, region, 3, 6).await;
    let customer = world.customer(region).await;
    let (paid, _) = buy(&customer.client, &show.id, &["A1"]).await;
    (show, customer, paid)
}
