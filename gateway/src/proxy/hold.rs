//! Requests that wait while a show changes hands: for the registry's word, within their own deadline. Only
//! so many, and of so many bytes together; the others are told to come back.

use std::time::Duration;

use common::{Problem, ShowId};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::app::Gateway;

#[derive(Debug)]
pub struct Waiting {
    requests: Semaphore,
    kibibytes: Semaphore,
}

/// A request's place among those that wait.
#[derive(Debug)]
pub struct Held<'a> {
    _request: SemaphorePermit<'a>,
    _kibibytes: SemaphorePermit<'a>,
}

impl Waiting {
    pub fn new(max_requests: usize, max_kibibytes: usize) -> Self {
        Self { requests: Semaphore::new(max_requests), kibibytes: Semaphore::new(max_kibibytes) }
    }

    pub fn hold(&self, body_bytes: usize) -> Result<Held<'_>, Problem> {
        let full = |_| {
            Problem::unavailable(
                "too-many-waiting",
                "the show is changing hands, and as many requests as may wait for it do",
                1,
            )
        };
        let kibibytes = u32::try_from(body_bytes / 1024 + 1).unwrap_or(u32::MAX);
        Ok(Held {
            _request: self.requests.try_acquire().map_err(full)?,
            _kibibytes: self.kibibytes.try_acquire_many(kibibytes).map_err(full)?,
        })
    }
}

/// Until the registry tells of a newer epoch than `epoch`, or for `pause`, whichever is first. False when
/// the deadline passes meanwhile.
pub async fn news(
    app: &Gateway,
    show: Option<ShowId>,
    epoch: u64,
    pause: Duration,
    deadline: Instant,
) -> bool {
    let until = (Instant::now() + pause).min(deadline);
    let newer = async {
        let Some(show) = show else { return std::future::pending().await };
        let mut changes = app.ownership.changes();
        while app.ownership.epoch(show).is_none_or(|known| known <= epoch) {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    };
    // Either way the owner is asked again.
    let _ = timeout_at(until, newer).await;
    Instant::now() < deadline
}
