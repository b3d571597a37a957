//! Shows over HTTP: created by managers, listed, looked at, and their seat maps.

mod booking;
mod create;
mod events;
mod http;
mod manage;
#[cfg(test)]
mod tests;
pub mod view;

pub use http::{PERMISSIONS, ready_maps, routes};
