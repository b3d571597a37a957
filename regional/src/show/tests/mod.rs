//! The core against a slow, obvious model: random commands, every invariant after each.

mod limits;
mod model;
mod refusals;
mod rules;
mod samples;

use common::{CinemaId, HallId, MovieId, PaymentId, RefundId, RegionName, ReservationId, ShowId, UserId};
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::halls::layout::SeatType;

/// A show of two rows of four seats, of which A1 is accessible and A2 its companion.
pub(crate) struct Stage {
    pub show: Show,
    pub now: Timestamp,
    pub journal: Vec<Vec<Group>>,
    next: u32,
}

/// A reservation as a test asks for it.
pub(crate) struct Wanted {
    pub wish: Wish,
    pub customer: Option<UserId>,
    pub contact: Option<Contact>,
    pub origin: Option<Origin>,
    pub staff: Option<UserId>,
}

impl Wanted {
    pub fn new(wish: Wish) -> Self {
        Self { wish, customer: None, contact: None, origin: None, staff: None }
    }

    pub fn seats(names: &[&str]) -> Self {
        Self::new(Wish::Seats(names.iter().map(|s| ((*s).to_owned(), None)).collect()))
    }

    pub fn best(count: usize) -> Self {
        Self::new(Wish::Best { count, kind: None, category: None })
    }
}

pub(crate) fn start() -> Timestamp {
    "2027-03-01T12:00:00Z".parse().unwrap()
}

pub(crate) fn facts() -> Created {
    let home: RegionName = "eu".parse().unwrap();
    let row = |name: &str, kinds: [SeatType; 4]| PlanRow {
        row: name.into(),
        y: None,
        seats: (1..).zip(kinds).map(|(number, kind)| PlanSeat { number, kind, x: None }).collect(),
    };
    let price =
        |seat_type, category: &str, amount| PriceLine { seat_type, category: category.into(), amount };
    use SeatType::{Accessible, Companion, Premium, Standard};
    Created {
        show: ShowId::new(&home),
        cinema: CinemaId::new(&home),
        hall: HallId::new(&home),
        home,
        cinema_name: "Lichtburg".into(),
        address: "Main Street 1".into(),
        hall_name: "1".into(),
        layout_version: 1,
        movie: MovieId::new(),
        title: "The Wizard of Oz".into(),
        runtime_min: 103,
        time_zone: "Europe/Berlin".into(),
        currency: "EUR".parse().unwrap(),
        starts_at: start() + SignedDuration::from_hours(24),
        on_sale_at: Some(start()),
        rows: vec![row("A", [Accessible, Companion, Standard, Standard]), row("B", [Premium; 4])],
        prices: vec![
            price(Standard, "adult", 1000),
            price(Standard, "child", 700),
            price(Accessible, "adult", 1000),
            price(Companion, "adult", 0),
            price(Premium, "adult", 1500),
        ],
        max_seats_per_customer: Some(6),
        single_gap_rule: false,
        refund_tiers: vec![
            RefundTier { until_secs_before_start: 7_200, percent: 100 },
            RefundTier { until_secs_before_start: 1_200, percent: 50 },
        ],
        hold_secs: 600,
    }
}

impl Stage {
    pub fn new() -> Self {
        Self::of(facts())
    }

    pub fn of(facts: Created) -> Self {
        let led = Event::Led { epoch: 1, session: 1, attempt: 1 };
        let group =
            |event| Group { at: start(), by: None, key: None, trace: None, from: None, events: vec![event] };
        let first = vec![group(led), group(Event::Created(Box::new(facts)))];
        let show = Show::fold(None, 1, &first).unwrap().unwrap();
        Self { show, now: start(), journal: vec![first], next: 0 }
    }

    pub fn chance(&mut self) -> u32 {
        self.next += 1_000;
        self.next
    }

    /// Asks, and appends what was decided as an entry of its own.
    pub fn ask(&mut self, asked: Asked) -> Decision {
        let decision = decide(&self.show, &asked, self.now);
        if let Decision::Do(events) = &decision {
            let (by, key, trace) = (asked.by, asked.key, asked.trace);
            self.append(Group { at: self.now, by, key, trace, from: None, events: events.clone() });
        }
        decision
    }

    pub fn append(&mut self, group: Group) {
        let seq = self.show.seq + 1;
        self.show.apply(seq, std::slice::from_ref(&group)).unwrap();
        self.journal.push(vec![group]);
    }

    pub fn tell(&mut self, command: Command) -> Decision {
        self.ask(Asked { command, by: None, key: None, trace: None, from: None })
    }

