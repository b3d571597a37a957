//! What a voter keeps on its disk: log, vote and commit position in `log.redb`, the last snapshot in
//! `snapshot.redb`, so that writing a large snapshot never stands in front of an append.
//!
//! Invariants: what raft was told is durable has been flushed; a directory belongs to one node id for
//! ever; a log entry is purged only after a snapshot that covers it is on the disk.

#![expect(clippy::result_large_err, reason = "openraft's errors are large, and its traits ask for them")]

mod log;
mod machine;
mod snapshots;
mod tail;

pub use log::LogStore;
pub use machine::{Published, SharedRegistry, StateMachine, WatchStart};
pub use snapshots::SnapshotStore;
pub use tail::Flushing;

use std::path::Path;

use anyhow::Context;
use openraft::AnyError;
use redb::{Builder, Database, ReadableTable, TableDefinition};

use crate::types::{NodeId, StorageIoError};

const IDENTITY: TableDefinition<&str, u64> = TableDefinition::new("identity");

/// Both hold little that is hot; the default would let each grow to a gigabyte.
const CACHE_BYTES: usize = 16 << 20;

fn open_database(path: &Path) -> anyhow::Result<Database> {
    let open = Builder::new().set_cache_size(CACHE_BYTES).create(path);
    open.with_context(|| format!("cannot open {}", path.display()))
}

/// Opens (or creates) a voter's directory, and refuses one that belongs to another voter: two voters with
/// one log, or one voter with another's votes, would break every promise raft makes.
pub fn open(dir: &Path, node_id: NodeId) -> anyhow::Result<(LogStore, StateMachine)> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let db = open_database(&dir.join("log.redb"))?;
    claim(&db, node_id).with_context(|| format!("cannot use {}", dir.display()))?;
    let snapshots = SnapshotStore::open(&dir.join("snapshot.redb"))?;
    sync_entries(dir)?;
    let log = LogStore::new(db, node_id)?;
    let machine = StateMachine::load(snapshots, log.flushing())?;
    Ok((log, machine))
}

/// A file that was flushed is still lost with the power when its directory was not: the voter would come
/// back empty, under an id that has voted.
fn sync_entries(dir: &Path) -> anyhow::Result<()> {
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty());
    for dir in [Some(dir), above].into_iter().flatten() {
        let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
        synced.with_context(|| format!("cannot flush {}", dir.display()))?;
    }
    Ok(())
}

fn claim(db: &Database, node_id: NodeId) -> anyhow::Result<()> {
    let write = db.begin_write()?;
    let mut identity = write.open_table(IDENTITY)?;
    let held = identity.get("node_id")?.map(|held| held.value());
    match held {
        Some(held) if held != node_id => {
            anyhow::bail!("the directory belongs to voter {held}; this is voter {node_id}")
        }
        Some(_) => return Ok(()),
        None => identity.insert("node_id", node_id)?,
    };
    drop(identity);
    write.commit()?;
    Ok(())
}

/// A JSON body that could not be read back.
fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StorageIoError> {
    serde_json::from_slice(bytes).map_err(|e| StorageIoError::read(AnyError::new(&e)))
}

fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StorageIoError> {
    serde_json::to_vec(value).map_err(|e| StorageIoError::write(AnyError::new(&e)))
}

fn read_error(error: impl Into<redb::Error>) -> StorageIoError {
    StorageIoError::read(AnyError::new(&error.into()))
}

fn write_error(error: impl Into<redb::Error>) -> StorageIoError {
    StorageIoError::write(AnyError::new(&error.into()))
}

/// Runs disk work where it cannot hold up the reactor.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageIoError> + Send + 'static,
) -> Result<T, StorageIoError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| StorageIoError::write(AnyError::new(&e)))?
}

#[cfg(test)]
mod tests;
