//! A second reading of a journal, by bookkeeping alone: who holds which seat, which money was taken and given
//! back, which keys were used. It shares no code with [`Show::apply`], so that a defect there does not hide
//! itself; at the end the two are compared.

use std::collections::{BTreeMap, HashMap};

use common::{PaymentId, RefundId, ReservationId, TicketId};
use jiff::{SignedDuration, Timestamp};

use super::breach::Rule;
use crate::show::{Event, Group, PaymentStatus, ReservationStatus, SeatLine, SeatState, Show};

/// A key may be used for something else after this (`docs/protocol.md`, S7).
const KEY_KEPT: SignedDuration = SignedDuration::from_hours(24);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Reservation(ReservationId),
    Block,
}

#[derive(Default)]
struct Booking {
    /// Seat and price.
    seats: BTreeMap<u32, i64>,
    ended_with: BTreeMap<u32, i64>,
    over: bool,
    /// The payment that paid for it.
    paid_by: Option<PaymentId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Money {
    Open,
    /// None moved.
    Failed,
    Taken,
}

struct Charge {
    reservation: ReservationId,
    amount: i64,
    money: Money,
    /// Nobody could claim it: all of it must go back.
    unclaimed: bool,
    /// Refunds started and not failed.
    back: i64,
}

struct Back {
    payment: PaymentId,
    amount: i64,
    settled: bool,
}

#[derive(Default)]
pub(super) struct Ledger {
    seats_of_hall: u32,
    canceled: bool,
    holders: BTreeMap<u32, Holder>,
    bookings: BTreeMap<ReservationId, Booking>,
    charges: BTreeMap<PaymentId, Charge>,
    backs: BTreeMap<RefundId, Back>,
    /// Tickets, and whether they admitted somebody.
    tickets: BTreeMap<TicketId, bool>,
    keys: HashMap<[u8; 16], Timestamp>,
    found: Vec<(Rule, String)>,
}

impl Ledger {
    /// Reads one entry; what is wrong with it.
    pub fn entry(&mut self, groups: &[Group]) -> Vec<(Rule, String)> {
        for group in groups {
            if let Some(key) = &group.key {
                let before = self.keys.insert(key.id, group.at);
                // A journal that is wrong may tell of any time, and of any amount below.
                let until = |at: Timestamp| at.saturating_add(KEY_KEPT).unwrap_or(Timestamp::MAX);
                if before.is_some_and(|before| until(before) > group.at) {
                    self.wrong(Rule::KeyTwice, "an idempotency key takes effect a second time");
                }
            }
            for event in &group.events {
                self.event(event);
            }
        }
        std::mem::take(&mut self.found)
    }

    /// What is wrong at the end: money that nobody can claim, and all in which the fold differs.
    pub fn finish(mut self, show: &Show) -> Vec<(Rule, String)> {
        for (id, charge) in &self.charges {
            if charge.money == Money::Taken && charge.unclaimed && charge.back != charge.amount {
                let (back, amount) = (charge.back, charge.amount);
                let why = format!("{id} has nothing to pay for, and {back} of {amount} is on its way back");
                self.found.push((Rule::Payment, why));
            }
            let status = show.payments.get(id).map(|payment| payment.status);
            let taken = matches!(
                status,
                Some(PaymentStatus::Completed | PaymentStatus::Refunded | PaymentStatus::PartiallyRefunded)
            );
            let refunded = show.payments.get(id).map(|payment| payment.refunded);
            // An unclaimed payment counts as refunded from its first moment.
            if taken != (charge.money == Money::Taken) || refunded != Some(charge.back) {
                self.found
                    .push((Rule::Fold, format!("{id} folds to {status:?} with {refunded:?} given back")));
            }
        }
        for (seat, state) in (0..).zip(show.seat_states()) {
            let holder = match state {
                SeatState::Free => None,
                SeatState::Held(by) | SeatState::Sold(by) => Some(Holder::Reservation(by)),
                SeatState::Blocked => Some(Holder::Block),
            };
            let own = self.holders.get(&seat).copied();
            if holder != own {
                self.found.push((Rule::Fold, format!("seat {seat} folds to {state:?}, but {own:?} has it")));
            }
        }
        for reservation in show.reservations.values() {
            let id = reservation.id;
            let live = matches!(reservation.status, ReservationStatus::Reserved | ReservationStatus::Paid);
            if self.bookings.get(&id).is_none_or(|booking| booking.over == live) {
                let status = reservation.status;
                self.found.push((Rule::Fold, format!("{id} folds to {status:?}, which it is not")));
            }
        }
        if show.reservations.len() != self.bookings.len() || show.payments.len() != self.charges.len() {
            self.found.push((Rule::Fold, "the fold has lost a reservation or a payment".into()));
        }
        self.found
    }

