//! The projector: folds committed journals into the read models (`shows`, `reservations`, `payments`,
//! `refunds`, `tickets`), which lists and reports read. It is nudged after every commit and sweeps for what
//! it missed; the same path after a crash as before.
//!
//! Invariant: a read model is the fold of the committed journal at `projected.seq`; the tables can be emptied
//! and are then rebuilt.

mod rows;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::ShowId;
use deadpool_postgres::Pool;
use futures::TryStreamExt;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::host::Hosts;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::show::Event;
use rows::Touched;

/// How often it looks for shows that nobody nudged it about.
const SWEEP: Duration = Duration::from_secs(5);

/// Tells the projector that a show has moved on.
#[derive(Clone)]
pub struct Nudge(Arc<Shared>);

struct Shared {
    queue: Mutex<BTreeSet<ShowId>>,
    wake: Notify,
    /// Passes over the queue: (started, finished).
    passes: watch::Sender<(u64, u64)>,
}

impl Default for Nudge {
    fn default() -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::default(),
            wake: Notify::new(),
            passes: watch::Sender::new((0, 0)),
        }))
    }
}

impl Nudge {
    pub fn nudge(&self, show: ShowId) {
        self.queue().insert(show);
        self.0.wake.notify_one();
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, BTreeSet<ShowId>> {
        self.0.queue.lock().expect("no code panics while holding it")
    }

    /// Whether anything waits to be folded in or is being so.
    pub fn is_behind(&self) -> bool {
        let (started, finished) = *self.0.passes.borrow();
        !self.queue().is_empty() || finished < started
    }

    /// Waits until all that was nudged before is folded in, so that a list shows what its reader has just
    /// done; at most half a second, after which the list is merely a little old.
    pub async fn caught_up(&self) {
        let mut passes = self.0.passes.subscribe();
        let (started, finished) = *passes.borrow();
        let target = if self.queue().is_empty() { started } else { started + 1 };
        if finished < target {
            let folded = passes.wait_for(|(_, finished)| *finished >= target);
            // Late or stopped: the reader gets what there is.
            let _ = tokio::time::timeout(Duration::from_millis(500), folded).await;
        }
    }
}

pub struct Projector {
    pub pool: Pool,
    pub journal: Journal,
    pub hosts: Hosts,
    pub nudge: Nudge,
    pub metrics: Metrics,
}

impl Projector {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.nudge.0.wake.notified() => {}
                _ = sweep.tick() => match self.behind().await {
                    Ok(shows) => {
                        self.metrics.projection_behind.set(i64::try_from(shows.len()).unwrap_or(i64::MAX));
                        self.nudge.queue().extend(shows);
                    }
                    Err(error) => tracing::warn!(error = %format!("{error:#}"), "cannot sweep"),
                },
            }
            self.pass().await;
        }
    }

    async fn pass(&self) {
        self.nudge.0.passes.send_modify(|(started, _)| *started += 1);
        let shows = std::mem::take(&mut *self.nudge.queue());
        for show in shows {
            if let Err(error) = self.project(show).await {
                // The sweep finds it again.
                tracing::error!(%show, error = %format!("{error:#}"), "cannot project");
            }
        }
        self.nudge.0.passes.send_modify(|(started, finished)| *finished = *started);
    }

    async fn behind(&self) -> anyhow::Result<Vec<ShowId>> {
        let select = "SELECT h.show_id FROM show_head h LEFT JOIN projected p USING (show_id)
                       WHERE h.committed > coalesce(p.seq, 0) LIMIT 1000";
        let rows = self.pool.get().await?.query(select, &[]).await?;
        Ok(rows.iter().map(|row| ShowId(row.get(0))).collect())
    }

    /// Brings one show's read models to its committed state.
    async fn project(&self, id: ShowId) -> anyhow::Result<()> {
        let mut client = self.pool.get().await?;
        let select = "SELECT seq FROM projected WHERE show_id = $1";
        let before = client.query_opt(select, &[&id.0]).await?.map_or(0, |row| row.get::<_, i64>(0));
        let before = u64::try_from(before)?;
        // The live state where the show is led here, else the journal's fold.
        let rows = match self.hosts.peek(id) {
            Some(host) => {
                self.rows(id, before, host.read(|show| show.seq), |t| host.read(|s| rows::of(s, t))).await?
            }
            None => {
                let Some(committed) = self.journal.committed(id).await? else { return Ok(()) };
                let Some(show) = self.journal.fold(id, committed).await? else { return Ok(()) };
                self.rows(id, before, committed, |touched| rows::of(&show, touched)).await?
            }
        };
        let Some(rows) = rows else { return Ok(()) };
        let transaction = client.transaction().await?;
        // Another projector of this region may have been here meanwhile; the newer fold stays.
        let claim = "INSERT INTO projected (show_id, seq) VALUES ($1, $2)
                     ON CONFLICT (show_id) DO UPDATE SET seq = excluded.seq WHERE projected.seq < excluded.seq";
        let claimed = transaction.execute(claim, &[&id.0, &i64::try_from(rows.seq)?]).await?;
        if claimed == 1 {
            rows.write(&transaction).await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    /// The rows that entries after `before` touched, as the state has them now; none when nothing is new.
    async fn rows(
        &self,
        id: ShowId,
        before: u64,
        upto: u64,
        of: impl FnOnce(&Touched) -> rows::Rows,
    ) -> anyhow::Result<Option<rows::Rows>> {
        if upto <= before {
            return Ok(None);
        }
        let mut touched = Touched { everything: before == 0, ..Touched::default() };
        if !touched.everything {
            let mut entries = std::pin::pin!(self.journal.entries(id, before, upto).await?);
            while let Some(entry) = entries.try_next().await? {
                for event in entry.groups.iter().flat_map(|group| &group.events) {
                    touched.add(event);
                }
            }
        }
        let mut rows = of(&touched);
        // The live state may have gone on while the entries were read; what those touched comes next time.
        rows.seq = upto;
        Ok(Some(rows))
    }
}

impl Touched {
    fn add(&mut self, event: &Event) {
        match event {
            // The show's own row is written whenever anything was.
            Event::Led { .. }
            | Event::Created(_)
            | Event::Blocked { .. }
            | Event::Unblocked { .. }
            | Event::Rescheduled { .. }
            | Event::OnSaleChanged { .. }
            | Event::ShowCanceled { .. } => {}
            Event::Reserved { reservation, .. }
            | Event::SeatsChanged { reservation, .. }
            | Event::Lapsed { reservation }
            | Event::Retaken { reservation } => {
                self.reservations.insert(*reservation);
            }
            Event::PaymentStarted { payment, .. }
            | Event::PaymentPending { payment }
            | Event::PaymentCompleted { payment, .. }
            | Event::PaymentFailed { payment, .. } => {
                self.payments.insert(*payment);
            }
            Event::PaymentUnclaimed { payment, refund } | Event::RefundStarted { refund, payment, .. } => {
                self.payments.insert(*payment);
                self.refunds.insert(*refund);
            }
            Event::Canceled(cancellation) => {
                self.reservations.insert(cancellation.reservation);
                if let Some(back) = &cancellation.refund {
                    self.payments.insert(back.payment);
                    self.refunds.insert(back.refund);
                }
            }
            Event::RefundCompleted { refund } | Event::RefundFailed { refund, .. } => {
                self.refunds.insert(*refund);
            }
            Event::CheckedIn { ticket, .. } => {
                self.tickets.insert(*ticket);
            }
        }
    }
}
