//! Authority in every service by itself: bad tokens are refused also by who reaches a service past the
//! gateways; what ends a token ends it everywhere, and how fast; a region without `global`, restarts included.

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::seal::SealingKey;
use data_encoding::BASE64URL_NOPAD;
use reqwest::Method;
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};

use crate::check_in::part;
use crate::client::{Call, Client, fresh_key, list, text};
use crate::stage::{self, adults};
use crate::tokens::{encode, forgeries, sign};
use crate::world::{Person, World, kill, start, step, until};

/// "Everywhere within 5 s".
const SPREAD: Duration = Duration::from_secs(5);
const ROUNDS: usize = 6;
/// How long selling is measured, alone and beside so many who sign in.
const BESIDE: Duration = Duration::from_secs(5);
const SIGN_INS: usize = 4;

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    let (show, customer, paid) = stage::customer_with_ticket(world, "eu").await;
    let ticket = stage::ticket_tokens(&customer.client, &paid).await.remove("A1").unwrap();
    bad_tokens(world, &show.id, &customer, &ticket).await;
    spread(world, &show.id).await;
    mail(world).await;
    leaked_keys(world, &show.id).await;
    selling_beside_sign_ins(world).await;
    without_global(world).await;
}

/// A call that each service answers 401 without a good token, and otherwise not.
fn asking(service: &str, client: &Client, show: &str) -> Call {
    match service {
        "global" => client.get("/v1/me"),
        _ => client.get(&format!("/v1/shows/{show}/reservations")),
    }
}

/// The platform's own signing key, which no attacker has: what is signed with it fails by its claims alone.
async fn own_key(world: &World, kid: &Value) -> Ed25519KeyPair {
    let pool = migrations::pool(&world.run().postgres["global"], 1).unwrap();
    let db = pool.get().await.unwrap();
    let kid = kid.as_str().unwrap();
    let row = db.query_one("SELECT sealed FROM signing_keys WHERE kid = $1", &[&kid]).await.unwrap();
    let master = SealingKey::from_text(&world.secret("master-key")).unwrap();
    let opened = master.open("access-token-key", row.get(0)).unwrap();
    Ed25519KeyPair::from_pkcs8(&opened).unwrap()
}

async fn bad_tokens(world: &World, show: &str, customer: &Person, ticket: &str) {
    let genuine = customer.client.token();
    let published = list(&world.gateway("eu").get("/.well-known/jwks.json").await.ok(200), "keys");
    let mut tokens = forgeries(genuine, ticket, &published);
    let (header, claims) = (part(genuine, 0), part(genuine, 1));
    let own = own_key(world, &header["kid"]).await;
    let now = jiff::Timestamp::now().as_second();
    let with = |of: &Value, member: &str, value: Value| {
        let mut other = of.clone();
        other[member] = value;
        other
    };
    for (what, member, value) in [
        ("expired", "exp", json!(now - 1)),
        ("not yet valid", "nbf", json!(now + 3600)),
        ("a foreign issuer", "iss", json!("https://elsewhere.example")),
        ("a foreign audience", "aud", json!("another-service")),
        ("no user", "sub", json!("nobody")),
        ("another thing's id for a user", "sub", json!(common::SessionId::new().to_string())),
        ("no session", "sid", Value::Null),
        ("a version from before all", "ver", json!("1")),
        ("a role that is no grant", "roles", json!(["admin"])),
    ] {
        tokens.push((what, sign(&header, &with(&claims, member, value), &own)));
    }
    for (what, kid) in [
        ("an unknown key", json!("unknown")),
        ("a key that is a path", json!("../../../../dev/null")),
        ("a key that is SQL", json!("' UNION SELECT 'x' --")),
        ("a key that is a URL", json!("http://127.0.0.1:1/jwks.json")),
        ("a key that is no text", json!({"kid": 1})),
    ] {
        tokens.push((what, sign(&with(&header, "kid", kid), &claims, &own)));
    }
    tokens.push(("another type", sign(&with(&header, "typ", json!("JWT")), &claims, &own)));
    let services = world.services();
    step(&format!("{} kinds of bad token at {} services themselves", tokens.len(), services.len()));
    for (service, client) in &services {
        let good = asking(service, &client.bearing(genuine), show).await;
        assert_ne!(good.code(), 401, "{service}: {good}");
        // The suite's own signing is sound, or all of this would prove nothing.
        let resigned = asking(service, &client.bearing(&sign(&header, &claims, &own)), show).await;
        assert_eq!(resigned.code(), good.code(), "{service}: {resigned}");
        for (what, token) in &tokens {
            let answer = asking(service, &client.bearing(token), show).await;
            assert_eq!(answer.code(), 401, "{service}, {what}: {answer}");
            answer.problem(401, "invalid-token");
        }
        let metrics = match service.split_once('-') {
            Some((name, region)) => world.operations(region, name),
            None => world.operations("global", "global"),
        };
        let metrics = String::from_utf8(metrics.get("/metrics").await.body).unwrap();
        assert!(metrics.contains("marquee_authority_refusals_total{"), "{service}");
    }
    assert_eq!(encode(&json!({})), BASE64URL_NOPAD.encode(b"{}"));
}

