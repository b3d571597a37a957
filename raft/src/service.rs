//! The registry's gRPC: commands and linearizable reads at the leader, or forwarded to it once.
//!
//! `UNAVAILABLE` means that the outcome is not known and the call may be repeated at any voter;
//! `INVALID_ARGUMENT`, `FAILED_PRECONDITION` and `PERMISSION_DENIED` mean that nothing was changed and nothing will be.

use std::sync::Arc;
use std::time::Duration;

use common::proto::registry as proto;
use common::proto::registry::ownership_client::OwnershipClient;
use common::proto::registry::ownership_server::Ownership;
use common::proto::registry::registry_client::RegistryClient;
use common::proto::registry::registry_server::Registry;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::callers::Callers;
use crate::liveness::Beat;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::proposals::Unsettled;
use crate::state::{Answer, Command, OpenSession, RegionRecord};
use crate::types::NodeId;
use crate::watch;
use crate::wire::{BadMessage, CreateShow, region_name, show_id};

/// Marks a call that another voter has passed on; it is not passed on again.
const FORWARDED: &str = "marquee-forwarded";
const FORWARD_DEADLINE: Duration = Duration::from_millis(2200);

/// The code of a refusal, in the status' metadata.
pub(crate) const REFUSAL: &str = "marquee-refusal";

#[derive(Clone)]
pub struct RegistryService {
    pub node: Arc<Node>,
    pub callers: Arc<Callers>,
    pub metrics: Metrics,
    /// Ends the watch streams, which would otherwise hold up a graceful stop.
    pub stop: CancellationToken,
}

/// Where a call is to be carried out.
enum Place {
    Here,
    At(Channel),
}

