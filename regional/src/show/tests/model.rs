//! Random commands; after each, every invariant that can be seen from outside, computed the slow way.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;

const SEATS: [&str; 8] = ["A1", "A2", "A3", "A4", "B1", "B2", "B3", "B4"];

/// `MARQUEE_SEED` replays one; else a new one each run, printed when it fails.
fn seed() -> u64 {
    std::env::var("MARQUEE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random)
}

#[test]
fn random_commands_never_break_an_invariant() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut done, mut refused) = (0_u32, 0_u32);
    for run in 0..60 {
        let mut stage = Stage::new();
        let customers: Vec<UserId> = (0..4).map(|_| UserId::new()).collect();
        for step in 0..200 {
            match command(&mut stage, &mut rng, &customers) {
                Decision::Do(_) => done += 1,
                Decision::Refuse(_) => refused += 1,
                _ => {}
            }
            if let Err(fault) = check(&stage) {
                panic!("MARQUEE_SEED={seed} run {run} step {step}: {fault}");
            }
        }
        let second = crate::verify::second_reading(&stage.journal, &stage.show);
        assert_eq!(second, [], "MARQUEE_SEED={seed} run {run}: the bookkeeping disagrees");
        let mut again = None;
        for (seq, groups) in (1..).zip(&stage.journal) {
            let stored = decode(FORMAT, &encode(groups)).unwrap();
            again = Show::fold(again, seq, &stored).unwrap();
        }
        assert_eq!(
            format!("{:?}", again.unwrap().reservations),
            format!("{:?}", stage.show.reservations),
            "MARQUEE_SEED={seed}"
        );
    }
    assert!(done > 1_000 && refused > 1_000, "MARQUEE_SEED={seed}: {done} done, {refused} refused");
}

fn command(stage: &mut Stage, rng: &mut StdRng, customers: &[UserId]) -> Decision {
    let any = |ids: Vec<ReservationId>, rng: &mut StdRng| ids.choose(rng).copied();
    let reservation = any(stage.show.reservations.keys().copied().collect(), rng);
    let payments: Vec<PaymentId> = stage.show.payments.keys().copied().collect();
    let payment = payments.choose(rng).copied();
    let names = |rng: &mut StdRng| -> Vec<&'static str> {
        (0..rng.random_range(1..4)).map(|_| *SEATS.choose(rng).unwrap()).collect()
    };
    match (rng.random_range(0..18), reservation, payment) {
        (0..=3, ..) => {
            let seats = names(rng);
            let customer = *customers.choose(rng).unwrap();
            stage.reserve(customer, &seats).map_or_else(Decision::Refuse, |_| Decision::Do(Vec::new()))
        }
        (4, Some(id), _) => {
            let seats = names(rng).iter().map(|s| ((*s).to_owned(), None)).collect();
            let by_staff = rng.random();
            stage.tell(Command::ChangeSeats(ChangeSeats { reservation: id, seats, by_staff }))
        }
        (5 | 6, Some(id), _) => {
            let method = if rng.random_bool(0.2) { Method::Cash } else { Method::Card };
            stage.start_payment(id, method).map_or_else(Decision::Refuse, |_| Decision::Do(Vec::new()))
        }
        (7 | 8, _, Some(id)) => {
            let failed = Outcome::Failed { reason: "x".into(), declined: rng.random() };
            let outcome = [Outcome::Completed, Outcome::Completed, Outcome::Pending, failed];
            stage.settle(id, outcome.choose(rng).unwrap().clone())
        }
        (9, Some(id), _) => {
            let seats = rng.random_bool(0.4).then(|| names(rng));
            let by_staff = rng.random();
            stage
                .cancel(id, seats.as_deref(), by_staff)
                .map_or_else(Decision::Refuse, |()| Decision::Do(Vec::new()))
        }
        (10, _, Some(payment)) => {
            let amount = rng.random_bool(0.5).then(|| rng.random_range(1..2_000));
            let id = stage.refund_id();
            stage.tell(Command::Refund(NewRefund { id, payment, amount, reason: "x".into() }))
        }
        (11, Some(id), _) if rng.random_bool(0.5) => {
            let Some(ticket) = stage.show.reservations[&id].tickets.choose(rng).map(|t| t.id) else {
                return Decision::Already;
            };
            let (nonce, force) = (rng.random_range(0..50).to_string(), rng.random_bool(0.1));
            stage.tell(Command::CheckIn(CheckIn { ticket, nonce, at: None, force }))
        }
        (12, ..) => {
            let seats = names(rng).iter().map(|s| (*s).to_owned()).collect();
            let block = Command::Block { seats, reason: "x".into() };
            stage.tell(block)
        }
        (13, ..) => {
            let seats = names(rng).iter().map(|s| (*s).to_owned()).collect();
            stage.tell(Command::Unblock { seats })
        }
        (14, ..) => {
            let id = ReservationId::new(stage.show.plan.facts.show, stage.now, stage.chance());
            let (count, customer) = (rng.random_range(1..4), Some(*customers.choose(rng).unwrap()));
            let kinds = [None, Some(SeatType::Premium), Some(SeatType::Accessible)];
            let wish = Wish::Best { count, kind: *kinds.choose(rng).unwrap(), category: None };
            let (reference, contact) = ("R".to_owned(), None);
            stage.tell(Command::Reserve(Reserve {
                id,
                reference,
                customer,
                contact,
                wish,
                origin: None,
                by_staff: false,
            }))
        }
        (15, ..) if rng.random_bool(0.02) => stage.tell(Command::CancelShow { reason: "x".into() }),
        (16, ..) => {
            let chance = stage.chance();
            stage.tell(Command::CancelRest { limit: 2, chance })
        }
        _ => {
            stage.pass(rng.random_range(1..400));
            Decision::Already
        }
    }
}

