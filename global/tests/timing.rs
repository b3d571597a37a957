//! Whether the time of a refusal tells if there is an account: what a stranger could measure. Medians over
//! attempts that take turns, within a margin that a busy machine does not reach. That the same work is done for
//! nobody and for somebody is tested in `passwords.rs`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may unwrap, and say what they saw")]

mod support;

use std::time::{Duration, Instant};

use global::Argon2Config;
use migrations::Schema;
use migrations::testing::TestPostgres;
use reqwest::Method;
use serde_json::json;
use support::{Service, config};

const ROUNDS: u32 = 15;

/// Medians of refused sign-ins under each name, taking turns. Every attempt comes from another address, or
/// the throttle would answer.
async fn medians(s: &Service, names: &[&str]) -> Vec<Duration> {
    let mut took = vec![Vec::new(); names.len()];
    for round in 0..ROUNDS {
        for (i, name) in names.iter().enumerate() {
            let form = [("grant_type", "password"), ("username", *name), ("password", "a wrong guess")];
            let request = s.request(Method::POST, "/v1/auth/token", None).form(&form);
            let request = request.header("x-forwarded-for", format!("10.9.{i}.{round}"));
            let started = Instant::now();
            s.send(request).await.problem(401, "invalid-credentials");
            took[i].push(started.elapsed());
        }
    }
    took.iter_mut()
        .map(|all| {
            all.sort();
            all[all.len() / 2]
        })
        .collect()
}

fn alike(names: &[&str], medians: &[Duration]) {
    println!("{:?}", names.iter().zip(medians).collect::<Vec<_>>());
    let (least, most) = (medians.iter().min().unwrap(), medians.iter().max().unwrap());
    assert!(*most < *least * 2, "{names:?}: {medians:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_a_refusal_tells_nothing() {
    let postgres = TestPostgres::start();
    let url = postgres.migrated("global", Schema::Global).await;
    let cost = |memory_kib| Argon2Config { memory_kib, iterations: 2, ..Argon2Config::default() };
    let s = Service::start(global::Config { argon2: cost(512), ..config(&url) }).await;
    s.sign_up("ann").await;
    let root = s.token("root").await;
    let gone = s.sign_up("eve").await;
    s.post(&format!("/v1/users/{gone}/disable"), &root, json!({})).await.expect(200);
    s.stop().await;

    // Ann's hash is of an older, cheaper cost than what is compared for nobody.
    let s = Service::start(global::Config { argon2: cost(4 * 1024), ..config(&url) }).await;
    let names = ["ann", "nobody", "eve", "nobody@marquee.example"];
    alike(&names, &medians(&s, &names).await);
    // Of today's cost.
    s.token("ann").await;
    alike(&names, &medians(&s, &names).await);
}
