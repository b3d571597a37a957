//! The leader's way to other regions: for each one stream to a live process of it, on which the requests of
//! all shows go together; and the way of their answers to the show that asked.
//!
//! Invariant: nobody is waited for. A request that finds no room, or no connection, is dropped: who leads
//! repeats what was not answered. So a slow region holds up neither the others nor whoever speaks to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::tls::{Tls, endpoint, names};
use common::{RegionName, ShowId};
use prometheus::IntGauge;
use raft::client::RegistryView;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Channel;

use super::proto::replication_client::ReplicationClient;
use super::wire::{self, MESSAGE_BYTES_AIM, MESSAGE_BYTES_MAX, MESSAGE_PARTS_MAX};
use super::{Regional, Reply, Request, proto};
use crate::metrics::Metrics;
use crate::replication::Kind;
use crate::session::Session;

/// What one show's try may have unread; more is dropped and asked for again.
const INBOX: usize = 256;

/// What may wait for one region: messages, and their entries' bytes.
const QUEUE: usize = 8_192;
const QUEUE_BYTES: usize = 64 << 20;

/// Messages of a stream that the connection has not taken yet.
const IN_FLIGHT: usize = 4;

const CONNECT: Duration = Duration::from_secs(2);
/// A region that takes or says nothing for so long, while it is asked, is tried anew.
const SILENCE: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a show's try hears.
#[derive(Debug)]
pub enum Heard {
    Answer {
        from: RegionName,
        /// Every show that is led has room for some dozens in its inbox, which mostly is empty.
        reply: Box<Reply>,
    },
    /// The own store could not answer.
    OwnSilent(String),
    /// The registry has another record of the show.
    News { epoch: u64, has_prior: bool },
    /// The own session is closed.
    SessionGone,
    /// A connection to the region stands again.
    Reachable(RegionName),
}

/// Where each region's processes take replication's messages now.
pub type Endpoints = Arc<dyn Fn(&RegionName) -> Vec<String> + Send + Sync>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    own: RegionName,
    session: Session,
    endpoints: Endpoints,
    tls: Tls,
    metrics: Metrics,
    stop: CancellationToken,
    routes: Mutex<HashMap<ShowId, Listener>>,
    lanes: Mutex<HashMap<RegionName, Arc<Lane>>>,
    /// A region can be reached again.
    reached: Notify,
}

struct Listener {
    inbox: mpsc::Sender<Heard>,
    epoch: u64,
    has_prior: bool,
}

/// A try's place among those that hear; ends with the value.
pub struct Route {
    peers: Peers,
    show: ShowId,
    inbox: mpsc::Sender<Heard>,
    /// What was last counted of each region's lag.
    lags: HashMap<RegionName, (IntGauge, i64)>,
}

struct Lane {
    to: RegionName,
    queue: mpsc::Sender<(ShowId, Request)>,
    queued_bytes: AtomicUsize,
    reachable: AtomicBool,
    /// The registry told something new: perhaps where to connect.
    wake: Notify,
    /// How far the region's store was at its last answer; told to its next process, in case it went back (R5).
    store: Mutex<Option<wire::Heard>>,
}

/// By the sessions that the registry knows.
pub fn sessions_of(view: RegistryView) -> Endpoints {
    Arc::new(move |region| {
        let sessions = view.sessions();
        let theirs = sessions.into_iter().filter(|s| s.region == *region && !s.grpc_url.is_empty());
        theirs.map(|session| session.grpc_url).collect()
    })
}

impl Peers {
    /// `session`: this process's own. Connects to a region when something is first sent there.
    pub fn new(
        own: &RegionName,
        session: Session,
        endpoints: Endpoints,
        tls: Tls,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        let (routes, lanes, reached) = (Mutex::default(), Mutex::default(), Notify::new());
        Self(Arc::new(Inner {
            own: own.clone(),
            session,
            endpoints,
            tls,
            metrics,
            stop,
            routes,
            lanes,
            reached,
        }))
    }

