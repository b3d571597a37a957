//! `marquee verify`: reads every region's journals and tells whatever breaks an invariant of
//! `docs/protocol.md`. Reads only, one show at a time, so that memory does not grow with the store; a platform
//! may go on selling meanwhile.
//!
//! Invariant: whatever is wrong becomes a [`Breach`] with its show and entry; only a store that cannot be
//! read is an error.

mod breach;
#[cfg(test)]
mod following;
mod ledger;
mod models;
mod show;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use common::ShowId;
use deadpool_postgres::Pool;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

pub use breach::{Breach, Rule};
use show::Checked;

/// Shows asked for in one statement.
const PAGE: i64 = 500;
/// Shows under way at once.
const AT_ONCE: usize = 4;
/// Read models that lag behind a journal are looked at again after this; so often in all, since where no service
/// runs they never follow.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSES: u32 = 50;

/// A region's database.
pub struct Store {
    pub region: String,
    pub pool: Pool,
}

/// What was read in one region.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    pub shows: u64,
    /// Of these, archived ones.
    pub archived: u64,
    pub entries: u64,
    /// Shows whose read models had not caught up, and were not compared.
    pub behind: u64,
    pub breaches: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub regions: BTreeMap<String, Summary>,
    /// Shows whose committed entries were compared between regions.
    pub compared: u64,
    pub breaches: Vec<Breach>,
}

/// How many shows there are to read, by the stores' own counts.
pub async fn size(stores: &[Store]) -> anyhow::Result<u64> {
    let mut shows = 0;
    for store in stores {
        let client = store.client().await?;
        let row = client.query_one("SELECT count(*) FROM show_head", &[]).await.context("no schema")?;
        shows += u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
    }
    Ok(shows)
}

/// What the bookkeeping says of a journal and the state it folds to; nothing where they agree.
#[cfg(test)]
pub(crate) fn second_reading(
    journal: &[Vec<crate::show::Group>],
    state: &crate::show::Show,
) -> Vec<(Rule, String)> {
    let mut ledger = ledger::Ledger::default();
    let mut found: Vec<(Rule, String)> = journal.iter().flat_map(|groups| ledger.entry(groups)).collect();
    found.extend(ledger.finish(state));
    found
}

/// Checks everything. `read` hears of every show that was read, and of what is wrong with it.
pub async fn verify(stores: &[Store], read: impl Fn(&[Breach])) -> anyhow::Result<Report> {
    let mut report = Report::default();
    for store in stores {
        report.regions.insert(store.region.clone(), Summary::default());
    }
    let (pauses, mut after) = (AtomicU32::new(PAUSES), None);
    loop {
        let (page, more) = next_page(stores, after).await?;
        let mut checked = futures::stream::iter(page.iter().map(|show| one(stores, *show, &pauses)))
            .buffer_unordered(AT_ONCE)
            .boxed_local();
        while let Some(of_show) = checked.try_next().await? {
            report.add(of_show, &read);
        }
        drop(checked);
        match page.last() {
            Some(last) if more => after = Some(*last),
            _ => break,
        }
    }
    for store in stores {
        let breaches = orphans(store).await?;
        read(&breaches);
        report.blame(breaches);
    }
    report.breaches.sort_by(|a, b| (&a.region, a.show, a.seq).cmp(&(&b.region, b.show, b.seq)));
    Ok(report)
}

/// One show in one store: what is wrong with it, and whether its read models lag behind and were not compared.
pub async fn one_show(store: &Store, show: ShowId) -> anyhow::Result<Option<(Vec<Breach>, bool)>> {
    let mut client = store.client().await?;
    let checked = show::check(&mut client, &store.region, show, None).await?;
    Ok(checked.map(|checked| (checked.breaches, checked.behind)))
}

/// One show in all stores that have it.
#[derive(Default)]
struct OfShow {
    checked: Vec<(String, Checked)>,
    compared: bool,
    differing: Vec<Breach>,
}

