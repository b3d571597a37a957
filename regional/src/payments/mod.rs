//! Money: payments, refunds, and the provider who moves them.
//!
//! Invariants (R9 of the protocol): a payment is committed before the provider is called, under its id as
//! the provider's idempotency key; an unknown outcome is settled by asking, never assumed; every captured
//! amount ends as a paid reservation or a full refund.

mod http;
mod provider;
mod reconcile;
pub mod saga;
pub mod steps;
mod sweep;
pub mod view;
mod webhook;

pub use http::{PERMISSIONS, routes};
pub use provider::{Booked, Changes, Charge, ChargeStatus, Provider, ProviderError, TestProvider};
pub use reconcile::{Reconciler, calls_off};
pub use sweep::{Found, Sweep};
