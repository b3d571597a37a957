//! One seed, from the first event to the verdict.

use std::collections::{BTreeMap, VecDeque};

use common::RegionName;
use raft::state::Command;
use regional::replication::{Limits, Rule};
use regional::show::{PaymentStatus, ReservationStatus};

use crate::client::Client;
use crate::counts::Counts;
use crate::database::{Database, Model};
use crate::event::{At, Event, Ms, Queue};
use crate::history::{self, History, ModelPayment, ModelReservation};
use crate::kind::Broken;
use crate::process::Process;
use crate::provider::Provider;
use crate::random::Random;
use crate::registry::RegistryNode;
use crate::setup::{self, Emphasis, Setup};
use crate::trace::Trace;
use crate::truth::Truth;
use crate::view::{Names, View};
use crate::world::{Violation, World};

/// Within this after everything healed, every show serves, and all money is settled.
pub const HEALED_WITHIN: Ms = 60_000;

/// What became of a seed.
pub struct Run {
    pub seed: u64,
    pub broken: Option<Violation>,
    /// Of everything that happened, in its order.
    pub trace: u64,
    pub words: VecDeque<String>,
    pub counts: Counts,
    /// From healing until every show served, the slowest.
    pub served_after: Option<Ms>,
    pub events: u64,
    pub history: History,
}

/// Runs one seed; with `without`, one rule of the protocol does not hold. `in_words`: somebody will read the
/// trace.
pub fn run(seed: u64, without: Option<Rule>, in_words: bool) -> Run {
    run_with(seed, without, None, in_words)
}

/// The same, with the kinds of faults that one wants to see most.
pub fn run_with(seed: u64, without: Option<Rule>, emphasis: Option<Emphasis>, in_words: bool) -> Run {
    let mut world = World::new(seed, Broken(without), emphasis, in_words);
    let mut events = 0;
    while world.step() {
        events += 1;
        if events % 64 == 0 && world.is_over() {
            break;
        }
    }
    let history = world.finish();
    let served = world.healed_at.zip(world.served_at.iter().copied().collect::<Option<Vec<Ms>>>());
    let served_after = served.and_then(|(healed, at)| at.into_iter().max().map(|last| last - healed));
    Run {
        seed,
        broken: world.broken,
        trace: world.trace.digest,
        words: world.trace.words.unwrap_or_default(),
        counts: world.counts,
        served_after,
        events,
        history,
    }
}

