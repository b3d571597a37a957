//! One regional process: what it knows, what it leads, and its life: start, session, connection, heartbeats.
//!
//! It holds to what `docs/protocol.md` asks of the shells: a session is one life (R6); nothing is done on a
//! connection before the store's identity was checked (R5); healthy is who wrote to the own store (R7).

use std::collections::BTreeMap;

use raft::state::Command;
use regional::replication::replica::Standing;
use regional::replication::{Ballots, Limits, Recovery};

use crate::event::{At, Does, Event, Happening, Message, Ms, Operation, Place, ToRegistry, Who};
use crate::host::Hosted;
use crate::jobs::Job;
use crate::kind::{Broken, Sim};
use crate::view::View;
use crate::world::World;

const TICK: Ms = 100;
const HEARTBEAT: Ms = 500;
const RECONCILE: Ms = 2_000;
const RETRY: Ms = 300;

pub struct Process {
    pub at: At,
    pub life: u32,
    pub is_up: bool,
    pub paused_until: Ms,
    /// What its wall clock shows too much, in milliseconds.
    pub skew: i64,
    pub view: View,
    pub session: Option<u64>,
    pub ballots: Ballots<Sim>,
    /// The highest attempt that anybody refused it with.
    pub beyond: u64,
    pub connection: Option<Connection>,
    pub hosted: BTreeMap<u8, Hosted>,
    pub recoveries: BTreeMap<u8, (Recovery<Sim>, Ms)>,
    /// Before then it does not try again.
    pub rests: BTreeMap<u8, Ms>,
    pub wrote: bool,
    pub jobs: BTreeMap<u64, Job>,
    asked_at: Ms,
}

/// To the own store, of the identity that was checked.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub generation: u32,
    /// As the registry numbered the store when it was checked; a view may be older.
    pub incarnation: u64,
}

impl Process {
    pub fn new(at: At, skew: i64) -> Self {
        Self {
            at,
            life: 0,
            is_up: false,
            paused_until: 0,
            skew,
            view: View::default(),
            session: None,
            ballots: Ballots::new(0, Broken(None)),
            beyond: 0,
            connection: None,
            hosted: BTreeMap::new(),
            recoveries: BTreeMap::new(),
            rests: BTreeMap::new(),
            wrote: false,
            jobs: BTreeMap::new(),
            asked_at: 0,
        }
    }

    pub fn who(&self) -> Who {
        Who { at: self.at, life: self.life }
    }
}

impl World {
    pub fn start(&mut self, at: At) {
        let Some(process) = self.processes.get_mut(&at) else { return };
        let (life, skew) = (process.life + 1, process.skew);
        *process = Process { life, is_up: true, ..Process::new(at, skew) };
        let who = process.who();
        self.counts.add("process: start");
        for (happening, every) in
            [(Happening::Tick, TICK), (Happening::Heartbeat, HEARTBEAT), (Happening::Reconcile, RECONCILE)]
        {
            let first = self.soon(1, every);
            self.queue.push(first, Event::For(who, happening));
        }
    }

    /// Kill -9: what it had in hand is gone; what it sent may still arrive.
    pub fn kill(&mut self, at: At) {
        let Some(process) = self.processes.get_mut(&at) else { return };
        process.is_up = false;
        process.hosted.clear();
        process.jobs.clear();
        process.recoveries.clear();
        self.trace.say(self.now, || format!("killed {at:?}"));
        self.break_attempts(at);
    }

    /// Its session is gone: it stops leading at once, and begins a new life.
    fn begin_anew(&mut self, at: At) {
        self.counts.add("process: session ended");
        let shows: Vec<u8> = self.processes[&at].hosted.keys().copied().collect();
        for show in shows {
            self.stand_down(at, show);
        }
        self.start(at);
    }

    pub fn arrives(&mut self, at: At, message: Message) {
        let now = self.now;
        let Some(process) = self.processes.get(&at).filter(|process| process.is_up) else {
            self.counts.add("network: nobody there");
            return;
        };
        if process.paused_until > now {
            // What reached its sockets dies with it.
            let (later, who) = (process.paused_until, process.who());
            self.queue.push(later, Event::Held(who, message));
            return;
        }
        let who = process.who();
        match message {
            Message::Replication { from, show, request } => self.requested(who, from, show, request),
            Message::Request { call, attempt, show, asked } => self.asked(who, call, attempt, show, asked),
            Message::Webhook { payment } => self.webhook(who, payment),
        }
    }

