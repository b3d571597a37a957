//! Hashing and checking passwords with Argon2id, off the async threads. Each takes megabytes and tens of
//! milliseconds, so few run at once, a bounded number waits, and the rest is told to come back: a flood of
//! sign-ins costs neither more memory than that nor the cores that others need.
//!
//! Invariant: a name without an account costs what one with an account does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use common::Problem;
use tokio::sync::Semaphore;

use crate::config::Argon2Config;
use crate::metrics::METRICS;

/// Failures answer no sooner than so many times what a hash takes on an idle machine: what is left of the
/// difference between accounts (a hash of an older cost, a row that was in no cache) lies below.
const FLOOR_IN_HASHES: u32 = 3;
const LONGEST_FLOOR: Duration = Duration::from_secs(1);
/// Longer waits are refused: the queue would only grow.
const MAX_WAIT: Duration = Duration::from_secs(5);

impl Argon2Config {
    pub(crate) fn params(&self) -> Result<Params, argon2::Error> {
        Params::new(self.memory_kib, self.iterations, self.parallelism, None)
    }
}

#[derive(Clone)]
pub struct Passwords {
    params: Params,
    running: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    max_waiting: usize,
    failure_floor: Duration,
    /// Checked against where there is no account, so that the work tells nobody whether there is one.
    dummy: Arc<str>,
}

/// What checking a password showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Wrong,
    Right,
    /// Right, but its hash was made more cheaply than is wanted now.
    RightButOutdated,
}

impl Passwords {
    pub fn new(config: &Argon2Config) -> anyhow::Result<Self> {
        let params = config.params().map_err(|e| anyhow::anyhow!("argon2: {e}"))?;
        let nobody = format!("{:032x}", rand::random::<u128>());
        let hashed = || {
            let started = Instant::now();
            hash(&params, &nobody).map(|hash| (started.elapsed(), hash))
        };
        // The best of three is the idle machine's.
        let mut tries = Vec::new();
        for _ in 0..3 {
            tries.push(hashed().map_err(|e| anyhow::anyhow!("argon2: {e}"))?);
        }
        let (took, dummy) = tries.into_iter().min().expect("three tries");
        Ok(Self {
            params,
            running: Arc::new(Semaphore::new(config.at_once())),
            waiting: Arc::default(),
            max_waiting: config.max_waiting as usize,
            failure_floor: (took * FLOOR_IN_HASHES).min(LONGEST_FLOOR),
            dummy: dummy.into(),
        })
    }

    /// To be awaited before a failure is told; `started` when the attempt came.
    pub async fn level_failure(&self, started: Instant) {
        tokio::time::sleep_until((started + self.failure_floor).into()).await;
    }

    pub async fn hash(&self, password: String) -> Result<String, Problem> {
        let params = self.params.clone();
        self.run(move || hash(&params, &password)).await?.map_err(Problem::internal)
    }

    /// Compares with `stored`; none: with something nobody has, at the same cost.
    pub async fn check(&self, password: String, stored: Option<String>) -> Result<Check, Problem> {
        let (params, dummy) = (self.params.clone(), self.dummy.clone());
        self.run(move || check(&params, &password, stored.as_deref(), &dummy)).await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let place = Place::take(&self.waiting, self.max_waiting).ok_or_else(busy)?;
        let permit = tokio::time::timeout(MAX_WAIT, self.running.clone().acquire_owned())
            .await
            .map_err(|_| busy())?
            .map_err(Problem::internal)?;
        drop(place);
        tokio::task::spawn_blocking(move || {
            let result = work();
            // Held by the work, not by the request: an abandoned request still uses its core.
            drop(permit);
            result
        })
        .await
        .map_err(Problem::internal)
    }
}

/// A place in the queue; given back when dropped, also by a request that is abandoned.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(waiting: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let more = |n: usize| (n < max).then_some(n + 1);
        waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        METRICS.passwords_waiting.inc();
        Some(Self(waiting.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
        METRICS.passwords_waiting.dec();
    }
}

fn busy() -> Problem {
    METRICS.passwords_busy.inc();
    Problem::unavailable("busy", "too many sign-ins at once; try again", 2)
}

fn hash(params: &Params, password: &str) -> Result<String, argon2::password_hash::Error> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    argon2.hash_password(password.as_bytes()).map(|hash| hash.to_string())
}

