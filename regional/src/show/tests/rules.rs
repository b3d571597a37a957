//! Each rule by an example.

use super::*;

#[test]
fn no_two_reservations_have_one_id() {
    let mut stage = Stage::new();
    let first = stage.reserve(UserId::new(), &["A3"]).unwrap();
    let again = |seat: &str| Reserve {
        id: first,
        reference: "REF".into(),
        customer: Some(UserId::new()),
        contact: None,
        wish: Wish::Seats(vec![(seat.to_owned(), None)]),
        origin: None,
        by_staff: false,
    };
    assert!(matches!(stage.tell(Command::Reserve(again("A4"))), Decision::Refuse(Refusal::WrongState(_))));
    assert_eq!(stage.seat("A4"), SeatStatus::Free);
    let taken = Event::Reserved {
        reservation: first,
        reference: "REF".into(),
        customer: None,
        contact: None,
        seats: vec![SeatLine { seat: 3, category: "adult".into(), amount: 1_000 }],
        expires_at: stage.now,
        held_since: None,
        origin: None,
        waived: Vec::new(),
    };
    let group = Group { at: stage.now, by: None, key: None, trace: None, from: None, events: vec![taken] };
    assert!(stage.show.clone().apply(9, &[group]).unwrap_err().contains("made twice"));
}

#[test]
fn money_that_no_entry_tells_of_goes_back_once() {
    let mut stage = Stage::new();
    let (_, paid) = stage.buy(UserId::new(), &["A3"]);
    let stray = PaymentId::new(stage.show.id(), stage.now, 7);
    let (returned, other) = (stage.refund_id(), stage.refund_id());
    let back = |payment, refund| Command::ReturnStray { payment, refund, amount: 700 };
    assert!(matches!(stage.tell(back(paid, returned)), Decision::Already), "it is known");
    assert!(matches!(stage.tell(back(stray, returned)), Decision::Do(_)));
    assert!(matches!(stage.tell(back(stray, other)), Decision::Already));
    assert!(stage.show.strays.contains(&stray));
    let again = Event::StrayReturned { payment: stray, refund: other, amount: 700 };
    let group = Group { at: stage.now, by: None, key: None, trace: None, from: None, events: vec![again] };
    assert!(stage.show.clone().apply(9, &[group]).unwrap_err().contains("no stray"));
}

#[test]
fn seats_are_taken_all_or_none() {
    let mut stage = Stage::new();
    let (ada, bob) = (UserId::new(), UserId::new());
    stage.reserve(ada, &["A3"]).unwrap();
    let refusal = stage.reserve(bob, &["A4", "A3"]).unwrap_err();
    assert_eq!(refusal, Refusal::SeatsUnavailable(vec!["A3".into()]));
    assert_eq!(stage.seat("A4"), SeatStatus::Free);
}

#[test]
fn absurd_wishes_are_named() {
    let mut stage = Stage::new();
    let ada = UserId::new();
    assert_eq!(stage.reserve(ada, &[]).unwrap_err(), Refusal::NoSeats);
    assert_eq!(stage.reserve(ada, &["Z9"]).unwrap_err(), Refusal::UnknownSeats(vec!["Z9".into()]));
    assert_eq!(stage.reserve(ada, &["A3", "A3"]).unwrap_err(), Refusal::DuplicateSeat("A3".into()));
    let id = ReservationId::new(stage.show.plan.facts.show, stage.now, 1);
    let seats = vec![("A3".to_owned(), Some("dog".to_owned()))];
    let wish = Reserve {
        id,
        reference: "R".into(),
        customer: Some(ada),
        contact: None,
        wish: Wish::Seats(seats),
        origin: None,
        by_staff: false,
    };
    let refusal = refused(stage.tell(Command::Reserve(wish))).unwrap_err();
    assert!(matches!(refusal, Refusal::UnknownCategory { .. }));
    assert_eq!(stage.show.seq, 1, "nothing was journaled");
}

