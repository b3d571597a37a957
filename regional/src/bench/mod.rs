//! Measuring the show core in process, against the designs that it is meant to beat, on one Postgres with the
//! same settings: `marquee bench show` drives this.
//!
//! Every design sells the same thing, two neighbouring seats a booking, and writes the same facts: the seats,
//! the reservation and the journal entry. Shows that are sold out are followed by the next, so that a run
//! lasts as long as it is asked to.

mod age;
mod desk;
mod limit;
mod load;
mod locks;
mod marquee;
mod naive;
mod naive_http;
mod statement;
mod tables;

pub use age::{fill_journal, lead_time, long_show};
pub use desk::{Demand, Desk, Spread};
pub use limit::{Commits, Limit};
pub use load::{Load, Seen, run};
pub use locks::LockService;
pub use marquee::Marquee;
pub use naive::Naive;
pub use naive_http::{forget_naive_http, prepare_naive_http, serve_naive};
pub use statement::BestStatement;

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

/// What became of a booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Durable.
    Booked,
    /// Somebody else has a seat of it.
    Taken,
    /// Nothing was done; ask again a little later.
    Busy,
}

/// Something that sells.
#[tonic::async_trait]
pub trait Design: Send + Sync + 'static {
    async fn book(&self, booking: Booking) -> anyhow::Result<Outcome>;

    /// Returns when everything that follows from the bookings (read models) is written too.
    async fn settled(&self) {}
}