impl Report {
    fn add(&mut self, of_show: OfShow, read: &impl Fn(&[Breach])) {
        for (region, checked) in of_show.checked {
            read(&checked.breaches);
            let summary = self.regions.entry(region).or_default();
            summary.shows += 1;
            summary.archived += u64::from(checked.archived);
            summary.entries += checked.entries;
            summary.behind += u64::from(checked.behind);
            self.blame(checked.breaches);
        }
        self.compared += u64::from(of_show.compared);
        self.blame(of_show.differing);
    }

    fn blame(&mut self, breaches: Vec<Breach>) {
        for breach in &breaches {
            self.regions.entry(breach.region.clone()).or_default().breaches += 1;
        }
        self.breaches.extend(breaches);
    }
}

impl Store {
    async fn client(&self) -> anyhow::Result<deadpool_postgres::Object> {
        self.pool.get().await.with_context(|| format!("{}'s database cannot be reached", self.region))
    }
}

/// The next shows of all stores together, in the order of their ids, and whether there are more.
async fn next_page(stores: &[Store], after: Option<ShowId>) -> anyhow::Result<(Vec<ShowId>, bool)> {
    let select = "SELECT show_id FROM show_head WHERE $1::uuid IS NULL OR show_id > $1
                   ORDER BY show_id LIMIT $2";
    let (mut all, mut upto) = (BTreeSet::new(), None::<ShowId>);
    for store in stores {
        let rows = store.client().await?.query(select, &[&after.map(|show| show.0), &PAGE]).await?;
        let shows: Vec<ShowId> = rows.iter().map(|row| ShowId(row.get(0))).collect();
        // Behind the end of a full page this store may have more, so others' wait for the next page.
        if shows.len() as i64 == PAGE
            && let Some(last) = shows.last()
        {
            upto = Some(upto.map_or(*last, |upto| upto.min(*last)));
        }
        all.extend(shows);
    }
    let page = all.into_iter().filter(|show| upto.is_none_or(|upto| *show <= upto)).collect();
    Ok((page, upto.is_some()))
}

async fn one(stores: &[Store], show: ShowId, pauses: &AtomicU32) -> anyhow::Result<OfShow> {
    let mut of_show = OfShow::default();
    // The place up to which all that hold the show have committed; what is archived is out of comparison.
    let mut mark: Option<i64> = None;
    let mut holding = 0;
    for store in stores {
        if let Some(head) = show::head(&store.client().await?, show).await?
            && !head.is_archived()
        {
            holding += 1;
            let committed = head.committed.min(head.seq);
            mark = Some(mark.map_or(committed, |mark| mark.min(committed)));
        }
    }
    let mark = mark.filter(|mark| *mark > 0 && holding > 1);
    for store in stores {
        if let Some(checked) = patiently(store, show, mark, pauses).await? {
            of_show.checked.push((store.region.clone(), checked));
        }
    }
    if let Some(mark) = mark {
        of_show.compared = true;
        of_show.differing = differing(stores, show, mark, &of_show.checked).await?;
    }
    of_show.differing.extend(unfounded(stores, show, &of_show.checked).await?);
    Ok(of_show)
}

/// S6: read models ahead of what their store says is committed. Its leader may have known more, and been lost
/// with the store before it wrote that down; then a majority of the stores that have the show hold the entry.
async fn unfounded(
    stores: &[Store],
    show: ShowId,
    checked: &[(String, Checked)],
) -> anyhow::Result<Vec<Breach>> {
    let mut breaches = Vec::new();
    for (region, ahead) in checked {
        let Some((seq, hash)) = &ahead.ahead else { continue };
        let (mut holders, mut others) = (0, 0);
        for store in stores {
            let select = "SELECT j.hash FROM show_head h LEFT JOIN show_journal j ON j.show_id = h.show_id AND j.seq = $2
                           WHERE h.show_id = $1";
            match store.client().await?.query_opt(select, &[&show.0, seq]).await? {
                Some(row) if row.get::<_, Option<&[u8]>>(0) == Some(hash) => holders += 1,
                Some(_) => others += 1,
                None => {}
            }
        }
        if holders <= others {
            let detail =
                format!("the read models stand at {seq}, which {holders} of {} hold", holders + others);
            breaches.push(Breach {
                region: region.clone(),
                show,
                seq: Some(*seq),
                rule: Rule::ReadModel,
                detail,
            });
        }
    }
    Ok(breaches)
}

