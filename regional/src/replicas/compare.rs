//! Owners compare the shows that they own with what the other regions hold, many at once, without leading them:
//! so what a region lacks is found however long it was away and whoever was restarted meanwhile. What is found is
//! led in the background, which brings it there; the region that lacks it hears of it ([`CaughtUp`]).
//!
//! Invariant: nothing is copied here. A journal is brought up to date by a leader's Append alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use common::tls::{Tls, endpoint, names};
use common::{RegionName, ShowId};
use deadpool_postgres::Pool;
use raft::client::{RegionState, RegistryView};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::caught_up::CaughtUp;
use super::metrics::ReplicaMetrics;
use super::proto;
use super::proto::replication_client::ReplicationClient;
use super::wire::Hello;
use crate::host::Hosts;
use crate::session::Session;

/// Shows in one message.
const PAGE: usize = 1_000;
/// Between two looks at who is to be compared with.
const LOOK: Duration = Duration::from_millis(500);
/// Before what was lacking, or a region that is not up, is compared again; longer where that takes long.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_FACTOR: u32 = 8;
const CONNECT: Duration = Duration::from_secs(2);
/// What was found before is waited for no longer.
const LONGEST: Duration = Duration::from_secs(30);
/// Without a word for so long it has failed.
const SILENCE: Duration = Duration::from_secs(10);
/// How many entries may be under way to a region that follows a show that is led.
const UNDER_WAY: i64 = 256;

/// What is known here of the shows asked for; not of archived ones, which nobody leads.
const HELD: &str = "
SELECT show_id, seq, hash, committed FROM show_head
 WHERE show_id = ANY ($1) AND seq > 0 AND promised_epoch < $2";

/// Which of these heads are not held here. A show that is led is being brought here; it is far enough when no more
/// is missing than may be under way.
const LACKED: &str = "
SELECT p.id FROM unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::bigint[], $5::boolean[])
                   AS p (id, seq, hash, committed, led)
  LEFT JOIN show_head h ON h.show_id = p.id
  LEFT JOIN show_journal j ON j.show_id = p.id AND j.seq = p.seq
 WHERE coalesce(h.promised_epoch, 0) < $6
   AND CASE WHEN p.led THEN coalesce(h.seq, 0) + $7 < p.committed
            ELSE j.hash IS DISTINCT FROM p.hash OR h.seq <> p.seq OR h.committed < p.committed END";

/// A process to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub region: RegionName,
    /// The process's life: another one may have been lost for long.
    pub session: u64,
    pub url: String,
    /// By the registry: it does not wait to be told that it lacks nothing.
    pub is_up: bool,
}

pub type Targets = Arc<dyn Fn() -> Vec<Target> + Send + Sync>;

/// What comparing needs of its process.
pub struct Means {
    pub region: RegionName,
    pub session: Session,
    pub pool: Pool,
    pub view: RegistryView,
    pub hosts: Hosts,
    pub targets: Targets,
    pub tls: Tls,
    pub stop: CancellationToken,
}

/// By the registry: all other regions' processes, where this is the first process of its own.
pub fn by_registry(own: RegionName, session: Session, view: RegistryView) -> Targets {
    Arc::new(move || {
        if !session.is_first(&view, &own) {
            return Vec::new();
        }
        let sessions = view.sessions();
        let up: Vec<RegionName> =
            view.regions().into_iter().filter(|r| r.state != RegionState::Down).map(|r| r.name).collect();
        let others = sessions.into_iter().filter(|s| s.region != own && !s.grpc_url.is_empty());
        let target = |s: raft::client::SessionRecord| {
            let is_up = up.contains(&s.region);
            Target { is_up, region: s.region, session: s.no, url: s.grpc_url }
        };
        others.map(target).collect()
    })
}

/// What the last comparison with a process came to. Pure.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// When it ended, and how long it took; none before the first.
    ended: Option<(Instant, Duration)>,
    /// Something was lacking, or it failed.
    is_open: bool,
    was_reachable: bool,
}

