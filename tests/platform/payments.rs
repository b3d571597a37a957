//! Every way a payment can go, and what both books say afterwards.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, fresh_key, text};
use crate::stage::{self, ADULT, seat_map};
use crate::world::{World, step, until};

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    let show = stage::new_show(world, "eu", 4, 8).await.id;
    let customer = world.customer("us").await.client;
    declined(world, &show, &customer).await;
    timed_out(world, &show, &customer).await;
    late(world, &show, &customer).await;
    fails_once(world, &show, &customer).await;
    cash(world, &show, &customer).await;
    forged_webhook(world, &show, &customer).await;
    bad_requests(&show, &customer).await;
}

/// What the provider booked for a payment: its state, or `absent`; `None` when its books are closed to us.
async fn booked(world: &World, payment: &str) -> Option<(String, i64)> {
    let answer = world.provider()?.get(&format!("/v1/charges/{payment}")).await;
    if answer.code() == 404 {
        return Some(("absent".into(), 0));
    }
    let charge = answer.json();
    let amount =
        charge["amount"].as_i64().unwrap_or_default() - charge["refunded"].as_i64().unwrap_or_default();
    Some((text(&charge, "status"), amount))
}

async fn charged(world: &World, payment: &str, amount: i64) {
    if let Some(books) = booked(world, payment).await {
        assert_eq!(books, ("succeeded".into(), amount), "the provider's books for {payment}");
    }
}

async fn not_charged(world: &World, payment: &str) {
    if let Some((status, _)) = booked(world, payment).await {
        assert!(
            status != "succeeded" && status != "pending",
            "{payment} is {status} in the provider's books"
        );
    }
}

/// The reservation's only payment, once it is neither pending nor anything on the way.
async fn settled(client: &Client, reservation: &Value, within: Duration) -> Value {
    let id = text(reservation, "id");
    until("the payment's end", within, async || {
        let payments = stage::payments_of(client, &id).await;
        assert_eq!(payments.len(), 1, "one attempt is one payment: {payments:?}");
        payments.into_iter().find(|p| p["status"] != "pending")
    })
    .await
}

async fn declined(world: &World, show: &str, customer: &Client) {
    step("a card is declined: the seats stay held, and another card buys them");
    for (seat, token, reason) in
        [("A1", "tok_declined", "card_declined"), ("A2", "tok_insufficient_funds", "insufficient_funds")]
    {
        let held = stage::reserve(customer, show, &[seat]).await;
        let path = format!("/v1/reservations/{}/payments", text(&held, "id"));
        let (key, card) = (fresh_key(), json!({"method": "card", "token": token}));
        let refusal = customer.post(&path, card.clone()).key(&key).await.problem(402, "payment-declined");
        assert!(refusal.to_string().contains(reason), "the reason is told: {refusal}");
        let again = customer.post(&path, card).key(&key).await;
        again.problem(402, "payment-declined");
        assert_eq!(again.header("idempotent-replayed"), "true", "{again}");
        assert_eq!(seat_map(customer, show).await[seat], "held");
        let payments = stage::payments_of(customer, &text(&held, "id")).await;
        assert_eq!((payments.len(), &payments[0]["status"]), (1, &json!("failed")), "{payments:?}");
        not_charged(world, &text(&payments[0], "id")).await;
        let paid = stage::pay(customer, &held, "tok_ok").await.ok(201);
        assert_eq!(paid["status"], "completed");
        charged(world, &text(&paid, "id"), ADULT).await;
        assert_eq!(seat_map(customer, show).await[seat], "sold");
    }
    let held = stage::reserve(customer, show, &["A3"]).await;
    stage::pay(customer, &held, "tok_unknown").await.problem(402, "payment-declined");
}

async fn timed_out(world: &World, show: &str, customer: &Client) {
    step("the provider does not answer, but charged: ends completed, charged once");
    let held = stage::reserve(customer, show, &["B1"]).await;
    let answer = stage::pay(customer, &held, "tok_timeout").await;
    assert!(matches!(answer.json()["status"].as_str(), Some("completed" | "pending")), "{answer}");
    let payment = settled(customer, &held, Duration::from_secs(45)).await;
    assert_eq!(payment["status"], "completed", "{payment}");
    charged(world, &text(&payment, "id"), ADULT).await;
    let paid = until("the reservation paid", Duration::from_secs(5), async || {
        let now = stage::reservation_now(customer, &text(&held, "id")).await;
        (now["status"] == "paid").then_some(now)
    })
    .await;
    assert_eq!(stage::ticket_tokens(customer, &paid).await.len(), 1);

    step("the provider does not answer, and charged nothing: ends not completed, nothing is owed");
    let held = stage::reserve(customer, show, &["B2"]).await;
    let answer = stage::pay(customer, &held, "tok_timeout_lost").await;
    assert!(answer.code() < 500, "{answer}");
    let payment = settled(customer, &held, Duration::from_secs(90)).await;
    assert_eq!(payment["status"], "failed", "{payment}");
    not_charged(world, &text(&payment, "id")).await;
    assert_eq!(seat_map(customer, show).await["B2"], "held", "the customer may still try another card");
    let paid = stage::pay(customer, &held, "tok_ok").await.ok(201);
    assert_eq!(paid["status"], "completed", "{paid}");
    charged(world, &text(&paid, "id"), ADULT).await;
}

