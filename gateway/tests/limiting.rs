//! Limits, counted in a real Redis, and in the process for as long as there is none.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::time::{Duration, Instant};

use common::authz::Claims;
use common::authz::jwt::{Jwk, JwkSet, SigningKey};
use common::config::Secret;
use common::{SessionId, UserId};
use gateway::config::Rate;
use jiff::Timestamp;
use reqwest::Response;
use support::{Fake, Redis, Running, closed_port, config, eventually, problem};

const SLOW: Rate = Rate { per_sec: 1, burst: 3 };

async fn limited(eu: &Fake, redis: Secret) -> Running {
    let mut config = config(&[("eu", eu.url())]).await;
    config.trusted_proxies = vec!["127.0.0.1".into()];
    config.limits.read_per_address = SLOW;
    config.limits.read_per_user = SLOW;
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

#[tokio::test]
async fn a_user_is_counted_alone_when_the_token_is_good() {
    let eu = Fake::ok("eu").await;
    let gateway = limited(&eu, Secret::new(format!("redis://{}", closed_port().await))).await;
    let key = SigningKey::generate();
    gateway.app.authority.set_keys(&JwkSet { keys: vec![Jwk::ed25519(key.public())] });
    let token = |key: &SigningKey| {
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
            roles: Vec::new(),
            ver: 1,
        };
        key.sign("at+jwt", &claims)
    };
    let ask = |token: String| {
        let request = gateway.get("/v1/movies").header("x-forwarded-for", "203.0.113.9").bearer_auth(token);
        async { request.send().await.unwrap().status().as_u16() }
    };
    let (one, two, foreign) = (token(&key), token(&key), token(&SigningKey::generate()));
    let until_refused = async |token: &str| {
        for n in 0..20 {
            if ask(token.to_owned()).await == 429 {
                return n;
            }
        }
        panic!("never refused");
    };
    assert!((3..6).contains(&until_refused(&one).await));
    assert_eq!(ask(two).await, 200);
    // A forged token is passed on for the service to refuse, and buys no bucket: the address pays.
    assert!((3..6).contains(&until_refused(&foreign).await));
    assert_eq!(ask(token(&SigningKey::generate())).await, 429);
}
