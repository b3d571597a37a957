//! Time that runs on while the machine is suspended, for leases and for how long somebody was silent.
//!
//! `std::time::Instant` stands still meanwhile on Linux: a process that slept through an hour would believe
//! its lease to be a second old. (`CLOCK_BOOTTIME` in clock_gettime(2).)

use std::ops::Add;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment, counted from the machine's start; means nothing on another machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let secs = u64::try_from(now.tv_sec).unwrap_or(0);
        Self(Duration::new(secs, u32::try_from(now.tv_nsec).unwrap_or(0)))
    }

    /// Zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_runs_backwards_and_differences_do_not_either() {
        let (first, second) = (BootTime::now(), BootTime::now());
        assert!(second >= first && first > BootTime::default());
        assert_eq!(first.since(first + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!((first + Duration::from_secs(1)).since(first), Duration::from_secs(1));
    }
}
