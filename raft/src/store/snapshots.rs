//! The last snapshot, on disk. A newer one replaces it in one transaction; an older one never does.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{decode, encode, open_database, read_error, write_error};
use crate::types::{SnapshotMeta, StorageIoError};

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("snapshot_meta");
const CHUNKS: TableDefinition<u32, &[u8]> = TableDefinition::new("snapshot_chunks");
const CURRENT: &str = "current";
/// A value of its own for each part keeps redb from moving the whole as one page run.
const CHUNK_BYTES: usize = 1 << 20;

#[derive(Clone)]
pub struct SnapshotStore(Arc<Database>);

impl SnapshotStore {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let db = open_database(path)?;
        let write = db.begin_write()?;
        write.open_table(META)?;
        write.open_table(CHUNKS)?;
        write.commit()?;
        Ok(Self(Arc::new(db)))
    }

    /// Flushed when it returns. A build that was overtaken by an installed snapshot is dropped silently:
    /// the newer one covers all that it holds.
    pub fn store(&self, snapshot: &SnapshotMeta, bytes: &[u8]) -> Result<(), StorageIoError> {
        let mut write = self.0.begin_write().map_err(write_error)?;
        write.set_durability(Durability::Immediate).map_err(write_error)?;
        {
            let mut meta = write.open_table(META).map_err(write_error)?;
            let held: Option<SnapshotMeta> =
                meta.get(CURRENT).map_err(read_error)?.map(|bytes| decode(bytes.value())).transpose()?;
            if held.is_some_and(|held| held.last_log_id > snapshot.last_log_id) {
                return Ok(());
            }
            meta.insert(CURRENT, encode(snapshot)?.as_slice()).map_err(write_error)?;
            let mut chunks = write.open_table(CHUNKS).map_err(write_error)?;
            chunks.retain(|_, _| false).map_err(write_error)?;
            for (no, chunk) in (0..).zip(bytes.chunks(CHUNK_BYTES)) {
                chunks.insert(no, chunk).map_err(write_error)?;
            }
        }
        write.commit().map_err(write_error)
    }

    pub fn load(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StorageIoError> {
        let read = self.0.begin_read().map_err(read_error)?;
        let meta = read.open_table(META).map_err(read_error)?;
        let Some(current) = meta.get(CURRENT).map_err(read_error)? else { return Ok(None) };
        let mut bytes = Vec::new();
        for row in read.open_table(CHUNKS).map_err(read_error)?.iter().map_err(read_error)? {
            bytes.extend_from_slice(row.map_err(read_error)?.1.value());
        }
        Ok(Some((decode(current.value())?, bytes)))
    }
}
