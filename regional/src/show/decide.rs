//! Commands against the present state: events, or a named refusal.

use std::collections::BTreeSet;

use common::{PaymentId, RefundId, ReservationId, TicketId, UserId};
use jiff::{SignedDuration, Timestamp};

use super::best::{best_seats, free_of};
use super::command::{
    Asked, Cancel, ChangeSeats, CheckIn, Command, Decision, NewRefund, Outcome, Refusal, Reserve,
    StartPayment, Wish,
};
use super::contact::{Contact, ContactDigest};
use super::event::{Before, Cancellation, Event, GivenBack, Origin, Rule, SeatLine};
use super::manage;
use super::moment::Moment;
use super::money::{paid_by, quote};
use super::payment::{Method, Payment, PaymentStatus, RefundStatus};
use super::slab::{Slot, WithId};
use super::state::{Line, Reservation, ReservationStatus, SeatState, Show, ShowStatus, TicketStatus};
use crate::halls::layout::SeatType;

use Decision::{Already, Do, Refuse};

/// A category that a seat is sold in when the buyer names none.
const DEFAULT_CATEGORY: &str = "adult";

/// Decides one command. `now` is the leader's clock, not before the last entry. The host first appends what
/// is [`due`], so that no seat counts as held beyond its time.
pub fn decide(show: &Show, asked: &Asked, now: Timestamp) -> Decision {
    if let Some(key) = &asked.key
        && let Some(used) = show.keys.get(&key.id)
        && used.until() > now
    {
        return if used.key.body == key.body {
            Decision::Repeat { seq: used.seq.into(), index: used.index }
        } else {
            Refuse(Refusal::KeyReused)
        };
    }
    let decided = match &asked.command {
        Command::Reserve(command) => reserve(show, command, now),
        Command::ChangeSeats(command) => change_seats(show, command, now),
        Command::StartPayment(command) => start_payment(show, command, now),
        Command::SettlePayment { payment, outcome, chance, refund } => {
            settle_payment(show, *payment, outcome, *chance, *refund, now)
        }
        Command::ReturnStray { payment, refund, amount } => {
            Ok(return_stray(show, *payment, *refund, *amount))
        }
        Command::Cancel(command) => cancel(show, command, now),
        Command::Refund(command) => refund(show, command, now),
        Command::SettleRefund { refund, failed } => settle_refund(show, *refund, failed.as_deref()),
        Command::CheckIn(command) => check_in(show, command, now),
        Command::ExpireDue => Ok(due(show, now)),
        Command::Block { seats, reason } => manage::block(show, seats, reason),
        Command::Unblock { seats } => manage::unblock(show, seats),
        Command::ChangeShow(command) => manage::change(show, command, now),
        Command::CancelShow { reason } => manage::cancel_show(show, reason),
        Command::CancelRest { limit, chance } => manage::cancel_rest(show, *limit, *chance, now),
    };
    match decided {
        Ok(events) if events.is_empty() => Already,
        Ok(events) => Do(events),
        Err(refusal) => Refuse(refusal),
    }
}

/// What a reservation that ran out while nobody led still has, from when somebody does: its customer could not
/// pay. (R12)
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// The reservations whose time is over. One with a payment under way is not among the deadlines.
pub fn due(show: &Show, now: Timestamp) -> Vec<Event> {
    let longer = show.led_at.time() + GRACE;
    let ends = |(deadline, slot): &(Moment, Slot)| {
        let reservation = show.reservations.at(*slot).id;
        // Whoever leads ends what is over at once; what was over before has waited for a leader.
        if *deadline <= show.led_at && now < longer {
            Event::Extended { reservation, expires_at: longer }
        } else {
            Event::Lapsed { reservation }
        }
    };
    show.deadlines.iter().take_while(|(deadline, _)| deadline.time() <= now).map(ends).collect()
}

type Decided = Result<Vec<Event>, Refusal>;

