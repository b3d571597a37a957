//! The payment provider: its books, and its silence. It holds to what a provider promises: one charge an id,
//! a canceled one never captures, no more goes back than came.

use std::collections::BTreeMap;
use std::rc::Rc;

use common::{PaymentId, RefundId};
use regional::payments::{Charge, ChargeStatus, ProviderError};
use regional::show::PaymentStatus;

use crate::event::{Ask, Event, Happening, Message, Place, Who};
use crate::world::World;

#[derive(Clone, Debug)]
pub struct Booked {
    pub amount: i64,
    pub status: ChargeStatus,
    pub refunded: i64,
}

#[derive(Default)]
pub struct Provider {
    pub charges: BTreeMap<PaymentId, Booked>,
    pub refunds: BTreeMap<RefundId, (PaymentId, i64)>,
}

impl Provider {
    fn charge(&mut self, payment: PaymentId, amount: i64, token: &str) -> Booked {
        let status = match token {
            "late" => ChargeStatus::Pending,
            "declined" | "fickle" => ChargeStatus::Declined,
            _ => ChargeStatus::Succeeded,
        };
        let new = Booked { amount, status, refunded: 0 };
        self.charges.entry(payment).or_insert(new).clone()
    }

    fn cancel(&mut self, payment: PaymentId, amount: i64) -> Booked {
        let new = Booked { amount, status: ChargeStatus::Canceled, refunded: 0 };
        let booked = self.charges.entry(payment).or_insert(new);
        if booked.status == ChargeStatus::Pending {
            booked.status = ChargeStatus::Canceled;
        }
        booked.clone()
    }

    fn refund(&mut self, refund: RefundId, payment: PaymentId, amount: i64) -> Result<(), ProviderError> {
        if self.refunds.contains_key(&refund) {
            return Ok(());
        }
        let refused = |why: &str| Err(ProviderError::Refused(why.to_owned()));
        let Some(booked) = self.charges.get_mut(&payment) else { return refused("no such charge") };
        if booked.status != ChargeStatus::Succeeded {
            return refused("charge_not_captured");
        }
        if amount > booked.amount - booked.refunded {
            return refused("amount_too_large");
        }
        booked.refunded += amount;
        self.refunds.insert(refund, (payment, amount));
        Ok(())
    }
}

fn told(payment: PaymentId, booked: &Booked) -> Charge {
    Charge { id: payment.to_string(), status: booked.status, reason: None }
}

impl World {
    /// A call reached the provider. `who`: who still waits for the answer.
    pub fn provider_hears(&mut self, job: u64, who: Option<Who>, ask: Ask) {
        let now = self.now;
        let heard = match ask {
            Ask::Charge { payment, amount, token } => {
                let is_new = !self.provider.charges.contains_key(&payment);
                if is_new && self.chance.chance(self.setup.provider / 3) {
                    self.counts.add("provider: refused");
                    self.told(job, who, Err(ProviderError::Refused("answered 429".into())));
                    return;
                }
                let booked = self.provider.charge(payment, amount, &token);
                // A provider may come to think better of a charge that it declined.
                if is_new && (booked.status == ChargeStatus::Pending || token == "fickle") {
                    let at = self.soon(500, 6_000);
                    self.queue.push(at, Event::Late(payment));
                }
                if !is_new && booked.status == ChargeStatus::Canceled {
                    self.counts.add("provider: late charge defeated");
                }
                self.trace.say(now, || format!("provider: charge {payment} {:?}", booked.status));
                Ok(Some(told(payment, &booked)))
            }
            Ask::Find { payment } => Ok(self.provider.charges.get(&payment).map(|b| told(payment, b))),
            Ask::Cancel { payment, amount } => {
                Ok(Some(told(payment, &self.provider.cancel(payment, amount))))
            }
            Ask::Refund { refund, payment, amount } => {
                self.trace.say(now, || format!("provider: refund {refund} of {payment}"));
                self.provider.refund(refund, payment, amount).map(|()| None)
            }
        };
        self.told(job, who, heard);
    }

    fn told(&mut self, job: u64, who: Option<Who>, heard: regional::payments::steps::Heard) {
        let Some(who) = who else { return };
        let open = self.is_open(Place::Provider, Place::Region(who.at.region));
        if !open || self.chance.chance(self.setup.provider) {
            self.counts.add("provider: answer lost");
            self.no_answer(who, job);
            return;
        }
        let at = self.soon(10, 120);
        self.queue.push(at, Event::For(who, Happening::Provided { job, heard: Rc::new(heard) }));
    }

    /// A late charge comes true, and webhooks tell of it: lost, late, several; again and again
    /// until somebody has understood.
    pub fn comes_true(&mut self, payment: PaymentId) {
        let Some(booked) = self.provider.charges.get_mut(&payment) else { return };
        if booked.status == ChargeStatus::Canceled {
            return;
        }
        booked.status = ChargeStatus::Succeeded;
        let show = self.names.show(payment.show()).and_then(|no| self.truths[usize::from(no)].show.as_ref());
        let known = show.and_then(|show| show.payments.get(&payment)).map(|payment| payment.status);
        if !matches!(known, None | Some(PaymentStatus::Pending | PaymentStatus::Failed)) {
            return;
        }
        let again = self.soon(2_000, 5_000);
        self.queue.push(again, Event::Late(payment));
        for _ in 0..self.chance.below(4) {
            // By way of any gateway, to whom it takes for the owner.
            let gateway = u8::try_from(self.chance.below(self.setup.regions.into())).unwrap_or(0);
            let at = self.names.show(payment.show()).and_then(|show| self.upstream(gateway, show));
            if let Some(at) = at.filter(|at| self.is_open(Place::Provider, Place::Region(at.region))) {
                let late = self.soon(10, 8_000);
                self.queue.push(late, Event::Arrives(at, Message::Webhook { payment }));
            }
        }
    }
}
