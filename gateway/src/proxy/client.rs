//! One attempt at a service behind: connections that are kept, no Nagle, a short time to connect; within the
//! process's breaker and its gate, and within the request's deadline, which the service is told.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use common::http::DEADLINE;
use http::header;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::LengthLimitError;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::{Instant, sleep, timeout_at};
use tower::Service;
use tower_http::timeout::TimeoutError;

use super::gate::Lane;
use super::links::{Answered, Link};
use crate::directory::Upstream;
use crate::metrics::Metrics;

/// The packet that opens a connection may be lost, as when many are opened at once; the kernel sends it again after a
/// second, by when the time to connect is over. So a second connection is begun before, later than the longest way
/// around the world takes, and whichever is there first is taken.
const ANOTHER_AFTER: Duration = Duration::from_millis(400);

/// A request as it goes out, ready to be sent more than once.
#[derive(Clone, Debug)]
pub struct Outgoing {
    method: Method,
    path_and_query: PathAndQuery,
    headers: HeaderMap,
    lane: Lane,
}

impl Outgoing {
    pub fn new(method: Method, path_and_query: PathAndQuery, headers: HeaderMap) -> Self {
        Self { method, path_and_query, headers, lane: Lane::Reading }
    }

    pub fn in_lane(self, lane: Lane) -> Self {
        Self { lane, ..self }
    }

    /// The same with a header of its own.
    pub fn with_header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub fn header(&self, name: &str) -> Option<&HeaderValue> {
        self.headers.get(name)
    }

    /// With its query.
    pub fn path(&self) -> &str {
        self.path_and_query.as_str()
    }

    /// The same without what proves who calls.
    pub fn without_caller(mut self) -> Self {
        self.headers.remove(header::AUTHORIZATION);
        self.headers.remove(header::COOKIE);
        self
    }

    /// Whether sending it twice does no more than sending it once: by its method (RFC 9110), or because
    /// the service remembers it by its key.
    pub fn is_repeatable(&self) -> bool {
        self.method.is_idempotent() || self.has_key()
    }

    /// Whether it changes nothing (RFC 9110).
    pub fn is_safe(&self) -> bool {
        self.method.is_safe()
    }

    pub fn has_key(&self) -> bool {
        self.headers.contains_key("idempotency-key")
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No connection; the request was not sent.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// It failed so often lately that it was not asked.
    #[error("it is being left alone after failures")]
    LeftAlone,
    /// Too many waited for it for too long; the request was not sent.
    #[error("it is overloaded")]
    Overloaded,
    /// The connection broke before an answer; what became of the request is not known.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// No answer within the deadline; what became of the request is not known.
    #[error("no answer in time")]
    TimedOut,
    /// The caller's body was longer than allowed; found while it was being passed on.
    #[error("the request's body is too large")]
    BodyTooLarge,
    /// The caller's body paused for too long while it was being passed on.
    #[error("the request's body does not come")]
    BodyTooSlow,
}

#[derive(Clone)]
pub struct Client {
    connector: HttpConnector,
    metrics: Metrics,
}

impl Client {
    pub fn new(connect_timeout: Duration, metrics: Metrics) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        Self { connector, metrics }
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The answer's head, its body still on the way.
    pub async fn send(
        &self,
        upstream: &Arc<Upstream>,
        outgoing: &Outgoing,
        body: Body,
        deadline: Instant,
    ) -> Result<Response<Answered>, Fault> {
        // A future dropped on its way was given up by the caller.
        let mut counted = Counted { metrics: &self.metrics, upstream, result: "aborted" };
        let Some(leave) = upstream.breaker.leave() else {
            counted.result = "left_alone";
            return Err(Fault::LeftAlone);
        };
        let Ok(_pass) = upstream.gate.enter(outgoing.lane, deadline).await else {
            self.metrics.shed.with_label_values(&[outgoing.lane.as_str()]).inc();
            counted.result = "shed";
            return Err(Fault::Overloaded);
        };
        let answer = self.exchange(upstream, outgoing, body, deadline).await;
        counted.result = match &answer {
            Ok(response) if response.status().as_u16() == 421 => "not_owner",
            Ok(response) if response.status().is_server_error() => "error",
            Ok(_) => "ok",
            Err(Fault::Unreachable(_)) => "unreachable",
            Err(Fault::TimedOut) => "timeout",
            Err(Fault::BodyTooLarge | Fault::BodyTooSlow) => "refused",
            Err(_) => "broken",
        };
        match &answer {
            Ok(_) => leave.succeeded(),
            Err(Fault::Unreachable(_) | Fault::Broken(_) | Fault::TimedOut) => {
                if leave.failed() {
                    self.metrics.ejections.with_label_values(&[upstream.label()]).inc();
                    tracing::warn!(target_region = upstream.label(), "a process is left alone for a while");
                }
            }
            Err(_) => drop(leave),
        }
        answer
    }

