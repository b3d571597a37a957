//! Leading shows: what `regional/src/host` does around the pure cores, without tasks and waiting. A command is
//! decided against the decided state, proposed, and answered when it is committed; never before (R1).

use std::collections::VecDeque;
use std::rc::Rc;

use regional::replication::{Ballot, Effect, Entry, Leader, Reply, Request, Rule, Rules, Term, Why};
use regional::show::{Asked, Event as Happened, Group, Refusal, Show};

use crate::event::{At, Does, Event, Inquiry, Message, Ms, Outcome, Place, Said, Who};
use crate::fold::fold_in;
use crate::kind::{Payload, Sim};
use crate::process::wall;
use crate::trace;
use crate::world::World;

/// A try that does not come to lead is given up after this.
const PATIENCE: Ms = 4_000;
const NUDGE: Ms = 500;
/// For how long a leader may refuse, and answer reads without a stamp, after a majority answered it.
pub const LEASE: Ms = 2_000;

/// One try of one process to lead one show.
pub struct Hosted {
    pub leader: Leader<Sim>,
    pub since: Ms,
    nudged: Ms,
    /// Once the log is chosen and folded.
    pub states: Option<States>,
    /// The whole log, as it was chosen and extended.
    pub log: Vec<Entry<Sim>>,
    pub mailbox: Vec<(Rc<Asked>, Asker)>,
    pub under_way: VecDeque<Batch>,
    /// Each "no" that waits for the proof that nobody else leads.
    pub unproven: Vec<Waiting>,
}

pub struct States {
    pub decided: Rc<Show>,
    pub committed: Rc<Show>,
}

/// One asker, what it will hear, and when that was decided.
pub struct Waiting {
    pub asker: Asker,
    pub answer: Answer,
    pub since: Ms,
}

pub struct Batch {
    pub seq: u64,
    pub groups: Vec<Rc<Group>>,
    pub waiting: Vec<Waiting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    Call { call: u64, attempt: u32 },
    Job(u64),
    Nobody,
}

/// What an asker hears once its batch is committed.
pub enum Answer {
    Group { index: usize, repeated: bool },
    Before { seq: u64, index: u32 },
    Already,
    Refused(Refusal),
}

impl World {
    /// A request about a show reached this process.
    pub fn asked(&mut self, who: Who, call: u64, attempt: u32, show: u8, asked: Inquiry) {
        let asker = Asker::Call { call, attempt };
        self.trace.say(self.now, || format!("{who:?} is asked by call {call}, attempt {attempt}"));
        match asked {
            Inquiry::Command(asked) => self.ask(who, show, asked, asker),
            Inquiry::Read => self.read(who, show, asker),
        }
    }

    pub fn ask(&mut self, who: Who, show: u8, asked: Rc<Asked>, asker: Asker) {
        if let Err(said) = self.host(who, show) {
            self.answer(who, asker, said);
            return;
        }
        if let Some(hosted) = self.processes.get_mut(&who.at).and_then(|p| p.hosted.get_mut(&show)) {
            hosted.mailbox.push((asked, asker));
        }
        self.decide_all(who.at, show);
    }

    fn read(&mut self, who: Who, show: u8, asker: Asker) {
        if let Err(said) = self.host(who, show) {
            self.answer(who, asker, said);
            return;
        }
        let now = self.now;
        let said = match self.processes[&who.at].hosted.get(&show) {
            Some(Hosted { leader, states: Some(states), .. }) if leader.committed() > 0 => {
                let stamped = !leader.holds_lease(now, LEASE);
                Said::Read { epoch: leader.ballot().epoch, seq: states.committed.seq, stamped }
            }
            _ => Said::Unavailable,
        };
        if matches!(said, Said::Read { stamped: false, .. }) {
            self.check_known(who, show, now.saturating_sub(LEASE));
        }
        self.answer(who, asker, said);
    }

