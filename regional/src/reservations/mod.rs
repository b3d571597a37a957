//! Reservations over HTTP: taking seats, changing them, giving them up, and finding them again.

mod http;
pub(crate) mod list;
pub mod origin;
pub(crate) mod requests;
pub mod view;

pub(crate) use http::visible;
pub use http::{PERMISSIONS, routes};
