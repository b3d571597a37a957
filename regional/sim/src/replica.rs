//! A region's replicas: transactions in its store on behalf of peers and of itself, and the way back of a
//! store that lost its tail (R5).

use std::collections::BTreeSet;

use raft::state::ShowRecord;
use regional::replication::{Answer, Ballot, Recovery, RecoveryEffect, Reply, Request, Term, Unable};

use crate::event::{At, Does, Event, Happening, Ms, Operation, Place, ToRegistry, Who};
use crate::kind::Sim;
use crate::world::World;

const NUDGE: Ms = 500;
/// A recovery that takes longer begins again with what the registry then says.
const PATIENCE: Ms = 4_000;

impl World {
    /// A peer asks.
    pub fn requested(&mut self, who: Who, from: Who, show: u8, request: Request<Sim>) {
        self.submit(who, show, Does::Peers(from, request));
    }

    /// A transaction in a region's store begins, and ends.
    pub fn transact(&mut self, operation: Operation) {
        let Operation { who, generation, show, answered, standing, does } = operation;
        let region = who.at.region;
        let database = &mut self.databases[usize::from(region)];
        if !database.is_up || database.generation != generation {
            self.counts.add("store: connection lost");
            return;
        }
        database.content.position += 1;
        let (rules, most) = (self.rules, self.setup.page);
        match does {
            Does::Beat => {
                if answered {
                    let at = self.soon(0, 2);
                    self.queue.push(at, Event::For(who, Happening::Wrote));
                }
            }
            Does::Fold { ballot, last } => {
                let store = database.replica(show);
                let holds = store.mark(last.seq).as_ref() == Some(&last);
                let log =
                    || store.entries.iter().take_while(|entry| entry.seq <= last.seq).cloned().collect();
                let log = holds.then(log);
                if answered {
                    let at = self.soon(0, 2);
                    self.queue.push(at, Event::For(who, Happening::Folded { show, ballot, log }));
                }
            }
            Does::Own(request) => {
                let reply = page(database.replica(show).handle(rules, standing, request), most);
                self.wrote(region, show, &reply);
                if answered {
                    let at = self.soon(0, 2);
                    self.queue.push(at, Event::For(who, Happening::Say { region, show, reply }));
                }
            }
            Does::Peers(from, request) => {
                let reply = page(database.replica(show).handle(rules, standing, request), most);
                self.wrote(region, show, &reply);
                if answered {
                    let (own, peer) = (Place::Region(region), Place::Region(from.at.region));
                    self.send(own, peer, Event::For(from, Happening::Say { region, show, reply }));
                }
            }
            Does::Restore(restore) => {
                let reply = database.replica(show).restore(rules, standing, *restore);
                if !matches!(reply.answer, Answer::Appended { .. }) {
                    self.fail("S4", format!("show {show}: a recovering store holds what cannot be"));
                }
                self.counts.add("recovery: restored");
                self.wrote(region, show, &reply);
                if answered {
                    let at = self.soon(0, 2);
                    self.queue.push(at, Event::For(who, Happening::Restored { show }));
                }
            }
        }
        if self.chance.chance(100)
            && let Err(why) = self.databases[usize::from(region)].project()
        {
            self.fail("S6", why);
        }
    }

    fn wrote(&mut self, region: u8, show: u8, reply: &Reply<Sim>) {
        if let Answer::Unable(why @ (Unable::Contradiction | Unable::Malformed)) = reply.answer {
            self.fail("S4", format!("the store of region {region} was told what cannot be: {why:?}"));
        }
        self.check_store(region, show);
    }

    /// The shows of which this region holds a replica, as far as it knows, that must recover first.
    fn unwhole(&self, at: At) -> BTreeSet<u8> {
        let database = &self.databases[usize::from(at.region)];
        let is_unwhole = |show: &u8| {
            let standing = self.standing(at, *show);
            let incarnation = database.content.replicas.get(show).map_or(0, |r| r.head.incarnation);
            standing.member && incarnation != standing.incarnation
        };
        (0..self.setup.shows).filter(is_unwhole).collect()
    }

