//! What is measured on: a thousand shows, some customers, a registry that is followed, and the regions' databases;
//! and what every part does with them: give shows to a region, bring a region back, wait for rest.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use common::tls::Certificates;
use common::{RegionName, ShowId};
use futures::{StreamExt, TryStreamExt, stream};
use marquee::api::Api;
use marquee::launcher::{Place, Platform, Sites};
use raft::client::{RegionState, RegistryClient, RegistryError, RegistryView};
use regional::verify::Store;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::HOT;
use crate::journals;
use crate::rooms::{REGIONS, Rooms};
use crate::stage::{self, Customer};

const CUSTOMERS: usize = 16;
const PARALLEL: usize = 64;
/// Registrations under way: each waits for two ways across the network.
const REGISTERING: usize = 512;
const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(20);
/// Of the machine's time, when nothing is under way any more.
const AT_REST: f64 = 0.15;

pub struct Ground {
    pub platform: Platform,
    pub sites: Sites,
    /// By place.
    pub gateways: Vec<String>,
    pub stores: Vec<Store>,
    /// Wanted ones, of a hundred seats each.
    pub shows: Vec<ShowId>,
    pub registry: RegistryClient,
    pub view: RegistryView,
    pub http: reqwest::Client,
    movie: String,
    customers: Vec<Customer>,
    tokens: RwLock<Vec<String>>,
    next: AtomicUsize,
    _stops: DropGuard,
}

pub fn region(place: usize) -> RegionName {
    REGIONS[place].parse().expect("a region's name")
}

/// Customers' answers, and what became of the rest.
pub struct Asked {
    pub ok: bool,
    /// The problem's code, or what kept an answer away.
    pub why: String,
    pub id: String,
}

