//! Connections to one process behind, kept for the next request. Each thread of the server has its own.
//!
//! A connection has no task: whoever waits for its answer drives it, so that a request's way out and back is one
//! task's work. hyper decides what is sent and where an answer ends.
//!
//! Invariant: a connection lies here only when its last answer has been read to its end.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;

use crate::directory::Upstream;
use crate::server::workers;

/// Longer than any pause between two requests of a busy client, shorter than the patience of firewalls.
const KEPT: Duration = Duration::from_secs(30);
const MOST: usize = 1_024;

type Connection = http1::Connection<TokioIo<TcpStream>, Body>;

pub struct Link {
    sender: http1::SendRequest<Body>,
    /// None: it is over. Dropped then, since that is what tells those who wait for it.
    connection: Option<Connection>,
}

impl Link {
    pub async fn over(stream: TokioIo<TcpStream>) -> hyper::Result<Box<Self>> {
        let (sender, connection) = http1::handshake(stream).await?;
        Ok(Box::new(Self { sender, connection: Some(connection) }))
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        let over =
            self.connection.as_mut().is_some_and(|connection| Pin::new(connection).poll(cx).is_ready());
        if over {
            self.connection = None;
        }
    }

    /// The answer's head, and the connection on which its body comes. A request that was not sent comes back.
    pub async fn send(
        mut self: Box<Self>,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, Box<Self>), TrySendError<Request<Body>>> {
        // Driving the connection is what brings the answer; it need not wake anybody.
        let mut answer = pin!(unconstrained(self.sender.try_send_request(request)));
        let head = std::future::poll_fn(|cx| {
            self.drive(cx);
            answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await?;
        Ok((head, self))
    }

    /// Whether another request can be sent: nothing of the last is left, and the other side is there.
    fn is_free(&mut self) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let mut cx = Context::from_waker(Waker::noop());
        pin!(unconstrained(connection)).poll(&mut cx).is_pending() && self.sender.is_ready()
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("over", &self.connection.is_none()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Resting {
    link: Box<Link>,
    since: Instant,
}

/// The connections that lie ready, by worker.
#[derive(Debug)]
pub struct Links(Box<[Mutex<Vec<Resting>>]>);

impl Links {
    /// For so many workers, and whoever is none.
    pub fn new(workers: usize) -> Self {
        Self((0..=workers).map(|_| Mutex::default()).collect())
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Vec<Resting>> {
        let mine = workers::here() % self.0.len();
        self.0[mine].lock().expect("no code panics while holding it")
    }

    /// The one used last: the others may be let go the sooner.
    pub fn take(&self) -> Option<Box<Link>> {
        let resting = self.shelf().pop()?;
        (resting.since.elapsed() < KEPT).then_some(resting.link)
    }

    fn put(&self, mut link: Box<Link>) {
        if !link.is_free() {
            return;
        }
        let mut shelf = self.shelf();
        if shelf.len() < MOST {
            shelf.push(Resting { link, since: Instant::now() });
        }
    }

    /// Closes those that nobody has used for long.
    pub fn sweep(&self) {
        for shelf in &self.0 {
            let mut shelf = shelf.lock().expect("no code panics while holding it");
            let old = shelf.partition_point(|resting| resting.since.elapsed() >= KEPT);
            shelf.drain(..old);
        }
    }
}

/// An answer's body, which drives its connection and gives it back at its end.
#[derive(Debug)]
pub struct Answered {
    body: Incoming,
    link: Option<Box<Link>>,
    from: Arc<Upstream>,
}

impl Answered {
    pub fn new(body: Incoming, link: Box<Link>, from: Arc<Upstream>) -> Self {
        let mut answered = Self { body, link: Some(link), from };
        answered.give_back_at_end();
        answered
    }

    fn give_back_at_end(&mut self) {
        if self.body.is_end_stream() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Some(link) = self.link.take() {
            self.from.links.put(link);
        }
    }

    /// What has come already.
    fn poll_come(&mut self) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let next = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx));
        pin!(unconstrained(next)).poll(&mut Context::from_waker(Waker::noop()))
    }
}

impl hyper::body::Body for Answered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let mut come = this.poll_come();
        if come.is_pending()
            && let Some(link) = &mut this.link
        {
            link.drive(cx);
            come = this.poll_come();
        }
        match &come {
            Poll::Ready(None) => this.give_back(),
            Poll::Ready(Some(Ok(_))) => this.give_back_at_end(),
            Poll::Ready(Some(Err(_))) => this.link = None,
            Poll::Pending => {}
        }
        come
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