    /// Time passes with nobody leading; then somebody does.
    pub fn pass_unled(&mut self, secs: i64) {
        self.now += SignedDuration::from_secs(secs);
        let led = Event::Led { epoch: 2, session: 2, attempt: 1 };
        self.append(Group { at: self.now, by: None, key: None, trace: None, from: None, events: vec![led] });
        self.tell(Command::ExpireDue);
    }

    pub fn pass(&mut self, secs: i64) {
        self.now += SignedDuration::from_secs(secs);
        self.tell(Command::ExpireDue);
    }

    pub fn reserve(&mut self, customer: UserId, seats: &[&str]) -> Result<ReservationId, Refusal> {
        let seats = seats.iter().map(|s| ((*s).to_owned(), None)).collect();
        self.wish(Wanted { customer: Some(customer), ..Wanted::new(Wish::Seats(seats)) })
    }

    pub fn wish(&mut self, wanted: Wanted) -> Result<ReservationId, Refusal> {
        let id = ReservationId::new(self.show.plan.facts.show, self.now, self.chance());
        let Wanted { wish, customer, contact, origin, staff } = wanted;
        let reference = "REF".to_owned();
        let by_staff = staff.is_some();
        let command = Command::Reserve(Reserve { id, reference, customer, contact, wish, origin, by_staff });
        refused(self.ask(Asked { command, by: staff, key: None, trace: None, from: None })).map(|()| id)
    }

    pub fn change(&mut self, reservation: ReservationId, seats: &[&str]) -> Result<(), Refusal> {
        let seats = seats.iter().map(|s| ((*s).to_owned(), None)).collect();
        let change = ChangeSeats { reservation, seats, by_staff: false };
        refused(self.tell(Command::ChangeSeats(change)))
    }

    pub fn start_payment(
        &mut self,
        reservation: ReservationId,
        method: Method,
    ) -> Result<PaymentId, Refusal> {
        let id = PaymentId::new(self.show.plan.facts.show, self.now, self.chance());
        let (token, chance) = (Some("tok".to_owned()), self.chance());
        let command = StartPayment { id, reservation, method, token, chance };
        refused(self.tell(Command::StartPayment(command))).map(|()| id)
    }

    pub fn settle(&mut self, payment: PaymentId, outcome: Outcome) -> Decision {
        let refund = self.refund_id();
        let chance = self.chance();
        self.tell(Command::SettlePayment { payment, outcome, chance, refund })
    }

    pub fn refund_id(&mut self) -> RefundId {
        RefundId::new(self.show.plan.facts.show, self.now, self.chance())
    }

    pub fn cancel(
        &mut self,
        reservation: ReservationId,
        seats: Option<&[&str]>,
        by_staff: bool,
    ) -> Result<(), Refusal> {
        let refund = self.refund_id();
        let seats = seats.map(|names| names.iter().map(|n| (*n).to_owned()).collect());
        refused(self.tell(Command::Cancel(Cancel { reservation, seats, by_staff, refund })))
    }

    pub fn buy(&mut self, customer: UserId, seats: &[&str]) -> (ReservationId, PaymentId) {
        let reservation = self.reserve(customer, seats).unwrap();
        let payment = self.start_payment(reservation, Method::Card).unwrap();
        self.settle(payment, Outcome::Completed);
        (reservation, payment)
    }

    pub fn seat(&self, name: &str) -> SeatStatus {
        self.show.seats[self.show.plan.seat(name).unwrap() as usize].status()
    }

    pub fn reservation(&self, id: ReservationId) -> &Reservation {
        &self.show.reservations[&id]
    }

    /// The first of a reservation's tickets.
    pub fn ticket(&self, id: ReservationId) -> common::TicketId {
        self.show.reservations.get(&id).unwrap().tickets().next().unwrap().id
    }
}

pub(super) fn refused(decision: Decision) -> Result<(), Refusal> {
    match decision {
        Decision::Refuse(refusal) => Err(refusal),
        _ => Ok(()),
    }
}

/// The core is pure: none of its files knows of clocks, chance, tasks or I/O.
#[test]
fn the_core_has_no_async_and_no_clock() {
    let read = assert_pure("src/show", &[]);
    assert!(read >= 7, "only {read} files were read");
}

/// Reads the files of a room that must be pure, and knows no `more` either; answers how many there were.
pub(crate) fn assert_pure(room: &str, more: &[&str]) -> usize {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(room);
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "rs") || path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let code: String =
            text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let always =
            ["async", ".await", "tokio", "::now(", "Instant", "SystemTime", "rand::", "std::fs", "std::net"];
        for word in always.iter().chain(more) {
            assert!(!code.contains(word), "{} mentions `{word}`", path.display());
        }
        read += 1;
    }
    read
}
