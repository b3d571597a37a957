//! Mails about orders: who gets which of what regions tell, once each, and who gets none.
//!
//! The SMTP test runs when `E2E_PYTHON` names a Python that has aiosmtpd; `scripts/test` sees to both.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::path::Path;

use common::config::{Config as _, Secret};
use common::proto::notices::notices_client::NoticesClient;
use common::proto::notices::{Notice, TellRequest};
use common::{ReservationId, ShowId, UserId};
use global::MailConfig;
use jiff::{SignedDuration, Timestamp};
use migrations::Schema;
use migrations::testing::TestPostgres;
use serde_json::json;
use support::mails::{Smtp, mails, to};
use support::{Service, config, eventually};

const PAID: &str = "Your tickets";
const CANCELED: &str = "Your show was canceled";
const RESCHEDULED: &str = "Your show has another time";

struct Stage {
    postgres: TestPostgres,
    service: Service,
    folder: tempfile::TempDir,
}

async fn stage(mail: impl FnOnce(&Path) -> MailConfig) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let postgres = TestPostgres::start();
    let url = postgres.migrated("global", Schema::Global).await;
    let mail = MailConfig { link_url: "https://tickets.example".into(), ..mail(folder.path()) };
    let config = global::Config { mail, ..config(&url) };
    assert_eq!(config.problems(), Vec::<String>::new());
    Stage { postgres, service: Service::start(config).await, folder }
}

fn into_folder(folder: &Path) -> MailConfig {
    MailConfig { folder: folder.display().to_string(), ..MailConfig::default() }
}

fn notice(user: &str, kind: &str, reference: &str) -> Notice {
    let show = ShowId::new(&"eu".parse().unwrap());
    Notice {
        id: uuid::Uuid::now_v7().to_string(),
        at_micros: Timestamp::now().as_microsecond(),
        user_id: user.into(),
        kind: kind.into(),
        reservation_id: ReservationId::new(show, Timestamp::now(), rand::random()).to_string(),
        reference: reference.into(),
        title: "Am\u{e9}lie".into(),
        starts_at_local: "2027-03-01T20:15:00+01:00".into(),
        was_starts_at_local: "2027-02-28T18:00:00+01:00".into(),
        cinema: "Lichtburg".into(),
        seats: vec!["A1".into(), "A2".into()],
        ..Notice::default()
    }
}

impl Stage {
    async fn tell(&self, teller: &str, notices: &[Notice]) {
        let url = format!("http://{}", self.service.config.grpc_listen);
        let mut client = NoticesClient::connect(url).await.unwrap();
        client.tell(TellRequest { teller: teller.into(), notices: notices.to_vec() }).await.unwrap();
    }

    /// About orders, to this address; lines that the encoding broke are whole again.
    fn to(&self, address: &str) -> Vec<String> {
        let all = mails(self.folder.path());
        let about = [PAID, CANCELED, RESCHEDULED].map(|subject| to(&all, address, subject));
        about.into_iter().flatten().map(|mail| mail.replace("=\n", "")).collect()
    }

    async fn sql(&self, sql: &str) -> Vec<tokio_postgres::Row> {
        let pool = migrations::pool(&self.postgres.url("global"), 1).unwrap();
        pool.get().await.unwrap().query(sql, &[]).await.unwrap()
    }

