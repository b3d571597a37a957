//! Text messages: who gets which, and how they come to a provider that is down, busy, late or of another opinion.
//!
//! The provider is Python's own HTTP server (`support/sms_sink.py`).

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::config::{Config as _, Secret};
use common::proto::notices::notices_client::NoticesClient;
use common::proto::notices::{Notice, TellRequest};
use global::SmsConfig;
use jiff::{SignedDuration, Timestamp};
use migrations::Schema;
use migrations::testing::TestPostgres;
use serde_json::{Value, json};
use support::{Service, config, eventually};

/// Ends with the value.
struct Sink {
    process: Child,
}

impl Sink {
    fn start(port: u16, log: &Path) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/support/sms_sink.py");
        let python = std::env::var("E2E_PYTHON").unwrap_or_else(|_| "python3".into());
        let mut process = Command::new(python)
            .arg(script)
            .arg(port.to_string())
            .arg(log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3, or E2E_PYTHON");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { process }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

struct Stage {
    postgres: TestPostgres,
    service: Service,
    folder: tempfile::TempDir,
    port: u16,
}

async fn stage() -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let postgres = TestPostgres::start();
    let url = postgres.migrated("global", Schema::Global).await;
    let port = common::loopback::unused_address().unwrap().port();
    let sms = SmsConfig {
        provider_url: format!("http://127.0.0.1:{port}/v1/messages?a=b"),
        api_key: Secret::new("key of the tests"),
        sender: "Marquee".into(),
        ..SmsConfig::default()
    };
    let config = global::Config { sms, ..config(&url) };
    assert_eq!(config.problems(), Vec::<String>::new());
    Stage { postgres, service: Service::start(config).await, folder, port }
}

impl Stage {
    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What the provider was asked, in order.
    fn asked(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn asked_for(&self, number: &str) -> Vec<Value> {
        self.asked().into_iter().filter(|asked| asked["body"]["to"] == number).collect()
    }

    /// Somebody with a number that was proved, who wants messages there.
    async fn person(&self, name: &str, number: &str) -> (String, String) {
        let id = self.service.sign_up(name).await;
        let token = self.service.token(name).await;
        // How numbers are proved is tested below; here no code shall go there.
        let proved = format!(
            "UPDATE users SET phone = '{number}', phone_verified = true, sms = true WHERE username = '{name}'"
        );
        self.sql(&proved).await;
        (id, token)
    }

    async fn sql(&self, sql: &str) -> Vec<tokio_postgres::Row> {
        let pool = migrations::pool(&self.postgres.url("global"), 1).unwrap();
        pool.get().await.unwrap().query(sql, &[]).await.unwrap()
    }

    /// The codes that went to a number, oldest first.
    fn codes(&self, number: &str) -> Vec<String> {
        let code = |asked: Value| {
            let text = asked["body"]["text"].as_str().unwrap().to_owned();
            Some(
                text.strip_prefix("Marquee: ")?
                    .split_once(" is the code for your phone number.")?
                    .0
                    .to_owned(),
            )
        };
        self.asked_for(number).into_iter().filter_map(code).collect()
    }

    /// Until so many codes went there; the last one.
    async fn code(&self, number: &str, count: usize) -> String {
        eventually("a code", async || self.codes(number).len() >= count).await;
        let mut codes = self.codes(number);
        assert_eq!(codes.len(), count, "{codes:?}");
        codes.pop().unwrap()
    }

    async fn verify(&self, token: &str, code: &str) -> support::Answer {
        self.service.post("/v1/me/phone/verify", token, json!({ "code": code })).await
    }

    async fn tell(&self, teller: &str, notices: &[Notice]) {
        let url = format!("http://{}", self.service.config.grpc_listen);
        let mut client = NoticesClient::connect(url).await.unwrap();
        let request = TellRequest { teller: teller.into(), notices: notices.to_vec() };
        client.tell(request).await.unwrap();
    }

    async fn outcomes(&self) -> Vec<(String, Option<String>, Option<String>)> {
        let select = "SELECT kind, outcome, text FROM mail_outbox
                      WHERE channel = 'sms' AND kind <> 'phone_code' ORDER BY kind";
        self.sql(select).await.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }
}

fn notice(user: &str, kind: &str) -> Notice {
    Notice {
        id: uuid::Uuid::now_v7().to_string(),
        at_micros: Timestamp::now().as_microsecond(),
        user_id: user.into(),
        kind: kind.into(),
        reference: "ABCD2345".into(),
        title: "The Wizard of Oz".into(),
        starts_at_local: "2027-03-01T20:15:00+01:00".into(),
        cinema: "Lichtburg".into(),
        seats: vec!["A1".into(), "A2".into()],
        ..Notice::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_messages_gets_one_of_each_event_and_nobody_else_gets_any() {
    let stage = stage().await;
    let s = &stage.service;
    let (ann, token) = stage.person("ann", "+4930123456").await;
    let (bob, bobs) = stage.person("bob", "+4930123457").await;
    s.patch("/v1/me", &bobs, json!({"sms": false})).await.expect(200);
    let (gone, gones) = stage.person("gone", "+4930123458").await;
    let eve = s.sign_up("eve").await;
    let paid = notice(&ann, "order_confirmed");
    let canceled = notice(&ann, "show_canceled");
    let old = SignedDuration::from_hours(73);
    let old =
        Notice { at_micros: (Timestamp::now() - old).as_microsecond(), ..notice(&ann, "order_confirmed") };
    let late = notice(&gone, "show_canceled");
    let nothing = [
        notice(&bob, "order_confirmed"),
        notice(&eve, "order_confirmed"),
        old,
        notice(&ann, "lottery_won"),
        notice("usr_", "order_confirmed"),
        Notice { id: "1".into(), ..notice(&ann, "order_confirmed") },
    ];
    // Told twice, and by another region; while the provider is down.
    stage.tell("eu", &[paid.clone(), late.clone()]).await;
    stage.tell("us", &[paid.clone(), canceled.clone()]).await;
    stage.tell("us", &nothing).await;
    // Who goes is told nothing any more, and what was known of him is not.
    s.delete("/v1/me", &gones).await.expect(204);
    let _sink = Sink::start(stage.port, &stage.log());
    eventually("both messages", async || {
        stage.outcomes().await.iter().filter(|o| o.1.as_deref() == Some("sent")).count() == 2
    })
    .await;
    let asked = stage.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    let of = |notice: &Notice| asked.iter().find(|a| a["body"]["id"] == notice.id.as_str()).unwrap();
    let text = "Marquee: The Wizard of Oz, 2027-03-01 20:15, Lichtburg. Paid: A1 A2. Booking ABCD2345.";
    let body = json!({"id": paid.id, "from": "Marquee", "to": "+4930123456", "text": text});
    assert_eq!(of(&paid)["body"], body);
    assert!(of(&canceled)["body"]["text"].as_str().unwrap().contains("canceled by the cinema"));
    let headers = &of(&paid)["headers"];
    assert_eq!(
        (&headers["authorization"], &headers["idempotency-key"]),
        (&json!("Bearer key of the tests"), &json!(paid.id))
    );
    assert_eq!(of(&paid)["path"], "/v1/messages?a=b");
    // Sent is forgotten, but that it was: told once more, it is there.
    stage.tell("ap", std::slice::from_ref(&paid)).await;
    let outcomes = stage.outcomes().await;
    assert!(outcomes.len() == 2 && outcomes.iter().all(|o| o.2.is_none()), "{outcomes:?}");

    for (body, field) in [
        (json!({"phone": "030 123456"}), "phone"),
        (json!({"phone": "+0301234567"}), "phone"),
        (json!({"phone": 4930123456_i64}), "phone"),
        (json!({"sms": "yes"}), "sms"),
        (json!({"phone": null, "sms": true}), "sms"),
    ] {
        let refused = s.patch("/v1/me", &token, body).await.problem(422, "invalid-request");
        assert_eq!(refused.body["errors"][0]["field"], field);
    }
    let eves = s.token("eve").await;
    s.patch("/v1/me", &eves, json!({"sms": true})).await.problem(422, "invalid-request");
    let without = s.patch("/v1/me", &token, json!({"phone": null})).await.expect(200);
    assert_eq!((&without.body["phone"], &without.body["sms"]), (&json!(null), &json!(false)));
    let left = stage.sql("SELECT count(*) FROM users WHERE phone IS NOT NULL OR phone_verified OR sms").await;
    assert_eq!(left[0].get::<_, i64>(0), 1, "bob's");
    let root = s.token("root").await;
    let lines = s.get("/v1/audit?action=user.update&limit=200", &root).await.expect(200);
    assert!(!lines.body.to_string().contains("+49"), "which fields, not their values: {}", lines.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_may_be_busy_late_or_of_another_opinion() {
    let stage = stage().await;
    let _sink = Sink::start(stage.port, &stage.log());
    // The number, and how often the provider is asked.
    let table = [
        ("refused", "+49301234422", 1),
        ("busy", "+49301234503", 2),
        ("broken", "+49301234444", 2),
        ("late", "+49301234000", 2),
    ];
    let mut notices = Vec::new();
    for (name, number, _) in table {
        let (id, _) = stage.person(name, number).await;
        notices.push(notice(&id, "order_confirmed"));
    }
    stage.tell("eu", &notices).await;
    for (name, number, times) in table {
        patiently(name, async || stage.asked_for(number).len() >= times).await;
        let asked = stage.asked_for(number);
        let keys: Vec<_> = asked.iter().map(|a| a["headers"]["idempotency-key"].clone()).collect();
        assert!(keys.iter().all(|key| *key == keys[0]), "the same event: {keys:?}");
        assert_eq!(asked.len(), times, "{name}");
    }
    patiently("nothing that waits", async || stage.outcomes().await.iter().all(|o| o.1.is_some())).await;
    let mut outcomes: Vec<_> = stage.outcomes().await.into_iter().filter_map(|o| o.1).collect();
    outcomes.sort();
    assert_eq!(outcomes, ["refused", "sent", "sent", "sent"]);

    // A key that the provider does not take is ours to mend: the message waits.
    let (id, _) = stage.person("locked", "+49301234401").await;
    stage.tell("eu", &[notice(&id, "order_confirmed")]).await;
    eventually("two tries", async || stage.asked_for("+49301234401").len() >= 2).await;
    assert_eq!(stage.outcomes().await.iter().filter(|o| o.1.is_none()).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_messages_are_not_configured_nothing_piles_up() {
    let (postgres, service) = support::start().await;
    let ann = service.sign_up("ann").await;
    let token = service.token("ann").await;
    service.patch("/v1/me", &token, json!({"phone": "+4930123456", "sms": true})).await.expect(200);
    service.post("/v1/me/phone/resend", &token, json!({})).await.problem(409, "no-messages");
    let url = format!("http://{}", service.config.grpc_listen);
    let mut client = NoticesClient::connect(url).await.unwrap();
    let request = TellRequest { teller: "eu".into(), notices: vec![notice(&ann, "order_confirmed")] };
    client.tell(request).await.unwrap();
    let pool = migrations::pool(&postgres.url("global"), 1).unwrap();
    let select = "SELECT count(*) FROM mail_outbox WHERE channel = 'sms' OR kind = 'order_confirmed'";
    let count: i64 = pool.get().await.unwrap().query_one(select, &[]).await.unwrap().get(0);
    assert_eq!(count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_is_told_of_orders_once_its_owner_has_sent_back_the_code() {
    let stage = stage().await;
    let _sink = Sink::start(stage.port, &stage.log());
    let s = &stage.service;
    let (ann, number) = (s.sign_up("ann").await, "+4930123456");
    let token = s.token("ann").await;
    let given = s.patch("/v1/me", &token, json!({"phone": number, "sms": true})).await.expect(200);
    assert_eq!((&given.body["phone_verified"], &given.body["sms"]), (&json!(false), &json!(true)));
    let code = stage.code(number, 1).await;
    let rows =
        stage.sql("SELECT c::text FROM phone_codes c UNION ALL SELECT o::text FROM mail_outbox o").await;
    let kept: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(kept.len() >= 2 && !kept.iter().any(|row| row.contains(&code)), "{kept:?}");

    // Not proved: nothing goes there.
    stage.tell("eu", &[notice(&ann, "order_confirmed")]).await;
    assert_eq!(stage.outcomes().await, []);

    let wrong = if code == "000000" { "000001" } else { "000000" };
    for bad in ["", "x", wrong, "\u{0}"] {
        let refused = stage.verify(&token, bad).await.problem(422, "invalid-phone-code");
        assert_eq!(refused.body["errors"][0]["field"], "code");
    }
    // Somebody else's code is no code of his; of many at once one wins.
    s.sign_up("bob").await;
    let bobs = s.token("bob").await;
    stage.verify(&bobs, &code).await.problem(422, "invalid-phone-code");
    stage.verify(&token, &code).await.expect(204);
    stage.verify(&token, &code).await.problem(422, "invalid-phone-code");
    assert_eq!(s.get("/v1/me", &token).await.body["phone_verified"], true);
    let lines = s.get("/v1/audit?action=user.verify_phone", &s.token("root").await).await.expect(200);
    assert_eq!(
        (lines.body["items"].as_array().unwrap().len(), &lines.body["items"][0]["actor"]),
        (1, &json!(ann))
    );
    stage.tell("eu", &[notice(&ann, "order_confirmed")]).await;
    eventually("the message", async || stage.asked_for(number).len() == 2).await;

    // A confirmed number needs no code; another one does, and the first is told nothing more.
    s.post("/v1/me/phone/resend", &token, json!({})).await.expect(202);
    let other = "+4930123457";
    let changed = s.patch("/v1/me", &token, json!({"phone": other})).await.expect(200);
    assert_eq!(changed.body["phone_verified"], false);
    let second = stage.code(other, 1).await;
    stage.verify(&token, &code).await.problem(422, "invalid-phone-code");
    stage.tell("eu", &[notice(&ann, "show_canceled")]).await;
    stage.verify(&token, &second).await.expect(204);
    // What is changed beside it leaves it proved.
    let renamed = s.patch("/v1/me", &token, json!({"name": "Ann", "phone": other})).await.expect(200);
    assert_eq!(renamed.body["phone_verified"], true);
    assert_eq!((stage.asked_for(number).len(), stage.codes(other).len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_good_for_few_tries_and_ten_minutes_and_asking_is_slowed_down() {
    let stage = stage().await;
    let _sink = Sink::start(stage.port, &stage.log());
    let s = &stage.service;
    s.sign_up("ann").await;
    let (token, number) = (s.token("ann").await, "+4930123456");
    s.patch("/v1/me", &token, json!({"phone": number})).await.expect(200);
    let first = stage.code(number, 1).await;
    let wrong = if first == "000000" { "000001" } else { "000000" };
    // At once, so that a count after the judgement would let more through.
    let guesses = futures::future::join_all((0..5).map(|_| stage.verify(&token, wrong))).await;
    assert!(guesses.iter().all(|answer| answer.status == 422));
    stage.verify(&token, &first).await.problem(422, "invalid-phone-code");

    // Within a minute there is no other; later there is, and it lives ten minutes.
    let idle = async || {
        let waits = "SELECT count(*) FROM mail_outbox WHERE done_at IS NULL AND channel = 'sms'";
        eventually("an idle outbox", async || stage.sql(waits).await[0].get::<_, i64>(0) == 0).await;
    };
    s.post("/v1/me/phone/resend", &token, json!({})).await.expect(202);
    idle().await;
    assert_eq!(stage.codes(number).len(), 1);
    stage.sql("UPDATE phone_codes SET created_at = now() - interval '61 seconds'").await;
    s.post("/v1/me/phone/resend", &token, json!({})).await.expect(202);
    let second = stage.code(number, 2).await;
    let lived = "SELECT extract(epoch FROM expires_at - created_at)::float8 FROM phone_codes";
    let secs: f64 = stage.sql(lived).await[0].get(0);
    assert!((595.0..=605.0).contains(&secs), "{secs}");
    stage.sql("UPDATE phone_codes SET expires_at = now()").await;
    stage.verify(&token, &second).await.problem(422, "invalid-phone-code");

    // The number, seven tries, two messages: ten calls are free, of whatever kind.
    s.post("/v1/me/phone/resend", &token, json!({})).await.problem(429, "too-many-attempts");
    stage.verify(&token, &second).await.problem(429, "too-many-attempts");
    let changed = s.patch("/v1/me", &token, json!({"phone": "+4930123457"})).await;
    changed.problem(429, "too-many-attempts");
    assert_eq!(s.get("/v1/me", &token).await.body["phone"], number, "nothing of a refused change is kept");
    s.patch("/v1/me", &token, json!({"name": "Ann"})).await.expect(200);
    idle().await;
    assert_eq!(stage.codes("+4930123457").len(), 0);

    // Who goes takes number and codes along.
    s.delete("/v1/me", &token).await.expect(204);
    let left = stage.sql("SELECT (SELECT count(*) FROM phone_codes) + count(phone) FROM users").await;
    assert_eq!(left[0].get::<_, i64>(0), 0);
}

/// A provider that does not answer holds its message for five seconds, and those behind it.
async fn patiently(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(40);
    while !holds().await {
        assert!(std::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