#[test]
fn a_hold_lapses_by_an_event_and_is_not_payable_after() {
    let mut stage = Stage::new();
    let id = stage.reserve(UserId::new(), &["A3"]).unwrap();
    stage.pass(599);
    assert_eq!(stage.seat("A3"), SeatStatus::Held);
    stage.pass(1);
    assert_eq!(stage.seat("A3"), SeatStatus::Free);
    assert_eq!(stage.reservation(id).status, ReservationStatus::Expired);
    assert_eq!(stage.start_payment(id, Method::Card).unwrap_err(), Refusal::ReservationExpired);
    stage.reserve(UserId::new(), &["A3"]).unwrap();
}

#[test]
fn what_ran_out_while_nobody_led_has_a_minute_more() {
    let mut stage = Stage::new();
    let early = stage.reserve(UserId::new(), &["A3"]).unwrap();
    stage.pass(30);
    let late = stage.reserve(UserId::new(), &["A4"]).unwrap();
    let expires_at = |stage: &Stage, id| stage.reservation(id).expires_at.time();
    let promised = expires_at(&stage, late);
    // The first is over by then, the second is not.
    stage.pass_unled(570);
    assert_eq!([stage.seat("A3"), stage.seat("A4")], [SeatStatus::Held, SeatStatus::Held]);
    let minute = stage.now + SignedDuration::from_secs(60);
    assert_eq!((expires_at(&stage, early), expires_at(&stage, late)), (minute, promised));
    stage.pass(30);
    assert_eq!([stage.seat("A3"), stage.seat("A4")], [SeatStatus::Held, SeatStatus::Free]);
    stage.start_payment(early, Method::Card).unwrap();

    let mut stage = Stage::new();
    let id = stage.reserve(UserId::new(), &["A3"]).unwrap();
    stage.pass_unled(3_600);
    stage.pass(59);
    assert_eq!(stage.seat("A3"), SeatStatus::Held);
    // Led anew while it still has time: it gets no more.
    stage.pass_unled(0);
    stage.pass(1);
    assert_eq!(stage.seat("A3"), SeatStatus::Free);
    assert_eq!(stage.start_payment(id, Method::Card).unwrap_err(), Refusal::ReservationExpired);
}

#[test]
fn a_payment_that_fails_long_after_leaves_no_grace() {
    let mut stage = Stage::new();
    let id = stage.reserve(UserId::new(), &["A3"]).unwrap();
    let payment = stage.start_payment(id, Method::Card).unwrap();
    stage.pass_unled(3_600);
    assert_eq!(stage.seat("A3"), SeatStatus::Held);
    stage.pass(3_600);
    stage.settle(payment, Outcome::Failed { reason: "card_declined".into(), declined: true });
    stage.pass(0);
    assert_eq!(stage.seat("A3"), SeatStatus::Free);
    assert_eq!(stage.reservation(id).status, ReservationStatus::Expired);
}

#[test]
fn a_payment_under_way_holds_the_seats_past_the_deadline() {
    let mut stage = Stage::new();
    let id = stage.reserve(UserId::new(), &["A3", "A4"]).unwrap();
    let payment = stage.start_payment(id, Method::Card).unwrap();
    stage.pass(3_600);
    assert_eq!(stage.seat("A3"), SeatStatus::Held);
    assert_eq!(stage.start_payment(id, Method::Card).unwrap_err(), Refusal::PaymentUnderWay(payment));
    assert_eq!(stage.cancel(id, None, true).unwrap_err(), Refusal::PaymentUnderWay(payment));
    stage.settle(payment, Outcome::Completed);
    assert_eq!(stage.reservation(id).status, ReservationStatus::Paid);
    assert_eq!(stage.reservation(id).tickets.len(), 2);
    assert_eq!(stage.settle(payment, Outcome::Completed), Decision::Already);
}

