//! Brings back replicas whose store lost its tail (R5): drives [`crate::replication::Recovery`] for each show,
//! many at once, over links to the other regions. What decides is there; this carries messages.
//!
//! Invariant: a show's record is read linearizably after the incarnation was known, and a replica that is whole
//! already is never restored (the store looks, in the transaction that restores).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::tls::Tls;
use common::{RegionName, ShowId};
use deadpool_postgres::Pool;
use raft::client::{RegistryClient, RegistryView};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::caught_up::CaughtUp;
use super::guard::Guard;
use super::link::{self, Sending};
use super::wire::Hello;
use super::{Answer, Append, Head, Regional, ReplicaStore, Reply, Request};
use crate::journal::Ballot;
use crate::replication::{Alone, Recovery, RecoveryEffect, Restore, Strict, Term};
use crate::session::Session;

/// Shows under way at once.
const AT_ONCE: usize = 64;

/// What was not answered is said again after this; a show that has not come back after [`PATIENCE`] begins
/// anew, since the registry may know more by now.
const REPEAT: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at the whole store.
const SWEEP: Duration = Duration::from_secs(5);
const PAGE: i64 = 1_000;

/// Shows whose replicas were asked for something and are not whole. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Wanted(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    shows: Mutex<BTreeSet<ShowId>>,
    wake: Notify,
}

impl Wanted {
    pub fn add(&self, show: ShowId) {
        if self.shows().insert(show) {
            self.0.wake.notify_one();
        }
    }

    fn take(&self) -> Option<ShowId> {
        self.shows().pop_first()
    }

    fn len(&self) -> usize {
        self.shows().len()
    }

    fn shows(&self) -> std::sync::MutexGuard<'_, BTreeSet<ShowId>> {
        self.0.shows.lock().expect("no code panics while holding it")
    }
}

/// What the registry says to a recovery.
#[async_trait::async_trait]
pub trait Records: Send + Sync + 'static {
    /// The show's term with the present epoch, by a linearizable read; none where this region holds no replica
    /// of it.
    async fn term(&self, show: ShowId) -> anyhow::Result<Option<Term<Regional>>>;

    /// Where processes of a region can be reached.
    fn processes(&self, region: &RegionName) -> Vec<String>;

    /// Of the own store.
    fn incarnation(&self) -> u64;
}

/// By the registry itself.
pub struct ByRegistry {
    pub region: RegionName,
    pub view: RegistryView,
    pub registry: RegistryClient,
    pub guard: Guard,
}

#[async_trait::async_trait]
impl Records for ByRegistry {
    async fn term(&self, show: ShowId) -> anyhow::Result<Option<Term<Regional>>> {
        let Some(record) = self.registry.get_show(show).await? else { return Ok(None) };
        let (replicas, prior) = (record.replicas.into_iter(), record.prior.into_iter());
        let (replicas, prior): (BTreeSet<RegionName>, BTreeSet<RegionName>) =
            (replicas.collect(), prior.collect());
        let all = replicas.union(&prior);
        let mut incarnations: BTreeMap<RegionName, u64> =
            all.map(|region| (region.clone(), self.view.incarnation(region))).collect();
        if incarnations.insert(self.region.clone(), self.incarnation()).is_none() {
            return Ok(None);
        }
        let ballot = Ballot { epoch: record.epoch, session: 0, attempt: 0 };
        Ok(Some(Term { ballot, own: self.region.clone(), replicas, prior, incarnations }))
    }

    fn processes(&self, region: &RegionName) -> Vec<String> {
        let sessions = self.view.sessions().into_iter().rev();
        let theirs = sessions.filter(|s| s.region == *region && !s.grpc_url.is_empty());
        theirs.map(|session| session.grpc_url).collect()
    }

    fn incarnation(&self) -> u64 {
        self.view.incarnation(&self.region).max(self.guard.incarnation())
    }
}

/// What a recovery needs of its process.
pub struct Means {
    pub region: RegionName,
    pub session: Session,
    pub store: ReplicaStore,
    pub pool: Pool,
    pub records: Arc<dyn Records>,
    pub tls: Tls,
    /// Told while replicas wait to be whole.
    pub caught_up: CaughtUp,
    pub stop: CancellationToken,
}

struct Driver {
    means: Means,
    active: HashMap<ShowId, Active>,
    links: HashMap<RegionName, mpsc::Sender<(ShowId, Request)>>,
    heard: mpsc::Sender<Heard>,
    /// On their way into the own store, and the way of the outcome.
    restoring: BTreeSet<ShowId>,
    restored: mpsc::Sender<(ShowId, Option<Answer>)>,
    /// Shows of which no other region holds a replica; told once.
    alone: BTreeSet<ShowId>,
}

struct Known {
    incarnation: u64,
    term: Term<Regional>,
    own: Head,
}

struct Active {
    recovery: Recovery<Regional>,
    since: Instant,
}

type Heard = (RegionName, ShowId, Reply);

