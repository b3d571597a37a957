//! The feed as followers see it, and several processes on one database.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::authz::Authority;
use common::feed::{Follower, Wanted, apply_to_authority, follow};
use common::proto::feed::feed_client::FeedClient;
use common::proto::feed::update::Update as Kind;
use common::proto::feed::{FollowRequest, GetMovieRequest, Movie, Update};
use common::tls::Tls;
use reqwest::Method;
use serde_json::json;
use support::{Service, config, eventually, start};
use tokio_util::sync::CancellationToken;

const WANTED: Wanted = Wanted { movies: true, month_keys: false };

/// A follower like those of the other services.
#[derive(Clone)]
struct Region {
    authority: Arc<Authority>,
    seen: Arc<Mutex<Vec<Update>>>,
}

impl Region {
    fn follow(s: &Service, after: i64, stop: &CancellationToken) -> Self {
        let region = Self { authority: Authority::new("marquee"), seen: Arc::default() };
        if after > 0 {
            region.seen.lock().unwrap().push(Update { position: after, update: None });
        }
        let channel = Tls::plain().channel(&format!("http://{}", s.config.grpc_listen), "").unwrap();
        tokio::spawn(follow(channel, "test".into(), WANTED, region.clone(), stop.clone()));
        region
    }

    fn movies(&self) -> Vec<Movie> {
        let seen = self.seen.lock().unwrap();
        let movie = |u: &Update| match &u.update {
            Some(Kind::Movie(movie)) => Some(movie.clone()),
            _ => None,
        };
        seen.iter().filter_map(movie).collect()
    }

    fn position(&self) -> i64 {
        self.seen.lock().unwrap().last().map_or(0, |u| u.position)
    }
}

#[tonic::async_trait]
impl Follower for Region {
    async fn position(&self) -> anyhow::Result<i64> {
        Ok(Region::position(self))
    }

    async fn apply(&self, updates: Vec<Update>) -> anyhow::Result<()> {
        for update in updates {
            apply_to_authority(&self.authority, &update).await?;
            self.seen.lock().unwrap().push(update);
        }
        Ok(())
    }

    fn connection(&self, _fault: Option<String>) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_sees_authority_and_catalogue_in_order_and_goes_on_where_it_was() {
    let (_postgres, s) = start().await;
    let root = s.token("root").await;
    let film = s.post("/v1/movies", &root, json!({"title": "Following"})).await.expect(201);

    let stop = CancellationToken::new();
    let eu = Region::follow(&s, 0, &stop);
    eventually("policy and keys", async || eu.authority.ready()).await;
    let actor = eu.authority.authenticate(&root).unwrap();
    assert!(eu.authority.may(&actor, Some(&"eu".parse().unwrap()), "show", "write"));
    eventually("the backlog", async || eu.movies().len() == 1).await;
    assert_eq!(eu.movies()[0].movie_id, film.text("id"));

    // Live: a change, a deletion, a rule, an ended session, a disabled user, each in well under five seconds.
    let path = format!("/v1/movies/{}", film.text("id"));
    let started = Instant::now();
    s.patch(&path, &root, json!({"runtime_min": 69})).await.expect(200);
    eventually("the change", async || eu.movies().last().unwrap().runtime_min == 69).await;
    s.delete(&path, &root).await.expect(204);
    eventually("the deletion", async || eu.movies().last().unwrap().deleted).await;

    let ann = s.sign_up("ann").await;
    let (first, second) = (s.token("ann").await, s.token("ann").await);
    eu.authority.authenticate(&first).unwrap();
    s.post("/v1/auth/logout", &first, json!({})).await.expect(204);
    eventually("the ended session", async || eu.authority.authenticate(&first).is_err()).await;
    eu.authority.authenticate(&second).unwrap();
    let rule = json!({"role": "customer", "region": "eu", "resource": "show", "action": "block"});
    s.post("/v1/policies", &root, rule).await.expect(201);
    let actor = eu.authority.authenticate(&second).unwrap();
    eventually("the rule", async || eu.authority.may(&actor, Some(&"eu".parse().unwrap()), "show", "block"))
        .await;
    s.post(&format!("/v1/users/{ann}/disable"), &root, json!({})).await.expect(200);
    eventually("the disabled user", async || eu.authority.authenticate(&second).is_err()).await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());