    /// Listens for what concerns a try to lead `show`; the one before it hears nothing more.
    pub fn route(&self, show: ShowId, epoch: u64, has_prior: bool) -> (Route, mpsc::Receiver<Heard>) {
        let (inbox, heard) = mpsc::channel(INBOX);
        let listener = Listener { inbox: inbox.clone(), epoch, has_prior };
        self.routes().insert(show, listener);
        (Route { peers: self.clone(), show, inbox, lags: HashMap::new() }, heard)
    }

    /// On its way, or dropped. Who is told that the region is reachable again says it again.
    pub fn send(&self, to: &RegionName, show: ShowId, request: Request) {
        let lane = self.lane(to);
        if !lane.is_reachable() {
            return;
        }
        let weight = weight(&request);
        let queued = lane.queued_bytes.fetch_add(weight, Ordering::Relaxed);
        if queued + weight > QUEUE_BYTES || lane.queue.try_send((show, request)).is_err() {
            lane.queued_bytes.fetch_sub(weight, Ordering::Relaxed);
            self.0.metrics.replication.dropped.inc();
        }
    }

    /// Sees to a connection, and wakes who waits for one where it stands already.
    pub fn connect(&self, to: &RegionName) {
        if self.lane(to).is_reachable() {
            self.0.reached.notify_one();
        }
    }

    /// Whether there is a connection to the region's process.
    pub fn is_reachable(&self, region: &RegionName) -> bool {
        self.lanes().get(region).is_some_and(|lane| lane.is_reachable())
    }

    /// Tells the tries what the registry says by now: `record` gives a show's epoch and whether a change of
    /// its replicas is open. True where somebody's inbox was full, and it is to be told again.
    pub fn tell(&self, record: impl Fn(ShowId) -> Option<(u64, bool)>) -> bool {
        let mut missed = false;
        for (show, listener) in self.routes().iter_mut() {
            let Some((epoch, has_prior)) = record(*show) else { continue };
            if (epoch, has_prior) == (listener.epoch, listener.has_prior) || epoch < listener.epoch {
                continue;
            }
            if listener.inbox.try_send(Heard::News { epoch, has_prior }).is_err() {
                missed |= !listener.inbox.is_closed();
            } else {
                (listener.epoch, listener.has_prior) = (epoch, has_prior);
            }
        }
        for lane in self.lanes().values() {
            lane.wake.notify_one();
        }
        missed
    }

    /// The own session is closed: nothing more is led in its name. True where somebody was not told yet.
    pub fn session_gone(&self) -> bool {
        let told = |listener: &Listener| {
            listener.inbox.is_closed() || listener.inbox.try_send(Heard::SessionGone).is_ok()
        };
        !self.routes().values().all(told)
    }

    fn lane(&self, to: &RegionName) -> Arc<Lane> {
        self.lanes()
            .entry(to.clone())
            .or_insert_with(|| {
                let (queue, waiting) = mpsc::channel(QUEUE);
                let lane = Arc::new(Lane {
                    to: to.clone(),
                    queue,
                    queued_bytes: AtomicUsize::new(0),
                    reachable: AtomicBool::new(false),
                    wake: Notify::new(),
                    store: Mutex::default(),
                });
                tokio::spawn(run(self.clone(), lane.clone(), waiting));
                lane
            })
            .clone()
    }

    fn answered(&self, from: &RegionName, show: ShowId, reply: Reply) {
        let inbox = self.routes().get(&show).map(|listener| listener.inbox.clone());
        if let Some(inbox) = inbox
            && inbox.try_send(Heard::Answer { from: from.clone(), reply: Box::new(reply) }).is_err()
        {
            self.0.metrics.replication.dropped.inc();
        }
    }

    /// Waits until a region can be reached again; one such moment is told to one who waits.
    pub async fn reached_one(&self) {
        self.0.reached.notified().await;
    }

