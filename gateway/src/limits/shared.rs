//! Limits counted in Redis, for all gateways of a region together: one script call a request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::Script;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use super::{Bucket, Verdict};
use crate::metrics::Metrics;

/// After a failure Redis is left alone for this long, so that its slowness is not everyone's.
const REST: Duration = Duration::from_millis(500);

pub struct Shared {
    connection: ConnectionManager,
    script: Script,
    timeout: Duration,
    started: Instant,
    /// Milliseconds after `started` before which Redis is not asked.
    resting_until_ms: AtomicU64,
    metrics: Metrics,
}

impl Shared {
    /// Connects when first asked; reconnects by itself.
    pub fn new(url: &str, timeout: Duration, metrics: Metrics) -> anyhow::Result<Self> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(100))
            .set_connection_timeout(Some(Duration::from_millis(500)))
            .set_response_timeout(Some(timeout));
        Ok(Self {
            connection: ConnectionManager::new_lazy_with_config(redis::Client::open(url)?, config)?,
            script: Script::new(include_str!("gcra.lua")),
            timeout,
            started: Instant::now(),
            resting_until_ms: AtomicU64::new(0),
            metrics,
        })
    }

    /// None: Redis did not answer in time, or is being left alone after that.
    pub async fn check(&self, buckets: &[Bucket]) -> Option<Verdict> {
        let now_ms = self.now_ms();
        if now_ms < self.resting_until_ms.load(Ordering::Relaxed) {
            return None;
        }
        let mut connection = self.connection.clone();
        let mut call = self.script.prepare_invoke();
        for Bucket { key, rate } in buckets {
            call.key(key).arg(1_000_000 / u64::from(rate.per_sec)).arg(rate.burst);
        }
        let answer = tokio::time::timeout(self.timeout, call.invoke_async(&mut connection)).await;
        let result = match &answer {
            Ok(Ok(_)) => "ok",
            Ok(Err(_)) => "error",
            Err(_) => "timeout",
        };
        self.metrics.redis_commands.with_label_values(&[result]).inc();
        let was_up = self.metrics.redis_up.get() == 1;
        self.metrics.redis_up.set((result == "ok").into());
        match answer {
            Ok(Ok((allowed, which, remaining, wait_us, full_us))) => {
                if !was_up {
                    tracing::info!("limits are counted in Redis");
                }
                let which: usize = which;
                let bucket = buckets.get(which.wrapping_sub(1)).or_else(|| buckets.first())?;
                let allowed: u8 = allowed;
                Some(Verdict {
                    allowed: allowed == 1,
                    rate: bucket.rate,
                    remaining,
                    retry_after: Duration::from_micros(wait_us),
                    full_after: Duration::from_micros(full_us),
                })
            }
            failed => {
                let until = now_ms + u64::try_from(REST.as_millis()).unwrap_or(0);
                self.resting_until_ms.fetch_max(until, Ordering::Relaxed);
                if was_up {
                    let why = failed.err().map_or("an error", |_| "no answer in time");
                    tracing::warn!(why, "limits are counted in this process; Redis is asked again later");
                }
                None
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
