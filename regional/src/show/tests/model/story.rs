//! What random stories are made of: a show, and steps that name things by small numbers, so that shrinking
//! keeps them sensible.

use proptest::prelude::*;

use super::super::*;

/// What differs between the shows of stories.
#[derive(Clone, Debug)]
pub struct Facts {
    pub limit: Option<u32>,
    pub single_gap_rule: bool,
    /// Seats may cost nothing.
    pub free: bool,
}

impl Facts {
    /// Three rows of seven, with an aisle in the last: accessible, companion, standard and premium seats.
    pub fn created(&self) -> Created {
        use SeatType::{Accessible, Companion, Premium, Standard};
        let mut facts = facts();
        let row = |name: &str, kinds: [SeatType; 7], aisle: bool| PlanRow {
            row: name.into(),
            y: None,
            seats: (1..)
                .zip(kinds)
                .map(|(number, kind)| PlanSeat {
                    number,
                    kind,
                    x: aisle.then_some(f32::from(number) + if number > 3 { 1.0 } else { 0.0 }),
                })
                .collect(),
        };
        let front = [Companion, Accessible, Companion, Standard, Standard, Accessible, Companion];
        facts.rows =
            vec![row("A", front, false), row("B", [Standard; 7], false), row("C", [Premium; 7], true)];
        facts.max_seats_per_customer = self.limit;
        facts.single_gap_rule = self.single_gap_rule;
        if self.free {
            facts.prices.iter_mut().for_each(|price| price.amount = 0);
        }
        facts
    }
}

const NAMES: [&str; 23] = [
    "A1", "A2", "A3", "A4", "A5", "A6", "A7", "B1", "B2", "B3", "B4", "B5", "B6", "B7", "C1", "C2", "C3",
    "C4", "C5", "C6", "C7", "Z1", "Z2",
];

#[derive(Clone, Debug)]
pub enum Step {
    Reserve { who: u8, seats: Vec<u8>, category: u8, staff: bool, key: Option<(u8, u8)> },
    Best { who: u8, count: u8, kind: u8, staff: bool },
    Change { which: u16, seats: Vec<u8>, staff: bool },
    Pay { which: u16, cash: bool },
    Settle { which: u16, outcome: u8 },
    Cancel { which: u16, seats: Option<Vec<u8>>, staff: bool },
    Refund { which: u16, amount: Option<u16> },
    SettleRefund { which: u16, failed: bool },
    ReturnStray { which: u16 },
    CheckIn { which: u16, nonce: u8, force: bool },
    Block { seats: Vec<u8>, key: Option<(u8, u8)> },
    Unblock { seats: Vec<u8> },
    Move { hours: u8, on_sale: u8 },
    CancelShow,
    CancelRest,
    Pass { secs: u32 },
}

pub fn stories(steps: usize) -> impl Strategy<Value = (Facts, Vec<Step>)> {
    let limit = prop_oneof![Just(None), Just(Some(1)), Just(Some(3)), Just(Some(6))];
    let facts = (limit, any::<bool>(), prop::bool::weighted(0.1))
        .prop_map(|(limit, single_gap_rule, free)| Facts { limit, single_gap_rule, free });
    (facts, prop::collection::vec(step(), 1..steps))
}