impl Known {
    fn is_due(&mut self, now: Instant, is_up: bool, is_reachable: bool) -> bool {
        let came_back = !std::mem::replace(&mut self.was_reachable, is_reachable) && is_reachable;
        let Some((ended, took)) = self.ended else { return true };
        let waited = now.duration_since(ended) >= AGAIN.max(took * AGAIN_FACTOR);
        came_back || waited && (self.is_open || !is_up)
    }
}

/// Runs until `stop`.
pub async fn run(means: Means) {
    let mut known: BTreeMap<u64, Known> = BTreeMap::new();
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = means.stop.cancelled() => return,
            () = sleep(LOOK) => {}
        }
        let targets = (means.targets)();
        known.retain(|session, _| targets.iter().any(|target| target.session == *session));
        let now = Instant::now();
        // What was found is on its way there; some of it may have to wait for regions that are lost.
        if means.hosts.is_catching_up() && now.duration_since(last) < LONGEST {
            continue;
        }
        last = now;
        let due = targets.into_iter().filter(|target| {
            let is_reachable = means.hosts.is_reachable(&target.region);
            known.entry(target.session).or_default().is_due(now, target.is_up, is_reachable)
        });
        let due: Vec<Target> = due.collect();
        let compared = futures::future::join_all(due.iter().map(|target| compare(&means, target))).await;
        for (target, compared) in due.iter().zip(compared) {
            if let Err(error) = &compared {
                tracing::debug!(to = %target.region, error = %format!("{error:#}"), "not compared yet");
            }
            let known = known.entry(target.session).or_default();
            known.ended = Some((Instant::now(), now.elapsed()));
            known.is_open = !matches!(compared, Ok(0));
        }
    }
}

/// Tells a process what is held here of the shows that both regions keep; how many it lacks.
async fn compare(means: &Means, target: &Target) -> anyhow::Result<usize> {
    let connector = means.tls.connector(&names::regional(&target.region));
    let channel = endpoint(&target.url)?.connect_timeout(CONNECT).connect_with_connector(connector).await?;
    let mut client = ReplicationClient::new(channel);
    let (heads, stream) = mpsc::channel(1);
    let session = means.session.no().context("no session")?;
    let hello = Hello { from: means.region.clone(), to: target.region.clone(), session, heard: None };
    heads.send(proto::Heads { hello: Some(hello.into()), heads: Vec::new() }).await?;
    let answers = timeout(SILENCE, client.compare(ReceiverStream::new(stream)));
    let mut answers = answers.await??.into_inner();
    let mut lacking = 0;
    for page in shared_with(means, &target.region).chunks(PAGE) {
        heads.send(proto::Heads { hello: None, heads: held(means, page).await? }).await?;
        let answer = timeout(SILENCE, answers.message()).await??.context("it ended early")?;
        let shows: Vec<ShowId> =
            answer.show_ids.iter().filter_map(|id| Some(ShowId(Uuid::from_slice(id).ok()?))).collect();
        lacking += shows.len();
        means.hosts.lacked(&target.region, shows);
    }
    drop(heads);
    // That it has taken notice of the end.
    anyhow::ensure!(timeout(SILENCE, answers.message()).await??.is_none(), "an answer to nothing");
    if lacking > 0 {
        tracing::info!(region = %target.region, shows = lacking, "a region lacks something");
    }
    Ok(lacking)
}

/// The shows that this region owns and the other one keeps too.
fn shared_with(means: &Means, region: &RegionName) -> Vec<ShowId> {
    let owned = means.view.owned_by(&means.region).into_iter().map(|(show, _)| show);
    let is_kept = |show: &ShowId| means.view.show(*show).is_some_and(|r| r.replicas.contains(region));
    owned.filter(is_kept).collect()
}

async fn held(means: &Means, shows: &[ShowId]) -> anyhow::Result<Vec<proto::HeldHead>> {
    let ids: Vec<Uuid> = shows.iter().map(|show| show.0).collect();
    let client = means.pool.get().await?;
    let rows = client.query(&client.prepare_cached(HELD).await?, &[&ids, &i64::MAX]).await?;
    let head = |row: &tokio_postgres::Row| {
        let show: Uuid = row.get("show_id");
        proto::HeldHead {
            show_id: Bytes::copy_from_slice(show.as_bytes()),
            seq: row.get::<_, i64>("seq").unsigned_abs(),
            hash: Bytes::copy_from_slice(row.get("hash")),
            committed: row.get::<_, i64>("committed").unsigned_abs(),
            led: means.hosts.peek(ShowId(show)).is_some(),
        }
    };
    Ok(rows.iter().map(head).collect())
}