fn check(params: &Params, password: &str, stored: Option<&str>, dummy: &str) -> Check {
    // The parameters come from the stored hash itself.
    let matches = |hash: &PasswordHash| Argon2::default().verify_password(password.as_bytes(), hash).is_ok();
    match stored.map(PasswordHash::new) {
        Some(Ok(hash)) if matches(&hash) => {
            let wanted = |p: &Params| {
                p.m_cost() >= params.m_cost()
                    && p.t_cost() >= params.t_cost()
                    && p.p_cost() >= params.p_cost()
            };
            if Params::try_from(&hash).is_ok_and(|p| wanted(&p)) {
                Check::Right
            } else {
                Check::RightButOutdated
            }
        }
        Some(Ok(_)) => Check::Wrong,
        Some(Err(_)) | None => {
            if let Ok(hash) = PasswordHash::new(dummy) {
                matches(&hash);
            }
            Check::Wrong
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Argon2Config {
        Argon2Config { memory_kib: 64, iterations: 1, parallelism: 1, ..Argon2Config::default() }
    }

    /// Who has no account is compared with a hash of exactly today's cost.
    #[test]
    fn nobody_costs_what_somebody_does() {
        let config = Argon2Config { memory_kib: 128, iterations: 3, ..cheap() };
        let passwords = Passwords::new(&config).unwrap();
        let dummy = PasswordHash::new(&passwords.dummy).unwrap();
        let cost = Params::try_from(&dummy).unwrap();
        assert_eq!((cost.m_cost(), cost.t_cost(), cost.p_cost()), (128, 3, 1));
        let stored = hash(&passwords.params, "a seat in row F").unwrap();
        let somebody = PasswordHash::new(&stored).unwrap();
        assert_eq!(Params::try_from(&somebody).unwrap(), Params::try_from(&dummy).unwrap());
        assert_eq!(somebody.algorithm, dummy.algorithm);
        assert_eq!(somebody.version, dummy.version);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_flood_is_turned_away_and_leaves_no_trace() {
        // Tens of milliseconds each, one at a time, four in the queue.
        let config = Argon2Config {
            memory_kib: 32 * 1024,
            iterations: 2,
            at_once: 1,
            max_waiting: 4,
            ..Argon2Config::default()
        };
        let passwords = Passwords::new(&config).unwrap();
        let flood = futures::future::join_all((0..40).map(|_| passwords.check("guess".into(), None))).await;
        let refused: Vec<Problem> = flood.into_iter().filter_map(Result::err).collect();
        assert!((30..40).contains(&refused.len()), "{}", refused.len());
        for problem in refused {
            assert_eq!((problem.status.as_u16(), problem.code), (503, "busy"));
            assert!(problem.retry_after_secs.is_some());
        }
        // Places of requests that went away in the queue are free again.
        for _ in 0..20 {
            let abandoned = passwords.check("guess".into(), None);
            let _ = tokio::time::timeout(Duration::from_millis(1), abandoned).await;
        }
        assert_eq!(passwords.waiting.load(Ordering::Acquire), 0);
        assert_eq!(passwords.check("guess".into(), None).await.unwrap(), Check::Wrong);
    }

    #[tokio::test]
    async fn right_wrong_and_outdated_are_told_apart() {
        let passwords = Passwords::new(&cheap()).unwrap();
        let stored = passwords.hash("a seat in row F".into()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{stored}");
        let check = async |p: &Passwords, text: &str, stored: Option<&String>| {
            p.check(text.into(), stored.cloned()).await.unwrap()
        };
        assert_eq!(check(&passwords, "a seat in row F", Some(&stored)).await, Check::Right);
        assert_eq!(check(&passwords, "a seat in row G", Some(&stored)).await, Check::Wrong);
        assert_eq!(check(&passwords, "a seat in row F", None).await, Check::Wrong);
        let dearer = Passwords::new(&Argon2Config { iterations: 2, ..cheap() }).unwrap();
        assert_eq!(check(&dearer, "a seat in row F", Some(&stored)).await, Check::RightButOutdated);
        assert_ne!(stored, passwords.hash("a seat in row F".into()).await.unwrap(), "salted");
    }
}
