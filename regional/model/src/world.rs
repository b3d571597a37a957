//! The state of everything, and its steps.

use std::collections::{BTreeMap, BTreeSet};

use regional::replication::memory::Store;
use regional::replication::{
    Answer, Ballot, Effect, Head, Leader, Mark, Recovery, RecoveryEffect, Reply, Request, Rule, Rules,
    Unable, Why,
};
use stateright::{Model, Property};

use crate::configurations::Bounds;
use crate::kind::{Broken, Thing, Toy};
use crate::process::{LIMITS, Process, Stores, standing, term};
use crate::registry::Registry;

/// What is on its way, or was once and may come again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    Ask { from: u8, to: u8, request: Request<Toy> },
    Say { from: u8, to: u8, reply: Reply<Toy> },
    Settled { epoch: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub registry: Registry,
    pub stores: Stores,
    /// What a store may go back to.
    pub backups: Vec<Option<Store<Toy>>>,
    pub processes: Vec<Process>,
    pub network: BTreeSet<Message>,
    /// Every entry that a leader ever called committed, and under which ballot first.
    pub truth: Vec<(Ballot, Mark<Toy>, Thing)>,
    /// The log that each ballot's leader chose.
    pub chosen: BTreeMap<Ballot, Vec<Mark<Toy>>>,
    /// Of each region.
    pub tries: Vec<u8>,
    pub restarts: u8,
    pub losses: u8,
    /// The first invariant that does not hold.
    pub broken: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Deliver(Message),
    /// The process begins a try to lead, and drops the one it may have.
    Try(u8),
    Propose {
        region: u8,
        key: u8,
        seat: u8,
    },
    /// The process says again to `to` what was not answered.
    Nudge {
        region: u8,
        to: u8,
    },
    /// The process hears all that the registry has.
    Hear(u8),
    Restart(u8),
    Move(u8),
    ChangeReplicas(BTreeSet<u8>),
    /// What the store may later go back to.
    BackUp(u8),
    /// The store goes back; the registry records it.
    Lose(u8),
    Recover(u8),
}

impl World {
    pub fn new(bounds: &Bounds) -> Self {
        let mut registry = Registry { records: vec![bounds.record()], last_session: 0 };
        let processes =
            (0..bounds.regions).map(|_| Process::new(registry.session(), 0, bounds.rules)).collect();
        Self {
            registry,
            stores: (0..bounds.regions).map(|_| Store::empty(0)).collect(),
            backups: (0..bounds.regions).map(|_| None).collect(),
            processes,
            network: BTreeSet::new(),
            truth: Vec::new(),
            chosen: BTreeMap::new(),
            tries: vec![0; usize::from(bounds.regions)],
            restarts: 0,
            losses: 0,
            broken: None,
        }
    }

    fn process(&mut self, region: u8) -> &mut Process {
        &mut self.processes[usize::from(region)]
    }

    fn fail(&mut self, why: &'static str) {
        self.broken.get_or_insert(why);
    }

    pub fn step(&mut self, bounds: &Bounds, action: Action) {
        match action {
            Action::Deliver(message) => self.deliver(bounds, message),
            Action::Try(region) => self.try_to_lead(bounds, region),
            Action::Propose { region, key, seat } => {
                let process = self.process(region);
                let Some(leader) = &mut process.leader else { return };
                let before = process.log.last().map(|entry| entry.mark()).unwrap_or_default();
                let thing = Thing::Take { key, seat };
                let Ok((_, effects)) = leader.propose(thing) else { return };
                process.log.push(before.next(leader.ballot(), thing));
                self.carry_out(bounds, region, effects);
            }
            Action::Nudge { region, to } => {
                let process = self.process(region);
                if let Some(leader) = &mut process.leader {
                    let effects = leader.nudge(&to);
                    self.carry_out(bounds, region, effects);
                }
            }
            Action::Hear(region) => {
                let (epoch, has_prior, latest) = {
                    let now = self.registry.present();
                    (now.epoch, !now.prior.is_empty(), self.registry.records.len() - 1)
                };
                let process = self.process(region);
                process.known = latest;
                if let Some(leader) = &mut process.leader {
                    let effects = leader.heard(epoch, has_prior);
                    self.carry_out(bounds, region, effects);
                }
            }
            Action::Restart(region) => {
                self.restarts += 1;
                self.new_process(bounds, region);
            }
            Action::Move(to) => self.registry.moved(to),
            Action::ChangeReplicas(set) => {
                self.registry.changed_replicas(&set);
            }
            Action::BackUp(region) => {
                let store = self.stores[usize::from(region)].clone();
                self.backups[usize::from(region)] = Some(store);
            }
            Action::Lose(region) => self.lose(bounds, region),
            Action::Recover(region) => self.recover(bounds, region),
        }
        self.trim(bounds);
        self.check_stores();
    }

