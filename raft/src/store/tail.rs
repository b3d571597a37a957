//! The end of the log that is on its way to the disk.
//!
//! A leader reports its own entries to raft before they are flushed, so that they travel while they are written; as
//! Raft permits, if it counts itself among those who hold an entry only once it does (Ongaro, "Consensus: Bridging
//! Theory and Practice", 10.2.1). openraft counts it at once. So until the entry is flushed nothing comes of that: it is
//! not applied (`machine.rs`), no follower is told that it is committed (`network.rs`), and no other leader's vote is
//! taken up (`log.rs`), so that none is told that it is held here.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::AnyError;
use tokio::sync::watch;

use crate::types::{Entry, StorageIoError};

/// An entry and its bytes on the disk.
#[derive(Clone)]
pub(super) struct Row {
    pub entry: Entry,
    pub body: Arc<[u8]>,
}

/// What is not flushed yet.
#[derive(Default)]
pub(super) struct Tail {
    rows: BTreeMap<u64, Row>,
    flushing: watch::Sender<Progress>,
}

#[derive(Clone, Default)]
struct Progress {
    /// The first entry that is not flushed.
    first: Option<u64>,
    /// The disk refused: nothing will be flushed any more.
    failed: Option<String>,
}

/// Waits for the disk; cheap to clone.
#[derive(Clone)]
pub struct Flushing(watch::Receiver<Progress>);

impl Flushing {
    /// Until the entries up to `index`, as far as they were appended, are flushed.
    pub async fn upto(&self, index: u64) -> Result<(), StorageIoError> {
        let mut progress = self.0.clone();
        let is_over = |p: &Progress| p.failed.is_some() || p.first.is_none_or(|first| first > index);
        match progress.wait_for(is_over).await.map(|progress| progress.failed.clone()) {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(failure(&why)),
            Err(_) => Err(failure("the log is closed")),
        }
    }

    /// Until all that was appended is.
    pub async fn all(&self) -> Result<(), StorageIoError> {
        self.upto(u64::MAX).await
    }
}

fn failure(why: &str) -> StorageIoError {
    StorageIoError::write_logs(AnyError::error(why))
}

impl Tail {
    pub fn flushing(&self) -> Flushing {
        Flushing(self.flushing.subscribe())
    }

    /// Adds rows; whether there were none, so that nobody writes at present.
    pub fn add(&mut self, rows: impl Iterator<Item = Row>) -> Result<bool, StorageIoError> {
        if let Some(why) = &self.flushing.borrow().failed {
            return Err(failure(why));
        }
        let was_empty = self.rows.is_empty();
        self.rows.extend(rows.map(|row| (row.entry.log_id.index, row)));
        self.tell();
        Ok(was_empty)
    }

    pub fn rows(&self, range: &impl RangeBounds<u64>) -> Vec<Row> {
        self.rows.iter().filter(|(index, _)| range.contains(*index)).map(|(_, row)| row.clone()).collect()
    }

    /// All that is to be written, in its order; none of it changes before it is flushed.
    pub fn bodies(&self) -> Vec<(u64, Arc<[u8]>)> {
        self.rows.iter().map(|(index, row)| (*index, Arc::clone(&row.body))).collect()
    }

    /// The rows up to `index` are flushed; whether more follow.
    pub fn flushed(&mut self, index: u64) -> bool {
        self.rows.retain(|at, _| *at > index);
        self.tell();
        !self.rows.is_empty()
    }

    pub fn failed(&mut self, why: &StorageIoError) {
        self.flushing.send_modify(|progress| progress.failed = Some(why.to_string()));
    }

    fn tell(&self) {
        let first = self.rows.keys().next().copied();
        self.flushing.send_if_modified(|progress| std::mem::replace(&mut progress.first, first) != first);
    }
}
