//! For those who use the registry: commands and reads at whichever voter answers, and a local copy of it
//! all that follows the changes.
//!
//! Every command may be repeated, and is, until its deadline; so an error says that the outcome is not
//! known, or that the registry refused.

mod beat;
mod follow;
mod orders;
mod view;

pub use beat::{BeatError, Beaten};
pub use view::RegistryView;

pub use crate::liveness::Beat;
pub use crate::state::{RegionRecord, RegionState, SessionRecord, ShowRecord, TicketKey};
pub use crate::steward::Mark;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::proto::registry as proto;
use common::proto::registry::ownership_client::OwnershipClient;
use common::proto::registry::registry_client::RegistryClient as GrpcClient;
use common::tls::{Tls, names};
use common::{RegionName, ShowId};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::service::REFUSAL;

/// Longer than an election takes, so that a caller does not notice one.
const CALL_DEADLINE: Duration = Duration::from_secs(6);
const ATTEMPT_DEADLINE: Duration = Duration::from_millis(2500);
/// Between two rounds over all voters.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Nothing is known to have happened, or it is unknown: repeat it, commands are idempotent.
    #[error("the registry is not available: {0}")]
    Unavailable(String),
    /// Repeating it would be refused again.
    #[error("the registry refuses: {0}")]
    Refused(Refused),
}

/// Why the registry will not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// For programs, such as `not-a-replica`; empty where the request itself was no good.
    pub code: String,
    pub reason: String,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let code = status.metadata().get(REFUSAL).and_then(|code| code.to_str().ok());
        Self { code: code.unwrap_or_default().to_owned(), reason: status.message().to_owned() }
    }
}

struct Voters {
    clients: Vec<GrpcClient<Channel>>,
    /// The same connections, for who may lead what.
    owners: Vec<OwnershipClient<Channel>>,
    /// The voter that answered last.
    preferred: AtomicUsize,
}

/// Cheap to clone; all clones share the connections.
#[derive(Clone)]
pub struct RegistryClient(Arc<Voters>);

impl RegistryClient {
    /// `urls`: each voter's. Connects when first used; must be called within a tokio runtime.
    pub fn new(urls: &[String], tls: &Tls) -> anyhow::Result<Self> {
        anyhow::ensure!(!urls.is_empty(), "the registry needs at least one URL");
        let channels: Vec<Channel> =
            urls.iter().map(|url| tls.channel(url, names::REGISTRY)).collect::<Result<_, _>>()?;
        let clients = channels.iter().cloned().map(GrpcClient::new).collect();
        let owners = channels.into_iter().map(OwnershipClient::new).collect();
        Ok(Self(Arc::new(Voters { clients, owners, preferred: AtomicUsize::new(0) })))
    }

    /// Draws the number of a new session, and closes older ones of the same `http_url`.
    pub async fn open_session(
        &self,
        region: &RegionName,
        http_url: &str,
        grpc_url: &str,
        ticket_keys: Vec<proto::TicketKey>,
    ) -> Result<u64, RegistryError> {
        let request = proto::OpenSessionRequest {
            region: region.to_string(),
            http_url: http_url.to_owned(),
            grpc_url: grpc_url.to_owned(),
            ticket_keys,
            // One for all repeats of this call: a late one must not open a second session.
            attempt: format!("{:032x}", rand::random::<u128>()),
        };
        let reply = self
            .call(|mut voter| {
                let request = request.clone();
                async move { voter.open_session(request).await }
            })
            .await;
        Ok(reply.map_err(Failed::into_error)?.no)
    }

    /// Registers a show with `home` as its first owner; a repeat answers the present record.
    pub async fn create_show(&self, id: ShowId, home: &RegionName) -> Result<ShowRecord, RegistryError> {
        let request = proto::CreateShowRequest {
            show_id: id.to_string(),
            home: home.to_string(),
            replicas: Vec::new(),
        };
        let reply = self
            .call(|mut voter| {
                let request = request.clone();
                async move { voter.create_show(request).await }
            })
            .await;
        to_record(reply.map_err(Failed::into_error)?)
    }

