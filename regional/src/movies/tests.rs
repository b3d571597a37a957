use common::{CinemaId, HallId, MovieId, ShowId};
use serde_json::json;

use super::*;
use crate::testing::{FakeGlobal, TestRegion, region};

fn film(title: &str, released: Option<&str>, genre: Option<&str>) -> Movie {
    Movie {
        id: MovieId::new(),
        title: title.into(),
        release_date: released.map(|date| date.parse().unwrap()),
        runtime_min: Some(100),
        rating: None,
        genre: genre.map(Into::into),
        director: Some("Someone".into()),
        distributor: None,
        cast: vec!["A".into(), "B".into()],
        synopsis: None,
        version: 3,
    }
}

async fn keep(region: &TestRegion, movie: &Movie) {
    store::put(&region.app.db().await.unwrap(), movie, false).await.unwrap();
}

async fn catalogue(region: &TestRegion) -> Vec<Movie> {
    let films = vec![
        film("The Godfather", Some("1972-03-24"), Some("Drama")),
        film("The Godfather: Part II", Some("1974-12-20"), Some("Drama")),
        film("Gods and Monsters", Some("1998-11-04"), None),
        film("Le fabuleux destin d'Amélie Poulain", Some("2001-04-25"), Some("Comedy")),
        film("Star Wars Ep. IV: A New Hope", Some("1977-05-25"), Some("Adventure")),
        film("Following", None, Some("Drama")),
        film("七人の侍", Some("1954-04-26"), Some("Action")),
    ];
    for film in &films {
        keep(region, film).await;
    }
    films
}

/// A cinema in Berlin with a hall.
async fn house(region: &TestRegion) -> (CinemaId, HallId) {
    let cinema = json!({"name": "Lichtburg", "address": "Linden 1", "latitude": 52.5, "longitude": 13.4,
                        "time_zone": "Europe/Berlin", "currency": "EUR"});
    let cinema = region.write("POST", "/v1/cinemas", cinema).await.body["id"].as_str().unwrap().to_owned();
    let hall = json!({"name": "1", "grid": {"rows": 1, "seats": 1}});
    let hall = region.write("POST", &format!("/v1/cinemas/{cinema}/halls"), hall).await;
    (cinema.parse().unwrap(), hall.body["id"].as_str().unwrap().parse().unwrap())
}

async fn show(
    region: &TestRegion,
    movie: MovieId,
    (cinema, hall): (CinemaId, HallId),
    at: &str,
    status: &str,
) -> ShowId {
    let (id, at) = (ShowId::new(region.app.region()), at.parse::<Timestamp>().unwrap());
    let insert =
        "INSERT INTO shows (id, cinema_id, hall_id, movie_id, starts_at, ends_at, status, home, currency, view)
                  VALUES ($1, $2, $3, $4, $5, $5, $6, 'eu', 'EUR', '{}')";
    let client = region.app.db().await.unwrap();
    client.execute(insert, &[&id.0, &cinema.0, &hall.0, &movie.0, &at, &status]).await.unwrap();
    id
}

#[tokio::test]
async fn titles_are_found_in_spite_of_typos() {
    let region = TestRegion::start(None).await;
    catalogue(&region).await;
    for (q, first) in [
        ("the%20godfather", "The Godfather"),
        ("godfahter", "The Godfather"),
        ("teh%20godfater", "The Godfather"),
        ("amelie", "Le fabuleux destin d'Amélie Poulain"),
        ("AM%C3%89LIE", "Le fabuleux destin d'Amélie Poulain"),
        ("starwars", "Star Wars Ep. IV: A New Hope"),
        ("stra%20wars", "Star Wars Ep. IV: A New Hope"),
        ("folowing", "Following"),
        ("monster", "Gods and Monsters"),
        ("%E4%B8%83%E4%BA%BA", "七人の侍"),
    ] {
        let found = region.get(&format!("/v1/movies?q={q}")).await;
        assert_eq!(found.column("title").first(), Some(&first), "{q}");
    }
    for q in ["zzzzzz", "%25", "_", "%5C", "'"] {
        let found = region.get(&format!("/v1/movies?q={q}&genre=Drama")).await;
        assert_eq!((found.status.as_u16(), found.column("title").len()), (200, 0), "{q}");
    }
}

