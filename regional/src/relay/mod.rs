//! Seat maps in the processes of a region that do not lead the show: Redis carries the leader's committed
//! changes to them, so that a read or a watcher does not take the lead away.
//!
//! Each leader renews a claim in Redis for each of its shows and publishes what it committed on the channel
//! of the same name. A process that finds another's claim follows: it folds the journal, applies what it
//! hears, and reads the journal again where something is missing.
//!
//! Invariants: only committed changes are shown, whatever Redis does; claims and messages only decide who
//! reads from where. Who may write is the journal's business ([`crate::journal`]).

mod copy;
mod leader;
mod listen;
mod message;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::{RegionName, ShowId};
use raft::client::RegistryView;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::host::Hosts;
use crate::journal::{Ballot, Journal};
use crate::live::{Delta, Live};
use crate::metrics::Metrics;
use crate::session::Session;
use copy::{Copy, Heard};
use message::Message;

/// A Redis that takes longer is treated as gone.
const PATIENCE: Duration = Duration::from_millis(250);
/// Messages that wait to be published; beyond, they are left out, and followers read the journal instead.
const OUTBOX: usize = 4_096;

/// Where a leader asks whether anybody follows; all processes of the region listen.
const HELLO: &str = "marquee:seats:hello";

/// The name of a show's claim, and of its channel.
fn name_of(show: ShowId) -> String {
    format!("marquee:seats:{show}")
}

#[derive(Clone)]
pub struct Relay(Option<Arc<Inner>>);

struct Inner {
    means: Means,
    client: redis::Client,
    connection: ConnectionManager,
    outbox: mpsc::Sender<(ShowId, Message)>,
    orders: mpsc::UnboundedSender<Order>,
    /// Shows that somebody began to follow; for [`Relay::serve`].
    greeted: mpsc::UnboundedSender<ShowId>,
    greetings: Mutex<Option<mpsc::UnboundedReceiver<ShowId>>>,
    /// Whether the listening connection stands.
    listening: AtomicBool,
    copies: Mutex<HashMap<ShowId, Arc<Slot>>>,
}

/// What the relay needs of its process.
pub struct Means {
    pub region: RegionName,
    pub session: Session,
    pub journal: Journal,
    pub view: RegistryView,
    pub metrics: Metrics,
}

#[derive(Default)]
struct Slot {
    copy: OnceCell<Copy>,
    /// Somebody read it since the last look.
    used: AtomicBool,
}

/// To the listening connection.
enum Order {
    Subscribe(ShowId, mpsc::Sender<Heard>, oneshot::Sender<()>),
    Unsubscribe(ShowId),
}

/// A leader's way to those who follow; nothing is sent while nobody does.
#[derive(Clone, Default)]
pub struct Publisher(Option<Arc<Publishing>>);

struct Publishing {
    show: ShowId,
    ballot: Ballot,
    wanted: AtomicBool,
    outbox: mpsc::Sender<(ShowId, Message)>,
    metrics: Metrics,
}

impl Publisher {
    /// Whether another process follows, as far as is known.
    pub fn is_wanted(&self) -> bool {
        self.0.as_ref().is_some_and(|publishing| publishing.wanted.load(Ordering::Relaxed))
    }

    fn want(&self, wanted: bool) {
        if let Some(publishing) = &self.0 {
            publishing.wanted.store(wanted, Ordering::Relaxed);
        }
    }

    fn ballot(&self) -> Option<Ballot> {
        self.0.as_ref().map(|publishing| publishing.ballot)
    }

    pub fn publish(&self, delta: &Delta) {
        let Some(publishing) = self.0.as_ref().filter(|p| p.wanted.load(Ordering::Relaxed)) else { return };
        let sent = publishing.outbox.try_send((publishing.show, Message::Delta(delta.clone())));
        if sent.is_err() {
            publishing.metrics.relay.dropped.inc();
        }
    }
}

impl Relay {
    /// Without Redis: every read is answered by who leads, as it becomes.
    pub fn none() -> Self {
        Self(None)
    }

    /// Starts following and publishing through the Redis at `url`; needs a runtime. The hosts whose shows
    /// are published come with [`Self::serve`].
    pub fn start(url: &str, means: Means, stop: &CancellationToken) -> Self {
        Self::try_start(url, means, stop).unwrap_or_else(|error| {
            // The configuration was checked at boot.
            tracing::error!(%error, "seat maps are not carried between processes");
            Self::none()
        })
    }

