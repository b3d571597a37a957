//! A slow and obvious reading of a journal: who holds which seat, who paid what. It shares nothing with the
//! show core, and refuses what the core must never have decided.

use std::collections::{BTreeMap, BTreeSet};

use common::{PaymentId, RefundId, ReservationId};
use regional::show::{Event, Group, SeatLine};

use super::{ModelPayment, ModelReservation};

/// What a journal comes to.
#[derive(Clone, Debug, Default)]
pub struct Hall {
    /// Seats in nobody's hands are not in it; blocked ones are nobody's.
    taken: BTreeMap<u32, Option<ReservationId>>,
    pub reservations: BTreeMap<ReservationId, Held>,
    pub payments: BTreeMap<PaymentId, Paid>,
    pub refunds: BTreeMap<RefundId, Back>,
}

#[derive(Clone, Debug, Default)]
pub struct Held {
    pub now: ModelReservation,
    /// What it held when it ended.
    given_up: Vec<u32>,
    paid_with: Option<PaymentId>,
}

#[derive(Clone, Debug, Default)]
pub struct Paid {
    pub reservation: Option<ReservationId>,
    pub amount: i64,
    /// The journal says that the money came.
    pub came: bool,
    pub by_provider: bool,
    pub now: ModelPayment,
}

#[derive(Clone, Debug)]
pub struct Back {
    pub payment: PaymentId,
    pub amount: i64,
    pub failed: bool,
    pub open: bool,
}

fn numbers(lines: &[SeatLine]) -> Vec<u32> {
    lines.iter().map(|line| line.seat).collect()
}

impl Hall {
    /// Reads one group; `Err` is a seat in two hands (S1), or money that cannot be (S5).
    pub fn read(&mut self, group: &Group) -> Result<(), (&'static str, String)> {
        group.events.iter().try_for_each(|event| self.event(event))
    }

    fn event(&mut self, event: &Event) -> Result<(), (&'static str, String)> {
        match event {
            Event::Reserved { reservation, seats, .. } => {
                let seats = numbers(seats);
                self.take(&seats, Some(*reservation))?;
                let held =
                    Held { now: ModelReservation { status: "reserved".into(), seats }, ..Held::default() };
                if self.reservations.insert(*reservation, held).is_some() {
                    return Err(("S7", format!("{reservation} is made twice")));
                }
            }
            Event::SeatsChanged { reservation, seats, .. } => {
                let old = self.held(reservation)?.now.seats.clone();
                self.free(&old);
                let seats = numbers(seats);
                self.take(&seats, Some(*reservation))?;
                self.held(reservation)?.now.seats = seats;
            }
            Event::Lapsed { reservation } => self.end(reservation, "expired", true)?,
            Event::Extended { reservation, .. } => {
                self.held(reservation)?;
            }
            Event::PaymentStarted { payment, reservation, amount, method, .. } => {
                let by_provider = *method != regional::show::Method::Cash && *amount > 0;
                let now = ModelPayment { status: "pending".into(), refunded: 0 };
                let reservation = Some(*reservation);
                let paid = Paid { reservation, amount: *amount, came: false, by_provider, now };
                if self.payments.insert(*payment, paid).is_some() {
                    return Err(("S7", format!("{payment} is started twice")));
                }
            }
            Event::PaymentPending { .. } | Event::StrayReturned { .. } => {}
            Event::PaymentCompleted { payment, .. } => {
                let paid = self.paid(payment)?;
                (paid.came, paid.now.status) = (true, "completed".into());
                let reservation = paid.reservation;
                if let Some(reservation) = reservation {
                    let held = self.held(&reservation)?;
                    if held.now.status != "reserved" {
                        return Err((
                            "S5",
                            format!("{payment} pays for {reservation}, which is {}", held.now.status),
                        ));
                    }
                    held.now.status = "paid".into();
                    held.paid_with = Some(*payment);
                }
            }
            Event::PaymentFailed { payment, .. } => self.paid(payment)?.now.status = "failed".into(),
            Event::PaymentUnclaimed { payment, refund } => {
                let paid = self.paid(payment)?;
                (paid.came, paid.reservation) = (true, None);
                let amount = paid.amount;
                self.give_back(*refund, *payment, amount)?;
            }
            Event::Canceled(cancellation) => {
                if let Some(back) = &cancellation.refund {
                    self.give_back(back.refund, back.payment, back.amount)?;
                }
                let held = self.held(&cancellation.reservation)?;
                let gone: BTreeSet<u32> = cancellation.seats.iter().copied().collect();
                if held.now.seats.iter().all(|seat| gone.contains(seat)) {
                    self.end(&cancellation.reservation, "canceled", true)?;
                } else {
                    held.now.seats.retain(|seat| !gone.contains(seat));
                    let gone: Vec<u32> = gone.into_iter().collect();
                    self.free(&gone);
                }
            }
            Event::RefundStarted { refund, payment, amount, release, .. } => {
                self.give_back(*refund, *payment, *amount)?;
                let paid = self.paid(payment)?;
                let whole = paid.now.refunded == paid.amount;
                if let (true, Some(reservation)) = (whole, paid.reservation)
                    && !self.held(&reservation)?.now.seats.is_empty()
                {
                    self.end(&reservation, "refunded", *release)?;
                }
            }
            Event::Retaken { reservation } => {
                let held = self.held(reservation)?;
                held.now.status = "reserved".into();
                held.now.seats = std::mem::take(&mut held.given_up);
                let seats = held.now.seats.clone();
                self.take(&seats, Some(*reservation))?;
            }
            Event::Blocked { seats, .. } => self.take(seats, None)?,
            Event::Unblocked { seats } => self.free(seats),
            Event::RefundCompleted { refund } => self.refund(refund)?.open = false,
            Event::RefundFailed { refund, .. } => {
                let back = self.refund(refund)?;
                (back.open, back.failed) = (false, true);
                let (payment, amount) = (back.payment, back.amount);
                let paid = self.paid(&payment)?;
                paid.now.refunded -= amount;
                paid.restate();
            }
            Event::Led { .. }
            | Event::Created(_)
            | Event::Rescheduled { .. }
            | Event::OnSaleChanged { .. }
            | Event::ShowCanceled { .. }
            | Event::CheckedIn { .. } => {}
        }
        Ok(())
    }

