//! Mail: what brings it, what its tokens open, and how it gets through to a real SMTP server that is down
//! for a while.
//!
//! The SMTP tests run when `E2E_PYTHON` names a Python that has aiosmtpd; `scripts/test` sees to both.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::path::Path;

use common::config::{Config as _, Secret};
use global::MailConfig;
use migrations::Schema;
use migrations::testing::TestPostgres;
use serde_json::{Value, json};
use support::mails::{Smtp, mails, to};
use support::{PASSWORD, Service, config, eventually};

/// The token in a mail: in its link, and by itself.
fn token(mail: &str) -> String {
    let (_, rest) = mail.split_once("?token=").unwrap_or_else(|| panic!("no link in {mail}"));
    let token = rest.lines().next().unwrap().to_owned();
    assert!(mail.lines().any(|line| line == token), "{mail}");
    token
}

const VERIFY: &str = "Confirm your email address";
const RESET: &str = "Choose a new password";
const CHANGED: &str = "Your password was changed";

struct Stage {
    postgres: TestPostgres,
    service: Service,
    folder: tempfile::TempDir,
}

async fn stage(mail: impl FnOnce(&Path) -> MailConfig) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let postgres = TestPostgres::start();
    let url = postgres.migrated("global", Schema::Global).await;
    let config = global::Config { mail: mail(folder.path()), ..config(&url) };
    assert_eq!(config.problems(), Vec::<String>::new());
    Stage { postgres, service: Service::start(config).await, folder }
}

fn into_folder(folder: &Path) -> MailConfig {
    MailConfig {
        folder: folder.display().to_string(),
        link_url: "https://tickets.example".into(),
        ..MailConfig::default()
    }
}

impl Stage {
    /// Waits until so many mails of this kind are there.
    async fn mails(&self, address: &str, subject: &str, count: usize) -> Vec<String> {
        let seen =
            || to(&mails(self.folder.path()), address, subject).into_iter().cloned().collect::<Vec<_>>();
        eventually(&format!("{count} × “{subject}” to {address}"), async || seen().len() >= count).await;
        let seen = seen();
        assert_eq!(seen.len(), count, "{seen:?}");
        seen
    }

    async fn sql(&self, sql: &str) -> Vec<tokio_postgres::Row> {
        let pool = migrations::pool(&self.postgres.url("global"), 1).unwrap();
        pool.get().await.unwrap().query(sql, &[]).await.unwrap()
    }

    /// Until everything in the outbox is done.
    async fn idle(&self) {
        eventually("an outbox in which nothing waits", async || {
            let rows = self.sql("SELECT count(*) FROM mail_outbox WHERE done_at IS NULL").await;
            rows[0].get::<_, i64>(0) == 0
        })
        .await;
    }

    async fn forgot(&self, email: &str) {
        self.service.post("/v1/auth/password/forgot", "", json!({ "email": email })).await.expect(202);
    }

    async fn reset(&self, token: &str, password: &str) -> support::Answer {
        let body = json!({ "token": token, "password": password });
        self.service.post("/v1/auth/password/reset", "", body).await
    }

    async fn verify(&self, token: &str) -> support::Answer {
        self.service.post("/v1/auth/email/verify", "", json!({ "token": token })).await
    }

