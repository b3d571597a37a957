//! The one audit log: what staff and operators do in a region is told in `global`, once, with who, from where,
//! before and after; also what was done while `global` was away. And where a user wants to be served.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, fresh_key, list, text};
use crate::stage::{self, adults};
use crate::world::{Person, World, kill, start, step, until};

/// A region brings its lines within seconds; another that keeps the journal sweeps more seldom.
const TOLD: Duration = Duration::from_secs(30);

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    own_region(world).await;
    let roles = json!([{"role": "manager", "region": "us"}, {"role": "operator"}]);
    let staff = world.appointed("us", roles).await;
    let admin = world.staff("admin", None).await;
    let mut day = a_busy_day(world, &staff).await;
    let lines = told(&admin, &staff, &day.expected).await;
    before_and_after(&lines);
    without_global(world, &staff, &mut day).await;
    let port = world.operations("global", "global");
    until("global", TOLD, async || (port.get("/readyz").attempt().await.ok()?.code() == 200).then_some(()))
        .await;
    told(&world.staff("admin", None).await, &staff, &day.expected).await;
}

/// What was done, and to what.
struct Day {
    expected: Expected,
    show: String,
    cinema: String,
}

fn before_and_after(lines: &[Value]) {
    let of = |action: &str| {
        let line = lines.iter().find(|line| line["action"] == action);
        line.map(|line| (line["before"].clone(), line["after"].clone())).unwrap()
    };
    let (before, after) = of("cinema.update");
    assert_eq!((&before["address"], &after["address"]), (&json!(stage::ADDRESS), &json!("2 Test Street")));
    let (before, after) = of("show.reschedule");
    assert!(before["starts_at"].is_string() && before["starts_at"] != after["starts_at"], "{before} {after}");
    let (_, after) = of("show.create");
    assert_eq!(after["prices"][0]["amount"], stage::ADULT, "{after}");
    let (before, after) = of("show.move");
    assert_eq!((&before["owner"], &after["owner"]), (&json!("us"), &json!("eu")));
    let money = |amount: i64| json!({"amount": amount, "currency": "EUR"});
    let (before, after) = of("payment.refund");
    assert_eq!((&before["refunded"], &after["amount"]), (&money(0), &money(100)));
    let (before, after) = of("reservation.cancel");
    assert_eq!((&before["status"], &before["seats"]), (&json!("reserved"), &after["seats_given_up"]));
    let all = json!(lines).to_string();
    assert!(!all.contains("Miller") && !all.contains("@example.org"), "nothing personal: {all}");
}

type Expected = BTreeSet<(String, String)>;

/// Everything that this person did, once each.
async fn told(admin: &Client, staff: &Person, expected: &Expected) -> Vec<Value> {
    let lines = until("every line", TOLD, async || {
        let lines = lines_of(admin, &staff.id).await;
        let seen: Expected = lines.iter().map(|line| (text(line, "action"), text(line, "target"))).collect();
        expected.is_subset(&seen).then_some(lines)
    })
    .await;
    let seen: Vec<(String, String)> =
        lines.iter().map(|line| (text(line, "action"), text(line, "target"))).collect();
    let once: Expected = seen.iter().cloned().collect();
    assert_eq!(&once, expected, "and nothing else");
    assert_eq!(once.len(), seen.len(), "none is there twice: {seen:?}");
    for line in &lines {
        assert_eq!(line["region"], "us", "{line}");
        assert_eq!(line["address"], "127.0.0.1", "{line}");
        assert!(line["after"].is_object(), "{line}");
    }
    lines
}

/// Page by page.
async fn lines_of(admin: &Client, actor: &str) -> Vec<Value> {
    let (mut lines, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = admin.get(&format!("/v1/audit?actor={actor}&limit=5{cursor}")).await.ok(200);
        // Signing in and up is global's own business.
        let own = |line: &Value| text(line, "action").starts_with("user.");
        lines.extend(list(&page, "items").into_iter().filter(|line| !own(line)));
        let Some(next) = page["next_cursor"].as_str() else { return lines };
        cursor = format!("&cursor={next}");
    }
}

