use common::HallId;
use serde_json::{Value, json};

use super::*;
use crate::testing::{TestRegion, region};

async fn cinema(test: &TestRegion) -> String {
    let body = json!({"name": "Rex", "address": "1 Main Street", "latitude": 48.0, "longitude": 2.0,
                      "time_zone": "Europe/Paris", "currency": "EUR"});
    test.write("POST", "/v1/cinemas", body).await.body["id"].as_str().unwrap().to_owned()
}

async fn hall(test: &TestRegion, body: Value) -> crate::testing::Answer {
    let cinema = cinema(test).await;
    test.write("POST", &format!("/v1/cinemas/{cinema}/halls"), body).await
}

#[tokio::test]
async fn a_hall_is_created_from_rows_or_a_grid() {
    let test = TestRegion::start(None).await;
    let rows = json!([{"row": "A", "seats": [
        {"number": 2, "type": "accessible", "x": 2.5, "y": 0.5}, {"number": 1, "type": "companion"}]},
        {"row": "B", "seats": [{"number": 7}]}]);
    let created = hall(&test, json!({"name": "Studio", "rows": rows})).await;
    assert_eq!(created.status, 201, "{}", created.body);
    let wanted = json!([
        {"row": "A", "seats": [
            {"number": 2, "seat": "A2", "type": "accessible", "x": 2.5, "y": 0.5},
            {"number": 1, "seat": "A1", "type": "companion", "x": 1.0, "y": 1.0}]},
        {"row": "B", "seats": [{"number": 7, "seat": "B7", "type": "standard", "x": 7.0, "y": 2.0}]}]);
    assert_eq!((&created.body["rows"], &created.body["capacity"]), (&wanted, &json!(3)));
    let path = format!("/v1/halls/{}", created.body["id"].as_str().unwrap());
    assert_eq!(created.headers["location"], path.as_str());
    let read = test.get(&path).await;
    assert_eq!((&read.body, read.etag()), (&created.body, created.etag()));
    assert_eq!(test.get_if_none_match(&path, read.etag()).await.status, 304);

    let grid =
        json!({"rows": 12, "seats": 20, "premium_rows": ["F"], "accessible": ["A1"], "companion": ["A2"]});
    let created = hall(&test, json!({"name": "Grand", "grid": grid})).await;
    assert_eq!((created.status.as_u16(), &created.body["capacity"]), (201, &json!(240)));
    assert_eq!(created.body["rows"][5]["seats"][19]["type"], "premium");
    assert_eq!(created.body["rows"][0]["seats"][1]["type"], "companion");
}

#[tokio::test]
async fn a_new_layout_is_a_new_version_and_the_old_one_stays() {
    let test = TestRegion::start(None).await;
    let created = hall(&test, json!({"name": "1", "grid": {"rows": 1, "seats": 2}})).await;
    let id: HallId = created.body["id"].as_str().unwrap().parse().unwrap();
    let path = format!("/v1/halls/{id}/layout");
    let first = current(&test.app, id).await.unwrap().unwrap();
    assert_eq!((first.layout_version, first.layout.capacity()), (1, 2));
    assert_eq!((first.time_zone.as_str(), first.cinema_name.as_str()), ("Europe/Paris", "Rex"));
    assert_eq!(first.currency, "EUR".parse().unwrap());

    let same = test.write("PUT", &path, json!({"grid": {"rows": 1, "seats": 2}})).await;
    assert_eq!((same.status.as_u16(), &same.body), (200, &created.body));
    let larger = json!({"grid": {"rows": 2, "seats": 2}});
    let replaced = test.write_if_match("PUT", &path, Some(created.etag()), larger.clone()).await;
    assert_eq!((&replaced.body["version"], &replaced.body["capacity"]), (&json!(2), &json!(4)));
    let stale = test.write_if_match("PUT", &path, Some(created.etag()), larger).await;
    assert_eq!((stale.status.as_u16(), stale.code()), (412, "precondition-failed"));
    let now = current(&test.app, id).await.unwrap().unwrap();
    assert_eq!((now.layout_version, now.layout.capacity()), (2, 4));

    let client = test.app.db().await.unwrap();
    let old = "SELECT layout FROM hall_layouts WHERE hall_id = $1 AND version = 1";
    let old: tokio_postgres::types::Json<Layout> = client.query_one(old, &[&id.0]).await.unwrap().get(0);
    assert_eq!(old.0, first.layout);
}

