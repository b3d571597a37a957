//! What one seed is like: how large the platform, how bad the network, which kinds of faults. Each seed has a
//! few kinds of faults only, so that some get far that all together would never let.

use common::{CinemaId, HallId, MovieId, RegionName, ShowId};
use jiff::{SignedDuration, Timestamp};
use regional::halls::layout::SeatType;
use regional::show::{Created, PlanRow, PlanSeat, PriceLine, RefundTier};
use uuid::Uuid;

use crate::event::Ms;
use crate::random::Random;

#[derive(Clone, Debug)]
pub struct Setup {
    pub regions: u8,
    /// Processes in each region.
    pub slots: u8,
    pub shows: u8,
    pub clients: u32,
    /// Faults happen until then.
    pub chaos: Ms,
    /// Between regions, one way.
    pub latency: (Ms, Ms),
    /// Per mille of messages.
    pub lose: u64,
    pub double: u64,
    pub late: u64,
    /// Per mille of transactions whose outcome nobody hears.
    pub unknown: u64,
    /// Per mille of calls of the provider that are lost on either way.
    pub provider: u64,
    /// Milliseconds between two things that one client does.
    pub think: (Ms, Ms),
    /// Indices into the kinds of faults, with the time between two faults.
    pub kinds: u32,
    pub pause: (Ms, Ms),
    pub small_messages: bool,
    /// Entries in one answer to Fetch.
    pub page: usize,
    pub emphasis: Emphasis,
}

/// The beginning of virtual time.
pub fn epoch() -> Timestamp {
    Timestamp::from_second(1_830_000_000).unwrap_or_default()
}

const NAMES: [&str; 5] = ["eu", "us", "ap", "sa", "af"];

pub fn names(of: u8) -> Vec<RegionName> {
    NAMES.iter().take(of.into()).filter_map(|name| name.parse().ok()).collect()
}

/// Kinds of faults that together reach what each alone does not; numbers as in [`crate::faults`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emphasis {
    /// Any kinds.
    Anything,
    /// Replica sets change while leaders are cut off.
    Sets,
    /// Leaders follow each other quickly, and leave entries that only some hold.
    Tails,
    /// Stores go back in time while shows move.
    Losses,
    /// Told by [`crate::scripts`] only, and only where it is asked for.
    StaleTail,
    /// As well.
    LateAppend,
}

impl Emphasis {
    fn kinds(self, chance: &mut Random) -> u64 {
        let of: &[u64] = match self {
            Self::Anything => return chance.below(1 << 15),
            Self::Sets => &[0, 1, 2, 3, 5, 11, 13, 13, 13],
            Self::Tails => &[0, 1, 2, 4, 5, 11, 14],
            Self::Losses => &[0, 2, 4, 5, 6, 7, 9, 11],
            Self::StaleTail | Self::LateAppend => &[],
        };
        of.iter().filter(|_| chance.chance(700)).fold(0, |kinds, kind| kinds | 1 << kind)
    }
}

impl Setup {
    pub fn new(chance: &mut Random, emphasis: Option<Emphasis>) -> Self {
        let calm = chance.chance(300);
        let emphases = [
            (550, Emphasis::Anything),
            (200, Emphasis::Sets),
            (150, Emphasis::Tails),
            (100, Emphasis::Losses),
        ];
        let drawn = chance.weighed(&emphases).unwrap_or(Emphasis::Anything);
        let emphasis = emphasis.unwrap_or(drawn);
        let (sets, tails) = (matches!(emphasis, Emphasis::Sets), matches!(emphasis, Emphasis::Tails));
        let most = if sets || tails { 1_200 } else { chance.between(1_500, 6_000) };
        let mut setup = Self {
            regions: if sets {
                5
            } else if chance.chance(250) {
                4
            } else {
                3
            },
            slots: if chance.chance(300) { 2 } else { 1 },
            shows: u8::try_from(chance.between(1, if tails { 1 } else { 3 })).unwrap_or(1),
            clients: u32::try_from(chance.between(3, 6)).unwrap_or(3),
            chaos: chance.between(10_000, 30_000),
            latency: if chance.chance(500) { (5, 20) } else { (20, 90) },
            lose: if calm { 0 } else { chance.below(if tails { 200 } else { 30 }) },
            double: if calm { 0 } else { chance.below(30) },
            late: if calm { 0 } else { chance.below(if tails { 60 } else { 20 }) },
            unknown: if chance.chance(400) { chance.below(60) } else { 0 },
            provider: if chance.chance(500) { chance.below(300) } else { 0 },
            think: (20, chance.between(200, 900)),
            kinds: u32::try_from(emphasis.kinds(chance)).unwrap_or(0),
            pause: (100, most),
            small_messages: tails || chance.chance(300),
            page: usize::MAX,
            emphasis,
        };
        if setup.small_messages {
            setup.page = 2;
        }
        setup.told()
    }