#[test]
fn a_declined_payment_leaves_the_seats_until_the_deadline() {
    let mut stage = Stage::new();
    let id = stage.reserve(UserId::new(), &["A3"]).unwrap();
    let payment = stage.start_payment(id, Method::Card).unwrap();
    stage.settle(payment, Outcome::Failed { reason: "card_declined".into(), declined: true });
    assert_eq!(stage.seat("A3"), SeatStatus::Held);
    stage.pass(600);
    assert_eq!(stage.seat("A3"), SeatStatus::Free);
}

/// A reservation whose payment was given up, with the money still to come.
fn timed_out(stage: &mut Stage, seats: &[&str]) -> (ReservationId, PaymentId) {
    let id = stage.reserve(UserId::new(), seats).unwrap();
    let payment = stage.start_payment(id, Method::Card).unwrap();
    stage.settle(payment, Outcome::Failed { reason: "provider_timeout".into(), declined: false });
    (id, payment)
}

/// The same, and the reservation lapsed.
fn lapsed_with_money_to_come(stage: &mut Stage) -> (ReservationId, PaymentId) {
    let (id, payment) = timed_out(stage, &["A3"]);
    stage.pass(600);
    assert_eq!(stage.reservation(id).status, ReservationStatus::Expired);
    (id, payment)
}

#[test]
fn money_that_comes_too_late_goes_back_whole() {
    let mut stage = Stage::new();
    let (id, payment) = lapsed_with_money_to_come(&mut stage);
    stage.reserve(UserId::new(), &["A3"]).unwrap();
    stage.settle(payment, Outcome::Completed);
    let refund = stage.show.refunds.values().next().unwrap();
    assert_eq!((refund.amount, refund.status), (1000, RefundStatus::Pending));
    assert_eq!(stage.show.payments[&payment].status, PaymentStatus::Refunded);
    assert_eq!(stage.reservation(id).status, ReservationStatus::Expired);
}

#[test]
fn money_that_comes_late_takes_the_same_seats_again_if_all_are_free() {
    let mut stage = Stage::new();
    let (id, payment) = lapsed_with_money_to_come(&mut stage);
    stage.settle(payment, Outcome::Completed);
    assert_eq!(stage.reservation(id).status, ReservationStatus::Paid);
    assert_eq!((stage.seat("A3"), stage.reservation(id).tickets.len()), (SeatStatus::Sold, 1));
    assert!(stage.show.refunds.is_empty());
    assert_eq!(stage.settle(payment, Outcome::Completed), Decision::Already);
}

#[test]
fn cash_and_nothing_to_pay_complete_at_once() {
    let mut stage = Stage::new();
    let id = stage.reserve(UserId::new(), &["A3"]).unwrap();
    stage.start_payment(id, Method::Cash).unwrap();
    assert_eq!(stage.reservation(id).status, ReservationStatus::Paid);
    let mut facts = facts();
    facts.prices.iter_mut().for_each(|price| price.amount = 0);
    let mut stage = Stage::of(facts);
    let free = stage.reserve(UserId::new(), &["A3"]).unwrap();
    stage.start_payment(free, Method::Card).unwrap();
    assert_eq!(stage.reservation(free).status, ReservationStatus::Paid);
}

#[test]
fn what_goes_back_follows_the_tiers() {
    let mut stage = Stage::new();
    let (ada, bob, eve) = (UserId::new(), UserId::new(), UserId::new());
    let (early, paid) = stage.buy(ada, &["A3"]);
    stage.cancel(early, None, false).unwrap();
    assert_eq!(stage.show.payments[&paid].refunded, 1000);
    assert_eq!(stage.seat("A3"), SeatStatus::Free);
    let (late, paid) = stage.buy(bob, &["A3"]);
    stage.pass(23 * 3600);
    stage.cancel(late, None, false).unwrap();
    assert_eq!(stage.show.payments[&paid].refunded, 500);
    assert_eq!(stage.show.payments[&paid].status, PaymentStatus::PartiallyRefunded);
    let (too_late, paid) = stage.buy(eve, &["A4"]);
    stage.pass(3_000);
    assert_eq!(stage.cancel(too_late, None, false).unwrap_err(), Refusal::RefundWindowClosed);
    stage.cancel(too_late, None, true).unwrap();
    assert_eq!(stage.show.payments[&paid].status, PaymentStatus::Refunded);
}

