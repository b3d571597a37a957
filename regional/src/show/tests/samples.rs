//! A stored sample of every format, folded for ever: what was journaled once stays readable.

use super::*;

/// One journal of format 1, entry by entry, with at least one of each kind of event.
const FORMAT_1: &str = include_str!("format_1.jsonl");

fn folded(sample: &str) -> Show {
    let entries = (1..).zip(sample.lines());
    let show = entries.fold(None, |show, (seq, line)| {
        let groups = decode(1, line.as_bytes()).unwrap_or_else(|e| panic!("entry {seq}: {e}"));
        Show::fold(show, seq, &groups).unwrap()
    });
    show.unwrap()
}

#[test]
fn format_1_still_folds() {
    let show = folded(FORMAT_1);
    let status = |s: ReservationStatus| show.reservations.values().filter(|r| r.status == s).count();
    assert_eq!(status(ReservationStatus::Paid), 2);
    assert_eq!(status(ReservationStatus::Canceled), 2);
    assert_eq!(status(ReservationStatus::Expired), 2);
    assert_eq!(status(ReservationStatus::Refunded), 1);
    assert_eq!(show.refunds.len(), 4);
}

/// Another of format 1, with what ran out while nobody led.
const FORMAT_1_GRACE: &str = include_str!("format_1_grace.jsonl");

#[test]
fn a_grace_in_format_1_still_folds() {
    let show = folded(FORMAT_1_GRACE);
    let [held] = &show.reservations.values().collect::<Vec<_>>()[..] else { panic!("one") };
    assert_eq!(held.status, ReservationStatus::Reserved);
    assert_eq!(held.expires_at.time(), show.led_at.time() + SignedDuration::from_secs(60));
}

/// Another of format 1, with what limits left in journals: where a customer came from, since when one held
/// seats, and what staff set aside.
const FORMAT_1_LIMITS: &str = include_str!("format_1_limits.jsonl");

#[test]
fn limits_in_format_1_still_fold() {
    let show = folded(FORMAT_1_LIMITS);
    let [lapsed, again, staff] = &show.reservations.values().collect::<Vec<_>>()[..] else { panic!("three") };
    assert_eq!(again.held_since, lapsed.created_at, "one hold after another");
    assert_eq!((lapsed.origin(), again.origin(), staff.origin()), (Some(Origin(7)), Some(Origin(7)), None));
    assert_eq!(show.seats_from(Origin(7)), 1);
    let rules: Vec<Rule> = staff.waivers.iter().map(|waiver| waiver.rule).collect();
    assert_eq!(rules, [Rule::SeatLimit, Rule::SeatLimit]);
    assert!(staff.waivers.iter().all(|waiver| waiver.by.is_some()));
    assert_eq!(staff.seats.len(), 7);
}

/// Another, with contacts as they are sealed; `limits` has one from before.
const FORMAT_1_SEALED: &str = include_str!("format_1_sealed.jsonl");

