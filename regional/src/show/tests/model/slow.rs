//! The model: names in place of indices, lists in place of indexes, everything counted anew each time. Slow
//! and obvious; it shares no code with the core but the words (commands, refusals, statuses).

use std::collections::{BTreeMap, BTreeSet};

use common::TicketId;

use super::super::*;

/// Name, category, price.
pub type Line = (String, String, i64);

pub struct SeatNow {
    pub status: SeatStatus,
    pub owner: Option<ReservationId>,
}

pub struct Booking {
    customer: Option<UserId>,
    contact: Option<Contact>,
    origin: Option<Origin>,
    pub seats: Vec<Line>,
    /// Given up and not had again.
    pub lost: Vec<Line>,
    pub status: ReservationStatus,
    pub expires_at: Timestamp,
    since: Timestamp,
    pub waived: Vec<Rule>,
    pub tickets: Vec<Pass>,
}

/// A ticket.
pub struct Pass {
    id: TicketId,
    pub seat: String,
    pub status: TicketStatus,
    admitted: Option<(Timestamp, Option<UserId>)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Money {
    Open,
    Failed,
    /// It paid for its reservation.
    Taken,
    /// It came for nothing.
    Unclaimed,
}

pub struct Paying {
    of: ReservationId,
    pub amount: i64,
    money: Money,
    told: bool,
    settled_at: Option<Timestamp>,
}

pub struct Back {
    pub payment: PaymentId,
    pub amount: i64,
    pub status: RefundStatus,
}

pub struct Slow {
    facts: Created,
    names: Vec<String>,
    pub seats: BTreeMap<String, SeatNow>,
    pub bookings: BTreeMap<ReservationId, Booking>,
    pub payments: BTreeMap<PaymentId, Paying>,
    pub refunds: BTreeMap<RefundId, Back>,
    pub strays: BTreeSet<PaymentId>,
    nonces: BTreeMap<String, TicketId>,
    keys: BTreeMap<[u8; 16], ([u8; 16], u64, Timestamp)>,
    entries: u64,
    pub canceled: bool,
    pub starts_at: Timestamp,
    pub on_sale_at: Option<Timestamp>,
}

/// What speaks against a command.
#[derive(Default)]
pub struct Reasons {
    refusals: Vec<Refusal>,
    /// What staff may set aside.
    waivable: Vec<(Rule, Refusal)>,
    /// It is so already.
    already: bool,
}

impl Slow {
    pub fn new(facts: &Created) -> Self {
        let names: Vec<String> = facts
            .rows
            .iter()
            .flat_map(|row| row.seats.iter().map(|seat| format!("{}{}", row.row, seat.number)))
            .collect();
        let free = || SeatNow { status: SeatStatus::Free, owner: None };
        Self {
            seats: names.iter().map(|name| (name.clone(), free())).collect(),
            names,
            bookings: BTreeMap::new(),
            payments: BTreeMap::new(),
            refunds: BTreeMap::new(),
            strays: BTreeSet::new(),
            nonces: BTreeMap::new(),
            keys: BTreeMap::new(),
            entries: 1,
            canceled: false,
            starts_at: facts.starts_at,
            on_sale_at: facts.on_sale_at,
            facts: facts.clone(),
        }
    }

    fn kind(&self, name: &str) -> SeatType {
        let seats = self.facts.rows.iter().flat_map(|row| row.seats.iter().map(move |seat| (row, seat)));
        let mut named = seats.filter(|(row, seat)| format!("{}{}", row.row, seat.number) == name);
        named.next().unwrap().1.kind
    }

    fn price(&self, name: &str, category: &str) -> Option<i64> {
        let kind = self.kind(name);
        let line = self.facts.prices.iter().find(|p| p.seat_type == kind && p.category == category);
        line.map(|line| line.amount)
    }

    /// The seat so many to the right of another, if it stands beside it: not over row C's aisle.
    fn beside(&self, name: &str, step: i32) -> Option<String> {
        let (row, number) = name.split_at(1);
        let number: i32 = number.parse().unwrap();
        let over_the_aisle = row == "C" && [(3, 1), (4, -1)].contains(&(number, step));
        let other = format!("{row}{}", number + step);
        (!over_the_aisle && self.seats.contains_key(&other)).then_some(other)
    }

    fn hold(&self) -> SignedDuration {
        SignedDuration::from_secs(self.facts.hold_secs.into())
    }

    fn of_buyer(&self, customer: Option<UserId>, contact: Option<ContactDigest>) -> Vec<&Booking> {
        let same = |b: &&Booking| {
            (customer.is_some() && b.customer == customer)
                || (contact.is_some() && b.contact.as_ref().map(Contact::digest) == contact)
        };
        self.bookings.values().filter(same).collect()
    }

    fn payments_of(&self, id: ReservationId) -> Vec<(PaymentId, &Paying)> {
        self.payments.iter().filter(|(_, p)| p.of == id).map(|(id, p)| (*id, p)).collect()
    }

    fn open_payment(&self, id: ReservationId) -> Option<PaymentId> {
        self.payments_of(id).into_iter().find(|(_, p)| p.money == Money::Open).map(|(id, _)| id)
    }

