//! Shows over HTTP: created by managers, listed, looked at, and their seat maps.

mod create;
mod events;
mod http;
mod manage;
pub mod view;

pub use http::{PERMISSIONS, routes};
