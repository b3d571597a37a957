//! Raft's log, vote and commit position in redb.
//!
//! Every append is one transaction, flushed before it is reported. The commit position alone is written
//! lazily, with the next transaction: raft may lose its tail, and learns it again from the leader.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::{blocking, decode, encode, read_error, write_error};
use crate::types::{Entry, LogId, StorageError, StorageIoError, TypeConfig, Vote};

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";

/// So much of the log is read for one message to a follower, and always one entry.
const READ_BYTES: usize = 1 << 20;

#[derive(Clone)]
pub struct LogStore {
    db: Arc<Database>,
    committed: Arc<Mutex<Option<LogId>>>,
}

impl LogStore {
    pub(super) fn new(db: Database) -> anyhow::Result<Self> {
        let write = db.begin_write()?;
        write.open_table(LOG)?;
        write.open_table(META)?;
        write.commit()?;
        let store = Self { db: Arc::new(db), committed: Arc::default() };
        let committed = store.read_meta(COMMITTED)?;
        store.set_committed(committed);
        Ok(store)
    }

    fn read_meta<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StorageIoError> {
        let read = self.db.begin_read().map_err(read_error)?;
        let meta = read.open_table(META).map_err(read_error)?;
        meta.get(key).map_err(read_error)?.map(|bytes| decode(bytes.value())).transpose()
    }

    fn set_committed(&self, committed: Option<LogId>) {
        *self.committed.lock().expect("no code panics while holding it") = committed;
    }

    fn committed(&self) -> Option<LogId> {
        *self.committed.lock().expect("no code panics while holding it")
    }

    /// One flushed transaction, which carries the commit position along.
    async fn write(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), StorageIoError> + Send + 'static,
    ) -> Result<(), StorageIoError> {
        let store = self.clone();
        blocking(move || {
            let mut write = store.db.begin_write().map_err(write_error)?;
            write.set_durability(Durability::Immediate).map_err(write_error)?;
            change(&write)?;
            if let Some(committed) = store.committed() {
                put_meta(&write, COMMITTED, &committed)?;
            }
            write.commit().map_err(write_error)
        })
        .await
    }

    /// Writes what is only in memory; called at a graceful stop.
    pub async fn flush(&self) -> Result<(), StorageError> {
        Ok(self.write(|_| Ok(())).await?)
    }

    fn read(&self, range: impl RangeBounds<u64>, most_bytes: usize) -> Result<Vec<Entry>, StorageIoError> {
        let read = self.db.begin_read().map_err(read_error)?;
        let log = read.open_table(LOG).map_err(read_error)?;
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for row in log.range::<u64>(bounds).map_err(read_error)? {
            let (_, body) = row.map_err(read_error)?;
            bytes += body.value().len();
            if bytes > most_bytes && !entries.is_empty() {
                break;
            }
            entries.push(decode(body.value())?);
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
        let purged: Option<LogId> = self.read_meta(PURGED)?;
        let read = self.db.begin_read().map_err(read_error)?;
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
        Ok(self.write(move |write| put_meta(write, VOTE, &vote)).await?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.read_meta(VOTE)?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.set_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.committed())
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let rows: Vec<(u64, Vec<u8>)> = entries
            .into_iter()
            .map(|entry| Ok((entry.log_id.index, encode(&entry)?)))
            .collect::<Result<_, StorageIoError>>()?;
        let written = self
            .write(move |write| {
                let mut log = write.open_table(LOG).map_err(write_error)?;
                for (index, body) in &rows {
                    log.insert(*index, body.as_slice()).map_err(write_error)?;
                }
                Ok(())
            })
            .await;
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