    pub fn back(&self, payment: PaymentId) -> i64 {
        let of = self.refunds.values().filter(|r| r.payment == payment && r.status != RefundStatus::Failed);
        of.map(|refund| refund.amount).sum()
    }

    fn status(&self, id: PaymentId) -> PaymentStatus {
        let payment = &self.payments[&id];
        match (payment.money, self.back(id)) {
            (Money::Open, _) => PaymentStatus::Pending,
            (Money::Failed, _) => PaymentStatus::Failed,
            (_, 0) => PaymentStatus::Completed,
            (_, back) if back == payment.amount => PaymentStatus::Refunded,
            _ => PaymentStatus::PartiallyRefunded,
        }
    }

    pub fn statuses(&self) -> BTreeMap<PaymentId, (PaymentStatus, i64, i64)> {
        let seen = |(id, p): (&PaymentId, &Paying)| (*id, (self.status(*id), p.amount, self.back(*id)));
        self.payments.iter().map(seen).collect()
    }

    /// The payment that paid for a reservation, with what is left of it.
    fn paid_by(&self, id: ReservationId) -> Option<(PaymentId, i64)> {
        let left = |(id, p): (PaymentId, &Paying)| (id, p.amount - self.back(id));
        let paid = |(id, p): &(PaymentId, &Paying)| {
            p.money == Money::Taken && self.status(*id) != PaymentStatus::Refunded
        };
        self.payments_of(id).into_iter().find(paid).map(left)
    }

    pub fn next_deadline(&self) -> Option<Timestamp> {
        let waits = |(id, b): &(&ReservationId, &Booking)| {
            b.status == ReservationStatus::Reserved && self.open_payment(**id).is_none()
        };
        self.bookings.iter().filter(waits).map(|(_, b)| b.expires_at).min()
    }

    /// Everything that speaks against a command, in no order.
    pub fn reasons(&self, asked: &Asked, now: Timestamp) -> Reasons {
        let mut reasons = Reasons::default();
        if let Some(key) = asked.key
            && let Some((body, _, at)) = self.keys.get(&key.id)
            && now < *at + SignedDuration::from_hours(24)
        {
            reasons.already = *body == key.body;
            if *body != key.body {
                reasons.refusals.push(Refusal::KeyReused);
            }
            return reasons;
        }
        match &asked.command {
            Command::Reserve(wish) => self.against_reserving(wish, now, &mut reasons),
            Command::ChangeSeats(change) => self.against_changing(change, now, &mut reasons),
            Command::StartPayment(start) => {
                self.against_touching(start.reservation, now, &mut reasons);
            }
            Command::SettlePayment { payment, outcome, .. } => match self.payments.get(payment) {
                None => reasons.refusals.push(Refusal::UnknownPayment),
                Some(p) => {
                    reasons.already = match outcome {
                        Outcome::Completed => !matches!(p.money, Money::Open | Money::Failed),
                        Outcome::Pending => p.money != Money::Open || p.told,
                        Outcome::Failed { .. } => p.money != Money::Open,
                    }
                }
            },
            Command::Cancel(cancel) => self.against_canceling(cancel, now, &mut reasons),
            Command::Refund(refund) => self.against_refunding(refund, &mut reasons),
            Command::SettleRefund { refund, .. } => match self.refunds.get(refund) {
                None => reasons.refusals.push(Refusal::UnknownPayment),
                Some(back) => reasons.already = back.status != RefundStatus::Pending,
            },
            Command::ReturnStray { payment, .. } => {
                reasons.already = self.payments.contains_key(payment) || self.strays.contains(payment);
            }
            Command::CheckIn(scan) => self.against_admitting(scan, now, &mut reasons),
            Command::ExpireDue => reasons.already = self.overdue(now).is_empty(),
            Command::Block { seats, .. } => {
                if self.canceled {
                    reasons.refusals.push(Refusal::WrongState("the show is canceled"));
                }
                self.against_naming(seats, &mut reasons);
                let of = |statuses: &[SeatStatus]| {
                    self.names
                        .iter()
                        .filter(|name| seats.contains(name) && statuses.contains(&self.seats[*name].status))
                        .cloned()
                        .collect::<Vec<_>>()
                };
                let taken = of(&[SeatStatus::Held, SeatStatus::Sold]);
                reasons.already = of(&[SeatStatus::Free]).is_empty();
                if !taken.is_empty() {
                    reasons.refusals.push(Refusal::SeatsUnavailable(taken));
                }
            }
            Command::Unblock { seats } => {
                self.against_naming(seats, &mut reasons);
                let blocked =
                    |name: &String| self.seats.get(name).is_some_and(|s| s.status == SeatStatus::Blocked);
                reasons.already = !seats.iter().any(blocked);
            }
            Command::ChangeShow(change) => {
                if self.canceled {
                    reasons.refusals.push(Refusal::WrongState("the show is canceled"));
                }
                if now >= self.starts_at {
                    reasons.refusals.push(Refusal::WrongState("the show has begun"));
                }
                reasons.already = change.starts_at.is_none_or(|at| at == self.starts_at)
                    && change.on_sale_at.is_none_or(|at| at == self.on_sale_at);
            }
            Command::CancelShow { .. } => reasons.already = self.canceled,
            Command::CancelRest { .. } => {
                if !self.canceled {
                    reasons.refusals.push(Refusal::WrongState("the show is not canceled"));
                }
                reasons.already = self.left().is_empty();
            }
        }
        reasons
    }

