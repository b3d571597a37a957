use common::CinemaId;
use serde_json::{Value, json};

use crate::testing::{TestRegion, region};

fn cinema(name: &str, latitude: f64, longitude: f64) -> Value {
    json!({"name": name, "address": "1 Main Street", "latitude": latitude, "longitude": longitude,
           "time_zone": "Europe/Paris", "currency": "EUR"})
}

async fn create(region: &TestRegion, name: &str, latitude: f64, longitude: f64) -> String {
    let created = region.write("POST", "/v1/cinemas", cinema(name, latitude, longitude)).await;
    assert_eq!(created.status, 201, "{}", created.body);
    created.body["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_cinema_is_created_read_and_changed() {
    let test = TestRegion::start(None).await;
    let created = test.write("POST", "/v1/cinemas", cinema(" Grand Rex ", 48.8706, 2.3476)).await;
    assert_eq!(created.status, 201);
    let id: CinemaId = created.body["id"].as_str().unwrap().parse().unwrap();
    assert!(id.is_home(&region("eu")));
    let path = format!("/v1/cinemas/{id}");
    assert_eq!(created.headers["location"], path.as_str());
    let wanted = json!({"id": id, "region": "eu", "name": "Grand Rex", "address": "1 Main Street",
        "latitude": 48.8706, "longitude": 2.3476, "time_zone": "Europe/Paris", "currency": "EUR", "version": 1,
        "halls": []});
    assert_eq!(created.body, wanted);
    let read = test.get(&path).await;
    assert_eq!((&read.body, read.etag()), (&wanted, created.etag()));
    assert_eq!(test.get_if_none_match(&path, read.etag()).await.status, 304);

    let changed =
        test.write_if_match("PATCH", &path, Some(read.etag()), json!({"name": "Le Grand Rex"})).await;
    assert_eq!((changed.status.as_u16(), &changed.body["version"]), (200, &json!(2)));
    assert_eq!(test.get(&path).await.body, changed.body);
    let stale = test.write_if_match("PATCH", &path, Some(read.etag()), json!({"name": "Rex"})).await;
    assert_eq!((stale.status.as_u16(), stale.code()), (412, "precondition-failed"));
    // What changes nothing is not a change.
    let same = test.write("PATCH", &path, json!({"name": "Le Grand Rex", "currency": "EUR"})).await;
    assert_eq!((same.status.as_u16(), &same.body["version"]), (200, &json!(2)));
    assert_eq!(test.write("PATCH", &path, json!({})).await.status, 200);
    let bad = test.write("PATCH", &path, json!({"latitude": 91, "time_zone": "Mars/Olympus"})).await;
    assert_eq!((bad.status.as_u16(), bad.fields()), (422, vec!["latitude", "time_zone"]));
    assert_eq!(test.get(&path).await.body, changed.body);
}

#[tokio::test]
async fn a_hall_shows_in_its_cinema() {
    let test = TestRegion::start(None).await;
    let id = create(&test, "Rex", 48.0, 2.0).await;
    let path = format!("/v1/cinemas/{id}");
    let before = test.get(&path).await;
    let hall = json!({"name": "Hall 1", "grid": {"rows": 2, "seats": 3}});
    let hall = test.write("POST", &format!("{path}/halls"), hall).await;
    let after = test.get_if_none_match(&path, before.etag()).await;
    let wanted = json!([{"id": hall.body["id"], "name": "Hall 1", "version": 1, "capacity": 6}]);
    assert_eq!((after.status.as_u16(), &after.body["halls"]), (200, &wanted));
    // The cinema itself has not changed, so a change of it that was begun before goes through.
    let patch = test.write_if_match("PATCH", &path, Some(before.etag()), json!({"name": "R"})).await;
    assert_eq!(patch.status, 200);
}

#[tokio::test]
async fn the_nearest_comes_first() {
    let test = TestRegion::start(None).await;
    create(&test, "Berlin", 52.5200, 13.4050).await;
    create(&test, "Paris", 48.8566, 2.3522).await;
    create(&test, "Madrid", 40.4168, -3.7038).await;
    create(&test, "Paris again", 48.8566, 2.3522).await;
    let all = test.get("/v1/cinemas?near=48.8566,2.3522").await;
    assert_eq!(all.column("name"), ["Paris", "Paris again", "Berlin", "Madrid"]);
    let metres: Vec<i64> =
        all.body["items"].as_array().unwrap().iter().map(|c| c["distance_m"].as_i64().unwrap()).collect();
    assert_eq!(metres[..2], [0, 0]);
    assert!((877_000..=879_000).contains(&metres[2]), "Paris to Berlin are 878 km: {metres:?}");
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = test.get(&format!("/v1/cinemas?near=48.8566,2.3522&limit=1{cursor}")).await;
        names.extend(page.column("name").into_iter().map(str::to_owned));
        let Some(next) = page.body["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(names, all.column("name"));
    // Across the date line it is a step, not the way around.
    create(&test, "Fiji", -17.0, 179.9).await;
    let fiji = test.get("/v1/cinemas?near=-17.0,-179.9&limit=1").await;
    assert_eq!(fiji.column("name"), ["Fiji"]);
    assert!(fiji.body["items"][0]["distance_m"].as_i64().unwrap() < 25_000);
}

#[tokio::test]
async fn without_a_place_cinemas_come_by_name() {
    let test = TestRegion::start(None).await;
    for name in ["rex", "Élysée", "Lichtburg"] {
        create(&test, name, 1.0, 1.0).await;
    }
    let first = test.get("/v1/cinemas?limit=2").await;
    assert_eq!(first.column("name"), ["Élysée", "Lichtburg"]);
    assert!(first.body["items"][0].get("distance_m").is_none());
    let cursor = first.body["next_cursor"].as_str().unwrap();
    assert_eq!(test.get(&format!("/v1/cinemas?cursor={cursor}")).await.column("name"), ["rex"]);
    assert_eq!(test.get("/v1/cinemas?q=lichtbrug").await.column("name"), ["Lichtburg"]);
    assert_eq!(test.get("/v1/cinemas?q=main&near=1,1").await.column("name").len(), 3);
    let mixed = test.get(&format!("/v1/cinemas?near=1,1&cursor={cursor}")).await;
    assert_eq!((mixed.status.as_u16(), mixed.fields()), (422, vec!["cursor"]));
    let again = test.get_if_none_match("/v1/cinemas?limit=2", first.etag()).await;
    assert_eq!(again.status, 304);
    for (query, field) in [("near=1", "near"), ("near=91,0", "near"), ("q=%00", "q"), ("limit=0", "limit")] {
        let answer = test.get(&format!("/v1/cinemas?{query}")).await;
        assert_eq!((answer.status.as_u16(), answer.fields()), (422, vec![field]), "{query}");
    }
}

#[tokio::test]
async fn only_a_manager_of_the_region_writes() {
    let test = TestRegion::start(None).await;
    let id = create(&test, "Rex", 1.0, 1.0).await;
    let stranger = format!("Bearer {}", test.manager("us"));
    let calls = [
        ("POST", "/v1/cinemas".to_owned()),
        ("PATCH", format!("/v1/cinemas/{id}")),
        ("POST", format!("/v1/cinemas/{id}/halls")),
    ];
    for (method, path) in calls {
        let nobody = test.send(method, &path, &[], Some(json!({}))).await;
        assert_eq!(nobody.status, 401, "{method} {path}");
        let other = test.send(method, &path, &[("authorization", &stranger)], Some(json!({}))).await;
        assert_eq!((other.status.as_u16(), other.code()), (403, "forbidden"), "{method} {path}");
    }
}

#[tokio::test]
async fn another_regions_cinema_is_pointed_to() {
    let test = TestRegion::start(None).await;
    let there = CinemaId::new(&region("us"));
    let nowhere = CinemaId::new(&region("ap"));
    let token = format!("Bearer {}", test.manager("us"));
    for (method, path, body) in [
        ("GET", format!("/v1/cinemas/{there}"), None),
        ("PATCH", format!("/v1/cinemas/{there}"), Some(json!({}))),
        (
            "POST",
            format!("/v1/cinemas/{there}/halls"),
            Some(json!({"name": "1", "grid": {"rows": 1, "seats": 1}})),
        ),
    ] {
        let answer = test.send(method, &path, &[("authorization", &token)], body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (421, "not-owner"), "{method}");
        assert_eq!((&answer.body["owner"], &answer.body["epoch"]), (&json!("us"), &json!(0)));
    }
    for id in [nowhere.to_string(), CinemaId::new(&region("eu")).to_string(), "hal_0".into(), "x".into()] {
        assert_eq!(test.get(&format!("/v1/cinemas/{id}")).await.status, 404, "{id}");
    }
}

#[tokio::test]
async fn a_bad_cinema_is_refused_whole() {
    let test = TestRegion::start(None).await;
    let with = |field: &str, value: Value| {
        let mut body = cinema("Rex", 1.0, 1.0);
        body[field] = value;
        body
    };
    for (field, value) in [
        ("name", json!("")),
        ("name", json!(7)),
        ("name", json!("a\u{0}b")),
        ("latitude", json!(90.5)),
        ("longitude", json!("east")),
        ("time_zone", json!("Berlin")),
        ("currency", json!("eur")),
        ("currency", json!("XXX")),
        ("stars", json!(5)),
        ("region", json!("us")),
    ] {
        let answer = test.write("POST", "/v1/cinemas", with(field, value)).await;
        assert_eq!((answer.status.as_u16(), answer.fields()), (422, vec![field]), "{field}");
    }
    assert!(test.get("/v1/cinemas").await.column("name").is_empty());
}

#[tokio::test]
async fn the_document_names_no_schema_that_it_does_not_hold() {
    fn names(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|inner| names(inner, found));
            }
            Value::Array(items) => items.iter().for_each(|inner| names(inner, found)),
            _ => {}
        }
    }
    let document = serde_json::to_value(&TestRegion::start(None).await.document).unwrap();
    let mut found = Vec::new();
    names(&document, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for name in found {
        assert!(document.pointer(name.trim_start_matches('#')).is_some(), "{name}");
    }
    let sorts = &document["paths"]["/v1/movies"]["get"]["parameters"];
    let sort = sorts.as_array().unwrap().iter().find(|p| p["name"] == "sort").unwrap();
    assert_eq!(sort["required"], false);
    assert!(sort["schema"].to_string().contains("-release_date"), "{sort}");
}
