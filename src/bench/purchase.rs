//! `marquee bench purchase`: how many purchases a second go through one gateway.
//!
//! A closed loop: each client waits for its answer before it goes on, so that a slow platform is asked less,
//! and the latencies are those of a platform at the load it can bear, not beyond. One purchase is a
//! reservation of one seat and its payment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::stream::{self, StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::json;

use super::seats::Seats;
use crate::api::{Api, Failure};
use crate::launcher::{Progress, Run};

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub clients: usize,
    pub duration: Duration,
}

/// What was seen.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub gateway: String,
    pub loop_kind: &'static str,
    pub clients: usize,
    pub seconds: f64,
    pub shows: usize,
    pub purchases: u64,
    pub purchases_per_second: f64,
    /// Milliseconds, by step: `reserve`, `pay` and the whole `purchase`.
    pub latency_ms: BTreeMap<&'static str, Latency>,
    /// Steps that failed, by the problem's code.
    pub errors: BTreeMap<String, u64>,
    /// The free seats ran out before the time did.
    pub sold_out: bool,
}

#[derive(Debug, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

/// One client's own books, added up at the end.
struct Books {
    reserve: Histogram<u64>,
    pay: Histogram<u64>,
    purchase: Histogram<u64>,
    errors: BTreeMap<String, u64>,
    sold_out: bool,
}

impl Books {
    fn new() -> anyhow::Result<Self> {
        // Microseconds up to two minutes, three digits.
        let histogram = || Histogram::new_with_bounds(1, 120_000_000, 3);
        Ok(Self {
            reserve: histogram()?,
            pay: histogram()?,
            purchase: histogram()?,
            errors: BTreeMap::new(),
            sold_out: false,
        })
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.reserve.add(&other.reserve)?;
        self.pay.add(&other.pay)?;
        self.purchase.add(&other.purchase)?;
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
        self.sold_out |= other.sold_out;
        Ok(())
    }

    fn failed(&mut self, failure: &Failure) {
        *self.errors.entry(failure.code().to_owned()).or_default() += 1;
    }
}

pub async fn purchases(run: &Run, plan: Plan, progress: &Progress) -> anyhow::Result<Outcome> {
    let (region, gateway) = run.gateways.iter().next().context("the platform has no gateway")?;
    let api = Api::new(gateway)?;
    progress.add_total(plan.clients as u64 + plan.duration.as_secs());
    progress.message("customers sign up");
    let customers = sign_up(&api, plan.clients, progress).await?;
    progress.message("looking at seat maps");
    let seats = Arc::new(Seats::free(&api).await?);
    let shows = seats.shows();
    anyhow::ensure!(shows > 0, "no show with free seats was found; start the platform with its demo data");

    progress.line(&format!("{} customers buy through {region}, seats of {shows} shows", plan.clients));
    let bought = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let until = started + plan.duration;
    let clients: Vec<_> = customers
        .into_iter()
        .map(|api| tokio::spawn(client(api.impatient(), seats.clone(), until, bought.clone())))
        .collect();
    for second in 1..=plan.duration.as_secs() {
        tokio::time::sleep_until((started + Duration::from_secs(second)).into()).await;
        progress.tick(1);
        progress.message(&format!("{} purchases", bought.load(Ordering::Relaxed)));
    }
    let mut books = Books::new()?;
    for client in clients {
        books.add(&client.await.context("a client panicked")??)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let purchases = books.purchase.len();
    Ok(Outcome {
        gateway: gateway.clone(),
        loop_kind: "closed",
        clients: plan.clients,
        seconds,
        shows,
        purchases,
        purchases_per_second: purchases as f64 / seconds,
        latency_ms: [
            ("reserve", latency(&books.reserve)),
            ("pay", latency(&books.pay)),
            ("purchase", latency(&books.purchase)),
        ]
        .into(),
        errors: books.errors,
        sold_out: books.sold_out,
    })
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    let ms = |micros: u64| micros as f64 / 1000.0;
    Latency {
        p50: ms(histogram.value_at_quantile(0.5)),
        p90: ms(histogram.value_at_quantile(0.9)),
        p99: ms(histogram.value_at_quantile(0.99)),
        max: ms(histogram.max()),
    }
}

pub(super) async fn sign_up(api: &Api, clients: usize, progress: &Progress) -> anyhow::Result<Vec<Api>> {
    let run: u32 = rand::random();
    stream::iter(0..clients)
        .map(|i| async move {
            let (username, password) =
                (format!("bench-{run:08x}-{i}"), format!("{:032x}", rand::random::<u128>()));
            let body = json!({
                "email": format!("{username}@marquee.example"), "username": username, "name": "Bench",
                "password": password,
            });
            api.post("/v1/auth/signup", &body).await?;
            let customer = api.signed_in(&username, &password).await?;
            progress.tick(1);
            Ok::<_, Failure>(customer)
        })
        .buffered(8)
        .try_collect()
        .await
        .context("the bench's customers")
}

async fn client(
    api: Api,
    seats: Arc<Seats>,
    until: Instant,
    bought: Arc<AtomicU64>,
) -> anyhow::Result<Books> {
    let mut books = Books::new()?;
    while Instant::now() < until {
        let Some((show, seat)) = seats.take() else {
            books.sold_out = true;
            break;
        };
        match purchase(&api, &show, &seat, &mut books).await {
            Ok(()) => {
                bought.fetch_add(1, Ordering::Relaxed);
            }
            Err(failure) => books.failed(&failure),
        }
    }
    Ok(books)
}

async fn purchase(api: &Api, show: &str, seat: &str, books: &mut Books) -> Result<(), Failure> {
    let started = Instant::now();
    let seats = json!({"seats": [{"seat": seat, "category": "adult"}]});
    let reservation = api.post(&format!("/v1/shows/{show}/reservations"), &seats).await?;
    books.reserve.saturating_record(micros(started));
    let id = reservation["id"].as_str().unwrap_or_default();
    let paying = Instant::now();
    let card = json!({"method": "card", "token": "tok_ok"});
    let payment = api.post(&format!("/v1/reservations/{id}/payments"), &card).await?;
    books.pay.saturating_record(micros(paying));
    if payment["status"] == "completed" {
        books.purchase.saturating_record(micros(started));
    } else {
        let status = payment["status"].as_str().unwrap_or("unknown");
        *books.errors.entry(format!("payment-{status}")).or_default() += 1;
    }
    Ok(())
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
