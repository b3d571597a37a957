//! Recognising a Postgres that went back in time (R5): a standby promoted without its primary's tail, a backup, a
//! snapshot of the disk. It may have lost entries and promises, so it must not answer for them.
//!
//! Invariant: on a new connection nothing is done before the store was found to be no earlier than it is known
//! to have been; once it was found earlier, no connection is given out in this process's life any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Pool};
use tokio::sync::watch;
use tokio_postgres::{Client, Row, Statement};

/// How far a Postgres is. After a promotion the timeline is another; after a restored snapshot only the
/// position is lower than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreMark {
    pub system: u64,
    pub timeline: u32,
    /// Position in the write-ahead log up to which all is durable, in bytes.
    pub flushed: u64,
}

/// The timeline is that of the write-ahead log's present file; the control file tells it only from the next
/// checkpoint on. A standby refuses the statement, as it should: nothing can be written there.
const READ: &str = "
SELECT system_identifier AS system,
       ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint AS timeline,
       (pg_current_wal_flush_lsn() - '0/0')::bigint AS flushed
  FROM pg_control_system()";

/// How long the store may take to say how far it is.
const DEADLINE: Duration = Duration::from_secs(5);

/// How far the store is now.
pub async fn read(client: &Client) -> Result<StoreMark, tokio_postgres::Error> {
    Ok(mark(&client.query_one(READ, &[]).await?))
}

/// For those who read it often, with [`read_again`].
pub(super) async fn prepare(client: &Client) -> Result<Statement, tokio_postgres::Error> {
    client.prepare(READ).await
}

pub(super) async fn read_again(
    client: &Client,
    prepared: &Statement,
) -> Result<StoreMark, tokio_postgres::Error> {
    Ok(mark(&client.query_one(prepared, &[]).await?))
}

fn mark(row: &Row) -> StoreMark {
    StoreMark {
        system: row.get::<_, i64>("system").cast_unsigned(),
        timeline: u32::try_from(row.get::<_, i64>("timeline")).unwrap_or_default(),
        flushed: row.get::<_, i64>("flushed").cast_unsigned(),
    }
}

impl StoreMark {
    /// Whether a store that was `before` may be here now without having lost anything.
    pub fn follows(&self, before: &Self) -> bool {
        self.system == before.system && self.timeline == before.timeline && self.flushed >= before.flushed
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store went back in time: it was at {before:?} and is at {now:?}")]
pub struct Lost {
    pub before: StoreMark,
    pub now: StoreMark,
}

/// What this process knows of its store. Cheap to clone; all clones know the same.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    /// The furthest it was, of the present incarnation.
    highest: Mutex<Option<StoreMark>>,
    /// The one that the registry had counted when this process looked.
    incarnation: AtomicU64,
    lost: watch::Sender<Option<Lost>>,
}

impl Default for Guard {
    fn default() -> Self {
        Self(Arc::new(Inner {
            highest: Mutex::default(),
            incarnation: AtomicU64::new(0),
            lost: watch::Sender::new(None),
        }))
    }
}

impl Guard {
    /// `now` was read after `before` was known, from whomever.
    pub fn compare(&self, before: Option<StoreMark>, now: StoreMark) -> Result<(), Lost> {
        if let Some(lost) = self.lost() {
            return Err(lost);
        }
        if let Some(before) = before.filter(|before| !now.follows(before)) {
            let lost = Lost { before, now };
            tracing::error!(%lost, "nothing is answered from it");
            self.0.lost.send_replace(Some(lost));
            return Err(lost);
        }
        self.saw(now);
        Ok(())
    }

    /// Read on a connection that was looked at when it was made. Of two that were read at once either may be told
    /// first.
    pub fn saw(&self, now: StoreMark) {
        let mut highest = self.highest();
        if highest.is_none_or(|before| now.follows(&before)) {
            *highest = Some(now);
        }
    }

    /// Looks at the store and compares it with what was heard of it before.
    pub async fn check(&self, pool: &Pool, heard: Option<StoreMark>) -> anyhow::Result<()> {
        let before = self.mark();
        let client = tokio::time::timeout(DEADLINE, pool.get()).await??;
        let now = tokio::time::timeout(DEADLINE, read(&client)).await??;
        self.compare(before, now)?;
        Ok(self.compare(heard, now)?)
    }

    /// The furthest that the store is known to have been.
    pub fn mark(&self) -> Option<StoreMark> {
        *self.highest()
    }

    pub fn lost(&self) -> Option<Lost> {
        *self.0.lost.borrow()
    }

    /// Ends when the store was found to have lost something.
    pub async fn until_lost(&self) -> Lost {
        let mut lost = self.0.lost.subscribe();
        let found = lost.wait_for(Option::is_some).await.ok().and_then(|lost| *lost);
        match found {
            Some(lost) => lost,
            // The sender lives as long as this.
            None => std::future::pending().await,
        }
    }

    /// The registry has counted the store's incarnation on: what it was before is over.
    pub fn begin_anew(&self) {
        *self.highest() = None;
        self.0.lost.send_replace(None);
    }

    /// At least that of the store; what follows the registry may tell of a later one.
    pub fn incarnation(&self) -> u64 {
        self.0.incarnation.load(Ordering::Relaxed)
    }

    pub fn is_of(&self, incarnation: u64) {
        self.0.incarnation.fetch_max(incarnation, Ordering::Relaxed);
    }

    /// For a pool: looks at each new connection before anybody gets it.
    pub fn hook(&self) -> Hook {
        let guard = self.clone();
        Hook::async_fn(move |client, _| {
            let guard = guard.clone();
            Box::pin(async move {
                let before = guard.mark();
                let late = |_| HookError::message("the store did not say in time how far it is");
                let now = tokio::time::timeout(DEADLINE, read(client)).await.map_err(late)?;
                let now = now.map_err(HookError::Backend)?;
                guard.compare(before, now).map_err(|lost| HookError::message(lost.to_string()))
            })
        })
    }

    fn highest(&self) -> std::sync::MutexGuard<'_, Option<StoreMark>> {
        self.0.highest.lock().expect("no code panics while holding it")
    }
}
