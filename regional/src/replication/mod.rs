//! The replication protocol as pure state machines: what a replica answers ([`replica`]), one try to lead
//! ([`Leader`]), and the way back of a store that lost its tail ([`Recovery`]). `docs/protocol.md` is the
//! word; the rules' numbers there (R1 to R15) and names ([`Rule`]) stand beside each check here.
//!
//! Invariant: no I/O, no clock, no chance, no async (a test reads these files and refuses them). A message
//! or a time that somebody read goes in; effects come out, which a shell carries out in their order. An
//! answer leaves only after the write that it rests on is durable.
//!
//! All this is about one show. That many shows share a stream and a transaction is the shell's business.

mod ballots;
mod entry;
mod leader;
mod lease;
pub mod memory;
mod messages;
mod progress;
mod quorum;
mod recovery;
pub mod replica;
mod rules;
#[cfg(test)]
mod tests;

pub use ballots::Ballots;
pub use entry::{Entry, Head, Kind, Mark};
pub use leader::{Effect, Leader, Limits, NotLeading, Term, Why};
pub use messages::{Answer, Append, Reply, Request, Restore, Unable};
pub use recovery::{Alone, Recovery, RecoveryEffect};
pub use rules::{Rule, Rules, Strict};

pub use crate::journal::Ballot;
