//! A region's replicas in its Postgres: requests of many shows go into one transaction, which locks their heads,
//! reads the marks that they speak of, asks the pure rules, writes, and commits. Only then they are answered.
//!
//! Invariant: what did not commit, or may not have, is answered by nobody (R3, R8): the leader repeats. A show
//! whose rows are broken fails alone.

mod batch;
mod fetch;
mod lane;
mod statements;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use common::{RegionName, ShowId};
use deadpool_postgres::Pool;
use raft::client::{RegistryClient, RegistryView};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::commits::Commits;
use super::guard::{Guard, StoreMark};
use super::metrics::ReplicaMetrics;
use super::recovery::Wanted;
use super::{Head, Regional, Reply, Request};
use crate::replication::replica::Standing;
use crate::replication::{Kind, Restore};
use lane::{Lane, Waiting};

/// Transactions under way at once, each of shows of its own: while one waits for the disk, the next is made.
const LANES: usize = 2;

/// Requests that wait for a lane; beyond, whoever brings more waits.
const QUEUE: usize = 4_096;
/// And their entries, in bytes.
const QUEUE_BYTES: usize = 64 << 20;

/// Fetches at once.
const FETCHES: usize = 4;

/// What the registry says of a show and this region.
#[async_trait::async_trait]
pub trait Standings: Send + Sync + 'static {
    /// As last heard; of a show that was never heard of: epoch 0, no member.
    fn standing(&self, show: ShowId) -> Standing;

    /// Whether the show was registered since the store's present incarnation was counted, by a linearizable
    /// read: then a head that is missing here was never there.
    async fn is_new(&self, show: ShowId) -> anyhow::Result<bool>;
}

/// By the registry.
pub struct Membership {
    pub region: RegionName,
    pub view: RegistryView,
    pub registry: RegistryClient,
    pub guard: Guard,
}

#[async_trait::async_trait]
impl Standings for Membership {
    fn standing(&self, show: ShowId) -> Standing {
        let record = self.view.show(show);
        let (epoch, member) = record.map_or((0, false), |record| {
            let member = record.replicas.contains(&self.region) || record.prior.contains(&self.region);
            (record.epoch, member)
        });
        // After the epoch: the registry tells a new incarnation before the epochs that it raises.
        let incarnation = self.view.incarnation(&self.region).max(self.guard.incarnation());
        Standing { epoch, member, incarnation, disowned: self.view.disowned(&self.region) }
    }

    async fn is_new(&self, show: ShowId) -> anyhow::Result<bool> {
        // A loss raises the epoch of every show that the region replicates.
        Ok(self.registry.get_show(show).await?.is_some_and(|record| record.epoch == 1))
    }
}

/// An answer, and how far the store was when it was durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub reply: Reply,
    pub mark: StoreMark,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct ReplicaStore(Arc<Inner>);

struct Inner {
    lanes: Vec<mpsc::Sender<Waiting>>,
    bytes: Arc<Semaphore>,
    fetches: Semaphore,
    means: Means,
}

/// What a lane needs.
#[derive(Clone)]
pub struct Means {
    pub pool: Pool,
    pub guard: Guard,
    pub standings: Arc<dyn Standings>,
    pub metrics: ReplicaMetrics,
    /// Replicas that could not answer because they are not whole.
    pub wanted: Wanted,
    /// Told of every head that was written.
    pub commits: Commits,
}

/// What a show's replica is asked to do.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Request(Request),
    Restore(Restore<Regional>),
}

impl ReplicaStore {
    /// Starts the lanes; they end when the last handle is gone.
    pub fn start(means: Means) -> Self {
        let lanes = (0..LANES).map(|_| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(Lane::new(means.clone(), sender.downgrade()).run(receiver));
            sender
        });
        let (lanes, bytes) = (lanes.collect(), Arc::new(Semaphore::new(QUEUE_BYTES)));
        Self(Arc::new(Inner { lanes, bytes, fetches: Semaphore::new(FETCHES), means }))
    }

    /// The answer to one request; none where nothing is known to have happened. Waits while too much is under
    /// way. Requests for one show are carried out in the order in which they are given.
    pub async fn ask(&self, show: ShowId, request: Request) -> Option<Told> {
        match request {
            Request::Fetch { ballot, after } => {
                let _turn = self.0.fetches.acquire().await.ok()?;
                fetch::fetch(&self.0.means, show, ballot, after).await
            }
            request => self.give(show, Work::Request(request)).await?.await.ok(),
        }
    }

    /// As [`Self::ask`], but returns when the request has its place in the line; the answer comes later.
    pub async fn ask_later(&self, show: ShowId, request: Request) -> Option<oneshot::Receiver<Told>> {
        if !matches!(request, Request::Fetch { .. }) {
            return self.give(show, Work::Request(request)).await;
        }
        let (sender, answer) = oneshot::channel();
        let store = self.clone();
        tokio::spawn(async move {
            if let Some(told) = store.ask(show, request).await {
                let _ = sender.send(told);
            }
        });
        Some(answer)
    }

    /// What makes a recovering replica whole (R5): from this process's own recovery only.
    pub async fn restore(&self, show: ShowId, restore: Restore<Regional>) -> Option<Told> {
        self.give(show, Work::Restore(restore)).await?.await.ok()
    }

    /// The head as it is; none where the show has none here.
    pub async fn head(&self, show: ShowId) -> anyhow::Result<Option<Head>> {
        fetch::head(&self.0.means.pool, show).await
    }

    pub fn guard(&self) -> &Guard {
        &self.0.means.guard
    }

    pub fn wanted(&self) -> &Wanted {
        &self.0.means.wanted
    }

    pub fn metrics(&self) -> &ReplicaMetrics {
        &self.0.means.metrics
    }

    pub fn standing(&self, show: ShowId) -> Standing {
        self.0.means.standings.standing(show)
    }

    async fn give(&self, show: ShowId, work: Work) -> Option<oneshot::Receiver<Told>> {
        let weight = u32::try_from(work.weight().min(QUEUE_BYTES)).ok()?;
        let room = self.0.bytes.clone().acquire_many_owned(weight).await.ok()?;
        let (answer, told) = oneshot::channel();
        let mut hasher = DefaultHasher::new();
        show.hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0);
        self.0.lanes[lane].send(Waiting { show, work, answer, _room: room }).await.ok()?;
        Some(told)
    }
}

impl Work {
    /// In bytes of entries.
    pub fn weight(&self) -> usize {
        let append = match self {
            Self::Request(Request::Append(append) | Request::Extend(append)) => append,
            Self::Restore(restore) => &restore.append,
            Self::Request(_) => return 1,
        };
        1 + append.entries.iter().map(|entry| Regional::weight(&entry.payload)).sum::<usize>()
    }
}
