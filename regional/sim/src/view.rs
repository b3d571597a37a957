//! What a node has heard of the registry: all records, and each change since. It may be old.

use std::collections::BTreeMap;

use raft::state::{Change, RegionState, SessionRecord, ShowRecord};

#[derive(Clone, Debug, Default)]
pub struct View {
    pub shows: BTreeMap<u8, ShowRecord>,
    pub states: BTreeMap<u8, RegionState>,
    pub incarnations: BTreeMap<u8, u64>,
    pub sessions: BTreeMap<u64, SessionRecord>,
    /// How many of the registry's changes are in it.
    pub cursor: usize,
}

impl View {
    /// Takes in the changes up to number `upto`, in their order.
    pub fn follow(&mut self, changes: &[Change], upto: usize, names: &Names) {
        for change in changes.get(self.cursor..upto).unwrap_or_default() {
            match change {
                Change::Region(region) => {
                    if let Some(no) = names.region(&region.name) {
                        self.states.insert(no, region.state);
                        self.incarnations.insert(no, region.incarnation);
                    }
                }
                Change::Session(session) => {
                    self.sessions.insert(session.no, session.clone());
                }
                Change::SessionClosed(no) => {
                    self.sessions.remove(no);
                }
                Change::Show(show) => {
                    if let Some(no) = names.show(show.id) {
                        self.learn(no, show);
                    }
                }
            }
        }
        self.cursor = self.cursor.max(upto);
    }

    /// Takes in a record from elsewhere, unless what is known is newer.
    pub fn learn(&mut self, no: u8, show: &ShowRecord) {
        let known = self.shows.get(&no).map_or(0, |known| known.epoch);
        if show.epoch >= known {
            self.shows.insert(no, show.clone());
        }
    }
}

/// Regions and shows by the numbers that the simulation uses for them.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub regions: Vec<common::RegionName>,
    pub shows: Vec<common::ShowId>,
}

impl Names {
    pub fn region(&self, name: &common::RegionName) -> Option<u8> {
        self.regions.iter().position(|known| known == name).and_then(|no| u8::try_from(no).ok())
    }

    pub fn show(&self, id: common::ShowId) -> Option<u8> {
        self.shows.iter().position(|known| *known == id).and_then(|no| u8::try_from(no).ok())
    }

    pub fn regions_of(&self, names: &[common::RegionName]) -> std::collections::BTreeSet<u8> {
        names.iter().filter_map(|name| self.region(name)).collect()
    }
}

impl View {
    /// The process of a region that serves a show: of the open sessions each show prefers one.
    pub fn place(&self, names: &Names, region: u8, show: u8) -> Option<crate::event::At> {
        let name = names.regions.get(usize::from(region))?;
        let of_region = self.sessions.values().filter(|session| session.region == *name);
        let slots = of_region.filter_map(|session| session.http_url.rsplit('/').next()?.parse::<u8>().ok());
        let slot = slots.max_by_key(|slot| {
            crate::random::mix(u64::from(*slot) << 16 | u64::from(region) << 8 | u64::from(show))
        })?;
        Some(crate::event::At { region, slot })
    }
}
