//! Events folded into the state. Never refuses what was journaled, except what cannot be: a journal that
//! does not begin with its show's creation, or that names what it never made.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use common::{PaymentId, RefundId, ReservationId};
use jiff::{SignedDuration, Timestamp};

use super::event::{Cancellation, Created, Event, Group, Rule, SeatLine};
use super::state::{
    Admission, FirstResult, Payment, PaymentStatus, Plan, Refund, RefundStatus, Reservation,
    ReservationStatus, SeatState, Show, ShowStatus, Ticket, TicketStatus, UsedKey, Waiver,
};

/// Until when a key that was used at `at` is remembered. Also of a time that no clock shows.
pub fn until(at: Timestamp) -> Timestamp {
    at.saturating_add(KEY_KEPT).unwrap_or(Timestamp::MAX)
}

/// How long an idempotency key is remembered.
const KEY_KEPT: SignedDuration = SignedDuration::from_hours(24);

impl Show {
    /// Folds one journal entry; `None` is a show before its first.
    pub fn fold(show: Option<Self>, seq: u64, groups: &[Group]) -> Result<Option<Self>, String> {
        let mut show = show;
        for (index, group) in groups.iter().enumerate() {
            match &mut show {
                Some(show) => show.apply_group(seq, index, group)?,
                None => show = Self::begin(seq, index, group)?,
            }
        }
        Ok(show)
    }

    /// A journal begins with who leads it, then its show's creation.
    fn begin(seq: u64, index: usize, group: &Group) -> Result<Option<Self>, String> {
        match group.events.as_slice() {
            [Event::Led { .. }] => Ok(None),
            [Event::Created(created), rest @ ..] => {
                let mut show = Self::new((**created).clone(), group.at);
                let rest = Group { events: rest.to_vec(), ..group.clone() };
                show.apply_group(seq, index, &rest)?;
                Ok(Some(show))
            }
            _ => Err(format!("entry {seq}: an event before the show's creation")),
        }
    }

    /// Folds one entry into a show that exists.
    pub fn apply<G: Borrow<Group>>(&mut self, seq: u64, groups: &[G]) -> Result<(), String> {
        for (index, group) in groups.iter().enumerate() {
            self.apply_group(seq, index, group.borrow())?;
        }
        Ok(())
    }

    /// Folds the group at place `index` of entry `seq`.
    pub fn apply_group(&mut self, seq: u64, index: usize, group: &Group) -> Result<(), String> {
        for event in &group.events {
            self.event(event, group).map_err(|why| format!("entry {seq}: {why}"))?;
        }
        let index = u32::try_from(index).map_err(|_| "an entry has too many groups")?;
        self.remember(group, seq, index);
        self.last_at = self.last_at.max(group.at);
        self.seq = seq;
        Ok(())
    }

    fn new(facts: Created, at: Timestamp) -> Self {
        let plan = Arc::new(Plan::new(facts));
        Self {
            seats: vec![SeatState::Free; plan.places.len()],
            starts_at: plan.facts.starts_at,
            on_sale_at: plan.facts.on_sale_at,
            plan,
            status: ShowStatus::Scheduled,
            seq: 0,
            last_at: at,
            reservations: BTreeMap::new(),
            payments: BTreeMap::new(),
            refunds: BTreeMap::new(),
            blocks: BTreeMap::new(),
            ticket_of: HashMap::new(),
            nonces: HashMap::new(),
            keys: HashMap::new(),
            keys_by_age: BTreeSet::new(),
            deadlines: BTreeSet::new(),
        }
    }

    fn remember(&mut self, group: &Group, seq: u64, index: u32) {
        if let Some(key) = &group.key {
            let used = UsedKey { body: key.body, seq, index, at: group.at };
            if let Some(before) = self.keys.insert(key.id, used) {
                self.keys_by_age.remove(&(before.at, key.id));
            }
            self.keys_by_age.insert((group.at, key.id));
        }
        while let Some((at, id)) = self.keys_by_age.first().copied() {
            if until(at) > group.at {
                break;
            }
            self.keys_by_age.pop_first();
            self.keys.remove(&id);
        }
    }

