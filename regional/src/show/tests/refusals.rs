//! Every refusal is reached by a command, and its code stands on the page about selling.

use common::{Problem, TicketId};

use super::*;

/// What a page for people says of the codes.
const PAGE: &str = include_str!("../../../../docs/selling.md");

/// How many kinds there are; a new one does not compile until it has a number here, and fails until it is
/// reached below.
const KINDS: usize = 25;

fn kind(refusal: &Refusal) -> usize {
    match refusal {
        Refusal::SeatsUnavailable(_) => 0,
        Refusal::UnknownSeats(_) => 1,
        Refusal::UnknownCategory { .. } => 2,
        Refusal::NoSeats => 3,
        Refusal::NotEnoughSeats { .. } => 4,
        Refusal::SingleSeatGap(_) => 5,
        Refusal::CompanionAlone(_) => 6,
        Refusal::DuplicateSeat(_) => 7,
        Refusal::SeatLimit { .. } => 8,
        Refusal::AddressLimit { .. } => 9,
        Refusal::HoldLimit { .. } => 10,
        Refusal::NotOnSale(_) => 11,
        Refusal::UnknownReservation => 12,
        Refusal::UnknownPayment => 13,
        Refusal::UnknownTicket => 14,
        Refusal::ReservationExpired => 15,
        Refusal::WrongState(_) => 16,
        Refusal::PaymentUnderWay(_) => 17,
        Refusal::RefundWindowClosed => 18,
        Refusal::RefundTooLarge { .. } => 19,
        Refusal::AlreadyAdmitted { .. } => 20,
        Refusal::TicketCanceled => 21,
        Refusal::TicketRefunded => 22,
        Refusal::NonceReused => 23,
        Refusal::KeyReused => 24,
    }
}