    fn take(&mut self, seats: &[u32], by: Option<ReservationId>) -> Result<(), (&'static str, String)> {
        for seat in seats {
            if let Some(holder) = self.taken.insert(*seat, by) {
                return Err(("S1", format!("seat {seat} goes to {by:?} while {holder:?} has it")));
            }
        }
        Ok(())
    }

    fn free(&mut self, seats: &[u32]) {
        for seat in seats {
            self.taken.remove(seat);
        }
    }

    fn end(&mut self, id: &ReservationId, status: &str, release: bool) -> Result<(), (&'static str, String)> {
        let held = self.held(id)?;
        held.now.status = status.into();
        let seats = std::mem::take(&mut held.now.seats);
        held.given_up.clone_from(&seats);
        if release {
            self.free(&seats);
        }
        Ok(())
    }

    fn give_back(
        &mut self,
        refund: RefundId,
        payment: PaymentId,
        amount: i64,
    ) -> Result<(), (&'static str, String)> {
        let paid = self.paid(&payment)?;
        paid.now.refunded += amount;
        if paid.now.refunded > paid.amount {
            return Err(("S5", format!("more goes back of {payment} than came")));
        }
        paid.restate();
        let back = Back { payment, amount, failed: false, open: true };
        if self.refunds.insert(refund, back).is_some() {
            return Err(("S7", format!("{refund} is started twice")));
        }
        Ok(())
    }

    fn held(&mut self, id: &ReservationId) -> Result<&mut Held, (&'static str, String)> {
        self.reservations.get_mut(id).ok_or_else(|| ("S1", format!("there is no {id}")))
    }

    fn paid(&mut self, id: &PaymentId) -> Result<&mut Paid, (&'static str, String)> {
        self.payments.get_mut(id).ok_or_else(|| ("S5", format!("there is no {id}")))
    }

    fn refund(&mut self, id: &RefundId) -> Result<&mut Back, (&'static str, String)> {
        self.refunds.get_mut(id).ok_or_else(|| ("S5", format!("there is no {id}")))
    }

    /// The payments that paid for something that is had, or was.
    pub fn pays_for(&self) -> BTreeMap<ReservationId, PaymentId> {
        self.reservations.iter().filter_map(|(id, held)| Some((*id, held.paid_with?))).collect()
    }
}

impl Paid {
    fn restate(&mut self) {
        self.now.status = match self.now.refunded {
            0 => "completed",
            all if all == self.amount => "refunded",
            _ => "partially_refunded",
        }
        .into();
    }
}
