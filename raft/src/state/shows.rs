//! The map of shows, small enough for a million of them in every process that watches.
//!
//! A row is 32 bytes in memory: the show's UUID, its epoch, and indices into the tables of region names and of
//! region sets, of which there are few. The order of the rows is that of the ids, on every voter.

use std::collections::BTreeMap;
use std::ops::Bound;

use common::{RegionName, ShowId};
use uuid::Uuid;

use super::record::ShowRecord;

/// The indices are a byte and two bytes wide, and full.
#[derive(Debug, thiserror::Error)]
#[error("the registry holds at most 255 regions and 65535 different sets of replicas")]
pub struct TooManyRegions;

/// The index of the empty set of regions, which needs no entry.
pub(super) const NO_REGIONS: u16 = u16::MAX;

/// Of one region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShowCounts {
    pub owned: usize,
    /// At home there, and another region's now.
    pub elsewhere: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub epoch: u64,
    pub home: u8,
    pub owner: u8,
    pub replicas: u16,
    pub prior: u16,
    /// Regions that once were replicas and are neither in `replicas` nor in `prior`.
    pub past: u16,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShowTable {
    pub(super) names: Vec<RegionName>,
    pub(super) sets: Vec<Vec<u8>>,
    pub(super) rows: BTreeMap<[u8; 16], Row>,
}

impl ShowTable {
    pub fn get(&self, id: ShowId) -> Option<ShowRecord> {
        self.rows.get(id.0.as_bytes()).map(|row| self.record(id, *row))
    }

    pub fn epoch(&self, id: ShowId) -> Option<u64> {
        self.rows.get(id.0.as_bytes()).map(|row| row.epoch)
    }

    /// Inserts or replaces. Who was a replica before and no longer is, is remembered.
    pub fn put(&mut self, show: &ShowRecord) -> Result<(), TooManyRegions> {
        let past = self.rows.get(show.id.0.as_bytes()).map_or_else(Vec::new, |row| self.ever(*row));
        let is_past = |name: &RegionName| !show.replicas.contains(name) && !show.prior.contains(name);
        let past: Vec<RegionName> = past.into_iter().filter(is_past).collect();
        let row = Row {
            past: self.set_index(&past)?,
            epoch: show.epoch,
            home: self.name_index(&show.home)?,
            owner: self.name_index(&show.owner)?,
            replicas: self.set_index(&show.replicas)?,
            prior: self.set_index(&show.prior)?,
        };
        self.rows.insert(*show.id.0.as_bytes(), row);
        Ok(())
    }

    /// The shows that `region` replicates, or ever replicated.
    pub fn ever_replicated_by(&self, region: &RegionName) -> Vec<ShowId> {
        let Some(name) = self.names.iter().position(|name| name == region) else { return Vec::new() };
        let holds = |set: &Vec<u8>| set.iter().any(|held| usize::from(*held) == name);
        let sets: Vec<bool> = self.sets.iter().map(holds).collect();
        let is_in = |set: u16| sets.get(usize::from(set)).copied().unwrap_or(false);
        self.select(|row| is_in(row.replicas) || is_in(row.prior) || is_in(row.past))
    }

    pub fn owned_by(&self, region: &RegionName) -> Vec<ShowId> {
        let Some(owner) = self.names.iter().position(|name| name == region) else { return Vec::new() };
        self.select(|row| usize::from(row.owner) == owner)
    }

    pub fn counts(&self) -> BTreeMap<RegionName, ShowCounts> {
        let mut counts = vec![ShowCounts::default(); self.names.len()];
        for row in self.rows.values() {
            counts[usize::from(row.owner)].owned += 1;
            counts[usize::from(row.home)].elsewhere += usize::from(row.home != row.owner);
        }
        self.names.iter().cloned().zip(counts).collect()
    }

    fn select(&self, wanted: impl Fn(Row) -> bool) -> Vec<ShowId> {
        let rows = self.rows.iter().filter(|(_, row)| wanted(**row));
        rows.map(|(id, _)| ShowId(Uuid::from_bytes(*id))).collect()
    }

    fn ever(&self, row: Row) -> Vec<RegionName> {
        let mut all: Vec<RegionName> =
            [row.replicas, row.prior, row.past].iter().flat_map(|set| self.set(*set)).collect();
        all.sort();
        all.dedup();
        all
    }

