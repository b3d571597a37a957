//! How much one customer may have, for how long, and until when: limits and clocks, each by an example.

use jiff::Zoned;

use super::*;

fn guest(contact: &str, seats: &[&str]) -> Wanted {
    Wanted { contact: Some(Contact::counted(contact)), ..Wanted::seats(seats) }
}

fn from(origin: u64, seats: &[&str]) -> Wanted {
    Wanted { customer: Some(UserId::new()), origin: Some(Origin(origin)), ..Wanted::seats(seats) }
}

#[test]
fn a_customer_has_a_limit_and_staff_have_none_but_leave_their_name() {
    let mut stage = Stage::new();
    let (ada, bob) = (UserId::new(), UserId::new());
    stage.reserve(ada, &["A3", "A4", "B1", "B2"]).unwrap();
    let three = ["A1", "A2", "B3"];
    assert_eq!(stage.reserve(ada, &three).unwrap_err(), Refusal::SeatLimit { limit: 6 });
    let by_bob = Wanted { customer: Some(ada), staff: Some(bob), ..Wanted::seats(&three) };
    let id = stage.wish(by_bob).unwrap();
    let waiver = Waiver { rule: Rule::SeatLimit, by: Some(bob), at: stage.now };
    assert_eq!(stage.reservation(id).waivers, [waiver]);
    // It stands in the journal, too.
    let stored = String::from_utf8(encode(stage.journal.last().unwrap())).unwrap();
    assert!(stored.contains(r#""waived":["seat-limit"]"#) && stored.contains(&bob.to_string()), "{stored}");
    // Where staff break no rule, nothing was set aside.
    let id = stage.wish(Wanted { staff: Some(bob), ..guest("eve@example.org", &["B4"]) }).unwrap();
    assert_eq!(stage.reservation(id).waivers, []);
}

#[test]
fn what_staff_change_over_the_limit_leaves_their_name() {
    let mut facts = facts();
    facts.max_seats_per_customer = Some(2);
    facts.single_gap_rule = true;
    let mut stage = Stage::of(facts);
    let bob = UserId::new();
    let id = stage.reserve(UserId::new(), &["B1"]).unwrap();
    let seats = ["B1", "B3", "A3"].map(|s| (s.to_owned(), None)).to_vec();
    let mut change = |by_staff| {
        let command = Command::ChangeSeats(ChangeSeats { reservation: id, seats: seats.clone(), by_staff });
        refused(stage.ask(Asked { command, by: Some(bob), key: None, trace: None, from: None }))
    };
    assert_eq!(change(false).unwrap_err(), Refusal::SeatLimit { limit: 2 });
    change(true).unwrap();
    let waived: Vec<Rule> = stage.reservation(id).waivers.iter().map(|w| w.rule).collect();
    assert_eq!(waived, [Rule::SeatLimit, Rule::SingleSeatGap]);
}

#[test]
fn guests_count_by_their_contact_however_it_is_written() {
    let mut stage = Stage::new();
    stage.wish(guest("ada@example.org", &["A3", "A4", "B1", "B2"])).unwrap();
    let more = guest("Ada@Example.ORG", &["A1", "A2", "B3"]);
    assert_eq!(stage.wish(more).unwrap_err(), Refusal::SeatLimit { limit: 6 });
    // An account does not help while the contact is the same.
    let more = Wanted { customer: Some(UserId::new()), ..guest("ada@example.org", &["A1", "A2", "B3"]) };
    assert_eq!(stage.wish(more).unwrap_err(), Refusal::SeatLimit { limit: 6 });
    stage.wish(guest("eve@example.org", &["A1", "A2", "B3"])).unwrap();
}

/// A household shares an address and is not refused; a hoarder with many accounts is.
#[test]
fn one_address_has_as_many_seats_as_ten_customers() {
    let mut facts = rules::hall(4, 8);
    facts.max_seats_per_customer = Some(2);
    let mut stage = Stage::of(facts);
    let names: Vec<String> = stage.show.plan.places().map(|place| place.name.to_owned()).collect();
    for pair in names[..20].chunks(2) {
        stage.wish(from(1, &[&pair[0], &pair[1]])).unwrap();
    }
    let limit = Refusal::AddressLimit { limit: 20 };
    assert_eq!(stage.wish(from(1, &[&names[20]])).unwrap_err(), limit);
    // Another address, or one that tells nothing, is not concerned; nor are staff, who leave their name.
    let moved = stage.wish(from(2, &[&names[20]])).unwrap();
    stage.reserve(UserId::new(), &[&names[21]]).unwrap();
    let staff = stage.wish(Wanted { staff: Some(UserId::new()), ..from(1, &[&names[22]]) }).unwrap();
    assert_eq!(stage.reservation(staff).waivers[0].rule, Rule::AddressLimit);
    stage.change(moved, &[&names[23], &names[24]]).unwrap();
    // Who gives up makes room, also by a change.
    let first = stage.show.reservations.keys().next().unwrap();
    assert_eq!(stage.change(first, &[&names[0], &names[25]]), Ok(()), "as many as before");
    stage.cancel(staff, None, true).unwrap();
    stage.cancel(first, Some(&[&names[25]]), false).unwrap();
    let one_more = stage.wish(from(1, &[&names[26]])).unwrap();
    assert_eq!(stage.change(one_more, &[&names[26], &names[27]]).unwrap_err(), limit);
    // Its address is no part of the journal in any readable form: only the number that the asker made of it.
    let stored = String::from_utf8(encode(stage.journal.last().unwrap())).unwrap();
    assert!(stored.contains(r#""origin":1"#), "{stored}");
}

/// Everything that might push a hold's end: changes of seats, declined payments, a payment that is started in
/// the moment in which the last one failed.
#[test]
fn no_sequence_moves_the_end_of_a_hold() {
    let mut stage = Stage::new();
    let id = stage.reserve(UserId::new(), &["A3"]).unwrap();
    let deadline = stage.reservation(id).expires_at;
    for turn in 0..10 {
        stage.pass(50);
        let seats = if turn % 2 == 0 { ["A4"] } else { ["A3"] };
        stage.change(id, &seats).unwrap();
        let payment = stage.start_payment(id, Method::Card).unwrap();
        stage.settle(payment, Outcome::Failed { reason: "card_declined".into(), declined: true });
        assert_eq!(stage.reservation(id).expires_at, deadline);
    }
    stage.pass(99);
    let payment = stage.start_payment(id, Method::Card).unwrap();
    stage.pass(30);
    assert_eq!(stage.reservation(id).status, ReservationStatus::Reserved, "the payment is under way");
    // The outcome and the next try stand in one batch: no time passes in which it could lapse.
    stage.settle(payment, Outcome::Failed { reason: "card_declined".into(), declined: true });
    assert_eq!(stage.start_payment(id, Method::Card).unwrap_err(), Refusal::ReservationExpired);
    assert_eq!(stage.start_payment(id, Method::Cash).unwrap_err(), Refusal::ReservationExpired);
    assert_eq!(stage.change(id, &["B1"]).unwrap_err(), Refusal::ReservationExpired);
    stage.pass(0);
    assert_eq!(stage.reservation(id).status, ReservationStatus::Expired);
}

/// Holding again as soon as a hold ends, of whichever seats, comes to an end, and then it is others' turn.
#[test]
fn who_never_pays_cannot_hold_for_ever() {
    let mut stage = Stage::new();
    let ada = UserId::new();
    let began = stage.now;
    let (mut tries, mut held_until) = (0, began);
    let until = loop {
        // Now this seat, now that one; now given up early, now lapsed.
        let seat = if tries % 2 == 0 { "A3" } else { "A4" };
        match stage.reserve(ada, &[seat]) {
            Ok(id) => {
                held_until = stage.reservation(id).expires_at.time();
                stage.pass(if tries % 3 == 0 { 400 } else { 600 });
                if stage.reservation(id).status == ReservationStatus::Reserved {
                    stage.cancel(id, None, false).unwrap();
                }
            }
            Err(Refusal::HoldLimit { until }) => break until,
            Err(other) => panic!("{other:?}"),
        }
        tries += 1;
        assert!(tries < 20, "it goes on for ever");
    };
    assert!(held_until <= began + SignedDuration::from_secs(3 * 600));
    assert!(until > stage.now);
    // Others may, and so may whoever waits.
    stage.reserve(UserId::new(), &["A3"]).unwrap();
    stage.now = until;
    stage.reserve(ada, &["A4"]).unwrap();
}

#[test]
fn who_pays_is_not_held_to_the_limit_on_holds() {
    let mut stage = Stage::new();
    let ada = UserId::new();
    for seat in ["A3", "A4", "B1"] {
        stage.buy(ada, &[seat]);
        stage.pass(599);
    }
    stage.reserve(ada, &["B2"]).unwrap();
}

#[test]
fn sale_has_a_beginning_and_an_end() {
    let mut stage = Stage::new();
    stage.now = start() - SignedDuration::from_secs(1);
    let refusal = stage.reserve(UserId::new(), &["A3"]).unwrap_err();
    assert_eq!(refusal, Refusal::NotOnSale("the sale has not begun"));
    stage.now = stage.show.plan.facts.starts_at;
    let refusal = stage.reserve(UserId::new(), &["A3"]).unwrap_err();
    assert_eq!(refusal, Refusal::NotOnSale("the show has begun"));
}

/// The sale ends when the clock on the cinema's wall shows the start, also on the days when clocks change,
/// and at 02:30 of the night that has it twice.
#[test]
fn the_sale_ends_at_the_start_by_the_cinemas_clock_on_days_when_clocks_change() {
    for (local, utc) in [
        ("2027-03-28T01:59:59+01:00[Europe/Berlin]", "2027-03-28T00:59:59Z"),
        ("2027-03-28T03:00:00+02:00[Europe/Berlin]", "2027-03-28T01:00:00Z"),
        ("2027-03-28T20:15:00+02:00[Europe/Berlin]", "2027-03-28T18:15:00Z"),
        ("2027-10-31T02:30:00+02:00[Europe/Berlin]", "2027-10-31T00:30:00Z"),
        ("2027-10-31T02:30:00+01:00[Europe/Berlin]", "2027-10-31T01:30:00Z"),
        ("2027-10-31T20:15:00+01:00[Europe/Berlin]", "2027-10-31T19:15:00Z"),
    ] {
        let wall: Zoned = local.parse().unwrap();
        let mut facts = facts();
        facts.starts_at = utc.parse().unwrap();
        let mut stage = Stage::of(facts);
        stage.now = wall.timestamp() - SignedDuration::from_secs(1);
        stage.reserve(UserId::new(), &["A3"]).unwrap_or_else(|no| panic!("{local}: {no:?}"));
        stage.now = wall.timestamp();
        let refusal = stage.reserve(UserId::new(), &["A4"]).unwrap_err();
        assert_eq!(refusal, Refusal::NotOnSale("the show has begun"), "{local}");
    }
}
