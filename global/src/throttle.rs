//! Slowing down who guesses passwords: by account and address together, so that a stranger cannot lock
//! anybody out. Counted in Postgres for all processes of the service, and through their restarts; what a crash of
//! Postgres forgets, the hash's cost still defends.
//!
//! Invariant: an attempt is counted before it is made, by one statement: a hundred at once are a hundred, wherever
//! they arrive. What is kept is a keyed digest and names nobody. Without Postgres there is no attempt.

use std::time::Duration;

use common::seal::SealingKey;
use deadpool_postgres::GenericClient;

use crate::db;
use crate::fault::Result;

/// So many failures are free.
const FREE: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(900);
/// After so long without an attempt all is forgotten. Not less than the longest pause.
const MEMORY: Duration = Duration::from_secs(900);

/// How long after the last of so many attempts the next may be made.
fn pause(attempts: u32) -> Duration {
    match attempts.checked_sub(FREE) {
        Some(over) => (FIRST_PAUSE * 2u32.saturating_pow(over.min(10))).min(LONGEST_PAUSE),
        None => Duration::ZERO,
    }
}

/// [`pause`] for 0, 1, 2 … attempts in seconds, up to the first that is the longest.
fn pauses() -> Vec<f64> {
    let shorter = (0..).map(pause).take_while(|pause| *pause < LONGEST_PAUSE);
    shorter.chain([LONGEST_PAUSE]).map(|pause| pause.as_secs_f64()).collect()
}

pub struct Throttle {
    key: SealingKey,
    pauses: Vec<f64>,
}

/// An attempt that was counted.
pub struct Attempt {
    pair: [u8; 32],
}

/// Come back after so long.
#[derive(Debug, PartialEq, Eq)]
pub struct SlowDown(pub Duration);

/// Writes nothing where the pause is not over. The clock is Postgres's, alike for all; each reads it when it has
/// the row for itself.
const COUNT: &str = "
INSERT INTO attempts AS a (pair, count, last_at) VALUES ($1, 1, clock_timestamp())
ON CONFLICT (pair) DO UPDATE
   SET count = CASE WHEN clock_timestamp() - a.last_at >= make_interval(secs => $3) THEN 1 ELSE a.count + 1 END,
       last_at = clock_timestamp()
 WHERE greatest(extract(epoch FROM clock_timestamp() - a.last_at), 0)::float8
       >= ($2::float8[])[least(a.count + 1, cardinality($2::float8[]))]";

impl Throttle {
    pub fn new(key: SealingKey) -> Self {
        Self { key, pauses: pauses() }
    }

    /// Counts an attempt before it is made. A success must be told ([`Attempt::succeeded`]).
    pub async fn attempt(
        &self,
        db: &impl GenericClient,
        account: &str,
        address: &str,
    ) -> Result<std::result::Result<Attempt, SlowDown>> {
        let pair = self.pair(account, address);
        if db::run(db, COUNT, &[&pair.as_slice(), &self.pauses, &MEMORY.as_secs_f64()]).await? > 0 {
            return Ok(Ok(Attempt { pair }));
        }
        let sql = "SELECT count, greatest(extract(epoch FROM clock_timestamp() - last_at), 0)::float8
                   FROM attempts WHERE pair = $1";
        let left = match db::row(db, sql, &[&pair.as_slice()]).await? {
            Some(row) => pause(u32::try_from(row.get::<_, i32>(0)).unwrap_or(0))
                .saturating_sub(Duration::from_secs_f64(row.get(1))),
            // Somebody has just succeeded.
            None => Duration::ZERO,
        };
        Ok(Err(SlowDown(left.max(Duration::from_secs(1)))))
    }

    /// As if nobody had tried: the account's owner has proved who he is in another way.
    pub async fn forget(&self, db: &impl GenericClient, account: &str, address: &str) -> Result<()> {
        Attempt { pair: self.pair(account, address) }.succeeded(db).await
    }

    fn pair(&self, account: &str, address: &str) -> [u8; 32] {
        // An address holds no NUL.
        self.key.derive("attempts", format!("{address}\0{}", account.to_lowercase()).as_bytes())
    }
}

impl Attempt {
    /// It was never judged (too busy, a failure of ours): it says nothing about who made it.
    pub async fn unjudged(self, db: &impl GenericClient) -> Result<()> {
        let sql = "UPDATE attempts SET count = greatest(count - 1, 0) WHERE pair = $1";
        db::run(db, sql, &[&self.pair.as_slice()]).await?;
        Ok(())
    }

    pub async fn succeeded(self, db: &impl GenericClient) -> Result<()> {
        db::run(db, "DELETE FROM attempts WHERE pair = $1", &[&self.pair.as_slice()]).await?;
        Ok(())
    }
}

