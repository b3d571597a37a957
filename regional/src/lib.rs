//! One region's service: cinemas, halls, shows; the show core and its journal; payments, tickets, check-in.
//!
//! The way of a booking: `reservations` (HTTP) → `host` (one task a show) → `show` (pure decide and apply) →
//! `journal` (Postgres, compare-and-set) → answer; `projection` folds the journal into read models, and
//! `payments` settles what is open.
//!
//! Invariant: this crate reaches no other region's database and knows nothing of the gateway.

pub mod app;
pub mod config;

pub use config::Config;
