//! Everything there is, and one step of it: the next event happens, and what it does is carried out.
//!
//! Invariant: what happens depends on the seed and nothing else: no clock, no I/O, no thread, and no order of
//! a hash table. A seed replays to the same trace.

use std::collections::BTreeMap;

use regional::replication::Limits;
use regional::show::Created;

use crate::client::Client;
use crate::counts::Counts;
use crate::database::Database;
use crate::event::{At, Event, Message, Ms, Place, Queue, Who};
use crate::faults::Fault;
use crate::gateway::Call;
use crate::history::Operation;
use crate::kind::Broken;
use crate::process::Process;
use crate::provider::Provider;
use crate::random::Random;
use crate::registry::RegistryNode;
use crate::setup::Setup;
use crate::trace::Trace;
use crate::truth::Truth;
use crate::view::{Names, View};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `S1` to `S7`, or `liveness`.
    pub invariant: &'static str,
    pub why: String,
    pub at: Ms,
}

pub struct World {
    pub now: Ms,
    pub setup: Setup,
    pub rules: Broken,
    pub limits: Limits,
    pub chance: Random,
    pub queue: Queue,
    /// How many faults cut each direction now.
    pub cuts: BTreeMap<(Place, Place), u32>,
    /// How much longer messages take than they would.
    pub slow: BTreeMap<(Place, Place), Ms>,
    pub storm: bool,
    pub faults: Vec<Fault>,
    pub names: Names,
    pub facts: Vec<Created>,
    pub registry: RegistryNode,
    pub databases: Vec<Database>,
    pub processes: BTreeMap<At, Process>,
    /// What each region's gateway has heard of the registry.
    pub gateways: Vec<View>,
    pub calls: BTreeMap<u64, Call>,
    pub clients: Vec<Client>,
    pub provider: Provider,
    pub truths: Vec<Truth>,
    pub history: Vec<Operation>,
    /// Every key that was ever used, by its text.
    pub keys: BTreeMap<String, [u8; 16]>,
    pub counts: Counts,
    pub trace: Trace,
    pub broken: Option<Violation>,
    pub healed_at: Option<Ms>,
    /// Of each show: the first answer that it gave after everything healed.
    pub served_at: Vec<Option<Ms>>,
    pub next_id: u64,
    /// When a store last went back in time.
    pub restored_at: Ms,
}

impl World {
    pub fn fail(&mut self, invariant: &'static str, why: impl Into<String>) {
        if self.broken.is_none() {
            let why = why.into();
            self.trace.say(self.now, || format!("BROKEN {invariant}: {why}"));
            self.broken = Some(Violation { invariant, why, at: self.now });
        }
    }

    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A moment from now that nothing else depends on.
    pub fn soon(&mut self, from: Ms, to: Ms) -> Ms {
        self.now + self.chance.between(from, to)
    }

    pub fn is_open(&self, from: Place, to: Place) -> bool {
        from == to || self.cuts.get(&(from, to)).is_none_or(|cuts| *cuts == 0)
    }

    /// How long a message takes, unless it is a late one.
    pub fn delay(&mut self, from: Place, to: Place) -> Ms {
        if from == to {
            return self.chance.below(2);
        }
        if self.chance.chance(self.setup.late) {
            self.counts.add("network: late");
            return self.chance.between(200, 6_000);
        }
        let (least, most) = self.setup.latency;
        self.chance.between(least, most) + self.slow.get(&(from, to)).copied().unwrap_or(0)
    }

    /// Sends a message: it arrives, or not, or twice. False: it surely does not.
    pub fn send(&mut self, from: Place, to: Place, event: Event) -> bool {
        if !self.is_open(from, to) {
            self.counts.add("network: cut");
            return false;
        }
        let (mut lose, mut double) = (self.setup.lose, self.setup.double);
        if self.storm {
            (lose, double) = (lose + 250, double + 100);
        }
        if from != to && self.chance.chance(lose) {
            self.counts.add("network: lost");
            return false;
        }
        // A request of a client is one of a connection: it comes once.
        let once = matches!(event, Event::Arrives(_, Message::Request { .. }) | Event::ToGateway(..));
        if from != to && !once && self.chance.chance(double) {
            self.counts.add("network: doubled");
            let at = self.now + self.delay(from, to);
            self.queue.push(at, event.clone());
        }
        let at = self.now + self.delay(from, to);
        self.queue.push(at, event);
        true
    }

    /// Handles the next event. False when there is none, or an invariant is broken.
    pub fn step(&mut self) -> bool {
        let Some((at, no, event)) = self.queue.pop() else { return false };
        self.now = at;
        self.trace.mix(at);
        self.trace.mix(no);
        match event {
            Event::Arrives(at, message) => self.arrives(at, message),
            Event::Held(who, message) => {
                if self.alive(who).is_some() {
                    self.arrives(who.at, message);
                }
            }
            Event::For(who, happening) => self.happens(who, happening),
            Event::Store(operation) => self.transact(operation),
            Event::ToRegistry(message) => self.registry_hears(message),
            Event::RegistryTick => self.registry_tick(),
            Event::ToGateway(call, attempt) => self.gateway_hears(call, attempt),
            Event::Again(call) => self.attempt(call),
            Event::ToProvider(job, who, ask) => self.provider_hears(job, who, ask),
            Event::Late(payment) => self.comes_true(payment),
            Event::Client(client) => self.client_acts(client),
            Event::CallLost(call) => self.call_lost(call),
            Event::Snapshot => self.back_up(),
            Event::Fault(no) => self.strike(no),
            Event::Heals(fault) => self.heal(&fault),
            Event::AllHeals => self.heal_all(),
            Event::Probe => self.probe(),
        }
        self.broken.is_none()
    }

    /// The process in this life, if it still is.
    pub fn alive(&mut self, who: Who) -> Option<&mut Process> {
        self.processes.get_mut(&who.at).filter(|process| process.is_up && process.life == who.life)
    }

    fn back_up(&mut self) {
        let now = self.now;
        for database in self.databases.iter_mut().filter(|database| database.is_up) {
            database.back_up(now);
        }
        if self.healed_at.is_none() {
            let at = self.soon(1_500, 4_000);
            self.queue.push(at, Event::Snapshot);
        }
    }
}