impl Ground {
    pub async fn prepare(platform: &Platform, rooms: &Rooms) -> anyhow::Result<Self> {
        let run = platform.run();
        let gateways: Vec<String> = REGIONS.iter().map(|region| run.gateways[*region].clone()).collect();
        let admin = signed_in(platform, &gateways[0]).await?;
        let movie = stage::film(&admin).await?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(12)).no_proxy().build()?;
        let (registry, stop) = (registry(platform, &admin).await?, CancellationToken::new());
        let view = registry.watch(stop.clone());
        view.synced().await;
        let apis: Vec<Api> = gateways.iter().map(|gateway| Api::new(gateway)).collect::<Result<_, _>>()?;
        let customers = stream::iter(0..CUSTOMERS).map(|no| stage::customer(&apis[no % apis.len()], no));
        let customers: Vec<Customer> = customers.buffer_unordered(4).try_collect().await?;
        let mut ground = Self {
            platform: platform.clone(),
            sites: rooms.sites.clone(),
            stores: journals::stores(&run)?,
            shows: Vec::new(),
            registry,
            view,
            http,
            movie,
            tokens: RwLock::new(customers.iter().map(|customer| customer.token.clone()).collect()),
            customers,
            next: AtomicUsize::new(0),
            gateways,
            _stops: stop.drop_guard(),
        };
        ground.shows = ground.make_shows(0, HOT, (10, 10)).await?;
        crate::say(&format!("{HOT} shows are there"));
        Ok(ground)
    }

    /// So many shows in a hall of their own in a region, of so many rows and seats.
    pub async fn make_shows(
        &self,
        place: usize,
        count: usize,
        (rows, seats): (u32, u32),
    ) -> anyhow::Result<Vec<ShowId>> {
        let admin = signed_in(&self.platform, &self.gateways[place]).await?;
        shows(&admin, place, &self.movie, count, (rows, seats)).await
    }

    /// Makes shows known to the registry, spread over the regions; nobody sells them.
    pub async fn register(&self, count: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        let homes: Vec<RegionName> = (0..REGIONS.len()).map(region).collect();
        let made = stream::iter(0..count).map(|no| {
            let home = homes[no % homes.len()].clone();
            async move { self.registry.create_show(ShowId::new(&home), &home).await.map(drop) }
        });
        made.buffer_unordered(REGISTERING).try_collect::<()>().await?;
        crate::say(&format!(
            "{count} shows more are registered after {:.0} s",
            began.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// One request of a customer's at a place's gateway, under a key.
    pub async fn ask(&self, place: usize, customer: usize, path: &str, body: &Value, key: &str) -> Asked {
        let url = format!("{}{path}", self.gateways[place]);
        let token = self.token(customer);
        let request = self.http.post(url).bearer_auth(token).header("idempotency-key", key).json(body);
        let failed = |why: String| Asked { ok: false, why, id: String::new() };
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_timeout() => return failed("no answer in time".into()),
            Err(_) => return failed("no connection".into()),
        };
        let status: StatusCode = answer.status();
        let Ok(body) = answer.json::<Value>().await else { return failed("the answer broke off".into()) };
        if status.is_success() {
            return Asked {
                ok: true,
                why: String::new(),
                id: body["id"].as_str().unwrap_or_default().into(),
            };
        }
        failed(format!("{} {}", status.as_u16(), body["code"].as_str().unwrap_or_default()))
    }

    pub fn token(&self, customer: usize) -> String {
        self.tokens.read().map(|tokens| tokens[customer % tokens.len()].clone()).unwrap_or_default()
    }

    /// Any seat of a show.
    pub async fn reserve(&self, place: usize, customer: usize, show: ShowId, key: &str) -> Asked {
        let body = json!({"best": {"count": 1, "category": "adult"}});
        self.ask(place, customer, &format!("/v1/shows/{show}/reservations"), &body, key).await
    }

    /// A key that nobody has used.
    pub fn key(&self) -> String {
        format!("figures-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Customers' tokens live for ten minutes.
    pub async fn sign_in_again(&self) -> anyhow::Result<()> {
        let (api, mut fresh) = (Api::new(&self.gateways[0])?, Vec::new());
        for customer in &self.customers {
            let api = api.signed_in(&customer.name, &customer.password).await?;
            fresh.push(api.token().context("no token")?.to_owned());
        }
        *self.tokens.write().map_err(|_| anyhow::anyhow!("the tokens are lost"))? = fresh;
        Ok(())
    }

    /// One reservation of each show, so that their owner has them in memory.
    pub async fn warm(&self, place: usize) -> anyhow::Result<()> {
        let asked = stream::iter(self.shows.iter().enumerate()).map(async |(no, show)| {
            let asked = self.reserve(place, no, *show, &self.key()).await;
            ensure!(asked.ok, "{show} cannot be reserved: {}", asked.why);
            Ok(())
        });
        asked.buffer_unordered(PARALLEL).try_collect().await
    }

    /// Gives the wanted shows to a region, and waits until it leads them. Those that it has are ordered there too, so
    /// that they do not go home meanwhile.
    pub async fn give_all_to(&self, place: usize) -> anyhow::Result<()> {
        let to = region(place);
        let moved = stream::iter(self.shows.iter().copied()).map(async |show| {
            loop {
                let record = self.registry.get_show(show).await?.context("a show that is not registered")?;
                match self.registry.move_show(show, &to, record.epoch).await {
                    // Somebody else moved it meanwhile.
                    Err(RegistryError::Refused(why)) if why.code == "epoch-passed" => {}
                    moved => return anyhow::Ok((show, moved?.epoch)),
                }
            }
        });
        let epochs: Vec<(ShowId, u64)> = moved.buffer_unordered(PARALLEL).try_collect().await?;
        self.led(place, &epochs).await
    }

    /// Waits until a region's store holds an entry of each show at its epoch, which is the first of its leader.
    pub async fn led(&self, place: usize, epochs: &[(ShowId, u64)]) -> anyhow::Result<()> {
        let ids: Vec<Uuid> = epochs.iter().map(|(show, _)| show.0).collect();
        let wanted: Vec<i64> = epochs.iter().map(|(_, epoch)| epoch.cast_signed()).collect();
        let select = "SELECT count(*) FROM show_head h JOIN unnest($1::uuid[], $2::bigint[]) AS w (id, epoch)
                          ON h.show_id = w.id AND h.accepted_epoch >= w.epoch";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let led: i64 =
                self.stores[place].pool.get().await?.query_one(select, &[&ids, &wanted]).await?.get(0);
            if usize::try_from(led) == Ok(epochs.len()) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{} leads {led} of {} shows only",
                REGIONS[place],
                epochs.len()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// kill -9 of all of a region; answers when.
    pub async fn lose(&self, place: usize) -> anyhow::Result<Instant> {
        let began = Instant::now();
        self.platform.kill(&Place::Region(region(place)), None).await?;
        Ok(began)
    }

    /// Starts a region again and waits until shows may be given to it.
    pub async fn bring_back(&self, place: usize) -> anyhow::Result<()> {
        self.platform.start_part(&Place::Region(region(place)), None).await?;
        let (name, deadline) = (region(place), Instant::now() + PATIENCE);
        while !self.view.regions().iter().any(|r| r.name == name && r.state == RegionState::Up) {
            ensure!(Instant::now() < deadline, "{name} is not up again");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until the machine has next to nothing to do.
    pub async fn rest(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (mut before, mut quiet) = (busy()?, 0);
        while quiet < 2 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let now = busy()?;
            let (busy, all) = (now.0 - before.0, now.1 - before.1);
            quiet = if busy < AT_REST * all { quiet + 1 } else { 0 };
            before = now;
        }
        ensure!(quiet == 2, "the machine does not come to rest within {PATIENCE:?}");
        Ok(())
    }
}

/// The machine's time so far: busy, and all.
fn busy() -> anyhow::Result<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let first = text.lines().next().context("an empty /proc/stat")?;
    let times: Vec<f64> = first.split_whitespace().skip(1).filter_map(|time| time.parse().ok()).collect();
    ensure!(times.len() > 4, "/proc/stat has another form");
    let all: f64 = times.iter().sum();
    // Idle, and waiting for a disk.
    Ok((all - times[3] - times[4], all))
}

pub async fn signed_in(platform: &Platform, gateway: &str) -> anyhow::Result<Api> {
    let run = platform.run();
    let account = run.account("admin").context("run.json names no admin")?;
    Ok(Api::new(gateway)?.signed_in(&account.username, &account.password).await?)
}

/// Makes shows in a new hall, each of so many rows and seats.
pub async fn shows(
    admin: &Api,
    place: usize,
    movie: &str,
    count: usize,
    (rows, seats): (u32, u32),
) -> anyhow::Result<Vec<ShowId>> {
    let cinema = stage::cinema(admin, place, movie).await?;
    let grid = json!({"name": "Hall", "grid": {"rows": rows, "seats": seats}});
    let hall = Arc::new(stage::id(&admin.post(&format!("/v1/cinemas/{cinema}/halls"), &grid).await?)?);
    let count = u32::try_from(count)?;
    let made = stream::iter(0..count).map(|no| {
        let hall = hall.clone();
        async move { stage::show(admin, &hall, movie, no).await }
    });
    made.buffer_unordered(PARALLEL / 4).try_collect().await
}

/// As the first region's process would speak to it, with its certificate.
async fn registry(platform: &Platform, admin: &Api) -> anyhow::Result<RegistryClient> {
    let folder = platform.data().join("servers").join(format!("regional-{}", REGIONS[0]));
    let file = |name: &str| folder.join(name);
    let certificates =
        Certificates { ca_file: file("ca.pem"), cert_file: file("cert.pem"), key_file: file("key.pem") };
    let cluster = admin.get("/v1/cluster").await?;
    let members = cluster["registry"]["members"].as_array().context("a cluster without voters")?;
    let urls: Vec<String> = members.iter().filter_map(|m| m["url"].as_str().map(str::to_owned)).collect();
    RegistryClient::new(&urls, &certificates.load()?)
}
