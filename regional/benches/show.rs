//! What the show core costs, without I/O: `cargo bench -p regional --bench show [filter]`.
//!
//! Two halls, of 300 and of 5,000 seats, empty and with every second pair of seats sold.

use std::hint::black_box;

use common::{CinemaId, HallId, MovieId, PaymentId, RegionName, ReservationId, ShowId, UserId};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use regional::halls::layout::SeatType;
use regional::show::{
    Asked, Command, Created, Decision, Event, FORMAT, Group, Method, PlanRow, PlanSeat, PriceLine,
    RefundTier, Reserve, Show, StartPayment, Wish, best_seats, decide, decode, encode,
};

const HALLS: [u16; 2] = [300, 5_000];

fn start() -> Timestamp {
    "2027-03-01T12:00:00Z".parse().expect("a time")
}

/// Rows of 25 or 100 standard seats.
fn facts(seats: u16) -> Created {
    let home: RegionName = "eu".parse().expect("a name");
    let width = if seats < 1_000 { 25 } else { 100 };
    let row = |row: u16| PlanRow {
        row: format!("{}{}", char::from(b'A' + (row / 26) as u8), char::from(b'A' + (row % 26) as u8)),
        y: Some(row.into()),
        seats: (1..=width)
            .map(|number| PlanSeat { number, kind: SeatType::Standard, x: Some(number.into()) })
            .collect(),
    };
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
        currency: "EUR".parse().expect("a currency"),
        starts_at: start() + SignedDuration::from_hours(24),
        on_sale_at: None,
        rows: (0..seats / width).map(row).collect(),
        prices: vec![PriceLine { seat_type: SeatType::Standard, category: "adult".into(), amount: 1_000 }],
        max_seats_per_customer: Some(10),
        single_gap_rule: false,
        refund_tiers: vec![RefundTier { until_secs_before_start: 7_200, percent: 100 }],
        hold_secs: 600,
    }
}

fn group(events: Vec<Event>) -> Group {
    Group { at: start(), by: None, key: None, trace: None, from: None, events }
}

fn begun(facts: &Created) -> (Show, Vec<Group>) {
    let led = group(vec![Event::Led { epoch: 1, session: 1, attempt: 1 }]);
    let first = vec![led, group(vec![Event::Created(Box::new(facts.clone()))])];
    (Show::fold(None, 1, &first).expect("it folds").expect("a show"), first)
}

fn asked(command: Command) -> Asked {
    Asked { command, by: None, key: None, trace: None, from: None }
}

fn reserve(show: &Show, chance: u32, wish: Wish) -> Asked {
    asked(Command::Reserve(Reserve {
        id: ReservationId::new(show.plan.facts.show, start(), chance),
        reference: "K7QM2XPD".into(),
        customer: Some(UserId::new()),
        contact: None,
        wish,
        origin: None,
        by_staff: false,
    }))
}

fn seats(show: &Show, first: usize) -> Wish {
    let name = |seat: usize| (show.plan.place(seat as u32).name.to_owned(), None);
    Wish::Seats(vec![name(first), name(first + 1)])
}

fn events(show: &Show, asked: &Asked) -> Vec<Event> {
    match decide(show, asked, start()) {
        Decision::Do(events) => events,
        other => panic!("{other:?}"),
    }
}

/// Every second pair of seats sold; the state, and the journal with one group an entry.
fn half_sold(facts: &Created) -> (Show, Vec<Vec<Group>>) {
    let (mut show, first) = begun(facts);
    let mut journal = vec![first];
    for (turn, first) in (0_u32..).zip((0..show.seats.len() - 1).step_by(4)) {
        let chance = turn * 10;
        let wish = reserve(&show, chance, seats(&show, first));
        let pay = asked(Command::StartPayment(StartPayment {
            id: PaymentId::new(show.plan.facts.show, start(), chance),
            reservation: ReservationId::new(show.plan.facts.show, start(), chance),
            method: Method::Cash,
            token: None,
            chance,
        }));
        for command in [wish, pay] {
            let group = group(events(&show, &command));
            show.apply(show.seq + 1, std::slice::from_ref(&group)).expect("it applies");
            journal.push(vec![group]);
        }
    }
    (show, journal)
}

fn deciding(c: &mut Criterion) {
    let mut bench = c.benchmark_group("decide");
    for hall in HALLS {
        let facts = facts(hall);
        for (how, show) in [("empty", begun(&facts).0), ("half sold", half_sold(&facts).0)] {
            let named = |first| reserve(&show, 7, seats(&show, first));
            let (free, taken) = (named(2), named(if how == "empty" { 2 } else { 0 }));
            bench.bench_function(BenchmarkId::new(format!("two seats, {how}"), hall), |b| {
                b.iter(|| decide(black_box(&show), black_box(&free), start()));
            });
            if how == "half sold" {
                bench.bench_function(BenchmarkId::new("two seats that are taken", hall), |b| {
                    b.iter(|| decide(black_box(&show), black_box(&taken), start()));
                });
            }
            bench.bench_function(BenchmarkId::new(format!("two seats, {how}, and apply"), hall), |b| {
                b.iter_batched_ref(
                    || show.clone(),
                    |show| {
                        let group = group(events(show, &free));
                        show.apply(show.seq + 1, std::slice::from_ref(&group))
                    },
                    BatchSize::LargeInput,
                );
            });
        }
    }
}

fn folding(c: &mut Criterion) {
    let mut bench = c.benchmark_group("fold");
    for hall in HALLS {
        let (show, journal) = half_sold(&facts(hall));
        bench.throughput(Throughput::Elements(journal.len() as u64));
        bench.bench_function(BenchmarkId::new("a half sold show, an entry a command", hall), |b| {
            b.iter(|| {
                (1..).zip(&journal).fold(None, |show, (seq, groups)| {
                    Show::fold(show, seq, black_box(groups)).expect("it folds")
                })
            });
        });
        bench.bench_function(BenchmarkId::new("clone a half sold show", hall), |b| {
            b.iter(|| black_box(&show).clone());
        });
    }
}

fn writing(c: &mut Criterion) {
    let mut bench = c.benchmark_group("journal");
    let (_, journal) = half_sold(&facts(5_000));
    for size in [1, 64, 1_024] {
        let groups: Vec<Group> = journal[1..].iter().flatten().take(size).cloned().collect();
        let bytes = encode(&groups);
        bench.throughput(Throughput::Elements(size as u64));
        bench.bench_function(BenchmarkId::new("encode", size), |b| b.iter(|| encode(black_box(&groups))));
        bench.bench_function(BenchmarkId::new("decode", size), |b| {
            b.iter(|| decode(FORMAT, black_box(&bytes)).expect("it is whole"));
        });
    }
}

fn choosing(c: &mut Criterion) {
    let mut bench = c.benchmark_group("best seats");
    for hall in HALLS {
        let facts = facts(hall);
        for (how, show) in [("empty", begun(&facts).0), ("half sold", half_sold(&facts).0)] {
            // In the half sold hall no two pairs stand together: four must be looked for seat by seat.
            for count in [2, 4] {
                let id = BenchmarkId::new(format!("{count} of {how}"), hall);
                bench.bench_function(id, |b| {
                    b.iter(|| best_seats(black_box(&show), count, None, "adult").expect("there are some"));
                });
            }
        }
    }
}

criterion_group!(benches, deciding, folding, writing, choosing);
criterion_main!(benches);
