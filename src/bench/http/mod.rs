//! Measuring a running platform over HTTP. The load is made by connections of our own, as thin as they go
//! ([`wire`]), the same for everything that is compared.

pub mod bare;
pub mod booking;
pub(super) mod children;
mod events;
pub mod mixed;
mod naive;
mod nginx;
pub mod read;
pub mod stage;
pub mod watch;
mod wire;