    /// Makes sure that this process leads the show, or tries to; else says why not.
    fn host(&mut self, who: Who, show: u8) -> Result<(), Said> {
        let process = &self.processes[&who.at];
        let Some(record) = process.view.shows.get(&show) else { return Err(Said::Unavailable) };
        let owner = self.names.region(&record.owner).unwrap_or(0);
        if owner != who.at.region {
            return Err(Said::NotOwner { owner, epoch: record.epoch });
        }
        if !process.hosted.contains_key(&show) {
            self.try_to_lead(who, show);
        }
        if self.processes[&who.at].hosted.contains_key(&show) { Ok(()) } else { Err(Said::Unavailable) }
    }

    fn try_to_lead(&mut self, who: Who, show: u8) {
        let now = self.now;
        let rules = self.rules;
        let Some(process) = self.alive(who) else { return };
        let (Some(record), true) = (process.view.shows.get(&show).cloned(), process.session.is_some()) else {
            return;
        };
        if process.connection.is_none() || process.rests.get(&show).is_some_and(|until| *until > now) {
            return;
        }
        let mut ballot = process.ballots.next(record.epoch);
        while ballot.attempt <= process.beyond && rules.holds(Rule::BallotOnce) {
            ballot = process.ballots.next(record.epoch);
        }
        // A region of which the registry has not told yet has lost nothing yet.
        let known = process.view.incarnations.clone();
        let incarnations =
            (0..self.setup.regions).map(|no| (no, known.get(&no).copied().unwrap_or(0))).collect();
        let term = Term {
            ballot,
            own: who.at.region,
            replicas: self.names.regions_of(&record.replicas),
            prior: self.names.regions_of(&record.prior),
            incarnations,
        };
        self.counts.add("lead: try");
        self.trace.say(now, || format!("{who:?} tries show {show} with {ballot:?}"));
        let (leader, effects) = Leader::start(rules, self.limits(), term);
        let hosted = Hosted {
            leader,
            since: now,
            nudged: now,
            states: None,
            log: Vec::new(),
            mailbox: Vec::new(),
            under_way: VecDeque::new(),
            unproven: Vec::new(),
        };
        if let Some(process) = self.alive(who) {
            process.hosted.insert(show, hosted);
        }
        self.carry_out(who.at, show, effects);
    }

    /// What time demands of every show that is led here, and of those that should be.
    pub fn drive(&mut self, who: Who) {
        let now = self.now;
        for show in 0..self.setup.shows {
            let Some(process) = self.alive(who) else { return };
            let Some(hosted) = process.hosted.get_mut(&show) else {
                self.lead_in_background(who, show);
                continue;
            };
            let leads = hosted.leader.is_leading();
            if !leads && now > hosted.since + PATIENCE {
                self.counts.add("lead: gave up");
                self.rest(who.at, show);
                self.stand_down(who.at, show);
            } else if !leads && now >= hosted.nudged + NUDGE {
                hosted.nudged = now;
                self.on_leader(who.at, show, Leader::nudge_all);
            } else if leads {
                self.on_leader(who.at, show, |leader| leader.tick(now));
                self.decide_all(who.at, show);
                self.expire(who, show);
                self.prove(who.at, show);
            }
        }
    }

    /// New owners lead without being asked, so that returning replicas catch up; of a region's processes the
    /// one that its gateways ask.
    fn lead_in_background(&mut self, who: Who, show: u8) {
        let process = &self.processes[&who.at];
        let Some(record) = process.view.shows.get(&show) else { return };
        let own = self.names.region(&record.owner) == Some(who.at.region);
        if own && process.view.place(&self.names, who.at.region, show) == Some(who.at) {
            self.try_to_lead(who, show);
        }
    }

    /// A random pause before the next try.
    fn rest(&mut self, at: At, show: u8) {
        let until = self.soon(20, 400);
        if let Some(process) = self.processes.get_mut(&at) {
            process.rests.insert(show, until);
        }
    }

    pub fn on_leader(&mut self, at: At, show: u8, act: impl FnOnce(&mut Leader<Sim>) -> Vec<Effect<Sim>>) {
        let hosted = self.processes.get_mut(&at).and_then(|process| process.hosted.get_mut(&show));
        let Some(hosted) = hosted else { return };
        let effects = act(&mut hosted.leader);
        self.carry_out(at, show, effects);
    }