fn step() -> impl Strategy<Value = Step> {
    let seats = || {
        prop_oneof![
            // A run of seats, and any seats, some of them twice or unknown.
            6 => (0..20_u8, 1..5_u8).prop_map(|(first, count)| (first..(first + count).min(21)).collect()),
            3 => prop::collection::vec(0..21_u8, 1..4),
            1 => prop::collection::vec(0..23_u8, 0..4),
        ]
    };
    let key = || prop::option::weighted(0.2, (0..4_u8, 0..2_u8));
    let staff = || prop::bool::weighted(0.15);
    let which = any::<u16>;
    prop_oneof![
        16 => (0..9_u8, seats(), 0..8_u8, staff(), key())
            .prop_map(|(who, seats, category, staff, key)| Step::Reserve { who, seats, category, staff, key }),
        5 => (0..9_u8, 0..6_u8, 0..4_u8, staff())
            .prop_map(|(who, count, kind, staff)| Step::Best { who, count, kind, staff }),
        6 => (which(), seats(), staff()).prop_map(|(which, seats, staff)| Step::Change { which, seats, staff }),
        10 => (which(), prop::bool::weighted(0.2)).prop_map(|(which, cash)| Step::Pay { which, cash }),
        12 => (which(), 0..6_u8).prop_map(|(which, outcome)| Step::Settle { which, outcome }),
        7 => (which(), prop::option::weighted(0.4, seats()), staff())
            .prop_map(|(which, seats, staff)| Step::Cancel { which, seats, staff }),
        4 => (which(), prop::option::of(0..2_500_u16)).prop_map(|(which, amount)| Step::Refund { which, amount }),
        4 => (which(), prop::bool::weighted(0.4)).prop_map(|(which, failed)| Step::SettleRefund { which, failed }),
        1 => which().prop_map(|which| Step::ReturnStray { which }),
        4 => (which(), 0..20_u8, prop::bool::weighted(0.2))
            .prop_map(|(which, nonce, force)| Step::CheckIn { which, nonce, force }),
        2 => (seats(), key()).prop_map(|(seats, key)| Step::Block { seats, key }),
        2 => seats().prop_map(|seats| Step::Unblock { seats }),
        1 => (0..40_u8, 0..4_u8).prop_map(|(hours, on_sale)| Step::Move { hours, on_sale }),
        1 => prop::bool::weighted(0.1).prop_map(|yes| if yes { Step::CancelShow } else { Step::CancelRest }),
        1 => Just(Step::CancelRest),
        12 => prop_oneof![8 => 1..350_u32, 2 => 350..4_000_u32, 1 => 4_000..40_000_u32]
            .prop_map(|secs| Step::Pass { secs }),
    ]
}

fn names(seats: &[u8]) -> Vec<String> {
    seats.iter().map(|at| NAMES[usize::from(*at)].to_owned()).collect()
}

/// The nth person: some have accounts, some a contact, some both; staff are others.
fn person(n: u8) -> UserId {
    UserId(uuid::Uuid::from_u128(n.into()))
}

/// One of those that there are, mostly; else one that there is not.
fn pick<T: Copy>(which: u16, there: &[T]) -> Option<T> {
    let at = usize::from(which) % (there.len() + 1 + there.len() / 8);
    there.get(at).copied()
}

