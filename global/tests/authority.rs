//! The policy, the audit log and the service's own surface.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use common::proto::audit::audit_log_client::AuditLogClient;
use common::proto::audit::{Line, TellRequest};
use reqwest::Method;
use serde_json::json;
use support::{Service, config, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_is_edited_in_versions_and_never_without_an_admin() {
    let (_postgres, s) = start().await;
    let root = s.token("root").await;
    let listed = s.get("/v1/policies?limit=200", &root).await.expect(200);
    let (items, version) = (listed.body["items"].as_array().unwrap().clone(), listed.body["version"].clone());
    assert_eq!((items.len(), &version), (21, &json!(1)));
    assert_eq!(listed.body["includes"], json!([{"role": "manager", "includes": "employee"}]));

    // Page by page it is the same.
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = s.get(&format!("/v1/policies?limit=7{cursor}"), &root).await.expect(200);
        paged.extend(page.body["items"].as_array().unwrap().clone());
        let Some(next) = page.body["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, items);

    let rule = json!({"role": "curator", "region": "global", "resource": "movie", "action": "write"});
    s.post("/v1/policies", &root, rule.clone()).await.expect(201);
    s.post("/v1/policies", &root, rule.clone()).await.expect(200);
    assert_eq!(s.get("/v1/policies", &root).await.body["version"], 2);

    // A role that is only data until now takes effect.
    let ann = s.sign_up("ann").await;
    let film = json!({"title": "Following"});
    s.post("/v1/movies", &s.token("ann").await, film.clone()).await.problem(403, "forbidden");
    s.put(&format!("/v1/users/{ann}/roles"), &root, json!([{"role": "curator"}])).await.expect(200);
    let curator = s.token("ann").await;
    s.post("/v1/movies", &curator, film.clone()).await.expect(201);
    s.call(Method::DELETE, "/v1/policies", &root, rule.clone()).await.expect(204);
    s.post("/v1/movies", &curator, film).await.problem(403, "forbidden");
    s.call(Method::DELETE, "/v1/policies", &root, rule).await.problem(404, "not-found");

    let admin = json!({"role": "admin", "region": "*", "resource": "*", "action": "*"});
    s.call(Method::DELETE, "/v1/policies", &root, admin).await.problem(409, "last-admin");
    let query = "/v1/policies?role=admin&region=*&resource=*&action=*";
    s.delete(query, &root).await.problem(409, "last-admin");
    s.get("/v1/users", &root).await.expect(200);
    for (field, value) in [("role", ""), ("region", "mars"), ("resource", "a b"), ("action", "x\u{0}")] {
        let mut bad = json!({"role": "r", "region": "*", "resource": "s", "action": "a"});
        bad[field] = json!(value);
        let problem = s.post("/v1/policies", &root, bad).await.problem(422, "invalid-request");
        assert_eq!(problem.body["errors"][0]["field"], field);
    }
    assert_eq!(s.get("/v1/policies", &root).await.body["version"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_tells_all_and_cannot_be_changed() {
    let (postgres, s) = start().await;
    let root = s.token("root").await;
    let ann = s.sign_up("ann").await;
    let path = format!("/v1/users/{ann}/disable");
    let request = s.request(Method::POST, &path, Some(&root)).header("x-forwarded-for", "203.0.113.9");
    s.send(request).await.expect(200);

    let lines = s.get("/v1/audit?action=user.disable", &root).await.expect(200);
    let line = &lines.body["items"][0];
    let root_id = s.get("/v1/me", &root).await.text("id");
    assert_eq!((&line["actor"], &line["target"]), (&json!(root_id), &json!(ann)));
    assert_eq!((&line["before"], &line["after"]), (&json!({"disabled": false}), &json!({"disabled": true})));
    assert_eq!(line["address"], "203.0.113.9");
    let first = s.get("/v1/audit?limit=1", &root).await.expect(200);
    let rest = s.get(&format!("/v1/audit?cursor={}", first.text("next_cursor")), &root).await.expect(200);
    assert_eq!(rest.body["items"].as_array().unwrap().len(), 2);
    let none = s.get("/v1/audit?from=2200-01-01T00:00:00Z", &root).await.expect(200);
    assert_eq!(none.body["items"], json!([]));
    s.get("/v1/audit?from=yesterday", &root).await.problem(422, "invalid-request");
    s.get("/v1/audit?action=%00", &root).await.problem(422, "invalid-request");

    let pool = migrations::pool(&postgres.url("global"), 1).unwrap();
    let db = pool.get().await.unwrap();
    for sql in ["UPDATE audit SET action = 'x'", "DELETE FROM audit", "TRUNCATE audit"] {
        let error = db.batch_execute(sql).await.unwrap_err();
        assert!(error.as_db_error().unwrap().message().contains("append-only"), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_regions_bring_is_there_once_and_stands_where_its_time_puts_it() {
    let (_postgres, s) = start().await;
    let root = s.token("root").await;
    let actor = s.sign_up("ann").await;
    let url = format!("http://{}", s.config.grpc_listen);
    let mut log = AuditLogClient::connect(url).await.unwrap();
    let line = |secs: u64, target: &str| {
        let at = uuid::Timestamp::from_unix(uuid::NoContext, secs, 0);
        Line {
            id: common::AuditId(uuid::Uuid::new_v7(at)).to_string(),
            at_micros: i64::try_from(secs).unwrap() * 1_000_000,
            actor: actor.clone(),
            action: "show.cancel".into(),
            target: target.into(),
            before: r#"{"status":"scheduled"}"#.into(),
            after: r#"{"status":"canceled"}"#.into(),
            address: "203.0.113.9".into(),
            region: "eu".into(),
        }
    };
    let (newer, older) = (line(1_700_000_100, "b"), line(1_700_000_000, "a"));
    let odd = Line { after: "{".into(), ..line(1_700_000_050, "odd") };
    let request = |lines: Vec<Line>| TellRequest { teller: "eu".into(), lines };
    let lines = vec![newer.clone(), odd.clone()];
    let reply = log.tell(request(lines.clone())).await.unwrap().into_inner();
    assert_eq!(reply.refused, [odd.id.as_str()], "the others are taken");
    // Told again, with one that comes late; then by another region that keeps the same show's journal.
    log.tell(request(vec![newer.clone(), older.clone()])).await.unwrap();
    let changed = Line { target: "forged".into(), ..newer.clone() };
    log.tell(TellRequest { teller: "us".into(), lines: vec![changed, newer.clone()] }).await.unwrap();

    let path = format!("/v1/audit?actor={actor}&action=show.cancel");
    let listed = s.get(&path, &root).await.expect(200);
    let items = listed.body["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{}", listed.body);
    let whole = json!({"id": newer.id, "at": "2023-11-14T22:15:00Z", "actor": actor, "action": "show.cancel",
        "target": "b", "before": {"status": "scheduled"}, "after": {"status": "canceled"},
        "address": "203.0.113.9", "region": "eu"});
    assert_eq!((&items[0], &items[1]["target"]), (&whole, &json!("a")));
    let first = s.get(&format!("{path}&limit=1"), &root).await.expect(200);
    let next = s.get(&format!("{path}&cursor={}", first.text("next_cursor")), &root).await.expect(200);
    assert_eq!((&first.body["items"][0], &next.body["items"][0]), (&items[0], &items[1]));
    let since = s.get(&format!("{path}&from=2023-11-14T22:14:00Z"), &root).await.expect(200);
    assert_eq!(since.body["items"], json!([whole]));
    let own = s.get("/v1/audit?action=user.signup", &root).await.expect(200);
    assert_eq!(own.body["items"][0]["region"], json!(null), "what is done here is done in no region");

    let many = log.tell(request(vec![older; 1_001])).await.unwrap_err();
    assert_eq!(many.code(), tonic::Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_says_where_to_be_served_and_the_next_token_tells_it() {
    let (_postgres, s) = start().await;
    s.sign_up("ann").await;
    let signed_in = s.sign_in("ann").await;
    let ann = signed_in.text("access_token");
    assert_eq!(s.get("/v1/me", &ann).await.body["region"], json!(null));
    for wrong in [json!("mars"), json!(""), json!("EU"), json!(5)] {
        let refused = s.patch("/v1/me", &ann, json!({"region": wrong})).await.problem(422, "invalid-request");
        assert_eq!(refused.body["errors"][0]["field"], "region");
    }
    let both = s.patch("/v1/me", &ann, json!({"region": "mars", "name": ""})).await.expect(422);
    assert_eq!(both.body["errors"].as_array().unwrap().len(), 2, "every wrong field at once");
    let set = s.patch("/v1/me", &ann, json!({"region": "ap"})).await.expect(200);
    assert_eq!((&set.body["region"], &set.body["version"]), (&json!("ap"), &json!(2)));
    assert_eq!(s.patch("/v1/me", &ann, json!({"region": "ap"})).await.body["version"], 2, "nothing changed");
    assert_eq!(s.patch("/v1/me", &ann, json!({"name": "Ann"})).await.body["region"], "ap");
    let claims = |token: String| async {
        let token = token;
        s.get("/v1/auth/verify", &token).await.expect(200).body["region"].clone()
    };
    assert_eq!(claims(ann.clone()).await, json!(null), "a token says what it said");
    let renewed = s.refresh(&signed_in.text("refresh_token")).await.expect(200);
    assert_eq!(claims(renewed.text("access_token")).await, "ap");
    let root = s.token("root").await;
    let lines = s.get("/v1/audit?action=user.update", &root).await.expect(200);
    assert_eq!(lines.body["items"][1]["after"], json!({"changed": ["region"]}));
    let unset = s.patch("/v1/me", &ann, json!({"region": null})).await.expect(200);
    assert_eq!(unset.body["region"], json!(null));
    assert_eq!(claims(s.token("ann").await).await, json!(null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_surface_is_documented_and_fails_as_problems() {
    let (_postgres, s) = start().await;
    let document = s.send(s.request(Method::GET, "/openapi.json", None)).await.expect(200).body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let operations: usize =
        document["paths"].as_object().unwrap().values().map(|p| p.as_object().unwrap().len()).sum();
    assert_eq!(operations, 31);
    let jwks = s.send(s.request(Method::GET, "/.well-known/jwks.json", None)).await.expect(200).body;
    assert_eq!((&jwks["keys"][0]["kty"], &jwks["keys"][0]["alg"]), (&json!("OKP"), &json!("EdDSA")));

    s.send(s.request(Method::GET, "/v1/nothing", None)).await.problem(404, "not-found");
    s.send(s.request(Method::PATCH, "/v1/users", None)).await.problem(405, "method-not-allowed");
    let huge = s.request(Method::POST, "/v1/auth/signup", None).header("content-type", "application/json");
    s.send(huge.body(vec![b' '; 1024 * 1024 + 1])).await.problem(413, "body-too-large");
    let broken = s.request(Method::POST, "/v1/auth/signup", None).header("content-type", "application/json");
    s.send(broken.body(b"{\"email\": \"\xff".to_vec())).await.expect(400);

    let metrics = s.client.get(format!("http://{}/metrics", s.config.ops_listen)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for name in [
        "marquee_feed_position",
        "marquee_db_pool_connections{state=\"idle\"}",
        "marquee_http_requests_total",
    ] {
        assert!(metrics.contains(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_keeps_what_was_and_a_wrong_master_key_ends_it() {
    let (postgres, s) = start().await;
    let token = s.token("root").await;
    let kid = s.send(s.request(Method::GET, "/.well-known/jwks.json", None)).await.body["keys"].clone();
    s.stop().await;

    let mut wrong = config(&postgres.url("global"));
    wrong.master_key = common::config::Secret::new("quite another master key");
    let error = global::run(wrong, Default::default()).await.unwrap_err().to_string();
    assert!(error.contains("MASTER_KEY"), "{error}");

    let mut other = config(&postgres.url("global"));
    other.bootstrap_admin.username = "second".into();
    let s = Service::start(other).await;
    s.get("/v1/me", &token).await.expect(200);
    assert_eq!(s.send(s.request(Method::GET, "/.well-known/jwks.json", None)).await.body["keys"], kid);
    // There is an admin already, so no second one was made.
    s.sign_in("second").await.problem(401, "invalid-credentials");
    s.stop().await;

    // An old key is replaced: the new one is published, both verify, and the old one signs until all know
    // the new one.
    let pool = migrations::pool(&postgres.url("global"), 1).unwrap();
    let age = "UPDATE signing_keys SET created_at = now() - interval '91 days'";
    pool.get().await.unwrap().batch_execute(age).await.unwrap();
    let s = Service::start(config(&postgres.url("global"))).await;
    let both = s.send(s.request(Method::GET, "/.well-known/jwks.json", None)).await.body["keys"].clone();
    assert_eq!((both.as_array().unwrap().len(), &both[1]), (2, &kid[0]));
    s.get("/v1/me", &token).await.expect(200);
    let fresh = s.token("root").await;
    let header = fresh.split('.').next().unwrap();
    assert_eq!(header, token.split('.').next().unwrap(), "the same `kid`");
    s.get("/v1/me", &fresh).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_database_it_says_so_and_still_knows_tokens() {
    let (postgres, s) = start().await;
    let root = s.token("root").await;
    drop(postgres);
    s.get("/v1/auth/verify", &root).await.expect(200);
    let problem = s.get("/v1/users", &root).await.problem(503, "database-unavailable");
    assert!(problem.headers.contains_key("retry-after"));
    s.sign_in("root").await.problem(503, "database-unavailable");
    support::eventually("readyz names it", async || {
        let ready = s.client.get(format!("http://{}/readyz", s.config.ops_listen)).send().await.unwrap();
        ready.status() == 503 && ready.text().await.unwrap().contains("postgres")
    })
    .await;
    s.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_leave_at_once_do_not_wait_for_each_other() {
    let (_postgres, s) = start().await;
    s.sign_up("ann").await;
    let mut tokens = Vec::new();
    for _ in 0..100 {
        tokens.push(s.token("ann").await);
    }
    let started = std::time::Instant::now();
    futures::future::join_all(tokens.iter().map(|token| async {
        s.post("/v1/auth/logout", token, json!({})).await.expect(204);
        s.get("/v1/auth/verify", token).await.problem(401, "invalid-token");
    }))
    .await;
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_by_command_and_overlap() {
    let (postgres, s) = start().await;
    let keys = async || {
        let set = s.send(s.request(Method::GET, "/.well-known/jwks.json", None)).await.expect(200).body;
        let keys = set["keys"].as_array().unwrap().iter();
        keys.map(|k| k["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let kid = |token: &str| {
        let header = data_encoding::BASE64URL_NOPAD.decode(token.split('.').next().unwrap().as_bytes());
        serde_json::from_slice::<serde_json::Value>(&header.unwrap()).unwrap()["kid"].clone()
    };
    let (first, token) = (keys().await.remove(0), s.token("root").await);

    let mut wrong = config(&postgres.url("global"));
    wrong.master_key = common::config::Secret::new("quite another master key");
    let error = global::rotate_keys(&wrong, false).await.unwrap_err().to_string();
    assert!(error.contains("MASTER_KEY"), "{error}");

    // Twice in a row: no key is dropped while tokens of it are about, and the one that all know signs.
    let second = global::rotate_keys(&s.config, false).await.unwrap();
    let third = global::rotate_keys(&s.config, false).await.unwrap();
    support::eventually("three keys", async || {
        keys().await == [third.clone(), second.clone(), first.clone()]
    })
    .await;
    s.get("/v1/me", &token).await.expect(200);
    assert_eq!(kid(&s.token("root").await), first);

    // A minute later the newest signs; a quarter of an hour later the oldest is forgotten, at the next start.
    let pool = migrations::pool(&postgres.url("global"), 1).unwrap();
    let later = "UPDATE signing_keys SET created_at = created_at - interval '15 minutes'";
    pool.get().await.unwrap().batch_execute(later).await.unwrap();
    s.stop().await;
    let s = Service::start(config(&postgres.url("global"))).await;
    let newest = s.token("root").await;
    assert_eq!(kid(&newest), third);
    s.get("/v1/me", &newest).await.expect(200);
    s.get("/v1/me", &token).await.problem(401, "invalid-token");

    // They are known to others: nothing that they signed is good.
    let fourth = global::rotate_keys(&s.config, true).await.unwrap();
    support::eventually("its tokens are void", async || s.get("/v1/me", &newest).await.status == 401).await;
    let fresh = s.token("root").await;
    assert_eq!(kid(&fresh), fourth);
    let lines = s.get("/v1/audit?action=keys.rotate", &fresh).await.expect(200);
    assert_eq!(lines.body["items"].as_array().unwrap().len(), 3);
    assert_eq!(lines.body["items"][0]["target"], fourth);
    let metrics = s.client.get(format!("http://{}/metrics", s.config.ops_listen)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let refusals = "marquee_authority_refusals_total{action=\"\",reason=\"unknown_key\"";
    assert!(metrics.contains(refusals), "{metrics}");
}
