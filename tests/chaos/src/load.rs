//! Customers: so many commands a second are begun whether or not earlier ones were answered, up to a bound. They
//! reserve, pay, cancel and look, through the gateway of their region or of another; what stayed unknown is asked
//! again under its key, as any careful client does.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use common::ShowId;
use marquee::api::Api;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::record::{Attempt, Kind, Outcome, Record, digest};
use crate::stage::Stage;

/// Commands that wait for an answer at once.
const UNDER_WAY: usize = 400;
/// A customer waits so long, longer than any gateway.
const PATIENCE: Duration = Duration::from_secs(12);
/// What is unknown is asked again after this.
const AGAIN_AFTER: Duration = Duration::from_millis(1500);
/// Of 100 commands so many are for the show that everybody wants.
const HOT: u32 = 30;
const TICK: Duration = Duration::from_millis(20);
/// Well below the life of an access token.
const SIGN_IN_EVERY: Duration = Duration::from_secs(120);

pub struct Load {
    pub stage: Stage,
    pub record: Record,
    http: reqwest::Client,
    /// Of customers, by place.
    tokens: RwLock<Vec<String>>,
    rng: Mutex<StdRng>,
    held: Mutex<Vec<Held>>,
    unknown: Mutex<Vec<Wish>>,
    next: AtomicU64,
    under_way: AtomicUsize,
    /// Not begun, since too many waited.
    pub left_out: AtomicU32,
}

/// A reservation that a customer has.
#[derive(Clone, Debug)]
struct Held {
    show: ShowId,
    id: String,
    customer: usize,
    paid: bool,
}

/// One command, to be repeated to the letter until its outcome is known.
#[derive(Clone, Debug)]
struct Wish {
    kind: Kind,
    show: ShowId,
    customer: usize,
    path: String,
    body: Value,
    key: String,
    reservation: Option<Held>,
    asked_at: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while holding it")
}

impl Load {
    pub fn new(stage: Stage, seed: u64) -> anyhow::Result<Arc<Self>> {
        let http = reqwest::Client::builder()
            .timeout(PATIENCE)
            .connect_timeout(Duration::from_secs(2))
            .no_proxy()
            .build()?;
        Ok(Arc::new(Self {
            tokens: RwLock::new(stage.customers.iter().map(|customer| customer.token.clone()).collect()),
            stage,
            record: Record::new(),
            http,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            held: Mutex::default(),
            unknown: Mutex::default(),
            next: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            left_out: AtomicU32::new(0),
        }))
    }

    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Commands without an answer yet, and outcomes that are to be asked for again.
    pub fn waiting(&self) -> (usize, usize) {
        (self.under_way.load(Ordering::Relaxed), lock(&self.unknown).len())
    }

