//! Raft's log, vote and commit position in redb.
//!
//! What waits while one transaction is flushed goes into the next. A follower's entry is flushed before it is
//! reported, a leader's own is reported at once ([`tail`](super::tail) says what that asks for). The commit position is
//! written lazily, with the next transaction: raft may lose its tail, and learns it again from the leader.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::tail::{Flushing, Row, Tail};
use super::{blocking, decode, encode, read_error, write_error};
use crate::types::{Entry, LogId, NodeId, StorageError, StorageIoError, TypeConfig, Vote};

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";

/// So much of the log is read for one message to a follower, and always one entry.
const READ_BYTES: usize = 1 << 20;

#[derive(Clone)]
pub struct LogStore(Arc<Shared>);

struct Shared {
    db: Database,
    own: NodeId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    committed: Option<LogId>,
    vote: Option<Vote>,
    tail: Tail,
}

impl LogStore {
    pub(super) fn new(db: Database, own: NodeId) -> anyhow::Result<Self> {
        let write = db.begin_write()?;
        write.open_table(LOG)?;
        write.open_table(META)?;
        write.commit()?;
        let store = Self(Arc::new(Shared { db, own, state: Mutex::default() }));
        let (committed, vote) = (store.read_meta(COMMITTED)?, store.read_meta(VOTE)?);
        store.state().committed = committed;
        store.state().vote = vote.map(|vote| store.once_resumed(vote));
        Ok(store)
    }

    /// A vote as it was before this process began. What this voter led with is over: it may have lost entries that it
    /// had reported and sent, and must not make others of the same ids. So it stands as one who has voted for itself,
    /// and leads again in a later term.
    fn once_resumed(&self, mut vote: Vote) -> Vote {
        vote.committed &= vote.leader_id.node_id != self.0.own;
        vote
    }

    /// For those who must wait for what is not flushed.
    pub fn flushing(&self) -> Flushing {
        self.state().tail.flushing()
    }

    /// As long as what is answered lives, nothing is written.
    #[cfg(test)]
    pub fn hold_disk(&self) -> WriteTransaction {
        self.0.db.begin_write().unwrap()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no code panics while holding it")
    }

    fn read_meta<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StorageIoError> {
        let read = self.0.db.begin_read().map_err(read_error)?;
        let meta = read.open_table(META).map_err(read_error)?;
        meta.get(key).map_err(read_error)?.map(|bytes| decode(bytes.value())).transpose()
    }

