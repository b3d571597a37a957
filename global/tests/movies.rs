//! The catalogue's write half through the running service.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use support::{Answer, Service, start};

const REAL_FILE: &[u8] = include_bytes!("../../data/movies.csv");

async fn import(s: &Service, token: &str, kind: &'static str, body: impl Into<reqwest::Body>) -> Answer {
    let request = s.request(Method::POST, "/v1/movies/import", Some(token));
    s.send(request.header("content-type", kind).body(body)).await
}

fn counts(report: &Answer) -> [u64; 5] {
    ["total", "created", "updated", "unchanged", "rejected"].map(|n| report.body[n].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_file_is_imported_once_however_often() {
    let (postgres, s) = start().await;
    let root = s.token("root").await;
    let started = Instant::now();
    let first = import(&s, &root, "text/csv", REAL_FILE).await.expect(200);
    let took = started.elapsed();
    assert_eq!(counts(&first), [3201, 3200, 0, 0, 1]);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let rows = first.body["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3201);
    let bad: Vec<&Value> = rows.iter().filter(|r| r["outcome"] == "rejected").collect();
    assert_eq!((&bad[0]["line"], &bad[0]["code"]), (&json!(3055), &json!("missing-title")));

    let again = import(&s, &root, "text/csv; charset=utf-8", REAL_FILE).await.expect(200);
    assert_eq!(counts(&again), [3201, 0, 0, 3200, 1]);
    assert_eq!(again.body["rows"][0]["movie_id"], rows[0]["movie_id"]);

    // Two at once, of a film list that is new: nothing is doubled either.
    let more: String = std::iter::once("title,release_date\n".to_owned())
        .chain((0..900).map(|i| format!("Sequel {i},Jan 01 2001\n")))
        .collect();
    let (one, two) =
        tokio::join!(import(&s, &root, "text/csv", more.clone()), import(&s, &root, "text/csv", more));
    assert_eq!(counts(&one)[1] + counts(&two)[1], 900);
    let pool = migrations::pool(&postgres.url("global"), 1).unwrap();
    let db = pool.get().await.unwrap();
    let row = db
        .query_one("SELECT count(*), max(position), (SELECT position FROM feed_head) FROM movies", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 4100);
    assert_eq!(row.get::<_, i64>(1), row.get::<_, i64>(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_updates_what_it_knows_and_keeps_what_it_does_not() {
    let (_postgres, s) = start().await;
    let root = s.token("root").await;
    let film =
        json!({"title": "The Fog", "release_date": "1980-02-01", "synopsis": "It comes.", "runtime_min": 89});
    let film = s.post("/v1/movies", &root, film).await.expect(201);
    let lines = "{\"title\": \"fog, The\", \"release_date\": \"Feb 01 1980\", \"director\": \"John Carpenter\"}\n\
                 not json\n\
                 {\"title\": \"The Fog\", \"release_date\": \"1980-02-01\"}\n";
    let report = import(&s, &root, "application/x-ndjson", lines).await.expect(200);
    assert_eq!(counts(&report), [3, 0, 1, 0, 2]);
    assert_eq!(report.body["rows"][0]["movie_id"], film.body["id"]);
    assert_eq!(report.body["rows"][2]["code"], "duplicate");
    let path = format!("/v1/movies/{}", film.text("id"));
    let now = s.patch(&path, &root, json!({})).await.expect(200);
    assert_eq!(now.body["director"], "John Carpenter");
    assert_eq!((&now.body["synopsis"], &now.body["runtime_min"]), (&json!("It comes."), &json!(89)));
    assert_eq!((&now.body["version"], &now.body["title"]), (&json!(2), &json!("The fog")));

    import(&s, &root, "text/csv", "name\nX\n").await.problem(422, "invalid-request");
    import(&s, &root, "text/plain", "title\nX\n").await.problem(415, "unsupported-media-type");
    let large = format!("title\n{}\n", "x".repeat(2 * 1024 * 1024));
    assert_eq!(counts(&import(&s, &root, "text/csv", large).await.expect(200)), [1, 0, 0, 0, 1]);
    let huge = vec![b'x'; 64 * 1024 * 1024 + 1];
    import(&s, &root, "text/csv", huge).await.problem(413, "body-too-large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_film_is_created_changed_and_deleted() {
    let (_postgres, s) = start().await;
    let root = s.token("root").await;
    let new = json!({"title": " Following ", "release_date": "1999-04-04", "cast": ["Jeremy Theobald"]});
    let film = s.post("/v1/movies", &root, new.clone()).await.expect(201);
    assert_eq!(film.headers["location"], format!("/v1/movies/{}", film.text("id")).as_str());
    assert_eq!(
        film.body,
        json!({"id": film.text("id"), "title": "Following", "release_date": "1999-04-04", "runtime_min": null,
               "rating": null, "genre": null, "director": null, "distributor": null,
               "cast": ["Jeremy Theobald"], "synopsis": null, "version": 1})
    );
    s.post("/v1/movies", &root, new).await.problem(409, "movie-exists");
    for (bad, field) in [
        (json!({}), "title"),
        (json!({"title": ""}), "title"),
        (json!({"title": "X", "runtime_min": 0}), "runtime_min"),
        (json!({"title": "X", "runtime_min": 1e99}), "runtime_min"),
        (json!({"title": "X", "release_date": "1999-02-30"}), "release_date"),
        (json!({"title": "X", "release_date": "9999-12-31"}), "release_date"),
        (json!({"title": "X", "stars": 5}), "stars"),
        (json!({"title": "X\u{0}"}), "title"),
    ] {
        let problem = s.post("/v1/movies", &root, bad).await.problem(422, "invalid-request");
        assert_eq!(problem.body["errors"][0]["field"], field, "{}", problem.body);
    }

    let path = format!("/v1/movies/{}", film.text("id"));
    let patch = |tag: String, body: Value| {
        s.send(s.request(Method::PATCH, &path, Some(&root)).header("if-match", tag).json(&body))
    };
    let changed = patch(film.etag(), json!({"runtime_min": 69, "cast": null})).await.expect(200);
    assert_eq!((&changed.body["runtime_min"], &changed.body["cast"]), (&json!(69), &json!([])));
    patch(film.etag(), json!({"runtime_min": 70})).await.problem(412, "precondition-failed");
    assert_eq!(patch(changed.etag(), json!({"runtime_min": null})).await.expect(200).body["version"], 3);
    s.patch(&path, &root, json!({"title": null})).await.problem(422, "invalid-request");
    s.post("/v1/movies", &root, json!({"title": "Slam"})).await.expect(201);
    s.patch(&path, &root, json!({"title": "slam", "release_date": null})).await.problem(409, "movie-exists");

    s.delete(&path, &root).await.expect(204);
    s.delete(&path, &root).await.problem(404, "not-found");
    s.patch(&path, &root, json!({"genre": "Drama"})).await.problem(404, "not-found");
    s.delete("/v1/movies/mov_x", &root).await.problem(404, "not-found");
}