    fn against_the_time(&self, now: Timestamp, reasons: &mut Reasons) {
        if self.canceled {
            reasons.refusals.push(Refusal::NotOnSale("the show is canceled"));
        }
        if self.on_sale_at.is_some_and(|at| now < at) {
            reasons.refusals.push(Refusal::NotOnSale("the sale has not begun"));
        }
        if now >= self.starts_at {
            reasons.refusals.push(Refusal::NotOnSale("the show has begun"));
        }
    }

    fn against_naming(&self, names: &[String], reasons: &mut Reasons) {
        if names.is_empty() {
            reasons.refusals.push(Refusal::NoSeats);
        }
        let unknown: Vec<String> =
            names.iter().filter(|name| !self.seats.contains_key(*name)).cloned().collect();
        if !unknown.is_empty() {
            reasons.refusals.push(Refusal::UnknownSeats(unknown));
        }
    }

    /// Against these seats for a reservation; `own` counts as free. The lines, where all are known and priced.
    fn against_seats(
        &self,
        wanted: &[(String, Option<String>)],
        own: Option<ReservationId>,
        reasons: &mut Reasons,
    ) -> Option<Vec<Line>> {
        let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
        self.against_naming(&names, reasons);
        if names.iter().any(|name| !self.seats.contains_key(name)) {
            return None;
        }
        for (at, name) in names.iter().enumerate() {
            if names[..at].contains(name) {
                reasons.refusals.push(Refusal::DuplicateSeat(name.clone()));
            }
        }
        let taken: Vec<String> = names.iter().filter(|name| !self.can_have(name, own)).cloned().collect();
        if !taken.is_empty() {
            reasons.refusals.push(Refusal::SeatsUnavailable(taken));
        }
        let mut lines = Vec::new();
        for (name, category) in wanted {
            let category = category.clone().unwrap_or_else(|| "adult".into());
            match self.price(name, &category) {
                Some(price) => lines.push((name.clone(), category, price)),
                None => {
                    reasons.refusals.push(Refusal::UnknownCategory { seat: name.clone(), category });
                }
            }
        }
        Some(lines).filter(|lines| lines.len() == wanted.len())
    }

    fn can_have(&self, name: &str, own: Option<ReservationId>) -> bool {
        let seat = &self.seats[name];
        seat.status == SeatStatus::Free
            || (seat.status == SeatStatus::Held && own.is_some() && seat.owner == own)
    }

    fn against_company(&self, names: &[String], reasons: &mut Reasons) {
        let accompanied = |name: &String| {
            [-1, 1].iter().any(|step| {
                self.beside(name, *step)
                    .is_some_and(|b| self.kind(&b) == SeatType::Accessible && names.contains(&b))
            })
        };
        let alone: Vec<String> = names
            .iter()
            .filter(|name| self.kind(name) == SeatType::Companion && !accompanied(name))
            .cloned()
            .collect();
        if !alone.is_empty() {
            reasons.refusals.push(Refusal::CompanionAlone(alone));
        }
    }

    /// Each row is read from left to right as it would be: a free seat alone between two that are not, one of
    /// which is newly taken, is a gap; unless all the others of its run were taken.
    fn against_gaps(&self, names: &[String], own: Option<ReservationId>, reasons: &mut Reasons) {
        if !self.facts.single_gap_rule {
            return;
        }
        let after = |name: &String| self.can_have(name, own) && !names.contains(name);
        let mut gaps = Vec::new();
        for name in self.names.iter().filter(|name| after(name)) {
            let (Some(left), Some(right)) = (self.beside(name, -1), self.beside(name, 1)) else { continue };
            let newly = names.contains(&left) || names.contains(&right);
            if after(&left) || after(&right) || !newly {
                continue;
            }
            let mut run = vec![name.clone()];
            for step in [-1, 1] {
                let mut at = name.clone();
                while let Some(next) = self.beside(&at, step).filter(|next| self.can_have(next, own)) {
                    run.push(next.clone());
                    at = next;
                }
            }
            if run.iter().filter(|seat| names.contains(seat)).count() + 1 < run.len() {
                gaps.push(name.clone());
            }
        }
        if !gaps.is_empty() {
            reasons.waivable.push((Rule::SingleSeatGap, Refusal::SingleSeatGap(gaps)));
        }
    }

    fn against_the_count(
        &self,
        buyer: (Option<UserId>, Option<ContactDigest>),
        origin: Option<Origin>,
        more: usize,
        reasons: &mut Reasons,
    ) {
        let Some(limit) = self.facts.max_seats_per_customer else { return };
        let had: usize = self.of_buyer(buyer.0, buyer.1).iter().map(|b| b.seats.len()).sum();
        if had + more > limit as usize {
            reasons.waivable.push((Rule::SeatLimit, Refusal::SeatLimit { limit }));
        }
        let at_address = self.bookings.values().filter(|b| origin.is_some() && b.origin == origin);
        let there: usize = at_address.map(|b| b.seats.len()).sum();
        if origin.is_some() && there + more > 10 * limit as usize {
            reasons.waivable.push((Rule::AddressLimit, Refusal::AddressLimit { limit: 10 * limit }));
        }
    }

