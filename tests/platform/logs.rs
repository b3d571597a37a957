//! Whatever is sent, and whatever comes of it: bodies, passwords, tokens, keys and addresses are in no log of
//! any process, at the level `debug`, the libraries' own lines included.
//!
//! A platform of its own, started as a user would, since the level is set at its start.

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::client::{Client, list, text};
use crate::stage;
use crate::world::{RunFile, step, until};

/// Something that must not be in a log, and what it is.
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    /// A value of so many letters that nobody else has.
    fn draw(&mut self, what: &'static str) -> String {
        let value = format!("zq{:016x}", rand::random::<u64>());
        self.keep(what, &value);
        value
    }

    fn keep(&mut self, what: &'static str, value: &str) {
        assert!(value.len() >= 8, "too short to look for: {what}");
        self.0.push((what, value.to_owned()));
    }
}

pub async fn walk(data: &Path) {
    let mut platform = tokio::process::Command::new(env!("CARGO_BIN_EXE_marquee"))
        .args(["up", "--regions", "solo", "--empty", "--data"])
        .arg(data)
        .env("RUST_LOG", "debug")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let run: RunFile = until("the platform", Duration::from_secs(60), async || {
        serde_json::from_slice(&std::fs::read(data.join("run.json")).ok()?).ok()
    })
    .await;
    let mut secrets = Secrets(Vec::new());
    let gateway = Client::new(reqwest::Client::new(), &run.gateways["solo"]);
    until("the gateway", Duration::from_secs(30), async || {
        (gateway.get("/v1/regions").attempt().await.ok()?.code() == 200).then_some(())
    })
    .await;
    let admin = &run.accounts[0];
    secrets.keep("the admin's password", &admin.password);
    let admin = signs_in(&gateway, &admin.username, &admin.password, &mut secrets).await;
    let customer = accounts(&gateway, data, &mut secrets).await;
    sells(&admin, &customer, &mut secrets).await;
    refused(&gateway, &admin, &mut secrets).await;

    let pid = Pid::from_raw(platform.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), platform.wait()).await;
    assert!(ended.expect("it stops").unwrap().success());
    look(&data.join("logs"), &secrets);
}

async fn signs_in(gateway: &Client, name: &str, password: &str, secrets: &mut Secrets) -> Client {
    let body = json!({"grant_type": "password", "username": name, "password": password});
    let tokens = gateway.post("/v1/auth/token", body).await.ok(200);
    let access = text(&tokens, "access_token");
    // By its signature: a part of it is as bad as the whole.
    secrets.keep("an access token", access.rsplit('.').next().unwrap());
    secrets.keep("a refresh token", &text(&tokens, "refresh_token"));
    gateway.bearing(&access)
}

async fn accounts(gateway: &Client, data: &Path, secrets: &mut Secrets) -> Client {
    step("signing up and in, forgetting a password, setting another");
    let (username, password) = (secrets.draw("a username"), secrets.draw("a password"));
    let email = format!("{}@example.org", secrets.draw("an address"));
    let body =
        json!({"email": email, "username": username, "password": password, "name": secrets.draw("a name")});
    gateway.post("/v1/auth/signup", body.clone()).await.ok(201);
    gateway.post("/v1/auth/signup", body).await.problem(409, "email-taken");
    let wrong =
        json!({"grant_type": "password", "username": username, "password": secrets.draw("a wrong password")});
    assert_eq!(gateway.post("/v1/auth/token", wrong).await.code(), 401);
    let customer = signs_in(gateway, &username, &password, secrets).await;

    let number = format!("+4930{:08}", rand::random_range(0..100_000_000_u32));
    secrets.keep("a phone number", number.trim_start_matches('+'));
    let wish = json!({"phone": number, "sms": true});
    customer.call(Method::PATCH, "/v1/me").json(wish).await.ok(200);
    customer.call(Method::PATCH, "/v1/me").json(json!({"phone": format!("{number}x")})).await.any_problem();

    let body = json!({"email": email});
    assert_eq!(gateway.post("/v1/auth/password/forgot", body).await.code(), 202);
    let mail = until("the mail", Duration::from_secs(20), async || {
        let files = std::fs::read_dir(data.join("mail")).ok()?;
        let mails = files.flatten().flat_map(|file| std::fs::read_to_string(file.path()));
        mails.into_iter().find(|mail| mail.contains(&email) && mail.contains("/account/reset?token="))
    })
    .await;
    let token = mail.split("/account/reset?token=").nth(1).unwrap().split_whitespace().next().unwrap();
    secrets.keep("a token in a mail", token);
    gateway.get(&format!("/account/reset?token={token}")).await;
    let new = secrets.draw("a new password");
    let reset = gateway.post("/v1/auth/password/reset", json!({"token": token, "password": new})).await;
    assert!(reset.status.is_success(), "{reset}");
    drop(customer);
    signs_in(gateway, &username, &new, secrets).await
}