#[test]
fn some_seats_of_a_paid_reservation_can_go() {
    let mut stage = Stage::new();
    let (id, paid) = stage.buy(UserId::new(), &["A3", "A4", "B1"]);
    stage.cancel(id, Some(&["A4"]), false).unwrap();
    assert_eq!(stage.show.payments[&paid].refunded, 1000);
    assert_eq!(stage.reservation(id).status, ReservationStatus::Paid);
    assert_eq!((stage.seat("A4"), stage.seat("A3")), (SeatStatus::Free, SeatStatus::Sold));
    assert_eq!(stage.cancel(id, Some(&["A4"]), false).unwrap_err(), Refusal::UnknownSeats(vec!["A4".into()]));
    stage.cancel(id, None, false).unwrap();
    assert_eq!(stage.show.payments[&paid].refunded, 3500);
    assert_eq!(stage.reservation(id).status, ReservationStatus::Canceled);
}

#[test]
fn refunds_never_exceed_what_was_paid() {
    let mut stage = Stage::new();
    let (id, payment) = stage.buy(UserId::new(), &["A3", "A4"]);
    let mut back = |amount| {
        let id = stage.refund_id();
        refused(stage.tell(Command::Refund(NewRefund { id, payment, amount, reason: "x".into() })))
    };
    back(Some(500)).unwrap();
    assert_eq!(back(Some(1501)).unwrap_err(), Refusal::RefundTooLarge { remainder: 1500 });
    back(None).unwrap();
    assert_eq!(back(None).unwrap_err(), Refusal::RefundTooLarge { remainder: 0 });
    assert_eq!(stage.reservation(id).status, ReservationStatus::Refunded);
    assert_eq!(stage.seat("A3"), SeatStatus::Free);
}

/// Money that came for nothing may fail to go back at first. When it goes back at last, the seats that other
/// money paid for stay.
#[test]
fn giving_back_a_second_payment_leaves_the_tickets_of_the_first() {
    let mut stage = Stage::new();
    let (id, slow) = timed_out(&mut stage, &["A3"]);
    let paid = stage.start_payment(id, Method::Card).unwrap();
    stage.settle(paid, Outcome::Completed);
    // The first went through after all: it goes back, but the provider cannot do it yet.
    stage.settle(slow, Outcome::Completed);
    let refund = stage.show.refunds.keys().next().unwrap();
    stage.tell(Command::SettleRefund { refund, failed: Some("no".into()) });
    assert_eq!(stage.show.payments[&slow].remainder(), 1000);
    let again = stage.refund_id();
    let back = NewRefund { id: again, payment: slow, amount: None, reason: "twice".into() };
    refused(stage.tell(Command::Refund(back))).unwrap();
    assert_eq!((stage.reservation(id).status, stage.seat("A3")), (ReservationStatus::Paid, SeatStatus::Sold));
    assert_eq!(stage.reservation(id).tickets[0].status, TicketStatus::Valid);
    // Canceling gives back what the other payment brought.
    stage.cancel(id, None, false).unwrap();
    assert_eq!(stage.show.payments[&paid].remainder(), 0);
    assert_eq!(stage.show.payments[&slow].remainder(), 0);
}

/// Two payments for one reservation, of which the first came through late: it goes back, and the second pays.
#[test]
fn money_given_back_does_not_stand_in_the_way_of_the_next() {
    let mut stage = Stage::new();
    let (id, slow) = timed_out(&mut stage, &["A3"]);
    let second = stage.start_payment(id, Method::Card).unwrap();
    stage.settle(slow, Outcome::Completed);
    assert_eq!(stage.show.payments[&slow].status, PaymentStatus::Refunded);
    assert_eq!(stage.show.next_deadline(), None, "the second is under way");
    stage.settle(second, Outcome::Completed);
    assert_eq!(stage.reservation(id).status, ReservationStatus::Paid);
    assert_eq!(stage.show.payments[&second].remainder(), 1000);
}