    fn try_start(url: &str, means: Means, stop: &CancellationToken) -> redis::RedisResult<Self> {
        let client = redis::Client::open(url)?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(100))
            .set_connection_timeout(Some(Duration::from_millis(500)))
            .set_response_timeout(Some(PATIENCE));
        let connection = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let (orders, ordered) = mpsc::unbounded_channel();
        let (greeted, greetings) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            means,
            client,
            connection,
            outbox,
            orders,
            greeted,
            greetings: Mutex::new(Some(greetings)),
            listening: AtomicBool::new(false),
            copies: Mutex::default(),
        });
        tokio::spawn(leader::send(inner.connection.clone(), messages, inner.means.metrics.clone()));
        let relay = Self(Some(inner.clone()));
        tokio::spawn({
            let (stop, inner) = (stop.clone(), inner.clone());
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = listen::listen(&inner, ordered) => {}
                }
            }
        });
        Ok(relay)
    }

    /// Claims the shows that `hosts` lead, and tells of them, until `stop`.
    pub fn serve(&self, hosts: Hosts, stop: CancellationToken) {
        let Some(inner) = self.0.clone() else { return };
        let greetings = inner.greetings.lock().expect("no code panics while holding it").take();
        let Some(greetings) = greetings else { return };
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = leader::claim(&inner, &hosts, greetings) => {}
            }
        });
    }

    /// For a show that this process begins to lead.
    pub fn publisher(&self, show: ShowId, ballot: Ballot) -> Publisher {
        Publisher(self.0.as_ref().map(|inner| {
            Arc::new(Publishing {
                show,
                ballot,
                // Until the first claim tells: whoever follows the leader before must not miss the change.
                wanted: AtomicBool::new(true),
                outbox: inner.outbox.clone(),
                metrics: inner.means.metrics.clone(),
            })
        }))
    }

    /// The seat map of a show that another process of this region leads. None: nobody else does, or it
    /// cannot be told; then the asker leads.
    pub async fn follow(&self, show: ShowId) -> Option<Arc<Live>> {
        let inner = self.0.as_ref()?;
        let slot = inner.copies().get(&show).cloned();
        if let Some(slot) = slot
            && let Some(copy) = slot.copy.get()
        {
            slot.used.store(true, Ordering::Relaxed);
            return Some(copy.live.clone());
        }
        let here = inner.means.view.show(show).is_none_or(|record| record.owner == inner.means.region);
        if !here {
            return None;
        }
        let (leader, away) = match inner.claim(show).await {
            Ok(claim) => (claim?, false),
            Err(()) => {
                inner.means.metrics.relay.fallback.inc();
                (inner.promised(show, true).await?, true)
            }
        };
        inner.begin(show, leader, away).await
    }

    /// The same for a show that cannot be led here, since a later ballot was promised: from the journal
    /// alone, where Redis does not tell.
    pub async fn follow_journal(&self, show: ShowId) -> Option<Arc<Live>> {
        let inner = self.0.as_ref()?;
        let leader = inner.promised(show, false).await?;
        inner.begin(show, leader, true).await
    }

    /// Brings the copy of a show, if there is one, up to what is committed now.
    pub async fn refresh(&self, show: ShowId) {
        let Some(inner) = &self.0 else { return };
        let slot = inner.copies().get(&show).cloned();
        if let Some(copy) = slot.as_ref().and_then(|slot| slot.copy.get()) {
            copy.refresh().await;
        }
    }

    /// Ends the streams of all that is followed.
    pub fn end(&self) {
        let Some(inner) = &self.0 else { return };
        for slot in inner.copies().values() {
            if let Some(copy) = slot.copy.get() {
                copy.live.end();
            }
        }
    }
}

impl Inner {
    /// The ballot under which another process claims to lead the show; an error where Redis cannot tell.
    async fn claim(&self, show: ShowId) -> Result<Option<Ballot>, ()> {
        if !self.listening.load(Ordering::Relaxed) {
            return Err(());
        }
        let mut connection = self.connection.clone();
        let mut get = redis::cmd("GET");
        get.arg(name_of(show));
        let claim = tokio::time::timeout(PATIENCE, get.query_async::<Option<String>>(&mut connection)).await;
        let claim = claim.map_err(|_| ())?.map_err(|_| ())?;
        let ballot = claim.and_then(|text| message::read_ballot(&text));
        Ok(ballot.filter(|ballot| Some(ballot.session) != self.means.session.no()))
    }

    /// The ballot that the journal last promised to another process; `alive`: one that the registry knows.
    async fn promised(&self, show: ShowId, alive: bool) -> Option<Ballot> {
        let ballot = self.means.journal.promised(show).await.ok()??;
        let sessions = self.means.view.sessions();
        if sessions.iter().any(|s| s.no == ballot.session && s.region != self.means.region) {
            // Another region leads, or did: its seat maps do not come this way.
            return None;
        }
        let known = || sessions.iter().any(|session| session.no == ballot.session);
        (Some(ballot.session) != self.means.session.no() && (!alive || known())).then_some(ballot)
    }

    /// Starts a copy, once.
    async fn begin(self: &Arc<Self>, show: ShowId, leader: Ballot, away: bool) -> Option<Arc<Live>> {
        let slot = self.copies().entry(show).or_default().clone();
        let made = slot.copy.get_or_try_init(|| Copy::start(self, show, leader, away)).await;
        slot.used.store(true, Ordering::Relaxed);
        match made {
            Ok(copy) => {
                self.count();
                Some(copy.live.clone())
            }
            Err(why) => {
                tracing::warn!(%show, why, "cannot follow a show");
                self.forget(show, &slot);
                None
            }
        }
    }

    fn count(&self) {
        let count = self.copies().values().filter(|slot| slot.copy.initialized()).count();
        self.means.metrics.relay.copies.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn copies(&self) -> MutexGuard<'_, HashMap<ShowId, Arc<Slot>>> {
        self.copies.lock().expect("no code panics while holding it")
    }

    /// Lets go of a slot, unless another has taken its place.
    fn forget(&self, show: ShowId, slot: &Arc<Slot>) {
        let mut copies = self.copies();
        if copies.get(&show).is_some_and(|present| Arc::ptr_eq(present, slot)) {
            copies.remove(&show);
        }
        drop(copies);
        self.count();
    }
}
