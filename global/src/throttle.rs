//! Slowing down who guesses passwords: by account and address together, so that a stranger cannot lock
//! anybody out. Kept in memory: what a restart forgets, the hash's cost still defends.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// So many failures are free.
const FREE: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(900);
/// After so long without an attempt all is forgotten.
const MEMORY: Duration = Duration::from_secs(900);
const MAX_ENTRIES: usize = 100_000;

struct Entry {
    attempts: u32,
    last: Instant,
}

#[derive(Default)]
pub struct Throttle(Mutex<HashMap<(String, String), Entry>>);

/// Come back after so long.
#[derive(Debug, PartialEq, Eq)]
pub struct SlowDown(pub Duration);

impl Throttle {
    /// Counts an attempt before it is made, so that a hundred at once are a hundred. A success must be told
    /// ([`Self::succeeded`]).
    pub fn attempt(&self, account: &str, address: &str) -> Result<(), SlowDown> {
        self.attempt_at(account, address, Instant::now())
    }

    fn attempt_at(&self, account: &str, address: &str, now: Instant) -> Result<(), SlowDown> {
        let mut entries = self.0.lock().expect("no code panics while holding it");
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, e| now.duration_since(e.last) < MEMORY);
            // Still full: an attack from everywhere. Forgetting is better than growing.
            if entries.len() >= MAX_ENTRIES {
                entries.clear();
            }
        }
        let entry = entries.entry(key(account, address)).or_insert(Entry { attempts: 0, last: now });
        if now.duration_since(entry.last) >= MEMORY {
            entry.attempts = 0;
        }
        if let Some(over) = entry.attempts.checked_sub(FREE) {
            let pause = (FIRST_PAUSE * 2u32.saturating_pow(over.min(10))).min(LONGEST_PAUSE);
            let waited = now.duration_since(entry.last);
            if waited < pause {
                return Err(SlowDown(pause - waited));
            }
        }
        entry.attempts += 1;
        entry.last = now;
        Ok(())
    }

    /// The attempt was never judged (too busy, a failure of ours): it says nothing about who made it.
    pub fn unjudged(&self, account: &str, address: &str) {
        let mut entries = self.0.lock().expect("no code panics while holding it");
        if let Some(entry) = entries.get_mut(&key(account, address)) {
            entry.attempts = entry.attempts.saturating_sub(1);
        }
    }

    pub fn succeeded(&self, account: &str, address: &str) {
        self.0.lock().expect("no code panics while holding it").remove(&key(account, address));
    }
}

fn key(account: &str, address: &str) -> (String, String) {
    // A long name is no account's; what is kept of it is bounded.
    (account.to_lowercase().chars().take(254).collect(), address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_failures_slow_down_only_their_own_pair() {
        let throttle = Throttle::default();
        let start = Instant::now();
        for _ in 0..FREE {
            assert_eq!(throttle.attempt_at("Ann", "1.1.1.1", start), Ok(()));
        }
        assert_eq!(throttle.attempt_at("ann", "1.1.1.1", start), Err(SlowDown(FIRST_PAUSE)));
        assert_eq!(throttle.attempt_at("ann", "2.2.2.2", start), Ok(()));
        assert_eq!(throttle.attempt_at("bob", "1.1.1.1", start), Ok(()));
        let later = start + FIRST_PAUSE;
        assert_eq!(throttle.attempt_at("ann", "1.1.1.1", later), Ok(()));
        assert_eq!(throttle.attempt_at("ann", "1.1.1.1", later), Err(SlowDown(FIRST_PAUSE * 2)));
        throttle.succeeded("ann", "1.1.1.1");
        assert_eq!(throttle.attempt_at("ann", "1.1.1.1", later), Ok(()));
    }

    #[test]
    fn what_was_never_judged_slows_nobody_down() {
        let throttle = Throttle::default();
        let start = Instant::now();
        for _ in 0..2 * FREE {
            assert_eq!(throttle.attempt_at("ann", "a", start), Ok(()));
            throttle.unjudged("Ann", "a");
        }
        for _ in 0..FREE {
            throttle.attempt_at("ann", "a", start).unwrap();
        }
        assert!(throttle.attempt_at("ann", "a", start).is_err());
    }

    #[test]
    fn long_ago_is_forgotten() {
        let throttle = Throttle::default();
        let start = Instant::now();
        for _ in 0..FREE {
            throttle.attempt_at("ann", "a", start).unwrap();
        }
        assert!(throttle.attempt_at("ann", "a", start).is_err());
        assert_eq!(throttle.attempt_at("ann", "a", start + MEMORY), Ok(()));
    }
}
