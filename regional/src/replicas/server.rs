//! The port at which other regions' processes bring what they ask of this region's replicas.
//!
//! Invariant: whoever speaks here has said who it is and whom it means, in a version that is known here; what
//! cannot be read is refused and counted, and logged once a peer. Memory is bounded: who sends more than the
//! store takes, or does not read its answers, waits.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::tls::{Caller, Tls, address, names};
use common::{RegionName, ShowId};
use deadpool_postgres::Pool;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};

use super::caught_up::CaughtUp;
use super::compare::Comparison;
use super::proto::replication_server::{Replication, ReplicationServer};
use super::wire::{self, Asked, Heard, Hello, MESSAGE_BYTES_AIM, MESSAGE_BYTES_MAX, MESSAGE_PARTS_MAX};
use super::{Answer, ReplicaStore, Reply, Told, proto};
use crate::replication::Unable;
use crate::session::Session;

/// How long a stream may stay silent before its hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// Requests of one stream that are not answered yet; beyond, nothing more is read from it.
const PENDING: usize = 4_096;

/// Messages with answers that the peer has not taken yet.
const UNREAD: usize = 8;

/// Peers that a log remembers; more are not expected and not logged.
const PEERS_LOGGED: usize = 256;

const WINDOW: u32 = 8 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What the port needs of its process.
#[derive(Clone)]
pub struct Means {
    pub region: RegionName,
    pub regions: Vec<RegionName>,
    pub session: Session,
    pub store: ReplicaStore,
    pub pool: Pool,
    /// Of the own store, as the registry counts it.
    pub incarnation: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub tls: Tls,
    /// Told what other regions say is lacking here.
    pub caught_up: CaughtUp,
    pub stop: CancellationToken,
}

/// Serves until the process stops.
pub async fn serve(incoming: TcpIncoming, means: Means) -> Result<(), tonic::transport::Error> {
    let stop = means.stop.clone();
    let incoming = means.tls.incoming(incoming);
    let service = Service { means, logged: Arc::default() };
    let service = ReplicationServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .max_concurrent_streams(16)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}

