//! Shows that other regions lead, read here: what this region's store knows to be committed of their journals,
//! folded, and kept current as more comes.
//!
//! Invariant: nothing is promised or asked for, so that reading takes the lead from nobody; only what is
//! committed is shown. It may be old, and says of when it is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use common::{RegionName, ShowId};
use raft::client::RegistryView;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::commits::{Commits, Watched};
use crate::asking::mark;
use crate::host::Proof;
use crate::journal::{Ballot, Journal, JournalError};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::relay::Publisher;
use crate::show::Show;

/// The least time between two looks into the journal.
const PAUSE: Duration = Duration::from_millis(20);
/// Where another process of the region may take what comes, the journal is looked at so often.
const LOOK: Duration = Duration::from_secs(1);
/// A copy that nobody reads is let go after this.
const IDLE: Duration = Duration::from_secs(60);

/// What copies need of their process.
pub struct Means {
    pub region: RegionName,
    pub journal: Journal,
    pub view: RegistryView,
    pub commits: Commits,
    pub metrics: Metrics,
    pub stop: CancellationToken,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Copies(Arc<Inner>);

struct Inner {
    means: Means,
    slots: Mutex<HashMap<ShowId, Arc<OnceCell<Arc<Copy>>>>>,
}

/// One show's.
pub struct Copy {
    /// Its seat map.
    pub live: Arc<Live>,
    state: RwLock<Show>,
    /// Somebody read it since the last look.
    used: AtomicBool,
}

impl Copy {
    /// Looks at what is committed. Short: what comes waits meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Show) -> T) -> T {
        look(&self.state.read().expect("never poisoned"))
    }

    /// Adds what every answer about the show carries.
    pub fn about(&self, response: impl IntoResponse) -> Response {
        let mut response = response.into_response();
        mark(response.headers_mut(), self.live.epoch, self.read(|show| show.last_at), false);
        response
    }
}

impl Copies {
    pub fn new(means: Means) -> Self {
        Self(Arc::new(Inner { means, slots: Mutex::default() }))
    }

    /// Of a show that another region leads; none where this one keeps no journal of it.
    pub async fn of(&self, show: ShowId) -> Option<Arc<Copy>> {
        let Means { region, view, .. } = &self.0.means;
        let record = view.show(show)?;
        if record.owner == *region || !record.replicas.contains(region) {
            return None;
        }
        self.kept(show).await
    }

    /// Of any show whose journal is kept here: one that this region owns and cannot lead, too.
    pub async fn kept(&self, show: ShowId) -> Option<Arc<Copy>> {
        let slot = self.0.slots().entry(show).or_default().clone();
        let made = slot.get_or_try_init(|| self.0.clone().begin(show)).await;
        match made {
            Ok(copy) => {
                copy.used.store(true, Ordering::Relaxed);
                Some(copy.clone())
            }
            Err(why) => {
                self.0.forget(show, &slot);
                if !matches!(why, JournalError::Unknown | JournalError::Archived) {
                    tracing::warn!(%show, %why, "a show cannot be read from its copy");
                }
                None
            }
        }
    }
}

impl Inner {
    /// Listens first and reads then, so that nothing falls in between.
    async fn begin(self: Arc<Self>, show: ShowId) -> Result<Arc<Copy>, JournalError> {
        let Means { journal, commits, metrics, .. } = &self.means;
        let watched = commits.watch(show);
        let head = journal.head(show).await?.filter(|head| head.committed > 0);
        let head = head.ok_or(JournalError::Unknown)?;
        if head.promised == Ballot::ARCHIVED {
            return Err(JournalError::Archived);
        }
        let state = journal.fold(show, head.committed).await?.ok_or(JournalError::Unknown)?;
        let epoch = journal.entry(show, head.committed).await?.ballot.epoch;
        let live = Live::new(epoch, state.seq, &state, Publisher::default(), Proof::never(), metrics.clone());
        let (state, used) = (RwLock::new(state), AtomicBool::new(true));
        let copy = Arc::new(Copy { live, state, used });
        metrics.replicas.copies.inc();
        tokio::spawn(self.clone().follow(copy.clone(), watched));
        Ok(copy)
    }

    async fn follow(self: Arc<Self>, copy: Arc<Copy>, watched: Watched) {
        let show = copy.live.show;
        let why = tokio::select! {
            () = self.means.stop.cancelled() => "the process stops",
            why = self.keep_current(&copy, &watched) => why,
        };
        tracing::debug!(%show, why, "a copy is let go");
        // Before another may begin to listen.
        drop(watched);
        let mut slots = self.slots();
        let is_own = |slot: &Arc<OnceCell<Arc<Copy>>>| slot.get().is_some_and(|c| Arc::ptr_eq(c, &copy));
        if slots.get(&show).is_some_and(is_own) {
            slots.remove(&show);
        }
        drop(slots);
        self.means.metrics.replicas.copies.dec();
        copy.live.end();
    }

    async fn keep_current(&self, copy: &Copy, watched: &Watched) -> &'static str {
        let mut used = Instant::now();
        loop {
            let told = tokio::select! {
                () = watched.next() => true,
                () = sleep(LOOK) => false,
            };
            if copy.used.swap(false, Ordering::Relaxed) {
                used = Instant::now();
            }
            if used.elapsed() > IDLE {
                return "nobody reads it";
            }
            if !told && self.is_told_of_all(copy.live.show) {
                continue;
            }
            match self.read_on(copy).await {
                Ok(true) => {}
                Ok(false) => return "another epoch has begun",
                Err(why @ JournalError::Corrupt { .. }) => {
                    tracing::error!(show = %copy.live.show, %why, "a copy does not go on");
                    return "its journal cannot be read";
                }
                Err(why) => tracing::debug!(show = %copy.live.show, %why, "a copy is not current"),
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether all that comes to this region's store comes from other regions, and through this process.
    fn is_told_of_all(&self, show: ShowId) -> bool {
        let Means { region, view, .. } = &self.means;
        let of_others = view.show(show).is_some_and(|record| record.owner != *region);
        of_others && view.sessions().iter().filter(|session| session.region == *region).count() <= 1
    }

    /// Goes on to what is committed now; false where that is of a later epoch, of which all is told anew.
    async fn read_on(&self, copy: &Copy) -> Result<bool, JournalError> {
        let (show, after) = (copy.live.show, copy.read(|show| show.seq));
        for entry in self.means.journal.committed_after(show, after).await? {
            if entry.ballot.epoch != copy.live.epoch {
                return Ok(false);
            }
            let mut state = copy.state.write().expect("never poisoned");
            let applied = state.apply(entry.seq, &entry.groups);
            applied.map_err(|why| JournalError::Corrupt { show, seq: entry.seq, why })?;
        }
        copy.read(|state| copy.live.publish(state));
        Ok(true)
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<ShowId, Arc<OnceCell<Arc<Copy>>>>> {
        self.slots.lock().expect("no code panics while holding it")
    }

    /// Lets go of a slot that came to nothing, unless another has taken its place.
    fn forget(&self, show: ShowId, slot: &Arc<OnceCell<Arc<Copy>>>) {
        let mut slots = self.slots();
        if slots.get(&show).is_some_and(|present| Arc::ptr_eq(present, slot) && !slot.initialized()) {
            slots.remove(&show);
        }
    }
}