pub async fn purge(db: &impl GenericClient) -> Result<u64> {
    let sql = "DELETE FROM attempts WHERE last_at < now() - make_interval(secs => $1)";
    db::run(db, sql, &[&MEMORY.as_secs_f64()]).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use deadpool_postgres::Object;
    use migrations::Schema;
    use migrations::testing::TestPostgres;

    struct Stage {
        _postgres: TestPostgres,
        db: Object,
        throttle: Throttle,
    }

    async fn stage() -> Stage {
        let postgres = TestPostgres::start();
        let url = postgres.migrated("global", Schema::Global).await;
        let db = migrations::pool(&url, 1).unwrap().get().await.unwrap();
        let key = SealingKey::from_text("a master key for tests only").unwrap();
        Stage { _postgres: postgres, db, throttle: Throttle::new(key) }
    }

    impl Stage {
        async fn attempt(&self, account: &str, address: &str) -> std::result::Result<Attempt, SlowDown> {
            self.throttle.attempt(&self.db, account, address).await.unwrap()
        }

        async fn is_free(&self, account: &str, address: &str) -> bool {
            self.attempt(account, address).await.is_ok()
        }

        /// Refused with this pause, of which the test itself took a little.
        async fn is_told(&self, account: &str, address: &str, pause: Duration) -> bool {
            let told = self.attempt(account, address).await.err();
            told.is_some_and(|SlowDown(left)| left <= pause && left + Duration::from_secs(10) > pause)
        }

        async fn pass(&self, time: Duration) {
            let sql = "UPDATE attempts SET last_at = last_at - make_interval(secs => $1)";
            self.db.execute(sql, &[&time.as_secs_f64()]).await.unwrap();
        }
    }

    #[test]
    fn pauses_begin_after_the_free_ones_and_double_up_to_the_longest() {
        let secs = |attempts: u32| pause(attempts).as_secs();
        assert_eq!(
            [0, 9, 10, 11, 12, 15, 16, 17, u32::MAX].map(secs),
            [0, 0, 15, 30, 60, 480, 900, 900, 900]
        );
        let all = pauses();
        assert_eq!((all.len(), all[9], all[10], all[16]), (17, 0.0, 15.0, 900.0));
        assert!(LONGEST_PAUSE <= MEMORY, "a pause outlives what is remembered");
    }

    #[tokio::test]
    async fn repeated_failures_slow_down_only_their_own_pair() {
        let stage = stage().await;
        for _ in 0..FREE {
            assert!(stage.is_free("Ann", "1.1.1.1").await);
        }
        assert!(stage.is_told("ann", "1.1.1.1", FIRST_PAUSE).await);
        assert!(stage.is_free("ann", "2.2.2.2").await);
        assert!(stage.is_free("bob", "1.1.1.1").await);
        stage.pass(FIRST_PAUSE).await;
        let attempt = stage.attempt("ann", "1.1.1.1").await.ok().unwrap();
        assert!(stage.is_told("ann", "1.1.1.1", FIRST_PAUSE * 2).await);
        attempt.succeeded(&stage.db).await.unwrap();
        assert!(stage.is_free("ann", "1.1.1.1").await);
        for _ in 0..2 * FREE {
            stage.is_free("ann", "1.1.1.1").await;
        }
        assert!(!stage.is_free("ann", "1.1.1.1").await);
        stage.throttle.forget(&stage.db, "ANN", "1.1.1.1").await.unwrap();
        assert!(stage.is_free("ann", "1.1.1.1").await);
        let rows = stage.db.query("SELECT a::text FROM attempts a", &[]).await.unwrap();
        let kept: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(kept.len() == 3 && !kept.iter().any(|row| row.contains("1.1.1.1")), "{kept:?}");
    }

    #[tokio::test]
    async fn what_was_never_judged_slows_nobody_down() {
        let stage = stage().await;
        for _ in 0..2 * FREE {
            stage.attempt("ann", "a").await.ok().unwrap().unjudged(&stage.db).await.unwrap();
        }
        for _ in 0..FREE {
            assert!(stage.is_free("ann", "a").await);
        }
        assert!(!stage.is_free("ann", "a").await);
    }

    #[tokio::test]
    async fn long_ago_is_forgotten() {
        let stage = stage().await;
        for _ in 0..FREE {
            assert!(stage.is_free("ann", "a").await);
        }
        assert!(!stage.is_free("ann", "a").await);
        stage.pass(MEMORY).await;
        for _ in 0..FREE {
            assert!(stage.is_free("ann", "a").await);
        }
        assert!(!stage.is_free("ann", "a").await);
        assert_eq!(purge(&stage.db).await.unwrap(), 0);
        stage.pass(MEMORY).await;
        assert_eq!(purge(&stage.db).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn who_hammers_on_waits_for_the_longest_pause_each_time() {
        let stage = stage().await;
        for _ in 0..FREE {
            assert!(stage.is_free("ann", "a").await);
        }
        for over in 0..9 {
            let due = pause(FREE + over);
            assert!(stage.is_told("ann", "a", due).await, "{over}");
            let last = Duration::from_secs(5);
            stage.pass(due - last).await;
            if due < MEMORY {
                assert!(!stage.is_free("ann", "a").await, "{over}: not a moment sooner");
            }
            stage.pass(last).await;
            if due == LONGEST_PAUSE {
                return;
            }
            assert!(stage.is_free("ann", "a").await, "{over}");
        }
    }
}
