//! Limits, counted in a real Redis, and in the process for as long as there is none.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::authz::jwt::{Jwk, JwkSet, SigningKey};
use common::authz::{Claims, RoleGrant};
use common::config::Secret;
use common::{SessionId, UserId};
use gateway::config::Rate;
use jiff::Timestamp;
use reqwest::Response;
use support::{Fake, Redis, Running, closed_port, config, eventually, problem};
use tokio_util::sync::CancellationToken;

const SLOW: Rate = Rate { per_sec: 1, burst: 3 };

async fn limited(eu: &Fake, redis: Secret) -> Running {
    let mut config = config(&[("eu", eu.url())]).await;
    config.trusted_proxies = vec!["127.0.0.1".into()];
    config.limits.read_per_address = SLOW;
    config.limits.read_per_user = SLOW;
    config.redis_url = redis;
    Running::start(config).await
}

/// The same, where an address may do more than a user.
async fn limited_by_both(eu: &Fake, redis: Secret) -> Running {
    let mut config = config(&[("eu", eu.url())]).await;
    config.trusted_proxies = vec!["127.0.0.1".into()];
    config.limits.read_per_address = Rate { per_sec: 1, burst: 10 };
    config.limits.read_per_user = SLOW;
    config.limits.users_per_address = Rate { per_sec: 1, burst: 10 };
    config.limits.staff_per_user = Rate { per_sec: 1, burst: 20 };
    config.redis_url = redis;
    Running::start(config).await
}

/// One read from an address.
async fn read(gateway: &Running, address: &str) -> Response {
    gateway.get("/v1/movies").header("x-forwarded-for", address).send().await.unwrap()
}

/// How many reads pass before one is refused. A machine that is slow may see the bucket refill meanwhile.
async fn passed(gateways: &[&Running], address: &str) -> (usize, Response) {
    for n in 0..20 {
        let response = read(gateways[n % gateways.len()], address).await;
        match response.status().as_u16() {
            200 => {}
            429 => return (n, response),
            code => panic!("{code}"),
        }
    }
    panic!("never refused");
}

#[tokio::test]
async fn gateways_count_together_in_redis_and_alone_without_it() {
    let eu = Fake::ok("eu").await;
    let mut redis = Redis::start(closed_port().await).await;
    let (one, two) = (limited(&eu, redis.url()).await, limited(&eu, redis.url()).await);

    let first = read(&one, "203.0.113.1").await;
    assert_eq!(first.headers()["ratelimit-policy"], "\"read\";q=3;w=3");
    assert_eq!(first.headers()["ratelimit"], "\"read\";r=2;t=1");
    // Counting apart they would let six pass.
    let (more, refused) = passed(&[&two, &one], "203.0.113.1").await;
    assert!((2..5).contains(&more), "{more}");
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(refused.headers()["ratelimit"].to_str().unwrap().starts_with("\"read\";r=0;t="));
    assert_eq!(problem(refused).await["code"], "rate-limited");
    assert_eq!(eu.got().len(), 1 + more);
    // Another address and another class have buckets of their own.
    assert_eq!(read(&two, "203.0.113.2").await.status(), 200);
    let write = one.post("/v1/cinemas").header("x-forwarded-for", "203.0.113.1").send().await.unwrap();
    assert_eq!(write.status(), 200);
    assert!(redis.keys().await.unwrap().contains(&"marquee:limit:read:203.0.113.1".to_owned()));

    // Gone: nothing fails, and the limit still holds in each process.
    redis.kill();
    let before = one.metrics.limit_fallback.get();
    assert!((3..6).contains(&passed(&[&one], "203.0.113.3").await.0));
    assert!(one.metrics.limit_fallback.get() >= before + 4);

    // Back: it is used again without anyone's doing.
    let redis = Redis::start(redis.addr).await;
    eventually("redis is used again", || async {
        assert_ne!(read(&one, "203.0.113.4").await.status().as_u16() / 100, 5);
        redis.keys().await.is_some_and(|keys| keys.contains(&"marquee:limit:read:203.0.113.4".to_owned()))
    })
    .await;

    // Hung: a few requests find out, the others do not wait for it.
    redis.signal("-STOP");
    let started = Instant::now();
    assert!((3..6).contains(&passed(&[&one], "203.0.113.5").await.0));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    redis.signal("-CONT");
}

fn token(key: &SigningKey, role: &str) -> String {
    let now = Timestamp::now().as_second();
    let claims = Claims {
        iss: "marquee".into(),
        aud: "marquee".into(),
        sub: UserId::new(),
        sid: SessionId::new(),
        jti: "j".into(),
        iat: now,
        nbf: now - 1,
        exp: now + 60,
        username: "u".into(),
        roles: vec![RoleGrant { role: role.into(), region: None }],
        ver: 1,
        region: None,
        pk: None,
    };
    key.sign("at+jwt", &claims)
}