/// A payment of three seats failed, a seat was let go, and the rest lapsed: who pays late is not sold again what
/// they gave back.
#[test]
fn late_money_for_more_than_was_last_held_goes_back() {
    let mut stage = Stage::new();
    let (id, payment) = timed_out(&mut stage, &["B1", "B2", "B3"]);
    stage.cancel(id, Some(&["B3"]), false).unwrap();
    stage.pass(600);
    assert_eq!(stage.reservation(id).given_up.len(), 2);
    stage.settle(payment, Outcome::Completed);
    assert_eq!(stage.show.payments[&payment].status, PaymentStatus::Refunded);
    assert_eq!(stage.show.counts(), [8, 0, 0, 0]);
}

/// The same, paid after the seat was let go: what was paid for is what was last held.
#[test]
fn late_money_takes_again_what_was_last_held() {
    let mut stage = Stage::new();
    let id = stage.reserve(UserId::new(), &["B1", "B2", "B3"]).unwrap();
    stage.cancel(id, Some(&["B3"]), false).unwrap();
    let payment = stage.start_payment(id, Method::Card).unwrap();
    stage.settle(payment, Outcome::Failed { reason: "provider_timeout".into(), declined: false });
    stage.pass(600);
    stage.settle(payment, Outcome::Completed);
    assert_eq!(stage.reservation(id).status, ReservationStatus::Paid);
    assert_eq!((stage.reservation(id).tickets.len(), stage.seat("B3")), (2, SeatStatus::Free));
}

/// Seats changed to and fro are had once: late money must not stumble over them.
#[test]
fn late_money_for_seats_that_were_changed_to_and_fro_is_settled() {
    let mut stage = Stage::new();
    let (id, payment) = timed_out(&mut stage, &["B1", "B2", "B3"]);
    stage.cancel(id, Some(&["B3"]), false).unwrap();
    stage.change(id, &["B1", "B3"]).unwrap();
    stage.pass(600);
    assert_eq!(stage.reservation(id).total_minor(), 3000);
    stage.settle(payment, Outcome::Completed);
    assert_eq!(
        stage.show.payments[&payment].status,
        PaymentStatus::Refunded,
        "three were paid, two were held"
    );
    assert_eq!(stage.show.counts(), [8, 0, 0, 0]);
}

#[test]
fn a_ticket_admits_once() {
    let mut stage = Stage::new();
    let (id, _) = stage.buy(UserId::new(), &["A3", "A4"]);
    let tickets: Vec<_> = stage.show.reservations.get(&id).unwrap().tickets().map(|t| t.id).collect();
    let mut scan = |ticket, nonce: &str, force| {
        let nonce = nonce.to_owned();
        stage.tell(Command::CheckIn(CheckIn { ticket, nonce, at: None, force }))
    };
    assert!(matches!(scan(tickets[0], "1", false), Decision::Do(_)));
    assert_eq!(scan(tickets[0], "1", false), Decision::Already);
    assert!(matches!(scan(tickets[0], "2", false), Decision::Refuse(Refusal::AlreadyAdmitted { .. })));
    assert_eq!(scan(tickets[1], "1", false), Decision::Refuse(Refusal::NonceReused));
    assert!(matches!(scan(tickets[0], "3", true), Decision::Do(_)));
    let refusal = stage.cancel(id, None, false).unwrap_err();
    assert_eq!(refusal, Refusal::WrongState("a ticket of it was used"));
}

#[test]
fn a_canceled_ticket_does_not_admit() {
    let mut stage = Stage::new();
    let (id, _) = stage.buy(UserId::new(), &["A3"]);
    let ticket = stage.ticket(id);
    stage.cancel(id, None, false).unwrap();
    let scan = CheckIn { ticket, nonce: "1".into(), at: None, force: false };
    assert_eq!(stage.tell(Command::CheckIn(scan)), Decision::Refuse(Refusal::TicketCanceled));
}

