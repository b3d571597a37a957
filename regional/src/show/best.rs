//! Best-available seats: same row, side by side, near the middle of the screen, leaving nobody's single seat
//! behind; each wish is relaxed in turn while seats remain.
//!
//! The search is part of the decision, so a suggestion can never lose a race. Accessible and companion seats
//! are never given to a general request.

use super::plan::Plan;
use super::state::Show;
use crate::halls::layout::SeatType;

/// Where people like to sit: this far from the screen to the last row.
const IDEAL_DEPTH: f32 = 0.65;
/// One row away weighs as much as this many seats to the side: people rather move sideways than nearer.
const ROW_WEIGHT: f32 = 1.5;
/// A single seat left behind costs as much as sitting this far from the best place.
const ORPHAN_COST: f32 = 1_000.0;

/// `count` free seats that have a price in `category`, the best first-come choice of now; fewer than `count`
/// are never answered. `kind` none: standard seats, or any general kind where the hall has no standard ones.
pub fn best_seats(show: &Show, count: usize, kind: Option<SeatType>, category: &str) -> Option<Vec<u32>> {
    if count == 0 {
        return None;
    }
    let open = open_seats(show, kind, category);
    side_by_side(show, &open, count).or_else(|| near_each_other(show, &open, count))
}

/// How many seats such a request could choose from.
pub fn free_of(show: &Show, kind: Option<SeatType>, category: &str) -> usize {
    open_seats(show, kind, category).into_iter().filter(|open| *open).count()
}

/// Which seats a request may be given.
fn open_seats(show: &Show, kind: Option<SeatType>, category: &str) -> Vec<bool> {
    let kind = kind.or_else(|| general_kind(&show.plan));
    let open = (0..).zip(&show.seats).map(|(seat, state)| {
        let place = show.plan.place(seat);
        let wanted = kind.map_or_else(|| is_general(place.kind), |kind| place.kind == kind);
        state.is_free() && wanted && show.plan.price(seat, category).is_some()
    });
    open.collect()
}

/// Whom a general request may be given.
fn is_general(kind: SeatType) -> bool {
    !matches!(kind, SeatType::Accessible | SeatType::Companion)
}

fn general_kind(plan: &Plan) -> Option<SeatType> {
    plan.places().any(|place| place.kind == SeatType::Standard).then_some(SeatType::Standard)
}

/// The window of neighbours with the least cost.
fn side_by_side(show: &Show, open: &[bool], count: usize) -> Option<Vec<u32>> {
    let plan = &show.plan;
    let mut best: Option<(f32, u32)> = None;
    for row in plan.rows() {
        let mut run = 0;
        for seat in row.seats.clone() {
            let continues = run > 0 && plan.are_neighbours(seat - 1, seat);
            run = if !open[seat as usize] {
                0
            } else if continues {
                run + 1
            } else {
                1
            };
            if run < count {
                continue;
            }
            let first = seat + 1 - u32::try_from(count).unwrap_or(u32::MAX);
            let discomfort: f32 = (first..=seat).map(|s| plan.discomfort(s)).sum::<f32>() / count as f32;
            let cost = discomfort + ORPHAN_COST * orphans(show, first, seat) as f32;
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, first));
            }
        }
    }
    best.map(|(_, first)| (first..).take(count).collect())
}

/// How many single free seats taking `first..=last` would leave beside itself.
fn orphans(show: &Show, first: u32, last: u32) -> usize {
    let taken = |seat: u32| (first..=last).contains(&seat);
    [first.checked_sub(1), Some(last + 1)]
        .into_iter()
        .flatten()
        .filter(|seat| show.is_single_gap(*seat, &taken, true))
        .count()
}

/// Where no row has room side by side: seat by seat, each nearest to those chosen already.
fn near_each_other(show: &Show, open: &[bool], count: usize) -> Option<Vec<u32>> {
    let plan = &show.plan;
    let mut left: Vec<u32> = (0..).zip(open).filter(|(_, open)| **open).map(|(seat, _)| seat).collect();
    if left.len() < count {
        return None;
    }
    let mut chosen: Vec<u32> = Vec::with_capacity(count);
    while chosen.len() < count {
        let cost = |seat: u32| {
            let near = chosen.iter().map(|other| plan.distance(seat, *other)).fold(f32::INFINITY, f32::min);
            if chosen.is_empty() { plan.discomfort(seat) } else { near + plan.discomfort(seat) / 1_000.0 }
        };
        let (at, _) = left.iter().enumerate().min_by(|(_, a), (_, b)| cost(**a).total_cmp(&cost(**b)))?;
        chosen.push(left.swap_remove(at));
    }
    chosen.sort_unstable();
    Some(chosen)
}

impl Plan {
    /// How far a seat is from the best place of the hall; 0 is the best place itself.
    fn discomfort(&self, seat: u32) -> f32 {
        let at = self.at(seat);
        let (low, high) = self.depth();
        let ideal = low + (high - low) * IDEAL_DEPTH;
        (at.x - self.middle()).abs() + ROW_WEIGHT * (at.y - ideal).abs()
    }

    fn distance(&self, a: u32, b: u32) -> f32 {
        let (a, b) = (self.at(a), self.at(b));
        (a.x - b.x).abs() + ROW_WEIGHT * (a.y - b.y).abs()
    }
}