/// A request counts for its user and for its address, in Redis and in the process alike.
async fn users_and_addresses(redis: Secret, shared: Option<&Redis>) {
    let eu = Fake::ok("eu").await;
    let gateway = limited_by_both(&eu, redis).await;
    if let Some(redis) = shared {
        eventually("redis is used", || async {
            assert_ne!(read(&gateway, "198.51.100.7").await.status().as_u16() / 100, 5);
            redis.keys().await.is_some_and(|keys| !keys.is_empty())
        })
        .await;
    }
    let key = SigningKey::generate();
    gateway.app.authority.set_keys(&JwkSet { keys: vec![Jwk::ed25519(key.public())] });
    let ask = |token: &str, address: &str| {
        let request = gateway.get("/v1/movies").header("x-forwarded-for", address).bearer_auth(token);
        async { request.send().await.unwrap().status().as_u16() }
    };
    let until_refused = async |token: &str, address: &str| {
        for n in 0..40 {
            if ask(token, address).await == 429 {
                return n;
            }
        }
        panic!("never refused");
    };
    let (one, two) = (token(&key, "customer"), token(&key, "customer"));
    let here = "203.0.113.9";
    assert!((3..6).contains(&until_refused(&one, here).await));
    assert_eq!(ask(&one, "203.0.113.10").await, 429, "another address does not help the user");
    assert_eq!(ask(&two, here).await, 200, "nor does one user's limit bind another");
    // A forged token is passed on for the service to refuse, and buys no bucket: the address pays.
    let forged = until_refused(&token(&SigningKey::generate(), "admin"), here).await;
    assert!((10..14).contains(&forged), "{forged}");
    assert_eq!(ask(&token(&SigningKey::generate(), "customer"), here).await, 429);
    // Nor do many accounts buy many buckets: their address has one for all of them.
    let mut users = 0;
    while ask(&token(&key, "customer"), here).await == 200 {
        users += 1;
        assert!(users < 15, "an address is not limited by what its users do together");
    }
    assert!(users >= 4, "{users}");
    // Staff stand apart: many of a house share its address.
    let staff = until_refused(&token(&key, "employee"), here).await;
    assert!((20..24).contains(&staff), "{staff}");
    // Reading is used up; selling, and what is only asked for reports, has lost nothing by it.
    let sell = gateway.post("/v1/reservations/rsv_1/cancel").header("x-forwarded-for", here);
    let sold = sell.bearer_auth(&two).send().await.unwrap();
    assert_eq!(sold.status(), 200);
    assert!(sold.headers()["ratelimit-policy"].to_str().unwrap().starts_with("\"sell\";"));
    let report = gateway.get("/v1/payments").header("x-forwarded-for", here).send().await.unwrap();
    assert!(report.headers()["ratelimit"].to_str().unwrap().starts_with("\"report\";"));
}

#[tokio::test]
async fn a_request_counts_for_its_user_and_its_address_in_the_process() {
    users_and_addresses(Secret::new(format!("redis://{}", closed_port().await)), None).await;
}

#[tokio::test]
async fn a_request_counts_for_its_user_and_its_address_in_redis_by_one_call() {
    let redis = Redis::start(closed_port().await).await;
    users_and_addresses(redis.url(), Some(&redis)).await;
    let keys = redis.keys().await.unwrap();
    // Buckets that fill again within milliseconds are forgotten as soon.
    for lane in ["read:203.0.113.9", "users-read:203.0.113.9", "read:usr_", "staff-read:usr_"] {
        let begins = format!("marquee:limit:{lane}");
        assert!(keys.iter().any(|key| key.starts_with(&begins)), "{lane}: {keys:?}");
    }
}

/// Eight callers who do not pause; Redis goes away among their requests, hangs once it is back, and goes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_redis_comes_and_goes() {
    let eu = Fake::ok("eu").await;
    let mut redis = Redis::start(closed_port().await).await;
    let mut config = config(&[("eu", eu.url())]).await;
    config.limits.read_per_address = Rate { per_sec: 100_000, burst: 100_000 };
    config.redis_url = redis.url();
    let gateway = Arc::new(Running::start(config).await);
    let (answered, over) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (gateway, answered, over) = (gateway.clone(), answered.clone(), over.clone());
            tokio::spawn(async move {
                while !over.is_cancelled() {
                    assert_eq!(gateway.get("/v1/movies").send().await.unwrap().status(), 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more = async || {
        let until = answered.load(Ordering::Relaxed) + 100;
        eventually("a hundred more are answered", || async { answered.load(Ordering::Relaxed) >= until })
            .await;
    };
    let counted = async || redis_counts(&gateway).await;
    more().await;
    assert!(counted().await > 0, "Redis was asked");
    redis.kill();
    more().await;
    let mut redis = Redis::start(redis.addr).await;
    let before = counted().await;
    eventually("redis is asked again", || async { redis_counts(&gateway).await > before }).await;
    redis.signal("-STOP");
    more().await;
    redis.signal("-CONT");
    more().await;
    redis.kill();
    more().await;
    over.cancel();
    for caller in callers {
        caller.await.unwrap();
    }
}

async fn redis_counts(gateway: &Running) -> u64 {
    gateway.metrics.redis_commands.with_label_values(&["ok"]).get()
}