async fn sells(admin: &Client, customer: &Client, secrets: &mut Secrets) {
    step("a film, a cinema, a show; seats reserved, paid, checked in, canceled");
    let film = json!({"title": secrets.draw("a film's title"), "runtime_min": 95});
    let movie = text(&admin.post_once("/v1/movies", film).await.ok(201), "id");
    until("the film", Duration::from_secs(20), async || {
        (admin.get(&format!("/v1/movies/{movie}")).await.code() == 200).then_some(())
    })
    .await;
    let cinema = stage::new_cinema(admin, "solo", &secrets.draw("a cinema's name")).await;
    let hall = stage::new_hall(admin, &cinema, 2, 5).await;
    let show =
        admin.post_once("/v1/shows", stage::show_body(&hall, &movie, &stage::in_hours(48))).await.ok(201);
    let show = text(&show, "id");

    let mut body = stage::adults(&["A1"]);
    body["contact_email"] = format!("{}@example.org", secrets.draw("a guest's address")).into();
    let (path, key) = (format!("/v1/shows/{show}/reservations"), secrets.draw("an idempotency key"));
    let held = customer.post(&path, body.clone()).key(&key).await.ok(201);
    customer.post(&path, body).key(&key).await.ok(201);
    let pays = format!("/v1/reservations/{}/payments", text(&held, "id"));
    let card = json!({"method": "card", "token": secrets.draw("a card's token")});
    let refused = customer.post_once(&pays, card).await;
    assert!(refused.status.as_u16() >= 400 || refused.json()["status"] != "completed", "{refused}");
    let (paid, _) = stage::buy(customer, &show, &["B1"]).await;
    let ticket = text(&list(&paid, "tickets")[0], "id");
    let code = text(&customer.get(&format!("/v1/tickets/{ticket}")).await.ok(200), "token");
    secrets.keep("a ticket", code.rsplit('.').next().unwrap());
    let scans = format!("/v1/shows/{show}/check-ins");
    for ticket in [code, secrets.draw("what is no ticket")] {
        admin.post_once(&scans, json!({"ticket": ticket, "nonce": secrets.draw("a scanner's nonce")})).await;
    }
    let cancels = format!("/v1/reservations/{}/cancel", text(&held, "id"));
    customer.post(&cancels, json!({})).await;
}

async fn refused(gateway: &Client, admin: &Client, secrets: &mut Secrets) {
    step("everything that is refused");
    for path in ["/v1/me", "/v1/users", "/v1/reservations", "/v1/cinemas"] {
        let bad = format!("Bearer {}", secrets.draw("a bad token"));
        gateway.get(path).header("authorization", &bad).await;
        let basic = format!("Basic {}", secrets.draw("a basic credential"));
        gateway.get(path).header("authorization", &basic).header("cookie", &secrets.draw("a cookie")).await;
        gateway.get(&format!("{path}?access_token={}", secrets.draw("a query"))).await;
        gateway.get(&format!("{path}/{}", secrets.draw("a path"))).await;
        let odd = format!("{{\"name\": \"{}\", ", secrets.draw("a broken body"));
        admin.call(Method::POST, path).raw("application/json", odd.into_bytes()).await;
        let unknown: Value =
            [(secrets.draw("an unknown field"), json!(secrets.draw("its value")))].into_iter().collect();
        admin.call(Method::POST, path).json(unknown).key(&secrets.draw("a key")).await;
        admin.call(Method::POST, path).raw("text/plain", secrets.draw("a text").into_bytes()).await;
    }
    for (path, field) in [
        ("/v1/auth/email/verify", "token"),
        ("/v1/auth/password/reset", "token"),
        ("/v1/auth/password/forgot", "email"),
    ] {
        gateway
            .post(
                path,
                json!({field: secrets.draw("a stranger's"), "password": secrets.draw("another password")}),
            )
            .await;
    }
    let refresh =
        json!({"grant_type": "refresh_token", "refresh_token": secrets.draw("a bad refresh token")});
    gateway.post("/v1/auth/token", refresh).await;
    let lines = format!("{{\"title\": \"{}\"\n", secrets.draw("an import"));
    admin.call(Method::POST, "/v1/movies/import").raw("application/x-ndjson", lines.into_bytes()).await;
}

fn look(logs: &Path, secrets: &Secrets) {
    let (mut found, mut at_debug) = (Vec::new(), 0);
    for file in std::fs::read_dir(logs).unwrap().map(|file| file.unwrap().path()) {
        let log = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        at_debug += usize::from(log.contains("\"level\":\"DEBUG\""));
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for (what, secret) in &secrets.0 {
            if let Some(line) = log.lines().find(|line| line.contains(secret.as_str())) {
                found.push(format!("{what} in {name}: {line}"));
            }
        }
    }
    assert!(at_debug >= 4, "the services log at debug");
    assert!(secrets.0.len() > 40);
    assert!(found.is_empty(), "{} were logged:\n{}", found.len(), found.join("\n"));
}
