//! A newcomer signs up, finds a film by a misspelt title, and buys, through `us`, seats of a show that `eu`
//! owns. Somebody else wants the same seats.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, fresh_key, list, text};
use crate::stage::{self, adults, seat_map};
use crate::world::{World, step};

pub async fn walk(world: Arc<World>) {
    accounts(&world).await;
    sessions(&world).await;
    let movie = finds_a_film(&world).await;
    let show = finds_a_show_of_eu(&world, &movie).await;
    buys(&world, &show).await;
    replays(&world).await;
    conditional_reads(&world, &show).await;
}

async fn accounts(world: &World) {
    step("signs up; the second of a name, of an address, and a weak password are refused");
    let us = world.gateway("us");
    let name = world.fresh("ada");
    let body = json!({"email": format!("{name}@example.org"), "username": name, "name": "Ada",
        "password": "the night of the hunter"});
    let user = us.post("/v1/auth/signup", body.clone()).await.ok(201);
    assert!(text(&user, "id").starts_with("usr_"), "{user}");
    assert!(user.get("password").is_none() && user.get("password_hash").is_none(), "{user}");

    let with = |field: &str, value: &str| {
        let mut other = body.clone();
        let spare = world.fresh("bob");
        other["email"] = format!("{spare}@example.org").into();
        other["username"] = spare.into();
        other[field] = value.into();
        us.post("/v1/auth/signup", other)
    };
    let taken = body["email"].as_str().unwrap();
    with("email", taken).await.problem(409, "email-taken");
    with("email", &taken.to_uppercase()).await.problem(409, "email-taken");
    with("username", &name).await.problem(409, "username-taken");
    with("password", "short").await.names_field("password");
    with("password", "password123").await.names_field("password");
    with("email", "no address").await.names_field("email");

    let by_email = us
        .post(
            "/v1/auth/token",
            json!({"grant_type": "password", "username": taken, "password": body["password"]}),
        )
        .await
        .ok(200);
    let me = us.bearing(&text(&by_email, "access_token")).get("/v1/me").await.ok(200);
    assert_eq!((&me["id"], &me["username"]), (&user["id"], &user["username"]), "{me}");

    let refused = |username: &str, password: &str| {
        us.post(
            "/v1/auth/token",
            json!({"grant_type": "password", "username": username, "password": password}),
        )
    };
    let wrong = refused(&name, "not the night of the hunter").await.problem(401, "invalid-credentials");
    let nobody =
        refused(&world.fresh("nobody"), "whatever it may be").await.problem(401, "invalid-credentials");
    assert_eq!(wrong["detail"], nobody["detail"], "the text tells whether the account exists");

    step("guessing a password is slowed down");
    let guessed = world.customer("us").await.username;
    let mut answer = refused(&guessed, "guess").impatient().await;
    for _ in 0..20 {
        if answer.code() == 429 {
            break;
        }
        answer.problem(401, "invalid-credentials");
        answer = refused(&guessed, "guess").impatient().await;
    }
    assert_eq!(answer.any_problem()["status"], 429, "twenty guesses and no 429: {answer}");
    assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|s| s > 0), "{answer}");
}

async fn sessions(world: &World) {
    step("signs in by form, refreshes; a refresh token used twice ends the session; logs out");
    let person = world.customer("us").await;
    let us = world.gateway("us");
    let fields =
        [("grant_type", "password"), ("username", &*person.username), ("password", &*person.password)];
    let first = us.call(Method::POST, "/v1/auth/token").form(&fields).await.ok(200);
    assert_eq!((first["token_type"].as_str(), first["expires_in"].as_i64()), (Some("Bearer"), Some(600)));
    let refresh = |tokens: &Value| {
        let token = text(tokens, "refresh_token");
        us.post("/v1/auth/token", json!({"grant_type": "refresh_token", "refresh_token": token}))
    };
    let second = refresh(&first).await.ok(200);
    assert_ne!(first["refresh_token"], second["refresh_token"], "refresh tokens rotate");
    let signed_in = us.bearing(&text(&second, "access_token"));
    let claims = signed_in.get("/v1/auth/verify").await.ok(200);
    assert!(claims.to_string().contains(&person.id), "{claims}");
    assert_eq!(refresh(&first).await.any_problem()["status"], 401, "an old refresh token is refused");
    assert_eq!(refresh(&second).await.any_problem()["status"], 401, "and ends its whole session");

    let gone = person.client.call(Method::POST, "/v1/auth/logout").await;
    assert!(gone.status.is_success(), "{gone}");
    ends_everywhere(world, &person.client).await;
}

