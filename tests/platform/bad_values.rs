//! Well-formed requests whose values cannot be: cinemas nowhere, halls with no seats, money below nothing,
//! dates that are none, names that no account can have. Called by the journey `bad_input`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, fresh_key, text};
use crate::stage::{self, Show};
use crate::world::{World, step};

pub async fn cinemas_and_halls(manager: &Client, show: &Show) {
    step("cinemas nowhere, halls with no seats");
    let with = |member: &str, value: Value| {
        let mut body = stage::cinema_body("Nowhere", "EUR");
        body[member] = value;
        manager.post_once("/v1/cinemas", body)
    };
    for (member, value) in [
        ("latitude", json!(91)),
        ("latitude", json!(-90.5)),
        ("latitude", json!("50")),
        ("longitude", json!(181)),
        ("longitude", json!(null)),
        ("time_zone", json!("Mars/Olympus_Mons")),
        ("time_zone", json!("")),
        ("time_zone", json!("../../etc/passwd")),
        ("currency", json!("XXX")),
        ("currency", json!("eur")),
        ("currency", json!(978)),
        ("name", json!("")),
        ("name", json!("x".repeat(100_000))),
        ("name", json!("a\u{0}b")),
        ("address", json!([])),
        ("stars", json!(5)),
    ] {
        with(member, value).await.names_field(member);
    }
    let path = format!("/v1/cinemas/{}/halls", show.cinema);
    let seat = |number: Value| json!({"number": number, "type": "standard"});
    let row = |name: Value, seats: Vec<Value>| json!({"row": name, "seats": seats});
    let layouts = [
        json!({"name": "Empty"}),
        json!({"name": "Empty", "rows": []}),
        json!({"name": "Empty", "rows": [row(json!("A"), vec![])]}),
        json!({"name": "Empty", "grid": {"rows": 0, "seats": 0}}),
        json!({"name": "Empty", "grid": {"rows": 0, "seats": 5}}),
        json!({"name": "Negative", "grid": {"rows": -1, "seats": 5}}),
        json!({"name": "Half", "grid": {"rows": 1.5, "seats": 5}}),
        json!({"name": "Huge", "grid": {"rows": 4_000_000_000_u32, "seats": 4_000_000_000_u32}}),
        json!({"name": "Huger", "grid": {"rows": 1e300, "seats": 5}}),
        json!({"name": "Odd", "grid": {"rows": 2, "seats": 2, "premium_rows": ["Q"]}}),
        json!({"name": "Both", "grid": {"rows": 2, "seats": 2}, "rows": [row(json!("A"), vec![seat(json!(1))])]}),
        json!({"name": "Twice", "rows": [row(json!("A"), vec![seat(json!(1)), seat(json!(1))])]}),
        json!({"name": "Twice", "rows": [row(json!("A"), vec![seat(json!(1))]), row(json!("A"), vec![seat(json!(1))])]}),
        json!({"name": "Zero", "rows": [row(json!("A"), vec![seat(json!(0))])]}),
        json!({"name": "Minus", "rows": [row(json!("A"), vec![seat(json!(-3))])]}),
        json!({"name": "Number", "rows": [row(json!(1), vec![seat(json!(1))])]}),
        json!({"name": "Throne", "rows": [row(json!("A"), vec![json!({"number": 1, "type": "throne"})])]}),
        json!({"name": "", "grid": {"rows": 2, "seats": 2}}),
    ];
    for layout in layouts {
        let answer = manager.post_once(&path, layout).await;
        answer.any_problem();
        assert_eq!(answer.code(), 422, "{answer}");
    }
}

