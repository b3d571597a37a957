//! At the door: admitted exactly once, whatever is scanned.

use std::sync::Arc;

use common::authz::jwt::{JwkSet, Keys};
use serde_json::{Value, json};

use crate::client::{fresh_key, list, text};
use crate::stage;
use crate::world::{World, step, until};

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    let show = stage::new_show(world, "eu", 3, 6).await;
    let other_show = stage::new_show(world, "eu", 2, 4).await;
    let customer = world.customer("us").await.client;
    let (paid, _) = stage::buy(&customer, &show.id, &["A1", "A2"]).await;
    let tokens = stage::ticket_tokens(&customer, &paid).await;
    let door = world.staff("employee", Some("eu")).await;
    let path = format!("/v1/shows/{}/check-ins", show.id);
    let scan = |ticket: &str, nonce: &str| door.post(&path, json!({"ticket": ticket, "nonce": nonce}));

    step("the ticket verifies without the platform, by the published keys");
    verifies_offline(world, &show.id, &tokens["A1"]).await;

    step("admitted once; the same scan again replays; a second scan is refused and says when");
    let nonce = fresh_key();
    let admitted = scan(&tokens["A1"], &nonce).await.ok(200);
    assert_eq!(admitted["result"], "admitted", "{admitted}");
    assert_eq!(scan(&tokens["A1"], &nonce).await.ok(200)["result"], "admitted", "a repeated nonce replays");
    let second = scan(&tokens["A1"], &fresh_key()).await.problem(409, "already-admitted");
    let tells_when = second.as_object().unwrap().iter().any(|(name, value)| {
        name.ends_with("at") && value.as_str().is_some_and(|v| v.parse::<jiff::Timestamp>().is_ok())
    });
    assert!(tells_when, "no time of the first admission in {second}");

    step("twenty scanners at once read the other ticket: one admits");
    let scans = (0..20).map(|_| {
        let call = scan(&tokens["A2"], &fresh_key());
        tokio::spawn(async move { call.await })
    });
    let mut results = Vec::new();
    for scan in scans.collect::<Vec<_>>() {
        results.push(scan.await.unwrap());
    }
    assert_eq!(results.iter().filter(|r| r.code() == 200).count(), 1);
    for refusal in results.iter().filter(|r| r.code() != 200) {
        refusal.problem(409, "already-admitted");
    }

    step("another show's ticket, garbage, an altered ticket, and an access token are not admitted");
    let (elsewhere, _) = stage::buy(&customer, &other_show.id, &["B1"]).await;
    let foreign = stage::ticket_tokens(&customer, &elsewhere).await.remove("B1").unwrap();
    scan(&foreign, &fresh_key()).await.problem(409, "wrong-show");
    for garbage in
        ["", "garbage", "a.b.c", "🎟️", &foreign[..foreign.len() - 4], door.token(), &"x".repeat(5000)]
    {
        scan(garbage, &fresh_key()).await.problem(422, "not-a-ticket");
    }

    step("a canceled ticket is not admitted, the rest of its booking is");
    let (booking, _) = stage::buy(&customer, &show.id, &["C1", "C2"]).await;
    let tokens = stage::ticket_tokens(&customer, &booking).await;
    let cancel = format!("/v1/reservations/{}/cancel", text(&booking, "id"));
    door.post_once(&cancel, json!({"seats": ["C1"]})).await.ok(200);
    let refusal = scan(&tokens["C1"], &fresh_key()).await.any_problem();
    assert_eq!(refusal["status"], 409, "{refusal}");
    assert!(matches!(refusal["code"].as_str(), Some("canceled" | "refunded")), "{refusal}");
    assert_eq!(scan(&tokens["C2"], &fresh_key()).await.ok(200)["result"], "admitted");

    step("a customer is no doorkeeper; a scanner needs a nonce");
    customer
        .post(&path, json!({"ticket": tokens["C2"], "nonce": fresh_key()}))
        .await
        .problem(403, "forbidden");
    door.post(&path, json!({"ticket": tokens["C2"]})).await.names_field("nonce");
}

/// As a scanner without a network does it: with keys that it fetched before.
async fn verifies_offline(world: &World, show: &str, token: &str) {
    let us = world.gateway("us");
    // Regions learn each other's keys through the registry.
    let keys = until("eu's ticket key at us", std::time::Duration::from_secs(10), async || {
        let answer = us.get("/v1/tickets/keys").await.ok(200);
        let known = serde_json::from_value::<JwkSet>(answer).expect("a JWK set");
        let kid = header_of(token)["kid"].clone();
        known.keys.iter().any(|k| kid == k.kid.as_str()).then_some(known)
    })
    .await;
    let typ = text(&header_of(token), "typ");
    let body = part(token, 1);
    let issuer = body["iss"].as_str().expect("an issuer").to_owned();
    let audience = body["aud"].as_str().expect("an audience").to_owned();
    let keys = Keys::from_jwks(&keys);
    let claims: Value = keys.verify(token, &typ, &issuer, &audience, false).expect("a genuine ticket");
    assert!(claims.to_string().contains(show) || claims.to_string().contains("A1"), "{claims}");
    let mut letters = token.to_owned();
    let last = letters.pop().unwrap();
    letters.push(if last == 'A' { 'Q' } else { 'A' });
    assert!(
        keys.verify::<Value>(&letters, &typ, &issuer, &audience, false).is_err(),
        "an altered one passes"
    );
    let access = list(&us.get("/.well-known/jwks.json").await.ok(200), "keys");
    let ticket_kid = &header_of(token)["kid"];
    assert!(access.iter().all(|k| k["kid"] != *ticket_kid), "tickets and access tokens share a key");
}

fn header_of(token: &str) -> Value {
    part(token, 0)
}

pub fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).expect("a JWT has three parts");
    let bytes = data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON inside a JWT")
}
