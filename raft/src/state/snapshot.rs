//! The whole registry as bytes: a JSON head for the little there is of regions and sessions, then the
//! shows as fixed rows, so that a million of them are written in one pass and no text is parsed.
//!
//! Layout: `MQRG`, version (u16), length of the head (u32), head, number of shows (u64), rows of
//! [`ROW_BYTES`]; integers in little endian.

use std::collections::BTreeMap;

use common::{RegionName, ShowId};
use serde::{Deserialize, Serialize};

use super::record::RegionRecord;
use super::shows::{NO_REGIONS, Row, ShowTable};
use super::{Registry, Session};

const MAGIC: &[u8; 4] = b"MQRG";
/// Version 1 had rows without the last two bytes, the replicas of the past.
const VERSION: u16 = 2;
const ROW_BYTES: usize = 16 + 8 + 1 + 1 + 2 + 2 + 2;

/// The bytes are not a snapshot that this build can read.
#[derive(Debug, thiserror::Error)]
#[error("unreadable registry snapshot: {0}")]
pub struct BadSnapshot(String);

#[derive(Serialize, Deserialize)]
struct Head {
    regions: Vec<RegionRecord>,
    sessions: Vec<Session>,
    last_session: u64,
    names: Vec<RegionName>,
    sets: Vec<Vec<u8>>,
    #[serde(default)]
    placed: Vec<ShowId>,
}

impl Registry {
    pub fn to_bytes(&self) -> Vec<u8> {
        let head = Head {
            regions: self.regions.values().cloned().collect(),
            sessions: self.sessions.values().cloned().collect(),
            last_session: self.last_session,
            names: self.shows.names.clone(),
            sets: self.shows.sets.clone(),
            placed: self.placed.iter().copied().collect(),
        };
        let head = serde_json::to_vec(&head).expect("plain structs with text keys are always JSON");
        let mut bytes = Vec::with_capacity(18 + head.len() + self.shows.rows.len() * ROW_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let head_len = u32::try_from(head.len()).expect("regions and sessions are far fewer than 4 GiB");
        bytes.extend_from_slice(&head_len.to_le_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&(self.shows.rows.len() as u64).to_le_bytes());
        for (id, row) in &self.shows.rows {
            bytes.extend_from_slice(id);
            bytes.extend_from_slice(&row.epoch.to_le_bytes());
            bytes.extend_from_slice(&[row.home, row.owner]);
            bytes.extend_from_slice(&row.replicas.to_le_bytes());
            bytes.extend_from_slice(&row.prior.to_le_bytes());
            bytes.extend_from_slice(&row.past.to_le_bytes());
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadSnapshot> {
        let mut reader = Reader(bytes);
        if &reader.array::<4>()? != MAGIC {
            return Err(BadSnapshot("it does not begin as one".into()));
        }
        let version = u16::from_le_bytes(reader.array()?);
        if !(1..=VERSION).contains(&version) {
            return Err(BadSnapshot(format!("version {version} is unknown here")));
        }
        let head_len = u32::from_le_bytes(reader.array()?) as usize;
        let head: Head = serde_json::from_slice(reader.take(head_len)?)
            .map_err(|e| BadSnapshot(format!("its head: {e}")))?;
        let mut shows = ShowTable { names: head.names, sets: head.sets, rows: BTreeMap::new() };
        if shows.sets.iter().flatten().any(|name| usize::from(*name) >= shows.names.len()) {
            return Err(BadSnapshot("a set names an unknown region".into()));
        }
        let count = u64::from_le_bytes(reader.array()?);
        let mut rows = Vec::new();
        for _ in 0..count {
            let id = reader.array::<16>()?;
            let epoch = u64::from_le_bytes(reader.array()?);
            let [home, owner] = reader.array()?;
            let replicas = u16::from_le_bytes(reader.array()?);
            let prior = u16::from_le_bytes(reader.array()?);
            let past = if version == 1 { NO_REGIONS } else { u16::from_le_bytes(reader.array()?) };
            let row = Row { epoch, home, owner, replicas, prior, past };
            if !shows.is_consistent(row) {
                return Err(BadSnapshot("a show names an unknown region".into()));
            }
            rows.push((id, row));
        }
        if !reader.0.is_empty() {
            return Err(BadSnapshot("bytes follow its end".into()));
        }
        // From sorted rows the map is built full, without a split.
        shows.rows = rows.into_iter().collect();
        Ok(Self {
            regions: head.regions.into_iter().map(|r| (r.name.clone(), r)).collect(),
            sessions: head.sessions.into_iter().map(|s| (s.record.no, s)).collect(),
            last_session: head.last_session,
            shows,
            placed: head.placed.into_iter().collect(),
        })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], BadSnapshot> {
        let (taken, rest) =
            self.0.split_at_checked(len).ok_or_else(|| BadSnapshot("it ends too early".into()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadSnapshot> {
        Ok(self.take(N)?.try_into().expect("`take` gives as many bytes as asked"))
    }
}