    fn held_since(
        &self,
        buyer: (Option<UserId>, Option<ContactDigest>),
        now: Timestamp,
    ) -> Option<Timestamp> {
        let mut since = None;
        for (id, b) in &self.bookings {
            let same = self.of_buyer(buyer.0, buyer.1).iter().any(|other| std::ptr::eq(*other, b));
            let settled = self.payments_of(*id).into_iter().filter_map(|(_, p)| p.settled_at).max();
            let until = settled.map_or(b.expires_at, |at| at.max(b.expires_at));
            if same && b.tickets.is_empty() && now < until + self.hold() {
                since = Some(since.map_or(b.since, |at: Timestamp| at.min(b.since)));
            }
        }
        since
    }

    fn against_reserving(&self, wish: &Reserve, now: Timestamp, reasons: &mut Reasons) {
        self.against_the_time(now, reasons);
        let buyer = (wish.customer, wish.contact.as_ref().map(Contact::digest));
        let count = match &wish.wish {
            Wish::Seats(wanted) => {
                if self.against_seats(wanted, None, reasons).is_some() {
                    let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
                    self.against_company(&names, reasons);
                    self.against_gaps(&names, None, reasons);
                }
                wanted.len()
            }
            Wish::Best { count, kind, .. } => {
                let open = self.open(*kind);
                if *count == 0 {
                    reasons.refusals.push(Refusal::NoSeats);
                }
                if open.len() < *count {
                    reasons.refusals.push(Refusal::NotEnoughSeats { free: open.len() });
                }
                *count
            }
        };
        self.against_the_count(buyer, wish.origin, count, reasons);
        if let Some(since) = self.held_since(buyer, now)
            && now >= since + self.hold() * 2
        {
            let refusal = Refusal::HoldLimit { until: now + self.hold() };
            reasons.waivable.push((Rule::HoldLimit, refusal));
        }
    }

    /// The seats that a request for the best may be given.
    fn open(&self, kind: Option<SeatType>) -> Vec<String> {
        let kind = kind.unwrap_or(SeatType::Standard);
        let open = |name: &&String| {
            self.can_have(name, None) && self.kind(name) == kind && self.price(name, "adult").is_some()
        };
        self.names.iter().filter(open).cloned().collect()
    }

    /// Against paying for a reservation or changing it; none where it is not there or over.
    fn against_touching(&self, id: ReservationId, now: Timestamp, reasons: &mut Reasons) -> Option<&Booking> {
        let Some(booking) = self.bookings.get(&id) else {
            reasons.refusals.push(Refusal::UnknownReservation);
            return None;
        };
        let over = match booking.status {
            ReservationStatus::Reserved => None,
            ReservationStatus::Expired => Some(Refusal::ReservationExpired),
            ReservationStatus::Paid => Some(Refusal::WrongState("the reservation is paid")),
            ReservationStatus::Canceled => Some(Refusal::WrongState("the reservation is canceled")),
            ReservationStatus::Refunded => Some(Refusal::WrongState("the reservation is refunded")),
        };
        if let Some(over) = over {
            reasons.refusals.push(over);
            return None;
        }
        match self.open_payment(id) {
            Some(payment) => reasons.refusals.push(Refusal::PaymentUnderWay(payment)),
            None if now >= booking.expires_at => reasons.refusals.push(Refusal::ReservationExpired),
            None => {}
        }
        Some(booking)
    }

    fn against_changing(&self, change: &ChangeSeats, now: Timestamp, reasons: &mut Reasons) {
        let Some(booking) = self.against_touching(change.reservation, now, reasons) else { return };
        self.against_the_time(now, reasons);
        let own = Some(change.reservation);
        let Some(lines) = self.against_seats(&change.seats, own, reasons) else { return };
        if lines == booking.seats {
            reasons.already = true;
            return;
        }
        let names: Vec<String> = change.seats.iter().map(|(name, _)| name.clone()).collect();
        self.against_company(&names, reasons);
        self.against_gaps(&names, own, reasons);
        if lines.len() > booking.seats.len() {
            let more = lines.len() - booking.seats.len();
            let buyer = (booking.customer, booking.contact.as_ref().map(Contact::digest));
            self.against_the_count(buyer, booking.origin, more, reasons);
        }
    }