fn reserve(show: &Show, command: &Reserve, now: Timestamp) -> Decided {
    if show.reservations.contains_key(&command.id) {
        // Ids are drawn by chance; no two askers may end up with one reservation.
        return Err(Refusal::WrongState("there is such a reservation already"));
    }
    on_sale(show, now)?;
    let seats = match &command.wish {
        Wish::Seats(seats) => price_seats(show, seats, None)?,
        Wish::Best { count, kind, category } => best(show, *count, *kind, category.as_deref())?,
    };
    no_companion_alone(show, &indices(&seats))?;
    let (customer, contact) = (command.customer, command.contact.as_ref().map(Contact::digest));
    let had = had(show, customer, contact, now);
    let held_since = had.held_since;
    let checks: Checks<'_> = &[
        (Rule::SeatLimit, &|| within_limit(show, had.seats + seats.len())),
        (Rule::AddressLimit, &|| within_address_limit(show, command.origin, seats.len())),
        (Rule::HoldLimit, &|| within_hold_limit(show, held_since, now)),
        (Rule::SingleSeatGap, &|| match command.wish {
            Wish::Seats(_) => no_single_gaps(show, &seats, None),
            // The show chose; where it left one behind, it could not be helped.
            Wish::Best { .. } => Ok(()),
        }),
    ];
    let waived = held_to(checks, command.by_staff)?;
    Ok(vec![Event::Reserved {
        reservation: command.id,
        reference: command.reference.clone(),
        customer: command.customer,
        contact: command.contact.clone(),
        seats,
        expires_at: now + hold(show),
        held_since,
        origin: command.origin,
        waived,
    }])
}

