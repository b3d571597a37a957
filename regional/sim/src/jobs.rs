//! Money under way in a process: the real saga ([`regional::payments::steps`]) with calls that may be lost,
//! late or doubled, and the reconciler that finds what nobody brings to its end.

use std::rc::Rc;

use common::{PaymentId, RefundId};
use jiff::SignedDuration;
use regional::payments::ProviderError;
use regional::payments::steps::{Call, Heard, Next, Steps, goes_back_by_provider, waiting};
use regional::show::{Asked, Command, Event as Happened, Group, Owned, Payment, PaymentStatus, Show, WithId};

use crate::event::{Ask, At, Event, Place, Said, Who};
use crate::host::Asker;
use crate::process::wall;
use crate::world::World;

/// A younger payment or refund is still with the request that started it.
const LATE: SignedDuration = SignedDuration::from_secs(10);

pub enum Job {
    /// A payment on its way to its outcome.
    Pay {
        payment: PaymentId,
        amount: i64,
        token: String,
        steps: Steps,
    },
    /// The provider's word is being journaled.
    Journal {
        payment: PaymentId,
    },
    Refund {
        refund: RefundId,
    },
    SettleRefund {
        refund: RefundId,
    },
}

impl World {
    fn committed_show(&self, at: At, show: u8) -> Option<&Show> {
        let hosted = self.processes.get(&at)?.hosted.get(&show)?;
        let is_committed = hosted.leader.committed() > 0;
        hosted.states.as_ref().filter(|_| is_committed).map(|states| states.committed.as_ref())
    }

    /// What was just committed may have begun a payment, or a refund.
    pub fn pay(&mut self, who: Who, show: u8, groups: &[Rc<Group>]) {
        let (mut payments, mut refunds) = (Vec::new(), Vec::new());
        for event in groups.iter().flat_map(|group| &group.events) {
            match event {
                Happened::PaymentStarted { payment, .. } => payments.push(*payment),
                Happened::RefundStarted { refund, .. } | Happened::PaymentUnclaimed { refund, .. } => {
                    refunds.push(*refund);
                }
                Happened::Canceled(cancellation) => {
                    refunds.extend(cancellation.refund.as_ref().map(|back| back.refund));
                }
                _ => {}
            }
        }
        for payment in payments {
            let found = self
                .committed_show(who.at, show)
                .and_then(|s| s.payments.get(&payment).map(WithId::to_owned));
            if let Some(payment) = found.filter(|payment| payment.is_open()) {
                if self.chance.chance(20) {
                    // Somebody tells of a payment that the provider has not heard of yet.
                    self.webhook(who, payment.id);
                }
                self.bring_on(who, &payment, Steps::charge());
            }
        }
        for refund in refunds {
            self.give_back(who, show, refund);
        }
    }

    fn bring_on(&mut self, who: Who, payment: &Owned<Payment>, (steps, call): (Steps, Call)) {
        let (id, amount) = (payment.id, payment.amount);
        let token = payment.token().unwrap_or_default().to_owned();
        let Some(process) = self.alive(who) else { return };
        let is_under_way = |job: &Job| match job {
            Job::Pay { payment, .. } | Job::Journal { payment } => *payment == id,
            Job::Refund { .. } | Job::SettleRefund { .. } => false,
        };
        if process.jobs.values().any(is_under_way) {
            return;
        }
        let job = self.id();
        if let Some(process) = self.alive(who) {
            process.jobs.insert(job, Job::Pay { payment: id, amount, token, steps });
        }
        self.call_provider(who, job, call);
    }

    fn call_provider(&mut self, who: Who, job: u64, call: Call) {
        let Some(Job::Pay { payment, amount, token, .. }) = self.processes[&who.at].jobs.get(&job) else {
            return;
        };
        let (payment, amount) = (*payment, *amount);
        let ask = match call {
            Call::Charge => Ask::Charge { payment, amount, token: token.clone() },
            Call::Find => Ask::Find { payment },
            Call::Cancel => Ask::Cancel { payment, amount },
        };
        self.counts.add(match call {
            Call::Charge => "provider: charge",
            Call::Find => "provider: find",
            Call::Cancel => "provider: cancel",
        });
        self.ask_provider(who, job, ask);
    }