impl Step {
    /// The command with its ids; time passes on `stage`, and what is due then comes as a command, too.
    pub fn command(&self, stage: &mut Stage) -> Option<Asked> {
        let show = stage.show.plan.facts.show;
        let now = stage.now;
        let chance = stage.chance();
        let (mut by, mut key) = (Some(person(9)), None);
        let reservation = |which: u16, stage: &Stage| {
            let there: Vec<ReservationId> = stage.show.reservations.keys().collect();
            pick(which, &there).unwrap_or_else(|| ReservationId::new(show, now, chance))
        };
        let payment = |which: u16, stage: &Stage| {
            let there: Vec<PaymentId> = stage.show.payments.keys().collect();
            pick(which, &there).unwrap_or_else(|| PaymentId::new(show, now, chance))
        };
        let refund = RefundId::new(show, now, chance.wrapping_add(500));
        let keyed = |key: &Option<(u8, u8)>| key.map(|(id, body)| Key { id: [id; 16], body: [body; 16] });
        let wanted = |who: u8, wish: Wish, staff: bool| {
            Command::Reserve(Reserve {
                id: ReservationId::new(show, now, chance),
                reference: "R".into(),
                customer: (who % 3 != 2).then(|| person(who)),
                contact: (!who.is_multiple_of(3))
                    .then(|| Contact::counted(&format!("{}@EXAMPLE.org", who / 6))),
                wish,
                origin: (who % 4 != 3).then_some(Origin(u64::from(who % 4 / 2))),
                by_staff: staff,
            })
        };
        let command = match self {
            Self::Reserve { who, seats, category, staff, key: used } => {
                key = keyed(used);
                let category = match category {
                    0 => Some("child".to_owned()),
                    1 => Some("dog".to_owned()),
                    _ => None,
                };
                let seats = names(seats).into_iter().map(|name| (name, category.clone())).collect();
                wanted(*who, Wish::Seats(seats), *staff)
            }
            Self::Best { who, count, kind, staff } => {
                let kinds =
                    [None, Some(SeatType::Premium), Some(SeatType::Accessible), Some(SeatType::Companion)];
                let kind = kinds[usize::from(*kind)];
                wanted(*who, Wish::Best { count: (*count).into(), kind, category: None }, *staff)
            }
            Self::Change { which, seats, staff } => Command::ChangeSeats(ChangeSeats {
                reservation: reservation(*which, stage),
                seats: names(seats).into_iter().map(|name| (name, None)).collect(),
                by_staff: *staff,
            }),
            Self::Pay { which, cash } => Command::StartPayment(StartPayment {
                id: PaymentId::new(show, now, chance),
                reservation: reservation(*which, stage),
                method: if *cash { Method::Cash } else { Method::Card },
                token: None,
                chance,
            }),
            Self::Settle { which, outcome } => {
                by = None;
                let outcome = match outcome {
                    0..=2 => Outcome::Completed,
                    3 => Outcome::Pending,
                    n => Outcome::Failed { reason: "no".into(), declined: *n == 4 },
                };
                Command::SettlePayment { payment: payment(*which, stage), outcome, chance, refund }
            }
            Self::Cancel { which, seats, staff } => Command::Cancel(Cancel {
                reservation: reservation(*which, stage),
                seats: seats.as_ref().map(|seats| names(seats)),
                by_staff: *staff,
                refund,
            }),
            Self::Refund { which, amount } => Command::Refund(NewRefund {
                id: refund,
                payment: payment(*which, stage),
                amount: amount.map(i64::from),
                reason: "x".into(),
            }),
            Self::SettleRefund { which, failed } => {
                let there: Vec<RefundId> = stage.show.refunds.keys().collect();
                let refund = pick(*which, &there).unwrap_or(refund);
                Command::SettleRefund { refund, failed: failed.then(|| "no".to_owned()) }
            }
            Self::ReturnStray { which } => {
                let strays: Vec<PaymentId> = stage.show.strays.iter().copied().collect();
                let payment = pick(*which, &strays).unwrap_or_else(|| payment(which / 2, stage));
                Command::ReturnStray { payment, refund, amount: 700 }
            }
            Self::CheckIn { which, nonce, force } => {
                let there: Vec<_> =
                    stage.show.reservations.values().flat_map(|r| r.tickets().map(|t| t.id)).collect();
                let unknown = common::TicketId::new(show, now, chance);
                let ticket = pick(*which, &there).unwrap_or(unknown);
                Command::CheckIn(CheckIn { ticket, nonce: nonce.to_string(), at: None, force: *force })
            }
            Self::Block { seats, key: used } => {
                key = keyed(used);
                Command::Block { seats: names(seats), reason: "x".into() }
            }
            Self::Unblock { seats } => Command::Unblock { seats: names(seats) },
            Self::Move { hours, on_sale } => Command::ChangeShow(ChangeShow {
                starts_at: (*hours > 0).then(|| now + SignedDuration::from_hours((*hours).into())),
                on_sale_at: match on_sale {
                    0 => None,
                    1 => Some(None),
                    n => Some(Some(now + SignedDuration::from_mins(i64::from(*n) * 3 - 7))),
                },
            }),
            Self::CancelShow => Command::CancelShow { reason: "x".into() },
            Self::CancelRest => Command::CancelRest { limit: 2, chance },
            Self::Pass { secs } => {
                stage.now += SignedDuration::from_secs((*secs).into());
                Command::ExpireDue
            }
        };
        Some(Asked { command, by, key, trace: None, from: None })
    }
}