/// One story in which everything is refused once.
fn story() -> Vec<Refusal> {
    let mut facts = facts();
    facts.max_seats_per_customer = Some(1);
    facts.single_gap_rule = true;
    let mut stage = Stage::of(facts);
    let mut seen = Vec::new();
    let show = stage.show.plan.facts.show;
    let ada = UserId::new();
    let mut no = |refusal: Result<_, Refusal>| seen.push(refusal.map(|_: ()| ()).unwrap_err());
    let ids = |result: Result<ReservationId, Refusal>| result.map(|_| ());

    no(ids(stage.reserve(ada, &[])));
    no(ids(stage.reserve(ada, &["Z9"])));
    no(ids(stage.reserve(ada, &["A3", "A3"])));
    let dog = vec![("A3".to_owned(), Some("dog".to_owned()))];
    no(ids(stage.wish(Wanted::new(Wish::Seats(dog)))));
    no(ids(stage.reserve(ada, &["A2"])));
    no(ids(stage.wish(Wanted::best(9))));
    no(ids(stage.reserve(ada, &["A3", "A4"])));

    let id = stage.reserve(ada, &["B1"]).unwrap();
    no(ids(stage.reserve(UserId::new(), &["B1"])));
    no(ids(stage.reserve(UserId::new(), &["B3"])));
    let payment = stage.start_payment(id, Method::Card).unwrap();
    no(stage.cancel(id, None, false));
    stage.settle(payment, Outcome::Completed);
    no(stage.start_payment(id, Method::Card).map(|_| ()));
    let back = |stage: &mut Stage, payment, amount| {
        let id = stage.refund_id();
        refused(stage.tell(Command::Refund(NewRefund { id, payment, amount, reason: "x".into() })))
    };
    no(back(&mut stage, payment, Some(9_999)));
    let nobody = ReservationId::new(show, stage.now, 1);
    no(stage.cancel(nobody, None, false));
    let nothing = PaymentId::new(show, stage.now, 1);
    no(back(&mut stage, nothing, None));

    let scan = |stage: &mut Stage, ticket, nonce: &str| {
        let scan = CheckIn { ticket, nonce: nonce.into(), at: None, force: false };
        refused(stage.tell(Command::CheckIn(scan)))
    };
    let forged = TicketId::new(show, stage.now, 1);
    no(scan(&mut stage, forged, "1"));
    let ticket = stage.ticket(id);
    scan(&mut stage, ticket, "2").unwrap();
    no(scan(&mut stage, ticket, "3"));
    let ticket_of = |stage: &Stage, id| stage.ticket(id);
    let (canceled, _) = stage.buy(UserId::new(), &["B2"]);
    stage.cancel(canceled, None, false).unwrap();
    let ticket = ticket_of(&stage, canceled);
    no(scan(&mut stage, ticket, "2"));
    no(scan(&mut stage, ticket, "4"));
    let (refunded, payment) = stage.buy(UserId::new(), &["B2"]);
    back(&mut stage, payment, None).unwrap();
    let ticket = ticket_of(&stage, refunded);
    no(scan(&mut stage, ticket, "5"));

    let names: Vec<UserId> = (0..9).map(|_| UserId::new()).collect();
    for name in &names {
        let origin = Some(Origin(7));
        let wish = Wanted { customer: Some(*name), origin, ..Wanted::seats(&["A3"]) };
        let id = stage.wish(wish).unwrap();
        stage.start_payment(id, Method::Cash).unwrap();
        // Refunded after the show began in the customers' books, the seat stays theirs; here it is freed.
        stage.cancel(id, None, true).unwrap();
    }
    let mut crowded = Stage::of({
        let mut facts = rules::hall(2, 8);
        facts.max_seats_per_customer = Some(1);
        facts
    });
    let seats: Vec<String> = crowded.show.plan.places().map(|place| place.name.to_owned()).collect();
    let from = |seat: &str| Wanted {
        customer: Some(UserId::new()),
        origin: Some(Origin(7)),
        ..Wanted::seats(&[seat])
    };
    for seat in &seats[..10] {
        crowded.wish(from(seat)).unwrap();
    }
    no(ids(crowded.wish(from(&seats[10]))));

    let key = |body| Some(Key { id: [1; 16], body: [body; 16] });
    let keyed = |stage: &mut Stage, body| {
        let block = Command::Block { seats: vec!["A4".into()], reason: "x".into() };
        refused(stage.ask(Asked { command: block, by: None, key: key(body), trace: None, from: None }))
    };
    keyed(&mut stage, 1).unwrap();
    no(keyed(&mut stage, 2));

    let lapsed = stage.reserve(names[0], &["A3"]).unwrap();
    stage.pass(600);
    no(stage.start_payment(lapsed, Method::Card).map(|_| ()));
    stage.reserve(names[0], &["A3"]).unwrap();
    stage.pass(600);
    no(ids(stage.reserve(names[0], &["A3"])));
    stage.now = stage.show.starts_at;
    no(ids(stage.reserve(ada, &["A3"])));
    no(stage.cancel(refunded, None, false));
    let (late, _) = {
        let mut late = Stage::new();
        let bought = late.buy(ada, &["A3"]);
        late.now = late.show.starts_at - SignedDuration::from_secs(60);
        (late.cancel(bought.0, None, false), ())
    };
    no(late);
    seen
}

#[test]
fn every_refusal_is_reached() {
    let seen = story();
    let missing: Vec<usize> =
        (0..KINDS).filter(|wanted| !seen.iter().any(|refusal| kind(refusal) == *wanted)).collect();
    assert!(missing.is_empty(), "{missing:?} of {seen:?}");
}

#[test]
fn every_refusal_has_a_code_that_is_explained() {
    for refusal in story() {
        let told = format!("{refusal:?}");
        let problem = Problem::from(refusal);
        assert!(problem.status.is_client_error(), "{told}");
        // What is not there, and an ill-formed request, have the codes of all calls.
        let general = ["not-found", "invalid-request"].contains(&problem.code);
        assert!(general || PAGE.contains(&format!("`{}`", problem.code)), "{told}: `{}`", problem.code);
    }
}
