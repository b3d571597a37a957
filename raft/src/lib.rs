//! The ownership registry: which region owns which show, replicated by raft to one voter in each region.
//!
//! - [`state`]: the deterministic state machine.
//! - `store`: log, vote and snapshot on disk.
//! - `network`, `peer`: raft's messages between voters; `service`, `watch`: the registry's own gRPC.
//! - [`client`]: for those who use the registry.
//!
//! It knows nothing of Postgres, nor what a show is beyond its id; seats never reach it.

pub mod client;
mod config;
mod metrics;
mod network;
mod node;
mod peer;
mod proposals;
mod run;
mod service;
pub mod state;
mod store;
mod types;
mod watch;
mod wire;

pub use config::{Config, Peer};
pub use run::run;