    /// An answer arrived, from the own store or a peer.
    pub fn heard(&mut self, who: Who, region: u8, show: u8, reply: Reply<Sim>) {
        self.counts.answer(&reply.answer);
        self.trace.say(self.now, || {
            format!(
                "{who:?} hears of show {show} from region {region}: {:?} {}",
                reply.ballot,
                trace::short(&reply.answer)
            )
        });
        if let Some(process) = self.alive(who)
            && let regional::replication::Answer::Refused { promised } = &reply.answer
        {
            process.beyond = process.beyond.max(promised.attempt);
        }
        let ballot = reply.ballot;
        if ballot.session == 0 {
            self.reported(who, region, show, reply);
            return;
        }
        self.on_leader(who.at, show, |leader| leader.answered(&region, reply));
        self.prove(who.at, show);
        self.decide_all(who.at, show);
    }

    pub fn own_unknown(&mut self, who: Who, show: u8, ballot: Ballot) {
        self.on_leader(who.at, show, |leader| {
            if leader.ballot() == ballot { leader.own_unknown() } else { Vec::new() }
        });
        // A fold that was not heard of is asked for again.
        let chosen = self.processes[&who.at].hosted.get(&show).is_some_and(|hosted| {
            hosted.leader.is_chosen() && hosted.leader.ballot() == ballot && hosted.states.is_none()
        });
        if chosen {
            self.rest(who.at, show);
            self.stand_down(who.at, show);
        }
    }

    pub fn carry_out(&mut self, at: At, show: u8, effects: Vec<Effect<Sim>>) {
        for effect in effects {
            let Some(process) = self.processes.get(&at).filter(|process| process.is_up) else { return };
            let who = process.who();
            match effect {
                Effect::Send { to, request } if to == at.region => {
                    self.counts.request(&request);
                    self.submit(who, show, Does::Own(request));
                }
                Effect::Send { to, request } => {
                    self.counts.request(&request);
                    self.send_to_peer(who, to, show, request);
                }
                Effect::Chosen { last } => {
                    self.counts.add("lead: chosen");
                    let hosted = self.processes.get(&at).and_then(|process| process.hosted.get(&show));
                    let Some(ballot) = hosted.map(|hosted| hosted.leader.ballot()) else { return };
                    self.submit(who, show, Does::Fold { ballot, last });
                }
                Effect::Committed { upto } => self.committed(who, show, upto),
                Effect::Settled { epoch } => {
                    let show = self.names.shows[usize::from(show)];
                    let command = Box::new(raft::state::Command::Settled { show, epoch });
                    let message = crate::event::ToRegistry::Command { from: Some(who), command };
                    self.send(Place::Region(at.region), Place::Registry, Event::ToRegistry(message));
                }
                Effect::Stopped(why) => self.stopped(at, show, &why),
            }
        }
    }

    /// To a live process of the region, as far as is known.
    pub fn send_to_peer(&mut self, who: Who, to: u8, show: u8, request: Request<Sim>) {
        let Some(at) = self.processes[&who.at].view.place(&self.names, to, show) else { return };
        self.trace.say(self.now, || format!("{who:?} asks {at:?} of show {show}: {}", trace::asks(&request)));
        let message = Message::Replication { from: who, show, request };
        self.send(Place::Region(who.at.region), Place::Region(to), Event::Arrives(at, message));
    }

    pub fn stand_down(&mut self, at: At, show: u8) {
        self.on_leader(at, show, |leader| leader.stop(Why::Registry));
    }

