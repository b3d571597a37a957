//! An operator gives a region up that is down and shall not be waited for: it leaves every show's replica set, so
//! that what is left can be a majority again. When it comes back it is a stranger to those shows, and is taken in
//! anew ([`Registry::rejoin`]).
//!
//! Invariant: what was acknowledged survives, except for shows that are counted as *at risk*: those of which a
//! majority of the last settled set may be among the regions given up.

use common::{RegionName, ShowId};

use super::ownership::{other_epoch, preference, unknown};
use super::{Answer, Change, Refusal, RegionState, Registry, ShowRecord, ShowTable};

/// What becomes of a show.
#[derive(Clone, Debug, PartialEq)]
struct Left {
    /// The epoch is not raised in it. None: nobody else keeps the show, and it waits for the region.
    show: Option<ShowRecord>,
    /// Something acknowledged may be known to nobody who is left.
    at_risk: bool,
}

/// `is_gone`: the region, and all that were given up before it.
fn without(
    show: &ShowRecord,
    is_gone: impl Fn(&RegionName) -> bool,
    is_up: impl Fn(&RegionName) -> bool,
) -> Left {
    let rest = |set: &[RegionName]| set.iter().filter(|name| !is_gone(name)).cloned().collect::<Vec<_>>();
    let replicas = rest(&show.replicas);
    // What is acknowledged is with a majority of the set that was settled last.
    let settled = if show.prior.is_empty() { &show.replicas } else { &show.prior };
    let prior = rest(settled);
    let at_risk = !always_meet(settled.len(), prior.len()) || replicas.is_empty();
    if replicas.is_empty() {
        return Left { show: None, at_risk };
    }
    let mut left = show.clone();
    // A majority of it that still can be had is asked for, until a leader has all of it.
    left.prior = if prior.len() > settled.len() / 2 { settled.clone() } else { prior };
    if !replicas.contains(&left.owner) {
        let heirs = replicas.iter().max_by_key(|r| (is_up(r), preference(show.id, r), (*r).clone()));
        left.owner = heirs.cloned().unwrap_or(left.owner);
    }
    left.replicas = replicas;
    Left { show: Some(left), at_risk }
}

/// Whether each majority of a set has somebody in each majority of what is left of the set.
fn always_meet(of: usize, left: usize) -> bool {
    let majority = |count: usize| count / 2 + 1;
    let of_a_majority = majority(of).saturating_sub(of - left);
    // Of a set of which nobody is left there is nobody to meet.
    of_a_majority > 0 && of_a_majority + majority(left) > left
}

impl Registry {
    /// `accepted`: for so many shows something acknowledged may be lost, and no more.
    pub(super) fn give_up(
        &mut self,
        region: &RegionName,
        accepted: u64,
        changes: &mut Vec<Change>,
    ) -> Answer {
        let Some(known) = self.regions.get(region) else { return unknown(region) };
        if known.state != RegionState::Down {
            let reason = format!("the region `{region}` is not down");
            return Answer::refused(Refusal::RegionNotDown, reason);
        }
        if known.given_up {
            return Answer::GivenUp { region: known.clone(), shows: 0, at_risk: 0 };
        }
        let (_, at_risk) = at_risk(&self.shows, region, |name| self.is_given_up(name), 0);
        if at_risk > accepted {
            let reason = format!("what was acknowledged of {at_risk} shows may be lost; say so in `at_risk`");
            return Answer::refused(Refusal::ShowsAtRisk, reason);
        }
        if let Some(known) = self.regions.get_mut(region) {
            known.given_up = true;
            known.disowned = known.incarnation + 1;
        }
        let record = self.begin_incarnation(region, changes);
        let mut shows = 0;
        for show in kept_by(&self.shows, region) {
            let left = without(&show, |name| self.is_given_up(name), |name| self.is_up(name));
            if let Some(left) = left.show {
                self.placed.remove(&show.id);
                shows += u64::from(self.raise(left, changes).is_ok());
            }
        }
        match record {
            Some(region) => Answer::GivenUp { region, shows, at_risk },
            None => unknown(region),
        }
    }

    /// A region that was given up, and is back, keeps the show again.
    pub(super) fn rejoin(
        &mut self,
        id: ShowId,
        region: &RegionName,
        if_epoch: u64,
        changes: &mut Vec<Change>,
    ) -> Answer {
        let Some(show) = self.shows.get(id) else { return super::ownership::no_show(id) };
        if show.replicas.contains(region) {
            return Answer::Show(show);
        }
        if show.epoch != if_epoch {
            return other_epoch(&show, if_epoch);
        }
        if !self.is_up(region) {
            return Answer::refused(Refusal::RegionNotUp, format!("the region `{region}` is not up"));
        }
        let mut set = show.replicas;
        set.push(region.clone());
        self.change_replicas(id, &set, if_epoch, changes)
    }

    pub(super) fn is_given_up(&self, region: &RegionName) -> bool {
        self.regions.get(region).is_some_and(|known| known.given_up)
    }
}

/// The shows that would be at risk if the region were given up beside those that are: the first `limit`, and how
/// many.
pub fn at_risk(
    shows: &ShowTable,
    region: &RegionName,
    given_up: impl Fn(&RegionName) -> bool,
    limit: usize,
) -> (Vec<ShowId>, u64) {
    let is_gone = |name: &RegionName| name == region || given_up(name);
    let (mut first, mut count) = (Vec::new(), 0);
    for show in kept_by(shows, region) {
        if without(&show, is_gone, |_| true).at_risk {
            count += 1;
            if first.len() < limit {
                first.push(show.id);
            }
        }
    }
    (first, count)
}

/// What the region is a replica of now, or was until a change that is not settled.
fn kept_by(shows: &ShowTable, region: &RegionName) -> Vec<ShowRecord> {
    let ever = shows.ever_replicated_by(region).into_iter().filter_map(|id| shows.get(id));
    ever.filter(|show| show.replicas.contains(region) || show.prior.contains(region)).collect()
}