#[test]
fn seats_change_in_one_step_and_the_deadline_stays() {
    let mut stage = Stage::new();
    let id = stage.reserve(UserId::new(), &["A3", "A4"]).unwrap();
    let deadline = stage.reservation(id).expires_at;
    stage.pass(60);
    let seats = ["A4", "B1"].map(|s| (s.to_owned(), None)).to_vec();
    refused(stage.tell(Command::ChangeSeats(ChangeSeats { reservation: id, seats, by_staff: false })))
        .unwrap();
    assert_eq!(
        (stage.seat("A3"), stage.seat("A4"), stage.seat("B1")),
        (SeatStatus::Free, SeatStatus::Held, SeatStatus::Held)
    );
    assert_eq!(stage.reservation(id).expires_at, deadline);
    assert_eq!(stage.reservation(id).total_minor(), 2500);
}

#[test]
fn a_key_does_one_thing_once_for_a_day() {
    let mut stage = Stage::new();
    let asked = |stage: &mut Stage, seat: &str, body: u8| {
        let id = ReservationId::new(stage.show.plan.facts.show, stage.now, stage.chance());
        let seats = vec![(seat.to_owned(), None)];
        let command = Command::Reserve(Reserve {
            id,
            reference: "R".into(),
            customer: None,
            contact: None,
            wish: Wish::Seats(seats),
            origin: None,
            by_staff: false,
        });
        let key = Some(Key { id: [7; 16], body: [body; 16] });
        stage.ask(Asked { command, by: None, key, trace: None, from: None })
    };
    assert!(matches!(asked(&mut stage, "A3", 1), Decision::Do(_)));
    assert_eq!(asked(&mut stage, "A3", 1), Decision::Repeat { seq: 2, index: 0 });
    assert_eq!(asked(&mut stage, "A4", 2), Decision::Refuse(Refusal::KeyReused));
    stage.now += SignedDuration::from_hours(23);
    assert!(matches!(asked(&mut stage, "A3", 1), Decision::Repeat { .. }));
    stage.now += SignedDuration::from_mins(59);
    assert!(matches!(asked(&mut stage, "A3", 1), Decision::Repeat { .. }));
}

/// A hall of `rows` rows of `seats` standard seats.
pub(super) fn hall(rows: u16, seats: u16) -> Created {
    let mut facts = facts();
    facts.max_seats_per_customer = None;
    facts.rows = (0..rows)
        .map(|row| PlanRow {
            // A, B, …, Z, then AA, AB, …
            row: match row {
                0..26 => char::from(b'A' + row as u8).to_string(),
                _ => format!(
                    "{}{}",
                    char::from(b'A' + (row / 26 - 1) as u8),
                    char::from(b'A' + (row % 26) as u8)
                ),
            },
            y: Some(row.into()),
            seats: (1..=seats)
                .map(|number| PlanSeat { number, kind: SeatType::Standard, x: Some(number.into()) })
                .collect(),
        })
        .collect();
    facts
}

fn best(stage: &mut Stage, count: usize, kind: Option<SeatType>) -> Result<Vec<String>, Refusal> {
    let id = stage.wish(Wanted::new(Wish::Best { count, kind, category: None }))?;
    let plan = stage.show.plan.clone();
    Ok(stage.reservation(id).seats.iter().map(|line| plan.place(line.seat).name.to_owned()).collect())
}

#[test]
fn the_best_seats_are_side_by_side_near_the_middle() {
    let mut stage = Stage::of(hall(10, 11));
    assert_eq!(best(&mut stage, 1, None).unwrap(), ["G6"]);
    assert_eq!(best(&mut stage, 3, None).unwrap(), ["F5", "F6", "F7"]);
}

