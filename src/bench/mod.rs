//! `marquee bench`: what a platform does a second, and how long each answer takes.
//!
//! `core` measures the show core in process against other designs; `http` asks whole platforms; `cost` tells
//! whether it grows; `whole` runs everything on a platform of its own. Designs take turns within each round,
//! in an order that rotates, so that what else the machine does meets them alike; figures are medians over
//! the rounds, and what counts are the ratios.

pub mod core;
pub mod cost;
mod database;
pub mod http;
mod plot;
pub mod purchase;
mod report;
mod seats;
mod turns;
pub mod whole;

pub use plot::svg;
pub use purchase::{Outcome, Plan, purchases};
pub use report::{Machine, Report, Target};
pub use turns::{Line, Turn, Work, take_turns};

/// How often and how long everything is measured.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub rounds: usize,
    /// Of one turn.
    pub time: std::time::Duration,
}

impl Pace {
    /// Connections are made, statements prepared and caches filled before anything counts.
    pub fn warm_up(self) -> std::time::Duration {
        self.time.mul_f64(0.25).min(std::time::Duration::from_millis(500))
    }
}