    pub fn page_after(&self, after: Option<ShowId>, limit: usize) -> Vec<ShowRecord> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(*id.0.as_bytes()));
        let page = self.rows.range((from, Bound::Unbounded)).take(limit);
        page.map(|(id, row)| self.record(ShowId(Uuid::from_bytes(*id)), *row)).collect()
    }

    /// As [`super::Registry::search`]: without a record for each row, since it may look at a million.
    pub(super) fn search(
        &self,
        after: Option<ShowId>,
        limit: usize,
        wanted: impl Fn(&RegionName, &RegionName) -> bool,
        back: impl Fn(&RegionName) -> bool,
    ) -> (Vec<ShowRecord>, Option<ShowId>) {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(*id.0.as_bytes()));
        let count = self.names.len();
        let of_pair = |owner: &RegionName| self.names.iter().map(|home| wanted(owner, home)).collect();
        let pairs: Vec<Vec<bool>> = self.names.iter().map(of_pair).collect();
        let is_back: Vec<bool> = self.names.iter().map(back).collect();
        let any_back = |set: &Vec<u8>| set.iter().any(|name| is_back[usize::from(*name)]);
        let backs: Vec<bool> = self.sets.iter().map(any_back).collect();
        let (mut found, mut looked, mut last) = (Vec::new(), 0, None);
        for (id, row) in self.rows.range((from, Bound::Unbounded)).take(limit) {
            looked += 1;
            last = Some(ShowId(Uuid::from_bytes(*id)));
            let (owner, home) = (usize::from(row.owner), usize::from(row.home));
            let back = backs.get(usize::from(row.past)).copied().unwrap_or(false);
            if back || owner < count && home < count && pairs[owner][home] {
                found.extend(last.map(|id| self.record(id, *row)));
            }
        }
        (found, last.filter(|_| looked == limit))
    }

    pub fn past(&self, id: ShowId) -> Vec<RegionName> {
        self.rows.get(id.0.as_bytes()).map_or_else(Vec::new, |row| self.set(row.past))
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn record(&self, id: ShowId, row: Row) -> ShowRecord {
        ShowRecord {
            id,
            home: self.name(row.home),
            owner: self.name(row.owner),
            epoch: row.epoch,
            replicas: self.set(row.replicas),
            prior: self.set(row.prior),
        }
    }

    fn name(&self, index: u8) -> RegionName {
        self.names[usize::from(index)].clone()
    }

    fn set(&self, index: u16) -> Vec<RegionName> {
        if index == NO_REGIONS {
            return Vec::new();
        }
        self.sets[usize::from(index)].iter().map(|name| self.name(*name)).collect()
    }

    fn name_index(&mut self, name: &RegionName) -> Result<u8, TooManyRegions> {
        if let Some(index) = self.names.iter().position(|n| n == name) {
            return u8::try_from(index).map_err(|_| TooManyRegions);
        }
        let index = u8::try_from(self.names.len()).ok().filter(|i| *i < u8::MAX).ok_or(TooManyRegions)?;
        self.names.push(name.clone());
        Ok(index)
    }

    fn set_index(&mut self, regions: &[RegionName]) -> Result<u16, TooManyRegions> {
        if regions.is_empty() {
            return Ok(NO_REGIONS);
        }
        let set = regions.iter().map(|r| self.name_index(r)).collect::<Result<Vec<u8>, _>>()?;
        if let Some(index) = self.sets.iter().position(|s| *s == set) {
            return u16::try_from(index).map_err(|_| TooManyRegions);
        }
        let index = u16::try_from(self.sets.len()).ok().filter(|i| *i < NO_REGIONS).ok_or(TooManyRegions)?;
        self.sets.push(set);
        Ok(index)
    }

    /// Whether every index that a row holds stands for something.
    pub(super) fn is_consistent(&self, row: Row) -> bool {
        let name = |index: u8| usize::from(index) < self.names.len();
        let set = |index: u16| index == NO_REGIONS || usize::from(index) < self.sets.len();
        name(row.home) && name(row.owner) && set(row.replicas) && set(row.prior) && set(row.past)
    }
}
