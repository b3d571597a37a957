//! A time in eight bytes, and "no time" in none, where jiff's takes sixteen and twenty-four: to the microsecond,
//! which is what hosts' clocks, tables and answers tell.

use std::fmt;
use std::num::NonZeroI64;

use jiff::Timestamp;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(NonZeroI64);

/// More microseconds than any time is before 1970: so none of them is zero.
const SHIFT: i64 = 1 << 60;

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        let shifted = NonZeroI64::new(at.as_microsecond() + SHIFT);
        Self(shifted.expect("no time is so early"))
    }
}

impl Moment {
    pub fn time(self) -> Timestamp {
        // Only of the last second of all, jiff takes whole seconds back and no parts of it.
        Timestamp::from_microsecond(self.0.get() - SHIFT).unwrap_or(Timestamp::MAX)
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.time().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_was_told_and_keeps_the_order() {
        let times = [Timestamp::MIN, "1969-12-31T23:59:59.999999Z".parse().unwrap(), Timestamp::UNIX_EPOCH];
        let more = ["2026-11-20T19:30:00.123456Z".parse().unwrap(), Timestamp::MAX];
        let moments: Vec<Moment> = times.into_iter().chain(more).map(Moment::from).collect();
        assert!(moments.is_sorted_by(|a, b| a < b));
        for (moment, time) in moments.iter().zip(times.into_iter().chain(more)) {
            assert_eq!(moment.time().as_microsecond(), time.as_microsecond());
        }
        assert_eq!(std::mem::size_of::<Option<Moment>>(), 8);
    }
}