    /// The try is over: what was decided is unknown, what was not is not done.
    fn stopped(&mut self, at: At, show: u8, why: &Why) {
        self.counts.stopped(why);
        if *why == Why::Contradiction {
            self.fail("S4", format!("a leader of show {show} found what cannot be"));
        }
        self.rest(at, show);
        let Some(process) = self.processes.get_mut(&at) else { return };
        let who = process.who();
        let Some(hosted) = process.hosted.remove(&show) else { return };
        self.trace.say(self.now, || format!("{who:?} stops leading show {show}: {why:?}"));
        for Waiting { asker, .. } in hosted.under_way.into_iter().flat_map(|batch| batch.waiting) {
            self.answer(who, asker, Said::Unknown);
        }
        for (_, asker) in hosted.mailbox {
            self.answer(who, asker, Said::Unavailable);
        }
        // A "no" that is not given: nothing was done either way.
        for Waiting { asker, .. } in hosted.unproven {
            self.answer(who, asker, Said::Unavailable);
        }
    }

    /// The chosen log is read: fold it, and begin.
    pub fn folded(&mut self, who: Who, show: u8, ballot: Ballot, log: Option<Vec<Entry<Sim>>>) {
        let (now, skew) = (self.now, self.processes[&who.at].skew);
        let hosted = self.processes[&who.at].hosted.get(&show);
        if !hosted.is_some_and(|hosted| hosted.leader.ballot() == ballot && hosted.leader.is_chosen()) {
            return;
        }
        let Some(mut log) = log else {
            self.on_leader(who.at, show, |leader| leader.stop(Why::OwnStore));
            return;
        };
        let state = match self.truths[usize::from(show)].fold(&log) {
            Ok(state) => state,
            Err(why) => {
                self.fail("S1", format!("show {show}: a chosen log does not fold: {why}"));
                return;
            }
        };
        self.chose(show, ballot, &log);
        let mut groups = Vec::new();
        let at = state.as_ref().map_or(wall(now, skew), |state| state.last_at.max(wall(now, skew)));
        let led = Happened::Led { epoch: ballot.epoch, session: ballot.session, attempt: ballot.attempt };
        let group = |events| Rc::new(Group { at, by: None, key: None, trace: None, from: None, events });
        groups.push(group(vec![led]));
        if state.is_none() {
            let facts = self.facts[usize::from(show)].clone();
            groups.push(group(vec![Happened::Created(Box::new(facts))]));
        }
        let led = Payload::new(groups);
        let last = log.last().map(Entry::mark).unwrap_or_default();
        let entry = last.next(ballot, led.clone());
        let mut decided = state;
        if self.rules.holds(Rule::LedEntry) || decided.is_none() {
            if fold_in(&mut decided, &entry).is_err() {
                return;
            }
            log.push(entry);
        }
        let Some(decided) = decided else { return };
        self.counts.add("lead: began");
        self.trace.say(now, || format!("{who:?} leads show {show} from {} on", log.len()));
        let Some(hosted) = self.processes.get_mut(&who.at).and_then(|p| p.hosted.get_mut(&show)) else {
            return;
        };
        // Nothing of it is shown before the first entry commits.
        hosted.states = Some(States { committed: decided.clone(), decided });
        hosted.log = log;
        let mut effects = hosted.leader.begin(led.clone(), now);
        if !self.rules.holds(Rule::LedEntry) && hosted.log.len() == 1 {
            // Only the rule is broken: a show must still be created.
            if let Ok((_, more)) = hosted.leader.propose(led) {
                effects.extend(more);
            }
        }
        self.carry_out(who.at, show, effects);
        self.decide_all(who.at, show);
    }

    pub fn answer(&mut self, who: Who, asker: Asker, said: Said) {
        match asker {
            Asker::Nobody => {}
            Asker::Job(job) => self.job_heard(who, job, said),
            Asker::Call { call, attempt } => {
                let Some(region) = self.calls.get(&call).map(|call| call.gateway) else { return };
                let outcome = crate::event::Attempt { nth: attempt, outcome: Outcome::Answered(said) };
                let (from, to) = (Place::Region(who.at.region), Place::Region(region));
                let arrives = self.send(from, to, Event::ToGateway(call, outcome));
                if !arrives && self.is_open(from, to) {
                    let broken = crate::event::Attempt { nth: attempt, outcome: Outcome::Broken };
                    let at = self.soon(1, 100);
                    self.queue.push(at, Event::ToGateway(call, broken));
                }
            }
        }
    }
}