    async fn sign_in(&self, username: &str, password: &str) -> support::Answer {
        let body = json!({"grant_type": "password", "username": username, "password": password});
        self.service.post("/v1/auth/token", "", body).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_confirmed_by_the_token_that_was_mailed_to_it() {
    let stage = stage(into_folder).await;
    let s = &stage.service;
    s.sign_up("ann").await;
    let access = s.token("ann").await;
    assert_eq!(s.get("/v1/me", &access).await.body["email_verified"], false);
    let mail = stage.mails("ann@marquee.example", VERIFY, 1).await.remove(0);
    let first = token(&mail);
    assert!(!mail.contains("Some Body"), "nothing that a user typed is mailed");
    for bad in
        ["", "x", "mt_never-given", "mt_\u{0}", &first[..first.len() - 1], &first.replace("mt_", "MT_")]
    {
        let refused = stage.verify(bad).await.problem(422, "invalid-mail-token");
        assert_eq!(refused.body["errors"][0]["field"], "token");
    }
    // One purpose's token is no other's.
    stage.reset(&first, "quite a new one").await.problem(422, "invalid-mail-token");

    // Another address: the first token is worth nothing any more, both addresses are told.
    s.patch("/v1/me", &access, json!({"email": "ann@new.example"})).await.expect(200);
    stage.mails("ann@marquee.example", "Your email address was changed", 1).await;
    let second = token(&stage.mails("ann@new.example", VERIFY, 1).await[0]);
    stage.verify(&first).await.problem(422, "invalid-mail-token");
    assert_eq!(s.get("/v1/me", &access).await.body["email_verified"], false);

    // Of many at once one wins.
    let all = futures::future::join_all((0..5).map(|_| stage.verify(&second))).await;
    assert_eq!(all.iter().filter(|a| a.status == 204).count(), 1);
    assert_eq!(s.get("/v1/me", &access).await.body["email_verified"], true);
    s.post("/v1/auth/email/resend", &access, json!({})).await.expect(202);

    // Once more, and too late.
    s.patch("/v1/me", &access, json!({"email": "ann@third.example"})).await.expect(200);
    let third = token(&stage.mails("ann@third.example", VERIFY, 1).await[0]);
    s.post("/v1/auth/email/resend", &access, json!({})).await.expect(202);
    stage.idle().await;
    stage.mails("ann@third.example", VERIFY, 1).await;
    stage.sql("UPDATE mail_tokens SET expires_at = now(), created_at = now() - interval '2 days'").await;
    stage.verify(&third).await.problem(422, "invalid-mail-token");
    s.post("/v1/auth/email/resend", &access, json!({})).await.expect(202);
    let again = stage.mails("ann@third.example", VERIFY, 2).await;
    let fresh = again.iter().map(|m| token(m)).find(|t| *t != third).unwrap();
    stage.verify(&fresh).await.expect(204);
    stage.mails("ann@new.example", VERIFY, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_password_is_replaced_once_and_all_sessions_end() {
    let stage = stage(into_folder).await;
    let s = &stage.service;
    s.sign_up("ann").await;
    let bob = s.sign_up("bob").await;
    let root = s.token("root").await;
    s.post(&format!("/v1/users/{bob}/disable"), &root, json!({})).await.expect(200);
    let tokens = s.sign_in("ann").await.expect(200);
    let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));

    // The same answer for all; a mail only where there is somebody.
    let answers = ["Ann@Marquee.example", "nobody@marquee.example", "bob@marquee.example"];
    for email in answers {
        let body = json!({ "email": email });
        let answer = s.post("/v1/auth/password/forgot", "", body).await.expect(202);
        assert_eq!(answer.body, Value::Null);
    }
    stage.forgot("ann@marquee.example").await;
    let invalid = s.post("/v1/auth/password/forgot", "", json!({"email": "nothing"})).await;
    invalid.problem(422, "invalid-request");
    let mail = stage.mails("ann@marquee.example", RESET, 1).await.remove(0);
    stage.idle().await;
    let all = mails(stage.folder.path());
    let resets = all.iter().filter(|m| m.contains(RESET)).count();
    assert_eq!(resets, 1, "asked twice within a minute, one mail; nobody and the disabled get none");
    let token = token(&mail);

    for weak in ["short", "Password123", "s o m e  Body", "ann@marquee.example"] {
        let refused = stage.reset(&token, weak).await.problem(422, "invalid-request");
        assert_eq!(refused.body["errors"][0]["field"], "password", "{weak}");
    }
    let all = futures::future::join_all(
        (0..5).map(async |i| stage.reset(&token, &format!("row {i} by the door")).await),
    )
    .await;
    let won = all.iter().position(|a| a.status == 204).unwrap();
    assert_eq!(all.iter().filter(|a| a.status == 204).count(), 1);
    stage.reset(&token, "row 9 by the door").await.problem(422, "invalid-mail-token");
    s.get("/v1/me", &access).await.problem(401, "invalid-token");
    s.refresh(&refresh).await.problem(401, "invalid-grant");
    stage.sign_in("ann", PASSWORD).await.problem(401, "invalid-credentials");
    let password = format!("row {won} by the door");
    let access = stage.sign_in("ann", &password).await.expect(200).text("access_token");
    assert_eq!(s.get("/v1/me", &access).await.body["email_verified"], true, "the mail was read");
    stage.mails("ann@marquee.example", CHANGED, 1).await;

    // A new request is a new mail; half an hour later its token is void.
    stage.forgot("ann@marquee.example").await;
    let again = stage.mails("ann@marquee.example", RESET, 2).await;
    let late = again.iter().map(|m| self::token(m)).find(|t| *t != token).unwrap();
    let lived = "SELECT extract(epoch FROM expires_at - created_at)::float8 FROM mail_tokens
                 WHERE purpose = 'reset' AND used_at IS NULL";
    let secs: f64 = stage.sql(lived).await[0].get(0);
    assert!((1790.0..=1810.0).contains(&secs), "{secs}");
    stage.sql("UPDATE mail_tokens SET expires_at = now()").await;
    stage.reset(&late, "row 9 by the door").await.problem(422, "invalid-mail-token");

    // What lies in the database opens nothing and tells of nobody who is gone.
    stage.idle().await;
    let rows =
        stage.sql("SELECT t::text FROM mail_tokens t UNION ALL SELECT o::text FROM mail_outbox o").await;
    let dump: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
    assert!(!dump.iter().any(|row| row.contains(&late) || row.contains(&token)), "{dump:?}");
    assert!(!dump.iter().any(|row| row.contains("nobody@")), "{dump:?}");
    stage.forgot("ann@marquee.example").await;
    s.delete("/v1/me", &access).await.expect(204);
    stage.idle().await;
    let rows = stage.sql("SELECT count(*) FROM mail_tokens t WHERE t.address ILIKE 'ann%'").await;
    assert_eq!(rows[0].get::<_, i64>(0), 0);
    let lines = s.get("/v1/audit?action=user.reset_password", &root).await.expect(200);
    assert_eq!(lines.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asking_again_and_again_is_slowed_down_alike_for_everybody() {
    let stage = stage(into_folder).await;
    stage.service.sign_up("ann").await;
    let mut seen = Vec::new();
    for email in ["ann@marquee.example", "nobody@marquee.example"] {
        let mut statuses = Vec::new();
        for _ in 0..12 {
            let answer = stage.service.post("/v1/auth/password/forgot", "", json!({ "email": email })).await;
            statuses.push((answer.status.as_u16(), answer.headers.contains_key("retry-after")));
        }
        seen.push(statuses);
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!((seen[0][0], seen[0][11]), ((202, false), (429, true)));
    // The owner still signs in.
    stage.service.sign_in("ann").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_is_one_mail_also_when_its_note_was_lost() {
    let stage = stage(into_folder).await;
    stage.service.sign_up("ann").await;
    let first = stage.mails("ann@marquee.example", VERIFY, 1).await;
    stage.idle().await;
    // As after a kill between handing over and noting it, and after a mail that cannot be read by this release.
    stage
        .sql(
            "UPDATE mail_outbox SET done_at = NULL, outcome = NULL, address = 'ann@marquee.example', due_at = now()",
        )
        .await;
    stage.idle().await;
    assert_eq!(stage.mails("ann@marquee.example", VERIFY, 1).await, first);
    let metrics = stage.service.client.get(format!("http://{}/metrics", stage.service.config.ops_listen));
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    for name in ["marquee_mails_total{kind=\"verify\",result=\"sent\"}", "marquee_mail_waiting"] {
        assert!(metrics.contains(name), "{name}");
    }
}

fn free_port() -> u16 {
    common::loopback::unused_address().unwrap().port()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_smtp_server_that_was_down_gets_every_mail_once() {
    let Ok(python) = std::env::var("E2E_PYTHON") else {
        eprintln!("E2E_PYTHON names no Python with aiosmtpd: left out");
        return;
    };
    let port = free_port();
    let stage = stage(|_| MailConfig {
        smtp_url: Secret::new(format!("smtp://127.0.0.1:{port}")),
        link_url: "https://tickets.example".into(),
        ..MailConfig::default()
    })
    .await;
    let s = &stage.service;
    // Down: nobody who signs up notices.
    for name in ["ann", "bob", "refused", "later"] {
        s.sign_up(name).await;
    }
    let state = async |name: &str| {
        let sql = format!(
            "SELECT attempts, outcome FROM mail_outbox o JOIN users u ON u.id = o.user_id
             WHERE u.username = '{name}'"
        );
        let rows = stage.sql(&sql).await;
        (rows[0].get::<_, i32>(0), rows[0].get::<_, Option<String>>(1))
    };
    eventually("an attempt that failed", async || state("ann").await.0 > 0).await;
    assert_eq!(mails(stage.folder.path()), Vec::<String>::new());

    let up = Smtp::start(&python, port, stage.folder.path(), 1);
    let mail = stage.mails("ann@marquee.example", VERIFY, 1).await.remove(0);
    assert!(mail.contains("\nMessage-ID: <") || mail.starts_with("Message-ID: <"), "{mail}");
    stage.mails("bob@marquee.example", VERIFY, 1).await;
    stage.verify(&token(&mail)).await.expect(204);
    eventually("the refused one is not tried again", async || state("refused").await.1.is_some()).await;
    assert_eq!(state("refused").await.1.as_deref(), Some("refused"));
    eventually("the greylisted one is", async || state("later").await.0 > 1).await;

    // Down again in between, and up again.
    drop(up);
    stage.forgot("ann@marquee.example").await;
    stage.forgot("bob@marquee.example").await;
    let failing = "SELECT count(*) FROM mail_outbox WHERE kind = 'reset' AND attempts > 0";
    eventually("an attempt", async || stage.sql(failing).await[0].get::<_, i64>(0) > 0).await;
    let _up = Smtp::start(&python, port, stage.folder.path(), 2);
    let mail = stage.mails("ann@marquee.example", RESET, 1).await.remove(0);
    stage.mails("bob@marquee.example", RESET, 1).await;
    stage.reset(&token(&mail), "row 9 by the door").await.expect(204);
    stage.mails("ann@marquee.example", CHANGED, 1).await;

    let all = mails(stage.folder.path());
    let mut ids: Vec<&str> =
        all.iter().map(|m| m.lines().find(|l| l.starts_with("Message-ID")).unwrap()).collect();
    let sent = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), sent, "one event, one mail");
    assert_eq!(sent, 5);
}
