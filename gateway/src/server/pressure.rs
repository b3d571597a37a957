//! How far this process is behind with its own work, and what it refuses for that: when the gateway itself has more
//! to do than it can, every request waits at its door, and no gate further in sees that.
//!
//! Each worker measures how late it is; what counts is the least of an interval, since a burst is not overload
//! (CoDel, RFC 8289). While that stands, more is refused from the last lane upwards; selling is what remains.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::metrics::Metrics;
use crate::proxy::Lane;

const LOOK_EVERY: Duration = Duration::from_millis(10);
const INTERVAL: Duration = Duration::from_millis(250);
/// So many intervals of overload until all of a lane is refused, and of calm until all of it is served again.
const TO_REFUSE: f64 = 4.0;
const TO_SERVE: f64 = 10.0;
/// Selling waits so many times longer than the others before any of it is refused.
const SELLING_WAITS: u32 = 4;
/// Lanes that are refused before selling.
const OTHERS: f64 = (Lane::ALL.len() - 1) as f64;

#[derive(Debug)]
pub struct Pressure {
    target: Duration,
    /// The least lag of each worker since it was last looked at, in microseconds.
    least: Box<[AtomicU64]>,
    /// How many lanes are refused, in thousandths.
    level: AtomicU32,
}

impl Pressure {
    pub fn new(target: Duration, workers: usize) -> Self {
        let least = (0..workers).map(|_| AtomicU64::new(u64::MAX)).collect();
        Self { target, least, level: AtomicU32::new(0) }
    }

    /// Whether a request of the lane is refused now.
    pub fn refuses(&self, lane: Lane) -> bool {
        let level = self.level.load(Ordering::Relaxed);
        level > 0 && rand::random::<f64>() < share(f64::from(level) / 1000.0, lane)
    }

    /// Measures a worker's lag for as long as it runs; `number` counts from 1.
    pub async fn measure(&self, number: usize) {
        let Some(least) = self.least.get(number.wrapping_sub(1)) else { return };
        loop {
            let due = Instant::now() + LOOK_EVERY;
            sleep(LOOK_EVERY).await;
            let late = Instant::now().saturating_duration_since(due);
            least.fetch_min(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Decides how much is refused, for as long as the process lives.
    pub async fn decide(&self, metrics: &Metrics) {
        loop {
            sleep(INTERVAL).await;
            let lag = self.standing();
            let level = next_level(f64::from(self.level.load(Ordering::Relaxed)) / 1000.0, lag, self.target);
            metrics.lag.set(lag.as_secs_f64());
            metrics.lanes_refused.set(level);
            let thousandths = (level * 1000.0).round() as u32;
            let before = self.level.swap(thousandths, Ordering::Relaxed);
            if (before == 0) != (thousandths == 0) {
                let millis = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(lag_ms = millis, refusing = thousandths > 0, "the gateway's own lag");
            }
        }
    }

    /// Of the worker that is furthest behind. One that could not even look is behind for all the interval.
    fn standing(&self) -> Duration {
        let least = self.least.iter().map(|least| least.swap(u64::MAX, Ordering::Relaxed));
        let us = least.max().unwrap_or(0);
        if us == u64::MAX { INTERVAL } else { Duration::from_micros(us) }
    }
}

/// The part of a lane that is refused: the last lane's all before the next one's any.
fn share(level: f64, lane: Lane) -> f64 {
    let after = Lane::ALL.len() - 1 - lane as usize;
    (level - after as f64).clamp(0.0, 1.0)
}

fn next_level(level: f64, lag: Duration, target: Duration) -> f64 {
    if lag <= target {
        return (level - 1.0 / TO_SERVE).max(0.0);
    }
    // Never all of selling: one must get through to find out.
    let most = if lag > target * SELLING_WAITS { OTHERS + 0.9 } else { OTHERS };
    if level > most { (level - 1.0 / TO_SERVE).max(most) } else { (level + 1.0 / TO_REFUSE).min(most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(100);

    fn after(mut level: f64, lag: Duration, intervals: usize) -> f64 {
        for _ in 0..intervals {
            level = next_level(level, lag, TARGET);
        }
        level
    }

    #[test]
    fn the_last_lanes_are_refused_first_and_selling_only_when_all_else_is() {
        assert_eq!(after(0.0, TARGET, 100), 0.0);
        let some = after(0.0, TARGET * 2, 6);
        assert_eq!(share(some, Lane::Reporting), 1.0);
        assert!((0.4..0.6).contains(&share(some, Lane::Reading)), "{some}");
        assert_eq!(share(some, Lane::Writing), 0.0);
        let all_but_selling = after(some, TARGET * 2, 100);
        assert_eq!((share(all_but_selling, Lane::Staff), share(all_but_selling, Lane::Selling)), (1.0, 0.0));
        let worst = after(some, TARGET * 5, 100);
        assert!((0.5..1.0).contains(&share(worst, Lane::Selling)));
        // Selling comes back before the others do.
        assert_eq!(share(after(worst, TARGET * 2, 100), Lane::Selling), 0.0);
        assert_eq!(after(worst, TARGET, 100), 0.0);
    }

    #[tokio::test]
    async fn a_worker_that_is_held_up_is_late_and_a_burst_is_not_lag() {
        let pressure = std::sync::Arc::new(Pressure::new(TARGET, 1));
        assert_eq!(pressure.standing(), INTERVAL, "it could not look");
        let measured = pressure.clone();
        let measuring = tokio::spawn(async move { measured.measure(1).await });
        // Held up once for long: the looks before and after it are in time.
        tokio::time::sleep(LOOK_EVERY * 5).await;
        std::thread::sleep(TARGET * 2);
        tokio::time::sleep(LOOK_EVERY * 5).await;
        assert!(pressure.standing() < TARGET);
        // Held up again and again.
        for _ in 0..5 {
            std::thread::sleep(LOOK_EVERY * 6);
            tokio::task::yield_now().await;
        }
        let lag = pressure.standing();
        assert!((LOOK_EVERY * 3..LOOK_EVERY * 60).contains(&lag), "{lag:?}");
        measuring.abort();
    }
}
