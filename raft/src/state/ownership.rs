//! Who may lead which show: changes of owner, of replicas, and of the epoch that both raise.
//!
//! Invariants: a show's epoch only rises, by one at each change of owner, of replicas, or of a replica's
//! store; the owner is a replica; while `prior` is set, the replica set does not change again. Every command
//! may be repeated: what is so already is answered with the present record.

use common::{RegionName, ShowId};

use super::{Answer, Change, Refusal, RegionRecord, RegionState, Registry, ShowRecord};

impl Registry {
    /// Lost: its shows go to the other replicas that are up, spread over them. A show without one stays.
    pub(super) fn region_down(&mut self, region: &RegionName, changes: &mut Vec<Change>) -> Answer {
        let Some(state) = self.regions.get(region).map(|known| known.state) else {
            return unknown(region);
        };
        if state != RegionState::Down {
            if !self.has_another_up(region) {
                let reason = format!("no other region is up to take over from `{region}`");
                return Answer::refused(Refusal::LastRegion, reason);
            }
            // What an operator asked for outlasts the outage.
            let draining = state == RegionState::Draining;
            self.set_region(region, RegionState::Down, draining, changes);
        }
        let mut shows = 0;
        for id in self.shows.owned_by(region) {
            let Some(mut show) = self.shows.get(id) else { continue };
            let heirs = show.replicas.iter().filter(|r| *r != region && self.is_up(r));
            let Some(heir) = heirs.max_by_key(|r| (preference(id, r), (*r).clone())).cloned() else {
                continue;
            };
            show.owner = heir;
            self.placed.remove(&id);
            shows += u64::from(self.raise(show, changes).is_ok());
        }
        self.region_answer(region, shows)
    }

    /// Only from `down`: a region that drains stays so until somebody says otherwise, and drains on when it did
    /// before it went down.
    pub(super) fn region_up(&mut self, region: &RegionName, changes: &mut Vec<Change>) -> Answer {
        match self.regions.get(region).map(|known| known.state) {
            None => unknown(region),
            Some(RegionState::Draining) => {
                Answer::refused(Refusal::RegionNotUp, format!("the region `{region}` is draining"))
            }
            Some(RegionState::Up) => self.region_answer(region, 0),
            Some(RegionState::Down) => {
                if let Some(known) = self.regions.get_mut(region) {
                    known.given_up = false;
                }
                let drains = self.regions.get(region).is_some_and(|known| known.drains);
                let state = if drains { RegionState::Draining } else { RegionState::Up };
                self.set_region(region, state, false, changes);
                self.region_answer(region, 0)
            }
        }
    }

    pub(super) fn drain(&mut self, region: &RegionName, changes: &mut Vec<Change>) -> Answer {
        match self.regions.get(region).map(|known| known.state) {
            None => unknown(region),
            Some(RegionState::Down) => is_down(region),
            Some(RegionState::Draining) => self.region_answer(region, 0),
            Some(RegionState::Up) if !self.has_another_up(region) => {
                Answer::refused(Refusal::LastRegion, format!("`{region}` is the last region that is up"))
            }
            Some(RegionState::Up) => {
                self.set_region(region, RegionState::Draining, false, changes);
                self.region_answer(region, 0)
            }
        }
    }

    pub(super) fn undrain(&mut self, region: &RegionName, changes: &mut Vec<Change>) -> Answer {
        match self.regions.get(region).map(|known| known.state) {
            None => unknown(region),
            Some(RegionState::Down) if self.regions.get(region).is_some_and(|known| known.drains) => {
                self.set_region(region, RegionState::Down, false, changes);
                self.region_answer(region, 0)
            }
            Some(RegionState::Down) => is_down(region),
            Some(RegionState::Up) => self.region_answer(region, 0),
            Some(RegionState::Draining) => {
                self.set_region(region, RegionState::Up, false, changes);
                self.region_answer(region, 0)
            }
        }
    }

    /// An operator's: the show stays there.
    pub(super) fn move_show(
        &mut self,
        id: ShowId,
        to: &RegionName,
        if_epoch: u64,
        changes: &mut Vec<Change>,
    ) -> Answer {
        let answer = self.relocate(id, to, if_epoch, changes);
        if let Answer::Show(show) = &answer
            && show.owner != show.home
        {
            self.placed.insert(id);
        }
        answer
    }

    /// Keeps `prior`: a change of replicas that is under way is settled by the new owner.
    pub(super) fn relocate(
        &mut self,
        id: ShowId,
        to: &RegionName,
        if_epoch: u64,
        changes: &mut Vec<Change>,
    ) -> Answer {
        let Some(mut show) = self.shows.get(id) else { return no_show(id) };
        if show.owner == *to {
            return Answer::Show(show);
        }
        if show.epoch != if_epoch {
            return other_epoch(&show, if_epoch);
        }
        if !show.replicas.contains(to) {
            let reason = format!("the region `{to}` holds no replica of the show");
            return Answer::refused(Refusal::NotAReplica, reason);
        }
        if !self.is_up(to) {
            return Answer::refused(Refusal::RegionNotUp, format!("the region `{to}` is not up"));
        }
        show.owner = to.clone();
        self.placed.remove(&id);
        self.raise(show, changes).map_or_else(|refused| refused, Answer::Show)
    }