fn check(stage: &Stage) -> Result<(), String> {
    let show = &stage.show;
    let mut held: HashMap<u32, ReservationId> = HashMap::new();
    for reservation in show.reservations.values() {
        for line in &reservation.seats {
            if let Some(other) = held.insert(line.seat, reservation.id) {
                return Err(format!("seat {} is held by {other} and {}", line.seat, reservation.id));
            }
        }
        let live = matches!(reservation.status, ReservationStatus::Reserved | ReservationStatus::Paid);
        if live == reservation.seats.is_empty() {
            return Err(format!(
                "{} is {:?} with {} seats",
                reservation.id,
                reservation.status,
                reservation.seats.len()
            ));
        }
        if reservation.status == ReservationStatus::Paid && !paid(show, reservation) {
            return Err(format!("{} is paid by nothing", reservation.id));
        }
    }
    for (seat, state) in (0..).zip(&show.seats) {
        let owner = match state {
            SeatState::Free | SeatState::Blocked => None,
            SeatState::Held(id) | SeatState::Sold(id) => Some(*id),
        };
        // A refund after the start keeps the seat in the books, with no live reservation on it.
        let after_start = stage.now >= show.starts_at;
        if owner != held.get(&seat).copied() && !after_start {
            return Err(format!("seat {seat} is {state:?}, but {:?} has it", held.get(&seat)));
        }
    }
    for payment in show.payments.values() {
        let refunds =
            show.refunds.values().filter(|r| r.payment == payment.id && r.status != RefundStatus::Failed);
        let back: i64 = refunds.map(|r| r.amount).sum();
        if back != payment.refunded || back > payment.amount {
            return Err(format!(
                "{}: {back} of {} went back, booked as {}",
                payment.id, payment.amount, payment.refunded
            ));
        }
        let captured = matches!(payment.status, PaymentStatus::Completed);
        let reservation = &show.reservations[&payment.reservation];
        let kept = matches!(reservation.status, ReservationStatus::Paid | ReservationStatus::Canceled);
        if captured && payment.amount > 0 && !kept {
            return Err(format!(
                "{} was captured for a reservation that is {:?}",
                payment.id, reservation.status
            ));
        }
    }
    Ok(())
}

fn paid(show: &Show, reservation: &Reservation) -> bool {
    reservation.payments.iter().any(|id| {
        let status = show.payments[id].status;
        matches!(
            status,
            PaymentStatus::Completed | PaymentStatus::PartiallyRefunded | PaymentStatus::Refunded
        )
    })
}