/// A token that was valid is refused at every gateway within the five seconds that the contract gives.
async fn ends_everywhere(world: &World, client: &Client) {
    for (region, url) in world.run().gateways {
        let there = client.at(&url);
        let what = format!("the session's end in {region}");
        crate::world::until(&what, std::time::Duration::from_secs(5), async || {
            (there.get("/v1/reservations").await.code() == 401).then_some(())
        })
        .await;
    }
}

/// The title with two neighbouring letters of its longest word exchanged.
fn misspelt(title: &str) -> String {
    let longest = title.split_whitespace().max_by_key(|w| w.chars().count()).unwrap();
    let mut letters: Vec<char> = longest.chars().collect();
    let swap = (1..letters.len() - 1).find(|&i| {
        let (a, b) = (letters[i], letters[i + 1]);
        a.is_alphabetic() && b.is_alphabetic() && !a.to_lowercase().eq(b.to_lowercase())
    });
    let swap = swap.unwrap_or_else(|| panic!("nothing to misspell in {title}"));
    letters.swap(swap, swap + 1);
    title.replacen(longest, &letters.into_iter().collect::<String>(), 1)
}

async fn finds_a_film(world: &World) -> Value {
    let us = world.gateway("us");
    let shows = list(&us.get("/v1/shows?limit=200").header("x-region", "eu").await.ok(200), "items");
    assert!(!shows.is_empty(), "eu has no coming shows in the demo data");
    let mut long_titled = None;
    for show in &shows {
        let movie = us.get(&format!("/v1/movies/{}", text(show, "movie_id"))).await.ok(200);
        if movie["title"].as_str().is_some_and(|t| t.split_whitespace().any(|w| w.len() >= 7 && w.is_ascii()))
        {
            long_titled = Some(movie);
            break;
        }
    }
    let movie = long_titled.expect("a film with a long word in its title");
    let title = text(&movie, "title");
    let typo = misspelt(&title);
    step(&format!("searches for “{typo}”, finds “{title}”, reads its details"));
    let escaped: String = typo
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    let found = us.get(&format!("/v1/movies?q={escaped}")).await.ok(200);
    let place = list(&found, "items").iter().position(|m| m["id"] == movie["id"]);
    assert!(place.is_some_and(|p| p < 5), "“{title}” is not among the first five for “{typo}”: {found}");
    us.get("/v1/movies?q=zzqqxxyyww").await.ok(200)["items"]
        .as_array()
        .filter(|i| i.is_empty())
        .expect("no match");
    movie
}

async fn finds_a_show_of_eu(world: &World, movie: &Value) -> String {
    let us = world.gateway("us");
    let path = format!("/v1/shows?movie_id={}", text(movie, "id"));
    let answer = us.get(&path).header("x-region", "eu").await;
    assert_eq!(answer.header("x-region"), "eu", "{answer}");
    let shows = list(&answer.ok(200), "items");
    let show = text(shows.first().expect("the film has a show in eu"), "id");
    let path = format!("/v1/shows/{show}");
    // The owner's proven word, and what it knows.
    let owners = us.get(&path).header("cache-control", "no-cache").await;
    assert!(owners.header("x-region") == "eu" && owners.header("x-may-be-stale").is_empty(), "{owners}");
    let answer = us.get(&path).await;
    let details = answer.ok(200);
    assert_eq!(details, owners.ok(200));
    assert!(answer.header("x-region") == "eu" && !answer.header("x-as-of").is_empty(), "{answer}");
    assert!(answer.header("x-show-epoch").parse::<u64>().is_ok_and(|epoch| epoch > 0), "{answer}");
    assert_eq!(details["movie_id"], movie["id"]);
    for member in ["starts_at", "starts_at_local", "business_date"] {
        assert!(details[member].is_string(), "{member} is missing: {details}");
    }
    show
}

