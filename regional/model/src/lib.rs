//! The model of the replication protocol. It drives the real core ([`regional::replication`]) through every
//! order of events within stated [`Bounds`]: messages lost, late, doubled and reordered, leaders that run
//! on after they were replaced, restarts, stores that lose their tail, changes of owner and of replicas.
//!
//! The network is a set: a message once sent may arrive at any time, any number of times, or never.
//! After each step the invariants S1 to S4 and S7 of `docs/protocol.md` are checked ([`World::broken`]).

mod configurations;
mod kind;
mod process;
mod registry;
mod run;
mod trace;
mod world;

pub use configurations::{Bounds, Start, all, mutants};
pub use kind::{Broken, Thing, Toy};
pub use registry::Record;
pub use run::{Found, Size, check};
pub use world::{Action, World};