    fn reached(&self, region: &RegionName) {
        self.0.reached.notify_one();
        for listener in self.routes().values() {
            // A full inbox has something to say again by itself.
            let _ = listener.inbox.try_send(Heard::Reachable(region.clone()));
        }
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<ShowId, Listener>> {
        self.0.routes.lock().expect("no code panics while holding it")
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<RegionName, Arc<Lane>>> {
        self.0.lanes.lock().expect("no code panics while holding it")
    }
}

impl Route {
    pub fn inbox(&self) -> mpsc::Sender<Heard> {
        self.inbox.clone()
    }

    /// Counts how many entries of this show a region lacks.
    pub fn lags(&mut self, region: &RegionName, entries: u64) {
        let entries = i64::try_from(entries).unwrap_or(i64::MAX);
        if let Some((gauge, counted)) = self.lags.get_mut(region) {
            gauge.add(entries - *counted);
            *counted = entries;
        } else if entries > 0 {
            let gauge = self.peers.0.metrics.replication.lag.with_label_values(&[region.as_str()]);
            gauge.add(entries);
            self.lags.insert(region.clone(), (gauge, entries));
        }
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        for (gauge, counted) in self.lags.values() {
            gauge.sub(*counted);
        }
        let mut routes = self.peers.routes();
        if routes.get(&self.show).is_some_and(|listener| listener.inbox.same_channel(&self.inbox)) {
            routes.remove(&self.show);
        }
    }
}

impl Lane {
    /// Answers of several processes overtake each other.
    fn note_store(&self, heard: wire::Heard) {
        let mut store = self.store();
        let is_later = |before: &wire::Heard| {
            heard.incarnation > before.incarnation
                || heard.incarnation == before.incarnation && heard.mark.follows(&before.mark)
        };
        if store.as_ref().is_none_or(is_later) {
            *store = Some(heard);
        }
    }

    fn store(&self) -> MutexGuard<'_, Option<wire::Heard>> {
        self.store.lock().expect("no code panics while holding it")
    }

    fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// Forgets what was to go over the connection before.
    fn drain(&self, waiting: &mut mpsc::Receiver<(ShowId, Request)>) {
        while let Ok((_, request)) = waiting.try_recv() {
            self.queued_bytes.fetch_sub(weight(&request), Ordering::Relaxed);
        }
    }
}

fn weight(request: &Request) -> usize {
    match request {
        Request::Append(append) | Request::Extend(append) => {
            append.entries.iter().map(|entry| Regional::weight(&entry.payload)).sum::<usize>() + 128
        }
        _ => 128,
    }
}

/// Keeps one stream to a region, for ever.
async fn run(peers: Peers, lane: Arc<Lane>, mut waiting: mpsc::Receiver<(ShowId, Request)>) {
    let inner = &peers.0;
    let up = inner.metrics.replication.connected.with_label_values(&[lane.to.as_str()]);
    let (mut turn, mut pause) = (0_usize, FIRST_PAUSE);
    while !inner.stop.is_cancelled() {
        let urls = (inner.endpoints)(&lane.to);
        let since = Instant::now();
        if let Some(url) = urls.get(turn % urls.len().max(1)) {
            let exchange = exchange(&peers, &lane, url, &mut waiting, &up);
            let ended = tokio::select! {
                () = inner.stop.cancelled() => return,
                ended = exchange => ended,
            };
            tracing::info!(to = %lane.to, url, why = %ended, "no exchange with a region");
        }
        turn = turn.wrapping_add(1);
        lane.reachable.store(false, Ordering::Relaxed);
        up.set(0);
        pause = if since.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        // The registry may tell of changes all the time.
        sleep(FIRST_PAUSE).await;
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = sleep(pause + rand::random_range(Duration::ZERO..FIRST_PAUSE)) => {}
            () = lane.wake.notified() => {}
        }
    }
}

/// Why an exchange ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] tonic::Status),
    #[error("no answer in time")]
    Silent,
    #[error("the peer ended it")]
    Closed,
    #[error("its hello is not the region's that was meant")]
    Stranger,
    #[error(transparent)]
    Unreadable(#[from] wire::BadMessage),
}