    /// The provider, or its silence, answered.
    pub fn provided(&mut self, who: Who, job: u64, heard: &Heard) {
        let Some(process) = self.processes.get_mut(&who.at) else { return };
        match process.jobs.get_mut(&job) {
            Some(Job::Pay { payment, steps, .. }) => {
                let payment = *payment;
                self.trace.say(self.now, || format!("saga: {payment} at {steps:?} hears {heard:?}"));
                match steps.heard(again(heard)) {
                    Next::Call(call) => self.call_provider(who, job, call),
                    Next::Journal(outcome) => {
                        process.jobs.insert(job, Job::Journal { payment });
                        let refund = RefundId::new(payment.show(), wall(self.now, 0), self.chance32());
                        let chance = self.chance32();
                        let command = Command::SettlePayment { payment, outcome, chance, refund };
                        self.tell(who, payment.show(), command, Asker::Job(job));
                    }
                    Next::Nothing => {
                        self.counts.add("saga: nothing to do");
                        process.jobs.remove(&job);
                    }
                    Next::Stuck(_) => {
                        self.counts.add("saga: stuck");
                        process.jobs.remove(&job);
                    }
                }
            }
            Some(Job::Refund { refund }) => {
                let refund = *refund;
                let failed = match heard {
                    Ok(_) => None,
                    Err(ProviderError::Refused(why)) => Some(why.clone()),
                    Err(ProviderError::Unknown(_)) => {
                        self.counts.add("saga: refund unknown");
                        process.jobs.remove(&job);
                        return;
                    }
                };
                process.jobs.insert(job, Job::SettleRefund { refund });
                self.tell(who, refund.show(), Command::SettleRefund { refund, failed }, Asker::Job(job));
            }
            _ => {}
        }
    }

    pub fn chance32(&mut self) -> u32 {
        u32::try_from(self.chance.below(1 << 32)).unwrap_or(0)
    }

    fn tell(&mut self, who: Who, show: common::ShowId, command: Command, asker: Asker) {
        let Some(show) = self.names.show(show) else { return };
        let asked = Rc::new(Asked { command, by: None, key: None, trace: None, from: None });
        self.ask(who, show, asked, asker);
    }

    /// A show answered what a job told it.
    pub fn job_heard(&mut self, who: Who, job: u64, said: Said) {
        let Some(process) = self.alive(who) else { return };
        let Some(done) = process.jobs.remove(&job) else { return };
        match (&said, done) {
            (Said::Done { .. } | Said::Already, Job::Journal { payment }) => {
                self.counts.add("saga: journaled");
                let Some(show) = self.names.show(payment.show()) else { return };
                let open: Vec<RefundId> = self.committed_show(who.at, show).map_or_else(Vec::new, |state| {
                    let of =
                        state.refunds.values().filter(|r| state.payment_of(r).id == payment && r.is_open());
                    of.map(|refund| refund.id).collect()
                });
                for refund in open {
                    self.give_back(who, show, refund);
                }
            }
            (Said::Refused { refusal }, Job::Journal { payment }) => {
                self.fail("S5", format!("{payment} cannot be settled: {refusal:?}"));
            }
            (Said::Refused { refusal }, Job::SettleRefund { refund }) => {
                self.fail("S5", format!("{refund} cannot be settled: {refusal:?}"));
            }
            (Said::Done { .. } | Said::Already, _) => {}
            // Whoever leads now finds it.
            _ => self.counts.add("saga: left to the reconciler"),
        }
    }