#[tokio::test]
async fn layouts_replaced_at_once_get_a_version_each() {
    let test = TestRegion::start(None).await;
    let created = hall(&test, json!({"name": "1", "grid": {"rows": 1, "seats": 1}})).await;
    let path = format!("/v1/halls/{}/layout", created.body["id"].as_str().unwrap());
    let put = |seats: u16| test.write("PUT", &path, json!({"grid": {"rows": 1, "seats": seats}}));
    let answers = tokio::join!(put(2), put(3), put(4), put(5));
    let mut versions: Vec<i64> = [answers.0, answers.1, answers.2, answers.3]
        .iter()
        .map(|a| a.body["version"].as_i64().unwrap())
        .collect();
    versions.sort_unstable();
    assert_eq!(versions, [2, 3, 4, 5]);
}

#[tokio::test]
async fn bad_halls_are_refused_whole() {
    let test = TestRegion::start(None).await;
    let cinema = cinema(&test).await;
    let path = format!("/v1/cinemas/{cinema}/halls");
    let seats = |seats: Value| json!({"name": "1", "rows": [{"row": "A", "seats": seats}]});
    for (body, field) in [
        (json!({"name": "1"}), "rows"),
        (json!({"name": "1", "rows": [], "grid": {"rows": 1, "seats": 1}}), "rows"),
        (json!({"name": "1", "rows": []}), "rows"),
        (json!({"name": "", "grid": {"rows": 1, "seats": 1}}), "name"),
        (json!({"name": "1", "grid": {"rows": 0, "seats": 1}}), "grid.rows"),
        (json!({"name": "1", "grid": {"rows": -1, "seats": 1}}), "grid.rows"),
        (json!({"name": "1", "grid": {"rows": 1e9, "seats": 1}}), "grid.rows"),
        (json!({"name": "1", "grid": {"rows": 1, "seats": 1, "aisle": 1}}), "grid.aisle"),
        (json!({"name": "1", "grid": {"rows": 100, "seats": 100}}), "grid"),
        (seats(json!([{"number": 1, "type": "sofa"}])), "rows[0].seats[0].type"),
        (seats(json!([{"number": 0}])), "rows[0].seats[0].number"),
        (seats(json!([{"number": 1}, {"number": 1}])), "rows[0].seats[1].number"),
        (seats(json!([{"number": 1, "x": 1e300}])), "rows[0].seats[0].x"),
        (seats(json!([{"number": 1, "colour": "red"}])), "rows[0].seats[0].colour"),
    ] {
        let answer = test.write("POST", &path, body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.fields()), (422, vec![field]), "{body}");
    }
    assert_eq!(test.get(&format!("/v1/cinemas/{cinema}")).await.body["halls"], json!([]));
    let nowhere = format!("/v1/cinemas/{}/halls", CinemaId::new(&region("eu")));
    let good = json!({"name": "1", "grid": {"rows": 1, "seats": 1}});
    assert_eq!(test.write("POST", &nowhere, good.clone()).await.status, 404);
    let unknown = HallId::new(&region("eu"));
    assert_eq!(test.get(&format!("/v1/halls/{unknown}")).await.status, 404);
    let layout = json!({"grid": {"rows": 1, "seats": 1}});
    assert_eq!(test.write("PUT", &format!("/v1/halls/{unknown}/layout"), layout).await.status, 404);
    assert!(current(&test.app, unknown).await.unwrap().is_none());
    let there = test.get(&format!("/v1/halls/{}", HallId::new(&region("us")))).await;
    assert_eq!((there.status.as_u16(), &there.body["owner"]), (421, &json!("us")));
}

#[tokio::test]
async fn the_largest_hall_is_kept_and_read() {
    let test = TestRegion::start(None).await;
    let created = hall(&test, json!({"name": "Arena", "grid": {"rows": 50, "seats": 100}})).await;
    let path = format!("/v1/halls/{}", created.body["id"].as_str().unwrap());
    let read = test.get(&path).await;
    assert_eq!((read.status.as_u16(), &read.body["capacity"]), (200, &json!(5000)));
    assert_eq!(read.body["rows"][49]["row"], "AX");
}
