//! Faults in an order of their own, for rules whose lack shows only when several things go wrong one after another:
//! chance alone does not come to them in thousands of seeds. What is drawn is when each step comes and who plays
//! which part; customers, links and stores go on as in any seed. Rules that hold stand these stories like any other.

use std::collections::BTreeSet;

use crate::event::{Event, Ms, Place};
use crate::faults::Fault;
use crate::setup::Emphasis;
use crate::world::World;

/// From one telling of a story to the next: shows are served, stores are whole again.
const TELLINGS: (Ms, Ms) = (11_000, 14_000);

impl World {
    /// Plans the emphasis' story, again and again until everything heals.
    pub fn plan_script(&mut self) {
        let story = match self.setup.emphasis {
            Emphasis::StaleTail => Self::stale_tail,
            Emphasis::LateAppend => Self::late_append,
            _ => return,
        };
        let mut at = 3_000;
        while at + TELLINGS.0 < self.setup.chaos {
            story(self, at);
            at += self.chance.between(TELLINGS.0, TELLINGS.1);
        }
    }

    /// A leader's last entries, of which the first is held by others and none is known to be: its acknowledgements were
    /// lost, then everything was. Two leaders later it comes back, and is the only one that the second of these reaches:
    /// asked about the entry that it shares, it must not vouch for those that only it has. The leader between has no time
    /// to write much, since a tail that is shorter than what came after vouches for nothing.
    fn stale_tail(&mut self, at: Ms) {
        let [a, b, c] = self.parts::<3>();
        self.fault_at(at, Fault::MoveTo(a));
        let deaf = at + self.chance.between(1_500, 2_500);
        let alone = deaf + self.chance.between(0, 60);
        let first = alone + self.chance.between(100, 400);
        let back = first + self.chance.between(50, 300);
        let second = back + self.chance.between(0, 100);
        let end = second + self.chance.between(600, 1_500);
        self.fault_at(deaf, cut(&[(b, a), (c, a)], back - deaf));
        self.fault_at(alone, cut(&[(a, b), (a, c)], back - alone));
        self.fault_at(alone, away(a, back - alone));
        self.fault_at(first, Fault::MoveTo(c));
        self.fault_at(back, cut(&[(b, c), (c, b)], end - back));
        self.fault_at(second, Fault::MoveTo(b));
        // What only the second leader has is lost to the others for a while.
        let until = self.chance.between(1_500, 3_000);
        self.fault_at(end, cut(&[(b, a), (b, c), (a, b), (c, b)], until));
        self.fault_at(end, Fault::MoveTo(c));
    }

    /// A leader that the registry does not reach. One store has its entry and loses it; another gets it late, and has
    /// told the first one meanwhile what it holds: it must not take the entry any more.
    fn late_append(&mut self, at: Ms) {
        let [a, b, c, d, z] = self.parts::<5>();
        self.fault_at(at, Fault::MoveTo(a));
        let apart = at + self.chance.between(1_500, 2_500);
        let lost = apart + self.chance.between(100, 900);
        let moved = lost + self.chance.between(1_200, 3_500);
        let end = moved + self.chance.between(1_500, 3_000);
        self.fault_at(apart, cut(&[(a, c), (a, d)], end - apart));
        self.fault_at(apart, away(a, end - apart));
        let extra = self.chance.between(1_500, 4_500);
        self.fault_at(apart, Fault::Slow(vec![(Place::Region(a), Place::Region(b))], extra, end - apart));
        self.fault_at(lost, Fault::StoreRestored(z));
        self.fault_at(moved, cut(&[(b, c), (c, b)], end - moved));
        self.fault_at(moved, Fault::MoveTo(c));
    }

    fn fault_at(&mut self, at: Ms, fault: Fault) {
        self.queue.push(at, Event::Fault(self.faults.len()));
        self.faults.push(fault);
    }

    /// Regions for so many parts.
    fn parts<const N: usize>(&mut self) -> [u8; N] {
        let mut free: BTreeSet<u8> = (0..self.setup.regions).collect();
        std::array::from_fn(|_| {
            let of: Vec<u8> = free.iter().copied().collect();
            let part = self.chance.one(&of).copied().unwrap_or(0);
            free.remove(&part);
            part
        })
    }
}

fn cut(ways: &[(u8, u8)], lasts: Ms) -> Fault {
    Fault::CutFor(ways.iter().map(|(from, to)| (Place::Region(*from), Place::Region(*to))).collect(), lasts)
}

/// Out of the registry's reach.
fn away(region: u8, lasts: Ms) -> Fault {
    let region = Place::Region(region);
    Fault::CutFor(vec![(region, Place::Registry), (Place::Registry, region)], lasts)
}
