//! Whether a process behind is worth asking, from how the last requests to it ended (outlier ejection).
//!
//! Only what says something about the process counts: no connection, a broken one, silence. An answer is an
//! answer, whatever its status. Some failures in a row, and it is left alone for a while, longer each time;
//! then one request tries it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

const FAILURES_TO_OPEN: u32 = 5;
const OPEN_FIRST: Duration = Duration::from_millis(500);
const OPEN_MAX: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// How often it was left alone without a success since.
    ejections: u32,
    open_until: Option<Instant>,
    /// A request is trying it.
    probing: bool,
}

#[derive(Debug, Default)]
pub struct Breaker(Mutex<State>);

/// Leave to ask once. Dropped without a word, it tells nothing about the process.
#[derive(Debug)]
pub struct Leave<'a> {
    breaker: &'a Breaker,
    told: bool,
}

impl Breaker {
    /// None: it is being left alone.
    pub fn leave(&self) -> Option<Leave<'_>> {
        let mut state = self.lock();
        if let Some(until) = state.open_until {
            if state.probing || Instant::now() < until {
                return None;
            }
            state.probing = true;
        }
        Some(Leave { breaker: self, told: false })
    }

    /// Whether [`Self::leave`] would be given.
    pub fn is_open(&self) -> bool {
        let state = self.lock();
        state.open_until.is_some_and(|until| state.probing || Instant::now() < until)
    }

    /// It has answered somebody.
    pub fn close(&self) {
        let mut state = self.lock();
        let probing = state.probing;
        *state = State { probing, ..State::default() };
    }

    fn failed(&self) -> bool {
        let mut state = self.lock();
        state.failures = state.failures.saturating_add(1);
        // Requests that were under way when it opened add nothing.
        let opens = match state.open_until {
            None => state.failures >= FAILURES_TO_OPEN,
            Some(until) => Instant::now() >= until,
        };
        if opens {
            let most = OPEN_FIRST.saturating_mul(1 << state.ejections.min(10)).min(OPEN_MAX);
            state.ejections += 1;
            // Gateways that saw it fail together do not try it together.
            state.open_until = Some(Instant::now() + most.mul_f64(rand::random_range(0.75..1.25)));
        }
        opens
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while holding it")
    }
}

impl Leave<'_> {
    pub fn succeeded(mut self) {
        self.told = true;
        self.breaker.lock().probing = false;
        self.breaker.close();
    }

    /// True when the process is left alone from now on.
    pub fn failed(mut self) -> bool {
        self.told = true;
        let opened = self.breaker.failed();
        self.breaker.lock().probing = false;
        opened
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.breaker.lock().probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_and_one_success_closes_it() {
        let breaker = Breaker::default();
        for n in 1..=FAILURES_TO_OPEN {
            assert_eq!(breaker.leave().unwrap().failed(), n == FAILURES_TO_OPEN);
        }
        assert!(breaker.is_open() && breaker.leave().is_none());
        let opened_for = |breaker: &Breaker| breaker.lock().open_until.unwrap() - Instant::now();
        assert!(opened_for(&breaker) <= OPEN_FIRST.mul_f64(1.25));

        // Its time is over: one may try, and only one; one that gives up lets another.
        breaker.lock().open_until = Some(Instant::now());
        let first = breaker.leave().unwrap();
        assert!(breaker.leave().is_none());
        drop(first);
        assert!(breaker.leave().unwrap().failed());
        assert!(opened_for(&breaker) > OPEN_FIRST, "longer than before");

        breaker.lock().open_until = Some(Instant::now());
        breaker.leave().unwrap().succeeded();
        assert!(!breaker.is_open());
        // Failures with successes in between are none of its business.
        for _ in 0..3 * FAILURES_TO_OPEN {
            assert!(!breaker.leave().unwrap().failed());
            breaker.leave().unwrap().succeeded();
        }
    }
}
