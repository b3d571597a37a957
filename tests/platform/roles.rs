//! Rights end at the region, others' things do not exist, and a role taken away is gone.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, fresh_key, list, text};
use crate::stage;
use crate::world::{World, step, until};

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    let (show, customer, paid) = stage::customer_with_ticket(world, "us").await;
    employees_stay_in_their_region(world, &show.id, &customer.client, &paid).await;
    managers_stay_in_their_region(world, &show).await;
    others_things_do_not_exist(world, &customer.client, &paid).await;
    roles_come_and_go(world, &show.id).await;
    policy_is_data(world, &show.id).await;
    disabled_at_once(world).await;
}

async fn employees_stay_in_their_region(world: &World, show: &str, customer: &Client, paid: &Value) {
    step("an employee of eu may not touch a show of us, whichever gateway; one of us and an admin may");
    let ticket = stage::ticket_tokens(customer, paid).await.remove("A1").unwrap();
    let scan = json!({"ticket": ticket, "nonce": fresh_key()});
    let (check_ins, reservations) =
        (format!("/v1/shows/{show}/check-ins"), format!("/v1/shows/{show}/reservations"));
    let eu = world.staff("employee", Some("eu")).await;
    for (_, url) in world.run().gateways {
        let eu = eu.at(&url);
        eu.post(&check_ins, scan.clone()).await.problem(403, "forbidden");
        eu.get(&reservations).await.problem(403, "forbidden");
        // Pinning one's own region does not move the show there.
        eu.get(&reservations).header("x-region", "eu").await.problem(403, "forbidden");
    }
    for staff in [world.staff("employee", Some("us")).await, world.staff("admin", None).await] {
        let listed = staff.get(&reservations).header("cache-control", "no-cache").await.ok(200);
        assert!(list(&listed, "items").iter().any(|r| r["id"] == paid["id"]), "{listed}");
    }
    let admin = world.staff("admin", None).await;
    assert_eq!(admin.post(&check_ins, scan).await.ok(200)["result"], "admitted");
    let operator = world.staff("operator", None).await;
    operator.get(&reservations).await.problem(403, "forbidden");
    customer.get(&reservations).await.problem(403, "forbidden");
}

async fn managers_stay_in_their_region(world: &World, show: &stage::Show) {
    step("a manager of eu makes a cinema in eu and none in us; an operator and an employee make none");
    let body = stage::cinema_body(&world.fresh("Cinema "), "EUR");
    let manager = world.staff("manager", Some("eu")).await;
    manager.post_once("/v1/cinemas", body.clone()).header("x-region", "us").await.problem(403, "forbidden");
    let us = world.gateway("us");
    manager.at(us.base()).post_once("/v1/cinemas", body.clone()).await.problem(403, "forbidden");
    for role in ["operator", "employee"] {
        let region = (role == "employee").then_some("eu");
        let staff = world.staff(role, region).await;
        staff.post_once("/v1/cinemas", body.clone()).header("x-region", "eu").await.problem(403, "forbidden");
    }
    // Through another region's gateway it is still eu's.
    let made = manager.at(us.base()).post_once("/v1/cinemas", body).header("x-region", "eu").await;
    assert_eq!(made.header("x-region"), "eu", "{made}");
    let cinema = text(&made.ok(201), "id");
    assert_eq!(common::ids::home_tag_in(&cinema), Some("eu".parse::<common::RegionName>().unwrap().tag()));
    stage::new_hall(&manager, &cinema, 2, 2).await;

    let grid = json!({"name": "Annexe", "grid": {"rows": 2, "seats": 2}});
    manager.post_once(&format!("/v1/cinemas/{}/halls", show.cinema), grid).await.problem(403, "forbidden");
    let there = stage::show_body(&show.hall, &show.movie, &stage::in_hours(400));
    manager.post_once("/v1/shows", there).await.problem(403, "forbidden");
}

