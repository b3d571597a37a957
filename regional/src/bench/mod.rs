//! Measuring the show core in process, against the designs that it is meant to beat, on one Postgres with the
//! same settings: `marquee bench show` drives this.
//!
//! Every design sells the same thing, two neighbouring seats a booking, and writes the same rows: the seats,
//! the reservation and the journal entry. Shows that are sold out are followed by the next, so that a run
//! lasts as long as it is asked to.

mod marquee;
mod reference;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use marquee::Marquee;
pub use reference::{BestStatement, Limit, Naive};

/// Seats of a hot show, and of one of many.
pub const HOT_SEATS: u32 = 5_000;
pub const SPREAD_SEATS: u32 = 200;
/// Seats of one booking.
pub const SEATS_A_BOOKING: u32 = 2;

/// One booking to make: the show by its number, and the first of its two seats.
#[derive(Clone, Copy, Debug)]
pub struct Booking {
    pub show: u32,
    pub seat: u32,
}

/// Something that sells.
#[tonic::async_trait]
pub trait Design: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    /// Makes the booking durable; false when the seats were taken.
    async fn book(&self, booking: Booking) -> anyhow::Result<bool>;
}

/// Which booking comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Everybody wants the same show, then the next.
    Hot,
    /// Each booking is for the next of all shows.
    Even,
}

/// Hands out bookings: each once.
pub struct Desk {
    spread: Spread,
    shows: u32,
    seats: u32,
    next: AtomicU64,
}

impl Desk {
    pub fn new(spread: Spread, shows: u32, seats: u32) -> Self {
        Self { spread, shows, seats, next: AtomicU64::new(0) }
    }

    /// None when everything is sold.
    pub fn next(&self) -> Option<Booking> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (shows, bookings) = (u64::from(self.shows), u64::from(self.seats / SEATS_A_BOOKING));
        if number >= shows * bookings {
            return None;
        }
        let (show, turn) = match self.spread {
            Spread::Hot => (number / bookings, number % bookings),
            Spread::Even => (number % shows, number / shows),
        };
        let small = |n: u64| u32::try_from(n).expect("below the number of shows and seats");
        Some(Booking { show: small(show), seat: small(turn) * SEATS_A_BOOKING })
    }
}

/// What one run saw.
#[derive(Clone, Debug)]
pub struct Seen {
    pub bookings: u64,
    pub seconds: f64,
    /// Microseconds from asking to the durable answer, one each booking.
    pub latencies_us: Vec<u32>,
    /// The seats ran out before the time did.
    pub sold_out: bool,
}

/// `clients` that each wait for their answer, for `time`.
pub async fn run(
    design: Arc<dyn Design>,
    desk: Arc<Desk>,
    clients: usize,
    time: Duration,
) -> anyhow::Result<Seen> {
    let started = Instant::now();
    let client = |_| {
        let (design, desk) = (design.clone(), desk.clone());
        tokio::spawn(async move {
            let (mut latencies, mut sold_out) = (Vec::new(), false);
            while started.elapsed() < time {
                let Some(booking) = desk.next() else {
                    sold_out = true;
                    break;
                };
                let asked = Instant::now();
                anyhow::ensure!(design.book(booking).await?, "{booking:?} was taken by somebody else");
                latencies.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            anyhow::Ok((latencies, sold_out))
        })
    };
    let tasks: Vec<_> = (0..clients).map(client).collect();
    let (mut latencies_us, mut sold_out) = (Vec::new(), false);
    for task in tasks {
        let (latencies, out) = task.await??;
        latencies_us.extend(latencies);
        sold_out |= out;
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Seen { bookings: latencies_us.len() as u64, seconds, latencies_us, sold_out })
}
