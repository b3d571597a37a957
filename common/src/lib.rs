//! The vocabulary all services share: typed ids, money, regions, actors and their claims,
//! problem+json, configuration, telemetry, and every gRPC contract.
//!
//! Invariant: this crate knows no service and reaches no database. A type enters here when a second
//! crate needs it.

pub mod authz;
pub mod boottime;
pub mod catalogue;
pub mod config;
pub mod feed;
pub mod http;
pub mod ids;
pub mod loopback;
pub mod money;
pub mod ops;
pub mod personal;
pub mod problem;
pub mod proto;
pub mod region;
pub mod seal;
pub mod telemetry;
pub mod tls;

pub use boottime::BootTime;
pub use ids::*;
pub use money::{Amount, Currency, Money};
pub use problem::{FieldError, Problem};
pub use region::RegionName;