async fn others_things_do_not_exist(world: &World, owner: &Client, paid: &Value) {
    step("another's reservation, payment and ticket are 404, as if they were not");
    let id = text(paid, "id");
    let ticket = text(&list(paid, "tickets")[0], "id");
    let payment = text(&stage::payments_of(owner, &id).await[0], "id");
    let stranger = world.customer("us").await.client;
    let reads = [
        format!("/v1/reservations/{id}"),
        format!("/v1/reservations/{id}/payments"),
        format!("/v1/tickets/{ticket}"),
        format!("/v1/tickets/{ticket}.svg"),
        format!("/v1/tickets/{ticket}.png"),
        format!("/v1/tickets/{ticket}.pdf"),
    ];
    let far = world.staff("employee", Some("eu")).await;
    for path in &reads {
        assert_eq!(owner.get(path).await.code(), 200, "{path}");
        stranger.get(path).await.problem(404, "not-found");
        far.get(path).await.problem(404, "not-found");
        world.gateway("us").get(path).await.problem(401, "invalid-token");
    }
    let cancel = format!("/v1/reservations/{id}/cancel");
    stranger.post_once(&cancel, json!({})).await.problem(404, "not-found");
    stranger
        .post_once(&format!("/v1/payments/{payment}/refunds"), json!({"reason": "mine"}))
        .await
        .problem(403, "forbidden");
    let mine = stranger.get("/v1/reservations").await.ok(200);
    assert!(list(&mine, "items").is_empty(), "{mine}");
    let reference = text(paid, "reference");
    let by_reference = stranger.get(&format!("/v1/reservations?reference={reference}")).await;
    let found = by_reference.code() == 200 && by_reference.json().to_string().contains(&id);
    assert!(!found, "{by_reference}");
    let desk = world.staff("employee", Some("us")).await;
    // Through any region's gateway: the rights are those of the show's home, whoever asks where.
    for (_, url) in world.run().gateways {
        let (desk, far, owner) = (desk.at(&url), far.at(&url), owner.at(&url));
        let by_reference = format!("/v1/reservations?reference={reference}");
        let found = desk.get(&by_reference).await.ok(200);
        assert!(list(&found, "items").iter().any(|r| r["id"] == id), "{found}");
        assert!(list(&far.get(&by_reference).await.ok(200), "items").is_empty(), "eu's employee sees us's");
        for (who, sees) in [(&owner, true), (&desk, true), (&far, false)] {
            let listed = who.get("/v1/payments?limit=200").await.ok(200);
            assert_eq!(list(&listed, "items").iter().any(|p| p["id"] == payment), sees, "{listed}");
            assert_eq!(listed["incomplete_regions"], json!([]));
        }
    }
}

async fn roles_come_and_go(world: &World, show: &str) {
    step("an appointment holds at the next sign-in; its end takes effect everywhere within 5 s");
    let person = world.appointed("us", json!([{"role": "employee", "region": "us"}])).await;
    let path = format!("/v1/shows/{show}/reservations");
    person.client.get(&path).await.ok(200);
    let admin = world.staff("admin", None).await;
    let roles = format!("/v1/users/{}/roles", person.id);
    let put = |body: Value| admin.call(Method::PUT, &roles).json(body);
    let answer = put(json!([{"role": "customer"}])).await;
    assert!(answer.status.is_success(), "{answer}");
    until("the end of the employee's rights", Duration::from_secs(5), async || {
        (person.client.get(&path).await.code() == 401).then_some(())
    })
    .await;
    let again = world.sign_in("us", &person.username, &person.password).await;
    again.get(&path).await.problem(403, "forbidden");

    for bad in [
        json!([{"role": "emperor"}]),
        json!([{"role": "employee", "region": "atlantis"}]),
        json!({}),
        json!([3]),
    ] {
        let answer = put(bad).await;
        answer.any_problem();
        assert_eq!(answer.code(), 422, "{answer}");
    }
    let manager = world.staff("manager", Some("us")).await;
    manager.call(Method::PUT, &roles).json(json!([{"role": "admin"}])).await.problem(403, "forbidden");
}

async fn disabled_at_once(world: &World) {
    step("a disabled account is out everywhere within 5 s, and comes back when enabled");
    let person = world.customer("ap").await;
    let admin = world.staff("admin", None).await;
    let path = |what: &str| format!("/v1/users/{}/{what}", person.id);
    let answer = admin.post(&path("disable"), json!({})).await;
    assert!(answer.status.is_success(), "{answer}");
    for (region, url) in world.run().gateways {
        until(&format!("a disabled account's end in {region}"), Duration::from_secs(5), async || {
            (person.client.at(&url).get("/v1/reservations").await.code() == 401).then_some(())
        })
        .await;
    }
    let sign_in = json!({"grant_type": "password", "username": person.username, "password": person.password});
    let refused = world.gateway("ap").post("/v1/auth/token", sign_in).await;
    refused.any_problem();
    assert!(matches!(refused.code(), 401 | 403), "{refused}");
    let answer = admin.post(&path("enable"), json!({})).await;
    assert!(answer.status.is_success(), "{answer}");
    world.sign_in("ap", &person.username, &person.password).await.get("/v1/me").await.ok(200);
}

async fn policy_is_data(world: &World, show: &str) {
    step("a rule that the admin adds holds everywhere within 5 s, and no longer once it is removed");
    let operator = world.staff("operator", None).await;
    let path = format!("/v1/shows/{show}/reservations");
    operator.get(&path).await.problem(403, "forbidden");
    let rule = json!({"role": "operator", "region": "*", "resource": "reservation", "action": "read"});
    let admin = world.staff("admin", None).await;
    for (method, expected) in [(Method::POST, 200), (Method::DELETE, 403)] {
        let answer = admin.call(method.clone(), "/v1/policies").json(rule.clone()).await;
        assert!(answer.status.is_success(), "{answer}");
        until(&format!("{expected} after {method} of the rule"), Duration::from_secs(5), async || {
            (operator.get(&path).await.code() == expected).then_some(())
        })
        .await;
    }
    let everything = json!({"role": "admin", "region": "*", "resource": "*", "action": "*"});
    let answer = admin.call(Method::DELETE, "/v1/policies").json(everything).await;
    answer.any_problem();
    assert_eq!(answer.code(), 409, "nobody could administer any more: {answer}");
}
