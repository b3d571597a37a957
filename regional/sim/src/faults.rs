//! What goes wrong, each for a while, and all of it until everything heals.

use raft::state::{Command, RegionState};

use crate::event::{At, Event, Ms, Place};
use crate::world::World;

#[derive(Clone, Debug)]
pub enum Fault {
    /// No message passes from one to the other.
    Cut(Vec<(Place, Place)>),
    Crash(At),
    /// SIGSTOP: the process stands still while the world goes on.
    Pause(At),
    /// The store is killed and comes back whole.
    StoreCrash(u8),
    /// The store goes back to a backup: entries and promises are forgotten.
    StoreRestored(u8),
    StoreSlow(u8),
    /// All of a region: its processes and its store.
    RegionLost(u8),
    RegistryAway,
    RegistryElects,
    Move,
    Drain(u8),
    Replicas,
    Storm,
    ProviderAway,
    /// Of a story ([`crate::scripts`]), as long as it says.
    CutFor(Vec<(Place, Place)>, Ms),
    /// Messages between these take so much longer, for so long.
    Slow(Vec<(Place, Place)>, Ms, Ms),
    /// The first show moves there.
    MoveTo(u8),
}

/// For [`crate::setup::Setup::kinds`]: which kinds a seed has.
const KINDS: u64 = 15;

impl World {
    /// Plans every fault of the seed.
    pub fn plan_faults(&mut self) {
        let mut at: Ms = 2_000;
        let kinds: Vec<u64> = (0..KINDS).filter(|kind| self.setup.kinds >> kind & 1 == 1).collect();
        while at < self.setup.chaos {
            if let Some(kind) = self.chance.one(&kinds).copied() {
                let fault = self.fault(kind);
                self.queue.push(at, Event::Fault(self.faults.len()));
                self.faults.push(fault);
            }
            at += self.chance.between(self.setup.pause.0, self.setup.pause.1);
        }
        self.plan_script();
        let end = self.setup.chaos;
        self.queue.push(end, Event::AllHeals);
    }

    fn fault(&mut self, kind: u64) -> Fault {
        let regions = self.setup.regions;
        let region = u8::try_from(self.chance.below(regions.into())).unwrap_or(0);
        let slot = u8::try_from(self.chance.below(self.setup.slots.into())).unwrap_or(0);
        let other =
            (region + 1 + u8::try_from(self.chance.below(u64::from(regions) - 1)).unwrap_or(0)) % regions;
        let at = At { region, slot };
        let (here, there) = (Place::Region(region), Place::Region(other));
        match kind {
            0 => Fault::Cut(vec![(here, there), (there, here)]),
            1 => Fault::Cut(vec![(here, there)]),
            2 => {
                let mut cuts = vec![(here, Place::Registry), (Place::Registry, here)];
                for other in (0..regions).filter(|other| *other != region).map(Place::Region) {
                    cuts.extend([(here, other), (other, here)]);
                }
                Fault::Cut(cuts)
            }
            3 => Fault::Cut(vec![(here, Place::Registry), (Place::Registry, here)]),
            4 => Fault::Crash(at),
            5 => Fault::Pause(at),
            6 => Fault::StoreCrash(region),
            7 => Fault::StoreRestored(region),
            8 => Fault::StoreSlow(region),
            9 => Fault::RegionLost(region),
            10 => {
                if self.chance.chance(500) {
                    Fault::RegistryAway
                } else {
                    Fault::RegistryElects
                }
            }
            11 => Fault::Move,
            12 => Fault::Drain(region),
            13 => Fault::Replicas,
            _ => {
                if self.chance.chance(600) {
                    Fault::Storm
                } else {
                    Fault::ProviderAway
                }
            }
        }
    }

