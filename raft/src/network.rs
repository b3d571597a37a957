//! Raft's messages to the other voters, over gRPC.
//!
//! One channel a voter, kept for the process's life; keepalive lets it notice a dead link and heal. Each
//! message names the voter it is meant for, so that one who answers at a reused address refuses it.

#![expect(clippy::result_large_err, reason = "openraft's errors are large, and its traits ask for them")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::proto::registry::raft_peer_client::RaftPeerClient;
use common::proto::registry::registry_client::RegistryClient;
use common::proto::registry::{RaftBytes, StatusRequest};
use common::tls::{Tls, names};
use futures::future::join_all;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, EmptyNode, RaftNetwork, RaftNetworkFactory};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::config::Peer;
use crate::store::Flushing;
use crate::types::{NodeId, TypeConfig};

/// The voter a message is meant for.
pub(crate) const TO: &str = "marquee-voter";

/// A follower is sent at most 1 MiB of log at a time, or one entry, which may be larger.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Before the next try at a voter that cannot be reached.
const BACKOFF: Duration = Duration::from_millis(200);

/// A voter's answer, as it travels.
pub(crate) type Reply<T, E = openraft::error::Infallible> = Result<T, RaftError<NodeId, E>>;

type CallError<E = openraft::error::Infallible> = RPCError<NodeId, EmptyNode, RaftError<NodeId, E>>;

/// Between two words to a voter.
const STAY_EVERY: Duration = Duration::from_secs(2);

struct Voter {
    channel: Channel,
    /// Whether the last message arrived; so that losing a voter is logged once, not at every try.
    reached: AtomicBool,
}

/// Connections to all voters, by id.
#[derive(Clone)]
pub struct Network {
    voters: Arc<HashMap<NodeId, Voter>>,
    flushing: Flushing,
}

impl Network {
    /// `flushing`: of the own log.
    pub fn new(peers: &[Peer], tls: &Tls, flushing: Flushing) -> anyhow::Result<Self> {
        let voter = |peer: &Peer| {
            let channel = tls.channel(&peer.url, names::REGISTRY)?;
            Ok((peer.id, Voter { channel, reached: AtomicBool::new(true) }))
        };
        let voters = peers.iter().map(voter).collect::<anyhow::Result<_>>()?;
        Ok(Self { voters: Arc::new(voters), flushing })
    }

    /// `None` for an id that is not among the configured peers.
    pub fn channel(&self, id: NodeId) -> Option<Channel> {
        self.voters.get(&id).map(|voter| voter.channel.clone())
    }

    /// Asks every other voter for a word now and then, so that a candidate, or one who passes on a beat, need not
    /// shake hands first: voters that follow have no other reason to speak to each other.
    pub async fn stay_connected(&self, own: NodeId) {
        let others = self.voters.iter().filter(|(id, _)| **id != own);
        let keep = others.map(async |(_, voter)| {
            let mut voter = RegistryClient::new(voter.channel.clone());
            loop {
                // Who is away is no news to raft.
                let _ = timeout(STAY_EVERY, voter.status(StatusRequest {})).await;
                sleep(STAY_EVERY).await;
            }
        });
        join_all(keep).await;
    }

    fn note(&self, id: NodeId, fault: Option<&Status>) {
        let Some(voter) = self.voters.get(&id) else { return };
        let before = voter.reached.swap(fault.is_none(), Ordering::Relaxed);
        match fault {
            Some(status) if before => {
                tracing::warn!(voter = id, code = ?status.code(), why = status.message(), "a voter is out of reach");
            }
            None if !before => tracing::info!(voter = id, "a voter is within reach again"),
            _ => {}
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: NodeId, _node: &EmptyNode) -> Connection {
        let client = self.channel(target).map(|channel| {
            RaftPeerClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
        });
        Connection { target, client, network: self.clone() }
    }
}

pub struct Connection {
    target: NodeId,
    client: Option<RaftPeerClient<Channel>>,
    network: Network,
}

impl Connection {
    fn client(&self) -> Result<RaftPeerClient<Channel>, Unreachable> {
        self.client.clone().ok_or_else(|| {
            Unreachable::new(&AnyError::error(format!("voter {} is not among the peers", self.target)))
        })
    }

    fn request(&self, body: Vec<u8>, option: &RPCOption) -> Request<RaftBytes> {
        let mut request = Request::new(RaftBytes { body: body.into() });
        request.metadata_mut().insert(TO, AsciiMetadataValue::from(self.target));
        // The other side gives up as well when nobody waits any more.
        request.set_timeout(option.hard_ttl());
        request
    }

    fn reply<T, E>(&self, answered: Result<Response<RaftBytes>, Status>) -> Result<T, CallError<E>>
    where
        T: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        self.network.note(self.target, answered.as_ref().err());
        let body = answered.map_err(|status| fault(&status))?.into_inner().body;
        let reply: Reply<T, E> = serde_json::from_slice(&body).map_err(|e| NetworkError::new(&e))?;
        reply.map_err(|e| RemoteError::new(self.target, e).into())
    }
}

