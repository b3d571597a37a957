//! What a newcomer finds before anybody has done anything: regions, cinemas of real cities with halls and a
//! week of shows, the films; and how the admin's additions reach every region.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, list, text};
use crate::stage;
use crate::world::{World, step, until};

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    regions(world).await;
    for region in world.run().gateways.keys() {
        cinemas(world, region).await;
    }
    films(world).await;
    documentation(world).await;
}

/// Every item of a list, page by page.
async fn all(client: &Client, path: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let join = if path.contains('?') { '&' } else { '?' };
        let page = client.get(&format!("{path}{join}limit=200{cursor}")).await.ok(200);
        let new = list(&page, "items");
        assert!(new.len() <= 200);
        items.extend(new);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

async fn regions(world: &World) {
    step("all regions are up; the nearest is the gateway's own, or the one asked for");
    let run = world.run();
    let us = world.gateway("us");
    let regions = list(&us.get("/v1/regions").await.ok(200), "items");
    assert_eq!(regions.len(), run.gateways.len());
    for region in regions {
        assert_eq!(region["status"], "up", "{region}");
        assert_eq!(run.gateways[&text(&region, "name")], text(&region, "url"));
        assert!(!text(&region, "display_name").is_empty());
    }
    let nearest = us.get("/v1/regions/nearest").await.ok(200);
    assert_eq!((&nearest["region"], &nearest["reason"]), (&json!("us"), &json!("default")));
    let nearest = us.get("/v1/regions/nearest").header("x-region", "ap").await.ok(200);
    assert_eq!((&nearest["region"], &nearest["reason"]), (&json!("ap"), &json!("header")));
}

async fn cinemas(world: &World, region: &str) {
    let gateway = world.gateway(region);
    let mut cinemas = all(&gateway, "/v1/cinemas").await;
    // Not those that journeys made, in a folder that was kept.
    cinemas.retain(|c| c["address"] != stage::ADDRESS);
    // A show can be bought as soon as it is created; lists follow within moments.
    let shows = until(&format!("a week of shows in {region}"), Duration::from_secs(20), async || {
        let shows = all(&gateway, "/v1/shows").await;
        let days = |cinema: &Value| {
            let own = shows.iter().filter(|s| s["cinema_id"] == cinema["id"]);
            own.map(|s| text(s, "business_date")).collect::<BTreeSet<_>>().len()
        };
        cinemas.iter().all(|c| days(c) >= 6).then_some(shows)
    })
    .await;
    step(&format!("{region} has {} cinemas and {} coming shows", cinemas.len(), shows.len()));
    assert_eq!(cinemas.len(), 3, "{cinemas:?}");
    for cinema in &cinemas {
        let details = gateway.get(&format!("/v1/cinemas/{}", text(cinema, "id"))).await.ok(200);
        assert!((2..=4).contains(&list(&details, "halls").len()), "{details}");
        let (lat, lon) = (cinema["latitude"].as_f64().unwrap(), cinema["longitude"].as_f64().unwrap());
        let near = gateway.get(&format!("/v1/cinemas?near={lat},{lon}")).await.ok(200);
        let mut near = list(&near, "items");
        near.retain(|c| c["address"] != stage::ADDRESS);
        assert_eq!((&near[0]["id"], near[0]["distance_m"].as_i64()), (&cinema["id"], Some(0)), "{near:?}");
        let distances: Vec<i64> = near.iter().map(|c| c["distance_m"].as_i64().unwrap()).collect();
        assert!(distances.is_sorted() && *distances.last().unwrap() > 100_000, "{distances:?}");
    }
    for show in shows.iter().take(20) {
        assert!(common::ids::show_in(&text(show, "id")).unwrap().is_home(&region.parse().unwrap()), "{show}");
        let starts: jiff::Timestamp = text(show, "starts_at").parse().expect("RFC 3339");
        let local: jiff::Timestamp = text(show, "starts_at_local").parse().expect("RFC 3339 with an offset");
        assert_eq!(starts, local, "{show}");
        assert!(starts > jiff::Timestamp::now() - jiff::SignedDuration::from_hours(6), "{show}");
    }
}

async fn films(world: &World) {
    let everywhere = [world.gateway("eu"), world.gateway("us"), world.gateway("ap")];
    let mut counts = Vec::new();
    for gateway in &everywhere {
        let films = all(gateway, "/v1/movies").await;
        let ids: BTreeSet<String> = films.iter().map(|f| text(f, "id")).collect();
        assert_eq!(ids.len(), films.len(), "pages overlap");
        assert!(films.iter().all(|f| !text(f, "title").trim().is_empty()), "a film without a title");
        counts.push(ids);
    }
    step(&format!("{} films, the same in every region", counts[0].len()));
    assert!(counts[0].len() > 3000, "the real catalogue has some 3,200 films");
    assert!(counts.iter().all(|c| c == &counts[0]), "regions have different catalogues");

    step("a film that the admin adds is in every region within seconds; a customer adds none");
    let title = world.fresh("Nights of Cabiria ");
    let film = json!({"title": title, "runtime_min": 117, "release_date": "1957-10-03", "genre": "Drama",
        "director": "Federico Fellini", "cast": ["Giulietta Masina"], "synopsis": "A woman walks through Rome."});
    let customer = world.customer("eu").await.client;
    customer.post_once("/v1/movies", film.clone()).await.problem(403, "forbidden");
    let admin = world.staff("admin", None).await;
    let id = text(&admin.post_once("/v1/movies", film).await.ok(201), "id");
    let path = format!("/v1/movies/{id}");
    seen_everywhere(&everywhere, &path, "director", &json!("Federico Fellini")).await;
    seen_everywhere(&everywhere, &path, "cast", &json!(["Giulietta Masina"])).await;
    admin.call(Method::PATCH, &path).json(json!({"runtime_min": 110})).await.ok(200);
    seen_everywhere(&everywhere, &path, "runtime_min", &json!(110)).await;
    let stale =
        admin.call(Method::PATCH, &path).json(json!({"rating": "PG"})).header("if-match", "\"none\"").await;
    stale.any_problem();
    assert_eq!(stale.code(), 412, "{stale}");
    for (member, value) in [
        ("title", json!("")),
        ("runtime_min", json!(-5)),
        ("runtime_min", json!(1.5)),
        ("release_date", json!("tomorrow")),
        ("cast", json!("Giulietta Masina")),
        ("stars", json!(5)),
    ] {
        let mut body = json!({"title": "Bad"});
        body[member] = value;
        admin.post_once("/v1/movies", body).await.names_field(member);
    }
}

/// Waits until every gateway shows the film with this member.
async fn seen_everywhere(gateways: &[Client], path: &str, member: &str, value: &Value) {
    for gateway in gateways {
        until(&format!("{member} {value} at {}", gateway.base()), Duration::from_secs(10), async || {
            let answer = gateway.get(path).await;
            (answer.code() == 200 && answer.json()[member] == *value).then_some(())
        })
        .await;
    }
}

async fn documentation(world: &World) {
    step("the gateway documents itself");
    let ap = world.gateway("ap");
    let document = ap.get("/v1/openapi.json").await.ok(200);
    assert!(text(&document, "openapi").starts_with("3."), "{document}");
    for (path, method) in [
        ("/v1/auth/signup", "post"),
        ("/v1/movies", "get"),
        ("/v1/movies/import", "post"),
        ("/v1/shows/{id}/reservations", "post"),
        ("/v1/reservations", "get"),
        ("/v1/regions/nearest", "get"),
        ("/v1/webhooks/payments/{provider}", "post"),
        ("/.well-known/jwks.json", "get"),
    ] {
        assert!(document["paths"][path][method].is_object(), "{method} {path} is not documented");
    }
    let page = ap.get("/docs").await;
    assert!(page.code() == 200 && page.header("content-type").starts_with("text/html"), "{page}");
    assert!(
        ap.get("/v1/openapi.json").header("x-region", "eu").await.ok(200) == document,
        "one document everywhere"
    );
}