    fn wrong(&mut self, rule: Rule, detail: impl Into<String>) {
        self.found.push((rule, detail.into()));
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Led { .. } | Event::Rescheduled { .. } | Event::OnSaleChanged { .. } => {}
            Event::Created(facts) => {
                let seats: usize = facts.rows.iter().map(|row| row.seats.len()).sum();
                self.seats_of_hall = u32::try_from(seats).unwrap_or(u32::MAX);
            }
            Event::ShowCanceled { .. } => self.canceled = true,
            Event::Reserved { reservation, seats, .. } => {
                if self.canceled {
                    self.wrong(Rule::SeatTwice, format!("{reservation}: seats of a canceled show"));
                }
                if self.bookings.insert(*reservation, Booking::default()).is_some() {
                    self.wrong(Rule::Fold, format!("{reservation} is reserved twice"));
                }
                self.take(*reservation, &prices(seats));
            }
            Event::SeatsChanged { reservation, seats, .. } => {
                self.live(*reservation, "changed");
                let old: Vec<u32> = self.booking(*reservation).seats.keys().copied().collect();
                self.free(*reservation, &old);
                self.take(*reservation, &prices(seats));
            }
            Event::Lapsed { reservation } => {
                self.live(*reservation, "lapses");
                let open = |c: &Charge| c.reservation == *reservation && c.money == Money::Open;
                if self.charges.values().any(open) {
                    self.wrong(Rule::Payment, format!("{reservation} lapses while a payment is under way"));
                }
                self.end(*reservation, true);
            }
            Event::Extended { reservation, .. } => self.live(*reservation, "has longer"),
            Event::Retaken { reservation } => {
                if !self.booking(*reservation).over {
                    self.wrong(Rule::SeatTwice, format!("{reservation} is taken again while it is held"));
                }
                let booking = self.booking(*reservation);
                booking.over = false;
                let seats = std::mem::take(&mut booking.ended_with);
                self.take(*reservation, &seats);
            }
            Event::Canceled(cancellation) => {
                let id = cancellation.reservation;
                self.live(id, "is canceled");
                if let Some(back) = &cancellation.refund {
                    self.give_back(back.refund, back.payment, back.amount);
                }
                if self.free(id, &cancellation.seats) == 0 {
                    self.end(id, true);
                }
            }
            Event::Blocked { seats, .. } => {
                for seat in seats {
                    if let Some(holder) = self.holders.insert(*seat, Holder::Block) {
                        self.wrong(
                            Rule::SeatTwice,
                            format!("seat {seat} is blocked while {holder:?} has it"),
                        );
                    }
                }
            }
            Event::Unblocked { seats } => {
                for seat in seats {
                    if self.holders.remove(seat) != Some(Holder::Block) {
                        self.wrong(Rule::SeatTwice, format!("seat {seat} is unblocked, and was not blocked"));
                    }
                }
            }
            _ => self.money(event),
        }
    }

    fn money(&mut self, event: &Event) {
        match event {
            Event::PaymentStarted { payment, reservation, amount, .. } => {
                self.live(*reservation, "is paid for");
                let open = |c: &Charge| c.reservation == *reservation && c.money == Money::Open;
                if self.charges.values().any(open) {
                    self.wrong(Rule::Payment, format!("{reservation} has two payments under way"));
                }
                let charge = Charge {
                    reservation: *reservation,
                    amount: *amount,
                    money: Money::Open,
                    unclaimed: false,
                    back: 0,
                };
                if self.charges.insert(*payment, charge).is_some() {
                    self.wrong(Rule::Payment, format!("{payment} is started twice"));
                }
            }
            Event::PaymentCompleted { payment, tickets } => self.paid(*payment, tickets),
            Event::PaymentFailed { payment, .. } => match self.charges.get_mut(payment) {
                Some(charge) if charge.money == Money::Open => charge.money = Money::Failed,
                _ => self.wrong(Rule::Payment, format!("{payment} fails, and was not under way")),
            },
            Event::PaymentUnclaimed { payment, refund } => {
                if let Some((_, amount)) = self.taken(*payment) {
                    if let Some(charge) = self.charges.get_mut(payment) {
                        charge.unclaimed = true;
                    }
                    self.give_back(*refund, *payment, amount);
                }
            }
            Event::RefundStarted { refund, payment, amount, release, .. } => {
                self.give_back(*refund, *payment, *amount);
                let charge = self.charges.get(payment);
                // Money that paid for nothing gives no seats up when it goes back.
                let whole = charge.filter(|charge| charge.back == charge.amount && !charge.unclaimed);
                let whole = whole.map(|charge| charge.reservation);
                if let Some(id) =
                    whole.filter(|id| self.bookings.get(id).is_some_and(|b| !b.seats.is_empty()))
                {
                    self.end(id, *release);
                    // From here on the money pays for nothing: should the refund fail, it is owed.
                    if let Some(charge) = self.charges.get_mut(payment) {
                        charge.unclaimed = true;
                    }
                }
            }
            Event::RefundCompleted { refund } => self.settled(*refund, false),
            Event::RefundFailed { refund, .. } => self.settled(*refund, true),
            Event::CheckedIn { ticket, forced, .. } => match self.tickets.get_mut(ticket) {
                None => self.wrong(Rule::Ticket, format!("{ticket} was never sold and admits somebody")),
                Some(used) => {
                    let again = std::mem::replace(used, true);
                    if again && !forced {
                        self.wrong(Rule::Ticket, format!("{ticket} admits a second time"));
                    }
                }
            },
            _ => {}
        }
    }