    fn event(&mut self, event: &Event, group: &Group) -> Result<(), String> {
        match event {
            Event::Led { .. } => Ok(()),
            Event::Created(_) => Err("created twice".into()),
            Event::Reserved { reservation, seats, expires_at, .. } => {
                self.take(seats, SeatState::Held(*reservation))?;
                self.deadlines.insert((*expires_at, *reservation));
                self.reservations.extend(Reservation::begun(event, group).map(|begun| (*reservation, begun)));
                Ok(())
            }
            Event::SeatsChanged { reservation, seats, waived } => {
                let old = std::mem::take(&mut self.reservation(*reservation)?.seats);
                self.free(&old)?;
                self.take(seats, SeatState::Held(*reservation))?;
                let changed = self.reservation(*reservation)?;
                // What was given up and is had again is had, not given up.
                changed.given_up.retain(|line| !seats.iter().any(|had| had.seat == line.seat));
                changed.seats = seats.clone();
                changed.waivers.extend(waivers(waived, group));
                Ok(())
            }
            Event::Lapsed { reservation } => self.give_up_all(*reservation, ReservationStatus::Expired, true),
            Event::PaymentStarted { payment, reservation, method, amount, token } => {
                let held = self.reservation(*reservation)?;
                held.payments.push(*payment);
                let deadline = (held.expires_at, held.id);
                self.deadlines.remove(&deadline);
                self.payments.insert(
                    *payment,
                    Payment {
                        id: *payment,
                        reservation: *reservation,
                        method: *method,
                        token: token.clone(),
                        amount: *amount,
                        status: PaymentStatus::Pending,
                        first: None,
                        failure: None,
                        refunded: 0,
                        unclaimed: false,
                        started_at: group.at,
                        settled_at: None,
                    },
                );
                Ok(())
            }
            Event::PaymentPending { payment } => {
                self.payment(*payment)?.first = Some(FirstResult::Pending);
                Ok(())
            }
            Event::PaymentCompleted { payment, tickets } => self.paid(*payment, tickets, group.at),
            Event::PaymentFailed { payment, reason, declined } => {
                let failed = self.payment(*payment)?;
                failed.status = PaymentStatus::Failed;
                failed.failure = Some(reason.clone());
                failed.settled_at = Some(group.at);
                failed
                    .first
                    .get_or_insert(FirstResult::Failed { reason: reason.clone(), declined: *declined });
                let reservation = failed.reservation;
                self.counts_down_again(reservation)
            }
            Event::PaymentUnclaimed { payment, refund } => {
                let paid = self.payment(*payment)?;
                paid.settled_at = Some(group.at);
                paid.unclaimed = true;
                let (amount, reservation) = (paid.amount, paid.reservation);
                paid.first.get_or_insert(FirstResult::Completed);
                self.counts_down_again(reservation)?;
                self.start_refund(*refund, *payment, amount, "the seats were no longer held", group.at)
            }
            Event::Canceled(cancellation) => self.canceled(cancellation, group.at),
            Event::RefundStarted { refund, payment, amount, reason, release } => {
                self.start_refund(*refund, *payment, *amount, reason, group.at)?;
                let payment = self.payment(*payment)?;
                // Money that paid for nothing gives no seats up when it goes back.
                let whole = payment.remainder() == 0 && !payment.unclaimed;
                let reservation = payment.reservation;
                if whole && !self.reservation(reservation)?.seats.is_empty() {
                    for ticket in &mut self.reservation(reservation)?.tickets {
                        if ticket.status != TicketStatus::Canceled {
                            ticket.status = TicketStatus::Refunded;
                        }
                    }
                    self.give_up_all(reservation, ReservationStatus::Refunded, *release)?;
                }
                Ok(())
            }
            Event::Retaken { reservation } => {
                let held = self.reservation(*reservation)?;
                held.status = ReservationStatus::Reserved;
                held.seats = std::mem::take(&mut held.given_up);
                let seats = held.seats.clone();
                self.take(&seats, SeatState::Held(*reservation))
            }
            Event::Blocked { seats, reason } => {
                for seat in seats {
                    let state = self.seat(*seat)?;
                    if *state != SeatState::Free {
                        return Err(format!("seat {seat} is blocked while it is taken"));
                    }
                    *state = SeatState::Blocked;
                    self.blocks.insert(*seat, reason.clone());
                }
                Ok(())
            }
            Event::Unblocked { seats } => {
                for seat in seats {
                    *self.seat(*seat)? = SeatState::Free;
                    self.blocks.remove(seat);
                }
                Ok(())
            }
            Event::Rescheduled { starts_at } => {
                self.starts_at = *starts_at;
                Ok(())
            }
            Event::OnSaleChanged { on_sale_at } => {
                self.on_sale_at = *on_sale_at;
                Ok(())
            }
            Event::ShowCanceled { .. } => {
                self.status = ShowStatus::Canceled;
                Ok(())
            }
            Event::RefundCompleted { refund } => {
                self.refund(*refund)?.status = RefundStatus::Completed;
                Ok(())
            }
            Event::RefundFailed { refund, .. } => {
                let failed = self.refund(*refund)?;
                failed.status = RefundStatus::Failed;
                let (payment, amount) = (failed.payment, failed.amount);
                self.add_refunded(payment, amount.saturating_neg())
            }
            Event::CheckedIn { ticket, nonce, at, .. } => {
                let reservation = *self.ticket_of.get(ticket).ok_or("an unknown ticket")?;
                self.nonces.insert(nonce.clone(), *ticket);
                let (by, ticket_id) = (group.by, *ticket);
                let reservation = self.reservation(reservation)?;
                let ticket = reservation.tickets.iter_mut().find(|t| t.id == ticket_id);
                let ticket = ticket.ok_or("an unknown ticket")?;
                if ticket.status == TicketStatus::Valid {
                    ticket.status = TicketStatus::Admitted;
                }
                ticket.admission.get_or_insert(Admission { at: *at, by, nonce: nonce.clone() });
                Ok(())
            }
        }
    }

