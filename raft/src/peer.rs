//! Raft's messages from the other voters.
//!
//! A body that cannot be read is refused, so that this voter falls behind rather than guess: it may come
//! from a newer one. What is heard from a leader in this process's life is noted in [`LeaderContact`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::BootTime;
use common::proto::registry::RaftBytes;
use common::proto::registry::raft_peer_server::RaftPeer;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::callers::Callers;
use crate::network::{TO, split_snapshot};
use crate::node::Node;
use crate::types::{NodeId, TypeConfig};

/// The sender gives up long before; this only frees what it left behind.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// When a leader was last heard, and the highest commit position it told. The stored vote that raft
/// reports after a restart may be of a leader long gone; this is not.
#[derive(Default)]
pub struct LeaderContact {
    heard_at: Mutex<Option<BootTime>>,
    committed_index: AtomicU64,
}

impl LeaderContact {
    fn heard(&self, committed_index: u64) {
        self.committed_index.fetch_max(committed_index, Ordering::Relaxed);
        *self.heard_at.lock().expect("no code panics while holding it") = Some(BootTime::now());
    }

    pub fn heard_at(&self) -> Option<BootTime> {
        *self.heard_at.lock().expect("no code panics while holding it")
    }

    pub fn within(&self, silence: Duration) -> bool {
        self.heard_at().is_some_and(|at| at.elapsed() <= silence)
    }

    pub fn committed_index(&self) -> u64 {
        self.committed_index.load(Ordering::Relaxed)
    }
}

pub struct PeerService {
    pub node: Arc<Node>,
    pub callers: Arc<Callers>,
}

impl PeerService {
    /// From a voter, and for this one.
    fn check(&self, request: &Request<RaftBytes>) -> Result<(), Status> {
        self.callers.voter(request)?;
        let own: NodeId = self.node.id();
        let to = request.metadata().get(TO).and_then(|to| to.to_str().ok()?.parse::<NodeId>().ok());
        if to == Some(own) {
            Ok(())
        } else {
            Err(Status::failed_precondition(format!("this is voter {own}, the message is for {to:?}")))
        }
    }
}

fn decode<T: DeserializeOwned>(request: &Request<RaftBytes>) -> Result<T, Status> {
    serde_json::from_slice(&request.get_ref().body).map_err(|error| {
        tracing::error!(%error, "a voter's message cannot be read; is it of a newer version?");
        unreadable()
    })
}

fn unreadable() -> Status {
    Status::invalid_argument("the message cannot be read here")
}

fn encode<T: Serialize>(reply: &T) -> Result<Response<RaftBytes>, Status> {
    let body = serde_json::to_vec(reply).map_err(|e| Status::internal(e.to_string()))?;
    Ok(Response::new(RaftBytes { body: body.into() }))
}

async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T, Status> {
    timeout(ANSWER_DEADLINE, answer).await.map_err(|_| Status::deadline_exceeded("raft did not answer"))
}

#[tonic::async_trait]
impl RaftPeer for PeerService {
    async fn append_entries(&self, request: Request<RaftBytes>) -> Result<Response<RaftBytes>, Status> {
        self.check(&request)?;
        let message: AppendEntriesRequest<TypeConfig> = decode(&request)?;
        let committed_index = message.leader_commit.map_or(0, |id| id.index);
        let reply = in_time(self.node.raft().append_entries(message)).await?;
        // Whoever holds a lower vote is a leader no more.
        if matches!(&reply, Ok(answer) if !matches!(answer, AppendEntriesResponse::HigherVote(_))) {
            self.node.contact().heard(committed_index);
        }
        encode(&reply)
    }

    async fn vote(&self, request: Request<RaftBytes>) -> Result<Response<RaftBytes>, Status> {
        self.check(&request)?;
        let message: VoteRequest<NodeId> = decode(&request)?;
        encode(&in_time(self.node.raft().vote(message)).await?)
    }

    async fn install_snapshot(&self, request: Request<RaftBytes>) -> Result<Response<RaftBytes>, Status> {
        self.check(&request)?;
        let message = split_snapshot(&request.get_ref().body).ok_or_else(unreadable)?;
        encode(&in_time(self.node.raft().install_snapshot(message)).await?)
    }
}