async fn buys(world: &World, show: &str) {
    step("reserves through us what eu owns; the map shows it held; pays; the map shows it sold");
    let buyer = world.customer("us").await.client;
    let map = seat_map(&buyer, show).await;
    let free: Vec<&str> = map.iter().filter(|(_, s)| *s == "free").map(|(seat, _)| seat.as_str()).collect();
    let map_whole = buyer.get(&format!("/v1/shows/{show}/seats")).await.ok(200);
    assert!(map_whole["seq"].is_u64() && map_whole["epoch"].is_u64(), "{map_whole}");
    // Two seats with a price for adults.
    let priced: Vec<&str> = list(&map_whole, "seats")
        .iter()
        .filter(|s| s["prices"].to_string().contains("adult"))
        .filter_map(|s| free.iter().find(|f| s["seat"] == **f).copied())
        .take(2)
        .collect();
    assert_eq!(priced.len(), 2, "no two free seats with an adult's price: {map_whole}");

    let path = format!("/v1/shows/{show}/reservations");
    let answer = buyer.post_once(&path, adults(&priced)).await;
    let held = answer.ok(201);
    assert_eq!(answer.header("x-region"), "eu", "{answer}");
    assert!(answer.header("x-show-epoch").parse::<u64>().is_ok(), "{answer}");
    assert_eq!(held["status"], "reserved", "{held}");
    assert!(!text(&held, "reference").is_empty() && text(&held, "expires_at").contains('T'), "{held}");
    assert!(held["expires_in_seconds"].as_i64().is_some_and(|s| (500..=600).contains(&s)), "{held}");
    assert!(held["total"]["amount"].as_i64().is_some_and(|a| a > 0), "{held}");
    let map = seat_map(&buyer, show).await;
    assert!(priced.iter().all(|seat| map[*seat] == "held"), "{map:?}");

    step("another customer is refused the taken seat, and gets none of the others either");
    let other = world.customer("ap").await.client;
    let spare = free.iter().find(|f| !priced.contains(f)).unwrap();
    let refusal = other.post_once(&path, adults(&[spare, priced[0]])).await.problem(409, "seats-unavailable");
    assert_eq!(refusal["seats"], json!([priced[0]]), "{refusal}");
    assert_eq!(seat_map(&other, show).await[*spare], "free", "all seats or none");

    let answer = stage::pay(&buyer, &held, "tok_ok").await;
    let payment = answer.ok(201);
    assert_eq!(answer.header("x-region"), "eu", "{answer}");
    assert_eq!((&payment["status"], &payment["amount"]), (&json!("completed"), &held["total"]), "{payment}");
    let id = text(&held, "id");
    let paid = stage::reservation_now(&buyer, &id).await;
    assert_eq!((&paid["status"], &paid["reference"]), (&json!("paid"), &held["reference"]), "{paid}");
    let map = seat_map(&buyer, show).await;
    assert!(priced.iter().all(|seat| map[*seat] == "sold"), "{map:?}");

    step("finds it among their reservations, at any gateway");
    for (region, url) in world.run().gateways {
        let mine = buyer.at(&url).get("/v1/reservations").await.ok(200);
        assert_eq!(mine["incomplete_regions"], json!([]), "at {region}: {mine}");
        assert_eq!(list(&mine, "items").iter().filter(|r| r["id"] == id).count(), 1, "at {region}: {mine}");
    }
    tickets(&buyer, &paid, &priced).await;
}

async fn tickets(buyer: &Client, paid: &Value, seats: &[&str]) {
    step("fetches the tickets; their QR codes, PNG and SVG, hold the signed token");
    let tickets = list(paid, "tickets");
    let mut named: Vec<String> = tickets.iter().map(|t| text(t, "seat")).collect();
    named.sort();
    let mut wanted = seats.to_vec();
    wanted.sort_unstable();
    assert_eq!(named, wanted);
    for ticket in &tickets {
        let path = format!("/v1/tickets/{}", text(ticket, "id"));
        let whole = buyer.get(&path).await.ok(200);
        assert_eq!((&whole["reservation_id"], &whole["seat"]), (&paid["id"], &ticket["seat"]), "{whole}");
        for member in ["show_id", "category", "status"] {
            assert!(whole[member].is_string(), "{member} is missing: {whole}");
        }
        let token = text(&whole, "token");

        let png = buyer.get(&format!("{path}.png")).await;
        assert_eq!((png.code(), png.header("content-type")), (200, "image/png"), "{png}");
        assert_eq!(read_qr(&png.body), token);

        let pdf = buyer.get(&format!("{path}.pdf")).await;
        assert_eq!((pdf.code(), pdf.header("content-type")), (200, "application/pdf"), "{pdf}");
        assert!(
            pdf.body.starts_with(b"%PDF-") && pdf.body.trim_ascii_end().ends_with(b"%%EOF"),
            "no whole PDF"
        );

        let svg = buyer.get(&format!("{path}.svg")).await;
        assert_eq!((svg.code(), svg.header("content-type")), (200, "image/svg+xml"), "{svg}");
        let text = String::from_utf8(svg.body).unwrap();
        let document = roxmltree::Document::parse_with_options(
            &text,
            roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() },
        )
        .unwrap_or_else(|e| panic!("the SVG is not XML: {e}"));
        assert_eq!(document.root_element().tag_name().name(), "svg");
        let drawn = document.descendants().any(|n| matches!(n.tag_name().name(), "path" | "rect"));
        assert!(drawn, "the SVG draws nothing: {text}");
    }
}