#[test]
fn contacts_in_format_1_still_fold_sealed_or_not() {
    let show = folded(FORMAT_1_SEALED);
    let contacts: Vec<_> = show.reservations.values().map(|r| r.contact.clone()).collect();
    let of = |digest: u8, sealed: &[u8]| Some(Contact::new([digest; 6], sealed));
    assert_eq!(contacts, [of(1, b"one"), of(1, b"other"), of(2, b""), None]);
    assert_eq!(show.seats_of(None, contacts[1].as_ref().map(Contact::digest)), 2);
    assert!(!FORMAT_1_SEALED.contains("\"contact\""), "only what is sealed is written");

    // Before contacts were sealed they stood as they were written; they are counted, and not shown.
    let show = folded(FORMAT_1_LIMITS);
    let written = show.reservations.values().next().unwrap().contact.clone().unwrap();
    assert_eq!(
        (written.digest(), written.sealed()),
        (Contact::counted("gUEST@EXAMPLE.COM").digest(), &[][..])
    );
    assert!(FORMAT_1_LIMITS.contains(r#""contact":"Guest@example.com""#));
}

#[test]
fn a_contact_that_is_neither_sealed_nor_an_address_is_refused() {
    let line = FORMAT_1_SEALED.lines().nth(1).unwrap();
    assert!(decode(1, line.as_bytes()).is_ok());
    for bad in ["AAAA", "not base64!", ""] {
        let sealed = Contact::new([1; 6], b"one").to_string();
        let altered = line.replace(&sealed, bad);
        assert!(altered != line && decode(1, altered.as_bytes()).is_err(), "{bad}");
    }
}

/// Every kind of event stands in the sample; a new kind needs a new sample line.
#[test]
fn the_sample_has_every_kind_of_event() {
    for kind in [
        "led",
        "created",
        "reserved",
        "seats_changed",
        "lapsed",
        "extended",
        "payment_started",
        "payment_pending",
        "payment_completed",
        "payment_failed",
        "payment_unclaimed",
        "canceled",
        "refund_started",
        "refund_completed",
        "refund_failed",
        "checked_in",
        "retaken",
        "blocked",
        "unblocked",
        "rescheduled",
        "on_sale_changed",
        "show_canceled",
    ] {
        let written = format!(r#""e":"{kind}""#);
        assert!([FORMAT_1, FORMAT_1_GRACE].iter().any(|sample| sample.contains(&written)), "{kind}");
    }
}

#[test]
fn what_is_not_whole_is_refused() {
    let whole = encode(&Stage::new().journal[0]);
    assert!(decode(FORMAT, &whole).is_ok());
    assert!(decode(FORMAT + 1, &whole).is_err());
    assert!(decode(0, &whole).is_err());
    for cut in 1..whole.len() {
        assert!(decode(FORMAT, &whole[..cut]).is_err(), "cut at {cut}");
    }
}

/// Writes the sample anew: `MARQUEE_WRITE_SAMPLE=path cargo test -p regional write_sample`.
#[test]
fn write_sample() {
    let Ok(path) = std::env::var("MARQUEE_WRITE_SAMPLE") else { return };
    let mut stage = Stage::new();
    let people: Vec<UserId> = (0..5).map(|_| UserId::new()).collect();
    let (bought, _) = stage.buy(people[0], &["A3", "A4"]);
    let ticket = stage.ticket(bought);
    stage.tell(Command::CheckIn(CheckIn { ticket, nonce: "n".into(), at: None, force: false }));
    let (canceled, _) = stage.buy(people[1], &["B1"]);
    stage.cancel(canceled, None, false).unwrap();
    let back = stage.show.refunds.keys().next().unwrap();
    stage.tell(Command::SettleRefund { refund: back, failed: None });
    let (_, payment) = stage.buy(people[2], &["B2"]);
    let id = stage.refund_id();
    stage.tell(Command::Refund(NewRefund { id, payment, amount: Some(1), reason: "x".into() }));
    stage.tell(Command::SettleRefund { refund: id, failed: Some("no".into()) });
    let id = stage.refund_id();
    stage.tell(Command::Refund(NewRefund { id, payment, amount: None, reason: "x".into() }));
    let changed = stage.reserve(people[3], &["B3"]).unwrap();
    let seats = vec![("B4".to_owned(), None)];
    stage.tell(Command::ChangeSeats(ChangeSeats { reservation: changed, seats, by_staff: false }));
    let late = stage.reserve(people[4], &["B1"]).unwrap();
    let payment = stage.start_payment(late, Method::Online).unwrap();
    stage.settle(payment, Outcome::Pending);
    stage.settle(payment, Outcome::Failed { reason: "x".into(), declined: true });
    stage.pass(700);
    let other = stage.reserve(people[3], &["B1"]).unwrap();
    stage.settle(payment, Outcome::Completed);
    stage.cancel(other, None, false).unwrap();
    let again = stage.reserve(people[4], &["B1"]).unwrap();
    let payment = stage.start_payment(again, Method::Card).unwrap();
    stage.settle(payment, Outcome::Failed { reason: "x".into(), declined: false });
    stage.pass(700);
    stage.settle(payment, Outcome::Completed);
    let seats = vec!["B4".to_owned()];
    stage.tell(Command::Block { seats: seats.clone(), reason: "broken".into() });
    stage.tell(Command::Unblock { seats });
    let starts_at = Some(start() + SignedDuration::from_hours(30));
    stage.tell(Command::ChangeShow(ChangeShow { starts_at, on_sale_at: Some(None) }));
    stage.tell(Command::CancelShow { reason: "no power".into() });
    write(&stage, &path);
    write(&limits(), &format!("{path}.limits"));
    write(&sealed(), &format!("{path}.sealed"));
}

fn sealed() -> Stage {
    let mut stage = Stage::new();
    let wanted = |seat: &str, contact: Option<Contact>| Wanted { contact, ..Wanted::seats(&[seat]) };
    for (seat, contact) in [
        ("B1", Some(Contact::new([1; 6], b"one"))),
        ("B2", Some(Contact::new([1; 6], b"other"))),
        ("B3", Some(Contact::new([2; 6], b""))),
        ("B4", None),
    ] {
        stage.wish(wanted(seat, contact)).unwrap();
    }
    stage
}

fn write(stage: &Stage, path: &str) {
    let lines: Vec<String> =
        stage.journal.iter().map(|groups| String::from_utf8(encode(groups)).unwrap()).collect();
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

fn limits() -> Stage {
    let mut stage = Stage::new();
    let (customer, staff) = (UserId::new(), UserId::new());
    let own = |names: &[&str]| Wanted {
        customer: Some(customer),
        contact: Some(Contact::counted("Guest@example.com")),
        origin: Some(Origin(7)),
        ..Wanted::seats(names)
    };
    stage.wish(own(&["B4"])).unwrap();
    stage.pass(601);
    stage.wish(own(&["B4"])).unwrap();
    let group = Wanted { staff: Some(staff), ..Wanted::seats(&["A1", "A2", "A3", "A4", "B1", "B2"]) };
    let group = stage.wish(Wanted { customer: Some(customer), ..group }).unwrap();
    let seats = ["A1", "A2", "A3", "A4", "B1", "B2", "B3"].map(|name| (name.to_owned(), None)).into();
    let change = Command::ChangeSeats(ChangeSeats { reservation: group, seats, by_staff: true });
    stage.ask(Asked { command: change, by: Some(staff), key: None, trace: None, from: None });
    stage
}
