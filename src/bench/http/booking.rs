//! `marquee bench show hot|spread --http`: reservations through a gateway to a regional process, tokens
//! checked, against the usual design behind the same handlers and a gateway of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use regional::bench::{Booking, Demand, Design, Desk, HOT_SEATS, Load, Outcome, SPREAD_SEATS, Spread, run};

use super::naive::NaivePlatform;
use super::stage::{Stage, seat_name};
use super::wire::{Wires, post};
use crate::bench::core::{hot_shows, spread_over};
use crate::bench::turns::{Turn, Work, take_turns};
use crate::bench::{Pace, Report};
use crate::launcher::Progress;

/// What two cores answer a second at most, for making enough shows.
const MOST: f64 = 10_000.0;
const CUSTOMERS: usize = 64;
const NAIVE: &str = "naive, HTTP";
const MARQUEE: &str = "marquee, HTTP";

#[derive(Clone, Debug)]
pub struct HttpPlan {
    pub spread: Spread,
    pub demand: Demand,
    /// Where they are many.
    pub shows: u32,
    pub pace: Pace,
    pub clients: Vec<usize>,
    /// Arrivals a second: where given, an open loop instead of clients.
    pub rates: Vec<f64>,
}

impl HttpPlan {
    fn work(&self) -> Vec<Work> {
        if self.rates.is_empty() {
            self.clients.iter().map(|clients| Work::Clients(*clients)).collect()
        } else {
            self.rates.iter().map(|rate| Work::Rate(*rate)).collect()
        }
    }

    /// All rounds sell from the same shows.
    fn shows(&self) -> usize {
        if self.spread == Spread::Even {
            return self.shows as usize;
        }
        let turns = u32::try_from(self.pace.rounds * self.work().len()).unwrap_or(u32::MAX);
        hot_shows(MOST, (self.pace.time + self.pace.warm_up()) * turns) as usize
    }
}

pub async fn booking(data: &Path, plan: &HttpPlan, progress: &Progress) -> anyhow::Result<Report> {
    let hot = plan.spread == Spread::Hot;
    let seats = if hot { HOT_SEATS } else { SPREAD_SEATS };
    let stage = Stage::open(data, CUSTOMERS, progress).await?;
    let shows = stage.shows(seats, plan.shows(), progress).await?;
    let names: Vec<String> = (0..seats).map(seat_name).collect();
    // The server takes the shows' facts from the read models.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let naive = NaivePlatform::start(&stage, &shows, &names).await?;

    let (mut turns, shows) = (Vec::new(), Arc::new(shows));
    for (design, address) in [(NAIVE, naive.address()), (MARQUEE, stage.gateway)] {
        let desk = Arc::new(Desk::new(plan.spread, plan.demand, u32::try_from(shows.len())?, seats));
        let shop: Arc<dyn Design> = Arc::new(Shop::new(address, shows.clone(), stage.tokens.clone()));
        for work in plan.work() {
            let (shop, desk, pace) = (shop.clone(), desk.clone(), plan.pace);
            let load = match work {
                Work::Rate(per_second) => Load::Open { per_second },
                Work::Clients(clients) => Load::Closed { clients },
                Work::Alone => Load::Closed { clients: 1 },
            };
            turns.push(Turn::new(design, work, move || {
                let (shop, desk) = (shop.clone(), desk.clone());
                async move {
                    run(&shop, &desk, load, pace.warm_up()).await?;
                    run(&shop, &desk, load, pace.time).await
                }
            }));
        }
    }
    let lines = take_turns(&turns, plan.pace, progress).await;
    let lines = lines?;
    let theirs = lines.iter().filter(|line| line.design == NAIVE);
    let booked = theirs.flat_map(|line| &line.rounds).sum::<f64>() * plan.pace.time.as_secs_f64();
    naive.end(booked.floor()).await?;

    let mut name = if hot { "hot-http" } else { "spread-http" }.to_owned();
    let what = spread_over(plan.spread, plan.shows);
    let mut title = format!("{what}, gateway to regional, tokens checked");
    if plan.demand == Demand::Popular {
        name += "-popular";
        title += "; everybody wants the middle";
    }
    let mut report = Report::new(&name, title, "bookings", plan.pace);
    report.lines = lines;
    let wanted = if hot { 10.0 } else { 3.0 };
    for work in plan.work() {
        let at = |design: &str| report.line(design, work).map(|line| line.per_second);
        let (ours, theirs) = (at(MARQUEE), at(NAIVE));
        let what = format!("{}: marquee over naive", work.label());
        report.ratio(&what, wanted, ours, theirs);
    }
    Ok(report)
}

/// A design that is asked over HTTP.
pub struct Shop {
    wires: Wires,
    shows: Arc<Vec<String>>,
    tokens: Vec<String>,
    next: AtomicUsize,
}

impl Shop {
    pub fn new(address: SocketAddr, shows: Arc<Vec<String>>, tokens: Vec<String>) -> Self {
        Self { wires: Wires::to(address), shows, tokens, next: AtomicUsize::new(0) }
    }
}

#[async_trait::async_trait]
impl Design for Shop {
    async fn book(&self, booking: Booking) -> anyhow::Result<Outcome> {
        let token = &self.tokens[self.next.fetch_add(1, Ordering::Relaxed) % self.tokens.len()];
        let path = format!("/v1/shows/{}/reservations", self.shows[booking.show as usize]);
        let body = two_seats(booking.seat);
        let (status, body) = self.wires.ask(&post(self.wires.address, &path, token, &body)).await?;
        match status {
            201 => Ok(Outcome::Booked),
            409 if names_code(&body, "seats-unavailable") => Ok(Outcome::Taken),
            503 => Ok(Outcome::Busy),
            429 => anyhow::bail!("the gateway's limits were met: start the platform with `up --no-limits`"),
            status => anyhow::bail!("{status}: {}", String::from_utf8_lossy(&body)),
        }
    }
}

/// Other conflicts are faults of the measurement.
fn names_code(problem: &[u8], code: &str) -> bool {
    serde_json::from_slice::<serde_json::Value>(problem).is_ok_and(|problem| problem["code"] == code)
}

/// The wish for a seat and its neighbour.
pub fn two_seats(first: u32) -> String {
    let (first, second) = (seat_name(first), seat_name(first + 1));
    format!("{{\"seats\":[{{\"seat\":\"{first}\"}},{{\"seat\":\"{second}\"}}]}}")
}