/// Looks again where the read models are just about to follow.
async fn patiently(
    store: &Store,
    show: ShowId,
    mark: Option<i64>,
    pauses: &AtomicU32,
) -> anyhow::Result<Option<Checked>> {
    loop {
        let mut client = store.client().await?;
        let checked = show::check(&mut client, &store.region, show, mark).await?;
        drop(client);
        let behind = checked.as_ref().is_some_and(|checked| checked.behind && checked.breaches.is_empty());
        let pause = || pauses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if !behind || pause().is_err() {
            return Ok(checked);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// S4: where the committed entries of two regions first differ. Hashes are chained, so one equal hash speaks for
/// all before it.
async fn differing(
    stores: &[Store],
    show: ShowId,
    mark: i64,
    checked: &[(String, Checked)],
) -> anyhow::Result<Vec<Breach>> {
    let mut hashes = checked.iter().filter_map(|(region, c)| Some((region, c.hash_at.as_ref()?)));
    let Some((first, hash)) = hashes.next() else { return Ok(Vec::new()) };
    let others: Vec<&String> = hashes.filter(|(_, other)| *other != hash).map(|(region, _)| region).collect();
    let mut breaches = Vec::new();
    for other in others {
        let find = |region: &String| stores.iter().find(|store| store.region == *region);
        let (Some(a), Some(b)) = (find(first), find(other)) else { continue };
        let (a, b) = (hashes_of(a, show, mark).await?, hashes_of(b, show, mark).await?);
        let seq = a.iter().find(|(seq, hash)| b.get(*seq) != Some(*hash)).map_or(mark, |(seq, _)| *seq);
        let detail = format!("its entry is not that of {first}");
        breaches.push(Breach { region: other.clone(), show, seq: Some(seq), rule: Rule::Prefix, detail });
    }
    Ok(breaches)
}

async fn hashes_of(store: &Store, show: ShowId, upto: i64) -> anyhow::Result<BTreeMap<i64, Vec<u8>>> {
    let select = "SELECT seq, hash FROM show_journal WHERE show_id = $1 AND seq <= $2";
    let rows = store.client().await?.query(select, &[&show.0, &upto]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Entries and read models of shows that have no head.
async fn orphans(store: &Store) -> anyhow::Result<Vec<Breach>> {
    let client = store.client().await?;
    // The whole table is read once, by its index; a request's time limit is not meant for that.
    client.batch_execute("SET statement_timeout = 0").await?;
    let mut breaches = Vec::new();
    for (table, column) in [
        ("show_journal", "show_id"),
        ("shows", "id"),
        ("reservations", "show_id"),
        ("payments", "show_id"),
        ("refunds", "show_id"),
        ("tickets", "show_id"),
    ] {
        let select = format!(
            "SELECT DISTINCT t.{column} FROM {table} t
              WHERE NOT EXISTS (SELECT FROM show_head h WHERE h.show_id = t.{column}) LIMIT 1000"
        );
        for row in client.query(&select, &[]).await? {
            let (region, show) = (store.region.clone(), ShowId(row.get(0)));
            let detail = format!("{table} has rows of a show without a head");
            breaches.push(Breach { region, show, seq: None, rule: Rule::Orphan, detail });
        }
    }
    client.batch_execute("RESET statement_timeout").await?;
    Ok(breaches)
}