    /// Linearizable: answers no state older than the call.
    pub async fn get_show(&self, id: ShowId) -> Result<Option<ShowRecord>, RegistryError> {
        let request = proto::GetShowRequest { show_id: id.to_string() };
        let reply = self
            .call(|mut voter| {
                let request = request.clone();
                async move { voter.get_show(request).await }
            })
            .await;
        match reply {
            Ok(show) => to_record(show).map(Some),
            Err(Failed::Answered(status)) if status.code() == Code::NotFound => Ok(None),
            Err(failed) => Err(failed.into_error()),
        }
    }

    /// How one voter, whichever answers, sees the group.
    pub async fn status(&self) -> Result<proto::StatusReply, RegistryError> {
        let reply = self.call(|mut voter| async move { voter.status(proto::StatusRequest {}).await }).await;
        reply.map_err(Failed::into_error)
    }

    /// The same from the leader, who alone knows how far the others are and whom it hears; from another voter
    /// where no leader answers.
    pub async fn leader_status(&self) -> Result<proto::StatusReply, RegistryError> {
        let ask = |voter: &GrpcClient<Channel>| {
            let mut voter = voter.clone();
            async move { timeout(ATTEMPT_DEADLINE, voter.status(proto::StatusRequest {})).await }
        };
        let answers = futures::future::join_all(self.0.clients.iter().map(ask)).await;
        let answers = answers.into_iter().filter_map(|answer| Some(answer.ok()?.ok()?.into_inner()));
        let leads = |status: &proto::StatusReply| !status.leader.is_empty() && status.leader == status.node;
        let best = answers.max_by_key(|status| (leads(status), !status.leader.is_empty(), status.term));
        best.ok_or_else(|| RegistryError::Unavailable("no voter answers".into()))
    }

    /// Spawns a follower that keeps the view up to date, reconnecting for ever, until `stop`.
    pub fn watch(&self, stop: CancellationToken) -> RegistryView {
        let view = RegistryView::default();
        let (voters, fed) = (self.0.clients.clone(), view.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow::follow(&voters, &fed) => {}
            }
        });
        view
    }

    /// Tries voter after voter, beginning with the one that answered last, until one answers or the
    /// deadline has passed.
    async fn call<T, F>(&self, send: impl Fn(GrpcClient<Channel>) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        self.call_one_of(&self.0.clients, send).await
    }

    async fn call_one_of<C: Clone, T, F>(&self, voters: &[C], send: impl Fn(C) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let deadline = Instant::now() + CALL_DEADLINE;
        let first = self.0.preferred.load(Ordering::Relaxed);
        let mut last = String::new();
        for attempt in 0.. {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let voter = (first + attempt) % voters.len();
            match timeout(left.min(ATTEMPT_DEADLINE), send(voters[voter].clone())).await {
                Ok(Ok(reply)) => {
                    self.0.preferred.store(voter, Ordering::Relaxed);
                    return Ok(reply.into_inner());
                }
                Ok(Err(status)) if is_final(status.code()) => return Err(Failed::Answered(status)),
                Ok(Err(status)) => last = status.message().to_owned(),
                Err(_) => last = "no answer in time".to_owned(),
            }
            if (attempt + 1) % voters.len() == 0 {
                let jitter = Duration::from_millis(rand::random_range(0..100));
                sleep((ROUND_PAUSE + jitter).min(deadline.saturating_duration_since(Instant::now()))).await;
            }
        }
        Err(Failed::NoAnswer(last))
    }
}

/// Why no voter gave a reply.
enum Failed {
    Answered(Status),
    NoAnswer(String),
}

impl Failed {
    fn into_error(self) -> RegistryError {
        match self {
            Self::Answered(status) => RegistryError::Refused(status.into()),
            Self::NoAnswer(why) => RegistryError::Unavailable(why),
        }
    }
}

/// The registry has decided; another voter would say the same.
fn is_final(code: Code) -> bool {
    use Code::{FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unimplemented};
    matches!(code, InvalidArgument | FailedPrecondition | NotFound | PermissionDenied | Unimplemented)
}

fn to_record(show: proto::Show) -> Result<ShowRecord, RegistryError> {
    show.try_into().map_err(|e| RegistryError::Unavailable(format!("an unreadable answer: {e}")))
}