    pub fn happens(&mut self, who: Who, happening: Happening) {
        let (now, rules) = (self.now, self.rules);
        let Some(process) = self.alive(who) else { return };
        if process.paused_until > now {
            let later = process.paused_until;
            self.queue.push(later, Event::For(who, happening));
            return;
        }
        match happening {
            Happening::Tick => self.tick(who),
            Happening::Heartbeat => self.beat(who),
            Happening::Reconcile => {
                self.reconcile(who);
                let at = self.soon(RECONCILE - 200, RECONCILE);
                self.queue.push(at, Event::For(who, Happening::Reconcile));
            }
            Happening::Say { region, show, reply } => self.heard(who, region, show, reply),
            Happening::Unknown { show, ballot } => self.own_unknown(who, show, ballot),
            Happening::Folded { show, ballot, log } => self.folded(who, show, ballot, log),
            Happening::Restored { show } => {
                process.recoveries.remove(&show);
                self.counts.add("recovery: whole again");
            }
            Happening::Wrote => process.wrote = true,
            Happening::Watch { upto } => self.follow(who.at, upto),
            Happening::Session { no } => {
                if process.session.is_none() {
                    process.session = Some(no);
                    process.ballots = Ballots::new(no, rules);
                }
            }
            Happening::Identified { generation, known, incarnation } => {
                self.identified(who, generation, known, incarnation);
            }
            Happening::ShowRead { record, incarnations } => self.show_read(who, &record, &incarnations),
            Happening::Provided { job, heard } => self.provided(who, job, &heard),
        }
    }

    fn tick(&mut self, who: Who) {
        let now = self.now;
        self.queue.push(now + TICK, Event::For(who, Happening::Tick));
        // A stream that broke begins again where it ended.
        let upto = self.registry.changes.len();
        if self.processes[&who.at].view.cursor < upto
            && self.is_open(Place::Registry, Place::Region(who.at.region))
        {
            let watch = Event::For(who, Happening::Watch { upto });
            self.send(Place::Registry, Place::Region(who.at.region), watch);
        }
        let generation = self.databases[usize::from(who.at.region)].generation;
        let Some(process) = self.alive(who) else { return };
        if process.connection.is_some_and(|connection| connection.generation != generation) {
            process.connection = None;
        }
        let asks = now >= process.asked_at + RETRY;
        if asks && process.session.is_none() {
            process.asked_at = now;
            self.open_session(who);
        } else if asks && process.connection.is_none() {
            process.asked_at = now;
            self.identify(who);
        }
        self.drive(who);
        self.recover_all(who);
    }

    /// Asks whether the store that a new connection reached is the one that it should be (R5).
    fn identify(&mut self, who: Who) {
        let database = &self.databases[usize::from(who.at.region)];
        if !database.is_up {
            return;
        }
        let message = ToRegistry::Identify { who, generation: database.generation };
        self.send(Place::Region(who.at.region), Place::Registry, Event::ToRegistry(message));
    }

    /// The position is read after the registry told what it knew: one that was read before would be below
    /// what another process of the region wrote meanwhile, and told of.
    fn identified(&mut self, who: Who, generation: u32, known: u64, incarnation: u64) {
        let database = &self.databases[usize::from(who.at.region)];
        let (present, position) = (database.generation, database.content.position);
        let Some(process) = self.alive(who) else { return };
        if process.connection.is_some() || generation != present {
            return;
        }
        if position >= known {
            process.connection = Some(Connection { generation, incarnation });
            return;
        }
        self.counts.add("store: loss noticed");
        let region = self.names.regions[usize::from(who.at.region)].clone();
        let command = Box::new(Command::StoreLost { region, incarnation });
        let message = ToRegistry::Command { from: Some(who), command };
        self.send(Place::Region(who.at.region), Place::Registry, Event::ToRegistry(message));
    }