/// Passes a call on to the leader, or goes on where this voter leads.
macro_rules! at_the_leader {
    ($self:ident, $request:ident, $client:ident, $call:ident) => {
        if let Place::At(leader) = $self.place(&$request)? {
            return at_leader($client::new(leader).$call(forwarded($request.into_inner()))).await;
        }
    };
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
        Ok(Place::At(channel))
    }

    async fn propose(&self, command: Command) -> Result<Answer, Status> {
        match self.node.propose(command).await {
            Ok(Answer::Refused { code, reason }) => {
                let mut status = Status::failed_precondition(reason);
                status.metadata_mut().insert(REFUSAL, AsciiMetadataValue::from_static(code.as_str()));
                Err(status)
            }
            Ok(answer) => Ok(answer),
            Err(unsettled) => Err(unsettled.into()),
        }
    }

    /// A command about one show; counted under `reason` where it gave the show another epoch.
    async fn of_show(&self, command: Command, reason: &str) -> Result<Response<proto::Show>, Status> {
        let known = |id| self.node.registry().read().registry.show(id).map_or(0, |show| show.epoch);
        let before = command.show().map_or(0, known);
        match self.propose(command).await? {
            Answer::Show(show) => {
                if show.epoch > before {
                    self.metrics.owner_changes.with_label_values(&[reason]).inc();
                }
                Ok(Response::new(show.into()))
            }
            other => Err(unusable(&other)),
        }
    }

    /// A command about one region.
    async fn of_region(&self, command: Command) -> Result<Response<proto::RegionReply>, Status> {
        match self.propose(command).await? {
            Answer::Region { region, shows } => {
                tracing::warn!(region = %region.name, state = %region.state, shows, "a region's state has changed");
                self.metrics.owner_changes.with_label_values(&["store_lost"]).inc_by(shows);
                Ok(Response::new(proto::RegionReply { region: Some(region.into()), shows, at_risk: 0 }))
            }
            other => Err(unusable(&other)),
        }
    }

    /// Fills in what the caller left to the registry: the replicas are every region that holds a voter.
    fn complete(&self, asked: CreateShow) -> Result<Command, Status> {
        let CreateShow { id, home, mut replicas } = asked;
        if replicas.is_empty() {
            replicas = self.node.voters_regions();
            if replicas.is_empty() {
                // It may know who leads before it has applied the entry that founded the group.
                return Err(Status::unavailable("this voter does not know the group yet"));
            }
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
        let heard = |region: &RegionRecord| {
            let (well, well_for) = self.node.ears().of(&region.name);
            let well_for_ms =
                well_for.map(|well_for| u64::try_from(well_for.as_millis()).unwrap_or(u64::MAX));
            proto::Heard { region: region.name.to_string(), well, well_for_ms }
        };
        let leads = self.node.leader() == Some(raft.id);
        proto::StatusReply {
            heard: applied.registry.regions().filter(|_| leads).map(heard).collect(),
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
            let mut passed_on = Status::new(status.code(), status.message());
            if let Some(code) = status.metadata().get(REFUSAL) {
                passed_on.metadata_mut().insert(REFUSAL, code.clone());
            }
            Err(passed_on)
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
        self.callers.of_region(&request, &open.region)?;
        at_the_leader!(self, request, RegistryClient, open_session);
        match self.propose(Command::OpenSession(open)).await? {
            Answer::Session { no } => Ok(Response::new(proto::OpenSessionReply { no })),
            other => Err(unusable(&other)),
        }
    }

    async fn create_show(
        &self,
        request: Request<proto::CreateShowRequest>,
    ) -> Result<Response<proto::Show>, Status> {
        self.callers.regional(&request)?;
        let asked = CreateShow::try_from(request.get_ref().clone())?;
        at_the_leader!(self, request, RegistryClient, create_show);
        self.of_show(self.complete(asked)?, "created").await
    }

    async fn get_show(
        &self,
        request: Request<proto::GetShowRequest>,
    ) -> Result<Response<proto::Show>, Status> {
        let id = show_id(&request.get_ref().show_id)?;
        at_the_leader!(self, request, RegistryClient, get_show);
        match self.node.get_show(id).await? {
            Some(show) => Ok(Response::new(show.into())),
            None => Err(Status::not_found("no such show")),
        }
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(watch::start(Arc::clone(&self.node), request.get_ref().many, self.stop.clone())))
    }

    async fn status(
        &self,
        _request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusReply>, Status> {
        Ok(Response::new(self.status_now()))
    }
}

#[tonic::async_trait]
impl Ownership for RegistryService {
    async fn beat(&self, request: Request<proto::BeatRequest>) -> Result<Response<proto::BeatReply>, Status> {
        let region = region_name(&request.get_ref().region)?;
        self.callers.of_region(&request, &region)?;
        at_the_leader!(self, request, OwnershipClient, beat);
        let proto::BeatRequest { session, healthy, caught_up, store, .. } = request.into_inner();
        if !self.node.has_session(session).await? {
            return Err(Status::not_found("the session has ended"));
        }
        self.node.ears().heard(session, &region, Beat { healthy, caught_up });
        let record = self.node.registry().read().registry.region(&region).cloned();
        let record = record.ok_or_else(|| Status::not_found("the region is not known"))?;
        let highest = self.node.ears().highest(&record, store.map(Into::into)).map(Into::into);
        let (state, incarnation) = (record.state.to_string(), record.incarnation);
        Ok(Response::new(proto::BeatReply { state, incarnation, highest }))
    }

    async fn r#move(&self, request: Request<proto::MoveRequest>) -> Result<Response<proto::Show>, Status> {
        self.callers.regional(&request)?;
        let command = Command::try_from(request.get_ref().clone())?;
        at_the_leader!(self, request, OwnershipClient, r#move);
        self.of_show(command, "moved").await
    }

    async fn change_replicas(
        &self,
        request: Request<proto::ChangeReplicasRequest>,
    ) -> Result<Response<proto::Show>, Status> {
        self.callers.regional(&request)?;
        let command = Command::try_from(request.get_ref().clone())?;
        at_the_leader!(self, request, OwnershipClient, change_replicas);
        self.of_show(command, "replicas").await
    }

    async fn settle(&self, request: Request<proto::SettleRequest>) -> Result<Response<proto::Show>, Status> {
        self.callers.regional(&request)?;
        let command = Command::try_from(request.get_ref().clone())?;
        at_the_leader!(self, request, OwnershipClient, settle);
        self.of_show(command, "settled").await
    }

    async fn drain(
        &self,
        request: Request<proto::RegionRequest>,
    ) -> Result<Response<proto::RegionReply>, Status> {
        self.callers.regional(&request)?;
        let region = region_name(&request.get_ref().region)?;
        at_the_leader!(self, request, OwnershipClient, drain);
        self.of_region(Command::Drain { region }).await
    }

    async fn undrain(
        &self,
        request: Request<proto::RegionRequest>,
    ) -> Result<Response<proto::RegionReply>, Status> {
        self.callers.regional(&request)?;
        let region = region_name(&request.get_ref().region)?;
        at_the_leader!(self, request, OwnershipClient, undrain);
        self.of_region(Command::Undrain { region }).await
    }

    async fn give_up(
        &self,
        request: Request<proto::GiveUpRequest>,
    ) -> Result<Response<proto::RegionReply>, Status> {
        self.callers.regional(&request)?;
        let region = region_name(&request.get_ref().region)?;
        let at_risk = request.get_ref().at_risk;
        at_the_leader!(self, request, OwnershipClient, give_up);
        match self.propose(Command::GiveUp { region, at_risk }).await? {
            Answer::GivenUp { region, shows, at_risk } => {
                tracing::warn!(region = %region.name, shows, at_risk, "a region was given up");
                self.metrics.owner_changes.with_label_values(&["given_up"]).inc_by(shows);
                Ok(Response::new(proto::RegionReply { region: Some(region.into()), shows, at_risk }))
            }
            other => Err(unusable(&other)),
        }
    }

    async fn store_lost(
        &self,
        request: Request<proto::StoreLostRequest>,
    ) -> Result<Response<proto::RegionReply>, Status> {
        self.callers.of_region(&request, &region_name(&request.get_ref().region)?)?;
        let command = Command::try_from(request.get_ref().clone())?;
        at_the_leader!(self, request, OwnershipClient, store_lost);
        self.of_region(command).await
    }
}