async fn late(world: &World, show: &str, customer: &Client) {
    step("the charge is pending and succeeds later: the webhook completes the purchase");
    let held = stage::reserve(customer, show, &["C1"]).await;
    let payment = stage::pay(customer, &held, "tok_late").await.ok(201);
    assert_eq!(payment["status"], "pending", "{payment}");
    assert_eq!(seat_map(customer, show).await["C1"], "held");
    let second = stage::pay(customer, &held, "tok_ok").await.any_problem();
    assert_eq!(second["status"], 409, "one payment at a time: {second}");
    let payment = settled(customer, &held, Duration::from_secs(10)).await;
    assert_eq!(payment["status"], "completed", "{payment}");
    charged(world, &text(&payment, "id"), ADULT).await;
    assert_eq!(seat_map(customer, show).await["C1"], "sold");
}

async fn fails_once(world: &World, show: &str, customer: &Client) {
    step("the provider fails once: the payment is completed all the same, and charged once");
    let held = stage::reserve(customer, show, &["C2"]).await;
    let answer = stage::pay(customer, &held, "tok_fail_once").await;
    answer.ok(201);
    let payment = settled(customer, &held, Duration::from_secs(20)).await;
    assert_eq!(payment["status"], "completed", "{payment}");
    charged(world, &text(&payment, "id"), ADULT).await;
}

async fn cash(world: &World, show: &str, customer: &Client) {
    step("cash is taken by an employee of the region, and by nobody else");
    let held = stage::reserve(customer, show, &["C3"]).await;
    let path = format!("/v1/reservations/{}/payments", text(&held, "id"));
    customer.post_once(&path, json!({"method": "cash"})).await.problem(403, "forbidden");
    let stranger = world.customer("eu").await.client;
    stranger.post_once(&path, json!({"method": "cash"})).await.problem(404, "not-found");
    stranger.post_once(&path, json!({"method": "card", "token": "tok_ok"})).await.problem(404, "not-found");
    let far = world.staff("employee", Some("us")).await;
    far.post_once(&path, json!({"method": "cash"})).await.problem(404, "not-found");
    let desk = world.staff("employee", Some("eu")).await;
    let payment = desk.post_once(&path, json!({"method": "cash"})).await.ok(201);
    assert_eq!((&payment["status"], &payment["method"]), (&json!("completed"), &json!("cash")));
    assert_eq!(seat_map(customer, show).await["C3"], "sold");
}

async fn forged_webhook(world: &World, show: &str, customer: &Client) {
    step("a webhook that the provider did not sign changes nothing");
    let held = stage::reserve(customer, show, &["D1"]).await;
    let payment = stage::pay(customer, &held, "tok_late").await.ok(201);
    let body = json!({"type": "charge.updated", "charge": {"id": payment["id"], "status": "succeeded",
        "reason": null, "amount": ADULT, "currency": "EUR", "refunded": 0}});
    let now = jiff::Timestamp::now().as_second().to_string();
    let nobody = world.gateway("ap");
    let send = |signature: &str| {
        nobody
            .post("/v1/webhooks/payments/test", body.clone())
            .header("webhook-id", "msg_forged")
            .header("webhook-timestamp", &now)
            .header("webhook-signature", signature)
    };
    for signature in ["v1,", "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "v0,x", "nonsense"] {
        let answer = send(signature).await;
        answer.any_problem();
        assert!(matches!(answer.code(), 400 | 401 | 403 | 422), "{answer}");
    }
    let unsigned = nobody.post("/v1/webhooks/payments/test", body.clone()).await;
    assert!(matches!(unsigned.code(), 400 | 401 | 403 | 422), "{unsigned}");
    let unknown = nobody.post("/v1/webhooks/payments/nobody", body.clone()).await;
    assert!((400..500).contains(&unknown.code()), "{unknown}");
    // The provider's own, signed, completes it.
    assert_eq!(settled(customer, &held, Duration::from_secs(10)).await["status"], "completed");
}

async fn bad_requests(show: &str, customer: &Client) {
    step("a payment names its method and never its amount");
    let held = stage::reserve(customer, show, &["D2"]).await;
    let path = format!("/v1/reservations/{}/payments", text(&held, "id"));
    let post = |body: Value| customer.post_once(&path, body);
    post(json!({"method": "card", "token": "tok_ok", "amount": 1})).await.names_field("amount");
    post(json!({"method": "card"})).await.names_field("token");
    post(json!({"method": "barter", "token": "tok_ok"})).await.names_field("method");
    post(json!({"method": "card", "token": "two words"})).await.names_field("token");
    post(json!({"token": "tok_ok"})).await.names_field("method");
    let long = "x".repeat(100_000);
    post(json!({"method": "card", "token": long})).await.names_field("token");
    assert!(stage::payments_of(customer, &text(&held, "id")).await.is_empty(), "nothing was tried");
    let online = post(json!({"method": "online", "token": "tok_ok"})).await.ok(201);
    assert_eq!((&online["status"], &online["method"]), (&json!("completed"), &json!("online")));
}
