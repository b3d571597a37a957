//! The registry as one linearizable place that can be out of reach: the real state machine
//! ([`raft::state::Registry`]), and around it the timers that issue its commands.

use std::collections::BTreeMap;

use raft::state::{Answer, Change, Command, OpenSession, RegionState, Registry};

use crate::event::{Event, Happening, Ms, Place, ToRegistry, Who};
use crate::world::World;

/// A region is lost when no healthy process of it was heard for so long.
const REGION_TIMEOUT: Ms = 3_000;
const TICK: Ms = 200;
/// Home shows move back no sooner after the last change.
const REST: Ms = 4_000;

#[derive(Default)]
pub struct RegistryNode {
    pub state: Registry,
    pub index: u64,
    /// All changes ever, in order; others know a prefix of them.
    pub changes: Vec<Change>,
    /// False: no quorum.
    pub is_up: bool,
    /// Since when this leader counts.
    pub elected_at: Ms,
    heard: BTreeMap<u8, Heard>,
    moved_at: Ms,
}

/// What heartbeats told of a region.
#[derive(Clone, Copy, Default)]
struct Heard {
    healthy_at: Ms,
    whole_at: Ms,
    /// The highest that its store ever had, in its present incarnation (R5).
    position: u64,
}

impl RegistryNode {
    pub fn new() -> Self {
        Self { is_up: true, ..Self::default() }
    }

    /// Whether a region said just now that all its replicas are whole.
    pub fn is_whole(&self, region: u8, now: Ms) -> bool {
        self.heard.get(&region).is_some_and(|heard| now < heard.whole_at + 1_500)
    }

    /// Whether a store is below what was heard of it.
    pub fn is_behind(&self, region: u8, position: u64) -> bool {
        position < self.position(region)
    }

    pub fn position(&self, region: u8) -> u64 {
        self.heard.get(&region).map_or(0, |heard| heard.position)
    }
}

impl World {
    /// Applies a command and tells everybody who can be told.
    pub fn command(&mut self, command: &Command) -> Answer {
        let registry = &mut self.registry;
        registry.index += 1;
        let before = registry.changes.len();
        let answer = registry.state.apply(registry.index, command, &mut registry.changes);
        self.counts.add(match (command, &answer) {
            (_, Answer::Refused { .. }) => "registry: refused",
            (Command::OpenSession(_), _) => "registry: session",
            (Command::CreateShow { .. }, _) => "registry: show",
            (Command::RegionDown { .. }, _) => "registry: region down",
            (Command::RegionUp { .. }, _) => "registry: region up",
            (Command::Drain { .. }, _) => "registry: drain",
            (Command::Undrain { .. }, _) => "registry: undrain",
            (Command::Move { .. }, _) => "registry: move",
            (Command::Relocate { .. }, _) => "registry: relocate",
            (Command::CloseSession { .. }, _) => "registry: session closed",
            (Command::ChangeReplicas { .. }, _) => "registry: replicas",
            (Command::Settled { .. }, _) => "registry: settled",
            (Command::StoreLost { .. }, _) => "registry: store lost",
            _ => "registry: other",
        });
        if let Answer::Refused { reason, .. } = &answer {
            self.counts.refused(reason);
        }
        self.trace.say(self.now, || format!("registry: {command:?}"));
        if self.registry.changes.len() > before {
            self.tell_all();
        }
        answer
    }

    fn tell_all(&mut self) {
        let upto = self.registry.changes.len();
        let everybody: Vec<Who> = self.processes.values().filter(|p| p.is_up).map(|p| p.who()).collect();
        for who in everybody {
            let to = Place::Region(who.at.region);
            self.send(Place::Registry, to, Event::For(who, Happening::Watch { upto }));
        }
    }

