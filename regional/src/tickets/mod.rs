//! Tickets: a signed token that any scanner verifies with no network, its QR, and the door.
//!
//! A token is a JWT (EdDSA) under this region's own key; the public keys of all regions are in the registry,
//! so that a ticket stays good wherever its show goes, and after its region is gone.

mod http;
pub mod keys;
mod pdf;
mod qr;

pub use http::{PERMISSIONS, routes};
pub use keys::{TicketClaims, TicketKeys};
