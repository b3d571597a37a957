//! Journeys of accounts and sessions through the running service.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};
use support::{PASSWORD, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lives_rotates_and_ends() {
    let (_postgres, s) = start().await;
    let id = s.sign_up("ann").await;

    // By username, by email, in any case; as a form and as JSON.
    let tokens = s.sign_in("ann").await.expect(200);
    assert_eq!(
        (tokens.text("token_type").as_str(), tokens.body["expires_in"].as_i64()),
        ("Bearer", Some(600))
    );
    assert_eq!(tokens.headers["cache-control"], "no-store");
    let body = json!({"grant_type": "password", "username": "ANN@marquee.example", "password": PASSWORD});
    s.post("/v1/auth/token", "", body).await.expect(200);

    let access = tokens.text("access_token");
    let claims = s.get("/v1/auth/verify", &access).await.expect(200);
    assert_eq!(claims.text("sub"), id);
    assert_eq!((claims.text("aud"), claims.text("iss")), ("marquee".into(), "marquee".into()));
    assert_eq!(claims.body["roles"], json!([{"role": "customer"}]));
    let me = s.get("/v1/me", &access).await.expect(200);
    assert_eq!((me.text("id"), me.text("username")), (id, "ann".into()));
    assert!(!me.body.to_string().contains("argon2"), "no hash leaves");

    let first = tokens.text("refresh_token");
    let second = s.refresh(&first).await.expect(200);
    s.get("/v1/me", &second.text("access_token")).await.expect(200);
    // The old one again: somebody else has it. Everything of the session ends.
    s.refresh(&first).await.problem(401, "invalid-grant");
    s.refresh(&second.text("refresh_token")).await.problem(401, "invalid-grant");
    for token in [&access, &second.text("access_token")] {
        s.get("/v1/me", token).await.problem(401, "invalid-token");
    }
    s.refresh("mrt_never-given").await.problem(401, "invalid-grant");

    // The other session is untouched; it logs out.
    let other = s.token("ann").await;
    s.post("/v1/auth/logout", &other, json!({})).await.expect(204);
    s.get("/v1/auth/verify", &other).await.problem(401, "invalid-token");
    s.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_refresh_at_once_one_wins_and_the_session_ends() {
    let (_postgres, s) = start().await;
    s.sign_up("ann").await;
    let refresh = s.sign_in("ann").await.text("refresh_token");
    let all = futures::future::join_all((0..10).map(|_| s.refresh(&refresh))).await;
    let winners: Vec<_> = all.into_iter().filter(|a| a.status == 200).collect();
    assert_eq!(winners.len(), 1);
    s.refresh(&winners[0].text("refresh_token")).await.problem(401, "invalid-grant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_listed_and_ended_one_by_one() {
    let (_postgres, s) = start().await;
    s.sign_up("ann").await;
    s.sign_up("eve").await;
    let form = [("grant_type", "password"), ("username", "ann"), ("password", PASSWORD)];
    let request = s.request(Method::POST, "/v1/auth/token", None).form(&form);
    let request = request.header("user-agent", "Phone/1").header("x-forwarded-for", "9.9.9.9, 203.0.113.7");
    let phone = s.send(request).await.expect(200).text("access_token");
    let desk = s.token("ann").await;

    let list = s.get("/v1/auth/sessions", &desk).await.expect(200);
    let items = list.body["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), 2);
    assert_eq!((&items[0]["current"], &items[1]["current"]), (&json!(true), &json!(false)));
    assert_eq!((&items[1]["device"], &items[1]["address"]), (&json!("Phone/1"), &json!("203.0.113.7")));
    let page = s.get("/v1/auth/sessions?limit=1", &desk).await.expect(200);
    let next = format!("/v1/auth/sessions?limit=1&cursor={}", page.text("next_cursor"));
    assert_eq!(s.get(&next, &desk).await.expect(200).body["items"], json!([items[1]]));

    let path = format!("/v1/auth/sessions/{}", items[1]["id"].as_str().unwrap());
    let eve = s.token("eve").await;
    s.delete(&path, &eve).await.problem(404, "not-found");
    s.get("/v1/me", &phone).await.expect(200);
    s.delete(&path, &desk).await.expect(204);
    s.get("/v1/me", &phone).await.problem(401, "invalid-token");
    s.delete(&path, &desk).await.problem(404, "not-found");

    // A new password ends the others and leaves this one.
    let laptop = s.token("ann").await;
    let change = |current: &str, new: &str| json!({"current_password": current, "new_password": new});
    s.put("/v1/auth/password", &desk, change("not it, really", "another row G"))
        .await
        .problem(401, "invalid-credentials");
    s.put("/v1/auth/password", &desk, change(PASSWORD, "short")).await.problem(422, "invalid-request");
    s.put("/v1/auth/password", &desk, change(PASSWORD, "another row G")).await.expect(204);
    s.get("/v1/me", &laptop).await.problem(401, "invalid-token");
    s.get("/v1/me", &desk).await.expect(200);
    s.sign_in("ann").await.problem(401, "invalid-credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_sign_ups_and_sign_ins_are_refused_by_name() {
    let (_postgres, s) = start().await;
    s.sign_up("ann").await;
    let with = |changes: Value| {
        let mut body =
            json!({"email": "b@marquee.example", "username": "bob", "name": "B", "password": PASSWORD});
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        body
    };
    for (changes, field) in [
        (json!({"email": "nothing"}), "email"),
        (json!({"email": "a\u{0}b@marquee.example"}), "email"),
        (json!({"username": "a b"}), "username"),
        (json!({"name": " "}), "name"),
        (json!({"password": "short"}), "password"),
        (json!({"password": "Password123"}), "password"),
        (json!({"role": "admin"}), "role"),
        (json!({"email": 5}), "email"),
    ] {
        let problem = s.post("/v1/auth/signup", "", with(changes)).await.expect(422);
        assert_eq!(problem.body["errors"][0]["field"], field, "{}", problem.body);
    }
    let taken = s.post("/v1/auth/signup", "", with(json!({"username": "ANN"}))).await;
    taken.problem(409, "username-taken");
    let taken = s.post("/v1/auth/signup", "", with(json!({"email": "Ann@Marquee.example"}))).await;
    taken.problem(409, "email-taken");
    let text = s.request(Method::POST, "/v1/auth/signup", None).body("{}");
    s.send(text).await.problem(415, "unsupported-media-type");

    for body in [
        json!({"grant_type": "password", "username": "ann", "password": "wrong wrong"}),
        json!({"grant_type": "password", "username": "nobody", "password": PASSWORD}),
        json!({"grant_type": "password", "username": "a\u{0}", "password": PASSWORD}),
    ] {
        let problem = s.post("/v1/auth/token", "", body).await.problem(401, "invalid-credentials");
        assert_eq!(problem.text("detail"), "the username or the password is not right");
    }
    let grant = |grant: &str| json!({"grant_type": grant});
    s.post("/v1/auth/token", "", grant("magic")).await.problem(400, "unsupported-grant-type");
    let problem = s.post("/v1/auth/token", "", grant("password")).await.problem(422, "invalid-request");
    assert_eq!(problem.body["errors"][0]["field"], "username");
    let twice = s.request(Method::POST, "/v1/auth/token", None);
    let twice =
        twice.header("content-type", "application/x-www-form-urlencoded").body("username=a&username=b");
    s.send(twice).await.problem(422, "invalid-request");
    for token in ["", "x", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        s.get("/v1/me", token).await.problem(401, "invalid-token");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_is_slowed_down_for_that_account_from_that_address() {
    let (_postgres, s) = start().await;
    s.sign_up("ann").await;
    let attempt = async |address: &str, password: &str| {
        let form = [("grant_type", "password"), ("username", "ann"), ("password", password)];
        let request = s.request(Method::POST, "/v1/auth/token", None).form(&form);
        s.send(request.header("x-forwarded-for", address)).await
    };
    for _ in 0..10 {
        attempt("198.51.100.1", "guess after guess").await.problem(401, "invalid-credentials");
    }
    let slowed = attempt("198.51.100.1", PASSWORD).await.problem(429, "too-many-attempts");
    let wait: u64 = slowed.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=15).contains(&wait), "{wait}");
    attempt("198.51.100.2", PASSWORD).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_account_costs_as_much_as_a_wrong_password() {
    let (postgres, s) = start().await;
    s.sign_up("ann").await;
    // The hash must dominate for this to show anything: the cheap one of the other tests would not.
    let mut config = s.config.clone();
    config.argon2 = global::Argon2Config::default();
    s.stop().await;
    let s = support::Service::start(config).await;
    s.token("ann").await;
    let pool = migrations::pool(&postgres.url("global"), 1).unwrap();
    let sql = "SELECT password_hash FROM users WHERE username = 'ann'";
    let hash: String = pool.get().await.unwrap().query_one(sql, &[]).await.unwrap().get(0);
    assert!(hash.contains("m=19456,t=2"), "signing in renewed the cheap hash: {hash}");
    let time = async |username: &str, i: usize| {
        let form = [("grant_type", "password"), ("username", username), ("password", "wrong wrong")];
        let request = s.request(Method::POST, "/v1/auth/token", None).form(&form);
        let started = Instant::now();
        s.send(request.header("x-forwarded-for", format!("198.51.100.{i}"))).await.expect(401);
        started.elapsed().as_secs_f64()
    };
    // In turns, and the shortest: what else the machine does only adds.
    let (mut there, mut missing) = (f64::MAX, f64::MAX);
    for i in 0..20 {
        there = there.min(time("ann", i).await);
        missing = missing.min(time("nobody", i).await);
    }
    assert!(missing > there * 0.7 && missing < there * 1.5, "{there} {missing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admins_disable_enable_and_give_roles() {
    let (_postgres, s) = start().await;
    let ann = s.sign_up("ann").await;
    let root = s.token("root").await;
    let tokens = s.sign_in("ann").await.expect(200);
    let access = tokens.text("access_token");
    for path in ["/v1/users", "/v1/audit", "/v1/policies", &format!("/v1/users/{ann}")] {
        s.get(path, &access).await.problem(403, "forbidden");
        s.get(path, &root).await.expect(200);
    }

    let path = format!("/v1/users/{ann}");
    let disabled = s.post(&format!("{path}/disable"), &root, json!({})).await.expect(200);
    assert_eq!(disabled.body["disabled"], true);
    s.get("/v1/me", &access).await.problem(401, "invalid-token");
    s.refresh(&tokens.text("refresh_token")).await.problem(401, "invalid-grant");
    s.sign_in("ann").await.problem(403, "account-disabled");
    s.post(&format!("{path}/disable"), &root, json!({})).await.expect(200);
    s.post(&format!("{path}/enable"), &root, json!({})).await.expect(200);
    s.refresh(&tokens.text("refresh_token")).await.problem(401, "invalid-grant");
    let tokens = s.sign_in("ann").await.expect(200);

    let employee = json!([{"role": "employee", "region": "eu"}]);
    let changed = s.put(&format!("{path}/roles"), &root, employee.clone()).await.expect(200);
    assert_eq!(changed.body["roles"], employee);
    // The old token says what is no longer so; the session itself goes on.
    s.get("/v1/me", &tokens.text("access_token")).await.problem(401, "invalid-token");
    let renewed = s.refresh(&tokens.text("refresh_token")).await.expect(200);
    let claims = s.get("/v1/auth/verify", &renewed.text("access_token")).await.expect(200);
    assert_eq!(claims.body["roles"], employee);

    for (roles, field) in [
        (json!([{"role": "king"}]), "[0].role"),
        (json!([{"role": "customer"}, {"role": "manager"}]), "[1].region"),
        (json!([{"role": "employee", "region": "mars"}]), "[0].region"),
        (json!([{"role": "employee", "region": "EU"}]), "[0].region"),
        (json!([{"role": "admin", "region": "eu"}]), "[0].region"),
        (json!([{"role": "admin", "since": 1}]), "[0].since"),
        (json!({"role": "admin"}), "body"),
    ] {
        let problem = s.put(&format!("{path}/roles"), &root, roles).await.problem(422, "invalid-request");
        assert_eq!(problem.body["errors"][0]["field"], field, "{}", problem.body);
    }

    let ids = async |query: &str| {
        let page = s.get(&format!("/v1/users?{query}"), &root).await.expect(200);
        page.body["items"].as_array().unwrap().iter().map(|u| u["username"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids("q=aNn").await, ["ann"]);
    assert_eq!(ids("q=%25").await, Vec::<Value>::new());
    assert_eq!(ids("role=employee&region=eu").await, ["ann"]);
    assert_eq!(ids("role=employee&region=us").await, Vec::<Value>::new());
    assert_eq!(ids("role=admin").await, ["root"]);
    assert_eq!(ids("limit=1").await, ["root"]);
    s.get("/v1/users?q=%00", &root).await.problem(422, "invalid-request");
    s.get("/v1/users?limit=0", &root).await.problem(422, "invalid-request");
    s.get("/v1/users?cursor=!", &root).await.problem(422, "invalid-request");
    s.get("/v1/users/usr_0", &root).await.problem(404, "not-found");
    s.get(&path.replace("usr_", "mov_"), &root).await.problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_admin_stays() {
    let (_postgres, s) = start().await;
    let root = s.token("root").await;
    let root_id = s.get("/v1/me", &root).await.text("id");
    let path = format!("/v1/users/{root_id}");
    s.delete("/v1/me", &root).await.problem(409, "last-admin");
    s.post(&format!("{path}/disable"), &root, json!({})).await.problem(409, "last-admin");
    s.put(&format!("{path}/roles"), &root, json!([])).await.problem(409, "last-admin");
    s.get("/v1/me", &root).await.expect(200);

    // Two admins who remove each other at once: one of them must remain.
    let ann = s.sign_up("ann").await;
    s.put(&format!("/v1/users/{ann}/roles"), &root, json!([{"role": "admin"}])).await.expect(200);
    let ann_token = s.token("ann").await;
    let (of_ann, of_root) = (format!("/v1/users/{ann}/roles"), format!("{path}/roles"));
    let (one, two) = tokio::join!(s.put(&of_ann, &root, json!([])), s.put(&of_root, &ann_token, json!([])));
    let done = [&one, &two].iter().filter(|a| a.status == 200).count();
    assert_eq!(done, 1, "{} {}", one.body, two.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_is_changed_under_its_etag_and_erased_on_wish() {
    let (postgres, s) = start().await;
    let ann = s.sign_up("ann").await;
    s.sign_up("bob").await;
    let token = s.token("ann").await;
    let read = s.get("/v1/me", &token).await.expect(200);
    let conditional = s.request(Method::GET, "/v1/me", Some(&token)).header("if-none-match", read.etag());
    s.send(conditional).await.expect(304);
    let patch = |tag: String, body: Value| {
        s.send(s.request(Method::PATCH, "/v1/me", Some(&token)).header("if-match", tag).json(&body))
    };
    let changed = patch(read.etag(), json!({"name": "Ann B."})).await.expect(200);
    assert_eq!((changed.text("name"), changed.body["version"].clone()), ("Ann B.".into(), json!(2)));
    patch(read.etag(), json!({"name": "Ann C."})).await.problem(412, "precondition-failed");
    s.patch("/v1/me", &token, json!({"username": "BOB"})).await.problem(409, "username-taken");
    s.patch("/v1/me", &token, json!({"email": "bob@marquee.example"})).await.problem(409, "email-taken");
    s.patch("/v1/me", &token, json!({"roles": []})).await.problem(422, "invalid-request");
    s.patch("/v1/me", &token, json!({"email": "new@marquee.example"})).await.expect(200);

    s.delete("/v1/me", &token).await.expect(204);
    s.get("/v1/me", &token).await.problem(401, "invalid-token");
    s.sign_in("ann").await.problem(401, "invalid-credentials");
    let pool = migrations::pool(&postgres.url("global"), 1).unwrap();
    let db = pool.get().await.unwrap();
    for table in ["users", "sessions", "audit", "spent_refresh_tokens"] {
        let sql = format!(
            "SELECT count(*) FROM {table} t WHERE t::text ILIKE '%new@marquee%'
                           OR t::text ILIKE '%ann b%' OR t::text ILIKE '%ann@marquee%'"
        );
        let left: i64 = db.query_one(&sql, &[]).await.unwrap().get(0);
        assert_eq!(left, 0, "{table} still knows ann");
    }
    let root = s.token("root").await;
    let audit = s.get(&format!("/v1/audit?actor={ann}"), &root).await.expect(200);
    let actions: Vec<_> =
        audit.body["items"].as_array().unwrap().iter().map(|l| l["action"].clone()).collect();
    assert_eq!(actions, ["user.delete", "user.update", "user.update", "user.signup"]);
    // The name is free again.
    s.sign_up("ann").await;
}
