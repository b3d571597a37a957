//! Two regions of three lose their Postgres: nothing sells, until an operator says to go on without them; and they
//! are taken in again when they are back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{Client, fresh_key, list};
use crate::stage::{self, adults};
use crate::world::{World, kill, start, step, until};

const LEFT: &str = "eu";
const LOST: [&str; 2] = ["us", "ap"];
const NOTICED: Duration = Duration::from_secs(30);
const BACK: Duration = Duration::from_secs(300);

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    let show = stage::new_show(world, LEFT, 4, 10).await;
    let person = world.customer(LEFT).await;
    let customer = &person.client;
    stage::buy(customer, &show.id, &["A1"]).await;
    let operator = &world.staff("operator", None).await.at(world.gateway(LEFT).base());
    let reservations = format!("/v1/shows/{}/reservations", show.id);

    step("the Postgres of two regions killed: the third alone sells nothing");
    for region in LOST {
        kill(world, region, Some("postgres")).await;
    }
    for region in LOST {
        until("a region down", NOTICED, async || {
            (state(operator, region).await["state"] == "down").then_some(())
        })
        .await;
    }
    // What was on its way when the others went is unknown until there is a majority again; so it has a key.
    let wanted = customer.post(&reservations, adults(&["A2"])).key(&fresh_key());
    let refused = wanted.clone().await;
    refused.any_problem();
    assert!([503, 504].contains(&refused.code()), "{refused}");

    step("they are given up, one after the other: only the second may cost something, which has to be said");
    let give_up =
        async |region: &str, body: Value| operator.post(&format!("/v1/regions/{region}/give-up"), body).await;
    give_up(LEFT, json!({})).await.problem(409, "region-not-down");
    customer.post("/v1/regions/us/give-up", json!({})).await.problem(403, "forbidden");
    let first = give_up(LOST[0], json!({})).await.ok(202);
    assert_eq!((&first["at_risk"], &first["given_up"]), (&json!(0), &json!(true)), "{first}");
    let risk = give_up(LOST[1], json!({})).await.problem(409, "shows-at-risk");
    let at_risk = risk["at_risk"].as_u64().unwrap();
    assert!(at_risk > 0 && !list(&risk, "shows").is_empty(), "{risk}");
    give_up(LOST[1], json!({"at_risk": at_risk - 1})).await.problem(409, "shows-at-risk");
    let second = give_up(LOST[1], json!({"at_risk": at_risk})).await.ok(202);
    assert_eq!(second["at_risk"], at_risk, "{second}");
    give_up(LOST[1], json!({})).await.ok(202);

    step("the third sells alone");
    let sold = until("a sale by one region", NOTICED, async || {
        let answer = wanted.attempt().await.ok()?;
        (answer.code() < 500).then_some(answer)
    })
    .await;
    let held = sold.ok(201);
    stage::pay(customer, &held, "tok_ok").await.ok(201);
    assert_eq!(stage::seat_map(customer, &show.id).await["A1"], "sold");
    let late = stage::new_show(world, LEFT, 4, 10).await;
    stage::buy(customer, &late.id, &["A1"]).await;

    step("they come back, and keep every show again");
    for region in LOST {
        start(world, region, Some("postgres")).await;
    }
    for region in LOST {
        let is_back = async || {
            let state = state(operator, region).await;
            (state["state"] == "up" && state["given_up"] == false).then_some(())
        };
        until("a region back", BACK, is_back).await;
    }
    for show in [&show.id, &late.id] {
        let whole = async || {
            let answer = operator.get(&format!("/v1/shows/{show}/ownership")).attempt().await.ok()?;
            let ownership = (answer.code() == 200).then(|| answer.json())?;
            (list(&ownership, "replicas").len() == 3 && ownership["state"] == "led").then_some(())
        };
        until("three replicas", BACK, whole).await;
    }

    for region in LOST {
        let db = migrations::pool(&world.run().postgres[region], 1).unwrap().get().await.unwrap();
        let count = "SELECT count(*) FROM show_head WHERE incarnation = 0";
        until("every replica whole again", BACK, async || {
            (db.query_one(count, &[]).await.ok()?.get::<_, i64>(0) == 0).then_some(())
        })
        .await;
    }

    step("the one that was left killed: the others have all that it sold alone");
    kill(world, LEFT, Some("postgres")).await;
    let there = customer.at(world.gateway(LOST[0]).base());
    let sold = until("a sale by the others", NOTICED, async || {
        let answer = there.post_once(&reservations, adults(&["A3"])).attempt().await.ok()?;
        (answer.code() < 500).then_some(answer)
    })
    .await;
    sold.ok(201);
    let seats = stage::seat_map(&there, &show.id).await;
    assert_eq!([&seats["A1"], &seats["A2"], &seats["A3"]], ["sold", "sold", "held"]);
    assert_eq!(stage::seat_map(&there, &late.id).await["A1"], "sold");
    start(world, LEFT, Some("postgres")).await;
    until("the last region back", BACK, async || {
        (state(operator, LEFT).await["state"] == "up").then_some(())
    })
    .await;
}

async fn state(operator: &Client, region: &str) -> Value {
    let cluster = operator.get("/v1/cluster").await.ok(200);
    list(&cluster, "regions").into_iter().find(|known| known["name"] == region).unwrap()
}
