//! This process's place in the registry: a session for each of its lives (R6), and beats that keep it.
//!
//! Invariants: a beat says "healthy" only when a write of this process to its own Postgres has been committed
//! since the beat before (R7); a session that the registry has ended is never used again: whatever was led
//! under it is let go of, and another session is opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::RegionName;
use common::proto::registry::TicketKey;
use deadpool_postgres::Pool;
use raft::client::{Beat, BeatError, RegistryClient, RegistryError, RegistryView};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::replicas::caught_up::CaughtUp;
use crate::replicas::guard::{self, Guard};

/// A third of the registry's patience with a process, so that one may be lost.
const BEAT_EVERY: Duration = Duration::from_millis(500);
const BEAT_DEADLINE: Duration = Duration::from_millis(1200);
/// After one that no voter took: there may be a new leader any moment, and it waits for this.
const BEAT_AGAIN: Duration = Duration::from_millis(100);
/// More often than beats, so that a beat rarely finds none since the last.
const WRITE_EVERY: Duration = Duration::from_millis(350);
/// A commit that takes longer is none: it would come too late for the registry, whose patience is 3 s.
const WRITE_DEADLINE: Duration = Duration::from_millis(2_500);
const REOPEN_AFTER: Duration = Duration::from_millis(200);

/// The number that stands for no session; the registry draws none such.
const NONE: u64 = 0;

/// The session of this process, as it is now. Cheap to clone; all clones see the same.
#[derive(Clone)]
pub struct Session(watch::Receiver<u64>);

impl Session {
    /// One that never ends; for those without a registry.
    pub fn fixed(no: u64) -> Self {
        Self(watch::channel(no).1)
    }

    /// None while the registry has ended one and another is not open yet: then nothing may be led.
    pub fn no(&self) -> Option<u64> {
        Some(*self.0.borrow()).filter(|no| *no != NONE)
    }

    /// Whether it is the oldest of its region's, by what the registry last told.
    pub fn is_first(&self, view: &RegistryView, region: &RegionName) -> bool {
        let first = view.sessions().iter().filter(|s| s.region == *region).map(|s| s.no).min();
        first.is_some() && first == self.no()
    }

    /// Waits until it is another one than when last asked here, or none.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // Whoever kept it is gone, and the process with it.
            std::future::pending().await
        }
    }
}

/// What is announced of this process.
#[derive(Clone)]
pub struct Announced {
    pub region: RegionName,
    pub http_url: String,
    /// Where other regions' processes reach it for replication; empty: nowhere.
    pub replication_url: String,
    pub ticket_keys: Vec<TicketKey>,
}

impl Announced {
    pub async fn open(&self, registry: &RegistryClient) -> Result<u64, RegistryError> {
        let keys = self.ticket_keys.clone();
        registry.open_session(&self.region, &self.http_url, &self.replication_url, keys).await
    }
}

/// Keeps the session.
pub struct Keeper {
    pub registry: RegistryClient,
    pub announced: Announced,
    /// Of one connection, for nothing else: a busy pool is not a sick Postgres.
    pub pool: Pool,
    pub guard: Guard,
    pub caught_up: CaughtUp,
}

impl Keeper {
    /// Starts beating for the session `no`, until `stop`.
    pub fn start(self, no: u64, stop: CancellationToken) -> Session {
        let (session, seen) = watch::channel(no);
        let written = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            pool: self.pool.clone(),
            process: self.announced.http_url.clone(),
            written: written.clone(),
            guard: self.guard.clone(),
        };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                never = writer.run() => match never {},
                never = self.run(&session, &written) => match never {},
            }
            // Readers keep the last number: what is still being answered was led under it.
        });
        Session(seen)
    }

    async fn run(&self, session: &watch::Sender<u64>, written: &AtomicU64) -> std::convert::Infallible {
        let mut tick = interval(BEAT_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut told, mut is_heard) = (0, true);
        loop {
            tick.tick().await;
            let now = written.load(Ordering::Relaxed);
            let beat = Beat { healthy: now > told, caught_up: self.caught_up.get() };
            let (no, store) = (*session.borrow(), self.guard.mark().map(Into::into));
            match self.registry.beat(no, &self.announced.region, beat, store, BEAT_DEADLINE).await {
                Ok(beaten) => {
                    (told, is_heard) = (now, true);
                    self.caught_up.heard(beaten.state);
                    // Other processes of the region may have seen the store later than this one.
                    if let Some(mark) =
                        beaten.highest.filter(|_| beaten.incarnation == self.guard.incarnation())
                    {
                        self.guard.saw(mark.into());
                    }
                }
                Err(BeatError::Unheard(why)) => {
                    // Once, and not ten times a second.
                    if std::mem::replace(&mut is_heard, false) {
                        tracing::warn!(why, "the registry does not hear this process");
                    }
                    tick.reset_after(BEAT_AGAIN);
                }
                Err(BeatError::Ended) => {
                    tracing::warn!(session = no, "the registry has ended this process's session");
                    self.caught_up.doubt();
                    session.send_replace(NONE);
                    session.send_replace(self.reopen().await);
                }
            }
        }
    }

    async fn reopen(&self) -> u64 {
        loop {
            match self.announced.open(&self.registry).await {
                Ok(no) => {
                    tracing::info!(session = no, "opened another session");
                    return no;
                }
                Err(error) => tracing::warn!(%error, "cannot open another session yet"),
            }
            sleep(REOPEN_AFTER).await;
        }
    }
}

/// Writes the process's row again and again.
struct Writer {
    pool: Pool,
    process: String,
    written: Arc<AtomicU64>,
    guard: Guard,
}

impl Writer {
    async fn run(&self) -> std::convert::Infallible {
        loop {
            match timeout(WRITE_DEADLINE, self.write()).await {
                Ok(Ok(())) => {
                    self.written.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "the database takes no write"),
                Err(_) => tracing::warn!("the database does not commit in time"),
            }
            sleep(WRITE_EVERY).await;
        }
    }

    async fn write(&self) -> anyhow::Result<()> {
        let client = self.pool.get().await?;
        let upsert = "INSERT INTO beats (process, beats, beaten_at) VALUES ($1, 1, now())
                      ON CONFLICT (process) DO UPDATE
                          SET beats = beats.beats + 1, beaten_at = excluded.beaten_at";
        let statement = client.prepare_cached(upsert).await?;
        client.execute(&statement, &[&self.process]).await?;
        // How far the store is, for the registry to remember (R5).
        self.guard.saw(guard::read(&client).await?);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