    pub fn is_whole(&self, at: At) -> bool {
        self.processes[&at].connection.is_some() && self.unwhole(at).is_empty()
    }

    /// Begins or goes on with each show's recovery.
    pub fn recover_all(&mut self, who: Who) {
        let now = self.now;
        if self.processes[&who.at].connection.is_none() {
            return;
        }
        let unwhole = self.unwhole(who.at);
        let Some(process) = self.alive(who) else { return };
        process.recoveries.retain(|show, (_, since)| unwhole.contains(show) && now < *since + PATIENCE);
        let mut effects = Vec::new();
        for (show, (recovery, since)) in &process.recoveries {
            if (now - *since) % NUDGE < 100 {
                effects.extend(recovery.nudge().into_iter().map(|effect| (*show, effect)));
            }
        }
        let new: Vec<u8> =
            unwhole.into_iter().filter(|show| !process.recoveries.contains_key(show)).collect();
        for (show, effect) in effects {
            self.carry_out_recovery(who, show, vec![effect]);
        }
        for show in new {
            if self.chance.chance(300) {
                let read = Event::ToRegistry(ToRegistry::ReadShow { who, show });
                self.send(Place::Region(who.at.region), Place::Registry, read);
            }
        }
    }

    /// What the registry says now, after the new incarnation: the recovery of one show begins.
    pub fn show_read(&mut self, who: Who, record: &ShowRecord, incarnations: &[u64]) {
        let Some(show) = self.names.show(record.id) else { return };
        let now = self.now;
        let rules = self.rules;
        let own = self.databases[usize::from(who.at.region)].replica(show).head.clone();
        let Some(process) = self.processes.get(&who.at) else { return };
        let present = incarnations.get(usize::from(who.at.region)).copied();
        let connected = process.connection.map(|connection| connection.incarnation);
        if present != connected || own.incarnation == present.unwrap_or(0) {
            return;
        }
        if process.recoveries.contains_key(&show) {
            return;
        }
        let term = Term {
            ballot: Ballot { epoch: record.epoch, session: 0, attempt: 0 },
            own: who.at.region,
            replicas: self.names.regions_of(&record.replicas),
            prior: self.names.regions_of(&record.prior),
            incarnations: (0..).zip(incarnations.iter().copied()).collect(),
        };
        self.counts.add("recovery: began");
        self.trace.say(now, || format!("{who:?} recovers show {show} at epoch {}", record.epoch));
        match Recovery::start(rules, term, own) {
            Ok((recovery, effects)) => {
                if let Some(process) = self.alive(who) {
                    process.recoveries.insert(show, (recovery, now));
                }
                self.carry_out_recovery(who, show, effects);
            }
            Err(_) => self.counts.add("recovery: alone"),
        }
    }

    /// An answer to a recovering store.
    pub fn reported(&mut self, who: Who, region: u8, show: u8, reply: Reply<Sim>) {
        let Some(process) = self.alive(who) else { return };
        let Some((recovery, _)) = process.recoveries.get_mut(&show) else { return };
        if recovery.ballot() != reply.ballot {
            return;
        }
        let effects = recovery.answered(&region, reply);
        self.carry_out_recovery(who, show, effects);
    }

    fn carry_out_recovery(&mut self, who: Who, show: u8, effects: Vec<RecoveryEffect<Sim>>) {
        for effect in effects {
            match effect {
                RecoveryEffect::Send { to, request } => {
                    self.counts.request(&request);
                    self.send_to_peer(who, to, show, request);
                }
                RecoveryEffect::Restore(restore) => {
                    self.submit(who, show, Does::Restore(Box::new(restore)));
                }
                RecoveryEffect::Again => self.counts.add("recovery: again"),
            }
        }
    }
}

/// Where messages are small, Fetch answers few entries at a time.
fn page(mut reply: Reply<Sim>, most: usize) -> Reply<Sim> {
    if let Answer::Entries { entries, .. } = &mut reply.answer {
        entries.truncate(most);
    }
    reply
}
