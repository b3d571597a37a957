//! Hosts: one task a show that this region owns. It takes commands from a bounded mailbox, decides all that
//! wait at once against the state in memory, and hands one batch to the journal: a hundred buyers of a hot
//! show cost one commit.
//!
//! Invariants: nothing is answered, shown or projected before its entry is committed, by a majority of the
//! show's regions; what a refusal rests on is committed too, and surely not replaced since ([`Proof`]).

mod clock;
mod decided;
mod folded;
mod lead;
mod proof;
mod refused;
mod task;
mod tenure;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use common::{Problem, RegionName, ShowId};
use http::StatusCode;
use raft::client::{RegistryClient, RegistryView};
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use watch::Laggards;

use folded::Folded;

pub use proof::Proof;

use crate::app::not_owner;
use crate::journal::{Attempts, Journal, Writer};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::projection::Nudge;
use crate::relay::Relay;
use crate::replicas::ReplicaStore;
use crate::replicas::peers::Peers;
use crate::session::Session;
use crate::show::{Asked, Group, Refusal, Show};

/// How often the own store is looked at for an entry that is on its way to it.
const ARRIVAL: Duration = Duration::from_millis(5);

/// A full mailbox answers "busy" instead of waiting for ever.
const MAILBOX: usize = 4_096;

/// Longer than any batch takes; past it the outcome is unknown to the asker.
const ANSWER_DEADLINE: Duration = Duration::from_secs(8);

/// What hosts need of their process.
pub struct Means {
    pub region: RegionName,
    /// This process's life, as the registry numbered it.
    pub session: Session,
    pub journal: Journal,
    pub writer: Writer,
    /// The same journals, by the replica's rules.
    pub store: ReplicaStore,
    pub peers: Peers,
    pub registry: RegistryClient,
    pub view: RegistryView,
    pub projector: Nudge,
    pub attempts: Attempts,
    pub metrics: Metrics,
    pub relay: Relay,
}

#[derive(Clone)]
pub struct Hosts(Arc<Inner>);

struct Inner {
    means: Means,
    active: Mutex<HashMap<ShowId, Arc<OnceCell<Host>>>>,
    laggards: Mutex<Laggards>,
    folded: Folded,
    /// Shows wait to be led so that other regions follow.
    catching_up: AtomicBool,
}

/// A show that is led here.
#[derive(Clone)]
pub struct Host {
    pub epoch: u64,
    mailbox: mpsc::Sender<Message>,
    committed: Arc<RwLock<Show>>,
    /// Somebody wanted it, beside those who only bring journals up to date.
    asked_for: Arc<AtomicBool>,
    proof: Arc<Proof>,
    /// What readers and watchers of the seat map are told.
    pub live: Arc<Live>,
}

struct Message {
    asked: Arc<Asked>,
    answer: oneshot::Sender<Result<Replayable, HostError>>,
}

impl Message {
    /// It was not decided, so nothing was done.
    fn stopped(self) {
        let _ = self.answer.send(Err(HostError::Stopped));
    }
}

/// What a show answered; everything in it is committed.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Done now, or before under the same key (`repeated`).
    Done { group: Arc<Group>, repeated: bool },
    /// It was so already.
    Already,
    /// `repeated`: it was refused before under the same key.
    Refused { refusal: Refusal, repeated: bool },
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum HostError {
    #[error("{owner} owns the show in epoch {epoch}")]
    NotOwner { owner: RegionName, epoch: u64 },
    #[error("there is no such show")]
    NoShow,
    #[error("the show is archived")]
    Archived,
    #[error("the show's mailbox is full")]
    Busy,
    /// Nothing was done.
    #[error("not possible now: {0}")]
    Unavailable(String),
    #[error("the outcome is not known")]
    OutcomeUnknown,
    #[error("{0}")]
    Broken(String),
    /// The host ended before it took the command; ask again.
    #[error("the host stopped")]
    Stopped,
}

impl From<HostError> for Problem {
    fn from(error: HostError) -> Self {
        match error {
            HostError::NotOwner { owner, epoch } => not_owner(&owner, epoch),
            HostError::NoShow => Self::not_found("show"),
            HostError::Archived => {
                Self::new(StatusCode::GONE, "show-archived", "the show is over and its records are archived")
            }
            HostError::Busy => Self::unavailable("show-busy", "too many requests wait for this show", 1),
            HostError::Unavailable(why) => {
                tracing::warn!(why, "show unavailable");
                Self::unavailable("show-unavailable", "this show cannot be changed at the moment", 1)
            }
            HostError::Stopped => Self::unavailable("show-unavailable", "this show is changing hands", 1),
            HostError::OutcomeUnknown => Self::outcome_unknown(),
            HostError::Broken(why) => Self::internal(why),
        }
    }
}