    fn against_canceling(&self, cancel: &Cancel, now: Timestamp, reasons: &mut Reasons) {
        let Some(booking) = self.bookings.get(&cancel.reservation) else {
            return reasons.refusals.push(Refusal::UnknownReservation);
        };
        match booking.status {
            ReservationStatus::Reserved | ReservationStatus::Paid => {}
            ReservationStatus::Canceled => return reasons.already = true,
            ReservationStatus::Expired => return reasons.refusals.push(Refusal::ReservationExpired),
            ReservationStatus::Refunded => {
                return reasons.refusals.push(Refusal::WrongState("the reservation is refunded"));
            }
        }
        reasons.refusals.extend(self.open_payment(cancel.reservation).map(Refusal::PaymentUnderWay));
        let had: Vec<&String> = booking.seats.iter().map(|line| &line.0).collect();
        if let Some(names) = &cancel.seats {
            if names.is_empty() {
                return reasons.refusals.push(Refusal::NoSeats);
            }
            for (at, name) in names.iter().enumerate() {
                if names[..at].contains(name) && had.contains(&name) {
                    reasons.refusals.push(Refusal::DuplicateSeat(name.clone()));
                }
            }
            let unknown: Vec<String> = names.iter().filter(|name| !had.contains(name)).cloned().collect();
            if !unknown.is_empty() {
                reasons.refusals.push(Refusal::UnknownSeats(unknown));
            }
        }
        let goes = |name: &String| cancel.seats.as_ref().is_none_or(|names| names.contains(name));
        let used = |t: &Pass| goes(&t.seat) && t.status == TicketStatus::Admitted;
        if !cancel.by_staff && booking.tickets.iter().any(used) {
            reasons.refusals.push(Refusal::WrongState("a ticket of it was used"));
        }
        let paid = booking.status == ReservationStatus::Paid && self.paid_by(cancel.reservation).is_some();
        if paid && !cancel.by_staff && self.percent(now).is_none() {
            reasons.refusals.push(Refusal::RefundWindowClosed);
        }
        let kept: Vec<String> = had.into_iter().filter(|name| !goes(name)).cloned().collect();
        self.against_company(&kept, reasons);
    }

    /// What of a price goes back to a customer who cancels now.
    fn percent(&self, now: Timestamp) -> Option<i64> {
        let left = self.starts_at.duration_since(now).as_secs();
        let tier = self.facts.refund_tiers.iter().find(|tier| left >= tier.until_secs_before_start);
        tier.map(|tier| tier.percent.into())
    }

    fn against_refunding(&self, refund: &NewRefund, reasons: &mut Reasons) {
        if !self.payments.contains_key(&refund.payment) {
            return reasons.refusals.push(Refusal::UnknownPayment);
        }
        let left = self.payments[&refund.payment].amount - self.back(refund.payment);
        match self.status(refund.payment) {
            PaymentStatus::Pending => reasons.refusals.push(Refusal::PaymentUnderWay(refund.payment)),
            PaymentStatus::Failed => {
                reasons.refusals.push(Refusal::WrongState("the payment failed; nothing was charged"));
            }
            _ if refund.amount.is_some_and(|amount| amount <= 0 || amount > left) || left == 0 => {
                reasons.refusals.push(Refusal::RefundTooLarge { remainder: left });
            }
            _ => {}
        }
    }

    fn ticket(&self, id: TicketId) -> Option<&Pass> {
        self.bookings.values().flat_map(|b| &b.tickets).find(|ticket| ticket.id == id)
    }

    fn against_admitting(&self, scan: &CheckIn, now: Timestamp, reasons: &mut Reasons) {
        let Some(ticket) = self.ticket(scan.ticket) else {
            return reasons.refusals.push(Refusal::UnknownTicket);
        };
        match self.nonces.get(&scan.nonce) {
            Some(of) if *of == scan.ticket => return reasons.already = true,
            Some(_) => return reasons.refusals.push(Refusal::NonceReused),
            None => {}
        }
        if scan.force {
            return;
        }
        match ticket.status {
            TicketStatus::Valid => {}
            TicketStatus::Admitted => {
                let (at, by) = ticket.admitted.unwrap_or((now, None));
                reasons.refusals.push(Refusal::AlreadyAdmitted { at, by });
            }
            TicketStatus::Canceled => reasons.refusals.push(Refusal::TicketCanceled),
            TicketStatus::Refunded => reasons.refusals.push(Refusal::TicketRefunded),
        }
    }

    fn overdue(&self, now: Timestamp) -> Vec<ReservationId> {
        let over = |(id, b): &(&ReservationId, &Booking)| {
            b.status == ReservationStatus::Reserved
                && self.open_payment(**id).is_none()
                && b.expires_at <= now
        };
        self.bookings.iter().filter(over).map(|(id, _)| *id).collect()
    }

    /// Of a canceled show, the reservations that can be canceled now.
    fn left(&self) -> Vec<ReservationId> {
        let left = |(id, b): &(&ReservationId, &Booking)| {
            matches!(b.status, ReservationStatus::Reserved | ReservationStatus::Paid)
                && self.open_payment(**id).is_none()
        };
        self.bookings.iter().filter(left).map(|(id, _)| *id).collect()
    }

