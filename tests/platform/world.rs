//! The platform under test as the journeys see it: its gateways, its people, and the means to make more
//! of both. Everything is learnt from `run.json`, as anybody's script would.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use marquee::launcher::{Place, Platform, Service};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Client, text};

/// The content of `run.json`, which others read too; written down here on purpose, not taken from the
/// launcher's types, so that a change of the file's form shows.
#[derive(Clone, Debug, Deserialize)]
pub struct RunFile {
    pub gateways: BTreeMap<String, String>,
    /// By region (or `global`), then by service.
    pub operations: BTreeMap<String, BTreeMap<String, String>>,
    pub postgres: BTreeMap<String, String>,
    pub redis: BTreeMap<String, String>,
    pub processes: Vec<Process>,
    pub accounts: Vec<Account>,
    #[serde(default)]
    pub provider: Option<Provider>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    pub name: String,
    /// A region, or `global`.
    pub region: String,
    pub pid: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Account {
    pub username: String,
    pub password: String,
    pub role: String,
    pub region: Option<String>,
}

/// The stand-in for the card company, whose books the tests compare with the platform's.
#[derive(Clone, Debug, Deserialize)]
pub struct Provider {
    pub url: String,
    pub api_key: String,
}

/// Somebody with an account.
#[derive(Clone)]
pub struct Person {
    pub id: String,
    pub username: String,
    pub password: String,
    /// Signed in, at the gateway where they signed up.
    pub client: Client,
}

pub struct World {
    pub platform: Platform,
    pub data: PathBuf,
    /// Drawn once a run and printed; `E2E_SEED` repeats a run's choices.
    pub seed: u64,
    http: reqwest::Client,
    counter: AtomicU64,
}

impl World {
    pub fn new(platform: Platform, data: &Path, seed: u64) -> Self {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(128)
            .build()
            .expect("a plain client needs nothing");
        Self { platform, data: data.to_owned(), seed, http, counter: AtomicU64::new(0) }
    }

    pub fn run(&self) -> RunFile {
        let path = self.data.join("run.json");
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{} has another form: {e}", path.display()))
    }

    /// A client of a region's gateway that is nobody yet.
    pub fn gateway(&self, region: &str) -> Client {
        let run = self.run();
        let url = run.gateways.get(region).unwrap_or_else(|| panic!("no gateway in {region}"));
        Client::new(self.http.clone(), url)
    }

    /// A client of a service's operations port.
    pub fn operations(&self, region: &str, service: &str) -> Client {
        let run = self.run();
        let url = run.operations.get(region).and_then(|services| services.get(service));
        Client::new(
            self.http.clone(),
            url.unwrap_or_else(|| panic!("no operations port: {region} {service}")),
        )
    }

    /// Each service that looks at tokens, by its own address, past the gateways: `global`, `regional-eu` …
    pub fn services(&self) -> BTreeMap<String, Client> {
        let ports = std::fs::read(self.data.join("ports.json")).expect("ports.json");
        let ports: BTreeMap<String, u16> = serde_json::from_slice(&ports).expect("names and ports");
        let of = |name: String| {
            let client = Client::new(self.http.clone(), &format!("http://127.0.0.1:{}", ports[&name]));
            (name, client)
        };
        let regions = self.run().gateways.into_keys();
        std::iter::once("global".to_owned()).chain(regions.map(|r| format!("regional-{r}"))).map(of).collect()
    }

    /// One of the platform's secrets, as its operator has them.
    pub fn secret(&self, name: &str) -> String {
        let secrets = std::fs::read(self.data.join("secrets.json")).expect("secrets.json");
        let secrets: BTreeMap<String, String> = serde_json::from_slice(&secrets).expect("names and secrets");
        secrets[name].clone()
    }

    /// A client of the card company; `None` when `run.json` does not tell where it is.
    pub fn provider(&self) -> Option<Client> {
        let provider = self.run().provider?;
        Some(Client::new(self.http.clone(), &provider.url).bearing(&provider.api_key))
    }

