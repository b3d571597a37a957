//! Limits counted in Redis, for all gateways of a region together: one script call for all requests of a thread
//! that came while the call before was under way, so that a busy gateway asks seldom and an idle one at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, Script};
use tokio::sync::{mpsc, oneshot};
use tokio::time::error::Elapsed;

use super::{Bucket, Verdict};
use crate::metrics::Metrics;
use crate::server::workers;

/// After a failure Redis is left alone for this long, so that its slowness is not everyone's.
const REST: Duration = Duration::from_millis(500);
/// Requests in one call; Redis does nothing else meanwhile.
const AT_ONCE: usize = 64;
/// What the script answers for one request.
const FIELDS: usize = 5;

/// One request's question.
struct Asked {
    buckets: Vec<Bucket>,
    answer: oneshot::Sender<Result<Verdict, Vec<Bucket>>>,
}

/// Redis, asked by one task for each worker.
pub struct Shared {
    counter: Arc<Counter>,
    lines: Box<[OnceLock<mpsc::UnboundedSender<Asked>>]>,
}

impl Shared {
    /// Connects when first asked; reconnects by itself.
    pub fn new(url: &str, timeout: Duration, workers: usize, metrics: Metrics) -> anyhow::Result<Self> {
        let counter = Counter {
            client: Client::open(url)?,
            script: Script::new(include_str!("gcra.lua")),
            timeout,
            started: Instant::now(),
            resting_until_ms: AtomicU64::new(0),
            metrics,
        };
        Ok(Self { counter: counter.into(), lines: (0..=workers).map(|_| OnceLock::new()).collect() })
    }

    /// The buckets come back when Redis did not answer in time, or is being left alone after that.
    pub async fn check(&self, buckets: Vec<Bucket>) -> Result<Verdict, Vec<Bucket>> {
        if self.counter.is_resting() {
            return Err(buckets);
        }
        let (answer, told) = oneshot::channel();
        let line = self.lines[workers::here() % self.lines.len()].get_or_init(|| {
            let (line, asked) = mpsc::unbounded_channel();
            tokio::spawn(self.counter.clone().run(asked));
            line
        });
        match line.send(Asked { buckets, answer }) {
            Ok(()) => told.await.unwrap_or(Err(Vec::new())),
            Err(mpsc::error::SendError(asked)) => Err(asked.buckets),
        }
    }
}

struct Counter {
    client: Client,
    script: Script,
    timeout: Duration,
    started: Instant,
    /// Milliseconds after `started` before which Redis is not asked.
    resting_until_ms: AtomicU64,
    metrics: Metrics,
}

impl Counter {
    async fn run(self: Arc<Self>, mut asked: mpsc::UnboundedReceiver<Asked>) {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(100))
            .set_connection_timeout(Some(Duration::from_millis(500)))
            .set_response_timeout(Some(self.timeout));
        let mut connection = match ConnectionManager::new_lazy_with_config(self.client.clone(), config) {
            Ok(connection) => connection,
            Err(error) => {
                // Those who ask find their line closed, and count for themselves.
                return tracing::error!(%error, "Redis cannot be used");
            }
        };
        let mut batch = Vec::new();
        while asked.recv_many(&mut batch, AT_ONCE).await > 0 {
            let mut verdicts = self.decide(&mut connection, &batch).await.into_iter();
            for Asked { buckets, answer } in batch.drain(..) {
                // One that went away meanwhile has been counted.
                let _ = answer.send(verdicts.next().ok_or(buckets));
            }
        }
    }

    /// One verdict for each, or none at all.
    async fn decide(&self, connection: &mut ConnectionManager, batch: &[Asked]) -> Vec<Verdict> {
        // It may have failed while these waited.
        if self.is_resting() {
            return Vec::new();
        }
        let mut call = self.script.prepare_invoke();
        for Asked { buckets, .. } in batch {
            call.arg(buckets.len());
            for Bucket { key, rate } in buckets {
                call.key(key).arg(1_000_000 / u64::from(rate.per_sec)).arg(rate.burst);
            }
        }
        let answer = tokio::time::timeout(self.timeout, call.invoke_async::<Vec<u64>>(connection)).await;
        self.note(&answer);
        let Ok(Ok(told)) = answer else { return Vec::new() };
        let told = told.chunks_exact(FIELDS);
        batch.iter().zip(told).filter_map(|(asked, told)| verdict(&asked.buckets, told)).collect()
    }

    fn note(&self, answer: &Result<Result<Vec<u64>, RedisError>, Elapsed>) {
        let result = match answer {
            Ok(Ok(_)) => "ok",
            Ok(Err(_)) => "error",
            Err(_) => "timeout",
        };
        self.metrics.redis_commands.with_label_values(&[result]).inc();
        let was_up = self.metrics.redis_up.get() == 1;
        self.metrics.redis_up.set((result == "ok").into());
        if result != "ok" {
            let until = self.now_ms() + u64::try_from(REST.as_millis()).unwrap_or(0);
            self.resting_until_ms.fetch_max(until, Ordering::Relaxed);
            if was_up {
                tracing::warn!(result, "limits are counted in this process; Redis is asked again later");
            }
        } else if !was_up {
            tracing::info!("limits are counted in Redis");
        }
    }

    fn is_resting(&self) -> bool {
        self.now_ms() < self.resting_until_ms.load(Ordering::Relaxed)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn verdict(buckets: &[Bucket], told: &[u64]) -> Option<Verdict> {
    let &[allowed, which, remaining, wait_us, full_us] = told else { return None };
    let which = usize::try_from(which).unwrap_or(0);
    let bucket = buckets.get(which.wrapping_sub(1)).or_else(|| buckets.first())?;
    Some(Verdict {
        allowed: allowed == 1,
        rate: bucket.rate,
        remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
        retry_after: Duration::from_micros(wait_us),
        full_after: Duration::from_micros(full_us),
    })
}