    pub fn registry_hears(&mut self, message: ToRegistry) {
        if !self.registry.is_up {
            self.counts.add("registry: away");
            return;
        }
        match message {
            ToRegistry::Command { from, command } => {
                let lost = match &*command {
                    Command::StoreLost { region, .. } => self.names.region(region),
                    _ => None,
                };
                let before = lost.map(|region| self.incarnation(region));
                let answer = self.command(&command);
                if let Some(region) = lost
                    && before < Some(self.incarnation(region))
                {
                    // What is heard from now on is of the new incarnation.
                    self.registry.heard.entry(region).or_default().position = 0;
                }
                if let (Some(who), Answer::Session { no }) = (from, &answer) {
                    let told = Event::For(who, Happening::Session { no: *no });
                    self.send(Place::Registry, Place::Region(who.at.region), told);
                }
            }
            ToRegistry::Heartbeat { who, incarnation, healthy, whole, position } => {
                // A late one, of the store as it was before it was lost.
                if incarnation != self.incarnation(who.at.region) {
                    return;
                }
                let now = self.now;
                let heard = self.registry.heard.entry(who.at.region).or_default();
                if healthy {
                    heard.healthy_at = now;
                    heard.position = heard.position.max(position);
                }
                if healthy && whole {
                    heard.whole_at = now;
                }
            }
            ToRegistry::Identify { who, generation } => {
                let incarnation = self.incarnation(who.at.region);
                let known = self.registry.position(who.at.region);
                let told = Happening::Identified { generation, known, incarnation };
                self.send(Place::Registry, Place::Region(who.at.region), Event::For(who, told));
            }
            ToRegistry::ReadShow { who, show } => {
                let id = self.names.shows[usize::from(show)];
                let Some(record) = self.registry.state.show(id) else { return };
                let incarnations = (0..self.setup.regions).map(|region| self.incarnation(region)).collect();
                let told = Event::For(who, Happening::ShowRead { record, incarnations });
                self.send(Place::Registry, Place::Region(who.at.region), told);
            }
        }
    }

    pub fn incarnation(&self, region: u8) -> u64 {
        let name = &self.names.regions[usize::from(region)];
        self.registry.state.regions().find(|known| known.name == *name).map_or(0, |known| known.incarnation)
    }

    pub fn region_state(&self, region: u8) -> Option<RegionState> {
        let name = &self.names.regions[usize::from(region)];
        self.registry.state.regions().find(|known| known.name == *name).map(|known| known.state)
    }

    /// What only the registry's leader does: losing regions, taking them back, moving shows.
    pub fn registry_tick(&mut self) {
        let at = self.now + TICK;
        self.queue.push(at, Event::RegistryTick);
        if !self.registry.is_up {
            return;
        }
        for region in 0..self.setup.regions {
            let name = self.names.regions[usize::from(region)].clone();
            let heard = self.registry.heard.get(&region).copied().unwrap_or_default();
            let last = heard.healthy_at.max(self.registry.elected_at);
            match self.region_state(region) {
                None => {}
                Some(RegionState::Down) => {
                    let now = self.now;
                    if heard.healthy_at > 0 && now < heard.healthy_at + 1_000 && now < heard.whole_at + 1_000
                    {
                        self.command(&Command::RegionUp { region: name });
                    }
                }
                Some(RegionState::Up | RegionState::Draining) if self.now > last + REGION_TIMEOUT => {
                    self.command(&Command::RegionDown { region: name });
                }
                Some(RegionState::Up | RegionState::Draining) => {}
            }
        }
        self.rebalance();
    }

    /// One planned move at a time: off a draining or lost region, else home.
    fn rebalance(&mut self) {
        if self.now < self.registry.moved_at + 500 {
            return;
        }
        for no in 0..self.names.shows.len() {
            let Some(show) = self.registry.state.show(self.names.shows[no]) else { continue };
            let state = |name: &common::RegionName| {
                self.registry.state.regions().find(|region| region.name == *name).map(|region| region.state)
            };
            let placed = self.registry.state.is_placed(show.id);
            let to = if state(&show.owner) == Some(RegionState::Up) {
                let is_home = show.owner == show.home;
                let rested = self.now > self.registry.moved_at + REST;
                (!is_home && rested && !placed).then(|| show.home.clone())
            } else {
                show.replicas.iter().find(|name| state(name) == Some(RegionState::Up)).cloned()
            };
            let Some(to) = to.filter(|to| {
                state(to) == Some(RegionState::Up) && show.replicas.contains(to) && *to != show.owner
            }) else {
                continue;
            };
            self.registry.moved_at = self.now;
            self.command(&Command::Relocate { show: show.id, to, if_epoch: show.epoch });
            return;
        }
    }

    pub fn open_session(&mut self, who: Who) {
        let region = self.names.regions[usize::from(who.at.region)].clone();
        let url = format!("{region}/{}", who.at.slot);
        let open = OpenSession {
            region,
            http_url: url.clone(),
            grpc_url: url,
            ticket_keys: Vec::new(),
            attempt: who.life.to_string(),
        };
        let command = Box::new(Command::OpenSession(open));
        let event = Event::ToRegistry(ToRegistry::Command { from: Some(who), command });
        self.send(Place::Region(who.at.region), Place::Registry, event);
    }
}