    fn new_process(&mut self, bounds: &Bounds, region: u8) {
        let (session, known) = (self.registry.session(), self.registry.records.len() - 1);
        *self.process(region) = Process::new(session, known, bounds.rules);
    }

    fn try_to_lead(&mut self, bounds: &Bounds, region: u8) {
        self.tries[usize::from(region)] += 1;
        let record = self.registry.records[self.processes[usize::from(region)].known].clone();
        let process = self.process(region);
        let ballot = process.ballots.next(record.epoch);
        let (leader, effects) = Leader::start(bounds.rules, LIMITS, term(&record, region, ballot));
        process.leader = Some(leader);
        process.log.clear();
        self.carry_out(bounds, region, effects);
    }

    /// The store goes back to its backup, promises and all. Its region's sessions end, and the registry
    /// records the new incarnation; what happens before that is as if the region were silent.
    fn lose(&mut self, bounds: &Bounds, region: u8) {
        self.losses += 1;
        let at = usize::from(region);
        self.stores[at] = self.backups[at].clone().unwrap_or_else(|| Store::empty(0));
        if bounds.fenced {
            self.registry.lost(region);
        }
        self.new_process(bounds, region);
    }

    fn recover(&mut self, bounds: &Bounds, region: u8) {
        let record = self.registry.present().clone();
        let own = self.stores[usize::from(region)].head.clone();
        let ballot = Ballot { epoch: record.epoch, session: 0, attempt: 0 };
        let Ok((recovery, effects)) = Recovery::start(bounds.rules, term(&record, region, ballot), own)
        else {
            return;
        };
        let latest = self.registry.records.len() - 1;
        let process = self.process(region);
        process.known = latest;
        process.recovery = Some(recovery);
        self.carry_out_recovery(bounds, region, effects);
    }

    fn deliver(&mut self, bounds: &Bounds, message: Message) {
        match message {
            Message::Settled { epoch } => self.registry.settled(epoch),
            Message::Ask { from, to, request } => {
                if matches!(request, Request::Extend(_)) {
                    // A transaction in the own store runs late or never, but not twice.
                    self.network.remove(&Message::Ask { from, to, request: request.clone() });
                }
                let reply = self.transact(bounds, to, request);
                self.network.insert(Message::Say { from: to, to: from, reply });
            }
            Message::Say { from, to, reply } => self.hear_reply(bounds, from, to, reply),
        }
    }

    fn hear_reply(&mut self, bounds: &Bounds, from: u8, to: u8, reply: Reply<Toy>) {
        let process = self.process(to);
        if let Some(leader) = &mut process.leader {
            let effects = leader.answered(&from, reply.clone());
            self.carry_out(bounds, to, effects);
        }
        let process = self.process(to);
        if let Some(recovery) = &mut process.recovery {
            let effects = recovery.answered(&from, reply);
            self.carry_out_recovery(bounds, to, effects);
        }
    }

    /// One transaction in the store of `region`.
    fn transact(&mut self, bounds: &Bounds, region: u8, request: Request<Toy>) -> Reply<Toy> {
        let at = usize::from(region);
        let record = &self.registry.records[self.processes[at].known];
        let mut reply = self.stores[at].handle(bounds.rules, standing(record, region), request);
        if let Answer::Entries { entries, .. } = &mut reply.answer
            && bounds.small_pages
        {
            entries.truncate(1);
        }
        if matches!(reply.answer, Answer::Unable(Unable::Contradiction | Unable::Malformed)) {
            self.fail("S4: a store was told what cannot be");
        }
        reply
    }

    fn carry_out(&mut self, bounds: &Bounds, region: u8, effects: Vec<Effect<Toy>>) {
        for effect in effects {
            match effect {
                Effect::Send { to, request } if to == region && !bounds.own_late.contains(&region) => {
                    let reply = self.transact(bounds, region, request);
                    self.hear_reply(bounds, region, region, reply);
                }
                Effect::Send { to, request } => {
                    self.network.insert(Message::Ask { from: region, to, request });
                }
                Effect::Chosen { last } => self.chose(bounds, region, &last),
                Effect::Committed { upto } => self.committed(region, upto),
                Effect::Settled { epoch } => {
                    self.network.insert(Message::Settled { epoch });
                }
                Effect::Stopped(why) => {
                    if why == Why::Contradiction {
                        self.fail("S4: a leader found what cannot be");
                    }
                    let process = self.process(region);
                    process.leader = None;
                    process.log.clear();
                }
            }
        }
    }