    pub fn strike(&mut self, no: usize) {
        let fault = self.faults[no].clone();
        self.trace.say(self.now, || format!("FAULT {fault:?}"));
        self.counts.add(name(&fault));
        let mut until = self.soon(200, 8_000);
        match &fault {
            Fault::CutFor(cuts, lasts) => {
                until = self.now + lasts;
                for cut in cuts {
                    *self.cuts.entry(*cut).or_default() += 1;
                }
            }
            Fault::Slow(ways, extra, lasts) => {
                until = self.now + lasts;
                self.slow.extend(ways.iter().map(|way| (*way, *extra)));
            }
            Fault::MoveTo(region) => {
                self.move_to(*region);
                return;
            }
            Fault::Cut(cuts) => {
                for cut in cuts {
                    *self.cuts.entry(*cut).or_default() += 1;
                }
            }
            Fault::Crash(at) => {
                if !self.processes[at].is_up {
                    return;
                }
                self.kill(*at);
            }
            Fault::Pause(at) => {
                let until = self.soon(1_000, 12_000);
                if let Some(process) = self.processes.get_mut(at) {
                    process.paused_until = until;
                }
                return;
            }
            Fault::StoreCrash(region) => self.databases[usize::from(*region)].crash(),
            Fault::StoreRestored(region) => {
                self.restore_older(*region);
                return;
            }
            Fault::StoreSlow(region) => {
                self.databases[usize::from(*region)].slow_until = until;
                return;
            }
            Fault::RegionLost(region) => {
                self.databases[usize::from(*region)].crash();
                for slot in 0..self.setup.slots {
                    self.kill(At { region: *region, slot });
                }
            }
            Fault::RegistryAway => self.registry.is_up = false,
            Fault::RegistryElects => {
                self.registry.elected_at = self.now;
                return;
            }
            Fault::Move => {
                self.operators_move();
                return;
            }
            Fault::Drain(region) => {
                let region = self.names.regions[usize::from(*region)].clone();
                if self.registry.is_up {
                    self.command(&Command::Drain { region });
                }
            }
            Fault::Replicas => {
                self.change_replicas();
                return;
            }
            Fault::Storm => self.storm = true,
            Fault::ProviderAway => {
                for region in 0..self.setup.regions {
                    *self.cuts.entry((Place::Region(region), Place::Provider)).or_default() += 1;
                }
            }
        }
        self.queue.push(until, Event::Heals(fault));
    }

    pub fn heal(&mut self, fault: &Fault) {
        if self.healed_at.is_some() {
            return;
        }
        match fault {
            Fault::Cut(cuts) | Fault::CutFor(cuts, _) => {
                for cut in cuts {
                    self.uncut(*cut);
                }
            }
            Fault::Slow(ways, ..) => {
                for way in ways {
                    self.slow.remove(way);
                }
            }
            Fault::Crash(at) => self.start(*at),
            Fault::StoreCrash(region) => self.databases[usize::from(*region)].is_up = true,
            Fault::RegionLost(region) => {
                self.databases[usize::from(*region)].is_up = true;
                for slot in 0..self.setup.slots {
                    let at = At { region: *region, slot };
                    if !self.processes[&at].is_up {
                        self.start(at);
                    }
                }
            }
            Fault::RegistryAway => {
                self.registry.is_up = true;
                self.registry.elected_at = self.now;
            }
            Fault::Drain(region) => self.undrain(*region),
            Fault::Storm => self.storm = false,
            Fault::ProviderAway => {
                for region in 0..self.setup.regions {
                    self.uncut((Place::Region(region), Place::Provider));
                }
            }
            _ => {}
        }
    }

    fn uncut(&mut self, cut: (Place, Place)) {
        if let Some(cuts) = self.cuts.get_mut(&cut) {
            *cuts = cuts.saturating_sub(1);
        }
    }

    fn undrain(&mut self, region: u8) {
        let region = self.names.regions[usize::from(region)].clone();
        if self.registry.is_up {
            self.command(&Command::Undrain { region });
        }
    }

    /// The end of all faults: what stands from here on must serve.
    pub fn heal_all(&mut self) {
        let now = self.now;
        self.trace.say(now, || "everything heals".to_owned());
        self.healed_at = Some(now);
        self.cuts.clear();
        self.slow.clear();
        self.storm = false;
        self.setup.lose = 0;
        self.setup.double = 0;
        self.setup.late = 0;
        self.setup.unknown = 0;
        self.setup.provider = 0;
        if !self.registry.is_up {
            self.registry.is_up = true;
            self.registry.elected_at = now;
        }
        for region in 0..self.setup.regions {
            let database = &mut self.databases[usize::from(region)];
            (database.is_up, database.slow_until) = (true, now);
            if self.region_state(region) == Some(RegionState::Draining) {
                self.undrain(region);
            }
            for slot in 0..self.setup.slots {
                let at = At { region, slot };
                if !self.processes[&at].is_up {
                    self.start(at);
                } else if let Some(process) = self.processes.get_mut(&at) {
                    process.paused_until = process.paused_until.min(now);
                }
            }
        }
        self.queue.push(now + 500, Event::Probe);
    }

