//! The count of attempts belongs to the service, not to a process: several processes on one database, one after
//! the other or at once, and none of it without the database.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use migrations::Schema;
use migrations::testing::TestPostgres;
use reqwest::Method;
use serde_json::json;
use support::{Answer, PASSWORD, Service, config};

const FREE: usize = 10;

async fn attempt(s: &Service, username: &str, password: &str) -> Answer {
    let form = [("grant_type", "password"), ("username", username), ("password", password)];
    let request = s.request(Method::POST, "/v1/auth/token", None).form(&form);
    s.send(request.header("x-forwarded-for", "198.51.100.7")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_at_once_at_two_processes_are_a_hundred_and_a_restart_forgets_none() {
    let postgres = TestPostgres::start();
    let url = postgres.migrated("global", Schema::Global).await;
    let first = Service::start(config(&url)).await;
    let second = Service::start(config(&url)).await;
    first.sign_up("ann").await;

    for name in ["ann", "nobody"] {
        let guesses = (0..50).flat_map(|_| [&first, &second]).map(|s| attempt(s, name, "guess after guess"));
        let answers = futures::future::join_all(guesses).await;
        let count = |status: u16| answers.iter().filter(|a| a.status.as_u16() == status).count();
        assert_eq!((count(401), count(429)), (FREE, 100 - FREE), "{name}");
        assert!(answers.iter().filter(|a| a.status == 429).all(|a| a.headers.contains_key("retry-after")));
    }
    let changed = json!({"current_password": "not it, really", "new_password": "another row G"});
    let token = first.token("ann").await;
    for (turn, s) in [&first, &second].into_iter().cycle().take(FREE + 1).enumerate() {
        let expected = if turn < FREE { 401 } else { 429 };
        s.put("/v1/auth/password", &token, changed.clone()).await.expect(expected);
    }

    // However long this test takes, the pause is not over.
    let pool = migrations::pool(&url, 1).unwrap();
    let db = pool.get().await.unwrap();
    db.batch_execute("UPDATE attempts SET last_at = now() + interval '1 hour'").await.unwrap();
    first.stop().await;
    let first = Service::start(config(&url)).await;
    for s in [&first, &second] {
        attempt(s, "ann", PASSWORD).await.problem(429, "too-many-attempts");
    }
    // Another address is not concerned, and what is kept names nobody.
    first.sign_in("ann").await.expect(200);
    let rows = db.query("SELECT a::text FROM attempts a", &[]).await.unwrap();
    let kept: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let clear = |row: &String| ["ann", "nobody", "198.51"].iter().any(|name| row.contains(name));
    assert!(!kept.is_empty() && !kept.iter().any(clear), "{kept:?}");

    // A right password ends the slowness everywhere.
    db.batch_execute("UPDATE attempts SET last_at = now() - interval '10 minutes'").await.unwrap();
    attempt(&second, "ann", PASSWORD).await.expect(200);
    attempt(&first, "ann", "guess after guess").await.problem(401, "invalid-credentials");
    drop(db);

    // Nobody gets past the count by its absence.
    drop(postgres);
    attempt(&first, "ann", PASSWORD).await.problem(503, "database-unavailable");
    let forgot = json!({"email": "ann@marquee.example"});
    let refused = first.post("/v1/auth/password/forgot", "", forgot).await;
    assert!(refused.problem(503, "database-unavailable").headers.contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_sent_away_unheard_is_not_slowed_down() {
    let postgres = TestPostgres::start();
    let url = postgres.migrated("global", Schema::Global).await;
    let argon2 = global::Argon2Config { at_once: 1, max_waiting: 1, ..global::Argon2Config::default() };
    let s = Service::start(global::Config { argon2, ..config(&url) }).await;
    s.sign_up("ann").await;
    // The first that are let in wait for each other's hash; the others are sent away.
    let mut busy = 0;
    while busy < 2 * FREE {
        let answers = futures::future::join_all((0..FREE).map(|_| attempt(&s, "ann", PASSWORD))).await;
        busy += answers.iter().filter(|a| a.status == 503).count();
        assert!(answers.iter().all(|a| [200, 503].contains(&a.status.as_u16())));
    }
    attempt(&s, "ann", PASSWORD).await.expect(200);
}
