//! Follows the registry for the shows of this process: who leads one is told when its record changed, and
//! shows that came to this region are led before anybody asks, soonest start first.
//!
//! A reconciler: what is to be led is what the registry gives this region and its own store has no entry of
//! the present epoch for. It begins anew after a crash, and does nothing in a platform that came back whole.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{RegionName, ShowId};
use jiff::Timestamp;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
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
    let mut successor = Successor::new(hosts.clone());
    let (mut look_at, mut pause) = (Some(Instant::now()), LOOK_AHEAD);
    loop {
        successor.begin_some();
        let retry_at = successor.retry_at();
        tokio::select! {
            () = stop.cancelled() => return,
            () = at(look_at) => {
                let began = Instant::now();
                let looked = successor.look().await;
                pause = LOOK_AHEAD.max(began.elapsed() * PAUSE_FACTOR);
                look_at = looked.is_err().then(|| Instant::now() + RETRY.max(pause));
                if let Err(error) = looked {
                    tracing::warn!(error = format!("{error:#}"), "cannot look which shows came to this region");
                }
            }
            _ = changes.changed(), if look_at.is_none() => look_at = Some(Instant::now() + pause),
            Some(ended) = successor.under_way.join_next() => successor.ended(ended),
            () = at(retry_at) => successor.retry(),
            () = hosts.lagged() => {}
        }
    }
}

/// Never, where there is no such time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

struct Successor {
    hosts: Hosts,
    /// At which epoch each show was last led, found to be led, or put into the queue.
    dealt_with: HashMap<ShowId, u64>,
    queue: VecDeque<ShowId>,
    under_way: JoinSet<(ShowId, Result<(), HostError>)>,
    /// What could not be led, by the time of its next try, which is later for each than for the one before.
    again: VecDeque<(Instant, ShowId)>,
}

impl Successor {
    fn new(hosts: Hosts) -> Self {
        Self {
            hosts,
            dealt_with: HashMap::new(),
            queue: VecDeque::new(),
            under_way: JoinSet::new(),
            again: VecDeque::new(),
        }
    }

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

    /// Begins to lead what is next, as far as it may.
    fn begin_some(&mut self) {
        self.queue.extend(self.hosts.reachable_laggards());
        while self.under_way.len() < AT_ONCE
            && let Some(show) = self.queue.pop_front()
        {
            let hosts = self.hosts.clone();
            self.under_way.spawn(async move { (show, hosts.lead_quietly(show).await) });
        }
        let waits = !self.under_way.is_empty() || !self.again.is_empty();
        self.hosts.0.catching_up.store(waits, Ordering::Relaxed);
    }

    fn ended(&mut self, ended: Result<(ShowId, Result<(), HostError>), JoinError>) {
        let (show, ended) = match ended {
            Ok(ended) => ended,
            Err(error) => return tracing::error!(%error, "a show that came to this region was not led"),
        };
        match ended {
            Err(HostError::Unavailable(why)) => {
                tracing::debug!(%show, why, "not led yet");
                self.again.push_back((Instant::now() + RETRY, show));
            }
            Err(HostError::Broken(why)) => {
                tracing::error!(%show, why, "a show that came to this region cannot be led");
            }
            // Elsewhere by now, or archived; or led.
            _ => {}
        }
    }

    fn retry_at(&self) -> Option<Instant> {
        self.again.front().map(|(at, _)| *at)
    }

    /// Puts into the queue what has waited long enough.
    fn retry(&mut self) {
        let now = Instant::now();
        let still = self.again.iter().take_while(|(at, _)| *at <= now).count();
        self.queue.extend(self.again.drain(..still).map(|(_, show)| show));
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
