//! Bookings that end before the show: canceled by their owner, refunded in part by an employee, and seats
//! changed while they are only reserved.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, fresh_key, list, text};
use crate::stage::{self, ADULT, adults, seat_map};
use crate::world::{World, step, until};

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    let show = stage::new_show(world, "eu", 4, 8).await.id;
    let customer = world.customer("us").await.client;
    let desk = world.staff("employee", Some("eu")).await;
    cancels_in_whole(world, &show, &customer).await;
    cancels_in_part(&show, &customer).await;
    employee_refunds(world, &show, &customer, &desk).await;
    before_paying(&show, &customer).await;
    quotes_a_refund(&show, &customer, &desk).await;
}

/// The payment as it stands once the provider has given the money back.
async fn refunded(client: &Client, reservation: &str, status: &str) -> Value {
    until(&format!("a payment that is {status}"), Duration::from_secs(15), async || {
        stage::payments_of(client, reservation).await.into_iter().find(|p| p["status"] == status)
    })
    .await
}

/// What the card company's books say was given back, when they are open to us.
async fn given_back(world: &World, payment: &str) -> Option<i64> {
    let charge = world.provider()?.get(&format!("/v1/charges/{payment}")).await;
    assert_eq!(charge.code(), 200, "{charge}");
    charge.json()["refunded"].as_i64()
}

/// The money a quote or a cancellation speaks of.
fn refund_amount(body: &Value) -> i64 {
    body["quote"]["refund"]["amount"].as_i64().unwrap_or_else(|| panic!("no quote.refund in {body}"))
}

async fn cancels_in_whole(world: &World, show: &str, customer: &Client) {
    step("asks what canceling would give back, cancels, gets the money, and the seats are free");
    let (paid, payment) = stage::buy(customer, show, &["A1", "A2"]).await;
    let id = text(&paid, "id");
    let path = format!("/v1/reservations/{id}/cancel");
    let quote = customer.post_once(&format!("{path}?dry_run=true"), json!({})).await.ok(200);
    assert_eq!(refund_amount(&quote), 2 * ADULT, "{quote}");
    assert_eq!(stage::reservation_now(customer, &id).await["status"], "paid", "a quote changes nothing");
    assert_eq!(seat_map(customer, show).await["A1"], "sold");

    let key = fresh_key();
    let canceled = customer.post(&path, json!({})).key(&key).await.ok(200);
    let again = customer.post(&path, json!({})).key(&key).await;
    assert_eq!((again.header("idempotent-replayed"), again.ok(200)), ("true", canceled));
    let map = seat_map(customer, show).await;
    assert!(map["A1"] == "free" && map["A2"] == "free", "free again at once: {map:?}");
    let back = refunded(customer, &id, "refunded").await;
    assert_eq!(back["id"], payment["id"]);
    if let Some(amount) = given_back(world, &text(&payment, "id")).await {
        assert_eq!(amount, 2 * ADULT, "the provider's books");
    }
    let now = stage::reservation_now(customer, &id).await;
    assert!(matches!(now["status"].as_str(), Some("canceled" | "refunded")), "{now}");
    let other = world.customer("eu").await.client;
    stage::buy(&other, show, &["A1", "A2"]).await;
}

async fn cancels_in_part(show: &str, customer: &Client) {
    step("cancels one seat of two: the other stays theirs");
    let (paid, _) = stage::buy(customer, show, &["B1", "B2"]).await;
    let id = text(&paid, "id");
    let path = format!("/v1/reservations/{id}/cancel");
    customer.post_once(&path, json!({"seats": ["H99"]})).await.names_field("seats");
    customer.post_once(&path, json!({"seats": ["B1"]})).await.ok(200);
    let map = seat_map(customer, show).await;
    assert_eq!((map["B1"].as_str(), map["B2"].as_str()), ("free", "sold"));
    refunded(customer, &id, "partially_refunded").await;
    customer.post_once(&path, json!({})).await.ok(200);
    refunded(customer, &id, "refunded").await;
    // A repeat under another key finds it done and moves no more money.
    let again = customer.post_once(&path, json!({})).await;
    assert!(matches!(again.code(), 200 | 409), "{again}");
    let payments = stage::payments_of(customer, &id).await;
    assert_eq!((payments.len(), &payments[0]["status"]), (1, &json!("refunded")), "{payments:?}");
}