    let positions: Vec<i64> = eu.seen.lock().unwrap().iter().map(|u| u.position).collect();
    assert!(positions.is_sorted(), "{positions:?}");

    // One who comes back gets only what is new, and authority whole; an ended session is still known to
    // one who starts over.
    let us = Region::follow(&s, eu.position(), &stop);
    let ap = Region::follow(&s, 0, &stop);
    eventually("a second follower", async || us.authority.ready()).await;
    eventually("a third follower", async || {
        ap.authority.ready() && ap.authority.authenticate(&first).is_err()
    })
    .await;
    s.post("/v1/movies", &root, json!({"title": "Slam"})).await.expect(201);
    eventually("the new film", async || us.movies().len() == 1).await;
    assert_eq!(us.movies()[0].title, "Slam");
    eventually("both films", async || ap.movies().len() == 2).await;
    stop.cancel();
    s.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_backlog_comes_whole_while_it_changes() {
    let (_postgres, s) = start().await;
    let root = s.token("root").await;
    let csv: String =
        std::iter::once("title\n".to_owned()).chain((0..3000).map(|i| format!("Film {i}\n"))).collect();
    let stop = CancellationToken::new();
    let eu = Region::follow(&s, 0, &stop);
    let import = s.request(Method::POST, "/v1/movies/import", Some(&root)).header("content-type", "text/csv");
    s.send(import.body(csv.clone())).await.expect(200);
    let us = Region::follow(&s, 0, &stop);
    let update =
        csv.replace("title\n", "title,genre\n").replace("\nFilm 1", "\nX,\nFilm 1").replace('\n', ",Drama\n");
    let update = update.replacen("title,genre,Drama", "title,genre", 1).replace("X,,Drama\n", "");
    let import = s.request(Method::POST, "/v1/movies/import", Some(&root)).header("content-type", "text/csv");
    let report = s.send(import.body(update)).await.expect(200);
    assert_eq!(report.body["updated"], 3000, "{}", report.body["rows"][0]);
    let complete = |region: &Region| {
        let films: std::collections::HashMap<String, Movie> =
            region.movies().into_iter().map(|m| (m.movie_id.clone(), m)).collect();
        films.len() == 3000 && films.values().all(|m| m.genre == "Drama")
    };
    eventually("all films, at eu", async || complete(&eu)).await;
    eventually("all films, at us", async || complete(&us)).await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_act_on_each_others_changes() {
    let (postgres, one) = start().await;
    let two = Service::start(config(&postgres.url("global"))).await;
    let root = one.token("root").await;
    two.get("/v1/users", &root).await.expect(200);
    two.post("/v1/auth/logout", &root, json!({})).await.expect(204);
    let started = Instant::now();
    eventually("the other's logout", async || one.get("/v1/users", &root).await.status == 401).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    one.stop().await;
    two.token("root").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_beats_and_finds_films() {
    let (_postgres, s) = start().await;
    let root = s.token("root").await;
    let film =
        s.post("/v1/movies", &root, json!({"title": "Following", "cast": ["A", "B"]})).await.expect(201);
    let mut client =
        FeedClient::new(Tls::plain().channel(&format!("http://{}", s.config.grpc_listen), "").unwrap());
    let found = client.get_movie(GetMovieRequest { movie_id: film.text("id") }).await.unwrap().into_inner();
    assert_eq!((found.title.as_str(), found.cast.len(), found.deleted), ("Following", 2, false));
    for missing in ["mov_x", "", &common::MovieId::new().to_string()] {
        let status = client.get_movie(GetMovieRequest { movie_id: missing.into() }).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound);
    }

    // Who says to be ahead of all (the database was restored) starts over; who wants no films gets none, but
    // the position all the same.
    let request =
        FollowRequest { follower: "test".into(), after: 1_000_000, movies: false, month_keys: false };
    let mut updates = client.follow(request).await.unwrap().into_inner();
    let mut beats = 0;
    while beats < 2 {
        let update = tokio::time::timeout(Duration::from_secs(3), updates.message()).await.unwrap();
        let update = update.unwrap().unwrap();
        match update.update.unwrap() {
            Kind::Heartbeat(_) if update.position == 4 => beats += 1,
            Kind::Movie(_) => panic!("no films were wanted"),
            _ => assert!(update.position <= 4),
        }
    }
}
