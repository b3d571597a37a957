//! Events folded into the state. Never refuses what was journaled, except what cannot be: a journal that
//! does not begin with its show's creation, or that names what it never made.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{PaymentId, RefundId, ReservationId, TicketId};
use jiff::Timestamp;
use thin_vec::ThinVec;

use super::buyers::Buyers;
use super::event::{Cancellation, Created, Event, Group, Rule, SeatLine};
use super::index::{Index, hash};
use super::keys::{Keys, UsedKey};
use super::payment::{First, Payment, PaymentStatus, Refund, RefundStatus};
use super::plan::Plan;
use super::slab::{Slab, Slot, push};
use super::state::{
    Admission, Line, Reservation, ReservationStatus, Seat, Show, ShowStatus, Ticket, TicketStatus, Waiver,
    ticket_at,
};

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
        if let Some(key) = group.key {
            let seq = u32::try_from(seq).map_err(|_| "a journal has too many entries")?;
            self.keys.remember(UsedKey::new(key, seq, index, group.at));
        }
        self.keys.forget(group.at);
        self.last_at = self.last_at.max(group.at);
        self.seq = seq;
        Ok(())
    }

    fn new(facts: Created, at: Timestamp) -> Self {
        let show = facts.show;
        let plan = Arc::new(Plan::new(facts));
        Self {
            seats: vec![Seat::FREE; plan.seats() as usize].into(),
            starts_at: plan.facts.starts_at,
            on_sale_at: plan.facts.on_sale_at,
            plan,
            status: ShowStatus::Scheduled,
            seq: 0,
            last_at: at,
            led_at: at.into(),
            reservations: Slab::of(show),
            payments: Slab::of(show),
            refunds: Slab::of(show),
            strays: BTreeSet::new(),
            blocks: BTreeMap::new(),
            more_categories: Vec::new(),
            tickets: Index::default(),
            buyers: Buyers::default(),
            admissions: Vec::new(),
            nonces: Index::default(),
            keys: Keys::default(),
            deadlines: BTreeSet::new(),
        }
    }

    fn event(&mut self, event: &Event, group: &Group) -> Result<(), String> {
        match event {
            Event::Led { .. } => {
                self.led_at = group.at.into();
                Ok(())
            }
            Event::Created(_) => Err("created twice".into()),
            Event::Reserved { reservation, seats, expires_at, .. } => {
                if self.reservations.contains_key(reservation) {
                    return Err(format!("{reservation} is made twice"));
                }
                let lines = self.lines(seats)?;
                let begun = Reservation::begun(event, group, lines).ok_or("no reservation")?;
                let slot = self.reservations.insert(begun);
                self.buyers.add(&self.reservations, slot);
                self.deadlines.insert(((*expires_at).into(), slot));
                self.take(slot)
            }
            Event::SeatsChanged { reservation, seats, waived } => {
                let lines = self.lines(seats)?;
                let slot = self.slot(*reservation)?;
                let old = std::mem::replace(&mut self.reservations[slot].seats, lines);
                self.free(&old)?;
                self.take(slot)?;
                self.reservations[slot].waivers.extend(waivers(waived, group));
                Ok(())
            }
            Event::Lapsed { reservation } => {
                let slot = self.slot(*reservation)?;
                self.give_up_all(slot, ReservationStatus::Expired, true)
            }
            Event::Extended { reservation, expires_at } => {
                let slot = self.slot(*reservation)?;
                let held = &mut self.reservations[slot];
                self.deadlines.remove(&(held.expires_at, slot));
                held.expires_at = (*expires_at).into();
                self.deadlines.insert((held.expires_at, slot));
                Ok(())
            }
            Event::PaymentStarted { payment, reservation, method, amount, token } => {
                if self.payments.contains_key(payment) {
                    return Err(format!("{payment} is made twice"));
                }
                let slot = self.slot(*reservation)?;
                self.deadlines.remove(&(self.reservations[slot].expires_at, slot));
                let mut started = Payment::begun(payment.own(), slot, *method, *amount, group.at);
                started.write(|texts| texts.token = token.as_deref().map(Into::into));
                let started = self.payments.insert(started);
                self.pays(slot, started);
                Ok(())
            }
            Event::PaymentPending { payment } => {
                self.payment(*payment)?.first = Some(First::Pending);
                Ok(())
            }
            Event::PaymentCompleted { payment, tickets } => self.paid(*payment, tickets, group.at),
            Event::PaymentFailed { payment, reason, declined } => {
                let failed = self.payment(*payment)?;
                failed.status = PaymentStatus::Failed;
                failed.settled_at = Some(group.at.into());
                let is_first = failed.first.is_none();
                failed.first.get_or_insert(First::Failed { declined: *declined });
                failed.write(|texts| {
                    texts.token = None;
                    texts.failure = Some(reason.as_str().into());
                    if is_first {
                        texts.first = Some(reason.as_str().into());
                    }
                });
                let reservation = failed.reservation;
                self.counts_down_again(reservation);
                Ok(())
            }
            Event::PaymentUnclaimed { payment, refund } => {
                let paid = self.payment(*payment)?;
                paid.settled_at = Some(group.at.into());
                paid.unclaimed = true;
                let (amount, reservation) = (paid.amount, paid.reservation);
                paid.first.get_or_insert(First::Completed);
                paid.write(|texts| texts.token = None);
                self.counts_down_again(reservation);
                self.start_refund(*refund, *payment, amount, "the seats were no longer held", group.at)
            }
            Event::StrayReturned { payment, .. } => {
                if self.payments.contains_key(payment) || !self.strays.insert(*payment) {
                    return Err(format!("{payment} is no stray"));
                }
                Ok(())
            }
            Event::Canceled(cancellation) => self.canceled(cancellation, group.at),
            Event::RefundStarted { refund, payment, amount, reason, release, .. } => {
                self.start_refund(*refund, *payment, *amount, reason, group.at)?;
                let payment = self.payment(*payment)?;
                // Money that paid for nothing gives no seats up when it goes back.
                let whole = payment.remainder() == 0 && !payment.unclaimed;
                let slot = payment.reservation;
                let reservation = &mut self.reservations[slot];
                if whole && !reservation.seats.is_empty() {
                    for ticket in &mut reservation.tickets {
                        if ticket.status != TicketStatus::Canceled {
                            ticket.status = TicketStatus::Refunded;
                        }
                    }
                    self.give_up_all(slot, ReservationStatus::Refunded, *release)?;
                }
                Ok(())
            }
            Event::Retaken { reservation } => {
                let slot = self.slot(*reservation)?;
                let held = &mut self.reservations[slot];
                held.status = ReservationStatus::Reserved;
                held.seats = std::mem::take(&mut held.given_up);
                self.take(slot)
            }
            Event::Blocked { seats, reason } => {
                for seat in seats {
                    let state = self.seat(*seat)?;
                    if !state.is_free() {
                        return Err(format!("seat {seat} is blocked while it is taken"));
                    }
                    *state = Seat::BLOCKED;
                    self.blocks.insert(*seat, reason.clone());
                }
                Ok(())
            }
            Event::Unblocked { seats } => {
                for seat in seats {
                    *self.seat(*seat)? = Seat::FREE;
                    self.blocks.remove(seat);
                }
                Ok(())
            }
            Event::Rescheduled { starts_at, .. } => {
                self.starts_at = *starts_at;
                Ok(())
            }
            Event::OnSaleChanged { on_sale_at, .. } => {
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
                self.add_refunded(payment, amount.saturating_neg());
                Ok(())
            }
            Event::CheckedIn { ticket, nonce, at, .. } => {
                let (slot, place) = self.ticket_place(*ticket).ok_or("an unknown ticket")?;
                let admission = self.admit(ticket.own(), nonce, *at, group);
                let ticket = &mut self.reservations[slot].tickets[place as usize];
                if ticket.status == TicketStatus::Valid {
                    ticket.status = TicketStatus::Admitted;
                }
                ticket.admission.get_or_insert(admission);
                Ok(())
            }
        }
    }

    fn admit(&mut self, ticket: [u8; 10], nonce: &str, at: Timestamp, group: &Group) -> Slot {
        let slot = Slot::new(self.admissions.len());
        push(&mut self.admissions, Admission { at: at.into(), by: group.by, ticket, nonce: nonce.into() });
        let all = &self.admissions;
        let nonce_of = |slot: Slot| &*all[slot.at()].nonce;
        self.nonces.replace(hash(nonce), slot, |s| nonce_of(s) == nonce, |s| hash(nonce_of(s)));
        slot
    }

    /// A further payment of a reservation.
    fn pays(&mut self, reservation: Slot, payment: Slot) {
        let mut last = &mut self.reservations[reservation].payments;
        while let Some(slot) = *last {
            last = &mut self.payments[slot].next;
        }
        *last = Some(payment);
    }

    /// A payment is over that did not pay for it: where it is still held, and nothing else is under way, its
    /// deadline counts again.
    fn counts_down_again(&mut self, slot: Slot) {
        let held = &self.reservations[slot];
        let open = self.payments_of(held).any(|p| p.is_open() && !p.unclaimed);
        if held.status == ReservationStatus::Reserved && !open {
            self.deadlines.insert((held.expires_at, slot));
        }
    }

    fn paid(&mut self, payment: PaymentId, tickets: &[TicketId], at: Timestamp) -> Result<(), String> {
        let paid = self.payment(payment)?;
        paid.status = PaymentStatus::Completed;
        paid.settled_at = Some(at.into());
        paid.first.get_or_insert(First::Completed);
        paid.write(|texts| (texts.token, texts.failure) = (None, None));
        let slot = paid.reservation;
        self.issue(slot, tickets);
        let reservation = &mut self.reservations[slot];
        reservation.status = ReservationStatus::Paid;
        self.deadlines.remove(&(reservation.expires_at, slot));
        for line in &reservation.seats {
            *seat(&mut self.seats, line.seat)? = Seat::sold(slot);
        }
        Ok(())
    }

    /// Gives a reservation its tickets, in the order of its seats, in place of those that it had.
    fn issue(&mut self, slot: Slot, tickets: &[TicketId]) {
        for old in &self.reservations[slot].tickets {
            self.tickets
                .remove(hash(Some(old.own)), |place| ticket_at(&self.reservations, place) == Some(old.own));
        }
        let reservation = &mut self.reservations[slot];
        let ticket = |(line, id): (&Line, &TicketId)| Ticket {
            own: id.own(),
            seat: line.seat,
            status: TicketStatus::Valid,
            admission: None,
        };
        reservation.tickets = ThinVec::with_capacity(tickets.len().min(reservation.seats.len()));
        reservation.tickets.extend(reservation.seats.iter().zip(tickets).map(ticket));
        let all = &self.reservations;
        for (at, ticket) in (0..).zip(&all[slot].tickets) {
            self.tickets.insert(hash(Some(ticket.own)), (slot, at), |place| hash(ticket_at(all, place)));
        }
    }

    fn canceled(&mut self, cancellation: &Cancellation, at: Timestamp) -> Result<(), String> {
        if let Some(back) = &cancellation.refund {
            self.start_refund(back.refund, back.payment, back.amount, "canceled", at)?;
        }
        let slot = self.slot(cancellation.reservation)?;
        let reservation = &mut self.reservations[slot];
        let gone = |line: &Line| cancellation.seats.contains(&line.seat);
        for ticket in &mut reservation.tickets {
            if cancellation.seats.contains(&ticket.seat) && ticket.status != TicketStatus::Refunded {
                ticket.status = TicketStatus::Canceled;
            }
        }
        if reservation.seats.iter().all(gone) {
            return self.give_up_all(slot, ReservationStatus::Canceled, true);
        }
        let (given, kept): (Vec<Line>, Vec<Line>) = reservation.seats.iter().copied().partition(gone);
        reservation.seats = kept.as_slice().into();
        // Their tickets are still shown. Seats that were let go before anybody paid are no part of it any more:
        // neither of its price, nor of what late money takes again.
        if reservation.has_tickets() {
            reservation.given_up.extend_from_slice(&given);
        }
        self.free(&given)
    }

    /// Ends a reservation; `release`: its seats may be sold again.
    fn give_up_all(&mut self, slot: Slot, status: ReservationStatus, release: bool) -> Result<(), String> {
        let reservation = &mut self.reservations[slot];
        reservation.status = status;
        let lines = std::mem::take(&mut reservation.seats);
        self.deadlines.remove(&(reservation.expires_at, slot));
        if release {
            self.free(&lines)?;
        }
        let given_up = &mut self.reservations[slot].given_up;
        if given_up.is_empty() {
            *given_up = lines;
        } else {
            given_up.extend_from_slice(&lines);
        }
        Ok(())
    }

    fn start_refund(
        &mut self,
        id: RefundId,
        payment: PaymentId,
        amount: i64,
        reason: &str,
        at: Timestamp,
    ) -> Result<(), String> {
        let payment = self.payments.slot(&payment).ok_or_else(|| format!("there is no payment {payment}"))?;
        let (reason, status, at) = (reason.into(), RefundStatus::Pending, at.into());
        self.refunds.insert(Refund { own: id.own(), payment, amount, reason, status, at });
        self.add_refunded(payment, amount);
        Ok(())
    }

    fn add_refunded(&mut self, payment: Slot, amount: i64) {
        let payment = &mut self.payments[payment];
        payment.refunded = payment.refunded.saturating_add(amount);
        payment.status = match payment.refunded {
            0 => PaymentStatus::Completed,
            all if all == payment.amount => PaymentStatus::Refunded,
            _ => PaymentStatus::PartiallyRefunded,
        };
    }

    /// The seats of a reservation are held by it.
    fn take(&mut self, slot: Slot) -> Result<(), String> {
        for line in &self.reservations[slot].seats {
            let seat = seat(&mut self.seats, line.seat)?;
            if !seat.is_free() {
                return Err(format!("seat {} is given twice", line.seat));
            }
            *seat = Seat::held(slot);
        }
        Ok(())
    }

    fn free(&mut self, lines: &[Line]) -> Result<(), String> {
        for line in lines {
            *self.seat(line.seat)? = Seat::FREE;
        }
        Ok(())
    }

    fn seat(&mut self, index: u32) -> Result<&mut Seat, String> {
        seat(&mut self.seats, index)
    }

    /// Lines of an event as the state keeps them, with categories that it learns here.
    fn lines(&mut self, lines: &[SeatLine]) -> Result<ThinVec<Line>, String> {
        let mut kept = ThinVec::with_capacity(lines.len());
        for line in lines {
            if self.line(line).is_none() {
                self.more_categories.push(line.category.as_str().into());
            }
            kept.push(self.line(line).ok_or("too many categories")?);
        }
        Ok(kept)
    }

    fn slot(&self, id: ReservationId) -> Result<Slot, String> {
        self.reservations.slot(&id).ok_or_else(|| format!("there is no reservation {id}"))
    }

    fn payment(&mut self, id: PaymentId) -> Result<&mut Payment, String> {
        self.payments.get_mut(&id).ok_or_else(|| format!("there is no payment {id}"))
    }

    fn refund(&mut self, id: RefundId) -> Result<&mut Refund, String> {
        self.refunds.get_mut(&id).ok_or_else(|| format!("there is no refund {id}"))
    }
}