async fn employee_refunds(world: &World, show: &str, customer: &Client, desk: &Client) {
    step("an employee gives part of the money back, then the rest, and never more than was paid");
    let (paid, payment) = stage::buy(customer, show, &["C1", "C2"]).await;
    let (reservation, payment) = (text(&paid, "id"), text(&payment, "id"));
    let path = format!("/v1/payments/{payment}/refunds");
    let money = |amount: i64| json!({"amount": amount, "currency": "EUR"});
    let part = json!({"amount": money(300), "reason": "the heating failed"});
    customer.post_once(&path, part.clone()).await.problem(403, "forbidden");
    desk.post(&path, part.clone()).await.problem(400, "idempotency-key-missing");
    let key = fresh_key();
    let first = desk.post(&path, part.clone()).key(&key).await.ok(201);
    let again = desk.post(&path, part).key(&key).await;
    assert_eq!((again.header("idempotent-replayed"), again.ok(201)), ("true", first));
    refunded(customer, &reservation, "partially_refunded").await;
    assert_eq!(seat_map(customer, show).await["C1"], "sold", "money back does not take the seat");
    for (amount, what) in [(2 * ADULT, "more than is left"), (0, "nothing"), (-5, "less than nothing")] {
        let answer = desk.post_once(&path, json!({"amount": money(amount), "reason": what})).await;
        let problem = answer.any_problem();
        assert!(matches!(answer.code(), 409 | 422), "{what}: {problem}");
    }
    let dollars = json!({"amount": {"amount": 5, "currency": "USD"}, "reason": "other currency"});
    desk.post_once(&path, dollars).await.names_field("amount");
    let answer = desk.post_once(&path, json!({"reason": "the rest"})).await;
    answer.ok(201);
    refunded(customer, &reservation, "refunded").await;
    if let Some(amount) = given_back(world, &payment).await {
        assert_eq!(amount, 2 * ADULT, "the provider's books");
    }
}

async fn before_paying(show: &str, customer: &Client) {
    step("changes the seats of a reservation: all or none, the deadline stays; then lets it go");
    let held = stage::reserve(customer, show, &["D1", "D2"]).await;
    let id = text(&held, "id");
    let path = format!("/v1/reservations/{id}");
    let change = |seats: &[&str]| customer.call(Method::PATCH, &path).json(adults(seats)).key(&fresh_key());
    change(&["D3", "A1"]).await.problem(409, "seats-unavailable");
    let changed = change(&["D2", "D3"]).await.ok(200);
    assert_eq!(changed["expires_at"], held["expires_at"], "{changed}");
    let map = seat_map(customer, show).await;
    assert_eq!((map["D1"].as_str(), map["D2"].as_str(), map["D3"].as_str()), ("free", "held", "held"));
    customer.post_once(&format!("{path}/cancel"), json!({})).await.ok(200);
    assert_eq!(stage::reservation_now(customer, &id).await["status"], "canceled");
    let map = seat_map(customer, show).await;
    assert_eq!((map["D2"].as_str(), map["D3"].as_str()), ("free", "free"));
    let late = stage::pay(customer, &held, "tok_ok").await.any_problem();
    assert_eq!(late["status"], 409, "what is canceled is not paid: {late}");
    assert!(list(&stage::reservation_now(customer, &id).await, "tickets").is_empty());
}

async fn quotes_a_refund(show: &str, customer: &Client, desk: &Client) {
    step("an employee asks what a refund would give back: no money moves");
    let (paid, payment) = stage::buy(customer, show, &["C5", "C6"]).await;
    let path = format!("/v1/payments/{}/refunds?dry_run=true", text(&payment, "id"));
    let quote = desk.post_once(&path, json!({"reason": "only asking"})).await;
    assert!(quote.status.is_success(), "{quote}");
    let payments = stage::payments_of(customer, &text(&paid, "id")).await;
    assert_eq!(payments[0]["status"], "completed", "asking moved money: {payments:?}");
    assert_eq!(seat_map(customer, show).await["C5"], "sold");
}