/// Rules that customers are held to, each with its check.
type Checks<'a> = &'a [(Rule, &'a dyn Fn() -> Result<(), Refusal>)];

/// Customers are refused by the first rule that they break; for staff, those that they would break are told.
fn held_to(checks: Checks<'_>, by_staff: bool) -> Result<Vec<Rule>, Refusal> {
    let mut waived = Vec::new();
    for (rule, check) in checks {
        match check() {
            Ok(()) => {}
            Err(_) if by_staff => waived.push(*rule),
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(waived)
}

fn hold(show: &Show) -> SignedDuration {
    SignedDuration::from_secs(show.plan.facts.hold_secs.into())
}

/// What a buyer has, and has had just now.
struct Had {
    seats: usize,
    /// Since when seats were held without paying, one hold close after another; none: not just now.
    held_since: Option<Timestamp>,
}

fn had(show: &Show, customer: Option<UserId>, contact: Option<ContactDigest>, now: Timestamp) -> Had {
    let mut had = Had { seats: 0, held_since: None };
    for reservation in show.of_buyer(customer, contact) {
        had.seats += reservation.seats.len();
        if !reservation.has_tickets() && now < held_until(show, &reservation) + hold(show) {
            let since = reservation.held_since.time();
            had.held_since = Some(had.held_since.map_or(since, |earlier| earlier.min(since)));
        }
    }
    had
}

/// The latest that a reservation without tickets can have held its seats.
fn held_until(show: &Show, reservation: &Reservation) -> Timestamp {
    let settled = show.payments_of(reservation).filter_map(|payment| payment.settled_at);
    settled.fold(reservation.expires_at, Moment::max).time()
}

/// Whoever holds seats again and again without paying may begin again for so many holds' time.
const HOLDS_ON_END: i32 = 2;

fn within_hold_limit(show: &Show, held_since: Option<Timestamp>, now: Timestamp) -> Result<(), Refusal> {
    match held_since {
        Some(since) if now >= since + hold(show) * HOLDS_ON_END => {
            Err(Refusal::HoldLimit { until: now + hold(show) })
        }
        _ => Ok(()),
    }
}

/// A household, an office or a school shares an address, and so do some customers of a telephone company;
/// the seats of more customers than this at one address are taken for one hoarder's.
const CUSTOMERS_AT_AN_ADDRESS: u32 = 10;

fn within_address_limit(show: &Show, origin: Option<Origin>, more: usize) -> Result<(), Refusal> {
    let (Some(limit), Some(origin)) = (show.plan.facts.max_seats_per_customer, origin) else {
        return Ok(());
    };
    let limit = limit.saturating_mul(CUSTOMERS_AT_AN_ADDRESS);
    let seats = show.seats_from(origin) + more;
    if seats > limit as usize { Err(Refusal::AddressLimit { limit }) } else { Ok(()) }
}

fn change_seats(show: &Show, command: &ChangeSeats, now: Timestamp) -> Decided {
    let reservation = unpaid(show, command.reservation, now)?;
    on_sale(show, now)?;
    let seats = price_seats(show, &command.seats, Some(reservation.id))?;
    if same_seats(show, &seats, &reservation) {
        return Ok(Vec::new());
    }
    no_companion_alone(show, &indices(&seats))?;
    let (customer, contact) = (reservation.customer, reservation.contact.as_ref().map(Contact::digest));
    // Who takes no more than before is not held to limits that staff, or another hand, has gone over.
    let more = seats.len().saturating_sub(reservation.seats.len());
    let limited = |check: &dyn Fn() -> Result<(), Refusal>| if more == 0 { Ok(()) } else { check() };
    let checks: Checks<'_> = &[
        (Rule::SeatLimit, &|| limited(&|| within_limit(show, show.seats_of(customer, contact) + more))),
        (Rule::AddressLimit, &|| limited(&|| within_address_limit(show, reservation.origin(), more))),
        (Rule::SingleSeatGap, &|| no_single_gaps(show, &seats, Some(reservation.id))),
    ];
    let waived = held_to(checks, command.by_staff)?;
    Ok(vec![Event::SeatsChanged { reservation: reservation.id, seats, waived }])
}

/// Whether these are the seats that the reservation has, at the same prices and in the same order.
fn same_seats(show: &Show, seats: &[SeatLine], reservation: &Reservation) -> bool {
    seats.len() == reservation.seats.len()
        && seats.iter().zip(&reservation.seats).all(|(new, had)| show.line(new) == Some(*had))
}

fn indices(lines: &[SeatLine]) -> Vec<u32> {
    lines.iter().map(|line| line.seat).collect()
}

fn within_limit(show: &Show, seats: usize) -> Result<(), Refusal> {
    match show.plan.facts.max_seats_per_customer {
        Some(limit) if seats > limit as usize => Err(Refusal::SeatLimit { limit }),
        _ => Ok(()),
    }
}

fn best(
    show: &Show,
    count: usize,
    kind: Option<SeatType>,
    category: Option<&str>,
) -> Result<Vec<SeatLine>, Refusal> {
    if count == 0 {
        return Err(Refusal::NoSeats);
    }
    let category = category.unwrap_or(DEFAULT_CATEGORY);
    let Some(seats) = best_seats(show, count, kind, category) else {
        let free = free_of(show, kind, category);
        return Err(Refusal::NotEnoughSeats { free });
    };
    let line = |seat: u32| {
        let amount = show.plan.price(seat, category)?;
        Some(SeatLine { seat, category: category.to_owned(), amount })
    };
    Ok(seats.into_iter().filter_map(line).collect())
}

/// Where the show has the rule, no single free seat is left between taken ones. `own`: seats held by this
/// reservation count as free.
fn no_single_gaps(show: &Show, lines: &[SeatLine], own: Option<ReservationId>) -> Result<(), Refusal> {
    if !show.plan.facts.single_gap_rule {
        return Ok(());
    }
    let taken: BTreeSet<u32> = lines.iter().map(|line| line.seat).collect();
    let name = |seat: u32| show.plan.place(seat).name.to_owned();
    let gaps: Vec<String> = new_single_gaps(show, &taken, own).into_iter().map(name).collect();
    if gaps.is_empty() { Ok(()) } else { Err(Refusal::SingleSeatGap(gaps)) }
}

/// No companion without the accessible seat beside it.
fn no_companion_alone(show: &Show, seats: &[u32]) -> Result<(), Refusal> {
    let kind = |seat: u32| show.plan.place(seat).kind;
    let accompanied = |seat: u32| {
        let mut beside = show.plan.beside(seat).into_iter().flatten();
        beside.any(|b| kind(b) == SeatType::Accessible && seats.contains(&b))
    };
    let alone: Vec<String> = seats
        .iter()
        .filter(|seat| kind(**seat) == SeatType::Companion && !accompanied(**seat))
        .map(|seat| show.plan.place(*seat).name.to_owned())
        .collect();
    if alone.is_empty() { Ok(()) } else { Err(Refusal::CompanionAlone(alone)) }
}

/// Free seats that taking `taken` leaves single between taken ones, where it could be helped: whoever takes
/// all but one of a run of free seats cannot but leave one.
fn new_single_gaps(show: &Show, taken: &BTreeSet<u32>, own: Option<ReservationId>) -> Vec<u32> {
    let free = |seat: u32| match show.seat_state(seat) {
        SeatState::Free => true,
        SeatState::Held(by) => Some(by) == own,
        SeatState::Sold(_) | SeatState::Blocked => false,
    };
    let gap = |seat: u32| {
        free(seat)
            && !taken.contains(&seat)
            && show.plan.beside(seat).iter().all(|b| b.is_some_and(|b| !free(b) || taken.contains(&b)))
    };
    let unavoidable = |seat: u32| {
        let run = free_run(show, seat, &free);
        run.clone().filter(|s| taken.contains(s)).count() + 1 == run.count()
    };
    let beside = taken.iter().flat_map(|seat| show.plan.beside(*seat)).flatten();
    let found: BTreeSet<u32> = beside.filter(|seat| gap(*seat) && !unavoidable(*seat)).collect();
    found.into_iter().collect()
}

/// The free seats side by side around this one, as they are before anything is taken.
fn free_run(show: &Show, seat: u32, free: &impl Fn(u32) -> bool) -> std::ops::RangeInclusive<u32> {
    let step = |from: u32, side: usize| show.plan.beside(from)[side].filter(|next| free(*next));
    let (mut first, mut last) = (seat, seat);
    while let Some(left) = step(first, 0) {
        first = left;
    }
    while let Some(right) = step(last, 1) {
        last = right;
    }
    first..=last
}

fn on_sale(show: &Show, now: Timestamp) -> Result<(), Refusal> {
    if show.status == ShowStatus::Canceled {
        return Err(Refusal::NotOnSale("the show is canceled"));
    }
    if show.on_sale_at.is_some_and(|at| now < at) {
        return Err(Refusal::NotOnSale("the sale has not begun"));
    }
    if now >= show.starts_at {
        return Err(Refusal::NotOnSale("the show has begun"));
    }
    Ok(())
}

/// All seats free (or held by `own`), each once, each with a price; or the refusal that names every one.
fn price_seats(
    show: &Show,
    wanted: &[(String, Option<String>)],
    own: Option<ReservationId>,
) -> Result<Vec<SeatLine>, Refusal> {
    if wanted.is_empty() {
        return Err(Refusal::NoSeats);
    }
    let unknown: Vec<String> = wanted
        .iter()
        .filter(|(name, _)| show.plan.seat(name).is_none())
        .map(|(name, _)| name.clone())
        .collect();
    if !unknown.is_empty() {
        return Err(Refusal::UnknownSeats(unknown));
    }
    let (mut lines, mut taken, mut seen) = (Vec::with_capacity(wanted.len()), Vec::new(), BTreeSet::new());
    for (name, category) in wanted {
        let Some(seat) = show.plan.seat(name) else { continue };
        if !seen.insert(seat) {
            return Err(Refusal::DuplicateSeat(name.clone()));
        }
        let free = match show.seat_state(seat) {
            SeatState::Free => true,
            SeatState::Held(by) => Some(by) == own,
            SeatState::Sold(_) | SeatState::Blocked => false,
        };
        if !free {
            taken.push(name.clone());
            continue;
        }
        let category = category.as_deref().unwrap_or(DEFAULT_CATEGORY);
        let Some(amount) = show.plan.price(seat, category) else {
            return Err(Refusal::UnknownCategory { seat: name.clone(), category: category.to_owned() });
        };
        lines.push(SeatLine { seat, category: category.to_owned(), amount });
    }
    if taken.is_empty() { Ok(lines) } else { Err(Refusal::SeatsUnavailable(taken)) }
}

/// The reservation, if its seats are still only held.
fn reserved(show: &Show, id: ReservationId) -> Result<WithId<'_, Reservation>, Refusal> {
    let reservation = show.reservations.get(&id).ok_or(Refusal::UnknownReservation)?;
    match reservation.status {
        ReservationStatus::Reserved => Ok(reservation),
        ReservationStatus::Expired => Err(Refusal::ReservationExpired),
        ReservationStatus::Paid => Err(Refusal::WrongState("the reservation is paid")),
        ReservationStatus::Canceled => Err(Refusal::WrongState("the reservation is canceled")),
        ReservationStatus::Refunded => Err(Refusal::WrongState("the reservation is refunded")),
    }
}

fn no_payment_under_way(show: &Show, reservation: &Reservation) -> Result<(), Refusal> {
    let open = show.payments_of(reservation).find(|payment| payment.is_open());
    open.map_or(Ok(()), |payment| Err(Refusal::PaymentUnderWay(payment.id)))
}

/// The reservation, if its seats are only held, its time is not over and no payment is under way. The host
/// ends what is due before it decides; but what a batch itself makes due must not slip through.
fn unpaid(show: &Show, id: ReservationId, now: Timestamp) -> Result<WithId<'_, Reservation>, Refusal> {
    let reservation = reserved(show, id)?;
    no_payment_under_way(show, &reservation)?;
    if now >= reservation.expires_at.time() { Err(Refusal::ReservationExpired) } else { Ok(reservation) }
}

fn start_payment(show: &Show, command: &StartPayment, now: Timestamp) -> Decided {
    if show.payments.contains_key(&command.id) {
        return Err(Refusal::WrongState("there is such a payment already"));
    }
    let reservation = unpaid(show, command.reservation, now)?;
    let amount = reservation.total_minor();
    let started = Event::PaymentStarted {
        payment: command.id,
        reservation: reservation.id,
        method: command.method,
        amount,
        token: command.token.clone(),
    };
    // Cash is in the drawer, and nothing is nothing: no provider has a say.
    if command.method == Method::Cash || amount == 0 {
        let tickets = new_tickets(show, &reservation.seats, command.chance, now);
        return Ok(vec![started, Event::PaymentCompleted { payment: command.id, tickets }]);
    }
    Ok(vec![started])
}

/// Whether a lapsed reservation can be had again: for the same money, all its seats free, the show to come.
fn can_retake(show: &Show, reservation: &Reservation, payment: WithId<'_, Payment>, now: Timestamp) -> bool {
    reservation.status == ReservationStatus::Expired
        && reservation.total_minor() == payment.amount
        && no_other_payment(show, reservation, payment.id)
        && show.status == ShowStatus::Scheduled
        && now < show.starts_at
        && reservation.given_up.iter().all(|line| show.seats[line.seat as usize].is_free())
}

/// Whether nothing else pays, or may yet pay, for the same reservation. What came for nothing pays for nothing.
fn no_other_payment(show: &Show, reservation: &Reservation, id: PaymentId) -> bool {
    let mut others = show.payments_of(reservation).filter(|other| other.id != id);
    others.all(|p| p.status == PaymentStatus::Failed || p.unclaimed)
}

fn new_tickets(show: &Show, seats: &[Line], chance: u32, now: Timestamp) -> Vec<TicketId> {
    let id = show.plan.facts.show;
    (0..).zip(seats).map(|(n, _)| TicketId::new(id, now, chance.wrapping_add(n))).collect()
}

fn settle_payment(
    show: &Show,
    id: PaymentId,
    outcome: &Outcome,
    chance: u32,
    refund: RefundId,
    now: Timestamp,
) -> Decided {
    let payment = show.payments.get(&id).ok_or(Refusal::UnknownPayment)?;
    let reservation = show.reservation_of(&payment);
    match (outcome, payment.status) {
        (Outcome::Completed, PaymentStatus::Pending | PaymentStatus::Failed)
            if reservation.status == ReservationStatus::Reserved
                && reservation.total_minor() == payment.amount
                && no_other_payment(show, &reservation, id) =>
        {
            let tickets = new_tickets(show, &reservation.seats, chance, now);
            Ok(vec![Event::PaymentCompleted { payment: id, tickets }])
        }
        // It came late, but the same seats are all free: the customer gets what was paid for.
        (Outcome::Completed, PaymentStatus::Failed) if can_retake(show, &reservation, payment, now) => {
            let tickets = new_tickets(show, &reservation.given_up, chance, now);
            let retaken = Event::Retaken { reservation: reservation.id };
            Ok(vec![retaken, Event::PaymentCompleted { payment: id, tickets }])
        }
        // Money that nobody can claim goes back.
        (Outcome::Completed, PaymentStatus::Pending | PaymentStatus::Failed) => {
            Ok(vec![Event::PaymentUnclaimed { payment: id, refund }])
        }
        (Outcome::Pending, PaymentStatus::Pending) if payment.first.is_none() => {
            Ok(vec![Event::PaymentPending { payment: id }])
        }
        (Outcome::Failed { reason, declined }, PaymentStatus::Pending) => {
            Ok(vec![Event::PaymentFailed { payment: id, reason: reason.clone(), declined: *declined }])
        }
        _ => Ok(Vec::new()),
    }
}

/// Once, and not for a payment that is known after all.
fn return_stray(show: &Show, payment: PaymentId, refund: RefundId, amount: i64) -> Vec<Event> {
    let is_known = show.payments.get(&payment).is_some() || show.strays.contains(&payment);
    if is_known { Vec::new() } else { vec![Event::StrayReturned { payment, refund, amount }] }
}

fn cancel(show: &Show, command: &Cancel, now: Timestamp) -> Decided {
    let reservation = show.reservations.get(&command.reservation).ok_or(Refusal::UnknownReservation)?;
    match reservation.status {
        ReservationStatus::Reserved | ReservationStatus::Paid => {}
        ReservationStatus::Canceled => return Ok(Vec::new()),
        ReservationStatus::Expired => return Err(Refusal::ReservationExpired),
        ReservationStatus::Refunded => return Err(Refusal::WrongState("the reservation is refunded")),
    }
    no_payment_under_way(show, &reservation)?;
    let lines = chosen(show, &reservation, command.seats.as_deref())?;
    let admitted =
        |seat: u32| reservation.tickets().any(|t| t.seat == seat && t.status == TicketStatus::Admitted);
    if !command.by_staff && lines.iter().any(|line| admitted(line.seat)) {
        return Err(Refusal::WrongState("a ticket of it was used"));
    }
    let refund = match paid_by(show, &reservation) {
        Some(payment) if reservation.status == ReservationStatus::Paid => {
            let quote = quote(show, &reservation, &lines, command.by_staff, now)?;
            (quote.refund > 0).then_some(GivenBack {
                refund: command.refund,
                payment: payment.id,
                amount: quote.refund,
            })
        }
        _ => None,
    };
    let kept = reservation.seats.iter().filter(|line| !lines.contains(line));
    let kept: Vec<u32> = kept.map(|line| line.seat).collect();
    no_companion_alone(show, &kept)?;
    let seats = lines.iter().map(|line| line.seat).collect();
    let was = command.by_staff.then(|| Before {
        status: reservation.status,
        seats: reservation.seats.iter().map(|line| line.seat).collect(),
    });
    Ok(vec![Event::Canceled(Cancellation { reservation: reservation.id, seats, refund, was })])
}

/// The lines of a reservation that are meant: all, or those named.
pub fn chosen<'a>(
    show: &Show,
    reservation: &'a Reservation,
    names: Option<&[String]>,
) -> Result<Vec<&'a Line>, Refusal> {
    let Some(names) = names else { return Ok(reservation.seats.iter().collect()) };
    if names.is_empty() {
        return Err(Refusal::NoSeats);
    }
    let (mut lines, mut unknown) = (Vec::new(), Vec::new());
    for name in names {
        let line = show.plan.seat(name).and_then(|seat| reservation.seats.iter().find(|l| l.seat == seat));
        match line {
            Some(line) if lines.contains(&line) => return Err(Refusal::DuplicateSeat(name.clone())),
            Some(line) => lines.push(line),
            None => unknown.push(name.clone()),
        }
    }
    if unknown.is_empty() { Ok(lines) } else { Err(Refusal::UnknownSeats(unknown)) }
}

