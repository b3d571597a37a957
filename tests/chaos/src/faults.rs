//! What goes wrong, and when: a schedule from a seed, so that a run's faults can be had again. Pure.
//!
//! Faults do not overlap: each ends before the next begins. What two of them at once do is the simulation's.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::rooms::REGIONS;

/// By its place in [`REGIONS`].
pub type Region = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    Postgres,
    Regional,
    Raft,
    Gateway,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// kill -9, and started again.
    KillPostgres(Region),
    KillRegional(Region),
    KillRegistryLeader,
    KillRegion(Region),
    /// SIGSTOP, later SIGCONT.
    Stop(Region, Stopped),
    /// Every process of a region.
    StopRegion(Region),
    /// From all other places; its customers still reach it.
    CutOff(Region),
    /// Nothing passes from the first to the second.
    CutOneWay(Region, Region),
    CutBetween(Region, Region),
    /// Of 1,000 packets between regions.
    Lose(u32),
    /// The database as it was seconds before.
    RestoreOlder(Region),
    /// An asynchronous standby that had fallen behind takes the database's place.
    PromoteStandby(Region),
    /// Flushed, then killed.
    LoseRedis(Region),
    /// The disk of the region's Postgres.
    FillDisk(Region),
}

pub const FILL_DISK: &str = "fill-disk";
/// Only this region's Postgres has a small disk of its own.
pub const SMALL_DISK: Region = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Since the first customer.
    pub at: Duration,
    /// After this it is taken back: healed, started again, continued.
    pub lasts: Duration,
    pub fault: Fault,
}

/// Customers alone for a while first, and after the last.
const CALM: Duration = Duration::from_secs(8);
/// Between one fault's end and the next one's beginning, at least.
const BREATH: Duration = Duration::from_secs(5);

const KINDS: [fn(&mut StdRng) -> Fault; 14] = [
    |rng| Fault::KillPostgres(region(rng)),
    |rng| Fault::KillRegional(region(rng)),
    |_| Fault::KillRegistryLeader,
    |rng| Fault::KillRegion(region(rng)),
    |rng| {
        let parts = [Stopped::Postgres, Stopped::Regional, Stopped::Raft, Stopped::Gateway];
        Fault::Stop(region(rng), parts[rng.random_range(0..parts.len())])
    },
    |rng| Fault::StopRegion(region(rng)),
    |rng| Fault::CutOff(region(rng)),
    |rng| two(rng, Fault::CutOneWay),
    |rng| two(rng, Fault::CutBetween),
    |rng| Fault::Lose(rng.random_range(10..=80)),
    |rng| Fault::RestoreOlder(region(rng)),
    |rng| Fault::PromoteStandby(region(rng)),
    |rng| Fault::LoseRedis(region(rng)),
    |_| Fault::FillDisk(SMALL_DISK),
];

fn region(rng: &mut StdRng) -> Region {
    rng.random_range(0..REGIONS.len())
}

fn two(rng: &mut StdRng, fault: fn(Region, Region) -> Fault) -> Fault {
    let first = region(rng);
    fault(first, (first + rng.random_range(1..REGIONS.len())) % REGIONS.len())
}

/// The faults of a run: every kind once in random order, then all again. `wanted`: of kinds, by name.
pub fn schedule(seed: u64, lasting: Duration, wanted: impl Fn(&str) -> bool) -> Vec<Planned> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut planned, mut at, mut kinds) = (Vec::new(), CALM, Vec::new());
    loop {
        if kinds.is_empty() {
            kinds = KINDS.to_vec();
            kinds.shuffle(&mut rng);
            kinds.retain(|kind| wanted(kind(&mut rng).kind()));
        }
        let Some(kind) = kinds.pop() else { return planned };
        let fault = kind(&mut rng);
        let lasts = Duration::from_millis(match fault {
            Fault::Stop(..) | Fault::StopRegion(_) => rng.random_range(1_000..=30_000),
            _ => rng.random_range(3_000..=10_000),
        });
        if at + lasts + CALM > lasting {
            return planned;
        }
        planned.push(Planned { at, lasts, fault });
        let gap = Duration::from_millis(rng.random_range(10_000..=20_000));
        at += gap.max(lasts + BREATH);
    }
}

