//! The gateways: one in each region. A request goes to the show's owner as the gateway has heard it, follows
//! "not mine", waits while a show changes hands, and is settled under its key when nobody knows what became
//! of it. The rules are those of `gateway/src/proxy`; its sockets are not here.

use crate::event::{At, Attempt, Event, Inquiry, Message, Ms, Outcome, Place, Said};
use crate::world::World;

/// How often a request follows "not mine".
const MAX_HOPS: u32 = 3;
const MAX_TRIES: u32 = 4;
const BACKOFF_FIRST: Ms = 50;
const BACKOFF_MAX: Ms = 1_000;
pub const DEADLINE: Ms = 10_000;

/// One request's way to its answer.
pub struct Call {
    pub client: u32,
    /// In the history.
    pub operation: usize,
    pub gateway: u8,
    pub show: u8,
    pub asked: Inquiry,
    pub deadline: Ms,
    nth: u32,
    tries: u32,
    hops: u32,
    waits: u32,
    upstream: Option<At>,
    avoid: Option<At>,
    /// An attempt of it may have been acted on; who then says "nothing was done" speaks of its own only.
    may_have_acted: bool,
}

/// How a call ended, for the client.
#[derive(Clone, Debug)]
pub enum Ended {
    Said(Said),
    NotDone,
    Unknown,
}

impl Call {
    pub fn new(client: u32, operation: usize, gateway: u8, show: u8, asked: Inquiry, now: Ms) -> Self {
        Self {
            client,
            operation,
            gateway,
            show,
            asked,
            deadline: now + DEADLINE,
            nth: 0,
            tries: 0,
            hops: 0,
            waits: 0,
            upstream: None,
            avoid: None,
            may_have_acted: false,
        }
    }
}

impl World {
    /// Keeps the gateway's copy of the registry; a stream that broke begins again where it ended.
    fn refresh(&mut self, gateway: u8) {
        let place = Place::Region(gateway);
        if self.is_open(Place::Registry, place) && self.chance.chance(700) {
            let upto = self.registry.changes.len();
            self.gateways[usize::from(gateway)].follow(&self.registry.changes, upto, &self.names);
        }
    }

    /// Where a gateway sends what concerns a show: to its owner, as far as is heard.
    pub fn upstream(&mut self, gateway: u8, show: u8) -> Option<At> {
        self.refresh(gateway);
        let view = &self.gateways[usize::from(gateway)];
        let region = view.shows.get(&show).and_then(|record| self.names.region(&record.owner))?;
        Some(view.place(&self.names, region, show).unwrap_or(At { region, slot: 0 }))
    }

    /// Sends the request out, again or for the first time.
    pub fn attempt(&mut self, id: u64) {
        let now = self.now;
        let Some(gateway) = self.calls.get(&id).map(|call| call.gateway) else { return };
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.nth += 1;
        let (show, nth, avoid) = (call.show, call.nth, call.avoid);
        let asked = call.asked.clone();
        let home =
            At { region: self.names.region(&self.facts[usize::from(show)].home).unwrap_or(0), slot: 0 };
        let preferred = self.upstream(gateway, show).unwrap_or(home);
        let region = preferred.region;
        let other = At { region, slot: (preferred.slot + 1) % self.setup.slots };
        let at = if avoid == Some(preferred) { other } else { preferred };
        if let Some(call) = self.calls.get_mut(&id) {
            call.upstream = Some(at);
        }
        let unreachable = Event::ToGateway(id, Attempt { nth, outcome: Outcome::Unreachable });
        let (from, to) = (Place::Region(gateway), Place::Region(region));
        if !self.is_open(from, to) || !self.is_open(to, from) {
            self.queue.push(now + 1_000, unreachable);
            return;
        }
        if !self.processes.get(&at).is_some_and(|process| process.is_up) {
            let later = self.soon(1, 100);
            self.queue.push(later, unreachable);
            return;
        }
        let message = Message::Request { call: id, attempt: nth, show, asked };
        if !self.send(from, to, Event::Arrives(at, message)) {
            let broken = Event::ToGateway(id, Attempt { nth, outcome: Outcome::Broken });
            let later = self.soon(1, 200);
            self.queue.push(later, broken);
        }
    }

