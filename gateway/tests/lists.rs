//! What the gateway answers itself: the list over all regions, the regions, the document.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Fake, Got, Reply, Running, closed_port, config, eventually, problem};

/// A region with reservations at these seconds, listed as a region lists them.
async fn reservations(name: &'static str, seconds: &'static [i64]) -> Fake {
    Fake::start(move |got, _| support::json(200, &page(name, seconds, got))).await
}

fn parameter(got: &Got, wanted: &str) -> Option<String> {
    let query = got.uri.query().unwrap_or_default().as_bytes();
    form_urlencoded::parse(query).find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}

fn page(name: &str, seconds: &[i64], got: &Got) -> Value {
    let start: usize = parameter(got, "cursor").map_or(0, |c| c.parse().unwrap());
    let limit: usize = parameter(got, "limit").unwrap().parse().unwrap();
    let items: Vec<Value> = seconds
        .iter()
        .skip(start)
        .take(limit)
        .map(|s| json!({"id": format!("rsv_{name}{s}"), "created_at": format!("2026-11-20T10:00:{s:02}Z")}))
        .collect();
    let next = (start + limit < seconds.len()).then(|| (start + limit).to_string());
    json!({"items": items, "next_cursor": next})
}

fn ids(body: &Value) -> Vec<&str> {
    body["items"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn all_regions_are_merged_newest_first_page_by_page() {
    let eu = reservations("eu", &[50, 40, 10]).await;
    let us = reservations("us", &[45, 44, 43, 5]).await;
    let gateway = Running::start(config(&[("eu", eu.url()), ("us", us.url())]).await).await;

    let response = gateway.get("/v1/reservations").bearer_auth("t").send().await.unwrap();
    assert_eq!(response.headers()["x-region"], "eu");
    let all: Value = response.json().await.unwrap();
    assert_eq!(
        ids(&all),
        ["rsv_eu50", "rsv_us45", "rsv_us44", "rsv_us43", "rsv_eu40", "rsv_eu10", "rsv_us5"]
    );
    assert_eq!((&all["incomplete_regions"], &all["next_cursor"]), (&json!([]), &Value::Null));
    assert_eq!(us.got()[0].header("authorization"), "Bearer t");

    let mut paged: Vec<String> = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/reservations?limit=2{cursor}");
        let page: Value = gateway.get(&path).send().await.unwrap().json().await.unwrap();
        paged.extend(ids(&page).iter().map(|id| (*id).to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(paged, ids(&all));

    let only: Value =
        gateway.get("/v1/reservations?region=us&reference=AB").send().await.unwrap().json().await.unwrap();
    assert_eq!(ids(&only).len(), 4);
    let last = us.got().pop().unwrap();
    assert_eq!((parameter(&last, "reference").as_deref(), parameter(&last, "region")), (Some("AB"), None));
}

#[tokio::test]
async fn payments_are_gathered_as_reservations_are() {
    let eu = reservations("eu", &[50, 10]).await;
    let us = reservations("us", &[45]).await;
    let gateway = Running::start(config(&[("eu", eu.url()), ("us", us.url())]).await).await;
    let all: Value = gateway.get("/v1/payments").send().await.unwrap().json().await.unwrap();
    assert_eq!(ids(&all), ["rsv_eu50", "rsv_us45", "rsv_eu10"]);
    for region in [&eu, &us] {
        assert!(region.got().iter().all(|got| got.uri.path() == "/v1/payments"));
    }
    let only: Value = gateway.get("/v1/payments?region=us").send().await.unwrap().json().await.unwrap();
    assert_eq!(ids(&only), ["rsv_us45"]);
}

#[tokio::test]
async fn regions_that_are_away_are_named_and_not_waited_for() {
    let eu = reservations("eu", &[50]).await;
    let slow = Fake::start(|_, _| Reply::Hang).await;
    let gone = format!("http://{}", closed_port().await);
    let mut config = config(&[("eu", eu.url()), ("us", slow.url()), ("ap", gone)]).await;
    config.upstream.region_deadline_ms = 400;
    let gateway = Running::start(config).await;
    let started = Instant::now();
    let body: Value = gateway.get("/v1/reservations").send().await.unwrap().json().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(ids(&body), ["rsv_eu50"]);
    assert_eq!(body["incomplete_regions"], json!(["us", "ap"]));
    assert_eq!(body["next_cursor"], Value::Null);

    let none = gateway.get("/v1/reservations?region=ap").send().await.unwrap();
    assert_eq!(problem(none).await["code"], "region-unavailable");
}

#[tokio::test]
async fn a_refusal_is_passed_on_and_bad_questions_are_refused_here() {
    let refuse =
        |status: u16| move |_: &Got, _| support::json(status, &json!({"code": "no", "status": status}));
    for status in [401, 422] {
        let (eu, us) = (reservations("eu", &[1]).await, Fake::start(refuse(status)).await);
        let gateway = Running::start(config(&[("eu", eu.url()), ("us", us.url())]).await).await;
        let response = gateway.get("/v1/reservations").send().await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.json::<Value>().await.unwrap()["code"], "no");
    }
    // Staff of one region: the others' refusal does not hide what it may see.
    let (eu, us) = (reservations("eu", &[1]).await, Fake::start(refuse(403)).await);
    let gateway = Running::start(config(&[("eu", eu.url()), ("us", us.url())]).await).await;
    let body: Value =
        gateway.get("/v1/reservations?reference=AB").send().await.unwrap().json().await.unwrap();
    assert_eq!(ids(&body), ["rsv_eu1"]);
    assert_eq!(gateway.get("/v1/reservations?region=us").send().await.unwrap().status(), 403);

    for (query, field) in
        [("limit=0", "limit"), ("limit=x", "limit"), ("cursor=%25", "cursor"), ("cursor=e30", "cursor")]
    {
        let response = gateway.get(&format!("/v1/reservations?{query}")).send().await.unwrap();
        let body = problem(response).await;
        assert_eq!((body["status"].as_u64(), body["errors"][0]["field"].as_str()), (Some(422), Some(field)));
    }
    let body = problem(gateway.get("/v1/reservations?region=mars").send().await.unwrap()).await;
    assert_eq!(body["code"], "unknown-region");
}

#[tokio::test]
async fn regions_are_listed_with_what_they_are_doing() {
    let eu = Fake::ok("eu").await;
    let gone = format!("http://{}", closed_port().await);
    let gateway = Running::start(config(&[("eu", eu.url()), ("us", gone)]).await).await;
    let list = || async { gateway.get("/v1/regions").send().await.unwrap().json::<Value>().await.unwrap() };
    eventually("eu is up", || async { list().await["items"][0]["status"] == "up" }).await;
    assert_eq!(
        list().await,
        json!({"items": [
            {"name": "eu", "display_name": "EU", "status": "up", "url": "https://eu.example"},
            {"name": "us", "display_name": "US", "status": "down", "url": "https://us.example"},
        ], "next_cursor": null})
    );
    let first: Value = gateway.get("/v1/regions?limit=1").send().await.unwrap().json().await.unwrap();
    let next = format!("/v1/regions?limit=1&cursor={}", first["next_cursor"].as_str().unwrap());
    let second: Value = gateway.get(&next).send().await.unwrap().json().await.unwrap();
    assert_eq!((&second["items"][0]["name"], &second["next_cursor"]), (&json!("us"), &Value::Null));
    let body = problem(gateway.get("/v1/regions?colour=red").send().await.unwrap()).await;
    assert_eq!(body["errors"][0]["field"], "colour");

    let nearest = |pinned: Option<&'static str>| {
        let mut request = gateway.get("/v1/regions/nearest");
        if let Some(pinned) = pinned {
            request = request.header("x-region", pinned);
        }
        async {
            let mut told = request.send().await.unwrap().json::<Value>().await.unwrap();
            assert_eq!(told["candidates"].as_array().unwrap().len(), 2);
            told.as_object_mut().unwrap().remove("candidates");
            told
        }
    };
    let expected = json!({"region": "eu", "url": "https://eu.example", "reason": "default"});
    assert_eq!(nearest(None).await, expected);
    let expected = json!({"region": "us", "url": "https://us.example", "reason": "header"});
    assert_eq!(nearest(Some("us")).await, expected);

    drop(eu);
    eventually("eu is down", || async { list().await["items"][0]["status"] == "down" }).await;
}

#[tokio::test]
async fn the_document_is_one() {
    let document = |path: &str, id: &str| {
        json!({"openapi": "3.1.0", "info": {"title": "part", "version": "0"}, "paths": {
            path: {"get": {"operationId": id, "responses": {"200": {"description": "ok"}}}}}})
    };
    let (of_global, of_eu) = (document("/v1/me", "get_me"), document("/v1/cinemas", "list_cinemas"));
    let global = Fake::start(move |_, _| support::json(200, &of_global)).await;
    let addr = closed_port().await;
    let mut config = config(&[("eu", format!("http://{addr}"))]).await;
    config.global_url = global.url();
    let gateway = Running::start(config).await;
    let early = gateway.get("/v1/openapi.json").send().await.unwrap();
    assert_eq!(early.status(), 503);
    assert_eq!(problem(early).await["code"], "document-unavailable");

    let _eu = Fake::start_on(addr, move |_, _| support::json(200, &of_eu)).await;
    eventually("the document is there", || async {
        gateway.get("/v1/openapi.json").send().await.unwrap().status() == 200
    })
    .await;
    let response = gateway.get("/v1/openapi.json").send().await.unwrap();
    let etag = response.headers()["etag"].clone();
    let merged: Value = response.json().await.unwrap();
    assert_eq!(merged["info"]["title"], "Marquee");
    assert_eq!(merged["servers"][0]["url"], "/");
    let paths = merged["paths"].as_object().unwrap();
    for path in ["/v1/me", "/v1/cinemas", "/v1/regions", "/v1/reservations", "/v1/openapi.json"] {
        assert!(paths.contains_key(path), "{path}");
    }
    let problem_of = &paths["/v1/regions"]["get"]["responses"]["429"]["content"]["application/problem+json"];
    let reference = problem_of["schema"]["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
    assert!(merged.pointer(reference).is_some());

    let again = gateway.get("/v1/openapi.json").header("if-none-match", etag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    let page = gateway.get("/docs").send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains("swagger"));
    let start = gateway.get("/docs/swagger-initializer.js").send().await.unwrap().text().await.unwrap();
    assert!(start.contains("/v1/openapi.json"));
}
