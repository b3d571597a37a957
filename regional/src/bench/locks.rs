//! A lock service in front: each seat is locked in Redis for a while, the booking is then written in one
//! transaction, and the locks are let go. The usual advice for tickets.

use std::time::Duration;

use deadpool_postgres::Pool;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Script};
use uuid::Uuid;

use super::tables::{EVENT, INSERT_JOURNAL, INSERT_RESERVATION, connection, numbers, prepare};
use super::{Booking, Design, Outcome};

/// All seats or none; `ARGV[1]` tells whose they are.
const LOCK: &str = "
for i, key in ipairs(KEYS) do
    if not redis.call('SET', key, ARGV[1], 'NX', 'PX', ARGV[2]) then
        for j = 1, i - 1 do redis.call('DEL', KEYS[j]) end
        return 0
    end
end
return 1";
/// Only one's own: a lock that lapsed may be another's by now.
const UNLOCK: &str = "
for _, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) end
end";
const LOCK_MS: u32 = 10_000;
/// A slow answer is a slow booking, not a lost one.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct LockService {
    pool: Pool,
    redis: MultiplexedConnection,
    lock: Script,
    unlock: Script,
}

impl LockService {
    pub async fn start(
        url: &str,
        redis_url: &str,
        connections: usize,
        shows: u32,
        seats: u32,
    ) -> anyhow::Result<Self> {
        let pool = migrations::pool(url, connections)?;
        prepare(&pool, shows, seats).await?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let client = redis::Client::open(redis_url)?;
        let redis = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { pool, redis, lock: Script::new(LOCK), unlock: Script::new(UNLOCK) })
    }

    async fn write(&self, show: i32, seats: &[i32]) -> anyhow::Result<Outcome> {
        let mut client = connection(&self.pool).await?;
        let transaction = client.transaction().await?;
        let (id, customer) = (Uuid::now_v7(), Uuid::now_v7());
        // A lock may lapse under a slow writer, so the last word is the table's.
        let take = transaction
            .prepare_cached(
                "UPDATE ref_seats SET status = 1, reservation = $3
                  WHERE show_id = $1 AND seat = ANY($2) AND status = 0",
            )
            .await?;
        if transaction.execute(&take, &[&show, &seats, &id]).await? != seats.len() as u64 {
            return Ok(Outcome::Taken);
        }
        let insert = transaction.prepare_cached(INSERT_RESERVATION).await?;
        transaction.execute(&insert, &[&id, &show, &customer, &seats]).await?;
        let journal = transaction.prepare_cached(INSERT_JOURNAL).await?;
        transaction.execute(&journal, &[&show, &EVENT]).await?;
        transaction.commit().await?;
        Ok(Outcome::Booked)
    }
}

#[tonic::async_trait]
impl Design for LockService {
    async fn book(&self, booking: Booking) -> anyhow::Result<Outcome> {
        let (show, seats) = numbers(booking)?;
        let owner = Uuid::now_v7().to_string();
        let mut redis = self.redis.clone();
        let (mut lock, mut unlock) = (self.lock.prepare_invoke(), self.unlock.prepare_invoke());
        for seat in &seats {
            let key = format!("bench:lock:{show}:{seat}");
            lock.key(&key);
            unlock.key(&key);
        }
        let locked: u32 = lock.arg(&owner).arg(LOCK_MS).invoke_async(&mut redis).await?;
        if locked == 0 {
            return Ok(Outcome::Taken);
        }
        let outcome = self.write(show, &seats).await;
        unlock.arg(&owner).invoke_async::<()>(&mut redis).await?;
        outcome
    }
}