    fn carry_out_recovery(&mut self, bounds: &Bounds, region: u8, effects: Vec<RecoveryEffect<Toy>>) {
        for effect in effects {
            match effect {
                RecoveryEffect::Send { to, request } => {
                    self.network.insert(Message::Ask { from: region, to, request });
                }
                RecoveryEffect::Restore(restore) => {
                    let at = usize::from(region);
                    let record = &self.registry.records[self.processes[at].known];
                    let standing = standing(record, region);
                    let reply = self.stores[at].restore(bounds.rules, standing, restore);
                    if !matches!(reply.answer, Answer::Appended { .. }) {
                        self.fail("S4: a recovering store holds what cannot be");
                    }
                    self.process(region).recovery = None;
                }
                RecoveryEffect::Again => self.process(region).recovery = None,
            }
        }
    }

    /// The leader folds its store's log; then it begins. Every ballot below may have committed entries
    /// already: they must be in this log (S2).
    fn chose(&mut self, bounds: &Bounds, region: u8, last: &Mark<Toy>) {
        let store = &self.stores[usize::from(region)];
        if store.mark(last.seq).as_ref() != Some(last) {
            // Another try has the store by now.
            let process = self.process(region);
            process.leader = None;
            return;
        }
        let log: Vec<_> = store.entries.iter().filter(|entry| entry.seq <= last.seq).cloned().collect();
        let process = &mut self.processes[usize::from(region)];
        let Some(leader) = &mut process.leader else { return };
        let ballot = leader.ballot();
        let marks: Vec<Mark<Toy>> = log.iter().map(|entry| entry.mark()).collect();
        process.log = log;
        process.log.push(last.next(ballot, Thing::Led));
        if !bounds.rules.holds(Rule::LedEntry) {
            process.log.pop();
        }
        let effects = leader.begin(Thing::Led, 0);
        let lost = self.truth.iter().any(|(by, mark, _)| *by < ballot && !marks.contains(mark));
        if lost {
            self.fail("S2: an acknowledged entry is not in a later leader's journal");
        }
        if self.chosen.insert(ballot, marks).is_some() {
            self.fail("S3: a ballot is led with twice");
        }
        self.carry_out(bounds, region, effects);
    }

    fn committed(&mut self, region: u8, upto: u64) {
        let process = &self.processes[usize::from(region)];
        let Some(ballot) = process.leader.as_ref().map(Leader::ballot) else { return };
        let log: Vec<_> = process.log.iter().filter(|entry| entry.seq <= upto).cloned().collect();
        for entry in &log {
            let mark = entry.mark();
            match self.truth.iter().find(|(_, known, _)| known.seq == mark.seq) {
                Some((_, known, _)) if *known == mark => {}
                Some(_) => self.fail("S2: two entries were acknowledged at one place"),
                None => self.truth.push((ballot, mark, entry.payload)),
            }
        }
        let later = self.chosen.range(ballot..).filter(|(by, _)| **by > ballot);
        let missing = later.into_iter().any(|(_, marks)| log.iter().any(|e| !marks.contains(&e.mark())));
        if missing {
            self.fail("S3: an entry commits that a later ballot's log does not hold");
        }
        let takes = self.truth.iter().filter_map(|(_, _, thing)| match thing {
            Thing::Take { key, seat } => Some((*key, *seat)),
            Thing::Led => None,
        });
        let (mut keys, mut seats) = (BTreeSet::new(), BTreeSet::new());
        let (mut key_twice, mut seat_twice) = (false, false);
        for (key, seat) in takes {
            key_twice |= !keys.insert(key);
            seat_twice |= !seats.insert(seat);
        }
        if seat_twice {
            self.fail("S1: a seat is held twice");
        }
        if key_twice {
            self.fail("S7: a key took effect twice");
        }
    }

    /// What a store calls committed is what was committed, hash for hash (S4).
    fn check_stores(&mut self) {
        let differs = |store: &Store<Toy>| {
            (1..=store.head.committed).any(|seq| {
                let known = self.truth.iter().find(|(_, mark, _)| mark.seq == seq);
                known.is_none_or(|(_, mark, _)| store.mark(seq).as_ref() != Some(mark))
            })
        };
        if self.stores.iter().any(differs) {
            self.fail("S4: a store's committed part is not what was committed");
        }
    }

    /// Forgets messages that can never again change anything, so that more of the rest can be seen.
    fn trim(&mut self, bounds: &Bounds) {
        let network = std::mem::take(&mut self.network);
        self.network = network.into_iter().filter(|message| !self.is_spent(bounds, message)).collect();
    }