    fn give_back(&mut self, who: Who, show: u8, id: RefundId) {
        let found = self.committed_show(who.at, show).and_then(|state| {
            let refund = state.refunds.get(&id).filter(|refund| refund.is_open())?;
            Some((refund.amount, state.payment_of(&refund).to_owned()))
        });
        let Some((amount, payment)) = found else { return };
        let Some(process) = self.alive(who) else { return };
        let is_under_way = |job: &Job| match job {
            Job::Refund { refund } | Job::SettleRefund { refund } => *refund == id,
            Job::Pay { .. } | Job::Journal { .. } => false,
        };
        if process.jobs.values().any(is_under_way) {
            return;
        }
        let job = self.id();
        if !goes_back_by_provider(&payment) {
            self.counts.add("saga: given back by hand");
            if let Some(process) = self.alive(who) {
                process.jobs.insert(job, Job::SettleRefund { refund: id });
            }
            let command = Command::SettleRefund { refund: id, failed: None };
            self.tell(who, id.show(), command, Asker::Job(job));
            return;
        }
        if let Some(process) = self.alive(who) {
            process.jobs.insert(job, Job::Refund { refund: id });
        }
        self.counts.add("provider: refund");
        let ask = Ask::Refund { refund: id, payment: payment.id, amount };
        self.ask_provider(who, job, ask);
    }

    /// The provider's own word: it only makes somebody look.
    pub fn webhook(&mut self, who: Who, payment: PaymentId) {
        self.counts.add("provider: webhook");
        self.trace.say(self.now, || format!("{who:?} is told of {payment}"));
        let Some(show) = self.names.show(payment.show()) else { return };
        let found = self
            .committed_show(who.at, show)
            .and_then(|state| state.payments.get(&payment).map(WithId::to_owned));
        if let Some(payment) = found {
            self.bring_on(who, &payment, Steps::hinted());
        }
    }

    /// Looks for what nobody brings to its end in the shows that are led here.
    pub fn reconcile(&mut self, who: Who) {
        let late = wall(self.now, self.processes[&who.at].skew) - LATE;
        for show in 0..self.setup.shows {
            let Some(state) = self.committed_show(who.at, show) else { continue };
            let found = waiting(state, late);
            let payments: Vec<Owned<Payment>> =
                found.payments.iter().filter_map(|id| state.payments.get(id).map(WithId::to_owned)).collect();
            for payment in payments.iter().filter(|payment| payment.status == PaymentStatus::Pending) {
                self.counts.add("saga: reconciled");
                self.bring_on(who, payment, Steps::settle());
            }
            for refund in found.refunds {
                self.give_back(who, show, refund);
            }
            if found.called_off {
                let command = Command::CancelRest { limit: 3, chance: self.chance32() };
                self.tell(who, self.names.shows[usize::from(show)], command, Asker::Nobody);
            }
        }
    }

    /// Sends a call to the provider; silence is noticed too.
    fn ask_provider(&mut self, who: Who, job: u64, ask: Ask) {
        let region = Place::Region(who.at.region);
        let lost = self.chance.chance(self.setup.provider) || !self.is_open(region, Place::Provider);
        // A call that was given up may still be on its way (R9).
        let late = self.chance.chance(self.setup.provider);
        if !lost {
            let at = if late { self.soon(1_000, 15_000) } else { self.soon(10, 120) };
            self.queue.push(at, Event::ToProvider(job, (!late).then_some(who), ask));
        }
        if lost || late {
            self.counts.add(if lost { "provider: call lost" } else { "provider: call late" });
            self.no_answer(who, job);
        }
    }

    pub fn no_answer(&mut self, who: Who, job: u64) {
        let heard = Rc::new(Err(ProviderError::Unknown("no answer in time".into())));
        let at = self.soon(500, 2_000);
        self.queue.push(at, Event::For(who, crate::event::Happening::Provided { job, heard }));
    }
}

/// The same answer once more: errors are not to be copied in production.
fn again(heard: &Heard) -> Heard {
    match heard {
        Ok(charge) => Ok(charge.clone()),
        Err(ProviderError::Unknown(why)) => Err(ProviderError::Unknown(why.clone())),
        Err(ProviderError::Refused(why)) => Err(ProviderError::Refused(why.clone())),
    }
}
