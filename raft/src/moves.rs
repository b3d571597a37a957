//! Which shows the registry moves by itself: away from regions that drain, and home again after their region
//! was lost or drained; and into whose replica sets a region comes back that was given up. Pure; the registry's
//! leader asks.
//!
//! Invariants: a show goes only to a replica that is up and was heard; home only when home has been well for a
//! while, so that a region that comes and goes gets nothing; and what an operator has placed is left alone,
//! except by a drain.

use common::{RegionName, ShowId};

use crate::state::{Command, RegionState, Registry, preference};

/// Rows looked at in one go: some tenths of a millisecond, during which nothing is applied.
const LOOK_AT: usize = 20_000;

/// Where the search for shows to move stands.
#[derive(Debug, Default)]
pub struct Search {
    after: Option<ShowId>,
}

/// How many may be moved now.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    pub drain: usize,
    pub home: usize,
}

/// Moves that are due, and whether the search has reached its end.
pub struct Due {
    /// Out of regions that drain; and back into replica sets, at the same rate.
    pub away: Vec<Command>,
    pub home: Vec<Command>,
    pub ended: bool,
}

impl Search {
    /// `is_well`: heard of late. `is_settled`: for long enough to send shows home.
    pub fn due(
        &mut self,
        registry: &Registry,
        allowance: Allowance,
        is_well: impl Fn(&RegionName) -> bool,
        is_settled: impl Fn(&RegionName) -> bool,
    ) -> Due {
        let state = |name: &RegionName| registry.region(name).map(|region| region.state);
        let drains = |name: &RegionName| state(name) == Some(RegionState::Draining);
        let takes = |name: &RegionName| state(name) == Some(RegionState::Up) && is_well(name);
        let goes_home = |name: &RegionName| takes(name) && is_settled(name);
        let wanted =
            |owner: &RegionName, home: &RegionName| drains(owner) || (owner != home && goes_home(home));
        let was_given_up = |name: &RegionName| registry.region(name).is_some_and(|known| known.disowned > 0);
        let back = |name: &RegionName| was_given_up(name) && takes(name);
        let (found, next) = registry.search(self.after, LOOK_AT, wanted, back);
        let mut due = Due { away: Vec::new(), home: Vec::new(), ended: next.is_none() };
        self.after = next;
        for show in found {
            // One region at a time: of two that recover, each would wait for the other.
            let past = registry.past_replicas(show.id);
            let joins = past.into_iter().find(|name| show.prior.is_empty() && back(name));
            if let Some(region) = joins.filter(|_| !drains(&show.owner)) {
                let rejoin = Command::Rejoin { show: show.id, region, if_epoch: show.epoch };
                due.ended &= put(&mut due.away, allowance.drain, rejoin);
                continue;
            }
            let to = if drains(&show.owner) {
                let heirs = show.replicas.iter().filter(|r| **r != show.owner && takes(r));
                heirs.max_by_key(|r| (**r == show.home, preference(show.id, r), (*r).clone())).cloned()
            } else {
                let home = Some(&show.home).filter(|home| show.replicas.contains(home));
                let goes = wanted(&show.owner, &show.home);
                home.filter(|_| goes && show.prior.is_empty() && !registry.is_placed(show.id)).cloned()
            };
            let Some(to) = to else { continue };
            let (list, room) = if drains(&show.owner) {
                (&mut due.away, allowance.drain)
            } else {
                (&mut due.home, allowance.home)
            };
            due.ended &= put(list, room, Command::Relocate { show: show.id, to, if_epoch: show.epoch });
        }
        due
    }
}

/// Whether there was room; what is not taken now is found again.
fn put(list: &mut Vec<Command>, room: usize, command: Command) -> bool {
    let fits = list.len() < room;
    if fits {
        list.push(command);
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::OpenSession;

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    fn platform(shows: usize) -> (Registry, Vec<ShowId>) {
        let mut registry = Registry::default();
        for (index, name) in (1..).zip(["ap", "eu", "us"]) {
            let open = OpenSession {
                region: region(name),
                http_url: format!("http://{name}"),
                grpc_url: String::new(),
                ticket_keys: vec![],
                attempt: name.into(),
            };
            registry.apply(index, &Command::OpenSession(open), &mut Vec::new());
        }
        let ids: Vec<ShowId> = (0..shows).map(|_| ShowId::new(&region("eu"))).collect();
        let replicas = ["ap", "eu", "us"].map(region).to_vec();
        for id in &ids {
            let create = Command::CreateShow { id: *id, home: region("eu"), replicas: replicas.clone() };
            registry.apply(4, &create, &mut Vec::new());
        }
        (registry, ids)
    }

    fn apply(registry: &mut Registry, command: &Command) {
        registry.apply(9, command, &mut Vec::new());
    }

    /// Carries out all that is due, in as many goes as it takes.
    fn all_moves(registry: &mut Registry, well: &[&str], settled: &[&str]) -> (usize, usize) {
        let (mut search, mut away, mut home) = (Search::default(), 0, 0);
        for _ in 0..100 {
            let due = search.due(
                registry,
                Allowance { drain: 7, home: 3 },
                |r| well.contains(&r.as_str()),
                |r| settled.contains(&r.as_str()),
            );
            assert!(due.away.len() <= 7 && due.home.len() <= 3);
            (away, home) = (away + due.away.len(), home + due.home.len());
            for command in due.away.iter().chain(&due.home) {
                apply(registry, command);
            }
            if due.ended {
                break;
            }
        }
        (away, home)
    }

    fn owned(registry: &Registry, ids: &[ShowId], by: &str) -> usize {
        ids.iter().filter(|id| registry.show(**id).unwrap().owner == region(by)).count()
    }

    #[test]
    fn a_drained_region_is_emptied_and_filled_again_when_it_is_undrained_and_settled() {
        let (mut registry, ids) = platform(60);
        let all = ["ap", "eu", "us"];
        assert_eq!(all_moves(&mut registry, &all, &all), (0, 0));
        apply(&mut registry, &Command::Drain { region: region("eu") });
        assert_eq!(all_moves(&mut registry, &["eu"], &all), (0, 0), "nobody who would take them is heard");
        assert_eq!(all_moves(&mut registry, &all, &all), (60, 0));
        assert!(owned(&registry, &ids, "ap") > 15 && owned(&registry, &ids, "us") > 15);
        assert_eq!(all_moves(&mut registry, &all, &all), (0, 0), "it drains still");
        apply(&mut registry, &Command::Undrain { region: region("eu") });
        assert_eq!(all_moves(&mut registry, &all, &["ap", "us"]), (0, 0), "not well for long enough");
        assert_eq!(all_moves(&mut registry, &all, &all), (0, 60));
        assert_eq!(owned(&registry, &ids, "eu"), 60);
    }

    #[test]
    fn what_was_placed_by_hand_stays_until_its_region_drains() {
        let (mut registry, ids) = platform(3);
        let all = ["ap", "eu", "us"];
        apply(&mut registry, &Command::Move { show: ids[0], to: region("us"), if_epoch: 1 });
        apply(&mut registry, &Command::Relocate { show: ids[1], to: region("us"), if_epoch: 1 });
        assert_eq!(all_moves(&mut registry, &all, &all), (0, 1));
        assert_eq!(owned(&registry, &ids, "us"), 1);
        apply(&mut registry, &Command::Drain { region: region("us") });
        assert_eq!(all_moves(&mut registry, &all, &all), (1, 0));
        assert_eq!(owned(&registry, &ids, "eu"), 3, "home first");
    }
}