/// Declares, for an operator, that of shows which no other region holds this store has all that is to be had.
pub async fn accept(pool: &Pool) -> anyhow::Result<()> {
    let declare = "INSERT INTO store_accepted DEFAULT VALUES
                   ON CONFLICT (one) DO UPDATE SET accepted_at = now(), incarnation = NULL";
    pool.get().await?.execute(declare, &[]).await?;
    Ok(())
}

/// The declaration counts for the incarnation that reads it first, and for no later one.
async fn is_accepted(pool: &Pool, incarnation: u64) -> anyhow::Result<bool> {
    let read = "UPDATE store_accepted SET incarnation = $1 WHERE coalesce(incarnation, $1) = $1";
    Ok(pool.get().await?.execute(read, &[&incarnation.cast_signed()]).await? == 1)
}

/// Recovers what needs it until `stop`: what is asked for and not whole, and what a look at the store finds.
pub async fn run(means: Means) {
    let (heard, mut answers) = mpsc::channel(1_024);
    let (stop, wanted) = (means.stop.clone(), means.store.wanted().clone());
    let (active, links, alone) = (HashMap::new(), HashMap::new(), BTreeSet::new());
    let (restored, mut outcomes) = mpsc::channel(AT_ONCE);
    let restoring = BTreeSet::new();
    let mut driver = Driver { means, active, links, heard, restoring, restored, alone };
    let mut is_behind = false;
    let (mut repeat, mut sweep) = (tokio::time::interval(REPEAT), tokio::time::interval(SWEEP));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some((from, show, reply)) = answers.recv() => driver.answered(&from, show, reply).await,
            Some((show, answer)) = outcomes.recv() => driver.restored(show, answer),
            () = wanted.0.wake.notified() => {}
            _ = repeat.tick() => driver.repeat().await,
            _ = sweep.tick() => {
                if let Err(error) = driver.sweep().await {
                    tracing::warn!(error = %format!("{error:#}"), "cannot look for replicas to recover");
                }
            }
        }
        driver.begin().await;
        let left = driver.active.len() + driver.restoring.len() + wanted.len();
        if (left > 0) != is_behind {
            is_behind = left > 0;
            driver.means.caught_up.set_whole(!is_behind);
        }
        driver.means.store.metrics().recovering.set(i64::try_from(left).unwrap_or(i64::MAX));
    }
}

impl Driver {
    /// Heads that were last whole in an earlier incarnation, of shows that this region keeps: of those that it was
    /// taken out of nobody expects anything. An archived show is nobody's to recover.
    async fn sweep(&mut self) -> anyhow::Result<()> {
        let incarnation = self.means.records.incarnation();
        if incarnation == 0 {
            return Ok(());
        }
        if !self.alone.is_empty() && is_accepted(&self.means.pool, incarnation).await? {
            self.alone.clear();
        }
        let select = "SELECT show_id FROM show_head
                       WHERE show_id > $1 AND incarnation < $2 AND promised_epoch < $3 AND show_id <> ALL ($4)
                       ORDER BY show_id LIMIT $5";
        let known = self.active.keys().chain(&self.restoring).chain(&self.alone);
        let known: Vec<Uuid> = known.map(|show| show.0).collect();
        let client = self.means.pool.get().await?;
        let (mut after, mut found) = (Uuid::nil(), 0);
        while found < PAGE {
            let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                [&after, &incarnation.cast_signed(), &i64::MAX, &known, &PAGE];
            let rows = client.query(select, &params).await?;
            let Some(last) = rows.last() else { break };
            after = last.get(0);
            let shows = rows.iter().map(|row| ShowId(row.get(0)));
            for show in shows.filter(|show| self.means.store.standing(*show).member) {
                self.means.store.wanted().add(show);
                found += 1;
            }
        }
        Ok(())
    }

