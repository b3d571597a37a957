//! The simulation: a whole platform under one virtual clock, one seed one run. The cores are the real ones:
//! the show (`regional::show`), replica, leader and recovery (`regional::replication`), the registry's state
//! machine (`raft::state`), the payment saga's steps (`regional::payments::steps`). Around them stand small
//! shells without I/O, tasks or clocks, and a network, stores and a provider that fail in every way that
//! `docs/protocol.md` names. `docs/simulation.md` tells what is simulated and what is not.
//!
//! [`history`] is the checker, for histories of the simulation and of real processes alike.

mod client;
mod counts;
mod database;
mod deciding;
mod event;
mod faults;
mod fold;
mod gateway;
pub mod history;
mod host;
mod jobs;
mod kind;
mod process;
mod provider;
mod random;
mod registry;
mod replica;
mod run;
mod scripts;
mod setup;
mod trace;
mod truth;
mod view;
mod wishes;
mod world;

pub use counts::{Counts, EXPECTED};
pub use run::{HEALED_WITHIN, Run, run, run_with};
pub use setup::Emphasis;
pub use world::Violation;