/// Everything but a lost message waits a little before the next try: an immediate one would only spin.
fn fault<E: std::error::Error>(status: &Status) -> CallError<E> {
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => NetworkError::new(status).into(),
        _ => Unreachable::new(status).into(),
    }
}

fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, NetworkError> {
    serde_json::to_vec(message).map_err(|e| NetworkError::new(&e))
}

impl RaftNetwork<TypeConfig> for Connection {
    async fn append_entries(
        &mut self,
        message: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, CallError> {
        if let Some(committed) = message.leader_commit {
            self.network.flushing.upto(committed.index).await.map_err(|e| NetworkError::new(&e))?;
        }
        let request = self.request(encode(&message)?, &option);
        let answered = self.client()?.append_entries(request).await;
        self.reply(answered)
    }

    async fn vote(
        &mut self,
        message: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, CallError> {
        let request = self.request(encode(&message)?, &option);
        let answered = self.client()?.vote(request).await;
        self.reply(answered)
    }

    async fn install_snapshot(
        &mut self,
        message: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, CallError<InstallSnapshotError>> {
        let request = self.request(join_snapshot(message)?, &option);
        let answered = self.client()?.install_snapshot(request).await;
        self.reply(answered)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

/// A snapshot's part on the wire: the length of the JSON (4 bytes, little endian), the JSON without its
/// data, the data. As JSON the data would be four times as long.
fn join_snapshot(mut message: InstallSnapshotRequest<TypeConfig>) -> Result<Vec<u8>, NetworkError> {
    let data = std::mem::take(&mut message.data);
    let head = encode(&message)?;
    let head_len = u32::try_from(head.len()).map_err(|e| NetworkError::new(&e))?;
    let mut body = Vec::with_capacity(4 + head.len() + data.len());
    body.extend_from_slice(&head_len.to_le_bytes());
    body.extend_from_slice(&head);
    body.extend_from_slice(&data);
    Ok(body)
}

/// The reverse of [`join_snapshot`]; `None` when the bytes are no such message.
pub(crate) fn split_snapshot(body: &[u8]) -> Option<InstallSnapshotRequest<TypeConfig>> {
    let (head_len, rest) = body.split_first_chunk()?;
    let (head, data) = rest.split_at_checked(u32::from_le_bytes(*head_len) as usize)?;
    let mut message: InstallSnapshotRequest<TypeConfig> = serde_json::from_slice(head).ok()?;
    message.data = data.to_vec();
    Some(message)
}

#[cfg(test)]
mod tests {
    use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
    use openraft::{CommittedLeaderId, EntryPayload};

    use super::*;
    use crate::store;
    use crate::types::{Entry, LogId, SnapshotMeta, Vote};

    /// Nobody is there to hear it; what waits has not left.
    #[tokio::test]
    async fn no_follower_is_told_of_a_commit_that_is_not_flushed_here() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _machine) = store::open(dir.path(), 1).unwrap();
        let vote = Vote::new_committed(1, 1);
        log.save_vote(&vote).await.unwrap();
        let held = log.hold_disk();
        let log_id = LogId::new(CommittedLeaderId::new(1, 1), 7);
        log.blocking_append([Entry { log_id, payload: EntryPayload::Blank }]).await.unwrap();
        let peer = Peer { id: 2, region: "us".parse().unwrap(), url: "http://127.0.0.1:1".into() };
        let mut network = Network::new(&[peer], &Tls::plain(), log.flushing()).unwrap();
        let mut connection = network.new_client(2, &EmptyNode {}).await;
        let mut tell = async |leader_commit| {
            let message = AppendEntriesRequest { vote, prev_log_id: None, entries: vec![], leader_commit };
            let told = connection.append_entries(message, RPCOption::new(Duration::from_secs(5)));
            timeout(Duration::from_millis(500), told).await
        };
        let before = Some(LogId::new(log_id.leader_id, 6));
        assert!(tell(None).await.is_ok() && tell(before).await.is_ok());
        assert!(tell(Some(log_id)).await.is_err());
        drop(held);
        log.flushing().all().await.unwrap();
        assert!(tell(Some(log_id)).await.is_ok());
    }

    #[test]
    fn a_snapshots_part_survives_the_wire_and_damage_is_refused() {
        let message = InstallSnapshotRequest {
            vote: Vote::new(3, 1),
            meta: SnapshotMeta { snapshot_id: "s".into(), ..Default::default() },
            offset: 7,
            data: (0..=255).collect(),
            done: true,
        };
        let body = join_snapshot(message.clone()).unwrap();
        let back = split_snapshot(&body).unwrap();
        assert_eq!((back.vote, back.offset, back.done), (message.vote, 7, true));
        assert_eq!((back.data, back.meta), (message.data, message.meta));
        for cut in [0, 3, 10] {
            assert!(split_snapshot(&body[..cut]).is_none());
        }
    }
}
