//! Who wants to know when this region's store may know more of a show to be committed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use common::ShowId;
use tokio::sync::Notify;

/// Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Commits(Arc<Mutex<HashMap<ShowId, Arc<Notify>>>>);

/// Hears of one show; ends with the value. Of several for one show each hears of some changes only, so there is
/// to be one.
pub struct Watched {
    commits: Commits,
    show: ShowId,
    wake: Arc<Notify>,
}

impl Commits {
    pub fn watch(&self, show: ShowId) -> Watched {
        let wake = self.all().entry(show).or_default().clone();
        Watched { commits: self.clone(), show, wake }
    }

    /// These shows' heads were written.
    pub fn tell(&self, shows: impl Iterator<Item = ShowId>) {
        let all = self.all();
        if all.is_empty() {
            return;
        }
        for wake in shows.filter_map(|show| all.get(&show)) {
            wake.notify_one();
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ShowId, Arc<Notify>>> {
        self.0.lock().expect("no code panics while holding it")
    }
}

impl Watched {
    /// Waits for the next one, or the one since it was last called.
    pub async fn next(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut all = self.commits.all();
        if all.get(&self.show).is_some_and(|wake| Arc::ptr_eq(wake, &self.wake)) {
            all.remove(&self.show);
        }
    }
}