#[tokio::test]
async fn filters_and_orders_hold_over_pages() {
    let region = TestRegion::start(None).await;
    catalogue(&region).await;
    let titles = async |query: &str| {
        let (mut titles, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = region.get(&format!("/v1/movies?limit=2{query}{cursor}")).await;
            assert_eq!(page.status, 200, "{}", page.body);
            titles.extend(page.column("title").into_iter().map(str::to_owned));
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return titles,
            }
        }
    };
    let by_title = titles("").await;
    assert_eq!(by_title.len(), 7);
    assert_eq!(by_title[..3], ["Following", "Gods and Monsters", "Le fabuleux destin d'Amélie Poulain"]);
    let newest = titles("&sort=-release_date").await;
    assert_eq!(
        (newest[0].as_str(), newest[6].as_str()),
        ("Le fabuleux destin d'Amélie Poulain", "Following")
    );
    let oldest = titles("&sort=release_date").await;
    assert_eq!((oldest[0].as_str(), oldest[6].as_str()), ("七人の侍", "Following"));
    assert_eq!(
        titles("&genre=dRAMA&sort=title").await,
        ["Following", "The Godfather", "The Godfather: Part II"]
    );
    assert_eq!(titles("&year=1974").await, ["The Godfather: Part II"]);
    assert_eq!(titles("&q=god").await, ["The Godfather", "Gods and Monsters", "The Godfather: Part II"]);
    assert_eq!(titles("&q=god&sort=-release_date&year=1998").await, ["Gods and Monsters"]);
}

#[tokio::test]
async fn a_page_is_not_shaken_by_films_that_come_and_go() {
    let region = TestRegion::start(None).await;
    let films = catalogue(&region).await;
    let first = region.get("/v1/movies?limit=3").await;
    let cursor = first.body["next_cursor"].as_str().unwrap();
    keep(&region, &film("Aaa", None, None)).await;
    store::put(&region.app.db().await.unwrap(), &films[5], true).await.unwrap();
    let rest = region.get(&format!("/v1/movies?cursor={cursor}")).await;
    let wanted = ["Star Wars Ep. IV: A New Hope", "The Godfather", "The Godfather: Part II", "七人の侍"];
    assert_eq!(rest.column("title"), wanted);
}

