//! One voter: its raft, its copy of the registry, and what it may believe about the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::tls::Tls;
use common::{RegionName, ShowId};
use openraft::ServerState;
use openraft::error::{InitializeError, RaftError};
use tokio::time::{sleep, timeout};

use crate::config::{Config, Peer};
use crate::metrics::Metrics;
use crate::network::Network;
use crate::peer::LeaderContact;
use crate::proposals::{Proposals, Unsettled};
use crate::state::{Answer, Command, ShowRecord};
use crate::steward::Ears;
use crate::store::{self, LogStore, SharedRegistry};
use crate::types::{NodeId, Raft, RaftMetrics};

/// A cut-off leader's confirmation would otherwise wait for ever.
const READ_DEADLINE: Duration = Duration::from_millis(1500);
const STOP_DEADLINE: Duration = Duration::from_secs(5);

pub struct Node {
    config: Config,
    raft: Raft,
    log: LogStore,
    registry: SharedRegistry,
    network: Network,
    contact: LeaderContact,
    proposals: Proposals,
    ears: Ears,
}

impl Node {
    /// Opens the directory, applies what is known to be committed, and starts raft.
    pub async fn start(config: Config, tls: Tls, metrics: Metrics) -> anyhow::Result<Self> {
        let (log, machine) = store::open(&config.data_dir, config.node_id)?;
        let registry = machine.shared();
        let network = Network::new(&config.peers, &tls, log.flushing())?;
        let raft_config = std::sync::Arc::new(config.raft()?);
        let raft = Raft::new(config.node_id, raft_config, network.clone(), log.clone(), machine).await?;
        let proposals = Proposals::start(raft.clone(), metrics);
        let (contact, ears) = (LeaderContact::default(), Ears::new(config.patience()));
        Ok(Self { config, raft, log, registry, network, contact, proposals, ears })
    }

    pub fn id(&self) -> NodeId {
        self.config.node_id
    }

    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    pub fn registry(&self) -> &SharedRegistry {
        &self.registry
    }

    pub fn network(&self) -> &Network {
        &self.network
    }

    pub fn ears(&self) -> &Ears {
        &self.ears
    }

    pub fn contact(&self) -> &LeaderContact {
        &self.contact
    }

    pub fn peers(&self) -> &[Peer] {
        &self.config.peers
    }

    pub fn peer(&self, id: NodeId) -> Option<&Peer> {
        self.config.peers.iter().find(|p| p.id == id)
    }

    pub fn metrics(&self) -> RaftMetrics {
        self.raft.metrics().borrow().clone()
    }

    /// The leader, when it has been heard lately: by this voter in this life, or by a quorum when it is
    /// this voter. raft alone would also name one that is long gone, or lead on without a quorum.
    pub fn leader(&self) -> Option<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let silence = self.config.leader_silence();
        let heard = match metrics.state {
            ServerState::Leader => {
                metrics.millis_since_quorum_ack.is_some_and(|ms| Duration::from_millis(ms) <= silence)
            }
            _ => self.contact.within(silence),
        };
        metrics.current_leader.filter(|_| heard && metrics.running_state.is_ok())
    }

    /// Waits until this voter's copy holds all that was committed when a leader was last heard, at most
    /// for `patience`; says whether it does.
    pub async fn caught_up(&self, patience: Duration) -> bool {
        let caught_up = async {
            loop {
                let caught_up = match self.leader() {
                    Some(id) if id == self.id() => self.confirm_lead().await.is_ok(),
                    Some(_) => self.registry.read().index() >= self.contact.committed_index(),
                    None => false,
                };
                if caught_up {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(patience, caught_up).await.is_ok()
    }

    /// Makes sure that this voter leads, and has applied all that was committed before the call.
    async fn confirm_lead(&self) -> Result<(), Unsettled> {
        match timeout(READ_DEADLINE, self.raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.forward_to_leader().is_some() => Err(Unsettled::NotLeader),
            Ok(Err(error)) => Err(Unsettled::Unknown(error.to_string())),
            Err(_) => Err(Unsettled::Unknown("no quorum in time".into())),
        }
    }

    /// On the leader.
    pub async fn propose(&self, command: Command) -> Result<Answer, Unsettled> {
        self.proposals.propose(command).await
    }

    /// On the leader; linearizable.
    pub async fn get_show(&self, id: ShowId) -> Result<Option<ShowRecord>, Unsettled> {
        self.confirm_lead().await?;
        Ok(self.registry.read().registry.show(id))
    }

    /// On the leader; linearizable. A new leader may not have applied yet what opened a session.
    pub async fn has_session(&self, no: u64) -> Result<bool, Unsettled> {
        if self.registry.read().registry.session(no).is_some() {
            return Ok(true);
        }
        self.confirm_lead().await?;
        Ok(self.registry.read().registry.session(no).is_some())
    }

    /// The regions that hold a voter, in the order of their names.
    pub fn voters_regions(&self) -> Vec<RegionName> {
        let applied = self.registry.read();
        let voters: BTreeSet<NodeId> = applied.membership.voter_ids().collect();
        let regions: BTreeSet<&RegionName> =
            self.config.peers.iter().filter(|p| voters.contains(&p.id)).map(|p| &p.region).collect();
        regions.into_iter().cloned().collect()
    }

    /// Founds the group when nobody has; at a voter that has a log it does nothing.
    pub async fn bootstrap(&self) {
        let voters: BTreeMap<NodeId, openraft::EmptyNode> =
            self.config.peers.iter().map(|p| (p.id, openraft::EmptyNode {})).collect();
        loop {
            match timeout(STOP_DEADLINE, self.raft.initialize(voters.clone())).await {
                Ok(Ok(())) => {
                    tracing::info!(voters = voters.len(), "founded the registry's raft group");
                    return;
                }
                Ok(Err(RaftError::APIError(InitializeError::NotAllowed(_)))) => return,
                Ok(Err(error)) => tracing::warn!(%error, "cannot found the raft group yet"),
                Err(_) => tracing::warn!("founding the raft group takes long"),
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Stops raft and writes what was only in memory.
    pub async fn shutdown(&self) {
        match timeout(STOP_DEADLINE, self.raft.shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "raft did not end well"),
            Err(_) => tracing::warn!("raft did not end in time"),
        }
        if let Err(error) = self.log.flush().await {
            tracing::warn!(%error, "the commit position was not written; it will be learnt again");
        }
    }
}