async fn a_busy_day(world: &World, staff: &Person) -> Day {
    step("a manager who is an operator too does all that is audited, and tries what is refused");
    let desk = &staff.client;
    let mut expected = Expected::new();
    let mut expect = |action: &str, target: &str| {
        assert!(expected.insert((action.to_owned(), target.to_owned())));
    };
    let cinema = stage::new_cinema(desk, "us", &world.fresh("Cinema ")).await;
    expect("cinema.create", &cinema);
    desk.call(Method::PATCH, &format!("/v1/cinemas/{cinema}"))
        .json(json!({"address": "2 Test Street"}))
        .await
        .ok(200);
    expect("cinema.update", &cinema);
    let hall = stage::new_hall(desk, &cinema, 2, 5).await;
    expect("hall.create", &hall);
    let layout = json!({"grid": {"rows": 3, "seats": 6}});
    desk.call(Method::PUT, &format!("/v1/halls/{hall}/layout")).json(layout).await.ok(200);
    expect("hall.layout", &hall);

    let movie = text(&stage::any_movie(world, "us").await, "id");
    let mut body = stage::show_body(&hall, &movie, &stage::in_hours(48));
    body["max_seats_per_customer"] = json!(2);
    desk.post_once("/v1/shows", stage::show_body(&hall, &movie, "2020-01-01T00:00:00Z"))
        .await
        .problem(422, "invalid-request");
    let show = text(&desk.post_once("/v1/shows", body.clone()).await.ok(201), "id");
    expect("show.create", &show);
    desk.post_once("/v1/shows", body).await.problem(409, "hall-busy");
    let path = format!("/v1/shows/{show}");
    desk.call(Method::PATCH, &path).json(json!({"starts_at": stage::in_hours(50)})).await.ok(200);
    expect("show.reschedule", &show);

    let customer = world.customer("eu").await.client;
    let (paid, payment) = stage::buy(&customer, &show, &["A1", "A2"]).await;
    desk.post(&format!("{path}/blocks"), json!({"seats": ["A1"], "reason": "x"}))
        .await
        .problem(409, "seats-unavailable");
    desk.post(&format!("{path}/blocks"), json!({"seats": ["C1"], "reason": "broken"})).await.ok(200);
    expect("show.block", &show);
    desk.call(Method::DELETE, &format!("{path}/blocks")).json(json!({"seats": ["C1"]})).await.ok(200);
    expect("show.unblock", &show);

    let mut group = adults(&["B1", "B2", "B3"]);
    group["contact_email"] = json!("school@example.org");
    let waived = desk.post_once(&format!("{path}/reservations"), group).await.ok(201);
    expect("reservation.waive", &text(&waived, "id"));
    let plain = desk.post_once(&format!("{path}/reservations"), adults(&["B5"])).await.ok(201);
    assert!(
        plain["waivers"].as_array().is_none_or(Vec::is_empty),
        "nothing set aside, nothing told: {plain}"
    );

    let ticket = stage::ticket_tokens(&customer, &paid).await.remove("A1").unwrap();
    let id = list(&paid, "tickets").iter().find(|t| t["seat"] == "A1").map(|t| text(t, "id")).unwrap();
    let scan = |force: bool| json!({"ticket": ticket, "nonce": fresh_key(), "force": force});
    desk.post(&format!("{path}/check-ins"), scan(false)).await.ok(200);
    desk.post(&format!("{path}/check-ins"), scan(false)).await.problem(409, "already-admitted");
    desk.post(&format!("{path}/check-ins"), scan(true)).await.ok(200);
    expect("ticket.force_check_in", &id);

    let refunds = format!("/v1/payments/{}/refunds", text(&payment, "id"));
    let refund = json!({"amount": 100, "reason": "Mrs. Miller was cold"});
    desk.post_once(&refunds, json!({"amount": 1_000_000, "reason": "x"}))
        .await
        .problem(409, "refund-exceeds-payment");
    let key = fresh_key();
    for _ in 0..2 {
        desk.post(&refunds, refund.clone()).key(&key).await.ok(201);
    }
    expect("payment.refund", &text(&payment, "id"));
    // A customer's own cancellation is nobody's to audit; one by staff is.
    let other = world.customer("ap").await.client;
    for (seat, by) in [("A3", &other), ("A4", desk)] {
        let held = text(&stage::reserve(&other, &show, &[seat]).await, "id");
        by.post_once(&format!("/v1/reservations/{held}/cancel"), json!({})).await.ok(200);
        if seat == "A4" {
            expect("reservation.cancel", &held);
        }
    }

    step("moves the show; what happens to it there is told too, and what the registry refused is not");
    let moves = format!("{path}/moves");
    desk.post(&moves, json!({"to": "eu", "if_epoch": 4_000_000})).await.problem(409, "epoch-passed");
    desk.post(&moves, json!({"to": "mars"})).await.problem(409, "unknown-region");
    desk.post(&moves, json!({"to": "eu"})).await.ok(202);
    expect("show.move", &show);
    desk.call(Method::PATCH, &path).json(json!({"on_sale_at": stage::in_hours(1)})).await.ok(200);
    expect("show.on_sale", &show);
    Day { expected, show, cinema }
}

async fn without_global(world: &World, staff: &Person, day: &mut Day) {
    step("kill -9 of global; a show is canceled, a hall built, and us's regional process killed too");
    kill(world, "global", Some("global")).await;
    let desk = &staff.client;
    desk.post_once(&format!("/v1/shows/{}/cancel", day.show), json!({"reason": "flood"})).await.ok(200);
    day.expected.insert(("show.cancel".into(), day.show.clone()));
    let hall = stage::new_hall(desk, &day.cinema, 2, 2).await;
    day.expected.insert(("hall.create".into(), hall));
    kill(world, "us", Some("regional")).await;
    start(world, "us", Some("regional")).await;
    start(world, "global", Some("global")).await;
}

async fn own_region(world: &World) {
    step("who wants to be served by ap is, through any gateway, unless a request says otherwise");
    let person = world.customer("eu").await;
    let refused = person.client.call(Method::PATCH, "/v1/me").json(json!({"region": "mars"})).await;
    refused.problem(422, "invalid-request");
    refused.names_field("region");
    person.client.call(Method::PATCH, "/v1/me").json(json!({"region": "ap"})).await.ok(200);
    let client = world.sign_in("eu", &person.username, &person.password).await;
    for gateway in ["eu", "us"] {
        let client = client.at(world.gateway(gateway).base());
        let nearest = client.get("/v1/regions/nearest").await.ok(200);
        assert_eq!((&nearest["region"], &nearest["reason"]), (&json!("ap"), &json!("user")), "{nearest}");
        assert_eq!(client.get("/v1/movies?limit=1").await.header("x-region"), "ap");
        let pinned = client.get("/v1/regions/nearest").header("x-region", "us").await.ok(200);
        assert_eq!((&pinned["region"], &pinned["reason"]), (&json!("us"), &json!("header")), "{pinned}");
        assert_eq!(client.get("/v1/movies?limit=1").header("x-region", "us").await.header("x-region"), "us");
    }
    // The token from before says what it said, until it is renewed.
    assert_eq!(person.client.get("/v1/regions/nearest").await.ok(200)["reason"], "default");
}