    /// The reservation and the amount, once the provider has the money.
    fn taken(&mut self, payment: PaymentId) -> Option<(ReservationId, i64)> {
        match self.charges.get_mut(&payment) {
            Some(charge) if charge.money != Money::Taken => {
                charge.money = Money::Taken;
                Some((charge.reservation, charge.amount))
            }
            Some(_) => {
                self.wrong(Rule::Payment, format!("{payment} is captured twice"));
                None
            }
            None => {
                self.wrong(Rule::Payment, format!("{payment} is captured, and was never started"));
                None
            }
        }
    }

    fn paid(&mut self, payment: PaymentId, tickets: &[TicketId]) {
        let Some((id, amount)) = self.taken(payment) else { return };
        self.live(id, "is paid");
        let booking = self.booking(id);
        let (price, seats) = (
            booking.seats.values().fold(0, |sum: i64, price| sum.saturating_add(*price)),
            booking.seats.len(),
        );
        if let Some(before) = booking.paid_by.replace(payment) {
            self.wrong(Rule::Payment, format!("{id} is paid by {before} and by {payment}"));
        }
        if price != amount {
            self.wrong(Rule::Payment, format!("{payment} took {amount} for seats of {price}"));
        }
        if tickets.len() != seats {
            self.wrong(Rule::Ticket, format!("{payment}: {} tickets for {seats} seats", tickets.len()));
        }
        for ticket in tickets {
            if self.tickets.insert(*ticket, false).is_some() {
                self.wrong(Rule::Ticket, format!("{ticket} is sold twice"));
            }
        }
    }

    fn give_back(&mut self, refund: RefundId, payment: PaymentId, amount: i64) {
        if self.backs.insert(refund, Back { payment, amount, settled: false }).is_some() {
            self.wrong(Rule::Payment, format!("{refund} is started twice"));
        }
        let Some(charge) = self.charges.get_mut(&payment) else {
            return self.wrong(Rule::Payment, format!("{refund} gives back {payment}, which is not known"));
        };
        charge.back = charge.back.saturating_add(amount);
        let (back, whole, taken) = (charge.back, charge.amount, charge.money == Money::Taken);
        if !taken || amount <= 0 || back > whole {
            self.wrong(Rule::Payment, format!("{payment}: {back} given back of {whole} (taken: {taken})"));
        }
    }

    fn settled(&mut self, refund: RefundId, failed: bool) {
        let back = match self.backs.get_mut(&refund) {
            Some(back) if !back.settled => back,
            _ => return self.wrong(Rule::Payment, format!("{refund} ends, and was not under way")),
        };
        back.settled = true;
        let (payment, amount) = (back.payment, back.amount);
        if failed && let Some(charge) = self.charges.get_mut(&payment) {
            charge.back = charge.back.saturating_sub(amount);
        }
    }

    fn booking(&mut self, id: ReservationId) -> &mut Booking {
        self.bookings.entry(id).or_default()
    }

    fn live(&mut self, id: ReservationId, what: &str) {
        if self.bookings.get(&id).is_none_or(|booking| booking.over) {
            self.wrong(Rule::Fold, format!("{id} {what}, and is over or was never made"));
        }
    }

    fn take(&mut self, id: ReservationId, seats: &BTreeMap<u32, i64>) {
        for (seat, price) in seats {
            if *seat >= self.seats_of_hall {
                self.wrong(Rule::Fold, format!("{id}: there is no seat {seat}"));
            }
            if let Some(holder) = self.holders.insert(*seat, Holder::Reservation(id)) {
                self.wrong(Rule::SeatTwice, format!("seat {seat} is given to {id} while {holder:?} has it"));
            }
            self.booking(id).seats.insert(*seat, *price);
        }
    }

    /// Frees seats of a reservation; how many it keeps.
    fn free(&mut self, id: ReservationId, seats: &[u32]) -> usize {
        for seat in seats {
            if self.booking(id).seats.remove(seat).is_none() {
                self.wrong(Rule::SeatTwice, format!("{id} gives up seat {seat}, which it does not hold"));
                continue;
            }
            self.holders.remove(seat);
        }
        self.booking(id).seats.len()
    }

    /// Ends a reservation; `release`: its seats can be sold again.
    fn end(&mut self, id: ReservationId, release: bool) {
        let booking = self.booking(id);
        booking.over = true;
        booking.paid_by = None;
        let seats = std::mem::take(&mut booking.seats);
        if release {
            for seat in seats.keys() {
                self.holders.remove(seat);
            }
        }
        self.booking(id).ended_with = seats;
    }
}

fn prices(lines: &[SeatLine]) -> BTreeMap<u32, i64> {
    lines.iter().map(|line| (line.seat, line.amount)).collect()
}