impl World {
    fn new(seed: u64, rules: Broken, emphasis: Option<Emphasis>, in_words: bool) -> Self {
        let mut chance = Random::new(seed);
        let setup = Setup::new(&mut chance, emphasis);
        let regions: Vec<RegionName> = setup::names(setup.regions);
        let homes = |no: u8| regions[usize::from(no) % regions.len()].clone();
        let facts: Vec<_> = (0..setup.shows).map(|no| setup::facts(no, &homes(no), &mut chance)).collect();
        let names = Names { shows: facts.iter().map(|facts| facts.show).collect(), regions: regions.clone() };
        let limits = if setup.small_messages {
            Limits { message: 1, kept: 2_000, under_way: 3 }
        } else {
            Limits::default()
        };
        let mut processes = BTreeMap::new();
        for region in 0..setup.regions {
            for slot in 0..setup.slots {
                let at = At { region, slot };
                let skew = i64::try_from(chance.below(4_000)).unwrap_or(0) - 2_000;
                processes.insert(at, Process::new(at, skew));
            }
        }
        let clients = (0..setup.clients).map(Client::new).collect();
        let shows = usize::from(setup.shows);
        let mut world = Self {
            now: 0,
            rules,
            limits,
            queue: Queue::default(),
            cuts: BTreeMap::new(),
            slow: BTreeMap::new(),
            storm: false,
            faults: Vec::new(),
            names,
            facts,
            registry: RegistryNode::new(),
            databases: (0..setup.regions).map(|_| Database::new()).collect(),
            processes,
            gateways: (0..setup.regions).map(|_| View::default()).collect(),
            calls: BTreeMap::new(),
            clients,
            provider: Provider::default(),
            truths: (0..shows).map(|_| Truth::default()).collect(),
            history: Vec::new(),
            keys: BTreeMap::new(),
            counts: Counts::default(),
            trace: Trace::new(in_words),
            broken: None,
            healed_at: None,
            served_at: vec![None; shows],
            next_id: 0,
            restored_at: 0,
            chance,
            setup,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let places: Vec<At> = self.processes.keys().copied().collect();
        for at in places {
            self.start(at);
            // Known before its shows, so that the registry takes them.
            let who = self.processes[&at].who();
            self.open_session(who);
        }
        for no in 0..self.setup.shows {
            let facts = &self.facts[usize::from(no)];
            let mut replicas = self.names.regions.clone();
            let all = self.setup.emphasis == Emphasis::LateAppend;
            if !all && (replicas.len() > 4 || (replicas.len() > 3 && self.chance.chance(500))) {
                replicas.rotate_left(usize::from(no));
                replicas.truncate(3);
            }
            let command = Command::CreateShow { id: facts.show, home: facts.home.clone(), replicas };
            self.command(&command);
        }
        for no in 0..self.setup.clients {
            let first = self.soon(500, 2_500);
            self.queue.push(first, Event::Client(no));
        }
        self.queue.push(1, Event::RegistryTick);
        self.queue.push(2_000, Event::Snapshot);
        self.plan_faults();
    }

    /// Whether everything healed, every show served, and nothing waits any more; or it is too late.
    fn is_over(&self) -> bool {
        let Some(healed) = self.healed_at else { return false };
        if self.now > healed + HEALED_WITHIN {
            return true;
        }
        self.now > healed + 3_000 && self.served_at.iter().all(Option::is_some) && self.unsettled().is_none()
    }

    /// What is still on its way: a call, money, a replica.
    fn unsettled(&self) -> Option<String> {
        if !self.calls.is_empty() {
            return Some("calls are open".to_owned());
        }
        for show in self.truths.iter().filter_map(|truth| truth.show.as_ref()) {
            let mut open = show.payments.values().filter(|payment| payment.status == PaymentStatus::Pending);
            if let Some(payment) = open.next() {
                return Some(format!("{} has no outcome", payment.id));
            }
            if let Some(refund) = show.refunds.values().find(|refund| refund.is_open()) {
                return Some(format!("{} has no outcome", refund.id));
            }
        }
        for (id, charge) in &self.provider.charges {
            let captured = charge.status == regional::payments::ChargeStatus::Succeeded;
            let known = self.names.show(id.show()).and_then(|no| self.truths[usize::from(no)].show.as_ref());
            let payment = known.and_then(|show| show.payments.get(id));
            if captured && payment.is_none_or(|payment| payment.status == PaymentStatus::Failed) {
                return Some(format!("{id} was captured, and nobody has understood it"));
            }
        }
        (0..self.setup.shows).find_map(|show| self.behind(show))
    }

    /// A replica of the show that is not whole, or does not know of all that was acknowledged.
    fn behind(&self, show: u8) -> Option<String> {
        let record = self.registry.state.show(self.names.shows[usize::from(show)])?;
        let acknowledged = self.truths[usize::from(show)].entries.len() as u64;
        self.names.regions_of(&record.replicas).into_iter().find_map(|region| {
            let replica = self.databases[usize::from(region)].content.replicas.get(&show);
            let (incarnation, committed) = replica.map_or((0, 0), |r| (r.head.incarnation, r.head.committed));
            let is_behind = incarnation != self.incarnation(region) || committed != acknowledged;
            is_behind.then(|| {
                format!("region {region} knows of {committed} of {acknowledged} entries of show {show}")
            })
        })
    }

    /// The end: liveness, and the verdict of the history checker.
    fn finish(&mut self) -> History {
        if self.broken.is_none() {
            let late: Vec<usize> =
                (0..self.served_at.len()).filter(|show| self.served_at[*show].is_none()).collect();
            if self.healed_at.is_none() {
                self.fail("liveness", "the world stood still before it healed");
            } else if !late.is_empty() {
                self.fail(
                    "liveness",
                    format!("shows {late:?} do not serve {HEALED_WITHIN} ms after healing"),
                );
            } else if let Some(why) = self.unsettled() {
                self.fail("liveness", format!("{HEALED_WITHIN} ms after healing, {why}"));
            }
        }
        for region in 0..self.databases.len() {
            if let Err(why) = self.databases[region].project() {
                self.fail("S6", why);
            }
        }
        let history = self.recorded();
        if self.broken.is_none() {
            let verdict = history::check(&history);
            if let Some(wrong) = verdict.wrong.first() {
                let invariant = wrong.invariant;
                self.fail(invariant, format!("{verdict}"));
            }
        }
        history
    }

    /// Everything that an observer could have recorded.
    fn recorded(&self) -> History {
        let mut history = History { operations: self.history.clone(), ..History::default() };
        for (region, database) in self.databases.iter().enumerate() {
            let region = self.names.regions[region].to_string();
            for (no, replica) in &database.content.replicas {
                let show = self.names.shows[usize::from(*no)];
                if replica.head.incarnation != self.incarnation_of(&region) {
                    continue;
                }
                let entries = replica.entries.iter().map(|entry| history::Entry {
                    seq: entry.seq,
                    ballot: history::Ballot {
                        epoch: entry.ballot.epoch,
                        attempt: entry.ballot.attempt,
                        session: entry.ballot.session,
                    },
                    hash: format!("{:016x}", entry.digest),
                    groups: entry.payload.groups().iter().map(|group| (**group).clone()).collect(),
                });
                let entries = entries.collect();
                let committed = replica.head.committed;
                history.journals.push(history::Journal { region: region.clone(), show, committed, entries });
            }
            for (no, model) in &database.content.models {
                history.models.push(recorded_model(&region, self.names.shows[usize::from(*no)], model));
            }
        }
        let charges = self.provider.charges.iter().map(|(id, charge)| history::Charge {
            id: *id,
            amount: charge.amount,
            captured: charge.status == regional::payments::ChargeStatus::Succeeded,
        });
        let refunds = self.provider.refunds.iter().map(|(id, (charge, amount))| history::GivenBack {
            id: *id,
            charge: *charge,
            amount: *amount,
        });
        history.books = Some(history::Books { charges: charges.collect(), refunds: refunds.collect() });
        history
    }

    fn incarnation_of(&self, region: &str) -> u64 {
        self.registry.state.regions().find(|known| known.name.as_str() == region).map_or(0, |r| r.incarnation)
    }
}

fn recorded_model(region: &str, show: common::ShowId, model: &Model) -> history::Model {
    let (mut reservations, mut payments) = (BTreeMap::new(), BTreeMap::new());
    if let Some(state) = &model.show {
        for reservation in state.reservations.values() {
            let status = match reservation.status {
                ReservationStatus::Reserved => "reserved",
                ReservationStatus::Paid => "paid",
                ReservationStatus::Canceled => "canceled",
                ReservationStatus::Expired => "expired",
                ReservationStatus::Refunded => "refunded",
            };
            let seats = reservation.seats.iter().map(|line| line.seat).collect();
            reservations.insert(reservation.id, ModelReservation { status: status.into(), seats });
        }
        for payment in state.payments.values() {
            let status = match payment.status {
                PaymentStatus::Pending => "pending",
                PaymentStatus::Completed => "completed",
                PaymentStatus::Failed => "failed",
                PaymentStatus::Refunded => "refunded",
                PaymentStatus::PartiallyRefunded => "partially_refunded",
            };
            let refunded = payment.refunded;
            payments.insert(payment.id, ModelPayment { status: status.into(), refunded });
        }
    }
    history::Model { region: region.to_owned(), show, upto: model.upto, reservations, payments }
}