    /// As many as there is room for; their records are asked for all at once.
    async fn begin(&mut self) {
        let mut shows = Vec::new();
        while self.active.len() + self.restoring.len() + shows.len() < AT_ONCE
            && let Some(show) = self.means.store.wanted().take()
        {
            // Those that are alone are taken up again by the sweep.
            let is_under_way = self.active.contains_key(&show) || self.restoring.contains(&show);
            if !is_under_way && !self.alone.contains(&show) {
                shows.push(show);
            }
        }
        let known = shows.iter().map(|show| self.known(*show));
        for (show, known) in shows.iter().zip(futures::future::join_all(known).await) {
            let started = match known {
                Ok(Some(known)) => self.start(*show, known).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = started {
                // The next sweep, or the next request, brings it again.
                tracing::warn!(%show, error = %format!("{error:#}"), "cannot begin to recover");
            }
        }
    }

    /// What a recovery begins with; none where there is nothing to recover.
    async fn known(&self, show: ShowId) -> anyhow::Result<Option<Known>> {
        let incarnation = self.means.records.incarnation();
        let Some(term) = self.means.records.term(show).await? else { return Ok(None) };
        let mut own = self.means.store.head(show).await?.unwrap_or_else(|| Head::empty(0));
        if own.incarnation < self.means.store.standing(show).disowned {
            // Nothing that it took for committed need be so.
            own.committed = 0;
        }
        let is_whole = own.incarnation >= incarnation || own.promised == Ballot::ARCHIVED;
        Ok((!is_whole).then_some(Known { incarnation, term, own }))
    }

    async fn start(&mut self, show: ShowId, known: Known) -> anyhow::Result<()> {
        let Known { incarnation, term, own } = known;
        let (epoch, last) = (term.ballot.epoch, own.last.clone());
        match Recovery::start(Strict, term, own) {
            Ok((recovery, effects)) => {
                self.active.insert(show, Active { recovery, since: Instant::now() });
                self.carry_out(show, effects).await;
            }
            Err(Alone) if is_accepted(&self.means.pool, incarnation).await? => {
                let ballot = Ballot { epoch, session: 0, attempt: 0 }.max(last.ballot);
                let append = Append::nothing(ballot, last);
                self.carry_out(show, vec![RecoveryEffect::Restore(Restore { append, incarnation })]).await;
            }
            Err(Alone) => {
                if self.alone.insert(show) {
                    tracing::error!(%show, "nobody can tell what the store lost of this show: it stays read-only");
                }
            }
        }
        Ok(())
    }

    async fn answered(&mut self, from: &RegionName, show: ShowId, reply: Reply) {
        let Some(active) = self.active.get_mut(&show) else { return };
        let effects = active.recovery.answered(from, reply);
        self.carry_out(show, effects).await;
    }

    async fn repeat(&mut self) {
        self.links.retain(|_, link| !link.is_closed());
        let shows: Vec<ShowId> = self.active.keys().copied().collect();
        for show in shows {
            let Some(active) = self.active.get(&show) else { continue };
            if active.since.elapsed() > PATIENCE {
                self.active.remove(&show);
                self.means.store.wanted().add(show);
                continue;
            }
            let effects = active.recovery.nudge();
            self.carry_out(show, effects).await;
        }
    }

    async fn carry_out(&mut self, show: ShowId, effects: Vec<RecoveryEffect<Regional>>) {
        for effect in effects {
            match effect {
                RecoveryEffect::Send { to, request } => self.send(&to, show, request),
                // With the next repeat.
                RecoveryEffect::Again => {}
                // Beside the others, so that many go into one transaction.
                RecoveryEffect::Restore(restore) => {
                    let (store, restored) = (self.means.store.clone(), self.restored.clone());
                    self.active.remove(&show);
                    self.restoring.insert(show);
                    tokio::spawn(async move {
                        let told = store.restore(show, restore).await;
                        let _ = restored.send((show, told.map(|told| told.reply.answer))).await;
                    });
                    return;
                }
            }
        }
    }

    fn restored(&mut self, show: ShowId, answer: Option<Answer>) {
        self.restoring.remove(&show);
        match answer {
            Some(Answer::Appended { upto, .. }) => tracing::info!(%show, upto, "a replica is whole again"),
            other => {
                tracing::warn!(%show, ?other, "a replica did not take what was reported");
                self.means.store.wanted().add(show);
            }
        }
    }

    /// What finds no room is said again later.
    fn send(&mut self, to: &RegionName, show: ShowId, request: Request) {
        let link = self.links.entry(to.clone()).or_insert_with(|| {
            let (sender, waiting) = mpsc::channel(2 * AT_ONCE);
            let hello = Hello {
                from: self.means.region.clone(),
                to: to.clone(),
                session: self.means.session.no().unwrap_or(0),
                heard: None,
            };
            let urls = self.means.records.processes(to);
            let (tls, heard, stop) = (self.means.tls.clone(), self.heard.clone(), self.means.stop.clone());
            tokio::spawn(keep(urls, tls, hello, waiting, heard, stop));
            sender
        });
        let _ = link.try_send((show, request));
    }
}

/// One link until it breaks; the next thing to send makes another.
async fn keep(
    urls: Vec<String>,
    tls: Tls,
    hello: Hello,
    mut waiting: mpsc::Receiver<(ShowId, Request)>,
    heard: mpsc::Sender<Heard>,
    stop: CancellationToken,
) {
    for url in urls {
        let opened = link::open(&tls, &url, hello.clone()).await;
        let exchanged = match opened {
            Ok((sending, receiving)) => exchange(sending, receiving, &mut waiting, &heard, &stop).await,
            Err(error) => Err(error),
        };
        match exchanged {
            Ok(()) => return,
            Err(error) => tracing::debug!(url, error = %format!("{error:#}"), "no link to a region"),
        }
    }
}

async fn exchange(
    sending: Sending,
    mut receiving: link::Receiving,
    waiting: &mut mpsc::Receiver<(ShowId, Request)>,
    heard: &mpsc::Sender<Heard>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut requests = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            count = waiting.recv_many(&mut requests, AT_ONCE) => {
                if count == 0 {
                    return Ok(());
                }
                sending.send(std::mem::take(&mut requests)).await?;
            }
            answers = receiving.next() => {
                for (show, reply) in answers? {
                    heard.send((receiving.from.clone(), show, reply)).await?;
                }
            }
        }
    }
}