impl Hosts {
    pub fn new(means: Means) -> Self {
        let (active, laggards, folded) = (Mutex::default(), Mutex::default(), Folded::default());
        Self(Arc::new(Inner { means, active, laggards, folded, catching_up: AtomicBool::new(false) }))
    }

    /// Follows the registry until `stop`: what is led here, and what is to be.
    pub fn follow_registry(&self, stop: &CancellationToken) {
        tokio::spawn(watch::tell_news(self.clone(), stop.clone()));
        tokio::spawn(watch::take_over(self.clone(), stop.clone()));
    }

    /// The host of a show, leading it first where nobody here does.
    pub async fn get(&self, show: ShowId) -> Result<Host, HostError> {
        let host = self.led(show, None).await?;
        host.asked_for.store(true, Ordering::Relaxed);
        Ok(host)
    }

    /// Leads a show that nobody asks for: it leaves memory soon after the other regions have followed.
    async fn lead_quietly(&self, show: ShowId) -> Result<(), HostError> {
        let host = self.led(show, None).await?;
        let newest = self.0.means.view.show(show).map_or(0, |record| record.epoch);
        if host.epoch < newest {
            // It has not heard yet that its reign is over: what is to be led comes after it.
            return Err(HostError::Unavailable("another epoch begins".into()));
        }
        Ok(())
    }

    /// The seat map of a show that is led here already.
    pub fn live(&self, show: ShowId) -> Option<Arc<Live>> {
        self.active().get(&show).and_then(|slot| slot.get().map(|host| host.live.clone()))
    }

    /// Lets go of a show that another process leads, as this one need not find out by its next command.
    pub fn stand_down(&self, live: &Arc<Live>) {
        let mut active = self.active();
        let same = |slot: &Arc<OnceCell<Host>>| slot.get().is_some_and(|host| Arc::ptr_eq(&host.live, live));
        if active.get(&live.show).is_some_and(same) {
            active.remove(&live.show);
        }
        drop(active);
        live.end();
    }

    /// A new show, its first entry committed. The registry must know it already.
    pub async fn create(&self, show: ShowId, group: Group) -> Result<Host, HostError> {
        let host = self.led(show, Some(group)).await?;
        host.asked_for.store(true, Ordering::Relaxed);
        Ok(host)
    }

    async fn led(&self, show: ShowId, first: Option<Group>) -> Result<Host, HostError> {
        let slot = self.active().entry(show).or_default().clone();
        let host = slot.get_or_try_init(|| lead::lead(self, show, first)).await.cloned();
        if host.is_err() {
            self.forget(show, &slot);
        }
        host
    }

    /// Asks a show for something. What surely did not happen is tried again a few times.
    pub async fn ask(&self, show: ShowId, asked: Asked) -> Result<(Host, Answer), HostError> {
        let asked = Arc::new(asked);
        for _ in 0..3 {
            let host = self.get(show).await?;
            match host.ask(asked.clone()).await {
                Err(HostError::Stopped) => {}
                answer => return Ok((host, self.first_answer(show, answer?).await?)),
            }
        }
        Err(HostError::Unavailable("the show is changing hands".into()))
    }

    /// Where the answer only tells that it was done before, what was done then.
    async fn first_answer(&self, show: ShowId, answer: Replayable) -> Result<Answer, HostError> {
        let (seq, index) = match answer {
            Replayable::Fresh(answer) => return Ok(answer),
            Replayable::Before { seq, index } => (seq, index),
        };
        self.arrived(show, seq).await?;
        let entry = self.0.means.journal.entry(show, seq).await.map_err(lead::unreadable)?;
        let group = entry.groups.into_iter().nth(index as usize);
        let group =
            group.ok_or_else(|| HostError::Broken(format!("{show}: no group {index} in entry {seq}")))?;
        Ok(Answer::Done { group: Arc::new(group), repeated: true })
    }

    /// Waits until the own store has an entry: the others may have made it a majority's before.
    async fn arrived(&self, show: ShowId, seq: u64) -> Result<(), HostError> {
        let deadline = tokio::time::Instant::now() + ANSWER_DEADLINE;
        while self.0.means.journal.last(show).await.map_err(lead::unreadable)? < seq {
            if tokio::time::Instant::now() > deadline {
                return Err(HostError::OutcomeUnknown);
            }
            tokio::time::sleep(ARRIVAL).await;
        }
        Ok(())
    }

