//! Replicas on real Postgres servers.

mod admission;
mod differential;
mod faults;
mod server;
mod wire;

use std::sync::Mutex;

use bytes::Bytes;
use common::{RegionName, ShowId};
use deadpool_postgres::Pool;
use jiff::Timestamp;

use super::guard::Guard;
use super::metrics::ReplicaMetrics;
use super::store::Means;
use super::*;
use crate::journal::Ballot;
use crate::replication::replica::Standing;

pub fn ballot(epoch: u64, attempt: u64, session: u64) -> Ballot {
    Ballot { epoch, session, attempt }
}

pub fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

pub fn payload(show: ShowId, text: &str) -> Payload {
    let at = Timestamp::from_microsecond(1_700_000_000_000_000).unwrap();
    Payload { show, at, format: 1, events: Bytes::copy_from_slice(text.as_bytes()) }
}

/// A registry that says of every show what it is told to.
pub struct Fixed {
    pub standing: Mutex<Standing>,
    pub is_new: bool,
}

impl Fixed {
    pub fn member() -> std::sync::Arc<Self> {
        let standing = Mutex::new(Standing { epoch: 1_000, member: true, incarnation: 0, disowned: 0 });
        std::sync::Arc::new(Self { standing, is_new: true })
    }
}

#[async_trait::async_trait]
impl Standings for Fixed {
    fn standing(&self, _: ShowId) -> Standing {
        *self.standing.lock().unwrap()
    }

    async fn is_new(&self, _: ShowId) -> anyhow::Result<bool> {
        Ok(self.is_new)
    }
}

pub fn store(pool: &Pool, standings: std::sync::Arc<dyn Standings>, guard: Guard) -> ReplicaStore {
    let metrics = ReplicaMetrics::new(&prometheus::Registry::new()).unwrap();
    ReplicaStore::start(Means {
        pool: pool.clone(),
        guard,
        standings,
        metrics,
        wanted: Default::default(),
        commits: Default::default(),
    })
}

/// An append of `texts` after `prev`, all under `ballot`, and the mark of its last entry.
pub fn append(show: ShowId, ballot: Ballot, prev: Mark, texts: &[&str], committed: u64) -> (Append, Mark) {
    let (mut last, mut entries) = (prev.clone(), Vec::new());
    for text in texts {
        let entry = last.next(ballot, payload(show, text));
        last = entry.mark();
        entries.push(entry);
    }
    (Append { ballot, prev, entries, committed, sent: 7 }, last)
}
