//! A local copy of the registry, for routing without a call.
//!
//! It is a hint: what it says may be old, and [`RegistryView::age`] tells how old at most. A show's record
//! never goes back to a lower epoch, whichever voter is followed. Shows never leave the registry, so that
//! a new snapshot adds to the known ones; regions and sessions are replaced by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use common::{RegionName, ShowId};
use tokio::sync::watch;

use crate::state::{Change, RegionRecord, SessionRecord, ShowCounts, ShowRecord, ShowTable, at_risk};

#[derive(Default)]
struct Known {
    shows: ShowTable,
    regions: BTreeMap<RegionName, RegionRecord>,
    sessions: BTreeMap<u64, SessionRecord>,
}

struct Shared {
    known: RwLock<Known>,
    last_heard: Mutex<Option<Instant>>,
    synced: watch::Sender<bool>,
    changes: watch::Sender<u64>,
}

/// Cheap to clone; all clones see the same.
#[derive(Clone)]
pub struct RegistryView(Arc<Shared>);

impl Default for RegistryView {
    fn default() -> Self {
        Self(Arc::new(Shared {
            known: RwLock::default(),
            last_heard: Mutex::default(),
            synced: watch::Sender::new(false),
            changes: watch::Sender::new(0),
        }))
    }
}

impl RegistryView {
    pub fn show(&self, id: ShowId) -> Option<ShowRecord> {
        self.read().shows.get(id)
    }

    /// The shows of which `region` is the owner, with their epochs.
    pub fn owned_by(&self, region: &RegionName) -> Vec<(ShowId, u64)> {
        let known = self.read();
        let owned = known.shows.owned_by(region).into_iter();
        owned.filter_map(|id| Some((id, known.shows.epoch(id)?))).collect()
    }

    /// Takes in what was learnt elsewhere (from an owner's refusal, say), when its epoch is newer.
    pub fn note(&self, record: ShowRecord) {
        let newer = {
            let mut known = self.write();
            let newer = known.shows.epoch(record.id).is_none_or(|held| record.epoch > held);
            if newer {
                put(&mut known.shows, &record);
            }
            newer
        };
        if newer {
            self.changed();
        }
    }

    pub fn sessions(&self) -> Vec<SessionRecord> {
        self.read().sessions.values().cloned().collect()
    }

    pub fn regions(&self) -> Vec<RegionRecord> {
        self.read().regions.values().cloned().collect()
    }

    /// Of a region's store, as last heard; 0 for a region that never lost anything.
    pub fn incarnation(&self, region: &RegionName) -> u64 {
        self.read().regions.get(region).map_or(0, |region| region.incarnation)
    }

    /// What the region's store has of incarnations before this one counts for nothing; 0: everything counts.
    pub fn disowned(&self, region: &RegionName) -> u64 {
        self.read().regions.get(region).map_or(0, |region| region.disowned)
    }

    /// The shows of which something acknowledged may be lost if the region were given up now: the first `limit`,
    /// and how many. Looks at all of them.
    pub fn at_risk_without(&self, region: &RegionName, limit: usize) -> (Vec<ShowId>, u64) {
        let known = self.read();
        let given_up = |name: &RegionName| known.regions.get(name).is_some_and(|known| known.given_up);
        at_risk(&known.shows, region, given_up, limit)
    }

    /// How the shows are spread over the regions; looks at all of them.
    pub fn counts(&self) -> BTreeMap<RegionName, ShowCounts> {
        self.read().shows.counts()
    }