#[test]
fn the_best_seats_leave_no_orphan_while_that_can_be_helped() {
    let mut stage = Stage::of(hall(1, 5));
    // The middle would leave two singles; the side leaves one run of two.
    let taken = best(&mut stage, 3, None).unwrap();
    assert!(taken == ["A1", "A2", "A3"] || taken == ["A3", "A4", "A5"], "{taken:?}");
    assert_eq!(best(&mut stage, 2, None).unwrap().len(), 2);
    assert_eq!(best(&mut stage, 1, None).unwrap_err(), Refusal::NotEnoughSeats { free: 0 });
}

#[test]
fn a_hundred_and_sixty_buyers_fill_eight_thousand_seats() {
    let mut stage = Stage::of(hall(160, 50));
    let mut seen = std::collections::BTreeSet::new();
    for buyer in 0..160 {
        let taken = best(&mut stage, 50, None).unwrap_or_else(|no| panic!("buyer {buyer}: {no:?}"));
        assert!(taken.into_iter().all(|seat| seen.insert(seat)));
    }
    assert_eq!(seen.len(), 8_000);
    assert_eq!(best(&mut stage, 1, None).unwrap_err(), Refusal::NotEnoughSeats { free: 0 });
}

/// Whatever the sizes of the groups, whatever was given back in between: who wants no more than is free gets
/// it, also under the rule against single gaps.
#[test]
fn who_wants_the_best_is_refused_only_when_fewer_are_free() {
    for single_gap_rule in [false, true] {
        let mut facts = hall(12, 15);
        facts.single_gap_rule = single_gap_rule;
        let mut stage = Stage::of(facts);
        let mut held = Vec::new();
        for turn in 0..600_usize {
            let free = stage.show.counts()[0];
            let count = 1 + (turn * 7 + turn / 5) % 9;
            match stage.wish(Wanted::best(count)) {
                Ok(id) => held.push(id),
                Err(Refusal::NotEnoughSeats { free: told }) => {
                    assert!(told == free && free < count, "turn {turn}: {count} of {free}");
                    // Some give theirs back, here and there.
                    for _ in 0..8 {
                        let back = held.swap_remove(turn * 31 % held.len());
                        stage.cancel(back, None, false).unwrap();
                    }
                }
                Err(other) => panic!("turn {turn}: {count} of {free}: {other:?}"),
            }
        }
    }
}

#[test]
fn where_no_row_has_room_the_best_are_near_each_other() {
    let mut stage = Stage::of(hall(2, 4));
    stage.reserve(UserId::new(), &["A2", "A3", "B2"]).unwrap();
    assert_eq!(best(&mut stage, 3, None).unwrap(), ["A4", "B3", "B4"]);
}

#[test]
fn a_general_request_never_gets_accessible_seats() {
    let mut stage = Stage::new();
    assert_eq!(best(&mut stage, 2, None).unwrap(), ["A3", "A4"]);
    assert_eq!(best(&mut stage, 1, None).unwrap_err(), Refusal::NotEnoughSeats { free: 0 });
    assert_eq!(best(&mut stage, 1, Some(SeatType::Accessible)).unwrap(), ["A1"]);
    assert_eq!(best(&mut stage, 4, Some(SeatType::Premium)).unwrap().len(), 4);
}

#[test]
fn a_companion_is_never_alone() {
    let mut stage = Stage::new();
    let ada = UserId::new();
    assert_eq!(stage.reserve(ada, &["A2"]).unwrap_err(), Refusal::CompanionAlone(vec!["A2".into()]));
    assert_eq!(stage.reserve(ada, &["A2", "A3"]).unwrap_err(), Refusal::CompanionAlone(vec!["A2".into()]));
    let (id, _) = stage.buy(ada, &["A1", "A2"]);
    assert_eq!(
        stage.cancel(id, Some(&["A1"]), false).unwrap_err(),
        Refusal::CompanionAlone(vec!["A2".into()])
    );
    stage.cancel(id, Some(&["A2"]), false).unwrap();
}

