//! The catalogue's write half. Every region serves the reads, from the feed.

mod dates;
pub mod handlers;
pub mod import;
mod mend;
pub mod parse;
pub mod rules;
pub mod store;