    /// The state of a show that is led here already; the projector reads it instead of the journal.
    pub fn peek(&self, show: ShowId) -> Option<Host> {
        self.active().get(&show).and_then(|slot| slot.get().cloned())
    }

    /// The seat maps of all shows that are led here.
    pub fn lives(&self) -> Vec<Arc<Live>> {
        self.active().values().filter_map(|slot| slot.get().map(|host| host.live.clone())).collect()
    }

    /// Lets go of every show; their tasks end once nobody holds a handle any more.
    pub fn retire(&self) {
        self.active().clear();
    }

    /// The registry has ended the session under which shows are led here: none is any more.
    pub async fn session_ended(&self) {
        self.retire();
        while self.0.means.peers.session_gone() {
            // Somebody's inbox was full.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A show leaves memory while these regions lack entries of it.
    fn left_behind(&self, show: ShowId, regions: impl IntoIterator<Item = RegionName>) {
        let mut laggards = self.0.laggards.lock().expect("no code panics while holding it");
        regions.into_iter().for_each(|region| laggards.note(&region, show));
    }

    /// A region was found to lack entries of these shows.
    pub fn lacked(&self, region: &RegionName, shows: Vec<ShowId>) {
        if !shows.is_empty() {
            shows.into_iter().for_each(|show| self.left_behind(show, [region.clone()]));
            self.0.means.peers.connect(region);
        }
    }

    /// Whether shows are still to be led so that other regions follow.
    pub fn is_catching_up(&self) -> bool {
        self.0.catching_up.load(Ordering::Relaxed)
    }

    pub fn is_reachable(&self, region: &RegionName) -> bool {
        self.0.means.peers.is_reachable(region)
    }

    /// Shows of which a region that can be reached again lacks entries, each told once.
    fn reachable_laggards(&self) -> Vec<ShowId> {
        let mut laggards = self.0.laggards.lock().expect("no code panics while holding it");
        laggards.take(|region| self.0.means.peers.is_reachable(region))
    }

    /// Waits until a region can be reached again.
    async fn lagged(&self) {
        self.0.means.peers.reached_one().await;
    }

    fn active(&self) -> std::sync::MutexGuard<'_, HashMap<ShowId, Arc<OnceCell<Host>>>> {
        self.0.active.lock().expect("no code panics while holding it")
    }

    /// Lets go of a slot, unless another has taken its place.
    fn forget(&self, show: ShowId, slot: &Arc<OnceCell<Host>>) {
        let mut active = self.active();
        if active.get(&show).is_some_and(|present| Arc::ptr_eq(present, slot)) {
            active.remove(&show);
        }
    }

    fn forget_host(&self, show: ShowId, mailbox: &mpsc::WeakSender<Message>) {
        let mut active = self.active();
        let same = |slot: &Arc<OnceCell<Host>>| {
            let (Some(host), Some(mine)) = (slot.get(), mailbox.upgrade()) else { return false };
            host.mailbox.same_channel(&mine)
        };
        if active.get(&show).is_some_and(same) {
            active.remove(&show);
        }
        drop(active);
    }
}

/// A committed answer, or the place in the journal where it stands.
enum Replayable {
    Fresh(Answer),
    Before { seq: u64, index: u32 },
}

impl Host {
    async fn ask(&self, asked: Arc<Asked>) -> Result<Replayable, HostError> {
        let (answer, result) = oneshot::channel();
        self.mailbox.try_send(Message { asked, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => HostError::Busy,
            mpsc::error::TrySendError::Closed(_) => HostError::Stopped,
        })?;
        match tokio::time::timeout(ANSWER_DEADLINE, result).await {
            Ok(Ok(answer)) => answer,
            // The task dropped the message without deciding it, or ended after: only it could know.
            Ok(Err(_)) | Err(_) => Err(HostError::OutcomeUnknown),
        }
    }

    /// Whether what is read here is surely not older than the lease.
    pub fn is_current(&self) -> bool {
        self.proof.holds_lease()
    }

    /// Waits until it is proven that what was read here before was the latest.
    pub async fn was_current(&self) -> Result<(), HostError> {
        self.proof.now().await
    }

    /// `no`, which what was read here led to; or that nobody can tell now, as another may lead.
    pub async fn unless_deposed(&self, no: impl Into<Problem>) -> Problem {
        match self.was_current().await {
            Ok(()) => no.into(),
            Err(why) => why.into(),
        }
    }

    /// Looks at the committed state. Short: the host waits meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Show) -> T) -> T {
        look(&self.committed.read().expect("never poisoned"))
    }
}