/// Until the token is void at every service, and how long that took at each.
async fn void_everywhere(world: &World, what: &str, token: &str, show: &str, seen: &mut Vec<Duration>) {
    let started = Instant::now();
    let all = world.services().into_iter().map(|(service, client)| async move {
        loop {
            if asking(&service, &client.bearing(token), show).await.code() == 401 {
                return started.elapsed();
            }
            assert!(started.elapsed() < SPREAD, "{what} is not known at {service} after {SPREAD:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    seen.extend(futures::future::join_all(all).await);
}

/// A figure, not a limit: how long a reservation takes while as many sign in as `global` takes.
async fn selling_beside_sign_ins(world: &World) {
    step("selling, alone and beside a flood of sign-ins");
    let show = stage::new_show(world, "eu", 1, 4).await;
    let buyer = world.customer("us").await.client;
    let sell_until = async |end: Instant| {
        let mut taken = Vec::new();
        while Instant::now() < end {
            let begun = Instant::now();
            let held = stage::reserve(&buyer, &show.id, &["A1"]).await;
            taken.push(begun.elapsed());
            let release = format!("/v1/reservations/{}/cancel", text(&held, "id"));
            buyer.post_once(&release, json!({})).await.ok(200);
        }
        taken
    };
    tell("a reservation, alone: answered", sell_until(Instant::now() + BESIDE).await);
    let person = world.customer("us").await;
    let end = Instant::now() + BESIDE;
    let sign_ins = (0..SIGN_INS).map(|_| async {
        let mut taken = Vec::new();
        while Instant::now() < end {
            let begun = Instant::now();
            world.sign_in("us", &person.username, &person.password).await;
            taken.push(begun.elapsed());
        }
        taken
    });
    let (sold, signed_in) = tokio::join!(sell_until(end), futures::future::join_all(sign_ins));
    tell("a reservation, beside sign-ins: answered", sold);
    tell("a sign-in: answered", signed_in.into_iter().flatten().collect());
}

fn tell(what: &str, mut seen: Vec<Duration>) {
    seen.sort();
    let at = |q: f64| seen[((seen.len() - 1) as f64 * q).round() as usize];
    step(&format!("{what} after p50 {:?}, p99 {:?} ({} seen)", at(0.5), at(0.99), seen.len()));
}

async fn spread(world: &World, show: &str) {
    step("what ends a token, at every service of three regions");
    let admin = world.staff("admin", None).await;
    let (mut ended, mut changed, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let person = world.customer("ap").await;
        person.client.post("/v1/auth/logout", json!({})).await;
        void_everywhere(world, "a logout", person.client.token(), show, &mut ended).await;

        let person = world.customer("us").await;
        let roles = json!([{"role": "employee", "region": "us"}]);
        let path = format!("/v1/users/{}/roles", person.id);
        assert!(admin.call(Method::PUT, &path).json(roles).await.status.is_success());
        void_everywhere(world, "a role change", person.client.token(), show, &mut changed).await;
    }
    tell("logout: void", ended);
    tell("role change: known", changed);

    let disabled = world.customer("eu").await;
    admin.post(&format!("/v1/users/{}/disable", disabled.id), json!({})).await;
    void_everywhere(world, "a disabled account", disabled.client.token(), show, &mut others).await;

    let deleted = world.customer("eu").await;
    assert_eq!(deleted.client.call(Method::DELETE, "/v1/me").await.code(), 204);
    void_everywhere(world, "a deleted account", deleted.client.token(), show, &mut others).await;

    let robbed = world.customer("eu").await;
    let gateway = world.gateway("us");
    let sign_in = json!({"grant_type": "password", "username": robbed.username, "password": robbed.password});
    let first = gateway.post("/v1/auth/token", sign_in).await.ok(200);
    let refresh = json!({"grant_type": "refresh_token", "refresh_token": text(&first, "refresh_token")});
    let second = gateway.post("/v1/auth/token", refresh.clone()).await.ok(200);
    gateway.post("/v1/auth/token", refresh).await.problem(401, "invalid-grant");
    for tokens in [&first, &second] {
        void_everywhere(world, "a replayed refresh token", &text(tokens, "access_token"), show, &mut others)
            .await;
    }
    let again = json!({"grant_type": "refresh_token", "refresh_token": text(&second, "refresh_token")});
    gateway.post("/v1/auth/token", again).await.problem(401, "invalid-grant");
    tell("disabled, deleted, replayed: void", others);
}

async fn mail(world: &World) {
    step("a mail's link leads to a page, and its token confirms the address");
    let person = world.customer("eu").await;
    let folder = world.data.join("mail");
    let to = format!("To: {}@example.org", person.username);
    let mail = until("the mail of a sign-up", Duration::from_secs(10), async || {
        let files = std::fs::read_dir(&folder).unwrap().map(|f| std::fs::read_to_string(f.unwrap().path()));
        files.flatten().find(|mail| mail.contains(&to))
    })
    .await;
    let link = mail.lines().find(|line| line.contains("/account/verify?token=")).unwrap();
    let (page, token) = link.split_once("?token=").unwrap();
    let page = person.client.at(page.strip_suffix("/account/verify").unwrap()).get("/account/verify").await;
    assert_eq!((page.code(), page.header("cache-control")), (200, "no-store"), "{page}");
    assert!(page.header("content-type").starts_with("text/html"));
    let body = json!({"token": token.trim()});
    assert_eq!(world.gateway("ap").post("/v1/auth/email/verify", body).await.code(), 204);
    assert_eq!(person.client.get("/v1/me").await.ok(200)["email_verified"], true);
}

async fn leaked_keys(world: &World, show: &str) {
    step("the signing keys are known to others: the operator drops them all by the command");
    let person = world.customer("us").await;
    let folder = std::fs::canonicalize(world.data.join("mail")).unwrap();
    let config = folder.parent().unwrap().join("config.toml");
    let mut command = std::process::Command::new(crate::program());
    command.args(["global", "rotate-keys", "--drop-others", "--config"]).arg(config);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut seen = Vec::new();
    void_everywhere(world, "a dropped key", person.client.token(), show, &mut seen).await;
    tell("a dropped key's token: void", seen);
    let renewed = world.sign_in("us", &person.username, &person.password).await;
    let kid = part(renewed.token(), 0)["kid"].clone();
    assert_ne!(kid, part(person.client.token(), 0)["kid"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(kid.as_str().unwrap()));
    for (service, client) in world.services() {
        let call = asking(&service, &client.bearing(renewed.token()), show);
        until(&format!("the new key at {service}"), SPREAD, async || {
            (call.attempt().await.ok()?.code() != 401).then_some(())
        })
        .await;
    }
}

/// Whether a region's Postgres has it that the token's session has ended. It acts upon it a moment before.
async fn noted(world: &World, region: &str, token: &str) -> bool {
    let session: common::SessionId = part(token, 1)["sid"].as_str().unwrap().parse().unwrap();
    let db = migrations::pool(&world.run().postgres[region], 1).unwrap().get().await.unwrap();
    let select = "SELECT 1 FROM feed_revocations WHERE kind = 'session' AND subject = $1";
    db.query_opt(select, &[&session.0]).await.unwrap().is_some()
}

/// Patience with a region that comes back.
async fn soon(what: &str, call: Call, expected: u16) -> Value {
    until(what, Duration::from_secs(30), async || {
        let answer = call.attempt().await.ok()?;
        (answer.code() == expected).then(|| answer.json())
    })
    .await
}

async fn without_global(world: &World) {
    let show = stage::new_show(world, "eu", 4, 10).await;
    let (customer, gone) = (world.customer("eu").await, world.customer("eu").await);
    let employee = world.appointed("eu", json!([{"role": "employee", "region": "eu"}])).await;
    let sign_in =
        json!({"grant_type": "password", "username": customer.username, "password": customer.password});
    assert_eq!(gone.client.post("/v1/auth/logout", json!({})).await.code(), 204);
    let regional = &world.services()["regional-eu"];
    void_everywhere(world, "a logout", gone.client.token(), &show.id, &mut Vec::new()).await;
    until("eu's own note of it", SPREAD, async || {
        noted(world, "eu", gone.client.token()).await.then_some(())
    })
    .await;

    step("kill -9 of global and its Postgres, then of everything in eu; eu starts again");
    kill(world, "global", None).await;
    kill(world, "eu", None).await;
    start(world, "eu", None).await;
    step("eu sells, takes money, admits and enforces, with what it last heard");
    let path = format!("/v1/shows/{}/reservations", show.id);
    let call = customer.client.post_once(&path, adults(&["A1"]));
    let reservation = soon("a reservation", call, 201).await;
    let pay = format!("/v1/reservations/{}/payments", text(&reservation, "id"));
    let call = customer.client.post_once(&pay, json!({"method": "card", "token": "tok_ok"}));
    assert_eq!(soon("a payment", call, 201).await["status"], "completed");
    let paid = stage::reservation_now(&customer.client, &text(&reservation, "id")).await;
    let ticket = stage::ticket_tokens(&customer.client, &paid).await.remove("A1").unwrap();
    let check_ins = format!("/v1/shows/{}/check-ins", show.id);
    let scan = json!({"ticket": ticket, "nonce": fresh_key()});
    customer.client.post(&check_ins, scan.clone()).await.problem(403, "forbidden");
    assert_eq!(employee.client.post(&check_ins, scan).await.ok(200)["result"], "admitted");
    // The revocation outlived both.
    gone.client.get(&path).await.problem(401, "invalid-token");
    regional.bearing(gone.client.token()).get(&path).await.problem(401, "invalid-token");
    let refused = world.gateway("eu").post("/v1/auth/token", sign_in.clone()).await;
    refused.any_problem();
    assert!(refused.code() == 503 && !refused.header("retry-after").is_empty(), "{refused}");

    for service in ["regional", "gateway"] {
        let ready = world.operations("eu", service).get("/readyz").await;
        assert_eq!(ready.code(), 200, "{service}: {ready}");
    }
    let age = async || {
        let metrics = world.operations("eu", "regional").get("/metrics").await;
        let metrics = String::from_utf8(metrics.body).unwrap();
        let line = metrics.lines().find(|l| l.starts_with("marquee_feed_age_seconds ")).map(str::to_owned);
        line.and_then(|l| l.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok())).expect("the feed's age")
    };
    let before = age().await;
    assert!(before > 1.0, "{before}");
    until("an age that grows", Duration::from_secs(5), async || (age().await > before).then_some(())).await;

    step("global comes back; nothing else is started again, and all catch up");
    start(world, "global", None).await;
    let tokens = soon("sign-in", world.gateway("eu").post("/v1/auth/token", sign_in), 200).await;
    let again = customer.client.bearing(&text(&tokens, "access_token"));
    stage::buy(&again, &show.id, &["A2"]).await;
    until("a fresh feed", Duration::from_secs(15), async || (age().await < 3.0).then_some(())).await;
    let admin = world.staff("admin", None).await;
    let roles = json!([{"role": "customer"}]);
    let path = format!("/v1/users/{}/roles", employee.id);
    assert!(admin.call(Method::PUT, &path).json(roles).await.status.is_success());
    void_everywhere(world, "a role change", employee.client.token(), &show.id, &mut Vec::new()).await;
}