#[test]
fn no_single_seat_is_left_between_where_the_show_has_the_rule() {
    let mut facts = hall(1, 8);
    facts.single_gap_rule = true;
    let mut stage = Stage::of(facts);
    let (ada, bob) = (UserId::new(), UserId::new());
    stage.reserve(ada, &["A1", "A2"]).unwrap();
    assert_eq!(stage.reserve(bob, &["A4"]).unwrap_err(), Refusal::SingleSeatGap(vec!["A3".into()]));
    assert_eq!(stage.reserve(bob, &["A5", "A7"]).unwrap_err(), Refusal::SingleSeatGap(vec!["A6".into()]));
    // The end of a row is no taken seat.
    stage.reserve(bob, &["A7"]).unwrap();
    // Of four free seats, three can only be had by leaving one.
    stage.reserve(ada, &["A4", "A5", "A6"]).unwrap();
}

#[test]
fn blocked_seats_are_off_sale_until_they_are_not() {
    let mut stage = Stage::new();
    let names = |seats: &[&str]| seats.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let block = |seats: &[&str]| Command::Block { seats: names(seats), reason: "broken".into() };
    stage.reserve(UserId::new(), &["A3"]).unwrap();
    assert_eq!(
        refused(stage.tell(block(&["A3", "A4"]))).unwrap_err(),
        Refusal::SeatsUnavailable(vec!["A3".into()])
    );
    refused(stage.tell(block(&["A4"]))).unwrap();
    assert_eq!(stage.tell(block(&["A4"])), Decision::Already);
    assert_eq!(stage.seat("A4"), SeatStatus::Blocked);
    assert!(stage.reserve(UserId::new(), &["A4"]).is_err());
    refused(stage.tell(Command::Unblock { seats: names(&["A4"]) })).unwrap();
    stage.reserve(UserId::new(), &["A4"]).unwrap();
}

#[test]
fn a_show_may_move_until_it_begins() {
    let mut stage = Stage::new();
    let change = |starts_at| Command::ChangeShow(ChangeShow { starts_at: Some(starts_at), on_sale_at: None });
    let later = start() + SignedDuration::from_hours(48);
    refused(stage.tell(change(later))).unwrap();
    assert_eq!(stage.tell(change(later)), Decision::Already);
    stage.now = start() + SignedDuration::from_hours(47);
    stage.reserve(UserId::new(), &["A3"]).unwrap();
    stage.now = later;
    assert!(refused(stage.tell(change(later + SignedDuration::from_hours(1)))).is_err());
}

#[test]
fn a_canceled_show_pays_everybody_back_a_few_at_a_time() {
    let mut stage = Stage::new();
    let bought: Vec<_> = ["A3", "A4", "B1"].map(|seat| stage.buy(UserId::new(), &[seat])).to_vec();
    let held = stage.reserve(UserId::new(), &["B2"]).unwrap();
    let open = stage.reserve(UserId::new(), &["B3"]).unwrap();
    let payment = stage.start_payment(open, Method::Card).unwrap();
    let rest = |stage: &mut Stage| {
        let chance = stage.chance();
        stage.tell(Command::CancelRest { limit: 3, chance })
    };
    assert!(matches!(rest(&mut stage), Decision::Refuse(_)));
    refused(stage.tell(Command::CancelShow { reason: "no power".into() })).unwrap();
    assert!(matches!(stage.reserve(UserId::new(), &["B4"]).unwrap_err(), Refusal::NotOnSale(_)));
    rest(&mut stage);
    rest(&mut stage);
    assert_eq!(rest(&mut stage), Decision::Already);
    for (reservation, payment) in bought {
        assert_eq!(stage.reservation(reservation).status, ReservationStatus::Canceled);
        assert_eq!(stage.show.payments[&payment].status, PaymentStatus::Refunded);
    }
    assert_eq!(stage.reservation(held).status, ReservationStatus::Canceled);
    // The one whose payment was under way comes after its outcome.
    stage.settle(payment, Outcome::Completed);
    rest(&mut stage);
    assert_eq!(stage.show.payments[&payment].status, PaymentStatus::Refunded);
    assert_eq!(stage.show.counts(), [8, 0, 0, 0]);
}