    /// A name that nobody else in this run has.
    pub fn fresh(&self, prefix: &str) -> String {
        format!("{prefix}{:06x}n{}", self.seed & 0xff_ffff, self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// A new customer, signed in at the region's gateway.
    pub async fn customer(&self, region: &str) -> Person {
        let gateway = self.gateway(region);
        let username = self.fresh("guest");
        let (email, password) = (format!("{username}@example.org"), format!("a film a day, {username}"));
        let user = gateway
            .post(
                "/v1/auth/signup",
                json!({"email": email, "username": username, "name": "Guest", "password": password}),
            )
            .await
            .ok(201);
        let client = self.sign_in(region, &username, &password).await;
        Person { id: text(&user, "id"), username, password, client }
    }

    pub async fn sign_in(&self, region: &str, username: &str, password: &str) -> Client {
        let gateway = self.gateway(region);
        let form = json!({"grant_type": "password", "username": username, "password": password});
        let call = gateway.post("/v1/auth/token", form);
        // A gateway leaves a `global` that was away alone for a moment, and says so.
        let answer = until("an answer to a sign-in", Duration::from_secs(15), async || {
            let answer = call.attempt().await.ok()?;
            (answer.code() != 503).then_some(answer)
        });
        let tokens = answer.await.ok(200);
        gateway.bearing(&text(&tokens, "access_token"))
    }

    /// One of the platform's own accounts, signed in at its region's gateway (or `eu`'s, or the only one).
    pub async fn staff(&self, role: &str, region: Option<&str>) -> Client {
        let run = self.run();
        let account = run
            .accounts
            .iter()
            .find(|a| a.role == role && (region.is_none() || a.region.as_deref() == region))
            .unwrap_or_else(|| panic!("run.json has no account of role {role} in {region:?}"));
        let near = region.unwrap_or_else(|| run.gateways.keys().next().expect("at least one gateway"));
        self.sign_in(near, &account.username, &account.password).await
    }

    /// A new person whom the admin gives these roles, signed in afterwards, so that the token has them.
    pub async fn appointed(&self, region: &str, roles: Value) -> Person {
        let mut person = self.customer(region).await;
        let admin = self.staff("admin", None).await;
        let path = format!("/v1/users/{}/roles", person.id);
        let answer = admin.call(reqwest::Method::PUT, &path).json(roles).await;
        assert!(answer.status.is_success(), "{answer}");
        person.client = self.sign_in(region, &person.username, &person.password).await;
        person
    }
}

/// Looks until there is something to see; fails, saying what was waited for, when `within` has passed.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(started.elapsed() < within, "waited {within:?} for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Tells where the run is; past the test harness's capture, since a run takes minutes.
pub fn step(line: &str) {
    use std::io::Write;
    // Nobody may be reading; that is no reason to fail.
    let _ = writeln!(std::io::stderr(), "      · {line}");
}

/// `kill -9` of a service, or of a whole region.
pub async fn kill(world: &World, place: &str, service: Option<&str>) {
    let (place, service) = part(place, service);
    let killed = world.platform.kill(&place, service).await;
    let killed = killed.unwrap_or_else(|e| panic!("{place} {service:?} cannot be killed: {e:#}"));
    assert!(!killed.is_empty(), "nothing of {place} {service:?} was running");
}

/// Starts what was killed; comes back when it is ready.
pub async fn start(world: &World, place: &str, service: Option<&str>) {
    let (place, service) = part(place, service);
    let started = world.platform.start_part(&place, service).await;
    started.unwrap_or_else(|e| panic!("{place} {service:?} does not start again: {e:#}"));
}

fn part(place: &str, service: Option<&str>) -> (Place, Option<Service>) {
    let place = place.parse().expect("a region or global");
    (place, service.map(|s| s.parse().expect("a service's name")))
}