/// What a scanner reads from the picture.
fn read_qr(png: &[u8]) -> String {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().expect("a PNG's head");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size that fits")];
    let info = reader.next_frame(&mut pixels).expect("a PNG's pixels");
    let (width, height) = (info.width as usize, info.height as usize);
    let samples = info.color_type.samples();
    let mut image =
        rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[(y * width + x) * samples]);
    let codes = image.detect_grids();
    assert_eq!(codes.len(), 1, "the picture holds one QR code");
    codes[0].decode().expect("a readable QR code").1
}

async fn replays(world: &World) {
    step("repeats both steps under their keys: the same answers, and nothing is done twice");
    let show = stage::new_show(world, "eu", 4, 8).await;
    let buyer = world.customer("us").await.client;
    let path = format!("/v1/shows/{}/reservations", show.id);
    let key = fresh_key();
    let first = buyer.post(&path, adults(&["B1", "B2"])).key(&key).await;
    let held = first.ok(201);
    assert_eq!(first.header("idempotent-replayed"), "", "{first}");
    // At another gateway, since a client that lost its answer may have lost its gateway.
    for (_, url) in world.run().gateways {
        let again = buyer.at(&url).post(&path, adults(&["B1", "B2"])).key(&key).await;
        assert_eq!(again.header("idempotent-replayed"), "true", "{again}");
        assert_eq!(without_clock(again.ok(201)), without_clock(held.clone()));
    }
    buyer.post(&path, adults(&["B1", "B3"])).key(&key).await.problem(422, "idempotency-key-reused");
    buyer.post(&path, adults(&["B4"])).await.problem(400, "idempotency-key-missing");
    // Another's same key is another key.
    let other = world.customer("us").await.client;
    let theirs = other.post(&path, adults(&["C1"])).key(&key).await;
    assert_ne!(theirs.ok(201)["id"], held["id"], "a key is its caller's own");

    let path = format!("/v1/reservations/{}/payments", text(&held, "id"));
    let (key, card) = (fresh_key(), json!({"method": "card", "token": "tok_ok"}));
    let paid = buyer.post(&path, card.clone()).key(&key).await.ok(201);
    let again = buyer.post(&path, card.clone()).key(&key).await;
    assert_eq!(again.header("idempotent-replayed"), "true", "{again}");
    assert_eq!(again.ok(201), paid);
    let other_card = json!({"method": "card", "token": "tok_declined"});
    buyer.post(&path, other_card).key(&key).await.problem(422, "idempotency-key-reused");
    buyer.post(&path, card.clone()).await.problem(400, "idempotency-key-missing");
    let second = buyer.post_once(&path, card).await.any_problem();
    assert_eq!(second["status"], 409, "what is paid cannot be paid again: {second}");
    assert_eq!(stage::payments_of(&buyer, &text(&held, "id")).await.len(), 1);
}

/// The body without what counts down.
fn without_clock(mut body: Value) -> Value {
    body.as_object_mut().unwrap().remove("expires_in_seconds");
    body
}

async fn conditional_reads(world: &World, show: &str) {
    step("reads with If-None-Match: 304 while nothing changed");
    let us = world.gateway("us");
    let details = us.get(&format!("/v1/shows/{show}")).await.ok(200);
    let paths = [
        format!("/v1/shows/{show}"),
        format!("/v1/shows/{show}/seats"),
        format!("/v1/halls/{}", text(&details, "hall_id")),
        format!("/v1/cinemas/{}", text(&details, "cinema_id")),
        format!("/v1/movies/{}", text(&details, "movie_id")),
    ];
    for path in paths {
        let first = us.get(&path).await;
        first.ok(200);
        assert!(!first.header("etag").is_empty(), "no ETag: {first}");
        let again = us.get(&path).header("if-none-match", first.header("etag")).await;
        assert_eq!((again.code(), again.body.len()), (304, 0), "{again}");
        assert_eq!(us.get(&path).header("if-none-match", "\"other\"").await.code(), 200);
    }
}