    /// Asks whatever the breaker says, and tells it when there is an answer.
    pub async fn probe(
        &self,
        upstream: &Arc<Upstream>,
        outgoing: &Outgoing,
        body: Body,
        deadline: Instant,
    ) -> Result<(), Fault> {
        self.exchange(upstream, outgoing, body, deadline).await?;
        upstream.breaker.close();
        Ok(())
    }

    async fn exchange(
        &self,
        upstream: &Arc<Upstream>,
        outgoing: &Outgoing,
        body: Body,
        deadline: Instant,
    ) -> Result<Response<Answered>, Fault> {
        let mut request = Request::new(body);
        *request.method_mut() = outgoing.method.clone();
        *request.uri_mut() = outgoing.path_and_query.clone().into();
        *request.headers_mut() = outgoing.headers.clone();
        let left = deadline.saturating_duration_since(Instant::now());
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        request.headers_mut().insert(header::HOST, upstream.host.clone());
        request.headers_mut().insert(DEADLINE, HeaderValue::from(left));
        timeout_at(deadline, self.ask(upstream, request)).await.unwrap_or(Err(Fault::TimedOut))
    }

    /// By a connection that lies ready, else by a new one.
    async fn ask(
        &self,
        upstream: &Arc<Upstream>,
        mut request: Request<Body>,
    ) -> Result<Response<Answered>, Fault> {
        while let Some(link) = upstream.links.take() {
            match link.send(request).await {
                Ok((head, link)) => return Ok(answered(head, link, upstream)),
                Err(mut error) => match error.take_message() {
                    // The other side closed it while it lay; nothing was sent.
                    Some(unsent) => request = unsent,
                    None => return Err(broken(&error.into_error())),
                },
            }
        }
        // Boxed: it is seldom, and large.
        let link = Box::pin(self.connect(upstream)).await?;
        match link.send(request).await {
            Ok((head, link)) => Ok(answered(head, link, upstream)),
            Err(error) => Err(broken(&error.into_error())),
        }
    }

    async fn connect(&self, upstream: &Upstream) -> Result<Box<Link>, Fault> {
        let attempt = || self.connector.clone().call(upstream.uri.clone());
        let (first, second) = (attempt(), async {
            sleep(ANOTHER_AFTER).await;
            attempt().await
        });
        let mut first = pin!(first);
        let stream = tokio::select! {
            stream = &mut first => stream,
            // The first one's end is the end, whatever became of the second.
            Ok(stream) = second => Ok(stream),
        };
        let stream = stream.map_err(|error| Fault::Unreachable(told(&error).0))?;
        Link::over(stream).await.map_err(|error| Fault::Unreachable(told(&error).0))
    }
}

fn answered(
    head: Response<hyper::body::Incoming>,
    link: Box<Link>,
    upstream: &Arc<Upstream>,
) -> Response<Answered> {
    head.map(|body| Answered::new(body, link, upstream.clone()))
}

struct Counted<'a> {
    metrics: &'a Metrics,
    upstream: &'a Upstream,
    result: &'static str,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let of = |result| self.metrics.upstream_requests.with_label_values(&[self.upstream.label(), result]);
        match self.result {
            // Nearly all: not looked up each time.
            "ok" => self.upstream.answers.get_or_init(|| of("ok")).inc(),
            result => of(result).inc(),
        }
    }
}

fn broken(error: &hyper::Error) -> Fault {
    let (text, fault) = told(error);
    fault.unwrap_or(Fault::Broken(text))
}

/// The error with its causes; and the caller's own fault where it is among them.
fn told(error: &dyn std::error::Error) -> (String, Option<Fault>) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<LengthLimitError>() {
            return (text, Some(Fault::BodyTooLarge));
        }
        if inner.is::<TimeoutError>() {
            return (text, Some(Fault::BodyTooSlow));
        }
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    (text, None)
}
