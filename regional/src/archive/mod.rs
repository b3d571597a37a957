//! Ended shows leave Postgres for files: written, read back, and only then removed, one small transaction a
//! show.
//!
//! Invariants: a show is removed only while its head is exactly what a finished, verified file holds, and in the
//! same transaction its head promises [`Ballot::ARCHIVED`], so that nobody, here or elsewhere, however late,
//! leads or extends it; the head stays as its tombstone until its year is dropped. A run that is killed
//! anywhere leaves each show whole in Postgres or whole in a file, and the next run goes on.

mod file;
mod remove;
mod settled;
#[cfg(test)]
mod tests;
mod year;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use common::ShowId;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

pub use file::{Archived, Contents, read_file};
pub use remove::restore;
pub use year::{Dropped, drop_year};

use crate::verify::Store;
use file::Writer;
use remove::Removed;

/// What to archive.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Shows that ended before this.
    pub before: Timestamp,
    /// Where the files go.
    pub folder: PathBuf,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Remove the rows, too, that lists of reservations, payments and shows are made of.
    pub forget_lists: bool,
}

/// Something that a run is about to do; an error from the caller stops it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Write(ShowId),
    Finish,
    Verify,
    Remove(ShowId),
    Removed(ShowId),
}

/// A show that was left where it is, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    pub show: ShowId,
    pub why: String,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Ended shows looked at.
    pub ended: u64,
    /// Written, or with `dry_run` what would be.
    pub archived: u64,
    pub entries: u64,
    pub files: Vec<PathBuf>,
    pub left: Vec<Left>,
}

/// Any number will do, as long as all versions use the same.
const LOCK: i64 = 0x6d61_7271_7565_6503;

/// Archives one region's ended shows, month by month.
pub async fn archive(
    store: &Store,
    plan: &Plan,
    step: &mut dyn FnMut(Step) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    // A connection of its own: the lock goes with it, wherever the run ends.
    let alone = store.pool.get().await.context("the database cannot be reached")?;
    let alone = deadpool_postgres::Object::take(alone);
    let locked: bool = alone.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK]).await?.get(0);
    anyhow::ensure!(locked, "another run archives {} now", store.region);
    let outcome = months(store, plan, step).await;
    // Let go of it by word, too: a connection ends a moment after it is dropped.
    alone.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await?;
    outcome
}

async fn months(
    store: &Store,
    plan: &Plan,
    step: &mut dyn FnMut(Step) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    if !plan.dry_run {
        file::prepare_folder(&plan.folder, &store.region)?;
    }
    for (month, shows) in ended(store, plan.before).await? {
        outcome.ended += shows.len() as u64;
        month_of(store, plan, &month, &shows, &mut outcome, step)
            .await
            .with_context(|| format!("{}, shows of {month}", store.region))?;
    }
    Ok(outcome)
}

/// Shows that the read models say ended before, by the month in which they began. Only a hint: the journal
/// decides ([`settled`]).
async fn ended(store: &Store, before: Timestamp) -> anyhow::Result<BTreeMap<String, Vec<ShowId>>> {
    let select = "SELECT h.show_id, s.starts_at FROM show_head h JOIN shows s ON s.id = h.show_id
                   WHERE s.ends_at < $1 AND h.promised_epoch < $2 ORDER BY h.show_id";
    let archived = i64::MAX;
    let rows = store.pool.get().await?.query(select, &[&before, &archived]).await?;
    let mut months: BTreeMap<String, Vec<ShowId>> = BTreeMap::new();
    for row in rows {
        let starts_at: Timestamp = row.get(1);
        let month = starts_at.to_zoned(TimeZone::UTC).strftime("%Y-%m").to_string();
        months.entry(month).or_default().push(ShowId(row.get(0)));
    }
    Ok(months)
}

async fn month_of(
    store: &Store,
    plan: &Plan,
    month: &str,
    shows: &[ShowId],
    outcome: &mut Outcome,
    step: &mut dyn FnMut(Step) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // What an earlier run wrote, and did not come to remove.
    let mut written: BTreeMap<ShowId, Archived> = BTreeMap::new();
    if !plan.dry_run {
        for path in file::of_month(&plan.folder, &store.region, month)? {
            let contents = read_file(&path, |_, _| Ok(()))?;
            written.extend(contents.shows.into_iter().map(|show| (show.show, show)));
        }
    }
    let (mut writer, mut ready) = (None, Vec::new());
    for show in shows {
        let (archived, lines) = match settled::examine(store, *show, plan.before).await? {
            Ok(examined) => examined,
            Err(why) => {
                outcome.left.push(Left { show: *show, why });
                continue;
            }
        };
        outcome.entries += archived.seq;
        if plan.dry_run {
            outcome.archived += 1;
            continue;
        }
        if written.get(show) != Some(&archived) {
            step(Step::Write(*show))?;
            if writer.is_none() {
                writer = Some(Writer::begin(&plan.folder, &store.region, month)?);
            }
            if let Some(writer) = &mut writer {
                writer.show(&archived, &lines)?;
            }
        }
        ready.push(archived);
    }
    if let Some(writer) = writer {
        step(Step::Finish)?;
        let path = writer.finish()?;
        step(Step::Verify)?;
        let contents = read_file(&path, |_, _| Ok(()))?;
        file::write_manifest(&path, &contents)?;
        written.extend(contents.shows.into_iter().map(|show| (show.show, show)));
        outcome.files.push(path);
    }
    for archived in ready {
        anyhow::ensure!(
            written.get(&archived.show) == Some(&archived),
            "{} is not in a file as it was written",
            archived.show
        );
        step(Step::Remove(archived.show))?;
        match remove::remove(store, &archived, plan.forget_lists).await? {
            Removed::Done => outcome.archived += 1,
            Removed::MovedOn => {
                let why = "somebody wrote to it meanwhile; the next run takes it".to_owned();
                outcome.left.push(Left { show: archived.show, why });
            }
        }
        step(Step::Removed(archived.show))?;
    }
    Ok(())
}

/// The files in a folder that hold this show, newest last.
pub fn files_with(folder: &Path, show: ShowId) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in file::all(folder)? {
        if read_file(&path, |_, _| Ok(()))?.shows.iter().any(|archived| archived.show == show) {
            found.push(path);
        }
    }
    Ok(found)
}