    fn is_spent(&self, bounds: &Bounds, message: &Message) -> bool {
        match message {
            Message::Settled { epoch } => {
                let now = self.registry.present();
                now.epoch > *epoch || now.prior.is_empty()
            }
            Message::Say { from, to, reply } => !self.is_awaited(*from, *to, reply),
            Message::Ask { from, to, request } => {
                let store = &self.stores[usize::from(*to)].head;
                match request {
                    Request::Fetch { ballot, .. } => !self.is_alive(*from, *ballot),
                    Request::Report { ballot } => {
                        let done = !self.is_alive(*from, *ballot);
                        done && (store.promised >= *ballot && !bounds.may_lose(self))
                    }
                    Request::Prepare { ballot } => {
                        let holds = bounds.rules.holds(Rule::PrepareBelowPromise)
                            && bounds.rules.holds(Rule::PromiseDurable);
                        let passed = store.promised >= *ballot && !bounds.may_lose(self);
                        holds && passed && !self.is_preparing(*from, *ballot)
                    }
                    Request::Append(append) | Request::Extend(append) => {
                        let holds = bounds.rules.holds(Rule::AppendBelowPromise);
                        let passed = store.promised > append.ballot && !bounds.may_lose(self);
                        holds && passed && !self.is_alive(*from, append.ballot)
                    }
                }
            }
        }
    }

    fn is_alive(&self, region: u8, ballot: Ballot) -> bool {
        let process = &self.processes[usize::from(region)];
        process.leader.as_ref().is_some_and(|leader| leader.ballot() == ballot)
            || process.recovery.as_ref().is_some_and(|recovery| recovery.ballot() == ballot)
    }

    fn is_preparing(&self, region: u8, ballot: Ballot) -> bool {
        let leader = self.processes[usize::from(region)].leader.as_ref();
        leader.is_some_and(|l| l.ballot() == ballot && !l.is_leading() && !l.is_chosen())
    }

    /// Whether a reply could still change something where it goes.
    fn is_awaited(&self, from: u8, to: u8, reply: &Reply<Toy>) -> bool {
        let process = &self.processes[usize::from(to)];
        let by_leader = process.leader.as_ref().is_some_and(|leader| {
            leader.ballot() == reply.ballot && {
                let mut after = leader.clone();
                !after.answered(&from, reply.clone()).is_empty() || after != *leader
            }
        });
        by_leader
            || process.recovery.as_ref().is_some_and(|recovery| {
                recovery.ballot() == reply.ballot && {
                    let mut after = recovery.clone();
                    !after.answered(&from, reply.clone()).is_empty() || after != *recovery
                }
            })
    }

    /// Whether a region's replica waits to recover.
    fn is_lost(&self, region: u8) -> bool {
        let now = self.registry.present();
        let head: &Head<Toy> = &self.stores[usize::from(region)].head;
        head.incarnation != now.incarnations[usize::from(region)]
            && (now.replicas.contains(&region) || now.prior.contains(&region))
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.begin()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        actions.extend(world.network.iter().cloned().map(Action::Deliver));
        for region in 0..self.regions {
            let process = &world.processes[usize::from(region)];
            let known = &world.registry.records[process.known];
            if process.known + 1 < world.registry.records.len() {
                actions.push(Action::Hear(region));
            }
            let tried = world.tries[usize::from(region)];
            let all: u8 = world.tries.iter().sum();
            if tried < self.each && all < self.tries && known.owner == region {
                actions.push(Action::Try(region));
            }
            if world.restarts < self.restarts {
                actions.push(Action::Restart(region));
            }
            if self.backups && self.may_lose(world) && self.losing.contains(&region) {
                actions.push(Action::BackUp(region));
            }
            if self.may_lose(world) && self.losing.contains(&region) {
                actions.push(Action::Lose(region));
            }
            if world.is_lost(region) && process.recovery.is_none() {
                actions.push(Action::Recover(region));
            }
            let Some(leader) = &process.leader else { continue };
            if !leader.is_leading() {
                continue;
            }
            for (key, seat) in &self.commands {
                if process.wants(*key, *seat) {
                    actions.push(Action::Propose { region, key: *key, seat: *seat });
                }
            }
            if self.nudges {
                let others =
                    known.replicas.iter().filter(|to| **to != region || self.own_late.contains(&region));
                actions.extend(others.map(|to| Action::Nudge { region, to: *to }));
            }
        }
        let now = world.registry.present();
        if now.epoch < self.epochs {
            let others = now.replicas.iter().filter(|to| **to != now.owner && self.owners.contains(to));
            actions.extend(others.map(|to| Action::Move(*to)));
            if now.prior.is_empty() {
                let other = self.sets.iter().filter(|set| **set != now.replicas && set.contains(&now.owner));
                actions.extend(other.cloned().map(Action::ChangeReplicas));
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.step(self, action);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("S1, S2, S3, S4, S7", |_, world: &World| world.broken.is_none())]
    }
}

impl Broken {
    pub const NOTHING: Self = Self(None);
}

impl World {
    pub(crate) fn leads(&self, region: u8) -> bool {
        self.processes[usize::from(region)].leader.as_ref().is_some_and(Leader::is_leading)
    }
}