    /// One flushed transaction, after all that was appended before.
    async fn write(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), StorageIoError> + Send + 'static,
    ) -> Result<(), StorageIoError> {
        self.flushing().all().await?;
        let store = self.clone();
        blocking(move || {
            let committed = store.state().committed;
            store.flush_with(committed, change)
        })
        .await
    }

    /// One flushed transaction, which carries the commit position along.
    fn flush_with(
        &self,
        committed: Option<LogId>,
        change: impl FnOnce(&WriteTransaction) -> Result<(), StorageIoError>,
    ) -> Result<(), StorageIoError> {
        let mut write = self.0.db.begin_write().map_err(write_error)?;
        write.set_durability(Durability::Immediate).map_err(write_error)?;
        change(&write)?;
        if let Some(committed) = committed {
            put_meta(&write, COMMITTED, &committed)?;
        }
        write.commit().map_err(write_error)
    }

    /// Writes what is only in memory; called at a graceful stop.
    pub async fn flush(&self) -> Result<(), StorageError> {
        Ok(self.write(|_| Ok(())).await?)
    }

    /// Flushes the tail until there is none.
    fn flush_tail(&self) {
        loop {
            let (rows, committed) = {
                let state = self.state();
                (state.tail.bodies(), state.committed)
            };
            let Some(last) = rows.last().map(|(index, _)| *index) else { return };
            // What is not written here is not committed for good.
            let committed = committed.filter(|committed| committed.index <= last);
            let written = self.flush_with(committed, |write| {
                let mut log = write.open_table(LOG).map_err(write_error)?;
                for (index, body) in &rows {
                    log.insert(*index, &**body).map_err(write_error)?;
                }
                Ok(())
            });
            let mut state = self.state();
            match written {
                Ok(()) if state.tail.flushed(last) => {}
                Ok(()) => return,
                Err(error) => return state.tail.failed(&error),
            }
        }
    }

    /// Whether these are entries of the reign that this voter leads.
    fn leads(&self, last: LogId) -> bool {
        self.state().vote.is_some_and(|vote| {
            vote.committed && vote.leader_id == last.leader_id && vote.leader_id.node_id == self.0.own
        })
    }

    /// Entries on their way to the disk; all that came before is there first.
    fn give(&self, rows: Vec<Row>) -> Result<(), StorageIoError> {
        if self.state().tail.add(rows.into_iter())? {
            let store = self.clone();
            tokio::task::spawn_blocking(move || store.flush_tail());
        }
        Ok(())
    }

    fn read(&self, range: impl RangeBounds<u64>, most_bytes: usize) -> Result<Vec<Entry>, StorageIoError> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        // Before the disk: what is flushed between the two is then read twice, not never.
        let tail = self.state().tail.rows(&bounds);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut room = |length: usize, is_first: bool| {
            bytes += length;
            bytes <= most_bytes || is_first
        };
        let first = tail.first().map(|row| row.entry.log_id.index);
        let starts_in_tail = first.is_some_and(|first| bounds.0 == Bound::Included(first));
        if !starts_in_tail {
            let read = self.0.db.begin_read().map_err(read_error)?;
            let log = read.open_table(LOG).map_err(read_error)?;
            for row in log.range::<u64>(bounds).map_err(read_error)? {
                let (index, body) = row.map_err(read_error)?;
                if first.is_some_and(|first| index.value() >= first) {
                    break;
                }
                if !room(body.value().len(), entries.is_empty()) {
                    return Ok(entries);
                }
                entries.push(decode(body.value())?);
            }
        }
        for row in tail {
            if !room(row.body.len(), entries.is_empty()) {
                break;
            }
            entries.push(row.entry);
        }
        Ok(entries)
    }
}

fn put_meta<T: serde::Serialize>(
    write: &WriteTransaction,
    key: &str,
    value: &T,
) -> Result<(), StorageIoError> {
    let mut meta = write.open_table(META).map_err(write_error)?;
    meta.insert(key, encode(value)?.as_slice()).map_err(write_error)?;
    Ok(())
}

fn remove(write: &WriteTransaction, range: (Bound<u64>, Bound<u64>)) -> Result<(), StorageIoError> {
    let mut log = write.open_table(LOG).map_err(write_error)?;
    log.retain_in::<u64, _>(range, |_, _| false).map_err(write_error)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.read(range, usize::MAX)?)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        Ok(self.read(start..end, READ_BYTES)?)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        self.flushing().all().await?;
        let purged: Option<LogId> = self.read_meta(PURGED)?;
        let read = self.0.db.begin_read().map_err(read_error)?;
        let log = read.open_table(LOG).map_err(read_error)?;
        let last = match log.last().map_err(read_error)? {
            Some((_, body)) => Some(decode::<Entry>(body.value())?.log_id),
            None => purged,
        };
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        self.write(move |write| put_meta(write, VOTE, &vote)).await?;
        self.state().vote = Some(vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.state().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.state().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.state().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let rows: Vec<Row> = entries
            .into_iter()
            .map(|entry| Ok(Row { body: encode(&entry)?.into(), entry }))
            .collect::<Result<_, StorageIoError>>()?;
        let written = match rows.last().map(|row| row.entry.log_id) {
            None => Ok(()),
            Some(last) if self.leads(last) => self.give(rows),
            Some(last) => {
                self.give(rows)?;
                self.flushing().upto(last.index).await
            }
        };
        match written {
            Ok(()) => {
                flushed.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                flushed.log_io_completed(Err(std::io::Error::other(error.to_string())));
                Err(error.into())
            }
        }
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        let range = (Bound::Included(from.index), Bound::Unbounded);
        Ok(self.write(move |write| remove(write, range)).await?)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let range = (Bound::Unbounded, Bound::Included(upto.index));
        Ok(self
            .write(move |write| {
                put_meta(write, PURGED, &upto)?;
                remove(write, range)
            })
            .await?)
    }
}