fn refund(show: &Show, command: &NewRefund, now: Timestamp) -> Decided {
    let payment = show.payments.get(&command.payment).ok_or(Refusal::UnknownPayment)?;
    match payment.status {
        PaymentStatus::Completed | PaymentStatus::PartiallyRefunded => {}
        PaymentStatus::Pending => return Err(Refusal::PaymentUnderWay(payment.id)),
        PaymentStatus::Failed => return Err(Refusal::WrongState("the payment failed; nothing was charged")),
        PaymentStatus::Refunded => return Err(Refusal::RefundTooLarge { remainder: 0 }),
    }
    let remainder = payment.remainder();
    let amount = command.amount.unwrap_or(remainder);
    if amount <= 0 || amount > remainder {
        return Err(Refusal::RefundTooLarge { remainder });
    }
    // Who was refunded after the show keeps the seat's place in the books: it cannot be sold again anyway.
    let release = amount == remainder && now < show.starts_at;
    Ok(vec![Event::RefundStarted {
        refund: command.id,
        payment: payment.id,
        amount,
        reason: command.reason.clone(),
        release,
        was: Some(payment.refunded),
    }])
}

fn settle_refund(show: &Show, id: RefundId, failed: Option<&str>) -> Decided {
    let refund = show.refunds.get(&id).ok_or(Refusal::UnknownPayment)?;
    if refund.status != RefundStatus::Pending {
        return Ok(Vec::new());
    }
    Ok(vec![match failed {
        None => Event::RefundCompleted { refund: id },
        Some(reason) => Event::RefundFailed { refund: id, reason: reason.to_owned() },
    }])
}

fn check_in(show: &Show, command: &CheckIn, now: Timestamp) -> Decided {
    let (_, ticket) = show.ticket(command.ticket).ok_or(Refusal::UnknownTicket)?;
    match show.admitted_by(&command.nonce) {
        Some(used_for) if used_for == command.ticket => return Ok(Vec::new()),
        Some(_) => return Err(Refusal::NonceReused),
        None => {}
    }
    if !command.force {
        match ticket.status {
            TicketStatus::Valid => {}
            TicketStatus::Admitted => {
                let (at, by) = show.admission(&ticket).map_or((now, None), |a| (a.at.time(), a.by));
                return Err(Refusal::AlreadyAdmitted { at, by });
            }
            TicketStatus::Canceled => return Err(Refusal::TicketCanceled),
            TicketStatus::Refunded => return Err(Refusal::TicketRefunded),
        }
    }
    // A scanner's clock may be ahead; nobody was admitted in the future.
    let at = command.at.map_or(now, |at| at.min(now));
    Ok(vec![Event::CheckedIn { ticket: ticket.id, nonce: command.nonce.clone(), at, forced: command.force }])
}