    fn operators_move(&mut self) {
        let show = usize::try_from(self.chance.below(self.setup.shows.into())).unwrap_or(0);
        let region = usize::try_from(self.chance.below(self.setup.regions.into())).unwrap_or(0);
        let to = self.names.regions[region].clone();
        let Some(record) = self.registry.state.show(self.names.shows[show]) else { return };
        // Now and then somebody who knew an older epoch.
        let old = u64::from(self.chance.chance(150));
        if self.registry.is_up {
            self.command(&Command::Move { show: record.id, to, if_epoch: record.epoch - old });
        }
    }

    fn move_to(&mut self, region: u8) {
        let to = self.names.regions[usize::from(region)].clone();
        let Some(record) = self.registry.state.show(self.names.shows[0]) else { return };
        if self.registry.is_up && record.owner != to {
            self.command(&Command::Move { show: record.id, to, if_epoch: record.epoch });
        }
    }

    fn change_replicas(&mut self) {
        let show = usize::try_from(self.chance.below(self.setup.shows.into())).unwrap_or(0);
        let Some(record) = self.registry.state.show(self.names.shows[show]) else { return };
        // Two to four, nearly always with the owner among them.
        let mut set = self.names.regions.clone();
        let wanted = usize::try_from(self.chance.between(2, 4)).unwrap_or(3);
        while set.len() > wanted {
            let at = usize::try_from(self.chance.below(set.len() as u64)).unwrap_or(0);
            if set[at] != record.owner || self.chance.chance(20) {
                set.remove(at);
            }
        }
        // Two that recover wait for each other: a set is changed while every region of both is whole.
        let both = record.replicas.iter().chain(&set).filter_map(|name| self.names.region(name));
        let whole =
            both.collect::<Vec<u8>>().into_iter().all(|region| self.registry.is_whole(region, self.now));
        let quiet = self.restored_at == 0 || self.now > self.restored_at + 10_000;
        if self.registry.is_up && set.len() > 1 && whole && quiet {
            let replicas = set;
            self.command(&Command::ChangeReplicas { show: record.id, replicas, if_epoch: record.epoch });
        }
    }

    /// Puts an older store back, if that alone is what the platform can take: two lost stores at a time are
    /// an operator's case, and a loss that the registry could not notice is told in `docs/simulation.md`.
    fn restore_older(&mut self, region: u8) {
        let whole = (0..self.setup.regions).all(|other| {
            let present = self.incarnation(other);
            let database = &self.databases[usize::from(other)];
            (0..self.setup.shows).all(|show| {
                let id = self.names.shows[usize::from(show)];
                let name = &self.names.regions[usize::from(other)];
                let record = self.registry.state.show(id);
                let member = record.is_some_and(|r| r.replicas.contains(name) || r.prior.contains(name));
                let replica = database.content.replicas.get(&show);
                !member || replica.map_or(0, |replica| replica.head.incarnation) == present
            }) && !self.registry.is_behind(other, database.content.position)
        });
        let known = self.registry.position(region);
        if whole && self.databases[usize::from(region)].put_back(known) {
            self.restored_at = self.now;
            self.counts.add("store: went back in time");
        }
    }
}

fn name(fault: &Fault) -> &'static str {
    match fault {
        Fault::Cut(cuts) => match cuts.as_slice() {
            [_] => "fault: one way",
            [(_, Place::Registry), _] => "fault: registry out of reach",
            [_, _] => "fault: partition",
            _ => "fault: region cut off",
        },
        Fault::Crash(_) => "fault: process killed",
        Fault::Pause(_) => "fault: process paused",
        Fault::StoreCrash(_) => "fault: store killed",
        Fault::StoreRestored(_) => "fault: store restored",
        Fault::StoreSlow(_) => "fault: store slow",
        Fault::RegionLost(_) => "fault: region lost",
        Fault::RegistryAway => "fault: registry away",
        Fault::RegistryElects => "fault: registry elects",
        Fault::Move => "fault: move",
        Fault::Drain(_) => "fault: drain",
        Fault::Replicas => "fault: replicas",
        Fault::Storm => "fault: storm",
        Fault::ProviderAway => "fault: provider away",
        Fault::CutFor(..) => "story: cut",
        Fault::Slow(..) => "story: slow link",
        Fault::MoveTo(_) => "story: move",
    }
}