    /// Whether the decision was right; what it does is done here, too.
    pub fn judge(
        &mut self,
        asked: &Asked,
        decision: &Decision,
        reasons: &Reasons,
        now: Timestamp,
    ) -> Result<(), String> {
        let by_staff = match &asked.command {
            Command::Reserve(wish) => wish.by_staff,
            Command::ChangeSeats(change) => change.by_staff,
            _ => false,
        };
        let mut against = reasons.refusals.clone();
        if !by_staff && !reasons.already {
            against.extend(reasons.waivable.iter().map(|(_, refusal)| refusal.clone()));
        }
        match decision {
            Decision::Refuse(refusal) if against.contains(refusal) => Ok(()),
            Decision::Refuse(Refusal::CompanionAlone(alone)) if self.wants_best_companions(asked, alone) => {
                Ok(())
            }
            Decision::Refuse(refusal) => Err(format!("{refusal:?} is none of {against:?}")),
            _ if !against.is_empty() => Err(format!("{decision:?} in spite of {against:?}")),
            Decision::Repeat { seq, index } => {
                let used = asked.key.and_then(|key| self.keys.get(&key.id));
                match used {
                    Some((_, at, _)) if reasons.already && (at, index) == (seq, &0) => Ok(()),
                    _ => Err(format!("{decision:?} of {used:?}")),
                }
            }
            Decision::Already if reasons.already => Ok(()),
            Decision::Already => Err("nothing, where something was to be done".into()),
            Decision::Do(_) if reasons.already => Err(format!("{decision:?}, though it is so already")),
            Decision::Do(events) => {
                let waived: Vec<Rule> = ORDER
                    .into_iter()
                    .filter(|rule| reasons.waivable.iter().any(|(waived, _)| waived == rule))
                    .collect();
                self.entries += 1;
                if let Some(key) = asked.key {
                    self.keys.insert(key.id, (key.body, self.entries, now));
                }
                self.take_effect(asked, events, waived, now)
            }
        }
    }

    fn wants_best_companions(&self, asked: &Asked, alone: &[String]) -> bool {
        let open = self.open(Some(SeatType::Companion));
        matches!(&asked.command, Command::Reserve(Reserve {
            wish: Wish::Best { count, kind: Some(SeatType::Companion), .. }, ..
        }) if *count == alone.len())
            && alone.iter().all(|name| open.contains(name))
    }

    fn take_effect(
        &mut self,
        asked: &Asked,
        events: &[Event],
        waived: Vec<Rule>,
        now: Timestamp,
    ) -> Result<(), String> {
        match &asked.command {
            Command::Reserve(wish) => {
                let lines = match &wish.wish {
                    Wish::Seats(wanted) => {
                        self.against_seats(wanted, None, &mut Reasons::default()).ok_or("no lines")?
                    }
                    Wish::Best { count, kind, .. } => self.given(events, *count, *kind)?,
                };
                let buyer = (wish.customer, wish.contact.as_ref().map(Contact::digest));
                let since = self.held_since(buyer, now).unwrap_or(now);
                self.hold_seats(wish.id, &lines);
                let booking = Booking {
                    customer: wish.customer,
                    contact: wish.contact.clone(),
                    origin: wish.origin,
                    seats: lines,
                    lost: Vec::new(),
                    status: ReservationStatus::Reserved,
                    expires_at: now + self.hold(),
                    since,
                    waived,
                    tickets: Vec::new(),
                };
                self.bookings.insert(wish.id, booking);
            }
            Command::ChangeSeats(change) => {
                let own = Some(change.reservation);
                let lines = self.against_seats(&change.seats, own, &mut Reasons::default());
                let lines = lines.ok_or("no lines")?;
                let old = self.booking(change.reservation).seats.clone();
                self.let_go(&old);
                self.hold_seats(change.reservation, &lines);
                let booking = self.booking(change.reservation);
                booking.seats = lines;
                booking.waived.extend(waived);
            }
            Command::StartPayment(start) => {
                let amount: i64 = self.booking(start.reservation).seats.iter().map(|line| line.2).sum();
                let at_once = start.method == Method::Cash || amount == 0;
                let of = start.reservation;
                let paying = Paying { of, amount, money: Money::Open, told: false, settled_at: None };
                self.payments.insert(start.id, paying);
                if at_once {
                    self.paid(start.id, events, now)?;
                }
            }
            Command::SettlePayment { payment, outcome, refund, .. } => {
                self.settled(*payment, outcome, *refund, events, now)?;
            }
            Command::Cancel(cancel) => {
                let id = cancel.reservation;
                let goes = |line: &&Line| cancel.seats.as_ref().is_none_or(|names| names.contains(&line.0));
                let lines: Vec<Line> = self.bookings[&id].seats.iter().filter(goes).cloned().collect();
                let price: i64 = lines.iter().map(|line| line.2).sum();
                if self.bookings[&id].status == ReservationStatus::Paid
                    && let Some((payment, left)) = self.paid_by(id)
                {
                    let price = price.min(left);
                    let percent = if cancel.by_staff { Some(100) } else { self.percent(now) };
                    let kept = price * (100 - percent.ok_or("no tier")?) / 100;
                    self.gives_back(cancel.refund, payment, price - kept);
                }
                self.gives_up(id, &lines);
            }
            Command::Refund(refund) => {
                let paying = &self.payments[&refund.payment];
                let (of, claimed) = (paying.of, paying.money == Money::Taken);
                let left = paying.amount - self.back(refund.payment);
                let amount = refund.amount.unwrap_or(left);
                self.gives_back(refund.id, refund.payment, amount);
                if amount == left && claimed && !self.bookings[&of].seats.is_empty() {
                    let before = now < self.starts_at;
                    let booking = self.booking(of);
                    booking.status = ReservationStatus::Refunded;
                    let tickets = booking.tickets.iter_mut().filter(|t| t.status != TicketStatus::Canceled);
                    tickets.for_each(|ticket| ticket.status = TicketStatus::Refunded);
                    let lines = std::mem::take(&mut booking.seats);
                    booking.lost.extend(lines.clone());
                    if before {
                        self.let_go(&lines);
                    }
                }
            }
            Command::SettleRefund { refund, failed } => {
                let back = self.refunds.get_mut(refund).ok_or("no refund")?;
                back.status = if failed.is_some() { RefundStatus::Failed } else { RefundStatus::Completed };
            }
            Command::ReturnStray { payment, .. } => {
                self.strays.insert(*payment);
            }
            Command::CheckIn(scan) => {
                self.nonces.insert(scan.nonce.clone(), scan.ticket);
                let tickets = self.bookings.values_mut().flat_map(|b| &mut b.tickets);
                for ticket in tickets.filter(|ticket| ticket.id == scan.ticket) {
                    ticket.admitted.get_or_insert((now, asked.by));
                    if ticket.status == TicketStatus::Valid {
                        ticket.status = TicketStatus::Admitted;
                    }
                }
            }
            Command::ExpireDue => {
                for id in self.overdue(now) {
                    let booking = self.booking(id);
                    booking.status = ReservationStatus::Expired;
                    let lines = std::mem::take(&mut booking.seats);
                    booking.lost.extend(lines.clone());
                    self.let_go(&lines);
                }
            }
            Command::Block { seats, .. } => {
                let free: BTreeSet<&String> =
                    seats.iter().filter(|name| self.seats[*name].status == SeatStatus::Free).collect();
                for name in free {
                    self.seats.insert(name.clone(), SeatNow { status: SeatStatus::Blocked, owner: None });
                }
            }
            Command::Unblock { seats } => {
                let blocked = |name: &&String| self.seats[*name].status == SeatStatus::Blocked;
                let blocked: Vec<String> = seats.iter().filter(blocked).cloned().collect();
                for name in blocked {
                    self.seats.insert(name, SeatNow { status: SeatStatus::Free, owner: None });
                }
            }
            Command::ChangeShow(change) => {
                self.starts_at = change.starts_at.unwrap_or(self.starts_at);
                self.on_sale_at = change.on_sale_at.unwrap_or(self.on_sale_at);
            }
            Command::CancelShow { .. } => self.canceled = true,
            Command::CancelRest { limit, .. } => self.cancels_the_rest(*limit, events)?,
        }
        Ok(())
    }

