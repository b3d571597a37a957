//! What people are told of their orders: mails to everybody who has one, text messages to who gave a number, proved it and
//! wants them; once each, although three regions tell.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, text};
use crate::stage::{self, adults};
use crate::world::{Person, World, step, until};

/// A region brings what happened within seconds; another that keeps the journal sweeps more seldom.
const TOLD: Duration = Duration::from_secs(30);

const PAID: &str = "Your tickets";
const RESCHEDULED: &str = "Your show has another time";
const CANCELED: &str = "Your show was canceled";

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    let show = stage::new_show(world, "us", 3, 5).await;
    let (person, other) = (world.customer("eu").await, world.customer("ap").await);
    let number = proved_number(world, &person).await;

    step("who buys is mailed, once for each booking; who gave a number hears it there too");
    let (first, _) = stage::buy(&person.client, &show.id, &["A1", "A2"]).await;
    let (second, _) = stage::buy(&person.client, &show.id, &["B1"]).await;
    let (others, _) = stage::buy(&other.client, &show.id, &["A3"]).await;
    let guest = format!("{}@example.org", world.fresh("walk-in"));
    let guests = paid_at_the_desk(world, &show.id, "C1", &guest).await;
    let [own, their] = [&person, &other].map(|who| format!("{}@example.org", who.username));
    let tickets = mails(world, &own, PAID, 2).await;
    for (reservation, seats) in [(&first, "A1 A2"), (&second, "B1")] {
        let mail = one_of(&tickets, reservation);
        assert!(mail.contains(&format!("Seats: {seats}\n")), "{mail}");
        follow_the_link(world, mail, reservation).await;
    }
    one_of(&mails(world, &their, PAID, 1).await, &others);
    let told = mails(world, &guest, PAID, 1).await;
    assert!(!one_of(&told, &guests).contains("/account/"), "who has no account cannot sign in: {told:?}");
    let said = messages(world, &number, "Paid: ", 2).await;
    assert!(
        said.iter().any(|m| m.contains("Paid: A1 A2.") && m.contains(&text(&first, "reference"))),
        "{said:?}"
    );

    step("another time of the show is told to each who has tickets, with the old one");
    let manager = world.staff("manager", Some("us")).await;
    let path = format!("/v1/shows/{}", show.id);
    let before = manager.get(&path).await.ok(200);
    manager.call(Method::PATCH, &path).json(json!({"starts_at": stage::in_hours(50)})).await.ok(200);
    let after = manager.get(&path).await.ok(200);
    let [before, after] = [&before, &after].map(|show| text(show, "starts_at_local")[..16].replace('T', " "));
    for (address, count) in [(&own, 2), (&their, 1), (&guest, 1)] {
        for mail in mails(world, address, RESCHEDULED, count).await {
            assert!(
                mail.contains(&format!("(it was {before})")) && mail.contains(&format!("\n{after}\n")),
                "{mail}"
            );
        }
    }
    let said = messages(world, &number, "new time: ", 2).await;
    assert!(said.iter().all(|m| m.contains(&after) && m.contains(&format!("not {before}"))), "{said:?}");

    step("the show is called off; who has gone meanwhile is told nothing");
    assert_eq!(other.client.call(Method::DELETE, "/v1/me").await.code(), 204);
    manager.post_once(&format!("{path}/cancel"), json!({"reason": "flood"})).await.ok(200);
    let canceled = mails(world, &own, CANCELED, 2).await;
    one_of(&canceled, &first);
    one_of(&canceled, &second);
    mails(world, &guest, CANCELED, 1).await;
    messages(world, &number, "canceled by the cinema", 2).await;

    step("all three regions have told all that they know, and everything was sent once");
    until("regions that have told all", TOLD, async || all_told(world, &show.id).await.then_some(())).await;
    for (address, counts) in [(&own, [2, 2, 2]), (&their, [1, 1, 0]), (&guest, [1, 1, 1])] {
        let seen = [PAID, RESCHEDULED, CANCELED].map(|subject| sent_to(world, address, subject).len());
        assert_eq!(seen, counts, "{address}");
    }
    let said = messages_to(world, &number);
    assert_eq!(said.iter().filter(|m| !m.contains("is the code")).count(), 6, "{said:?}");
}

