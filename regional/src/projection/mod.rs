//! The projector: folds committed journals into the read models (`shows`, `reservations`, `payments`,
//! `refunds`, `tickets`), which lists and reports read. It is told of every commit and sweeps for what it
//! missed; the same path after a crash as before.
//!
//! It gives way to those who sell: after a pass it pauses several times as long as the pass took, so that
//! under load its passes are few and large; whoever reads a list ends the pause.
//!
//! Invariant: a read model is the fold of the committed journal at `projected.seq`; the tables can be emptied
//! and are then rebuilt.

mod queue;
mod rows;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use common::ShowId;
use deadpool_postgres::{Object, Pool};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Audited};
use crate::host::Hosts;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::show::Show;
pub use queue::Nudge;
use queue::{Pending, Touched};
use rows::Rows;

/// How often it looks for shows that nobody told it about.
const SWEEP: Duration = Duration::from_secs(5);

/// The pause after a pass: so many times as long as the pass took, up to the longest.
const PAUSE_FACTOR: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// What one transaction writes at most, and how many shows' journals a sweep brings.
const MOST_ROWS: usize = 20_000;
const MOST_SWEPT: i64 = 10_000;

pub struct Projector {
    pub pool: Pool,
    pub journal: Journal,
    pub hosts: Hosts,
    pub nudge: Nudge,
    pub metrics: Metrics,
}

/// What the projector remembers between its passes.
#[derive(Default)]
struct Memory {
    /// Where shows that are led here stand.
    positions: HashMap<ShowId, u64>,
    /// Shows that the last sweep found behind, and where they stood.
    behind: HashMap<ShowId, u64>,
    /// Shows that stand elsewhere than remembered.
    astray: Vec<ShowId>,
}

/// One transaction's worth.
#[derive(Default)]
struct Chunk {
    rows: Rows,
    taken: Vec<(ShowId, Pending)>,
}