    /// Whether a whole snapshot has arrived; stays so when the watch is interrupted, see [`Self::age`].
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    pub async fn synced(&self) {
        // The sender lives as long as this view.
        let _ = self.0.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Since the last event or heartbeat; `None` before the first.
    pub fn age(&self) -> Option<Duration> {
        let last_heard = *self.0.last_heard.lock().expect("no code panics while holding it");
        last_heard.map(|at| at.elapsed())
    }

    /// How many shows are known.
    pub fn len(&self) -> usize {
        self.read().shows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A count that rises with every change of this view.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    pub(super) fn heard(&self) {
        *self.0.last_heard.lock().expect("no code panics while holding it") = Some(Instant::now());
    }

    /// Shows of a snapshot: no one is woken before its end.
    pub(super) fn load(&self, records: &[ShowRecord]) {
        let mut known = self.write();
        records.iter().for_each(|record| take(&mut known.shows, record));
    }

    /// Shows that changed together: everybody is woken once.
    pub(super) fn take(&self, records: &[ShowRecord]) {
        self.load(records);
        self.changed();
    }

    /// The end of a snapshot.
    pub(super) fn replace(&self, regions: Vec<RegionRecord>, sessions: Vec<SessionRecord>) {
        {
            let mut known = self.write();
            known.regions = regions.into_iter().map(|r| (r.name.clone(), r)).collect();
            known.sessions = sessions.into_iter().map(|s| (s.no, s)).collect();
        }
        self.0.synced.send_replace(true);
        self.changed();
    }

    pub(super) fn apply(&self, change: Change) {
        {
            let mut known = self.write();
            match change {
                Change::Region(region) => {
                    known.regions.insert(region.name.clone(), region);
                }
                Change::Session(session) => {
                    known.sessions.insert(session.no, session);
                }
                Change::SessionClosed(no) => {
                    known.sessions.remove(&no);
                }
                Change::Show(show) => take(&mut known.shows, &show),
            }
        }
        self.changed();
    }

    fn changed(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.known.read().expect("no code panics while holding it")
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.known.write().expect("no code panics while holding it")
    }
}

/// From the stream: one epoch's record may be told twice (its `prior` settles), an older epoch's is late.
fn take(shows: &mut ShowTable, record: &ShowRecord) {
    if shows.epoch(record.id).is_none_or(|held| record.epoch >= held) {
        put(shows, record);
    }
}

fn put(shows: &mut ShowTable, record: &ShowRecord) {
    if let Err(error) = shows.put(record) {
        // The registry has the same bounds; only an out-of-band record can get here. A hint is lost.
        tracing::warn!(%error, show = %record.id, "a show's record does not fit the view");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: ShowId, owner: &str, epoch: u64) -> ShowRecord {
        let [home, owner] = ["eu", owner].map(|r| r.parse().unwrap());
        ShowRecord { id, home, owner, epoch, replicas: vec![], prior: vec![] }
    }

    #[test]
    fn a_show_never_goes_back_to_an_older_epoch() {
        let view = RegistryView::default();
        let id = ShowId::new(&"eu".parse().unwrap());
        let owner = || view.show(id).unwrap().owner.to_string();
        view.note(record(id, "us", 3));
        view.apply(Change::Show(record(id, "eu", 2)));
        view.load(&[record(id, "eu", 1)]);
        assert_eq!(owner(), "us");
        view.note(record(id, "ap", 3));
        assert_eq!(owner(), "us", "a note of the same epoch is no news");
        view.apply(Change::Show(record(id, "ap", 4)));
        assert_eq!((owner(), view.len()), ("ap".into(), 1));
    }

    #[test]
    fn changes_are_counted_and_a_snapshot_replaces_sessions_only() {
        let view = RegistryView::default();
        let seen = view.changes();
        let id = ShowId::new(&"eu".parse().unwrap());
        let session = |no| SessionRecord {
            no,
            region: "eu".parse().unwrap(),
            http_url: String::new(),
            grpc_url: String::new(),
        };
        view.apply(Change::Session(session(1)));
        view.note(record(id, "eu", 1));
        assert_eq!((*seen.borrow(), view.is_synced()), (2, false));
        view.replace(vec![], vec![session(2)]);
        assert!(view.is_synced() && view.show(id).is_some());
        assert_eq!(view.sessions(), vec![session(2)]);
        view.apply(Change::SessionClosed(2));
        assert!(view.sessions().is_empty());
        assert_eq!(*seen.borrow(), 4);
    }
}
