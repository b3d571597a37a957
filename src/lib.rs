//! The `marquee` command as a library: the launcher of whole platforms, which tests use too, the stand-in for
//! a payment provider, and the tools that speak to a running platform through its public API.
//!
//! Invariant: no business rules live here; whatever these tools do to a platform, a customer's or an
//! operator's client could do too.

pub mod api;
pub mod bench;
pub mod import;
pub mod launcher;
pub mod provider;
pub mod regions;
pub mod seed;
pub mod services;