    /// Commands at this rate until `stop`.
    pub async fn go_on(self: Arc<Self>, rate: u32, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (began, mut begun) = (Instant::now(), 0_u64);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
            // A pause of this process is not made up for by a burst.
            let now = (due - begun).min(u64::from(rate) / 5 + 1);
            begun = due;
            for _ in 0..now {
                self.begin();
            }
        }
    }

    /// Keeps every customer signed in.
    pub async fn stay_signed_in(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SIGN_IN_EVERY) => {}
            }
            for no in 0..self.stage.customers.len() {
                let gateway = &self.stage.gateways[no % self.stage.gateways.len()];
                let Ok(api) = Api::new(gateway) else { continue };
                let (name, password) = (&self.stage.customers[no].name, &self.stage.customers[no].password);
                let Ok(api) = api.impatient().signed_in(name, password).await else { continue };
                if let (Some(token), Ok(mut tokens)) = (api.token(), self.tokens.write()) {
                    token.clone_into(&mut tokens[no]);
                }
            }
        }
    }

    fn begin(self: &Arc<Self>) {
        if self.under_way.load(Ordering::Relaxed) >= UNDER_WAY {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let wish = self.old_wish().unwrap_or_else(|| self.new_wish());
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let load = self.clone();
        tokio::spawn(async move {
            load.ask(wish).await;
            load.under_way.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// One whose outcome is unknown for a while.
    fn old_wish(&self) -> Option<Wish> {
        let mut unknown = lock(&self.unknown);
        let ripe = unknown.iter().position(|wish| wish.asked_at + AGAIN_AFTER <= self.record.now())?;
        Some(unknown.swap_remove(ripe))
    }

    fn new_wish(&self) -> Wish {
        let mut rng = lock(&self.rng);
        let no = self.next.fetch_add(1, Ordering::Relaxed);
        let kind = match rng.random_range(0..100) {
            0..50 => Kind::Reserve,
            50..72 => Kind::Pay,
            72..92 => Kind::Cancel,
            _ => Kind::Look,
        };
        let reservation = match kind {
            Kind::Pay => self.take_held(&mut rng, false),
            Kind::Cancel => self.take_held(&mut rng, true),
            _ => None,
        };
        let key = format!("chaos-{no}");
        let (kind, show, customer, path, body) = match (kind, &reservation) {
            (Kind::Pay, Some(held)) => {
                let token = if rng.random_range(0..10) == 0 { "tok_late" } else { "tok_ok" };
                let body = json!({"method": "card", "token": token});
                (kind, held.show, held.customer, format!("/v1/reservations/{}/payments", held.id), body)
            }
            (Kind::Cancel, Some(held)) => {
                (kind, held.show, held.customer, format!("/v1/reservations/{}/cancel", held.id), json!({}))
            }
            _ => {
                let kind = if kind == Kind::Look { Kind::Look } else { Kind::Reserve };
                let shows = &self.stage.shows;
                let hot = rng.random_range(0..100) < HOT;
                let show = if hot { shows[0] } else { shows[rng.random_range(1..shows.len())] };
                let customer = rng.random_range(0..self.stage.customers.len());
                match kind {
                    Kind::Look => (kind, show, customer, format!("/v1/shows/{show}/seats"), Value::Null),
                    _ => (kind, show, customer, format!("/v1/shows/{show}/reservations"), seats(&mut rng)),
                }
            }
        };
        Wish { kind, show, customer, path, body, key, reservation, asked_at: Duration::ZERO }
    }

    /// A reservation that nobody does anything about now.
    fn take_held(&self, rng: &mut StdRng, paid_too: bool) -> Option<Held> {
        let mut held = lock(&self.held);
        if held.is_empty() {
            return None;
        }
        let from = rng.random_range(0..held.len());
        let no = (from..held.len()).chain(0..from).find(|no| paid_too || !held[*no].paid)?;
        Some(held.swap_remove(no))
    }

    async fn ask(&self, mut wish: Wish) {
        let gateways = self.stage.gateways.len();
        // Mostly their own region's; a repeat goes anywhere.
        let repeat = wish.asked_at != Duration::ZERO;
        let gateway = {
            let mut rng = lock(&self.rng);
            if repeat || rng.random_range(0..5) == 0 {
                rng.random_range(0..gateways)
            } else {
                wish.customer % gateways
            }
        };
        let url = format!("{}{}", self.stage.gateways[gateway], wish.path);
        let token = self.tokens.read().map(|tokens| tokens[wish.customer].clone()).unwrap_or_default();
        let request = match wish.kind {
            Kind::Look => self.http.get(url).bearer_auth(token),
            _ => {
                let key = wish.key.as_str();
                self.http.post(url).bearer_auth(token).header("idempotency-key", key).json(&wish.body)
            }
        };
        let start = self.record.now();
        let outcome = outcome(wish.kind, request.send().await).await;
        let end = self.record.now();
        let keyed = wish.kind != Kind::Look;
        let attempt = Attempt {
            client: u32::try_from(wish.customer).unwrap_or(u32::MAX),
            show: wish.show,
            key: keyed.then(|| digest(&self.stage.customers[wish.customer].id, &wish.key)),
            kind: wish.kind,
            gateway,
            start,
            end,
            outcome: outcome.clone(),
        };
        self.record.add(attempt);
        wish.asked_at = end;
        self.settle(wish, &outcome);
    }

    fn settle(&self, wish: Wish, outcome: &Outcome) {
        let Wish { kind, show, customer, .. } = wish;
        match (kind, outcome) {
            (Kind::Look, _) => {}
            (_, Outcome::Unknown { .. }) => lock(&self.unknown).push(wish),
            (Kind::Reserve, Outcome::Ok { id, .. }) => {
                lock(&self.held).push(Held { show, id: id.clone(), customer, paid: false });
            }
            (Kind::Pay, Outcome::Ok { status, .. }) => {
                let paid = status == "completed";
                lock(&self.held).extend(wish.reservation.map(|held| Held { paid, ..held }));
            }
            (Kind::Reserve | Kind::Pay | Kind::Cancel, _) => {}
        }
    }

    /// Asks for everything that is unknown until nothing is, or time is up. Answers how many are left.
    pub async fn settle_all(&self, within: Duration) -> usize {
        let deadline = Instant::now() + within;
        while self.under_way.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        loop {
            let open = std::mem::take(&mut *lock(&self.unknown));
            if open.is_empty() || Instant::now() >= deadline {
                return open.len();
            }
            futures::future::join_all(open.into_iter().map(|wish| self.ask(wish))).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

/// Most leave the choice to the house; some want the very seats that others want.
fn seats(rng: &mut StdRng) -> Value {
    if rng.random_range(0..3) > 0 {
        return json!({"best": {"count": rng.random_range(1..=2), "category": "adult"}});
    }
    let row = char::from(b'A' + rng.random_range(0..26));
    let first = rng.random_range(1..40);
    let seat = |number: u32| json!({"seat": format!("{row}{number}"), "category": "adult"});
    json!({"seats": [seat(first), seat(first + 1)]})
}

async fn outcome(kind: Kind, answer: Result<reqwest::Response, reqwest::Error>) -> Outcome {
    let unknown = |why: &str| Outcome::Unknown { why: why.to_owned() };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) if error.is_timeout() => return unknown("no answer in time"),
        Err(error) if error.is_connect() => return unknown("no connection"),
        Err(_) => return unknown("the connection broke"),
    };
    let (status, headers) = (answer.status(), answer.headers().clone());
    let Ok(bytes) = answer.bytes().await else { return unknown("the answer broke off") };
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let done = |id: &Value, status: &Value| Outcome::Ok {
        epoch: header("x-show-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
        id: id.as_str().unwrap_or_default().to_owned(),
        status: status.as_str().unwrap_or_default().to_owned(),
        replayed: header("idempotent-replayed") == Some("true"),
    };
    let code = body["code"].as_str().unwrap_or_default();
    match status {
        status if status.is_success() => done(&body["id"], &body["status"]),
        StatusCode::PAYMENT_REQUIRED if kind == Kind::Pay => done(&body["payment_id"], &json!("failed")),
        // Somebody else is at it under the same key; how it ends is not known yet.
        StatusCode::CONFLICT if code == "idempotency-key-in-flight" => unknown(code),
        StatusCode::CONFLICT | StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => {
            Outcome::Refused { code: code.to_owned() }
        }
        other => unknown(&format!("{} {code}", other.as_u16())),
    }
}
