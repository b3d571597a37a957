//! The registry's gRPC: commands and linearizable reads at the leader, or forwarded to it once.
//!
//! `UNAVAILABLE` means that the outcome is not known and the call may be repeated at any voter;
//! `INVALID_ARGUMENT` and `FAILED_PRECONDITION` mean that nothing was changed and nothing will be.

use std::sync::Arc;
use std::time::Duration;

use common::proto::registry as proto;
use common::proto::registry::registry_client::RegistryClient;
use common::proto::registry::registry_server::Registry;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::node::Node;
use crate::proposals::Unsettled;
use crate::state::{Answer, Command, OpenSession};
use crate::types::NodeId;
use crate::watch;
use crate::wire::{BadMessage, CreateShow, show_id};

/// Marks a call that another voter has passed on; it is not passed on again.
const FORWARDED: &str = "marquee-forwarded";
const FORWARD_DEADLINE: Duration = Duration::from_millis(2200);

pub struct RegistryService {
    pub node: Arc<Node>,
    /// Ends the watch streams, which would otherwise hold up a graceful stop.
    pub stop: CancellationToken,
}

/// Where a call is to be carried out.
enum Place {
    Here,
    At(RegistryClient<Channel>),
}

impl RegistryService {
    fn place<T>(&self, request: &Request<T>) -> Result<Place, Status> {
        let leader = self.node.leader().ok_or_else(|| Status::unavailable("there is no leader now"))?;
        if leader == self.node.id() {
            return Ok(Place::Here);
        }
        if request.metadata().contains_key(FORWARDED) {
            return Err(Status::unavailable("the leadership is moving"));
        }
        let channel = self.node.network().channel(leader);
        let channel = channel.ok_or_else(|| Status::unavailable("the leader is not among the peers"))?;
        Ok(Place::At(RegistryClient::new(channel)))
    }

    async fn propose(&self, command: Command) -> Result<Answer, Status> {
        match self.node.propose(command).await {
            Ok(Answer::Refused { reason }) => Err(Status::failed_precondition(reason)),
            Ok(answer) => Ok(answer),
            Err(unsettled) => Err(unsettled.into()),
        }
    }

    /// Fills in what the caller left to the registry: the replicas are every region that holds a voter.
    fn complete(&self, asked: CreateShow) -> Result<Command, Status> {
        let CreateShow { id, home, mut replicas } = asked;
        if replicas.is_empty() {
            replicas = self.node.voters_regions();
            // A region without a voter of its own may still own shows.
            if !replicas.contains(&home) && self.node.registry().read().registry.knows_region(&home) {
                replicas.push(home.clone());
            }
        }
        replicas.sort();
        replicas.dedup();
        if !replicas.contains(&home) {
            return Err(Status::failed_precondition(format!("the region `{home}` is not known here")));
        }
        Ok(Command::CreateShow { id, home, replicas })
    }

    fn status_now(&self) -> proto::StatusReply {
        let raft = self.node.metrics();
        let name = |id: NodeId| self.node.peer(id).map_or_else(String::new, |p| p.region.to_string());
        let matched = |id: NodeId| {
            if id == raft.id && raft.replication.is_some() {
                return raft.last_log_index.unwrap_or(0);
            }
            let of_peer = raft.replication.as_ref().and_then(|r| *r.get(&id)?);
            of_peer.map_or(0, |log_id| log_id.index)
        };
        let members = self.node.peers().iter();
        let applied = self.node.registry().read();
        proto::StatusReply {
            node: name(raft.id),
            term: raft.current_term,
            leader: self.node.leader().map_or_else(String::new, name),
            last_log_index: raft.last_log_index.unwrap_or(0),
            applied_index: applied.index(),
            shows: applied.registry.show_count() as u64,
            members: members
                .map(|p| proto::Member {
                    node: p.region.to_string(),
                    url: p.url.clone(),
                    matched_index: matched(p.id),
                })
                .collect(),
        }
    }
}

impl From<BadMessage> for Status {
    fn from(error: BadMessage) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

impl From<Unsettled> for Status {
    fn from(unsettled: Unsettled) -> Self {
        Self::unavailable(unsettled.to_string())
    }
}

fn unusable(answer: &Answer) -> Status {
    tracing::error!(?answer, "the registry's answer is not of the command's kind");
    Status::unavailable("the registry gave no usable answer")
}

fn forwarded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, AsciiMetadataValue::from_static("1"));
    request.set_timeout(FORWARD_DEADLINE);
    request
}

/// A lost connection and a late answer both leave the outcome unknown.
async fn at_leader<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    use tonic::Code::{FailedPrecondition, InvalidArgument, NotFound};
    match timeout(FORWARD_DEADLINE, call).await {
        Ok(Err(status)) if matches!(status.code(), FailedPrecondition | InvalidArgument | NotFound) => {
            Err(Status::new(status.code(), status.message()))
        }
        Ok(Err(status)) => Err(Status::unavailable(format!("the leader: {}", status.message()))),
        Ok(Ok(reply)) => Ok(Response::new(reply.into_inner())),
        Err(_) => Err(Status::unavailable("the leader did not answer in time")),
    }
}

#[tonic::async_trait]
impl Registry for RegistryService {
    type WatchStream = ReceiverStream<Result<proto::WatchEvent, Status>>;

    async fn open_session(
        &self,
        request: Request<proto::OpenSessionRequest>,
    ) -> Result<Response<proto::OpenSessionReply>, Status> {
        let open = OpenSession::try_from(request.get_ref().clone())?;
        match self.place(&request)? {
            Place::At(mut leader) => at_leader(leader.open_session(forwarded(request.into_inner()))).await,
            Place::Here => match self.propose(Command::OpenSession(open)).await? {
                Answer::Session { no } => Ok(Response::new(proto::OpenSessionReply { no })),
                other => Err(unusable(&other)),
            },
        }
    }

    async fn create_show(
        &self,
        request: Request<proto::CreateShowRequest>,
    ) -> Result<Response<proto::Show>, Status> {
        let asked = CreateShow::try_from(request.get_ref().clone())?;
        match self.place(&request)? {
            Place::At(mut leader) => at_leader(leader.create_show(forwarded(request.into_inner()))).await,
            Place::Here => match self.propose(self.complete(asked)?).await? {
                Answer::Show(show) => Ok(Response::new(show.into())),
                other => Err(unusable(&other)),
            },
        }
    }

    async fn get_show(
        &self,
        request: Request<proto::GetShowRequest>,
    ) -> Result<Response<proto::Show>, Status> {
        let id = show_id(&request.get_ref().show_id)?;
        match self.place(&request)? {
            Place::At(mut leader) => at_leader(leader.get_show(forwarded(request.into_inner()))).await,
            Place::Here => match self.node.get_show(id).await? {
                Some(show) => Ok(Response::new(show.into())),
                None => Err(Status::not_found("no such show")),
            },
        }
    }

    async fn watch(
        &self,
        _request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(watch::start(Arc::clone(&self.node), self.stop.clone())))
    }

    async fn status(
        &self,
        _request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusReply>, Status> {
        Ok(Response::new(self.status_now()))
    }
}
