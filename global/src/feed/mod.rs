//! The feed by which every service follows authority and catalogue, this one included.
//!
//! One poller watches the head (nudged by this process's own writes, every half second for those of
//! others); each stream reads what is after its position when the head has moved. `global` follows its own
//! feed to bring changes into its own [`Authority`], so that there is one way by which a change takes effect.

pub mod server;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use common::authz::Authority;
use common::feed::{Wanted, apply_to_authority};
use common::ops::Dependency;
use common::personal::MonthKeys;
use common::proto::feed::update::Update as Kind;
use common::proto::feed::{Heartbeat, Update};
use common::seal::SealingKey;
use deadpool_postgres::Pool;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::fault::Fault;
use crate::keys::KeyRing;
use crate::metrics::METRICS;

const POLL: Duration = Duration::from_millis(500);
const BEAT: Duration = Duration::from_secs(1);
const BATCH: i64 = 500;
/// How long a write waits for this process itself to act on it.
const OWN_EFFECT: Duration = Duration::from_secs(1);

struct Inner {
    pool: Pool,
    /// Opens what followers are told and the database holds sealed.
    sealing: SealingKey,
    nudge: Notify,
    head: watch::Sender<i64>,
    /// Up to where this process's own authority has followed.
    applied: watch::Sender<i64>,
}

#[derive(Clone)]
pub struct Feed(Arc<Inner>);

impl Feed {
    pub fn new(pool: Pool, sealing: SealingKey) -> Self {
        let (head, applied) = (watch::Sender::new(0), watch::Sender::new(0));
        Self(Arc::new(Inner { pool, sealing, nudge: Notify::new(), head, applied }))
    }

    /// Tells followers of a committed write and waits a moment until this process itself acts on it: a
    /// token is void when the answer that ends its session is out.
    pub async fn published(&self, position: i64) {
        self.0.nudge.notify_one();
        let mut applied = self.0.applied.subscribe();
        let _ = tokio::time::timeout(OWN_EFFECT, applied.wait_for(|at| *at >= position)).await;
    }

    /// Watches the head until `stop`; being the most frequent query, it tells whether Postgres is reached.
    pub async fn watch_head(self, postgres: Dependency, stop: CancellationToken) {
        loop {
            match self.poll_head().await {
                Ok(position) => {
                    postgres.up();
                    METRICS.feed_position.set(position);
                    self.0.head.send_if_modified(|head| std::mem::replace(head, position) != position);
                }
                Err(error) => postgres.down(error.into_problem().detail),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.nudge.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    async fn poll_head(&self) -> Result<i64, Fault> {
        let client = self.0.pool.get().await?;
        store::head(&client).await
    }

    /// Sends the feed from a position on, until the receiver is gone, `stop`, or the database fails.
    async fn stream(
        &self,
        after: i64,
        wanted: Wanted,
        out: &mpsc::Sender<Update>,
        stop: &CancellationToken,
    ) -> Result<(), Fault> {
        let opening = store::opening(&self.0.pool, &self.0.sealing, after, wanted).await?;
        let mut at = opening.up_to;
        for update in opening.updates {
            if out.send(update).await.is_err() {
                return Ok(());
            }
        }
        let mut head = self.0.head.subscribe();
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if *head.borrow_and_update() > at {
                let batch = store::read(&self.0.pool, &self.0.sealing, at, wanted, BATCH).await?;
                at = batch.up_to;
                // Also when all of it was of a kind that is not wanted, the position is news.
                for update in batch.updates.into_iter().chain([heartbeat(at)]) {
                    if out.send(update).await.is_err() {
                        return Ok(());
                    }
                }
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = out.closed() => return Ok(()),
                _ = beat.tick() => {
                    if out.send(heartbeat(at)).await.is_err() {
                        return Ok(());
                    }
                }
                changed = head.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    /// Follows the feed into this process's own authority and key ring, until `stop`.
    pub async fn follow_own(
        self,
        authority: Arc<Authority>,
        keys: Arc<KeyRing>,
        month_keys: MonthKeys,
        ready: Dependency,
        stop: CancellationToken,
    ) {
        let mut after = 0;
        while !stop.is_cancelled() {
            let (out, mut updates) = mpsc::channel(64);
            let (feed, token) = (self.clone(), stop.clone());
            let wanted = Wanted { month_keys: true, ..Wanted::default() };
            let reader = tokio::spawn(async move { feed.stream(after, wanted, &out, &token).await });
            while let Some(update) = updates.recv().await {
                if let Some(Kind::MonthKeys(told)) = &update.update
                    && let Err(error) = month_keys.set(told)
                {
                    tracing::error!(%error, "the keys of the months are not usable");
                }
                if let Err(error) = self.apply_own(&authority, &keys, &update).await {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "an update of the feed could not be applied"
                    );
                    break;
                }
                after = update.position;
                self.0.applied.send_replace(after);
                if authority.ready() {
                    ready.up();
                }
            }
            drop(updates);
            if let Ok(Err(fault)) = reader.await {
                tracing::warn!(error = fault.into_problem().detail, "the feed cannot be read");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    async fn apply_own(&self, authority: &Authority, keys: &KeyRing, update: &Update) -> anyhow::Result<()> {
        if let Some(Kind::Keys(_)) = &update.update {
            keys.reload(&self.0.pool).await?;
        }
        apply_to_authority(authority, update).await
    }
}

fn heartbeat(position: i64) -> Update {
    Update { position, update: Some(Kind::Heartbeat(Heartbeat {})) }
}
