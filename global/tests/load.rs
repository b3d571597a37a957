//! Sign-ins at the cost that is the default, more of them than the machine can do: how many a second, how long
//! they take, and that the flood takes neither memory nor the time of calls that need no hash.
//!
//! `SIGN_IN_SECS` makes each part longer than its two seconds; the figures are printed (`--nocapture`).

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may unwrap, and say what they saw")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use global::Argon2Config;
use migrations::Schema;
use migrations::testing::TestPostgres;
use reqwest::Method;
use support::{PASSWORD, Service, config};

fn quantile(all: &mut [Duration], q: f64) -> Duration {
    all.sort();
    all[((all.len() - 1) as f64 * q).round() as usize]
}

/// What this process holds in memory, in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// (took, status) of each sign-in of a closed loop of so many clients.
async fn sign_ins(s: &Arc<Service>, clients: usize, time: Duration) -> Vec<(Duration, u16)> {
    let until = Instant::now() + time;
    let client = |i: usize| {
        let s = s.clone();
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while Instant::now() < until {
                let form = [("grant_type", "password"), ("username", "ann"), ("password", PASSWORD)];
                let request = s.request(Method::POST, "/v1/auth/token", None).form(&form);
                let started = Instant::now();
                let address = format!("10.7.{}.{}", i / 250, i % 250);
                let answer = s.send(request.header("x-forwarded-for", address)).await;
                seen.push((started.elapsed(), answer.status.as_u16()));
                if answer.status == 503 {
                    assert!(answer.headers.contains_key("retry-after"));
                    // Sooner than it is told to, as a flood would.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            seen
        })
    };
    let all = futures::future::join_all((0..clients).map(client)).await;
    all.into_iter().flat_map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_sign_ins_stays_in_its_bounds() {
    let secs = std::env::var("SIGN_IN_SECS").ok().map_or(2, |s| s.parse().expect("SIGN_IN_SECS: a number"));
    let time = Duration::from_secs(secs);
    let postgres = TestPostgres::start();
    let url = postgres.migrated("global", Schema::Global).await;
    let argon2 = Argon2Config { max_waiting: 20, ..Argon2Config::default() };
    let s = Arc::new(Service::start(global::Config { argon2, ..config(&url) }).await);
    s.sign_up("ann").await;
    let token = s.token("ann").await;

    let seen = sign_ins(&s, 8, time).await;
    let mut good: Vec<Duration> = seen.iter().filter(|(_, status)| *status == 200).map(|(t, _)| *t).collect();
    assert_eq!(good.len(), seen.len(), "eight at a time are not too many");
    let rate = good.len() as f64 / time.as_secs_f64();
    println!(
        "{argon2:?}, {} at once: {rate:.1} sign-ins/s, p50 {:?}, p99 {:?}",
        argon2.at_once(),
        quantile(&mut good, 0.5),
        quantile(&mut good, 0.99)
    );

    // Ten times what may wait.
    let before = resident_mib();
    let flood = tokio::spawn({
        let s = s.clone();
        async move { sign_ins(&s, 200, time).await }
    });
    let (mut others, mut most) = (Vec::new(), before);
    while !flood.is_finished() {
        let started = Instant::now();
        s.get("/v1/auth/verify", &token).await.expect(200);
        others.push(started.elapsed());
        most = most.max(resident_mib());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seen = flood.await.unwrap();
    let count = |wanted: u16| seen.iter().filter(|(_, status)| *status == wanted).count();
    println!(
        "flood of 200: {} signed in, {} sent away, memory {before} → {most} MiB; others' calls p50 {:?}, p99 {:?}",
        count(200),
        count(503),
        quantile(&mut others, 0.5),
        quantile(&mut others, 0.99)
    );
    assert_eq!(count(200) + count(503), seen.len(), "nothing but these two");
    assert!(count(200) > 0 && count(503) > 0);
    // Without the bound 200 hashes would hold 3,800 MiB.
    let bound = before + argon2.at_once() as u64 * 19 + 150;
    assert!(most < bound, "{before} → {most} MiB");
}