    /// A process died: its connections break, and gateways notice where they can.
    pub fn break_attempts(&mut self, at: At) {
        let broken: Vec<(u64, u32, u8)> = self
            .calls
            .iter()
            .filter(|(_, call)| call.upstream == Some(at))
            .map(|(id, call)| (*id, call.nth, call.gateway))
            .collect();
        for (id, nth, gateway) in broken {
            if self.is_open(Place::Region(at.region), Place::Region(gateway)) {
                let later = self.soon(1, 100);
                self.queue.push(later, Event::ToGateway(id, Attempt { nth, outcome: Outcome::Broken }));
            }
        }
    }

    pub fn gateway_hears(&mut self, id: u64, attempt: Attempt) {
        let now = self.now;
        let Some(call) = self.calls.get_mut(&id) else { return };
        if call.nth != attempt.nth {
            return;
        }
        let asked_at = call.upstream.take();
        match attempt.outcome {
            Outcome::Answered(Said::NotOwner { owner, epoch }) => self.not_owner(id, asked_at, owner, epoch),
            Outcome::Answered(Said::Unknown) => {
                self.counts.add("gateway: unknown");
                call.may_have_acted = true;
                if !self.again(id) {
                    self.end_call(id, Ended::Unknown);
                }
            }
            Outcome::Answered(Said::Unavailable) => {
                self.counts.add("gateway: unavailable");
                let ended = if call.may_have_acted { Ended::Unknown } else { Ended::NotDone };
                self.end_call(id, ended);
            }
            Outcome::Answered(said) => self.end_call(id, Ended::Said(said)),
            Outcome::Unreachable => {
                self.counts.add("gateway: unreachable");
                call.avoid = asked_at;
                let ended = if call.may_have_acted { Ended::Unknown } else { Ended::NotDone };
                if !self.again(id) {
                    self.end_call(id, ended);
                }
            }
            Outcome::Broken => {
                self.counts.add("gateway: broken");
                call.avoid = asked_at;
                call.may_have_acted = true;
                if !self.again(id) {
                    self.end_call(id, Ended::Unknown);
                }
            }
        }
        self.trace.mix(now ^ id);
    }

    /// A 421: nothing was done. Goes where the owner is, or waits for the registry's word.
    fn not_owner(&mut self, id: u64, asked: Option<At>, owner: u8, epoch: u64) {
        let now = self.now;
        self.counts.add("gateway: not the owner");
        let Some(call) = self.calls.get_mut(&id) else { return };
        let view = &mut self.gateways[usize::from(call.gateway)];
        let asked = asked.map(|at| at.region);
        if Some(owner) != asked {
            let owner = self.names.regions[usize::from(owner)].clone();
            if let Some(mut record) = view.shows.get(&call.show).cloned().filter(|r| r.epoch <= epoch) {
                (record.owner, record.epoch) = (owner, epoch);
                view.learn(call.show, &record);
            }
        }
        let known = view.shows.get(&call.show).and_then(|record| self.names.region(&record.owner));
        let ended = if call.may_have_acted { Ended::Unknown } else { Ended::NotDone };
        if known != asked {
            call.hops += 1;
            if call.hops > MAX_HOPS {
                self.counts.add("gateway: too many hops");
                self.end_call(id, ended);
            } else {
                self.attempt(id);
            }
            return;
        }
        self.counts.add("gateway: waits");
        call.waits += 1;
        let (waits, deadline) = (call.waits, call.deadline);
        let at = now + self.backoff(waits);
        if at < deadline {
            self.queue.push(at, Event::Again(id));
        } else {
            self.end_call(id, ended);
        }
    }

    /// Waits a while, then tries again. False: there were tries enough, or there is no time.
    fn again(&mut self, id: u64) -> bool {
        let now = self.now;
        let Some(call) = self.calls.get_mut(&id) else { return true };
        call.tries += 1;
        let (tries, deadline) = (call.tries, call.deadline);
        let at = now + self.backoff(tries);
        if tries >= MAX_TRIES || at >= deadline {
            return false;
        }
        self.counts.add("gateway: again");
        self.queue.push(at, Event::Again(id));
        true
    }

    fn backoff(&mut self, nth: u32) -> Ms {
        let most = (BACKOFF_FIRST << nth.min(10)).min(BACKOFF_MAX);
        self.chance.between(most / 2, most)
    }

    /// The deadline passed.
    pub fn call_lost(&mut self, id: u64) {
        if self.calls.contains_key(&id) {
            self.counts.add("gateway: deadline");
            self.end_call(id, Ended::Unknown);
        }
    }

    fn end_call(&mut self, id: u64, ended: Ended) {
        let Some(call) = self.calls.remove(&id) else { return };
        self.client_hears(&call, ended);
    }
}