    pub(super) fn change_replicas(
        &mut self,
        id: ShowId,
        replicas: &[RegionName],
        if_epoch: u64,
        changes: &mut Vec<Change>,
    ) -> Answer {
        let Some(mut show) = self.shows.get(id) else { return no_show(id) };
        let mut set = replicas.to_vec();
        set.sort();
        set.dedup();
        let mut present = show.replicas.clone();
        present.sort();
        if set == present {
            return Answer::Show(show);
        }
        if show.epoch != if_epoch {
            return other_epoch(&show, if_epoch);
        }
        if !show.prior.is_empty() {
            let reason = "another change of the show's replicas is not settled yet";
            return Answer::refused(Refusal::ChangeUnderWay, reason);
        }
        if !set.contains(&show.owner) {
            let reason = format!("the owner `{}` is not among the replicas", show.owner);
            return Answer::refused(Refusal::Unfit, reason);
        }
        if let Some(stranger) = set.iter().find(|region| !self.knows_region(region)) {
            return unknown(stranger);
        }
        show.prior = std::mem::replace(&mut show.replicas, set);
        self.raise(show, changes).map_or_else(|refused| refused, Answer::Show)
    }

    /// Counts only for the present epoch: an older leader knows nothing of the newer set.
    pub(super) fn settled(&mut self, id: ShowId, epoch: u64, changes: &mut Vec<Change>) -> Answer {
        let Some(mut show) = self.shows.get(id) else { return no_show(id) };
        if show.epoch != epoch {
            return other_epoch(&show, epoch);
        }
        if !show.prior.is_empty() {
            show.prior.clear();
            if let Err(error) = self.shows.put(&show) {
                return Answer::refused(Refusal::Unfit, error.to_string());
            }
            changes.push(Change::Show(show.clone()));
        }
        Answer::Show(show)
    }

    /// A new incarnation, told before the shows that rest on it; the region's sessions end; and every show
    /// that the store ever held gets a new epoch, as it may have forgotten a promise to any of them.
    pub(super) fn store_lost(
        &mut self,
        region: &RegionName,
        incarnation: u64,
        changes: &mut Vec<Change>,
    ) -> Answer {
        let Some(known) = self.regions.get(region) else { return unknown(region) };
        if known.incarnation != incarnation {
            return self.region_answer(region, 0);
        }
        self.begin_incarnation(region, changes);
        let mut shows = 0;
        for id in self.shows.ever_replicated_by(region) {
            let Some(show) = self.shows.get(id) else { continue };
            shows += u64::from(self.raise(show, changes).is_ok());
        }
        self.region_answer(region, shows)
    }

    /// Told before the shows that rest on it; the region's sessions end.
    pub(super) fn begin_incarnation(
        &mut self,
        region: &RegionName,
        changes: &mut Vec<Change>,
    ) -> Option<RegionRecord> {
        let known = self.regions.get_mut(region)?;
        known.incarnation += 1;
        let record = known.clone();
        changes.push(Change::Region(record.clone()));
        let of_region = self.sessions.values().filter(|session| session.record.region == *region);
        let ended: Vec<u64> = of_region.map(|session| session.record.no).collect();
        for no in ended {
            self.sessions.remove(&no);
            changes.push(Change::SessionClosed(no));
        }
        Some(record)
    }

    pub(super) fn raise(
        &mut self,
        mut show: ShowRecord,
        changes: &mut Vec<Change>,
    ) -> Result<ShowRecord, Answer> {
        show.epoch += 1;
        self.shows.put(&show).map_err(|error| Answer::refused(Refusal::Unfit, error.to_string()))?;
        changes.push(Change::Show(show.clone()));
        Ok(show)
    }

    pub(super) fn is_up(&self, region: &RegionName) -> bool {
        self.regions.get(region).is_some_and(|known| known.state == RegionState::Up)
    }

    fn has_another_up(&self, than: &RegionName) -> bool {
        self.regions.values().any(|known| known.name != *than && known.state == RegionState::Up)
    }

    fn set_region(
        &mut self,
        region: &RegionName,
        state: RegionState,
        drains: bool,
        changes: &mut Vec<Change>,
    ) {
        if let Some(known) = self.regions.get_mut(region) {
            (known.state, known.drains) = (state, drains);
            changes.push(Change::Region(known.clone()));
        }
    }

    fn region_answer(&self, region: &RegionName, shows: u64) -> Answer {
        match self.regions.get(region) {
            Some(known) => Answer::Region { region: known.clone(), shows },
            None => unknown(region),
        }
    }
}

fn is_down(region: &RegionName) -> Answer {
    Answer::refused(Refusal::RegionNotUp, format!("the region `{region}` is down"))
}

pub(super) fn unknown(region: &RegionName) -> Answer {
    Answer::refused(Refusal::UnknownRegion, format!("the region `{region}` is not known here"))
}

pub(super) fn no_show(id: ShowId) -> Answer {
    Answer::refused(Refusal::UnknownShow, format!("there is no show {id}"))
}

pub(super) fn other_epoch(show: &ShowRecord, asked: u64) -> Answer {
    Answer::refused(Refusal::EpochPassed, format!("the show is at epoch {}, not {asked}", show.epoch))
}

/// Rendezvous hashing: each show prefers its regions in an order of its own, the same on every voter and
/// in every build. FNV-1a over the id and the name, finished so that all bits count (splitmix64).
pub(crate) fn preference(id: ShowId, region: &RegionName) -> u64 {
    let bytes = id.0.as_bytes().iter().chain(region.as_str().as_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
