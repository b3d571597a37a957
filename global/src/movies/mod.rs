//! The catalogue's write half. Every region serves the reads, from the feed.

pub mod handlers;
pub mod import;
pub mod mend;
pub mod parse;
pub mod rules;
pub mod store;