    fn beat(&mut self, who: Who) {
        self.queue.push(self.now + HEARTBEAT, Event::For(who, Happening::Heartbeat));
        let whole = self.is_whole(who.at);
        let database = &self.databases[usize::from(who.at.region)];
        let position = database.content.position;
        let Some(process) = self.alive(who) else { return };
        let Some(connection) = process.connection else { return };
        let healthy = std::mem::take(&mut process.wrote);
        let incarnation = connection.incarnation;
        if process.session.is_some() {
            let message = ToRegistry::Heartbeat { who, incarnation, healthy, whole, position };
            self.send(Place::Region(who.at.region), Place::Registry, Event::ToRegistry(message));
        }
        self.submit(who, 0, Does::Beat);
    }

    /// Takes in what the registry decided.
    fn follow(&mut self, at: At, upto: usize) {
        let Some(process) = self.processes.get_mut(&at) else { return };
        let had = process.session.is_some_and(|no| process.view.sessions.contains_key(&no));
        process.view.follow(&self.registry.changes, upto, &self.names);
        let has = process.session.is_some_and(|no| process.view.sessions.contains_key(&no));
        if had && !has {
            self.begin_anew(at);
            return;
        }
        let known: Vec<(u8, u64, bool)> = process
            .hosted
            .keys()
            .filter_map(|no| process.view.shows.get(no).map(|r| (*no, r.epoch, !r.prior.is_empty())))
            .collect();
        for (show, epoch, has_prior) in known {
            self.on_leader(at, show, |leader| leader.heard(epoch, has_prior));
        }
    }

    /// What the process knows of its own replica of a show.
    pub fn standing(&self, at: At, show: u8) -> Standing {
        let process = &self.processes[&at];
        let own = &self.names.regions[usize::from(at.region)];
        let record = process.view.shows.get(&show);
        let known = process.view.incarnations.get(&at.region).copied().unwrap_or(0);
        Standing {
            epoch: record.map_or(0, |record| record.epoch),
            member: record.is_some_and(|r| r.replicas.contains(own) || r.prior.contains(own)),
            incarnation: process.connection.map_or(known, |connection| connection.incarnation.max(known)),
            disowned: 0,
        }
    }

    /// Begins a transaction in the own store. What becomes of it nobody may ever hear.
    pub fn submit(&mut self, who: Who, show: u8, does: Does) {
        let Some(connection) = self.processes[&who.at].connection else { return };
        let standing = self.standing(who.at, show);
        let slow = self.databases[usize::from(who.at.region)].slow_until > self.now;
        let mut begins = if slow { self.soon(100, 1_500) } else { self.soon(1, 4) };
        let mut answered = true;
        if self.chance.chance(self.setup.unknown) {
            answered = false;
            let told = self.soon(1, 30);
            if let Some(ballot) = ballot_of(&does) {
                self.queue.push(told, Event::For(who, Happening::Unknown { show, ballot }));
            }
            match self.chance.below(3) {
                0 => {
                    self.counts.add("store: unknown, not done");
                    return;
                }
                1 => self.counts.add("store: unknown, done"),
                _ => {
                    // It commits when everybody has stopped waiting for it.
                    self.counts.add("store: unknown, done late");
                    begins = self.soon(200, 3_000);
                }
            }
        }
        let generation = connection.generation;
        let operation = Operation { who, generation, show, answered, standing, does };
        self.queue.push(begins, Event::Store(operation));
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }
}

fn ballot_of(does: &Does) -> Option<regional::replication::Ballot> {
    use regional::replication::Request::{Append, Extend, Fetch, Prepare, Report};
    match does {
        Does::Own(Append(append) | Extend(append)) => Some(append.ballot),
        Does::Own(Prepare { ballot } | Fetch { ballot, .. } | Report { ballot }) => Some(*ballot),
        Does::Fold { ballot, .. } => Some(*ballot),
        Does::Peers(..) | Does::Restore(_) | Does::Beat => None,
    }
}

/// A wall clock's time, as the process sees it.
pub fn wall(now: Ms, skew: i64) -> jiff::Timestamp {
    let millis = i64::try_from(now).unwrap_or(i64::MAX).saturating_add(skew);
    crate::setup::epoch() + jiff::SignedDuration::from_millis(millis)
}
