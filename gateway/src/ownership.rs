//! Which region owns a show, as the registry's watch tells it. The only place that knows the registry.

use common::tls::Tls;
use common::{RegionName, ShowId};
use raft::client::{RegionState, RegistryClient, RegistryView, SessionRecord, ShowRecord};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A local copy of the registry; cheap to clone. It is a hint: a wrong one costs a re-route.
#[derive(Clone)]
pub struct Ownership(RegistryView);

impl Ownership {
    /// Follows the registry until `stop`; must be called within a tokio runtime.
    pub fn follow(voters: &[String], tls: &Tls, stop: CancellationToken) -> anyhow::Result<Self> {
        Ok(Self(RegistryClient::new(voters, tls)?.watch(stop)))
    }

    pub fn owner(&self, show: ShowId) -> Option<RegionName> {
        self.0.show(show).map(|record| record.owner)
    }

    /// The regions that keep a copy of the show's journal, its owner's among them.
    pub fn replicas(&self, show: ShowId) -> Vec<RegionName> {
        self.0.show(show).map(|record| record.replicas).unwrap_or_default()
    }

    pub fn epoch(&self, show: ShowId) -> Option<u64> {
        self.0.show(show).map(|record| record.epoch)
    }

    /// Takes in what a region's refusal told, unless what is known is newer.
    pub fn learn(&self, show: ShowId, home: RegionName, owner: RegionName, epoch: u64) {
        let replicas = self.replicas(show);
        self.0.note(ShowRecord { id: show, home, owner, epoch, replicas, prior: Vec::new() });
    }

    /// What the registry has decided about a region. None: it has not heard of it.
    pub fn state(&self, region: &RegionName) -> Option<RegionState> {
        self.0.regions().into_iter().find(|record| record.name == *region).map(|record| record.state)
    }

    /// The regional processes that have announced themselves.
    pub fn sessions(&self) -> Vec<SessionRecord> {
        self.0.sessions()
    }

    /// A count that rises with every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }

    /// Waits for the first whole copy.
    pub async fn synced(&self) {
        self.0.synced().await;
    }
}