impl Fault {
    /// Without the regions.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::KillPostgres(_) => "kill-postgres",
            Self::KillRegional(_) => "kill-regional",
            Self::KillRegistryLeader => "kill-registry-leader",
            Self::KillRegion(_) => "kill-region",
            Self::Stop(..) => "stop",
            Self::StopRegion(_) => "stop-region",
            Self::CutOff(_) => "cut-off",
            Self::CutOneWay(..) => "cut-one-way",
            Self::CutBetween(..) => "cut-between",
            Self::Lose(_) => "lose-packets",
            Self::RestoreOlder(_) => "restore-older",
            Self::PromoteStandby(_) => "promote-standby",
            Self::LoseRedis(_) => "lose-redis",
            Self::FillDisk(_) => FILL_DISK,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match *self {
            Self::KillRegistryLeader => Ok(()),
            Self::KillPostgres(at)
            | Self::KillRegional(at)
            | Self::KillRegion(at)
            | Self::StopRegion(at)
            | Self::CutOff(at)
            | Self::RestoreOlder(at)
            | Self::PromoteStandby(at)
            | Self::LoseRedis(at)
            | Self::FillDisk(at) => write!(f, " {}", REGIONS[at]),
            Self::Stop(at, part) => write!(f, " {} {part:?}", REGIONS[at]),
            Self::CutOneWay(from, to) => write!(f, " {} to {}", REGIONS[from], REGIONS[to]),
            Self::CutBetween(a, b) => write!(f, " {} and {}", REGIONS[a], REGIONS[b]),
            Self::Lose(per_mille) => write!(f, " {}.{} %", per_mille / 10, per_mille % 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn all(_: &str) -> bool {
        true
    }

    #[test]
    fn a_seed_is_a_schedule_and_an_hour_has_every_kind_often() {
        let planned = schedule(7, HOUR, all);
        assert_eq!(planned, schedule(7, HOUR, all));
        assert_ne!(planned, schedule(8, HOUR, all));
        let kinds: BTreeSet<&str> = planned.iter().map(|planned| planned.fault.kind()).collect();
        assert_eq!(kinds.len(), KINDS.len());
        assert!(planned.len() > 150, "{}", planned.len());
    }

    #[test]
    fn faults_begin_ten_to_twenty_seconds_apart_or_when_the_last_has_ended() {
        for seed in 0..50 {
            let planned = schedule(seed, HOUR, all);
            for pair in planned.windows(2) {
                let (gap, lasted) = (pair[1].at - pair[0].at, pair[0].lasts);
                assert!(gap >= lasted + BREATH && gap >= Duration::from_secs(10));
                assert!(gap <= Duration::from_secs(20) || gap == lasted + BREATH, "{pair:?}");
            }
            let last = planned.last().unwrap();
            assert!(last.at + last.lasts + CALM <= HOUR);
        }
    }

    #[test]
    fn the_first_fourteen_are_all_kinds_and_some_can_be_chosen() {
        let kinds: BTreeSet<&str> = schedule(3, HOUR, all)[..14].iter().map(|p| p.fault.kind()).collect();
        assert_eq!(kinds.len(), 14);
        let only = schedule(3, HOUR, |kind| kind.starts_with("cut"));
        assert!(only.iter().all(|planned| planned.fault.kind().starts_with("cut")) && only.len() > 100);
        assert!(schedule(3, HOUR, |kind| kind == "flood").is_empty());
    }

    #[test]
    fn no_link_is_between_a_region_and_itself() {
        for planned in schedule(11, HOUR, |kind| kind.starts_with("cut")) {
            if let Fault::CutBetween(a, b) | Fault::CutOneWay(a, b) = planned.fault {
                assert_ne!(a, b);
            }
        }
    }
}
