//! Every documented route, called by nobody and by every role: the table of status codes is a reviewed
//! snapshot. A route that is not in it, or an outcome that changed, fails.
//!
//! Bodies are `{}`, so that who is allowed is told what is missing (4xx) and nothing changes; but where that
//! would hide who is allowed, they are good. Calls that succeed get something of their own to work on.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, fresh_key, list, text};
use crate::stage::{self, Show};
use crate::world::{World, step};

const REGION: &str = "eu";
const OTHER: &str = "us";

/// A role and its region; nobody has none.
type Role = Option<(&'static str, Option<&'static str>)>;

/// Column and role.
const CALLERS: [(&str, Role); 8] = [
    ("nobody", None),
    ("customer", Some(("customer", None))),
    ("owner", Some(("owner", None))),
    ("employee-us", Some(("employee", Some(OTHER)))),
    ("employee", Some(("employee", Some(REGION)))),
    ("manager", Some(("manager", Some(REGION)))),
    ("operator", Some(("operator", None))),
    ("admin", Some(("admin", None))),
];

const HEAD: &str = "\
# Every route, through eu's gateway and with ids of eu, called by each kind of caller. The `owner` is the
# customer whose reservation, payment and ticket are asked for; employee and manager are eu's.
# Reviewed by people: a new route or a changed outcome stands here before it ships.
# Rewrite with UPDATE_SNAPSHOTS=1, then read the difference.
";

/// What the routes' ids stand for; reservation, payment and ticket are the owner's.
struct Stage {
    show: Show,
    owner: Client,
    reservation: String,
    payment: String,
    ticket: String,
    user: String,
}

pub async fn walk(world: Arc<World>) {
    let world = &*world;
    let stage = set(world).await;
    let mut callers = Vec::new();
    for (name, role) in CALLERS {
        callers.push(if name == "owner" { stage.owner.clone() } else { caller(world, role).await });
    }
    let document = world.gateway(REGION).get("/v1/openapi.json").await.ok(200);
    let mut routes: Vec<(String, String)> = Vec::new();
    for (path, item) in document["paths"].as_object().expect("the document has paths") {
        let methods = item.as_object().expect("a path has methods").keys();
        routes.extend(
            methods
                .filter(|m| ["get", "post", "put", "patch", "delete"].contains(&m.as_str()))
                .map(|m| (path.clone(), m.to_uppercase())),
        );
    }
    routes.sort();
    assert!(routes.len() > 30, "the gateway documents only {} routes", routes.len());
    step(&format!("{} routes × {} callers", routes.len(), CALLERS.len()));

    let mut table = String::from(HEAD);
    write!(table, "{:<50}", "").unwrap();
    CALLERS.iter().for_each(|(name, _)| write!(table, " {name:>11}").unwrap());
    table.push('\n');
    for (path, method) in &routes {
        write!(table, "{:<50}", format!("{method} {path}")).unwrap();
        for ((_, role), client) in CALLERS.iter().zip(&callers) {
            write!(table, " {:>11}", outcome(world, &stage, client, *role, method, path).await).unwrap();
        }
        table.push('\n');
    }
    compare("routes.txt", &table);
    let failing: Vec<&str> = table.lines().filter(|l| l.contains(" 50")).collect();
    assert!(failing.is_empty(), "routes that break:\n{}", failing.join("\n"));
}

async fn set(world: &World) -> Stage {
    let show = stage::new_show_of(world, REGION, 10, 10, 100).await;
    let owner = world.customer(REGION).await.client;
    let (paid, payment) = stage::buy(&owner, &show.id, &["A1"]).await;
    Stage {
        show,
        reservation: text(&paid, "id"),
        payment: text(&payment, "id"),
        ticket: text(&list(&paid, "tickets")[0], "id"),
        user: world.customer(REGION).await.id,
        owner,
    }
}

/// Somebody new of this role, at the region's gateway.
async fn caller(world: &World, role: Role) -> Client {
    match role {
        None => world.gateway(REGION),
        Some(("customer" | "owner", _)) => world.customer(REGION).await.client,
        Some((role, Some(region))) => {
            world.appointed(REGION, json!([{"role": role, "region": region}])).await.client
        }
        Some((role, None)) => world.appointed(REGION, json!([{"role": role}])).await.client,
    }
}

