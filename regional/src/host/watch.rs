//! Follows the registry for the shows of this process: who leads one is told when its record changed, and
//! shows that came to this region are led before anybody asks, soonest start first.
//!
//! A reconciler: what is to be led is what the registry gives this region and its own store has no entry of
//! the present epoch for. It begins anew after a crash, and does nothing in a platform that came back whole.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{RegionName, ShowId};
use futures::StreamExt;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{HostError, Hosts};

/// Between two looks at what the registry told, at least: changes come in crowds.
const LOOK: Duration = Duration::from_millis(5);
/// And so many times as long as a look took, so that a registry that is busy does not make everybody so.
const PAUSE_FACTOR: u32 = 8;
/// Shows that nobody asks for yet can wait a little longer.
const LOOK_AHEAD: Duration = Duration::from_millis(50);
/// What could not be led is tried again after this.
const RETRY: Duration = Duration::from_millis(500);
/// Shows that are being led in the background at once: each waits for other regions most of the time.
const AT_ONCE: usize = 128;
/// After so many it looks again whether there is something more urgent.
const A_ROUND: usize = 1_024;

/// What is owned here: where it stands in the own store, and when it begins.
const OWNED: &str = "
SELECT b.id, coalesce(h.accepted_epoch, 0) AS epoch, coalesce(h.promised_epoch, 0) AS promised, s.starts_at
  FROM unnest($1::uuid[]) AS b (id)
  LEFT JOIN show_head h ON h.show_id = b.id
  LEFT JOIN shows s ON s.id = b.id";

/// Tells tries and reigns of the registry's news, until `stop`.
pub async fn tell_news(hosts: Hosts, stop: CancellationToken) {
    let view = hosts.0.means.view.clone();
    let mut changes = view.changes();
    loop {
        let began = Instant::now();
        let record = |show| view.show(show).map(|record| (record.epoch, !record.prior.is_empty()));
        let missed = hosts.0.means.peers.tell(record);
        sleep(LOOK.max(began.elapsed() * PAUSE_FACTOR)).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = std::future::ready(()), if missed => {}
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Leads what came to this region, and what another region lacks of the shows led here, until `stop`.
pub async fn take_over(hosts: Hosts, stop: CancellationToken) {
    let mut changes = hosts.0.means.view.changes();
    let mut successor = Successor { hosts, dealt_with: HashMap::new(), queue: VecDeque::new() };
    loop {
        let began = Instant::now();
        if let Err(error) = successor.look().await {
            tracing::warn!(error = format!("{error:#}"), "cannot look which shows came to this region");
        }
        let pause = LOOK_AHEAD.max(began.elapsed() * PAUSE_FACTOR);
        let waits = successor.round(&stop).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(RETRY), if waits => {}
            () = successor.hosts.lagged() => {}
            _ = changes.changed() => sleep(pause).await,
        }
    }
}

struct Successor {
    hosts: Hosts,
    /// At which epoch each show was last led, found to be led, or put into the queue.
    dealt_with: HashMap<ShowId, u64>,
    queue: VecDeque<ShowId>,
}

impl Successor {
    /// Puts into the queue what is new.
    async fn look(&mut self) -> anyhow::Result<()> {
        let means = &self.hosts.0.means;
        let owned = means.view.owned_by(&means.region);
        // At its first epoch a show was created here, and its first entry is of that epoch.
        let is_new = |(show, epoch): &(ShowId, u64)| *epoch > 1 && self.dealt_with.get(show) != Some(epoch);
        let new: BTreeMap<ShowId, u64> = owned.into_iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        let ids: Vec<uuid::Uuid> = new.keys().map(|show| show.0).collect();
        let client = means.journal.client().await?;
        let rows = client.query(&client.prepare_cached(OWNED).await?, &[&ids]).await?;
        let now = Timestamp::now();
        let mut found = Vec::new();
        for row in rows {
            let show = ShowId(row.get("id"));
            let Some(epoch) = new.get(&show) else { continue };
            let (held, promised): (i64, i64) = (row.get("epoch"), row.get("promised"));
            self.dealt_with.insert(show, *epoch);
            // An archived show is promised to nobody ever again.
            if held.unsigned_abs() < *epoch && promised != i64::MAX {
                let starts: Option<Timestamp> = row.get("starts_at");
                let over = starts.is_none_or(|at| at < now);
                found.push((over, starts, show));
            }
        }
        found.sort();
        tracing::info!(shows = found.len(), "shows came to this region");
        self.queue.extend(found.into_iter().map(|(_, _, show)| show));
        Ok(())
    }

    /// Leads some of the queue; true where some of it has to wait.
    async fn round(&mut self, stop: &CancellationToken) -> bool {
        self.queue.extend(self.hosts.reachable_laggards());
        self.hosts.0.catching_up.store(!self.queue.is_empty(), Ordering::Relaxed);
        let some: Vec<ShowId> = self.queue.drain(..self.queue.len().min(A_ROUND)).collect();
        let hosts = &self.hosts;
        let again: Vec<ShowId> = futures::stream::iter(some)
            .map(async |show| {
                if stop.is_cancelled() {
                    return None;
                }
                match hosts.lead_quietly(show).await {
                    Err(HostError::Unavailable(why)) => {
                        tracing::debug!(%show, why, "not led yet");
                        Some(show)
                    }
                    Err(HostError::Broken(why)) => {
                        tracing::error!(%show, why, "a show that came to this region cannot be led");
                        None
                    }
                    // Elsewhere by now, or archived; or led.
                    _ => None,
                }
            })
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        self.queue.extend(again);
        let waits = !self.queue.is_empty();
        self.hosts.0.catching_up.store(waits, Ordering::Relaxed);
        waits
    }
}

/// Shows that left memory while a region lacked entries of them.
#[derive(Default)]
pub(super) struct Laggards(BTreeMap<RegionName, std::collections::BTreeSet<ShowId>>);

impl Laggards {
    pub fn note(&mut self, region: &RegionName, show: ShowId) {
        self.0.entry(region.clone()).or_default().insert(show);
    }

    /// Takes those of regions that can be reached again.
    pub fn take(&mut self, reachable: impl Fn(&RegionName) -> bool) -> Vec<ShowId> {
        let mut taken = Vec::new();
        self.0.retain(|region, shows| {
            if !reachable(region) {
                return true;
            }
            taken.extend(std::mem::take(shows));
            false
        });
        taken.sort();
        taken.dedup();
        taken
    }
}