impl Projector {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut memory = Memory::default();
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.nudge.woken() => {}
                _ = sweep.tick() => {
                    if let Err(error) = self.sweep(&mut memory).await {
                        tracing::warn!(error = %format!("{error:#}"), "cannot sweep");
                    }
                }
            }
            let started = Instant::now();
            self.pass(&mut memory).await;
            let pause = (started.elapsed() * PAUSE_FACTOR).min(LONGEST_PAUSE);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.nudge.pause(pause) => {}
            }
        }
    }

    /// Finds shows that nobody told of. Those that another process leads are only a moment behind; what has not
    /// moved since the last sweep is taken up here.
    async fn sweep(&self, memory: &mut Memory) -> anyhow::Result<()> {
        memory.positions.retain(|show, _| self.hosts.peek(*show).is_some());
        let select =
            "SELECT h.show_id, coalesce(p.seq, 0) FROM show_head h LEFT JOIN projected p USING (show_id)
                       WHERE h.committed > coalesce(p.seq, 0) LIMIT $1";
        let rows = self.pool.get().await?.query(select, &[&MOST_SWEPT]).await?;
        self.metrics.projection_behind.set(i64::try_from(rows.len()).unwrap_or(i64::MAX));
        let found: HashMap<ShowId, u64> = rows
            .iter()
            .map(|row| (ShowId(row.get(0)), u64::try_from(row.get::<_, i64>(1)).unwrap_or(0)))
            .collect();
        for (show, at) in &found {
            if memory.behind.get(show) == Some(at) {
                self.nudge.nudge(*show);
            }
        }
        memory.behind = found;
        Ok(())
    }

    /// Folds in all that waits now.
    async fn pass(&self, memory: &mut Memory) {
        self.nudge.pass_started();
        let shows = self.nudge.shows();
        let folded = async {
            self.fold_in(memory, &shows).await?;
            // Shows that turned out to stand elsewhere than remembered; once more, now that it is known.
            let astray = std::mem::take(&mut memory.astray);
            self.fold_in(memory, &astray).await
        };
        if let Err(error) = folded.await {
            tracing::error!(error = %format!("{error:#}"), "cannot project");
        }
        self.nudge.pass_finished();
    }

    async fn fold_in(&self, memory: &mut Memory, shows: &[ShowId]) -> anyhow::Result<()> {
        if shows.is_empty() {
            return Ok(());
        }
        // What was taken stays in the queue while no connection is to be had.
        let mut client = self.pool.get().await?;
        self.learn_positions(&client, memory, shows).await?;
        let mut shows = shows.iter().copied();
        loop {
            let mut chunk = Chunk::default();
            let mut last = true;
            for show in shows.by_ref() {
                self.collect(memory, show, &mut chunk).await;
                if chunk.rows.len() >= MOST_ROWS {
                    last = false;
                    break;
                }
            }
            if !chunk.taken.is_empty() {
                self.write(&mut client, memory, chunk).await?;
            }
            if last {
                return Ok(());
            }
        }
    }

    async fn learn_positions(
        &self,
        client: &Object,
        memory: &mut Memory,
        shows: &[ShowId],
    ) -> anyhow::Result<()> {
        let unknown: Vec<uuid::Uuid> =
            shows.iter().filter(|show| !memory.positions.contains_key(show)).map(|show| show.0).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        memory.positions.extend(unknown.iter().map(|show| (ShowId(*show), 0)));
        let select = "SELECT show_id, seq FROM projected WHERE show_id = ANY($1)";
        let rows = client.query(&client.prepare_cached(select).await?, &[&unknown]).await?;
        for row in rows {
            memory.positions.insert(ShowId(row.get(0)), u64::try_from(row.get::<_, i64>(1))?);
        }
        Ok(())
    }

    /// Adds one show's news to a chunk: from the live state where it is led here, else from its journal.
    async fn collect(&self, memory: &mut Memory, show: ShowId, chunk: &mut Chunk) {
        let before = memory.positions.get(&show).copied().unwrap_or(0);
        if let Some(host) = self.hosts.peek(show) {
            // Under the state's lock, so that what is taken is what the state holds.
            let untold = host.read(|state| {
                let pending = self.nudge.take(show)?;
                // A host that was deposed unawares may know less than stands in the tables.
                if state.seq > before || (state.seq == before && pending.span.is_none()) {
                    return chunk.add(state, before, pending);
                }
                None
            });
            let Some(upto) = untold else { return };
            match self.audited(show, before, upto).await {
                Ok(audited) => host.read(|state| chunk.rows.tell(state, &audited)),
                // The sweep finds it again.
                Err(error) => {
                    tracing::error!(%show, error = %format!("{error:#}"), "cannot read what the audit log is told");
                    chunk.rows.forget(show);
                    chunk.taken.retain(|(taken, _)| *taken != show);
                    memory.positions.remove(&show);
                }
            }
            return;
        }
        let Some(pending) = self.nudge.take(show) else { return };
        memory.positions.remove(&show);
        match self.fold_journal(show, before).await {
            Ok(Some((state, touched, audited))) => {
                let touched = (before > 0).then_some(&touched);
                chunk.rows.add(&state, before, touched, true);
                chunk.rows.tell(&state, &audited);
                chunk.taken.push((show, pending));
            }
            Ok(None) => {}
            // The sweep finds it again.
            Err(error) => tracing::error!(%show, error = %format!("{error:#}"), "cannot project"),
        }
    }

    /// What the audit log may be told of the entries after `before`, up to `upto`, from the journal.
    async fn audited(&self, show: ShowId, before: u64, upto: u64) -> anyhow::Result<Vec<Audited>> {
        let (mut audited, mut last) = (Vec::new(), before);
        let mut entries = std::pin::pin!(self.journal.entries(show, before, upto).await?);
        while let Some(entry) = entries.try_next().await? {
            last = entry.seq;
            audited.extend(audit::worth_telling(entry.seq, &entry.groups, self.nudge.news()));
        }
        // A majority of the regions may have an entry before this one's store does.
        anyhow::ensure!(last == upto, "the journal here ends at {last}, {upto} is committed");
        Ok(audited)
    }

    /// The state at the committed end of the journal, and what the entries after `before` touched and have for
    /// the audit log; none when nothing is new.
    async fn fold_journal(
        &self,
        show: ShowId,
        before: u64,
    ) -> anyhow::Result<Option<(Show, Touched, Vec<Audited>)>> {
        let committed = self.journal.committed(show).await?.unwrap_or(0);
        if committed <= before {
            return Ok(None);
        }
        let (mut state, mut touched, mut audited) = (None, Touched::default(), Vec::new());
        let mut entries = std::pin::pin!(self.journal.entries(show, 0, committed).await?);
        while let Some(entry) = entries.try_next().await? {
            state = Show::fold(state, entry.seq, &entry.groups).map_err(anyhow::Error::msg)?;
            if entry.seq > before {
                entry.groups.iter().for_each(|group| touched.add(group));
                audited.extend(audit::worth_telling(entry.seq, &entry.groups, self.nudge.news()));
            }
        }
        Ok(state.map(|state| (state, touched, audited)))
    }

    async fn write(&self, client: &mut Object, memory: &mut Memory, chunk: Chunk) -> anyhow::Result<()> {
        let Chunk { mut rows, taken } = chunk;
        match transaction(client, &mut rows).await {
            Ok(claimed) => {
                self.remember(memory, &rows, &claimed);
                if let Some(since) = taken.iter().map(|(_, pending)| pending.since).min() {
                    self.metrics.projection_lag_seconds.set(since.elapsed().as_secs_f64());
                }
                Ok(())
            }
            // One show's rows that the tables refuse must not hold the others up.
            Err(error) if refused(&error) && taken.len() > 1 => {
                for (show, _) in taken {
                    self.one(client, memory, show).await?;
                }
                Ok(())
            }
            Err(error) => {
                let shows: Vec<ShowId> = taken.iter().map(|(show, _)| *show).collect();
                if refused(&error) {
                    // Sought again by the sweep, and written anew.
                    memory.positions.retain(|show, _| !shows.contains(show));
                    return Err(error.context(format!("{shows:?}")));
                }
                taken.into_iter().for_each(|(show, pending)| self.nudge.put_back(show, pending));
                Err(error)
            }
        }
    }

    /// Writes all of one show anew.
    async fn one(&self, client: &mut Object, memory: &mut Memory, show: ShowId) -> anyhow::Result<()> {
        memory.positions.remove(&show);
        self.learn_positions(client, memory, &[show]).await?;
        self.nudge.nudge(show);
        let mut chunk = Chunk::default();
        self.collect(memory, show, &mut chunk).await;
        if chunk.taken.is_empty() {
            return Ok(());
        }
        match transaction(client, &mut chunk.rows).await {
            Ok(claimed) => self.remember(memory, &chunk.rows, &claimed),
            Err(error) if refused(&error) => {
                memory.positions.remove(&show);
                tracing::error!(%show, error = %format!("{error:#}"), "cannot project");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn remember(&self, memory: &mut Memory, rows: &Rows, claimed: &HashSet<ShowId>) {
        for position in &rows.positions {
            if !claimed.contains(&position.show) {
                // Somebody else moved it; what is there now is learnt before the next try.
                memory.positions.remove(&position.show);
                self.nudge.nudge(position.show);
                memory.astray.push(position.show);
            } else if let Some(at) = memory.positions.get_mut(&position.show) {
                *at = position.upto;
            }
        }
    }
}

impl Chunk {
    /// Answers up to where the journal must be read for what the audit log is told, if it must.
    fn add(&mut self, state: &Show, before: u64, pending: Pending) -> Option<u64> {
        // Only what follows without a gap is enough; else all of the show is written.
        let span = pending.span.as_ref().filter(|span| span.after <= before);
        if let Some(span) = span {
            self.rows.tell(state, span.audited.iter().filter(|audited| audited.seq > before));
        }
        let untold = (span.is_none() && state.seq > before).then_some(state.seq);
        let touched = span.filter(|_| before > 0).map(|span| &span.touched);
        let exact = span.is_some_and(|span| span.after == before);
        self.rows.add(state, before, touched, exact);
        self.taken.push((state.plan.facts.show, pending));
        untold
    }
}

async fn transaction(client: &mut Object, rows: &mut Rows) -> anyhow::Result<HashSet<ShowId>> {
    let transaction = client.transaction().await?;
    // Lost in a crash together with the positions, and folded again: nobody needs to wait for the disk.
    transaction.batch_execute("SET LOCAL synchronous_commit = off").await?;
    let claimed = rows.write(&transaction).await?;
    transaction.commit().await?;
    Ok(claimed)
}

/// Whether the tables themselves refuse the rows, whoever tries again.
fn refused(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
    code.is_some_and(|code| matches!(&code.code()[..2], "22" | "23" | "42"))
}