/// The hearer's side of one comparison.
pub struct Comparison {
    pub by: RegionName,
    pub pool: Pool,
    pub caught_up: CaughtUp,
    pub metrics: ReplicaMetrics,
}

impl Comparison {
    /// Answers each page with what is lacking; notes the sum at the end of all.
    pub async fn run(
        self,
        heads: Streaming<proto::Heads>,
        answers: mpsc::Sender<Result<proto::Lacking, Status>>,
    ) {
        let begun = self.caught_up.begin();
        match self.answer(heads, &answers).await {
            Ok(lacking) => {
                self.metrics.behind(self.by.as_str(), lacking);
                self.caught_up.compared(&self.by, begun, lacking);
            }
            Err(status) => {
                tracing::debug!(by = %self.by, %status, "a comparison broke off");
                let _ = answers.send(Err(status)).await;
            }
        }
    }

    async fn answer(
        &self,
        mut heads: Streaming<proto::Heads>,
        answers: &mpsc::Sender<Result<proto::Lacking, Status>>,
    ) -> Result<usize, Status> {
        let mut lacking = 0;
        while let Some(page) = heads.message().await? {
            if page.hello.is_some() || page.heads.len() > PAGE {
                return Err(Status::invalid_argument("too much in one message"));
            }
            let lacked = lacked(&self.pool, page.heads).await;
            let show_ids = lacked.map_err(|error| Status::unavailable(format!("{error:#}")))?;
            lacking += show_ids.len();
            let answer = proto::Lacking { show_ids };
            answers.send(Ok(answer)).await.map_err(|_| Status::cancelled("the peer reads no more"))?;
        }
        Ok(lacking)
    }
}

async fn lacked(pool: &Pool, heads: Vec<proto::HeldHead>) -> anyhow::Result<Vec<Bytes>> {
    let ids: Vec<Uuid> =
        heads.iter().map(|head| Uuid::from_slice(&head.show_id)).collect::<Result<_, _>>()?;
    let seqs: Vec<i64> = heads.iter().map(|head| i64::try_from(head.seq)).collect::<Result<_, _>>()?;
    let committed: Vec<i64> =
        heads.iter().map(|head| i64::try_from(head.committed)).collect::<Result<_, _>>()?;
    let hashes: Vec<&[u8]> = heads.iter().map(|head| &head.hash[..]).collect();
    let led: Vec<bool> = heads.iter().map(|head| head.led).collect();
    let client = pool.get().await?;
    let statement = client.prepare_cached(LACKED).await?;
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [&ids, &seqs, &hashes, &committed, &led, &i64::MAX, &UNDER_WAY];
    let rows = client.query(&statement, &params).await?;
    Ok(rows.iter().map(|row| Bytes::copy_from_slice(row.get::<_, Uuid>(0).as_bytes())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_compared_first_after_a_break_and_until_nothing_is_lacking_and_it_is_up() {
        let (mut known, now) = (Known::default(), Instant::now());
        assert!(known.is_due(now, true, true));
        known.ended = Some((now, Duration::ZERO));
        assert!(!known.is_due(now + 100 * AGAIN, true, true), "nothing was lacking");
        assert!(!known.is_due(now, false, true));
        assert!(known.is_due(now + AGAIN, false, true), "it waits to be told so");
        known.is_open = true;
        assert!(known.is_due(now + AGAIN, true, true));
        known.ended = Some((now, AGAIN));
        assert!(!known.is_due(now + AGAIN, true, true), "it took long");
        assert!(known.is_due(now + AGAIN * AGAIN_FACTOR, true, true));
        known.is_open = false;
        assert!(!known.is_due(now, true, false) && known.is_due(now, true, true), "the way is open again");
    }
}
