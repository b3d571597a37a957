//! A whole platform of several regions on one machine: what `marquee up` runs, and what the tests run, so
//! that a newcomer sees what has been proven.
//!
//! One `global`, and for each region a `regional`, a `raft` voter and a `gateway`, each a process of its own,
//! with a private Postgres for each region and for `global` and a private Redis for each region, and a
//! stand-in for the payment provider. Everything is on loopback, on ports and with secrets of the data
//! folder's own.
//!
//! Invariant: whatever way the launcher ends, nothing that it started outlives it, and nothing else is
//! touched.

mod boot;
mod certificates;
mod configs;
mod control;
mod files;
mod folder;
pub mod guard;
mod options;
mod parts;
mod platform;
mod ports;
mod postgres;
mod prepare;
mod progress;
mod redis;
mod report;
mod run;
mod secrets;
mod site;
mod spawn;
mod tools;
mod users;

pub use certificates::make_certificates;
pub use control::{Control, State};
pub use folder::remove;
pub use options::{DEFAULT_REGIONS, Options};
pub use parts::{Part, Place, Service};
pub use platform::Platform;
pub use progress::Progress;
pub use report::print as print_report;
pub use run::{Account, Process, Provider, Run};
pub(crate) use secrets::Secrets;
pub use site::{Site, Sites, forwarded};
