//! `marquee bench show mixed`: what an evening looks like, through a gateway. An open loop: visitors come at
//! a fixed rate, whoever waits, and each of their steps counts from when it should have begun.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use regional::bench::Seen;
use serde_json::Value;
use tokio::task::JoinSet;

use super::booking::two_seats;
use super::events;
use super::stage::Stage;
use super::wire::{Wire, Wires, get, post};
use crate::bench::turns::{Work, line_of};
use crate::bench::{Pace, Report};
use crate::launcher::Progress;

const SHOWS: usize = 40;
const SEATS: u32 = 300;
const CUSTOMERS: usize = 64;
/// Of a hundred visitors: so many look at the list of shows, so many at a seat map, so many watch one; the
/// rest reserve.
const LISTS: u32 = 15;
const MAPS: u32 = 60;
const WATCHES: u32 = 5;
/// Of a hundred that reserved: so many pay, so many give their seats up, the others let the time run out.
const PAY: u32 = 70;
const CANCEL: u32 = 15;

#[derive(Clone, Debug)]
pub struct MixedPlan {
    pub pace: Pace,
    /// Visitors a second.
    pub rate: f64,
}

struct Evening {
    wires: Wires,
    shows: Vec<String>,
    cinema: String,
    tokens: Vec<String>,
    next: AtomicUsize,
    steps: Mutex<BTreeMap<&'static str, Seen>>,
}

pub async fn mixed(data: &Path, plan: &MixedPlan, progress: &Progress) -> anyhow::Result<Report> {
    let stage = Stage::open(data, CUSTOMERS, progress).await?;
    let shows = stage.shows(SEATS, SHOWS, progress).await?;
    let evening = Arc::new(Evening {
        wires: Wires::to(stage.gateway),
        shows,
        cinema: stage.cinema.clone(),
        tokens: stage.tokens.clone(),
        next: AtomicUsize::new(0),
        steps: Mutex::default(),
    });
    progress.add_total(plan.pace.rounds as u64);
    evening.clone().go_on(plan.rate, plan.pace.warm_up()).await?;
    let mut rounds: BTreeMap<&'static str, Vec<Seen>> = BTreeMap::new();
    for round in 0..plan.pace.rounds {
        let started = Instant::now();
        evening.clone().go_on(plan.rate, plan.pace.time).await?;
        let seconds = started.elapsed().as_secs_f64();
        let steps = std::mem::take(&mut *evening.steps());
        progress.done(&format!("round {}: {} steps", round + 1, steps.values().map(|s| s.done).sum::<u64>()));
        for (step, seen) in steps {
            rounds.entry(step).or_default().push(Seen { seconds, ..seen });
        }
    }
    let title = format!("{} visitors a second through one gateway: an open loop", plan.rate);
    let mut report = Report::new("mixed", title, "steps", plan.pace);
    for (step, seen) in &rounds {
        report.lines.push(line_of(step, Work::Rate(plan.rate), seen)?);
    }
    Ok(report)
}

impl Evening {
    async fn go_on(self: Arc<Self>, rate: f64, time: Duration) -> anyhow::Result<()> {
        let (started, mut visitors) = (Instant::now(), JoinSet::new());
        for n in 0..(rate * time.as_secs_f64()).ceil() as u64 {
            let intended = started + Duration::from_secs_f64(n as f64 / rate);
            tokio::time::sleep_until(intended.into()).await;
            let evening = self.clone();
            visitors.spawn(async move { evening.visit(intended).await });
        }
        while let Some(visitor) = visitors.join_next().await {
            visitor??;
        }
        Ok(())
    }

    fn steps(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Seen>> {
        self.steps.lock().expect("no code panics while holding it")
    }

    async fn visit(&self, intended: Instant) -> anyhow::Result<()> {
        let show = &self.shows[rand::random_range(0..self.shows.len())];
        let dice = rand::random_range(0..100);
        if dice < LISTS {
            let path = format!("/v1/shows?cinema_id={}&limit=50", self.cinema);
            self.step("list shows", &get(self.wires.address, &path, ""), intended).await?;
        } else if dice < LISTS + MAPS {
            let path = format!("/v1/shows/{show}/seats");
            let request = get(self.wires.address, &path, "accept-encoding: gzip\r\n");
            self.step("seat map", &request, intended).await?;
        } else if dice < LISTS + MAPS + WATCHES {
            let path = format!("/v1/shows/{show}/seats/events?format=compact");
            let request = get(self.wires.address, &path, "accept: text/event-stream\r\n");
            let (stream, first) = Wire::connect(self.wires.address).await?.stream(&request).await?;
            events::first(stream, first).await?;
            self.steps().entry("watch: first event").or_default().record(intended);
        } else {
            self.purchase(show, intended).await?;
        }
        Ok(())
    }

    async fn purchase(&self, show: &str, intended: Instant) -> anyhow::Result<()> {
        let token = &self.tokens[self.next.fetch_add(1, Ordering::Relaxed) % self.tokens.len()];
        let send = |path: &str, body: &str| post(self.wires.address, path, token, body);
        let seats = two_seats(rand::random_range(0..SEATS / 2) * 2);
        let reserve = send(&format!("/v1/shows/{show}/reservations"), &seats);
        let Some(answer) = self.step("reserve", &reserve, intended).await? else { return Ok(()) };
        let reservation: Value = serde_json::from_slice(&answer)?;
        let id = reservation["id"].as_str().context("a reservation without an id")?;
        let dice = rand::random_range(0..100);
        if dice < PAY {
            let card = r#"{"method":"card","token":"tok_ok"}"#;
            self.step("pay", &send(&format!("/v1/reservations/{id}/payments"), card), Instant::now()).await?;
        } else if dice < PAY + CANCEL {
            self.step("cancel", &send(&format!("/v1/reservations/{id}/cancel"), "{}"), Instant::now())
                .await?;
        }
        Ok(())
    }

    /// One request; none where it was refused for good reasons (another was faster).
    async fn step(
        &self,
        name: &'static str,
        request: &[u8],
        intended: Instant,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        let (status, body) = self.wires.ask(request).await?;
        let mut steps = self.steps();
        let seen = steps.entry(name).or_default();
        match status {
            200..300 => {
                seen.record(intended);
                return Ok(Some(body));
            }
            409 => seen.refused += 1,
            429 => anyhow::bail!("the gateway's limits were met: start the platform with `up --no-limits`"),
            _ => {
                tracing::warn!(status, name, "a step failed");
                seen.failed += 1;
            }
        }
        Ok(None)
    }
}
