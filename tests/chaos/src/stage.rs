//! What is sold and who buys: cinemas, halls and twenty shows, one of them the one that everybody wants; and
//! customers with accounts. Made through the public API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use common::ShowId;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use marquee::api::Api;
use marquee::launcher::Run;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::rooms::REGIONS;

pub const SHOWS: usize = 20;
const CUSTOMERS: usize = 100;
const PARALLEL: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct Customer {
    /// As journals name them.
    pub id: String,
    pub name: String,
    pub password: String,
    pub token: String,
}

/// Asks what operators may know. A run lasts longer than an access token: it signs in again when that has run out.
#[derive(Clone)]
pub struct Operator {
    name: String,
    password: String,
    gateways: Vec<String>,
    token: Arc<Mutex<String>>,
}

impl Operator {
    pub async fn get(&self, http: &reqwest::Client, url: &str) -> Option<Value> {
        let ask = async || {
            let token = self.token().clone();
            http.get(url).bearer_auth(token).send().await.ok()
        };
        let mut answer = ask().await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.sign_in().await;
            answer = ask().await?;
        }
        answer.json().await.ok()
    }

    async fn sign_in(&self) {
        for gateway in &self.gateways {
            let Ok(api) = Api::new(gateway) else { continue };
            if let Ok(api) = api.impatient().signed_in(&self.name, &self.password).await
                && let Some(token) = api.token()
            {
                token.clone_into(&mut self.token());
                return;
            }
        }
    }

    fn token(&self) -> MutexGuard<'_, String> {
        self.token.lock().expect("no code panics while holding it")
    }
}

pub struct Stage {
    /// By place.
    pub gateways: Vec<String>,
    /// The first is the one that everybody wants.
    pub shows: Vec<ShowId>,
    pub customers: Vec<Customer>,
    pub operator: Operator,
}

impl Stage {
    pub async fn build(run: &Run) -> anyhow::Result<Self> {
        let gateways: Vec<String> = REGIONS.iter().map(|region| run.gateways[*region].clone()).collect();
        let account = run.account("admin").context("run.json names no admin")?;
        let admin = Api::new(&gateways[0])?.signed_in(&account.username, &account.password).await?;
        let movie = film(&admin).await?;
        let mut shows = Vec::new();
        for (place, gateway) in gateways.iter().enumerate() {
            shows.extend(region_shows(&admin.at(gateway), place, &movie).await?);
        }
        ensure!(shows.len() == SHOWS, "{} shows were made", shows.len());
        let apis: Vec<Api> = gateways.iter().map(|gateway| Api::new(gateway)).collect::<Result<_, _>>()?;
        let customers = stream::iter(0..CUSTOMERS).map(|no| customer(&apis[no % apis.len()], no));
        let customers = customers.buffer_unordered(PARALLEL).try_collect().await?;
        let token = admin.token().context("the admin has no token")?.to_owned();
        let operator = Operator {
            name: account.username.clone(),
            password: account.password.clone(),
            gateways: gateways.clone(),
            token: Arc::new(Mutex::new(token)),
        };
        Ok(Self { gateways, shows, customers, operator })
    }

    /// The places whose regions own the shows now, as `place`'s region has heard.
    pub async fn owners(&self, http: &reqwest::Client, place: usize) -> BTreeMap<ShowId, String> {
        let ask = |show: ShowId| async move {
            let url = format!("{}/v1/shows/{show}/ownership", self.gateways[place]);
            let answer = self.operator.get(http, &url).await?;
            Some((show, answer["owner"].as_str()?.to_owned()))
        };
        stream::iter(self.shows.iter().copied())
            .map(ask)
            .buffer_unordered(8)
            .filter_map(async |o| o)
            .collect()
            .await
    }
}

/// A film for all shows.
pub async fn film(admin: &Api) -> anyhow::Result<String> {
    let film = json!({"title": "A film", "release_date": "2026-01-01", "runtime_min": 100});
    id(&admin.post("/v1/movies", &film).await?)
}

/// A cinema in a region, once the region has heard of the film.
pub async fn cinema(api: &Api, place: usize, movie: &str) -> anyhow::Result<String> {
    let cinema = json!({
        "name": format!("Cinema {}", REGIONS[place]), "address": "1 Test Street", "latitude": 50.0, "longitude": 8.0,
        "time_zone": "Europe/Berlin", "currency": "EUR",
    });
    let deadline = Instant::now() + PATIENCE;
    // The film's news is on its way.
    while api.get(&format!("/v1/movies/{movie}")).await.is_err() {
        if Instant::now() > deadline {
            bail!("{} has not heard of the film", REGIONS[place]);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    id(&api.post("/v1/cinemas", &cinema).await?)
}

async fn region_shows(api: &Api, place: usize, movie: &str) -> anyhow::Result<Vec<ShowId>> {
    let cinema = cinema(api, place, movie).await?;
    let mut shows = Vec::new();
    for hall in 0..2 {
        // The first hall of all is the large one, with one show.
        let (rows, seats, count) = match (place, hall) {
            (0, 0) => (26, 50, 1),
            (_, 0) => (26, 40, 3),
            (0, _) => (26, 40, 5),
            _ => (26, 40, 4),
        };
        let grid = json!({"name": format!("Hall {hall}"), "grid": {"rows": rows, "seats": seats}});
        let hall = id(&api.post(&format!("/v1/cinemas/{cinema}/halls"), &grid).await?)?;
        for no in 0..count {
            shows.push(show(api, &hall, movie, no).await?);
        }
    }
    Ok(shows)
}

/// A hall's show by its number, every four hours.
pub async fn show(api: &Api, hall: &str, movie: &str, no: u32) -> anyhow::Result<ShowId> {
    let at = Timestamp::now() + SignedDuration::from_hours(48 + 4 * i64::from(no));
    let body = json!({
        "hall_id": hall, "movie_id": movie, "starts_at": Timestamp::from_second(at.as_second())?,
        "prices": [{"seat_type": "standard", "category": "adult", "amount": 1000}],
    });
    let show = id(&api.post("/v1/shows", &body).await?)?;
    show.parse().map_err(|_| anyhow::anyhow!("{show} is no show's id"))
}

pub async fn customer(api: &Api, no: usize) -> anyhow::Result<Customer> {
    let (username, password) = (format!("guest{no}"), format!("a film a day, {no}"));
    let body = json!({
        "email": format!("{username}@example.org"), "username": username, "name": "Guest", "password": password,
    });
    let user = api.post("/v1/auth/signup", &body).await?;
    let api = api.signed_in(&username, &password).await?;
    let token = api.token().context("no token")?.to_owned();
    Ok(Customer { id: id(&user)?, name: username, password, token })
}

pub fn id(answer: &Value) -> anyhow::Result<String> {
    answer["id"].as_str().map(str::to_owned).with_context(|| format!("an answer without an id: {answer}"))
}