#[tokio::test]
async fn bad_searches_are_named() {
    let region = TestRegion::start(None).await;
    for (query, field) in [
        ("q=a%00b", "q"),
        ("year=99999", "year"),
        ("year=-5", "year"),
        ("year=x", "year"),
        ("sort=relevance", "sort"),
        ("sort=price", "sort"),
        ("showing_in=mars", "showing_in"),
        ("showing_in=cin_1", "showing_in"),
        ("genre=%00", "genre"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=YQ", "cursor"),
        ("page=2", "page"),
    ] {
        let answer = region.get(&format!("/v1/movies?{query}")).await;
        assert_eq!((answer.status.as_u16(), answer.fields()), (422, vec![field]), "{query}");
    }
    // A cursor of another order.
    catalogue(&region).await;
    let page = region.get("/v1/movies?limit=1").await;
    let cursor = page.body["next_cursor"].as_str().unwrap();
    let mixed = region.get(&format!("/v1/movies?sort=release_date&cursor={cursor}")).await;
    assert_eq!(mixed.fields(), ["cursor"]);
}

#[tokio::test]
async fn shows_to_come_are_listed_and_searched_by() {
    let test = TestRegion::start(None).await;
    let films = catalogue(&test).await;
    let house = house(&test).await;
    let later = show(&test, films[0].id, house, "2999-07-01T18:00:00Z", "scheduled").await;
    let sooner = show(&test, films[0].id, house, "2999-01-01T18:00:00Z", "scheduled").await;
    show(&test, films[0].id, house, "2999-02-01T18:00:00Z", "canceled").await;
    show(&test, films[1].id, house, "2001-01-01T18:00:00Z", "scheduled").await;
    show(&test, films[2].id, house, "2999-01-01T18:00:00Z", "canceled").await;

    let details = test.get(&format!("/v1/movies/{}", films[0].id)).await;
    assert_eq!(details.body["title"], "The Godfather");
    let shows = details.body["coming_shows"].as_array().unwrap();
    let ids: Vec<&str> = shows.iter().filter_map(|s| s["id"].as_str()).collect();
    assert_eq!(ids, [sooner.to_string(), later.to_string()]);
    assert_eq!(shows[0]["starts_at"], "2999-01-01T18:00:00Z");
    assert_eq!(shows[0]["starts_at_local"], "2999-01-01T19:00:00+01:00");
    assert_eq!(shows[1]["starts_at_local"], "2999-07-01T20:00:00+02:00");
    assert_eq!((&shows[0]["cinema_name"], &shows[0]["hall_name"]), (&json!("Lichtburg"), &json!("1")));

    for place in ["eu".to_owned(), house.0.to_string()] {
        let showing = test.get(&format!("/v1/movies?showing_in={place}")).await;
        assert_eq!(showing.column("title"), ["The Godfather"], "{place}");
    }
    let other = CinemaId::new(test.app.region());
    assert!(test.get(&format!("/v1/movies?showing_in={other}")).await.column("title").is_empty());
    for place in ["us".to_owned(), CinemaId::new(&region("us")).to_string()] {
        let elsewhere = test.get(&format!("/v1/movies?showing_in={place}")).await;
        assert_eq!((elsewhere.status.as_u16(), elsewhere.code()), (421, "not-owner"));
        assert_eq!(elsewhere.body["owner"], "us");
    }
}

#[tokio::test]
async fn who_has_the_answer_already_is_told_so() {
    let region = TestRegion::start(None).await;
    let films = catalogue(&region).await;
    for path in ["/v1/movies".to_owned(), format!("/v1/movies/{}", films[0].id)] {
        let first = region.get(&path).await;
        let again = region.get_if_none_match(&path, first.etag()).await;
        assert_eq!((again.status.as_u16(), again.etag()), (304, first.etag()), "{path}");
        let mut changed = films[0].clone();
        changed.version += 1;
        changed.rating = Some(format!("R {path}"));
        keep(&region, &changed).await;
        assert_eq!(region.get_if_none_match(&path, first.etag()).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_film_that_was_just_created_is_asked_for_and_kept() {
    let global = FakeGlobal::start().await;
    let region = TestRegion::start(Some(&global)).await;
    let (new, gone) = (film("Brand New", None, None), film("Withdrawn", None, None));
    global.knows(new.clone().into_feed(false));
    global.knows(gone.clone().into_feed(true));
    assert_eq!(region.get(&format!("/v1/movies/{}", new.id)).await.body["title"], "Brand New");
    for id in [gone.id, MovieId::new()] {
        let answer = region.get(&format!("/v1/movies/{id}")).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (404, "not-found"));
    }
    // Kept: found without asking.
    drop(global);
    assert_eq!(find(&region.app, new.id).await.unwrap(), Some(new));
    assert_eq!(find(&region.app, gone.id).await.unwrap(), None);
}

#[tokio::test]
async fn an_unknown_film_is_uncertain_while_nobody_can_be_asked() {
    let region = TestRegion::start(None).await;
    let answer = region.get(&format!("/v1/movies/{}", MovieId::new())).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "catalogue-unavailable"));
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(region.get("/v1/movies/cin_1").await.status, 404);
}
