//! The registry as openraft's state machine, shared with those who read it and those who watch it.
//!
//! The state is in memory; a restart loads the last snapshot and applies the log after it. Changes are
//! published while the state is locked for writing, so that a watcher that subscribes while it reads has
//! neither a gap nor a doubt.

use std::io::Cursor;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::broadcast;

use super::blocking;
use super::snapshots::SnapshotStore;
use super::tail::Flushing;
use crate::state::{Answer, Change, RegionRecord, Registry, SessionRecord};
use crate::types::{
    Entry, LogId, Membership, Snapshot, SnapshotMeta, StorageError, StorageIoError, TypeConfig,
};

/// A watcher that is behind by more log entries than this starts anew. (Few in tests, which then need
/// not write thousands to see it.)
const WATCH_BACKLOG_ENTRIES: usize = if cfg!(test) { 16 } else { 4096 };

/// The state and what it has been brought up to.
#[derive(Default)]
pub struct Applied {
    pub registry: Registry,
    pub last: Option<LogId>,
    pub membership: Membership,
}

impl Applied {
    pub fn index(&self) -> u64 {
        self.last.map_or(0, |last| last.index)
    }
}

/// What watchers hear.
#[derive(Clone, Debug)]
pub enum Published {
    /// The entry at `index` changed this; never empty.
    Changes { index: u64, changes: Arc<[Change]> },
    /// The state was replaced as a whole: read it again.
    Replaced,
}

/// Where a watch starts: the small tables as they stood, and everything published after.
pub struct WatchStart {
    pub index: u64,
    pub regions: Vec<RegionRecord>,
    pub sessions: Vec<SessionRecord>,
    pub published: broadcast::Receiver<Published>,
}

/// A handle to the state.
#[derive(Clone)]
pub struct SharedRegistry {
    applied: Arc<RwLock<Applied>>,
    published: broadcast::Sender<Published>,
}

impl SharedRegistry {
    fn new(applied: Applied) -> Self {
        let (published, _) = broadcast::channel(WATCH_BACKLOG_ENTRIES);
        Self { applied: Arc::new(RwLock::new(applied)), published }
    }

    /// Never held across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, Applied> {
        self.applied.read().expect("no code panics while holding it")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Applied> {
        self.applied.write().expect("no code panics while holding it")
    }

    pub fn watch(&self) -> WatchStart {
        let applied = self.read();
        WatchStart {
            index: applied.index(),
            regions: applied.registry.regions().cloned().collect(),
            sessions: applied.registry.sessions().cloned().collect(),
            published: self.published.subscribe(),
        }
    }
}

pub struct StateMachine {
    shared: SharedRegistry,
    snapshots: SnapshotStore,
    flushing: Flushing,
}

impl StateMachine {
    pub(super) fn load(snapshots: SnapshotStore, flushing: Flushing) -> anyhow::Result<Self> {
        let applied = match snapshots.load()? {
            Some((meta, bytes)) => Applied {
                registry: Registry::from_bytes(&bytes)?,
                last: meta.last_log_id,
                membership: meta.last_membership,
            },
            None => Applied::default(),
        };
        Ok(Self { shared: SharedRegistry::new(applied), snapshots, flushing })
    }

    pub fn shared(&self) -> SharedRegistry {
        self.shared.clone()
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let applied = self.shared.read();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answer>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        if let Some(last) = entries.last() {
            self.flushing.upto(last.log_id.index).await?;
        }
        let mut applied = self.shared.write();
        let mut answers = Vec::new();
        for entry in entries {
            let mut changes = Vec::new();
            answers.push(match entry.payload {
                EntryPayload::Blank => Answer::Nothing,
                EntryPayload::Normal(proposal) => {
                    applied.registry.apply(entry.log_id.index, &proposal.command, &mut changes)
                }
                EntryPayload::Membership(membership) => {
                    applied.membership = Membership::new(Some(entry.log_id), membership);
                    Answer::Nothing
                }
            });
            applied.last = Some(entry.log_id);
            if !changes.is_empty() {
                let published = Published::Changes { index: entry.log_id.index, changes: changes.into() };
                // Nobody may be watching.
                let _ = self.shared.published.send(published);
            }
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // Encoded here, while nothing is applied: a million shows are 30 MB, written in one pass.
        let applied = self.shared.read();
        let meta = SnapshotMeta {
            last_log_id: applied.last,
            last_membership: applied.membership.clone(),
            snapshot_id: format!(
                "{}-{:08x}",
                applied.last.map_or_else(|| "empty".to_owned(), |last| last.to_string()),
                rand::random::<u32>()
            ),
        };
        Builder { meta, bytes: applied.registry.to_bytes(), snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let (snapshots, meta) = (self.snapshots.clone(), meta.clone());
        let signature = meta.signature();
        let (registry, meta) = blocking(move || {
            let bytes = snapshot.into_inner();
            // Decoded first: a broken one must not reach the disk.
            let registry = Registry::from_bytes(&bytes)
                .map_err(|e| StorageIoError::read_snapshot(Some(signature), AnyError::new(&e)))?;
            snapshots.store(&meta, &bytes)?;
            Ok((registry, meta))
        })
        .await?;
        let mut applied = self.shared.write();
        *applied = Applied { registry, last: meta.last_log_id, membership: meta.last_membership };
        let _ = self.shared.published.send(Published::Replaced);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let snapshots = self.snapshots.clone();
        let held = blocking(move || snapshots.load()).await?;
        Ok(held.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

/// A consistent copy of the state on its way to the disk.
pub struct Builder {
    meta: SnapshotMeta,
    bytes: Vec<u8>,
    snapshots: SnapshotStore,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    /// Returns only after the snapshot is flushed: raft purges the log on the strength of it.
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let (snapshots, meta) = (self.snapshots.clone(), self.meta.clone());
        let bytes = std::mem::take(&mut self.bytes);
        let bytes = blocking(move || snapshots.store(&meta, &bytes).map(|()| bytes)).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(Cursor::new(bytes)) })
    }
}
