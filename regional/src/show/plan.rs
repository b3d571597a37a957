//! What never changes once a show is created; shared by all copies of its state, and its hall by all shows
//! with the same one.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, Weak};

use common::Money;
use hashbrown::HashTable;

use super::event::{Created, PlanRow};
use super::index::{Index, hash};
use crate::halls::layout::SeatType;

/// One seat of the hall, as it does not change.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// `A1`
    pub name: &'a str,
    pub kind: SeatType,
}

/// Where a seat is, in seats to the right and rows from the screen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spot {
    pub x: f32,
    pub y: f32,
}

/// One row, from the screen backwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub name: Box<str>,
    pub seats: Range<u32>,
}

/// A category of visitor, by its place among those that the show knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Category(pub(super) u16);

pub struct Plan {
    /// Without its rows, which stand in the hall in a twentieth of the room.
    pub facts: Created,
    hall: Arc<Hall>,
    categories: Box<[Box<str>]>,
}

/// The seats of a show, as its journal tells them.
struct Hall {
    /// The names of all seats, one behind the other, and where each ends.
    names: Box<str>,
    ends: Box<[u32]>,
    kinds: Box<[SeatType]>,
    spots: Box<[Spot]>,
    rows: Box<[Row]>,
    by_name: Index<u32>,
    /// The x of the screen's middle; the least and the greatest y.
    middle: f32,
    depth: (f32, f32),
}

/// With its hash.
type Hashed = (u64, Weak<Hall>);

/// By what they say, all halls of which there is a show in memory. Whether a hall stands here once or many times
/// can be told by nobody.
static HALLS: LazyLock<Mutex<HashTable<Hashed>>> = LazyLock::new(Mutex::default);

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (&self.facts, &self.hall.rows).fmt(f)
    }
}

/// Seats of a row further apart than this have an aisle between them.
const NEIGHBOURS: f32 = 1.5;

impl Hall {
    fn new(plan: Vec<PlanRow>) -> Self {
        let (mut names, mut ends, mut kinds) = (String::new(), Vec::new(), Vec::new());
        let (mut spots, mut rows) = (Vec::new(), Vec::with_capacity(plan.len()));
        for (y, row) in (0_u16..).zip(plan) {
            let first = count(&spots);
            for (x, seat) in (0_u16..).zip(&row.seats) {
                names.push_str(&row.row);
                names.push_str(&seat.number.to_string());
                ends.push(u32::try_from(names.len()).expect("a hall's names are no book"));
                kinds.push(seat.kind);
                // Older journals have no places on the map; then a row's seats stand side by side from the left.
                spots.push(Spot {
                    x: seat.x.unwrap_or_else(|| x.into()),
                    y: row.y.unwrap_or_else(|| y.into()),
                });
            }
            rows.push(Row { name: row.row.into(), seats: first..count(&spots) });
        }
        let range = |of: fn(&Spot) -> f32| {
            let values = || spots.iter().map(of);
            (values().fold(f32::INFINITY, f32::min), values().fold(f32::NEG_INFINITY, f32::max))
        };
        let (left, right) = range(|spot| spot.x);
        let depth = range(|spot| spot.y);
        let mut hall = Self {
            names: names.into(),
            ends: ends.into(),
            kinds: kinds.into(),
            by_name: Index::with_capacity(spots.len()),
            spots: spots.into(),
            rows: rows.into(),
            middle: (left + right) / 2.0,
            depth,
        };
        let mut by_name = std::mem::take(&mut hall.by_name);
        for seat in 0..count(&hall.spots) {
            let name = |seat: u32| hall.place(seat).name;
            // Should two have one name, the last is meant.
            by_name.replace(hash(name(seat)), seat, |s| name(s) == name(seat), |s| hash(name(s)));
        }
        hall.by_name = by_name;
        hall
    }

    /// This hall, or the one in memory that says the same.
    fn shared(self) -> Arc<Self> {
        let hashed = hash((&self.names, &self.ends));
        let mut halls = HALLS.lock().expect("no code panics while holding it");
        let present = halls.iter_hash(hashed).filter_map(|(_, hall)| hall.upgrade());
        if let Some(same) = present.into_iter().find(|hall| hall.is_like(&self)) {
            return same;
        }
        let hall = Arc::new(self);
        if halls.len() == halls.capacity() {
            halls.retain(|(_, hall)| hall.strong_count() > 0);
        }
        halls.insert_unique(hashed, (hashed, Arc::downgrade(&hall)), |(hashed, _)| *hashed);
        hall
    }

