//! The replica's side of the replication, around the pure rules of [`crate::replication`]: messages on the
//! wire ([`wire`]), the journals in Postgres that answer them, and the stream of other regions that brings
//! them; what readers see of them ([`copies`]); and, of the leader's side, the streams to other regions ([`peers`]).
//!
//! Invariant: nothing is answered before the transaction that it rests on is durable; where its outcome is not
//! known, nothing is answered at all.

pub mod caught_up;
pub mod commits;
pub mod compare;
pub mod copies;
pub mod guard;
mod kind;
pub mod link;
pub mod metrics;
pub mod peers;
pub mod recovery;
pub mod run;
pub mod server;
pub mod store;
#[cfg(test)]
mod tests;
pub mod wire;

pub use kind::{Hash, Payload, Regional};
pub use store::{Membership, ReplicaStore, Standings, Told};

#[allow(clippy::all, reason = "generated; what it trips over differs by version")]
pub mod proto {
    tonic::include_proto!("marquee.replication.v1");
}

/// The protocol's words with production's payloads.
pub type Answer = crate::replication::Answer<Regional>;
pub type Append = crate::replication::Append<Regional>;
pub type Entry = crate::replication::Entry<Regional>;
pub type Head = crate::replication::Head<Regional>;
pub type Mark = crate::replication::Mark<Regional>;
pub type Reply = crate::replication::Reply<Regional>;
pub type Request = crate::replication::Request<Regional>;