pub async fn shows_and_prices(manager: &Client, show: &Show) {
    step("prices below nothing, in fractions, in other money; absurd dates; two shows in one hall");
    let good = stage::show_body(&show.hall, &show.movie, &stage::in_hours(24 * 20));
    let with = |member: &str, value: Value| {
        let mut body = good.clone();
        body[member] = value;
        manager.post_once("/v1/shows", body)
    };
    let price = |amount: Value| json!([{"seat_type": "standard", "category": "adult", "amount": amount}]);
    for amount in [
        json!(-1),
        json!(12.5),
        json!("12.50"),
        json!(null),
        json!(i64::MAX),
        json!(u64::MAX),
        json!({"amount": 1250, "currency": "USD"}),
    ] {
        with("prices", price(amount)).await.names_field("prices");
    }
    let dollars = json!([{"seat_type": "standard", "category": "adult", "amount": 1, "currency": "USD"}]);
    with("prices", dollars).await.names_field("prices");
    with("prices", json!([])).await.names_field("prices");
    let twice = json!([{"seat_type": "standard", "category": "adult", "amount": 1},
        {"seat_type": "standard", "category": "adult", "amount": 2}]);
    with("prices", twice).await.names_field("prices");
    for date in [
        "yesterday",
        "",
        "2030-02-30T20:00:00Z",
        "2030-01-01",
        "2030-01-01T25:00:00Z",
        "+999999-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "1999-12-31T23:00:00Z",
        "20300101",
    ] {
        with("starts_at", json!(date)).await.names_field("starts_at");
    }
    with("starts_at", json!(1_900_000_000)).await.names_field("starts_at");
    let overflow = manager
        .call(Method::POST, "/v1/shows")
        .key(&fresh_key())
        .raw("application/json", good.to_string().replace("1250", "1e400"))
        .await;
    overflow.any_problem();
    assert!(matches!(overflow.code(), 400 | 422), "{overflow}");
    for id in [json!("hal_1"), json!(show.id), json!(5), json!(common::HallId::new(&"eu".parse().unwrap()))] {
        let answer = with("hall_id", id).await;
        answer.any_problem();
        assert!(matches!(answer.code(), 403 | 404 | 422), "{answer}");
    }
    for id in [json!("mov_1"), json!(common::MovieId::new()), json!(show.hall)] {
        let answer = with("movie_id", id).await;
        answer.any_problem();
        assert!(matches!(answer.code(), 404 | 422), "{answer}");
    }
    with("max_seats_per_customer", json!(-2)).await.names_field("max_seats_per_customer");
    let mut overlapping = good.clone();
    overlapping["starts_at"] = stage::in_hours(48).into();
    manager.post_once("/v1/shows", overlapping).await.problem(409, "hall-busy");
}

/// Overlapping shows asked for at once: one hall, one time, one show.
pub async fn racing_shows(manager: &Client, show: &Show) {
    step("five shows at once for one hall and one time: one is made, whole");
    let body = stage::show_body(&show.hall, &show.movie, &stage::in_hours(24 * 30));
    let racing: Vec<_> = (0..5)
        .map(|_| {
            let call = manager.post_once("/v1/shows", body.clone());
            tokio::spawn(async move { call.await })
        })
        .collect();
    let mut codes = Vec::new();
    for answer in racing {
        codes.push(answer.await.unwrap());
    }
    assert_eq!(
        codes.iter().filter(|a| a.code() == 201).count(),
        1,
        "one hall, one time, one show: {codes:?}"
    );
    codes.iter().filter(|a| a.code() != 201).for_each(|a| {
        a.problem(409, "hall-busy");
    });
    let won = codes.iter().find(|a| a.code() == 201).map(|a| text(&a.json(), "id")).unwrap();
    assert_eq!(stage::seat_map(manager, &won).await.len(), 18);
}

pub async fn accounts(world: &World) {
    step("names and passwords that no account can have");
    let nobody = world.gateway("ap");
    let body = |member: &str, value: Value| {
        let name = world.fresh("odd");
        let mut body = json!({"email": format!("{name}@example.org"), "username": name, "name": "Odd",
            "password": "a long enough password"});
        body[member] = value;
        nobody.post("/v1/auth/signup", body)
    };
    for (member, value) in [
        ("username", json!("")),
        ("username", json!("a\u{0}b")),
        ("username", json!("x".repeat(10_000))),
        ("username", json!("two words")),
        ("username", json!("a@b")),
        ("email", json!("")),
        ("email", json!("a@")),
        ("email", json!("a b@example.org")),
        ("email", json!(format!("{}@example.org", "x".repeat(1000)))),
        ("email", json!("a@example.org\r\nBcc: b@example.org")),
        ("password", json!("x".repeat(100_000))),
        ("password", json!(1_234_567_890)),
        ("name", json!("x".repeat(10_000))),
        ("name", json!("a\u{0}b")),
        ("role", json!("admin")),
        ("roles", json!([{"role": "admin"}])),
    ] {
        body(member, value).await.names_field(member);
    }
    for grant in [
        json!({"grant_type": "password"}),
        json!({"grant_type": "client_credentials"}),
        json!({"grant_type": "password", "username": "a\u{0}b", "password": "x"}),
        json!({"grant_type": "refresh_token", "refresh_token": "nothing"}),
        json!({"grant_type": "refresh_token", "refresh_token": "x".repeat(100_000)}),
        json!({}),
    ] {
        let answer = nobody.post("/v1/auth/token", grant).await;
        answer.any_problem();
        assert!(matches!(answer.code(), 400 | 401 | 422), "{answer}");
    }
}
