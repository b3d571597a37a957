//! Chance that is the same on every machine and in every build: splitmix64.

#[derive(Clone, Debug)]
pub struct Random(u64);

/// Scatters the bits of `word` (the finisher of splitmix64).
pub fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x4d61_7271_7565_6521))
    }

    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From 0 to `end`, without it; 0 where that is nothing.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias is far below what a simulation could notice.
        if end == 0 { 0 } else { self.word() % end }
    }

    /// From `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    pub fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.below(1_000) < per_mille
    }

    pub fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let at = usize::try_from(self.below(of.len() as u64)).ok()?;
        of.get(at)
    }

    /// One of several, as often as its weight says.
    pub fn weighed<T: Copy>(&mut self, of: &[(u64, T)]) -> Option<T> {
        let all = of.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(all);
        of.iter().find_map(|(weight, what)| {
            if at < *weight {
                return Some(*what);
            }
            at -= weight;
            None
        })
    }
}
