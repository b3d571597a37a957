//! A person deletes the account: what names the person is in no database any more, in a region neither that was
//! down at that moment, and the books are as they were.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, list, text};
use crate::stage::{self, adults};
use crate::world::{Person, World, kill, start, step, until};

/// "Within a few seconds."
const FORGOTTEN: Duration = Duration::from_secs(5);
/// A region that was killed answers again within this.
const BACK: Duration = Duration::from_secs(60);

/// Everything of the person that is nobody else's.
struct Traces {
    name: String,
    username: String,
    email: String,
    /// Given with a reservation; another than the account's.
    contact: String,
}

impl Traces {
    fn all(&self) -> [&str; 4] {
        [&self.name, &self.username, &self.email, &self.contact].map(|trace| trace.split('@').next().unwrap())
    }
}

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    let (person, traces) = signed_up(world).await;
    let (at_eu, at_us) = (stage::new_show(world, "eu", 3, 6).await, stage::new_show(world, "us", 2, 4).await);
    let manager = world.staff("manager", Some("eu")).await;

    step("seats reserved with an address, paid, canceled; the owner and the staff read it");
    let paid = reserve(&person.client, &at_eu.id, "A1", &traces.contact).await;
    let id = text(&paid, "id");
    stage::pay(&person.client, &paid, "tok_ok").await.ok(201);
    let canceled = reserve(&person.client, &at_us.id, "A1", &traces.contact).await;
    let cancel = format!("/v1/reservations/{}/cancel", text(&canceled, "id"));
    assert_eq!(person.client.post_once(&cancel, json!({})).await.ok(200)["contact_email"], traces.contact);
    for reader in [&person.client, &manager] {
        assert_eq!(stage::reservation_now(reader, &id).await["contact_email"], traces.contact);
    }
    assert_eq!(listed(&person.client, "/v1/reservations", &id).await["contact_email"], traces.contact);
    let of_show = format!("/v1/shows/{}/reservations", at_eu.id);
    assert_eq!(listed(&manager, &of_show, &id).await["contact_email"], traces.contact);
    guests(world, &at_eu.id, &manager).await;

    step("in every database the account's traces are where they belong, and no contact is anywhere");
    let (others, own): (Vec<String>, Vec<String>) =
        found(world, &traces.all()).await.into_iter().partition(|place| !place.starts_with("global: "));
    assert_eq!(others, Vec::<String>::new());
    assert!(
        own.iter().any(|place| place.starts_with("global: users: ")),
        "the search finds nothing: {own:?}"
    );
    let reference = text(&paid, "reference");
    let journaled = found(world, &[&reference]).await;
    assert!(journaled.iter().any(|place| place.contains("show_journal")), "nor in journals: {journaled:?}");

    let before = books(&person.client, &manager, &at_eu.id, &id).await;
    step("eu is killed whole; the account is deleted while a reservation is on its way; eu comes back");
    kill(world, "eu", None).await;
    let mut body = adults(&["A2"]);
    body["contact_email"] = traces.contact.as_str().into();
    let us = person.client.at(world.gateway("us").base());
    let late = us.post_once(&format!("/v1/shows/{}/reservations", at_us.id), body);
    let deleted = us.call(Method::DELETE, "/v1/me");
    let (late, deleted) = tokio::join!(late.attempt(), async { deleted.await });
    assert_eq!(deleted.code(), 204, "{deleted}");
    // Before the deletion or after it.
    let late = late.unwrap();
    assert!([201, 401].contains(&late.code()), "{late}");
    start(world, "eu", None).await;

    step("nothing that names the person is left anywhere");
    until("a platform that has forgotten", FORGOTTEN, async || {
        let found = found(world, &traces.all()).await;
        if !found.is_empty() {
            step(&format!("still there: {found:?}"));
        }
        found.is_empty().then_some(())
    })
    .await;

    step("the books are whole, and nobody reads the address any more");
    let manager = world.staff("manager", Some("eu")).await;
    let shown = until("eu answering", BACK, async || {
        let answer = manager.get(&format!("/v1/reservations/{id}")).attempt().await.ok()?;
        (answer.code() == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(
        (&shown["contact_email"], &shown["customer_id"]),
        (&Value::Null, &json!(person.id)),
        "{shown}"
    );
    assert_eq!(listed(&manager, &of_show, &id).await["contact_email"], Value::Null);
    assert_eq!(books(&manager, &manager, &at_eu.id, &id).await, before);
    let back = manager.post_once(&format!("/v1/reservations/{id}/cancel"), json!({})).await.ok(200);
    assert_eq!(back["quote"]["refund"]["amount"], stage::ADULT, "{back}");
    let refunded = async || {
        let payments = stage::payments_of(&manager, &id).await;
        (payments[0]["status"] == "refunded").then_some(())
    };
    until("the money back", Duration::from_secs(20), refunded).await;
}

async fn signed_up(world: &World) -> (Person, Traces) {
    let drawn = |what: &str| format!("zq{what}{:012x}", rand::random::<u64>() >> 16);
    let (username, password) = (drawn("user"), world.fresh("a film a day, "));
    let traces = Traces {
        name: drawn("Name"),
        email: format!("{}@example.org", drawn("mail")),
        contact: format!("{}@example.org", drawn("Contact")),
        username: username.clone(),
    };
    let body =
        json!({"email": traces.email, "username": username, "name": traces.name, "password": password});
    let user = world.gateway("us").post("/v1/auth/signup", body).await.ok(201);
    let client = world.sign_in("us", &username, &password).await;
    // A mail that may still be waiting is forgotten, too.
    let forgot = json!({"email": traces.email});
    assert_eq!(world.gateway("us").post("/v1/auth/password/forgot", forgot).await.code(), 202);
    (Person { id: text(&user, "id"), username, password, client }, traces)
}

async fn reserve(client: &Client, show: &str, seat: &str, contact: &str) -> Value {
    let mut body = adults(&[seat]);
    body["contact_email"] = contact.into();
    let call = client.post_once(&format!("/v1/shows/{show}/reservations"), body);
    let reservation = call.clone().await.ok(201);
    assert_eq!(reservation["contact_email"], contact, "{reservation}");
    let again = call.await;
    assert_eq!(again.header("idempotent-replayed"), "true", "{again}");
    assert_eq!(again.ok(201)["contact_email"], contact);
    reservation
}

/// Staff reserve for somebody without an account, whose address no other staff is kept from.
async fn guests(world: &World, show: &str, manager: &Client) {
    let contact = format!("{}@example.org", world.fresh("Walk-in"));
    let employee = world.staff("employee", Some("eu")).await;
    let held = reserve(&employee, show, "B1", &contact).await;
    assert_eq!(held["customer_id"], Value::Null, "{held}");
    assert_eq!(stage::reservation_now(manager, &text(&held, "id")).await["contact_email"], contact);
    assert_eq!(found(world, &[contact.split('@').next().unwrap()]).await, Vec::<String>::new());
}

async fn listed(client: &Client, path: &str, id: &str) -> Value {
    let page = client.get(path).header("cache-control", "no-cache").await.ok(200);
    let found = list(&page, "items").into_iter().find(|item| item["id"] == id);
    found.unwrap_or_else(|| panic!("{id} is not in {page}"))
}

/// What money and seats there are: the reservation, its payments, the seats.
async fn books(client: &Client, staff: &Client, show: &str, id: &str) -> Value {
    let mut reservation = stage::reservation_now(client, id).await;
    reservation.as_object_mut().unwrap().remove("contact_email");
    json!([reservation, stage::payments_of(client, id).await, stage::seat_counts(staff, show).await])
}

/// Where any of these stands: each table of each database, each key of each Redis. Bytes are searched, too.
async fn found(world: &World, traces: &[&str]) -> Vec<String> {
    let run = world.run();
    let mut places = Vec::new();
    for (place, url) in &run.postgres {
        let pool = migrations::pool(url, 1).unwrap();
        let db = pool.get().await.unwrap();
        let select = "SELECT format('%I', relname) FROM pg_class
                       WHERE relkind IN ('r', 'm') AND relnamespace = 'public'::regnamespace";
        for table in db.query(select, &[]).await.unwrap() {
            let table: &str = table.get(0);
            for trace in traces {
                let patterns =
                    [trace.to_string(), HEXLOWER.encode(trace.as_bytes())].map(|p| format!("%{p}%"));
                let count = format!("SELECT count(*) FROM {table} t WHERE t::text ILIKE ANY($1)");
                let rows: i64 = db.query_one(&count, &[&patterns.as_slice()]).await.unwrap().get(0);
                if rows > 0 {
                    places.push(format!("{place}: {table}: {trace}, {rows} rows"));
                }
            }
        }
    }
    for (place, url) in &run.redis {
        let redis = redis::Client::open(url.as_str()).unwrap();
        let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
        for key in keys {
            let value: Option<Vec<u8>> = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.unwrap();
            for bytes in [Some(&key), value.as_ref()].into_iter().flatten() {
                let text = String::from_utf8_lossy(bytes).to_lowercase();
                let trace = traces.iter().find(|trace| text.contains(&trace.to_lowercase()));
                places.extend(trace.map(|trace| format!("{place}: redis: {trace}")));
            }
        }
    }
    places
}
