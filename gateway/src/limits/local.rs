//! Limits counted in this process, for as long as Redis is gone.

use std::collections::HashMap;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::Mutex;

use super::{Bucket, Verdict};
use crate::config::Rate;

type Buckets = RateLimiter<String, DashMapStateStore<String>, DefaultClock, StateInformationMiddleware>;

#[derive(Default)]
pub struct Local {
    clock: DefaultClock,
    /// One limiter a rate; there are as many as the configuration has.
    by_rate: Mutex<HashMap<(u32, u32), std::sync::Arc<Buckets>>>,
}

impl Local {
    /// Unlike Redis, a bucket before the one that refuses has counted the request; that errs on the
    /// stricter side.
    pub fn check_all(&self, buckets: &[Bucket]) -> Option<Verdict> {
        let mut tightest: Option<Verdict> = None;
        for Bucket { key, rate } in buckets {
            let verdict = self.check(key, *rate);
            if !verdict.allowed {
                return Some(verdict);
            }
            if tightest.is_none_or(|t| verdict.remaining < t.remaining) {
                tightest = Some(verdict);
            }
        }
        tightest
    }

    fn check(&self, key: &str, rate: Rate) -> Verdict {
        let buckets = self.buckets(rate);
        let interval = Duration::from_secs(1) / rate.per_sec.max(1);
        match buckets.check_key(&key.to_owned()) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                Verdict {
                    allowed: true,
                    rate,
                    remaining,
                    retry_after: Duration::ZERO,
                    full_after: interval * rate.burst.saturating_sub(remaining),
                }
            }
            Err(refused) => Verdict {
                allowed: false,
                rate,
                remaining: 0,
                retry_after: refused.wait_time_from(self.clock.now()),
                full_after: interval * rate.burst,
            },
        }
    }

    /// Drops the buckets that are full again.
    pub fn forget_idle(&self) {
        for buckets in self.lock().values() {
            buckets.retain_recent();
        }
    }

    fn buckets(&self, rate: Rate) -> std::sync::Arc<Buckets> {
        let one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let made = || {
            let quota = Quota::per_second(one(rate.per_sec)).allow_burst(one(rate.burst));
            RateLimiter::dashmap(quota).with_middleware().into()
        };
        self.lock().entry((rate.per_sec, rate.burst)).or_insert_with(made).clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(u32, u32), std::sync::Arc<Buckets>>> {
        self.by_rate.lock().expect("no code panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_no_more() {
        let local = Local::default();
        let rate = Rate { per_sec: 1, burst: 3 };
        let left: Vec<u32> = (0..3).map(|_| local.check("a", rate).remaining).collect();
        assert_eq!(left, [2, 1, 0]);
        let refused = local.check("a", rate);
        assert!(!refused.allowed && refused.retry_after > Duration::from_millis(500));
        assert!(local.check("b", rate).allowed);
    }
}