    /// A payment is over that did not pay for it: where it is still held, and nothing else is under way, its
    /// deadline counts again.
    fn counts_down_again(&mut self, id: ReservationId) -> Result<(), String> {
        let held = self.reservation(id)?;
        let (deadline, reserved) = ((held.expires_at, id), held.status == ReservationStatus::Reserved);
        let open = |id: &PaymentId| self.payments.get(id).is_some_and(|p| p.is_open() && !p.unclaimed);
        if reserved && !self.reservations.get(&id).is_some_and(|held| held.payments.iter().any(open)) {
            self.deadlines.insert(deadline);
        }
        Ok(())
    }

    fn paid(
        &mut self,
        payment: PaymentId,
        tickets: &[common::TicketId],
        at: Timestamp,
    ) -> Result<(), String> {
        let paid = self.payment(payment)?;
        paid.status = PaymentStatus::Completed;
        paid.failure = None;
        paid.settled_at = Some(at);
        paid.first.get_or_insert(FirstResult::Completed);
        let id = paid.reservation;
        let reservation = self.reservation(id)?;
        reservation.status = ReservationStatus::Paid;
        let lines = reservation.seats.iter().zip(tickets);
        reservation.tickets = lines
            .map(|(line, ticket)| Ticket {
                id: *ticket,
                seat: line.seat,
                category: line.category.clone(),
                status: TicketStatus::Valid,
                admission: None,
            })
            .collect();
        let (seats, deadline) = (reservation.seats.clone(), (reservation.expires_at, id));
        self.deadlines.remove(&deadline);
        for ticket in tickets {
            self.ticket_of.insert(*ticket, id);
        }
        for line in &seats {
            *self.seat(line.seat)? = SeatState::Sold(id);
        }
        Ok(())
    }

    fn canceled(&mut self, cancellation: &Cancellation, at: Timestamp) -> Result<(), String> {
        if let Some(back) = &cancellation.refund {
            self.start_refund(back.refund, back.payment, back.amount, "canceled", at)?;
        }
        let id = cancellation.reservation;
        let reservation = self.reservation(id)?;
        let gone = |line: &SeatLine| cancellation.seats.contains(&line.seat);
        for ticket in &mut reservation.tickets {
            if cancellation.seats.contains(&ticket.seat) && ticket.status != TicketStatus::Refunded {
                ticket.status = TicketStatus::Canceled;
            }
        }
        if reservation.seats.iter().all(gone) {
            return self.give_up_all(id, ReservationStatus::Canceled, true);
        }
        let (given, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut reservation.seats).into_iter().partition(gone);
        reservation.seats = kept;
        reservation.given_up.extend(given.iter().cloned());
        self.free(&given)
    }