#[derive(Clone)]
struct Service {
    means: Means,
    logged: Arc<Mutex<HashSet<(String, &'static str)>>>,
}

/// One stream.
struct Exchange {
    service: Service,
    peer: RegionName,
    incoming: Streaming<proto::Requests>,
    answers: mpsc::Sender<Result<proto::Answers, Status>>,
}

#[tonic::async_trait]
impl Replication for Service {
    type ExchangeStream = ReceiverStream<Result<proto::Answers, Status>>;
    type CompareStream = ReceiverStream<Result<proto::Lacking, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<proto::Requests>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let address = address(&request).map_or_else(String::new, |address| address.to_string());
        let caller = self.means.tls.caller(&request);
        let mut incoming = request.into_inner();
        let first = self.first_of(&mut incoming, &address).await?;
        let hello = self.greeted(first.hello, first.requests.is_empty(), &caller, &address)?;
        self.remembered(hello.heard).await?;
        let (answers, stream) = mpsc::channel(UNREAD);
        let own = Hello {
            from: self.means.region.clone(),
            to: hello.from.clone(),
            session: self.means.session.no().unwrap_or(0),
            heard: None,
        };
        let first = proto::Answers { hello: Some(own.into()), store: self.store_mark(None), answers: vec![] };
        let _ = answers.try_send(Ok(first));
        tracing::info!(from = %hello.from, session = hello.session, "a region's process brings its journals");
        let exchange = Exchange { service: self.clone(), peer: hello.from, incoming, answers };
        tokio::spawn(exchange.run());
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn compare(
        &self,
        request: Request<Streaming<proto::Heads>>,
    ) -> Result<Response<Self::CompareStream>, Status> {
        let address = address(&request).map_or_else(String::new, |address| address.to_string());
        let caller = self.means.tls.caller(&request);
        let mut heads = request.into_inner();
        let first = self.first_of(&mut heads, &address).await?;
        let hello = self.greeted(first.hello, first.heads.is_empty(), &caller, &address)?;
        let comparison = Comparison {
            by: hello.from,
            pool: self.means.pool.clone(),
            caught_up: self.means.caught_up.clone(),
            metrics: self.means.store.metrics().clone(),
        };
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(comparison.run(heads, answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Service {
    /// The message that begins a stream.
    async fn first_of<T>(&self, incoming: &mut Streaming<T>, address: &str) -> Result<T, Status> {
        match tokio::time::timeout(HELLO_DEADLINE, incoming.message()).await {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => Err(self.refuse(address, "hello", "the stream ended before its hello")),
            Ok(Err(status)) => Err(self.broken(address, &status)),
            Err(_) => Err(self.refuse(address, "hello", "no hello in time")),
        }
    }

    /// Who speaks, where it may; `alone`: the hello came with nothing else.
    fn greeted(
        &self,
        hello: Option<proto::Hello>,
        alone: bool,
        caller: &Caller,
        address: &str,
    ) -> Result<Hello, Status> {
        let hello = hello.ok_or(());
        let hello = hello.map_err(|()| self.refuse(address, "hello", "the first message is a hello"))?;
        if hello.version != wire::VERSION {
            let why = format!("version {} is not spoken here, but {}", hello.version, wire::VERSION);
            return Err(self.refuse(address, "version", &why));
        }
        let hello: Hello =
            hello.try_into().map_err(|bad| self.refuse(address, "malformed", &format!("{bad}")))?;
        if hello.to != self.means.region {
            let why = format!("this is {}, the hello is for {}", self.means.region, hello.to);
            return Err(self.refuse(address, "stranger", &why));
        }
        if hello.from == self.means.region || !self.means.regions.contains(&hello.from) {
            let why = format!("{} is no other region of this platform", hello.from);
            return Err(self.refuse(address, "stranger", &why));
        }
        if !caller.is(&names::regional(&hello.from)) {
            let why = format!("the caller's certificate is not one of {}", hello.from);
            return Err(self.refuse(address, "stranger", &why));
        }
        if !alone {
            return Err(self.refuse(address, "malformed", "a hello comes alone"));
        }
        Ok(hello)
    }

    /// R5: a peer may know that the store was further than it is.
    async fn remembered(&self, heard: Option<Heard>) -> Result<(), Status> {
        let Some(heard) = heard.filter(|heard| heard.incarnation == (self.means.incarnation)()) else {
            return Ok(());
        };
        let checked = self.means.store.guard().check(&self.means.pool, Some(heard.mark)).await;
        checked.map_err(|error| Status::unavailable(format!("{error:#}")))
    }

    fn store_mark(&self, mark: Option<super::guard::StoreMark>) -> Option<proto::StoreMark> {
        let mark = mark.or_else(|| self.means.store.guard().mark())?;
        Some(Heard { incarnation: (self.means.incarnation)(), mark }.into())
    }

    fn refuse(&self, peer: &str, reason: &'static str, why: &str) -> Status {
        self.note(peer, reason, why);
        Status::invalid_argument(why)
    }

    /// What tonic could not read: too long, or no message at all.
    fn broken(&self, peer: &str, status: &Status) -> Status {
        match status.code() {
            Code::OutOfRange | Code::ResourceExhausted => self.note(peer, "oversized", status.message()),
            Code::Internal | Code::InvalidArgument => self.note(peer, "malformed", status.message()),
            // The connection, or the peer itself, ended it.
            _ => {}
        }
        Status::new(status.code(), status.message())
    }

    fn note(&self, peer: &str, reason: &'static str, why: &str) {
        self.means.store.metrics().refused(reason);
        let mut logged = self.logged.lock().expect("no code panics while holding it");
        if logged.len() < PEERS_LOGGED && logged.insert((peer.to_owned(), reason)) {
            tracing::warn!(peer, reason, why, "a message for this region's replicas is refused");
        }
    }
}

impl Exchange {
    async fn run(mut self) {
        let streams = self.service.means.store.metrics().streams.clone();
        streams.inc();
        let ended = self.exchange().await;
        streams.dec();
        if let Err(status) = ended {
            tracing::debug!(peer = %self.peer, %status, "an exchange ended");
            let _ = self.answers.try_send(Err(status));
        }
    }

    async fn exchange(&mut self) -> Result<(), Status> {
        let stop = self.service.means.stop.clone();
        let mut pending = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Err(Status::unavailable("this process stops")),
                Some(told) = pending.next(), if !pending.is_empty() => {
                    let mut answers = Answers::default();
                    answers.add(told);
                    // What else is there by now goes along.
                    while !answers.is_full() && let Some(Some(told)) = pending.next().now_or_never() {
                        answers.add(told);
                    }
                    self.send(answers).await?;
                }
                message = self.incoming.message(), if pending.len() < PENDING => {
                    let peer = self.peer.to_string();
                    let message = match message {
                        Ok(Some(message)) => message,
                        Ok(None) => return Ok(()),
                        Err(status) => return Err(self.service.broken(&peer, &status)),
                    };
                    if message.hello.is_some() || message.requests.len() > MESSAGE_PARTS_MAX {
                        return Err(self.service.refuse(&peer, "malformed", "too much in one message"));
                    }
                    let mut refused = Answers::default();
                    for request in message.requests {
                        match self.ask(request).await {
                            Ok((show, receiver)) => pending.push(async move { (show, receiver.await.ok()) }),
                            Err(answer) => refused.answers.extend(answer),
                        }
                    }
                    self.send(refused).await?;
                }
            }
        }
    }

    /// The answer that is to come; or, where the request cannot be read, what is answered at once, if anything.
    async fn ask(
        &self,
        request: proto::Request,
    ) -> Result<(ShowId, tokio::sync::oneshot::Receiver<Told>), Option<proto::Answer>> {
        let (service, peer) = (&self.service, self.peer.as_str());
        let store = &service.means.store;
        let Asked { show, ballot, request } = request.try_into().map_err(|bad: wire::BadMessage| {
            service.note(peer, "malformed", &bad.to_string());
            None
        })?;
        let request = request.map_err(|bad| {
            service.note(peer, "malformed", &bad.to_string());
            let answer = Answer::Unable(Unable::Malformed);
            let incarnation = store.standing(show).incarnation;
            Some(wire::answered(show, Reply { incarnation, ballot, answer }))
        })?;
        let receiver = store.ask_later(show, request).await.ok_or(None)?;
        Ok((show, receiver))
    }

    async fn send(&self, answers: Answers) -> Result<(), Status> {
        if answers.answers.is_empty() {
            return Ok(());
        }
        let store = self.service.store_mark(answers.mark);
        let message = proto::Answers { hello: None, store, answers: answers.answers };
        self.answers.send(Ok(message)).await.map_err(|_| Status::cancelled("the peer reads no more"))
    }
}

/// Answers that go in one message.
#[derive(Default)]
struct Answers {
    answers: Vec<proto::Answer>,
    bytes: usize,
    mark: Option<super::guard::StoreMark>,
}

impl Answers {
    fn add(&mut self, (show, told): (ShowId, Option<Told>)) {
        // Nothing is known to have happened: nothing is said.
        let Some(Told { reply, mark }) = told else { return };
        let answer = wire::answered(show, reply);
        self.bytes += answer.encoded_len();
        self.answers.push(answer);
        // Of two marks the later one covers both.
        if self.mark.is_none_or(|before| mark.follows(&before)) {
            self.mark = Some(mark);
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= MESSAGE_BYTES_AIM || self.answers.len() >= MESSAGE_PARTS_MAX
    }
}