async fn outcome(world: &World, stage: &Stage, client: &Client, role: Role, method: &str, path: &str) -> u16 {
    let client = match (method, path) {
        // These end the caller.
        ("DELETE", "/v1/me" | "/v1/auth/sessions" | "/v1/auth/sessions/{id}")
        | ("POST", "/v1/auth/logout") => caller(world, role).await,
        _ => client.clone(),
    };
    let body = match (method, path) {
        ("POST", "/v1/reservations/{id}/payments") => json!({"method": "cash"}),
        ("PATCH", "/v1/reservations/{id}") => stage::adults(&[&free_seat(stage).await]),
        _ => json!({}),
    };
    let path = fill(world, stage, &client, method, path).await;
    let method: Method = method.parse().expect("a method of the document");
    let mut call = client.call(method.clone(), &path);
    if method != Method::GET {
        call = call.key(&fresh_key()).json(body);
    }
    call.status().await
}

/// The path with ids that exist.
async fn fill(world: &World, stage: &Stage, client: &Client, method: &str, path: &str) -> String {
    let id = match (method, path) {
        // What a call may really end is its own.
        ("POST", "/v1/reservations/{id}/cancel" | "/v1/reservations/{id}/payments")
        | ("PATCH", "/v1/reservations/{id}") => {
            let map = stage::seat_map(&stage.owner, &stage.show.id).await;
            let (seat, _) = map.iter().find(|(_, status)| *status == "free").expect("seats enough");
            text(&stage::reserve(&stage.owner, &stage.show.id, &[seat]).await, "id")
        }
        ("DELETE", p) if p.starts_with("/v1/movies/") => {
            let admin = world.staff("admin", None).await;
            let title = world.fresh("Unseen ");
            text(
                &admin.post_once("/v1/movies", json!({"title": title, "runtime_min": 90})).await.ok(201),
                "id",
            )
        }
        (_, p) if p.starts_with("/v1/shows/") => stage.show.id.clone(),
        (_, p) if p.starts_with("/v1/reservations/") => stage.reservation.clone(),
        (_, p) if p.starts_with("/v1/payments/") => stage.payment.clone(),
        (_, p) if p.starts_with("/v1/tickets/") => stage.ticket.clone(),
        (_, p) if p.starts_with("/v1/halls/") => stage.show.hall.clone(),
        (_, p) if p.starts_with("/v1/cinemas/") => stage.show.cinema.clone(),
        (_, p) if p.starts_with("/v1/movies/") => stage.show.movie.clone(),
        (_, p) if p.starts_with("/v1/users/") => stage.user.clone(),
        (_, p) if p.starts_with("/v1/webhooks/") => "test".to_owned(),
        (_, p) if p.starts_with("/v1/auth/sessions/") => own_session(client),
        // Orders that somebody might be allowed to give are for nobody.
        (_, p) if p.starts_with("/v1/regions/") => "nowhere".to_owned(),
        (_, p) => {
            assert!(!p.contains('{'), "{method} {p}: no id is known for it here");
            String::new()
        }
    };
    let mut parts = path.split('/').map(|part| match part.find('{') {
        // `{id}.svg` keeps its ending.
        Some(0) => format!("{id}{}", part.rsplit('}').next().unwrap_or_default()),
        _ => part.to_owned(),
    });
    let first = parts.next().unwrap_or_default();
    parts.fold(first, |path, part| format!("{path}/{part}"))
}

/// The last one, so that one found before a reservation of the first is still free after it.
async fn free_seat(stage: &Stage) -> String {
    let map = stage::seat_map(&stage.owner, &stage.show.id).await;
    map.into_iter().rev().find(|(_, status)| status == "free").expect("seats enough").0
}

fn own_session(client: &Client) -> String {
    if client.token().is_empty() {
        return common::SessionId::new().to_string();
    }
    text(&crate::check_in::part(client.token(), 1), "sid")
}

/// The snapshot must be equal to the last character.
pub fn compare(name: &str, now: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&file, now).unwrap();
        step(&format!("rewrote {}", file.display()));
        return;
    }
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), now.lines().collect());
    let mut difference = String::new();
    for line in old.iter().filter(|l| !new.contains(l)) {
        writeln!(difference, "- {line}").unwrap();
    }
    for line in new.iter().filter(|l| !old.contains(l)) {
        writeln!(difference, "+ {line}").unwrap();
    }
    assert!(before == now, "tests/snapshots/{name} is not what was seen:\n{difference}");
}

/// For other journeys: the documented operations, by id.
pub fn operation_ids(document: &Value) -> Vec<String> {
    let items = document["paths"].as_object().into_iter().flatten();
    let operations = items.flat_map(|(_, item)| item.as_object().into_iter().flatten());
    operations.filter_map(|(_, op)| op["operationId"].as_str().map(str::to_owned)).collect()
}