/// One stream, until it breaks.
async fn exchange(
    peers: &Peers,
    lane: &Lane,
    url: &str,
    waiting: &mut mpsc::Receiver<(ShowId, Request)>,
    up: &IntGauge,
) -> Ended {
    let opened = timeout(CONNECT * 2, open(peers, lane, url)).await.unwrap_or(Err(Ended::Silent));
    let (requests, mut answers) = match opened {
        Ok(opened) => opened,
        Err(why) => return why,
    };
    lane.drain(waiting);
    lane.reachable.store(true, Ordering::Relaxed);
    up.set(1);
    tracing::info!(to = %lane.to, url, "exchanging with a region");
    peers.reached(&lane.to);
    let sending = send_on(lane, waiting, &requests);
    tokio::pin!(sending);
    loop {
        tokio::select! {
            ended = &mut sending => return ended,
            message = answers.message() => {
                let message = match message {
                    Ok(Some(message)) => message,
                    Ok(None) => return Ended::Closed,
                    Err(status) => return status.into(),
                };
                if let Some(store) = message.store {
                    lane.note_store(store.into());
                }
                for answer in message.answers {
                    match wire::reply(answer) {
                        Ok((show, reply)) => peers.answered(&lane.to, show, reply),
                        Err(why) => return why.into(),
                    }
                }
            }
        }
    }
}

type Opened = (mpsc::Sender<proto::Requests>, Streaming<proto::Answers>);

async fn open(peers: &Peers, lane: &Lane, url: &str) -> Result<Opened, Ended> {
    let channel: Channel = endpoint(url)?
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(SILENCE)
        .keep_alive_timeout(SILENCE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(MESSAGE_BYTES_AIM as u32)
        .initial_connection_window_size(2 * MESSAGE_BYTES_AIM as u32)
        .connect_with_connector(peers.0.tls.connector(&names::regional(&lane.to)))
        .await?;
    let mut client = ReplicationClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (requests, stream) = mpsc::channel(IN_FLIGHT);
    let session = peers.0.session.no().unwrap_or_default();
    let hello = wire::Hello { from: peers.0.own.clone(), to: lane.to.clone(), session, heard: *lane.store() };
    let first = proto::Requests { hello: Some(hello.into()), ..proto::Requests::default() };
    requests.try_send(first).map_err(|_| Ended::Closed)?;
    let mut answers = client.exchange(ReceiverStream::new(stream)).await?.into_inner();
    let first = answers.message().await?.ok_or(Ended::Closed)?;
    let hello: wire::Hello = first.hello.ok_or(Ended::Stranger)?.try_into()?;
    if hello.from != lane.to || hello.to != peers.0.own {
        return Err(Ended::Stranger);
    }
    Ok((requests, answers))
}

/// Passes on what waits, as much as there is in one message. Ends when the peer takes nothing any more.
async fn send_on(
    lane: &Lane,
    waiting: &mut mpsc::Receiver<(ShowId, Request)>,
    requests: &mpsc::Sender<proto::Requests>,
) -> Ended {
    let mut held = None;
    loop {
        let first = match held.take() {
            Some(first) => first,
            None => match waiting.recv().await {
                Some(first) => first,
                None => return Ended::Closed,
            },
        };
        let (mut bytes, mut parts) = (0, Vec::new());
        let mut next = Some(first);
        while let Some((show, request)) = next {
            let weight = weight(&request);
            if !parts.is_empty() && bytes + weight > MESSAGE_BYTES_AIM {
                held = Some((show, request));
                break;
            }
            bytes += weight;
            lane.queued_bytes.fetch_sub(weight, Ordering::Relaxed);
            parts.push(wire::asked(show, request));
            next = if parts.len() < MESSAGE_PARTS_MAX { waiting.try_recv().ok() } else { None };
        }
        let message = proto::Requests { requests: parts, ..proto::Requests::default() };
        match timeout(SILENCE, requests.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ended::Closed,
            Err(_) => return Ended::Silent,
        }
    }
}
