//! Majorities.

use std::collections::BTreeSet;

/// Whether `present` holds for more than half of `of`. Of no regions there is no majority.
pub fn is_majority<R: Ord>(of: &BTreeSet<R>, present: impl Fn(&R) -> bool) -> bool {
    2 * of.iter().filter(|region| present(region)).count() > of.len()
}

/// The greatest number that a majority of `of` has reached.
pub fn majority_reached<R: Ord>(of: &BTreeSet<R>, reached: impl Fn(&R) -> u64) -> u64 {
    let mut numbers: Vec<u64> = of.iter().map(reached).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.get(of.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majorities_are_more_than_half() {
        let set = |n: u64| (0..n).collect::<BTreeSet<u64>>();
        for (of, present, expected) in [
            (0, 0, false),
            (1, 0, false),
            (1, 1, true),
            (2, 1, false),
            (3, 2, true),
            (4, 2, false),
            (5, 3, true),
        ] {
            assert_eq!(is_majority(&set(of), |r| *r < present), expected, "{present} of {of}");
        }
        let reached = |of: &[u64]| majority_reached(&set(of.len() as u64), |r| of[*r as usize]);
        assert_eq!(reached(&[]), 0);
        assert_eq!(reached(&[7]), 7);
        assert_eq!(reached(&[7, 3]), 3);
        assert_eq!(reached(&[1, 9, 5]), 5);
        assert_eq!(reached(&[1, 9, 5, 8]), 5);
    }
}
