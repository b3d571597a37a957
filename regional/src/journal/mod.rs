//! The journal of each show in this region's Postgres: one ordered list of entries, extended only by a
//! compare-and-set on the show's head, so that two processes can never both extend one show.
//!
//! Invariant: an entry's hash chains to the one before. What the entries mean is `show`'s business.

#[cfg(test)]
mod damage;
mod entry;
mod reigns;
mod store;
#[cfg(test)]
mod tests;
mod writer;
pub mod years;

pub use entry::{Ballot, Entry, Head, Stored, chain};
pub use reigns::Led;
pub use store::{Attempts, Journal, JournalError};
pub use writer::{Append, Appended, Writer};
pub(crate) use {store::describe, writer::surely_rolled_back};