    fn is_like(&self, other: &Self) -> bool {
        self.names == other.names
            && self.ends == other.ends
            && self.kinds == other.kinds
            && self.spots == other.spots
            && self.rows == other.rows
    }

    fn place(&self, seat: u32) -> Place<'_> {
        let at = seat as usize;
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Place { name: &self.names[begin as usize..self.ends[at] as usize], kind: self.kinds[at] }
    }
}

impl Plan {
    pub(super) fn new(mut facts: Created) -> Self {
        let hall = Hall::new(std::mem::take(&mut facts.rows)).shared();
        let mut categories: Vec<Box<str>> = Vec::new();
        for price in &facts.prices {
            if !categories.iter().any(|known| **known == *price.category) {
                categories.push(price.category.as_str().into());
            }
        }
        Self { facts, hall, categories: categories.into() }
    }

    /// How many seats there are.
    pub fn seats(&self) -> u32 {
        count(&self.hall.spots)
    }

    pub fn rows(&self) -> &[Row] {
        &self.hall.rows
    }

    pub fn at(&self, seat: u32) -> Spot {
        self.hall.spots[seat as usize]
    }

    pub(super) fn middle(&self) -> f32 {
        self.hall.middle
    }

    pub(super) fn depth(&self) -> (f32, f32) {
        self.hall.depth
    }

    /// The seats directly beside this one, in its row and with no aisle between.
    pub(super) fn beside(&self, seat: u32) -> [Option<u32>; 2] {
        let left = seat.checked_sub(1).filter(|left| self.are_neighbours(*left, seat));
        let right = Some(seat + 1).filter(|right| self.are_neighbours(seat, *right));
        [left, right]
    }

    /// Whether `right` stands directly beside `left`, which is the seat before it.
    pub(super) fn are_neighbours(&self, left: u32, right: u32) -> bool {
        let row = self.hall.rows.partition_point(|row| row.seats.end <= left);
        self.hall.rows.get(row).is_some_and(|row| row.seats.contains(&right))
            && (self.at(right).x - self.at(left).x).abs() <= NEIGHBOURS
    }

    /// The seat's index, from its name.
    pub fn seat(&self, name: &str) -> Option<u32> {
        self.hall.by_name.find(hash(name), |seat| self.place(seat).name == name)
    }

    pub fn place(&self, seat: u32) -> Place<'_> {
        self.hall.place(seat)
    }

    /// All seats, by their index.
    pub fn places(&self) -> impl Iterator<Item = Place<'_>> {
        (0..self.seats()).map(|seat| self.place(seat))
    }

    /// The price of a seat for a category of visitor, in minor units.
    pub fn price(&self, seat: u32, category: &str) -> Option<i64> {
        let kind = self.hall.kinds[seat as usize];
        let line = self.facts.prices.iter().find(|p| p.seat_type == kind && p.category == category);
        line.map(|p| p.amount)
    }

    pub fn money(&self, amount: i64) -> Money {
        Money::new(amount, self.facts.currency)
    }

    /// The categories that have prices.
    pub(super) fn categories(&self) -> &[Box<str>] {
        &self.categories
    }
}

fn count(spots: &[Spot]) -> u32 {
    u32::try_from(spots.len()).expect("a hall of less than four billion seats")
}

#[cfg(test)]
mod tests {
    use super::super::tests::facts;
    use super::*;

    #[test]
    fn shows_of_one_hall_share_it_and_of_no_other() {
        let (first, second) = (Plan::new(facts()), Plan::new(facts()));
        assert!(Arc::ptr_eq(&first.hall, &second.hall));
        let mut other = facts();
        other.rows[0].seats[0].x = Some(9.0);
        let other = Plan::new(other);
        assert!(!Arc::ptr_eq(&first.hall, &other.hall));
        assert_eq!((first.at(0).x, other.at(0).x), (second.at(0).x, 9.0));
    }
}
