//! The types openraft is instantiated with.
//!
//! Voters are plain numbers to raft: where each is reached stands in every voter's configuration, so that
//! an address may change without a change of membership.

use std::io::Cursor;

use crate::state::{Answer, Proposal};

openraft::declare_raft_types!(
    /// The registry's instance of openraft.
    pub TypeConfig:
        D = Proposal,
        R = Answer,
        Node = openraft::EmptyNode,
        SnapshotData = Cursor<Vec<u8>>,
);

pub type NodeId = u64;
pub type Raft = openraft::Raft<TypeConfig>;
pub type LogId = openraft::LogId<NodeId>;
pub type Vote = openraft::Vote<NodeId>;
pub type Entry = openraft::Entry<TypeConfig>;
pub type Membership = openraft::StoredMembership<NodeId, openraft::EmptyNode>;
pub type SnapshotMeta = openraft::SnapshotMeta<NodeId, openraft::EmptyNode>;
pub type Snapshot = openraft::Snapshot<TypeConfig>;
pub type StorageError = openraft::StorageError<NodeId>;
pub type StorageIoError = openraft::StorageIOError<NodeId>;
pub type RaftMetrics = openraft::RaftMetrics<NodeId, openraft::EmptyNode>;