    /// A story has a stage of its own: one show that everybody wants, and links that do as they are told.
    fn told(mut self) -> Self {
        (self.regions, self.clients, self.think) = match self.emphasis {
            // Few entries under way at once: what one has sent others have not.
            Emphasis::StaleTail => (3, 4, (20, 150)),
            Emphasis::LateAppend => (5, 6, (10, 60)),
            _ => return self,
        };
        Self {
            slots: 1,
            shows: 1,
            chaos: 60_000,
            latency: (5, 20),
            lose: 0,
            double: 0,
            late: 0,
            unknown: 0,
            small_messages: true,
            page: 1,
            ..self
        }
    }
}

/// A show of four rows of four seats, of which A1 is accessible and A2 its companion.
pub fn facts(no: u8, home: &RegionName, chance: &mut Random) -> Created {
    let id = |kind: u8| {
        let mut bytes = [kind; 16];
        bytes[0] = no;
        bytes[14..].copy_from_slice(&home.tag());
        Uuid::from_bytes(bytes)
    };
    let row = |name: &str, kinds: [SeatType; 4]| PlanRow {
        row: name.into(),
        y: None,
        seats: (1..).zip(kinds).map(|(number, kind)| PlanSeat { number, kind, x: None }).collect(),
    };
    let price =
        |seat_type, category: &str, amount| PriceLine { seat_type, category: category.into(), amount };
    use SeatType::{Accessible, Companion, Premium, Standard};
    // Some shows begin so soon that nothing goes back any more.
    let starts_in = if chance.chance(150) { 20 } else { 48 * 3_600 };
    let on_sale_in = if chance.chance(200) { Some(5) } else { None };
    let limited = chance.chance(600);
    Created {
        show: ShowId(id(1)),
        cinema: CinemaId(id(2)),
        hall: HallId(id(3)),
        home: home.clone(),
        cinema_name: "Odeon".into(),
        address: String::new(),
        hall_name: "1".into(),
        layout_version: 1,
        movie: MovieId(id(4)),
        title: "Safety Last!".into(),
        runtime_min: 73,
        time_zone: "UTC".into(),
        currency: "EUR".parse().unwrap_or_else(|_| unreachable!("a currency")),
        starts_at: epoch() + SignedDuration::from_secs(starts_in),
        on_sale_at: on_sale_in.map(|secs| epoch() + SignedDuration::from_secs(secs)),
        rows: vec![
            row("A", [Accessible, Companion, Standard, Standard]),
            row("B", [Premium; 4]),
            row("C", [Standard; 4]),
            row("D", [Standard; 4]),
        ],
        prices: vec![
            price(Standard, "adult", 1_000),
            price(Standard, "free", 0),
            price(Accessible, "adult", 1_000),
            price(Companion, "adult", 0),
            price(Premium, "adult", 1_500),
        ],
        max_seats_per_customer: limited.then(|| u32::try_from(chance.between(1, 4)).unwrap_or(1)),
        single_gap_rule: chance.chance(400),
        refund_tiers: vec![
            RefundTier { until_secs_before_start: 7_200, percent: 100 },
            RefundTier { until_secs_before_start: 15, percent: 50 },
        ],
        hold_secs: u32::try_from(chance.between(3, 20)).unwrap_or(10),
    }
}