    fn booking(&mut self, id: ReservationId) -> &mut Booking {
        self.bookings.get_mut(&id).unwrap()
    }

    fn hold_seats(&mut self, id: ReservationId, lines: &[Line]) {
        for (name, ..) in lines {
            self.seats.insert(name.clone(), SeatNow { status: SeatStatus::Held, owner: Some(id) });
        }
    }

    fn let_go(&mut self, lines: &[Line]) {
        for (name, ..) in lines {
            self.seats.insert(name.clone(), SeatNow { status: SeatStatus::Free, owner: None });
        }
    }

    /// What the core chose, if it may be chosen: as many as wanted, all open, and side by side where a row has
    /// room.
    fn given(&self, events: &[Event], count: usize, kind: Option<SeatType>) -> Result<Vec<Line>, String> {
        let [Event::Reserved { seats, .. }] = events else { return Err(format!("{events:?}")) };
        let names: Vec<String> = seats.iter().map(|line| self.names[line.seat as usize].clone()).collect();
        let open = self.open(kind);
        let distinct: BTreeSet<&String> = names.iter().collect();
        if distinct.len() != count || names.len() != count || !names.iter().all(|name| open.contains(name)) {
            return Err(format!("{names:?} are not {count} of {open:?}"));
        }
        let from = |first: &String| {
            let mut run = vec![first.clone()];
            while run.len() < count
                && let Some(next) = self.beside(run.last().unwrap(), 1).filter(|next| open.contains(next))
            {
                run.push(next);
            }
            run
        };
        let room = open.iter().any(|first| from(first).len() == count);
        if room && from(&names[0]) != names {
            return Err(format!("{names:?} are not side by side, though there is room in {open:?}"));
        }
        let line = |name: String| self.price(&name, "adult").map(|price| (name, "adult".to_owned(), price));
        names.into_iter().map(line).collect::<Option<_>>().ok_or("a seat without a price".into())
    }