    /// Ends a reservation; `release`: its seats may be sold again.
    fn give_up_all(
        &mut self,
        id: ReservationId,
        status: ReservationStatus,
        release: bool,
    ) -> Result<(), String> {
        let reservation = self.reservation(id)?;
        reservation.status = status;
        let lines = std::mem::take(&mut reservation.seats);
        reservation.given_up.extend(lines.iter().cloned());
        let deadline = (reservation.expires_at, id);
        self.deadlines.remove(&deadline);
        if release { self.free(&lines) } else { Ok(()) }
    }

    fn start_refund(
        &mut self,
        id: RefundId,
        payment: PaymentId,
        amount: i64,
        reason: &str,
        at: Timestamp,
    ) -> Result<(), String> {
        let reason = reason.to_owned();
        self.refunds.insert(id, Refund { id, payment, amount, reason, status: RefundStatus::Pending, at });
        self.add_refunded(payment, amount)
    }

    fn add_refunded(&mut self, payment: PaymentId, amount: i64) -> Result<(), String> {
        let payment = self.payment(payment)?;
        payment.refunded = payment.refunded.saturating_add(amount);
        payment.status = match payment.refunded {
            0 => PaymentStatus::Completed,
            all if all == payment.amount => PaymentStatus::Refunded,
            _ => PaymentStatus::PartiallyRefunded,
        };
        Ok(())
    }

    fn take(&mut self, lines: &[SeatLine], state: SeatState) -> Result<(), String> {
        for line in lines {
            let seat = self.seat(line.seat)?;
            if *seat != SeatState::Free {
                return Err(format!("seat {} is given twice", line.seat));
            }
            *seat = state;
        }
        Ok(())
    }

    fn free(&mut self, lines: &[SeatLine]) -> Result<(), String> {
        for line in lines {
            *self.seat(line.seat)? = SeatState::Free;
        }
        Ok(())
    }

    fn seat(&mut self, seat: u32) -> Result<&mut SeatState, String> {
        self.seats.get_mut(seat as usize).ok_or_else(|| format!("there is no seat {seat}"))
    }

    fn reservation(&mut self, id: ReservationId) -> Result<&mut Reservation, String> {
        self.reservations.get_mut(&id).ok_or_else(|| format!("there is no reservation {id}"))
    }

    fn payment(&mut self, id: PaymentId) -> Result<&mut Payment, String> {
        self.payments.get_mut(&id).ok_or_else(|| format!("there is no payment {id}"))
    }

    fn refund(&mut self, id: RefundId) -> Result<&mut Refund, String> {
        self.refunds.get_mut(&id).ok_or_else(|| format!("there is no refund {id}"))
    }
}

impl Reservation {
    /// As it was when this event of `group` made it; none for other events.
    pub fn begun(event: &Event, group: &Group) -> Option<Self> {
        let Event::Reserved {
            reservation,
            reference,
            customer,
            contact,
            seats,
            expires_at,
            held_since,
            origin,
            waived,
        } = event
        else {
            return None;
        };
        Some(Self {
            id: *reservation,
            reference: reference.clone(),
            customer: *customer,
            contact: contact.clone(),
            seats: seats.clone(),
            given_up: Vec::new(),
            status: ReservationStatus::Reserved,
            created_at: group.at,
            expires_at: *expires_at,
            held_since: held_since.unwrap_or(group.at),
            origin: *origin,
            payments: Vec::new(),
            tickets: Vec::new(),
            waivers: waivers(waived, group),
        })
    }
}

fn waivers(rules: &[Rule], group: &Group) -> Vec<Waiver> {
    rules.iter().map(|rule| Waiver { rule: *rule, by: group.by, at: group.at }).collect()
}