/// A number that the person gave, and proved with the code that went there.
async fn proved_number(world: &World, person: &Person) -> String {
    let number = format!("+4930{:08}", rand::random_range(0..100_000_000_u32));
    let wish = json!({"phone": number, "sms": true});
    let given = person.client.call(Method::PATCH, "/v1/me").json(wish).await.ok(200);
    assert_eq!(given["phone_verified"], false, "{given}");
    let said = messages(world, &number, "is the code for your phone number", 1).await;
    let code =
        said[0].split_whitespace().find(|word| word.len() == 6 && word.parse::<u32>().is_ok()).unwrap();
    let proof = json!({"code": code});
    assert_eq!(person.client.post("/v1/me/phone/verify", proof).await.code(), 204);
    number
}

/// Staff sell to somebody without an account.
async fn paid_at_the_desk(world: &World, show: &str, seat: &str, contact: &str) -> Value {
    let desk: Client = world.staff("employee", Some("us")).await;
    let mut body = adults(&[seat]);
    body["contact_email"] = contact.into();
    let held = desk.post_once(&format!("/v1/shows/{show}/reservations"), body).await.ok(201);
    let pay = format!("/v1/reservations/{}/payments", text(&held, "id"));
    assert_eq!(desk.post_once(&pay, json!({"method": "cash"})).await.ok(201)["status"], "completed");
    held
}

fn one_of<'a>(mails: &'a [String], reservation: &Value) -> &'a str {
    let reference = text(reservation, "reference");
    let mut found = mails.iter().filter(|mail| mail.contains(&reference));
    let mail = found.next().unwrap_or_else(|| panic!("nothing of {reference} in {mails:?}"));
    assert!(found.next().is_none(), "{reference} twice in {mails:?}");
    mail
}

async fn follow_the_link(world: &World, mail: &str, reservation: &Value) {
    let link = mail.lines().find(|line| line.contains("/account/tickets?")).unwrap();
    assert!(link.ends_with(&format!("?reservation={}", text(reservation, "id"))), "{link}");
    let (base, _) = link.split_once("/account/").unwrap();
    let page = world.gateway("eu").at(base).get(link.strip_prefix(base).unwrap()).await;
    assert_eq!((page.code(), page.header("cache-control")), (200, "no-store"), "{page}");
    assert!(page.header("content-type").starts_with("text/html"));
}

/// Until so many mails came to an address; lines that their encoding broke are whole again.
async fn mails(world: &World, address: &str, subject: &str, count: usize) -> Vec<String> {
    until(&format!("{count} × “{subject}” to {address}"), TOLD, async || {
        Some(sent_to(world, address, subject)).filter(|mails| mails.len() >= count)
    })
    .await
}

fn sent_to(world: &World, address: &str, subject: &str) -> Vec<String> {
    let files = std::fs::read_dir(world.data.join("mail")).into_iter().flatten().flatten();
    let mails = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let mails = mails.map(|mail| mail.replace("\r\n", "\n").replace("=\n", "").replace("=3D", "="));
    let wanted = [format!("To: {address}\n"), format!("Subject: {subject}\n")];
    mails.filter(|mail| wanted.iter().all(|line| mail.contains(line.as_str()))).collect()
}

/// Until so many messages that say this came to a number.
async fn messages(world: &World, number: &str, part: &str, count: usize) -> Vec<String> {
    until(&format!("{count} × “{part}” to {number}"), TOLD, async || {
        let said =
            messages_to(world, number).into_iter().filter(|text| text.contains(part)).collect::<Vec<_>>();
        Some(said).filter(|said| said.len() >= count)
    })
    .await
}

fn messages_to(world: &World, number: &str) -> Vec<String> {
    let files = std::fs::read_dir(world.data.join("sms")).into_iter().flatten().flatten();
    let sent = files.filter_map(|file| serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok());
    let to = sent.filter(|message: &Value| message["to"] == number && message["from"] == "Marquee");
    to.map(|message| text(&message, "text")).collect()
}

/// Whether every region has folded in all of the show, and brought all that there was to tell.
async fn all_told(world: &World, show: &str) -> bool {
    let id: common::ShowId = show.parse().unwrap();
    let select = "SELECT (SELECT count(*) FROM notice_outbox) + (
                      SELECT count(*) FROM show_head h LEFT JOIN projected p USING (show_id)
                       WHERE h.show_id = $1 AND h.committed > coalesce(p.seq, 0))";
    for (place, url) in &world.run().postgres {
        if place == "global" {
            continue;
        }
        let db = migrations::pool(url, 1).unwrap().get().await.unwrap();
        if db.query_one(select, &[&id.0]).await.unwrap().get::<_, i64>(0) > 0 {
            return false;
        }
    }
    true
}