    fn paid(&mut self, id: PaymentId, events: &[Event], now: Timestamp) -> Result<(), String> {
        let issued = events.iter().find_map(|event| match event {
            Event::PaymentCompleted { payment, tickets } if *payment == id => Some(tickets.clone()),
            _ => None,
        });
        let issued = issued.ok_or_else(|| format!("no tickets in {events:?}"))?;
        let distinct: BTreeSet<&TicketId> = issued.iter().collect();
        if distinct.len() != issued.len() || issued.iter().any(|id| self.ticket(*id).is_some()) {
            return Err(format!("a ticket's id is used twice: {issued:?}"));
        }
        let paying = self.payments.get_mut(&id).unwrap();
        paying.money = Money::Taken;
        paying.settled_at = Some(now);
        let of = paying.of;
        let booking = self.booking(of);
        if issued.len() != booking.seats.len() {
            return Err(format!("{} tickets for {} seats", issued.len(), booking.seats.len()));
        }
        booking.status = ReservationStatus::Paid;
        let pass = |(id, line): (TicketId, &Line)| Pass {
            id,
            seat: line.0.clone(),
            status: TicketStatus::Valid,
            admitted: None,
        };
        booking.tickets = issued.into_iter().zip(&booking.seats).map(pass).collect();
        let lines = booking.seats.clone();
        for (name, ..) in lines {
            self.seats.insert(name, SeatNow { status: SeatStatus::Sold, owner: Some(of) });
        }
        Ok(())
    }

    fn settled(
        &mut self,
        id: PaymentId,
        outcome: &Outcome,
        refund: RefundId,
        events: &[Event],
        now: Timestamp,
    ) -> Result<(), String> {
        let (of, amount, before) = {
            let p = &self.payments[&id];
            (p.of, p.amount, p.money)
        };
        match outcome {
            Outcome::Pending => self.payments.get_mut(&id).unwrap().told = true,
            Outcome::Failed { .. } => {
                let paying = self.payments.get_mut(&id).unwrap();
                paying.money = Money::Failed;
                paying.told = true;
                paying.settled_at = Some(now);
            }
            Outcome::Completed => {
                self.payments.get_mut(&id).unwrap().told = true;
                let others = self.payments_of(of);
                let alone = others
                    .iter()
                    .all(|(other, p)| *other == id || matches!(p.money, Money::Failed | Money::Unclaimed));
                let booking = &self.bookings[&of];
                let total = |lines: &[Line]| lines.iter().map(|line| line.2).sum::<i64>();
                let free = |line: &Line| self.seats[&line.0].status == SeatStatus::Free;
                let to_come = !self.canceled && now < self.starts_at;
                if alone && booking.status == ReservationStatus::Reserved && total(&booking.seats) == amount {
                    self.paid(id, events, now)?;
                } else if alone
                    && before == Money::Failed
                    && booking.status == ReservationStatus::Expired
                    && total(&booking.lost) == amount
                    && to_come
                    && booking.lost.iter().all(free)
                {
                    let lines = std::mem::take(&mut self.booking(of).lost);
                    self.booking(of).seats = lines;
                    self.paid(id, events, now)?;
                } else {
                    let paying = self.payments.get_mut(&id).unwrap();
                    paying.money = Money::Unclaimed;
                    paying.settled_at = Some(now);
                    self.gives_back(refund, id, amount);
                }
            }
        }
        Ok(())
    }

    fn gives_back(&mut self, id: RefundId, payment: PaymentId, amount: i64) {
        if amount > 0 {
            self.refunds.insert(id, Back { payment, amount, status: RefundStatus::Pending });
        }
    }

    /// Canceled seats: their tickets too; all of them end the reservation.
    fn gives_up(&mut self, id: ReservationId, lines: &[Line]) {
        let booking = self.booking(id);
        let gone = |name: &String| lines.iter().any(|line| line.0 == *name);
        for ticket in &mut booking.tickets {
            if gone(&ticket.seat) && ticket.status != TicketStatus::Refunded {
                ticket.status = TicketStatus::Canceled;
            }
        }
        booking.seats.retain(|line| !gone(&line.0));
        if booking.seats.is_empty() || booking.status == ReservationStatus::Paid {
            booking.lost.extend(lines.iter().cloned());
        }
        if booking.seats.is_empty() {
            booking.status = ReservationStatus::Canceled;
        }
        self.let_go(lines);
    }

    fn cancels_the_rest(&mut self, limit: usize, events: &[Event]) -> Result<(), String> {
        let left: Vec<ReservationId> = self.left().into_iter().take(limit).collect();
        if left.len() != events.len() {
            return Err(format!("{events:?} for {left:?}"));
        }
        for (id, event) in left.into_iter().zip(events) {
            let Event::Canceled(cancellation) = event else { return Err(format!("{event:?}")) };
            let owed = self.paid_by(id).filter(|(_, left)| *left > 0);
            let given = cancellation.refund.as_ref().map(|back| (back.payment, back.amount));
            if cancellation.reservation != id || given != owed {
                return Err(format!("{cancellation:?}, where {owed:?} is owed to {id}"));
            }
            if let Some(back) = &cancellation.refund {
                self.gives_back(back.refund, back.payment, back.amount);
            }
            let lines = self.bookings[&id].seats.clone();
            self.gives_up(id, &lines);
        }
        Ok(())
    }
}

/// In which what staff set aside is told.
const ORDER: [Rule; 4] = [Rule::SeatLimit, Rule::AddressLimit, Rule::HoldLimit, Rule::SingleSeatGap];
