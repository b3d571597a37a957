//! The ownership registry: which region owns which show, replicated by raft to one voter in each region.
//!
//! - [`state`]: the deterministic state machine.
//! - `store`: log, vote and snapshot on disk.
//! - `network`, `peer`: raft's messages between voters; `service`, `watch`: the registry's own gRPC; `callers`: who
//!   may ask for what.
//! - `liveness`, `moves`: who is heard of and which shows are to move, as rules; `steward` carries them out.
//! - [`client`]: for those who use the registry.
//!
//! It knows nothing of Postgres, nor what a show is beyond its id; seats never reach it.

mod callers;
pub mod client;
mod config;
mod liveness;
mod metrics;
mod moves;
mod network;
mod node;
mod peer;
mod proposals;
mod run;
mod service;
pub mod state;
mod steward;
mod store;
mod types;
mod watch;
mod wire;

pub use config::{Config, Liveness, Moves, Peer};
pub use run::run;