    /// Until everything in the outbox is done.
    async fn idle(&self) {
        let waits = "SELECT count(*) FROM mail_outbox WHERE done_at IS NULL";
        eventually("an idle outbox", async || self.sql(waits).await[0].get::<_, i64>(0) == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_of_an_order_is_one_mail_to_whoever_has_it() {
    let stage = stage(into_folder).await;
    let s = &stage.service;
    let root = s.token("root").await;
    let (ann, gone, off) = (s.sign_up("ann").await, s.sign_up("gone").await, s.sign_up("off").await);
    s.delete("/v1/me", &s.token("gone").await).await.expect(204);
    s.post(&format!("/v1/users/{off}/disable"), &root, json!({})).await.expect(200);
    let guest =
        |address: &str| Notice { address: address.into(), ..notice("", "order_confirmed", "GUEST234") };
    let told = [
        notice(&ann, "order_confirmed", "FIRST234"),
        notice(&ann, "order_confirmed", "OTHER234"),
        notice(&ann, "show_rescheduled", "FIRST234"),
        notice(&ann, "show_canceled", "OTHER234"),
        guest("guest@marquee.example"),
    ];
    let old = (Timestamp::now() - SignedDuration::from_hours(73)).as_microsecond();
    let nothing = [
        notice(&gone, "show_canceled", "GONE2345"),
        notice(&off, "order_confirmed", "DISABLED"),
        notice(&UserId::new().to_string(), "order_confirmed", "UNKNOWN2"),
        notice(&ann, "lottery_won", "LOTTERY2"),
        Notice { at_micros: old, ..notice(&ann, "order_confirmed", "OLDNEWS2") },
        guest("guest@marquee.example, second@marquee.example"),
    ];
    // By each region that keeps the journal, one of them twice.
    for region in ["eu", "us", "ap", "us"] {
        stage.tell(region, &told).await;
        stage.tell(region, &nothing).await;
    }
    stage.idle().await;
    let anns = stage.to("ann@marquee.example");
    assert_eq!(anns.len(), 4, "{anns:?}");
    let one = |subject: &str, reference: &str| {
        let of: Vec<_> = anns
            .iter()
            .filter(|m| m.contains(&format!("Subject: {subject}\n")) && m.contains(reference))
            .collect();
        assert_eq!(of.len(), 1, "{subject} {reference}: {anns:?}");
        of[0].clone()
    };
    let first = one(PAID, "FIRST234");
    for fact in ["Am=C3=A9lie", "2027-03-01 20:15", "Lichtburg", "Seats: A1 A2"] {
        assert!(first.contains(fact), "{fact} in {first}");
    }
    // Encoded, for the sake of the title.
    let link = format!("https://tickets.example/account/tickets?reservation=3D{}\n", told[0].reservation_id);
    assert!(first.contains(&link), "{first}");
    one(PAID, "OTHER234");
    assert!(one(RESCHEDULED, "FIRST234").contains("it was 2027-02-28 18:00"));
    assert!(one(CANCELED, "OTHER234").contains("goes back"));
    let guests = stage.to("guest@marquee.example");
    assert!(guests.len() == 1 && guests[0].contains("GUEST234") && !guests[0].contains("http"), "{guests:?}");
    let all = mails(stage.folder.path()).join("\n");
    for reference in ["GONE2345", "DISABLED", "UNKNOWN2", "LOTTERY2", "OLDNEWS2"] {
        assert!(!all.contains(reference), "{reference}");
    }

    // What was sent is forgotten, but that it was.
    stage.tell("eu", &told).await;
    let kept =
        stage.sql("SELECT count(*) FROM mail_outbox WHERE address IS NOT NULL OR text IS NOT NULL").await;
    assert_eq!(kept[0].get::<_, i64>(0), 0);
    assert_eq!(stage.to("ann@marquee.example").len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_smtp_server_that_was_down_gets_each_and_those_who_went_meanwhile_get_none() {
    let Ok(python) = std::env::var("E2E_PYTHON") else {
        eprintln!("E2E_PYTHON names no Python with aiosmtpd: left out");
        return;
    };
    let port = common::loopback::unused_address().unwrap().port();
    let smtp_url = Secret::new(format!("smtp://127.0.0.1:{port}"));
    let stage = stage(|_| MailConfig { smtp_url, ..MailConfig::default() }).await;
    let s = &stage.service;
    let (ann, gone) = (s.sign_up("ann").await, s.sign_up("gone").await);
    let guest =
        Notice { address: "guest@marquee.example".into(), ..notice("", "show_rescheduled", "GUEST234") };
    stage.tell("eu", &[notice(&ann, "order_confirmed", "FIRST234"), guest.clone()]).await;
    stage.tell("us", &[notice(&gone, "order_confirmed", "GONE2345"), guest]).await;
    let tried = "SELECT count(*) FROM mail_outbox WHERE kind = 'order_confirmed' AND attempts > 0";
    eventually("an attempt that failed", async || stage.sql(tried).await[0].get::<_, i64>(0) > 0).await;
    let token = s.token("ann").await;
    s.delete("/v1/me", &s.token("gone").await).await.expect(204);
    // The address that the account has when the mail can be sent.
    s.patch("/v1/me", &token, json!({"email": "ann@new.example"})).await.expect(200);
    stage.sql("UPDATE mail_outbox SET due_at = now() WHERE done_at IS NULL").await;

    let _up = Smtp::start(&python, port, stage.folder.path(), 1);
    stage.idle().await;
    let (anns, guests) = (stage.to("ann@new.example"), stage.to("guest@marquee.example"));
    assert_eq!((anns.len(), guests.len()), (1, 1), "{anns:?} {guests:?}");
    assert!(anns[0].contains("Am=C3=A9lie") && guests[0].contains("2027-02-28 18:00"));
    let id = anns[0].lines().find(|line| line.starts_with("Message-ID: <")).unwrap();
    assert_eq!(mails(stage.folder.path()).iter().filter(|m| m.contains(id)).count(), 1);
    assert!(stage.to("ann@marquee.example").is_empty() && stage.to("gone@marquee.example").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rush_of_orders_holds_up_no_forgotten_password() {
    let stage = stage(into_folder).await;
    let ann = stage.service.sign_up("ann").await;
    stage.idle().await;
    let rush: Vec<Notice> = (0..1_000).map(|_| notice(&ann, "order_confirmed", "RUSH2345")).collect();
    for _ in 0..5 {
        let rush: Vec<_> =
            rush.iter().map(|n| Notice { id: uuid::Uuid::now_v7().to_string(), ..n.clone() }).collect();
        stage.tell("eu", &rush).await;
    }
    let forgot = json!({"email": "ann@marquee.example"});
    stage.service.post("/v1/auth/password/forgot", "", forgot).await.expect(202);
    let reset = "Choose a new password";
    eventually("the reset", async || {
        to(&mails(stage.folder.path()), "ann@marquee.example", reset).len() == 1
    })
    .await;
    let left =
        stage.sql("SELECT count(*) FROM mail_outbox WHERE done_at IS NULL AND channel = 'order'").await;
    assert!(left[0].get::<_, i64>(0) > 0, "all orders were told first, so this shows nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_mail_is_sent_nothing_piles_up() {
    let (postgres, service) = support::start().await;
    let ann = service.sign_up("ann").await;
    let url = format!("http://{}", service.config.grpc_listen);
    let mut client = NoticesClient::connect(url).await.unwrap();
    let notices = vec![notice(&ann, "order_confirmed", "FIRST234")];
    client.tell(TellRequest { teller: "eu".into(), notices }).await.unwrap();
    let pool = migrations::pool(&postgres.url("global"), 1).unwrap();
    let select = "SELECT count(*) FROM mail_outbox WHERE kind = 'order_confirmed'";
    let count: i64 = pool.get().await.unwrap().query_one(select, &[]).await.unwrap().get(0);
    assert_eq!(count, 0);
}
