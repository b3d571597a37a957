//! What customers ask for: everybody something else, or everybody the best that looks free.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::{Booking, SEATS_A_BOOKING};

/// Over how many shows the bookings go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Everybody wants the same show, then the next.
    Hot,
    /// Each booking is for the next of all shows.
    Even,
}

/// Whether customers want the same seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nobody asks for a seat that another asked for.
    Distinct,
    /// People look at the map, choose near the middle among what is not known to be taken, are refused where
    /// another was faster, and choose again.
    Popular,
}

/// How far from the middle people look, as a part of the hall: the standard deviation of where they point.
const MIDDLE: f64 = 0.12;
/// Nobody points exactly: among this many free places beside the one meant.
const BLUR: usize = 6;

/// Hands out bookings.
pub struct Desk {
    spread: Spread,
    demand: Demand,
    shows: u32,
    bookings_a_show: u32,
    next: AtomicU64,
    map: Map,
}

/// What is known to be taken; like a seat map on a screen, it learns of a booking when it is answered.
struct Map {
    taken: Vec<AtomicBool>,
    left: Vec<AtomicU32>,
    current: AtomicU32,
}

impl Desk {
    pub fn new(spread: Spread, demand: Demand, shows: u32, seats: u32) -> Self {
        let bookings_a_show = seats / SEATS_A_BOOKING;
        let places = if demand == Demand::Popular { shows as usize * bookings_a_show as usize } else { 0 };
        let map = Map {
            taken: (0..places).map(|_| AtomicBool::new(false)).collect(),
            left: (0..shows).map(|_| AtomicU32::new(bookings_a_show)).collect(),
            current: AtomicU32::new(0),
        };
        Self { spread, demand, shows, bookings_a_show, next: AtomicU64::new(0), map }
    }

    /// Whether a refusal is a matter of course.
    pub fn collides(&self) -> bool {
        self.demand == Demand::Popular
    }

    /// What the next customer asks for; none when everything is sold.
    pub fn choose(&self) -> Option<Booking> {
        match self.demand {
            Demand::Distinct => self.next_in_order(),
            Demand::Popular => self.near_the_middle(),
        }
    }

    /// The booking's seats are gone, to whomever.
    pub fn gone(&self, booking: Booking) {
        if self.demand == Demand::Popular
            && !self.map.taken[self.place(booking)].swap(true, Ordering::Relaxed)
        {
            self.map.left[booking.show as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn place(&self, booking: Booking) -> usize {
        (booking.show * self.bookings_a_show + booking.seat / SEATS_A_BOOKING) as usize
    }

    fn next_in_order(&self) -> Option<Booking> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (shows, bookings) = (u64::from(self.shows), u64::from(self.bookings_a_show));
        if number >= shows * bookings {
            return None;
        }
        let (show, turn) = match self.spread {
            Spread::Hot => (number / bookings, number % bookings),
            Spread::Even => (number % shows, number / shows),
        };
        let small = |n: u64| u32::try_from(n).expect("below the number of shows and seats");
        Some(Booking { show: small(show), seat: small(turn) * SEATS_A_BOOKING })
    }

    fn near_the_middle(&self) -> Option<Booking> {
        loop {
            let show = self.show_on_sale()?;
            let places = self.bookings_a_show as usize;
            let first = show as usize * places;
            let taken = &self.map.taken[first..first + places];
            // The sum of four dice is close enough to a bell.
            let bell = (0..4).map(|_| rand::random::<f64>() - 0.5).sum::<f64>() * f64::sqrt(3.0);
            let meant = ((0.5 + bell * MIDDLE).clamp(0.0, 0.999_9) * places as f64) as usize;
            let blur = rand::random_range(0..BLUR);
            let free = |place: &usize| !taken[*place].load(Ordering::Relaxed);
            let up = || (meant..places).filter(free);
            let down = || (0..meant).rev().filter(free);
            let found = if rand::random() { up().nth(blur) } else { down().nth(blur) };
            // Near the end there are not that many on this side.
            let found = found.or_else(|| up().next()).or_else(|| down().next());
            if let Some(place) = found {
                return Some(Booking { show, seat: place as u32 * SEATS_A_BOOKING });
            }
        }
    }

    /// The first show with something left, or a random one where sales are spread.
    fn show_on_sale(&self) -> Option<u32> {
        let has = |show: u32| self.map.left[show as usize].load(Ordering::Relaxed) > 0;
        if self.spread == Spread::Even {
            let from = rand::random_range(0..self.shows);
            return (0..self.shows).map(|n| (from + n) % self.shows).find(|show| has(*show));
        }
        loop {
            let show = self.map.current.load(Ordering::Relaxed);
            if show >= self.shows {
                return None;
            }
            if has(show) {
                return Some(show);
            }
            let _ = self.map.current.compare_exchange(show, show + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn distinct_demand_asks_for_every_place_once() {
        for spread in [Spread::Hot, Spread::Even] {
            let desk = Desk::new(spread, Demand::Distinct, 3, 10);
            let asked: Vec<(u32, u32)> =
                std::iter::from_fn(|| desk.choose()).map(|b| (b.show, b.seat)).collect();
            assert_eq!(asked.len(), 15);
            assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 15);
        }
    }

    #[test]
    fn popular_demand_sells_out_from_the_middle() {
        let desk = Desk::new(Spread::Hot, Demand::Popular, 2, 1_000);
        let mut sold = Vec::new();
        while let Some(booking) = desk.choose() {
            desk.gone(booking);
            // To be told twice changes nothing.
            desk.gone(booking);
            sold.push((booking.show, booking.seat));
        }
        assert_eq!(sold.iter().collect::<BTreeSet<_>>().len(), 1_000);
        let near = sold[..100].iter().filter(|(show, seat)| *show == 0 && (200..800).contains(seat)).count();
        assert!(near > 90, "{near}");
    }
}