impl Reservation {
    /// As it was when this event of `group` made it, its seats as the state keeps them; none for other events.
    pub fn begun(event: &Event, group: &Group, lines: ThinVec<Line>) -> Option<Self> {
        let Event::Reserved {
            reservation,
            reference,
            customer,
            contact,
            seats: _,
            expires_at,
            held_since,
            origin,
            waived,
        } = event
        else {
            return None;
        };
        Some(Self {
            own: reservation.own(),
            reference: reference.as_str().into(),
            customer: *customer,
            contact: contact.clone(),
            seats: lines,
            given_up: ThinVec::new(),
            status: ReservationStatus::Reserved,
            created_at: group.at.into(),
            expires_at: (*expires_at).into(),
            held_since: held_since.unwrap_or(group.at).into(),
            origin: origin.map(|origin| origin.0.to_ne_bytes()),
            payments: None,
            tickets: ThinVec::new(),
            waivers: waivers(waived, group),
        })
    }
}

fn seat(seats: &mut [Seat], index: u32) -> Result<&mut Seat, String> {
    seats.get_mut(index as usize).ok_or_else(|| format!("there is no seat {index}"))
}

fn waivers(rules: &[Rule], group: &Group) -> ThinVec<Waiver> {
    rules.iter().map(|rule| Waiver { rule: *rule, by: group.by, at: group.at }).collect()
}
