//! One attempt at a service behind: pooled connections, no Nagle, a short time to connect; within the
//! process's breaker and its gate, and within the request's deadline, which the service is told.

use std::time::Duration;

use axum::body::Body;
use common::http::DEADLINE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::LengthLimitError;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};
use tower_http::timeout::TimeoutError;

use super::gate::Lane;
use crate::directory::Upstream;
use crate::metrics::Metrics;

/// Longer than any pause between two requests of a busy client, shorter than the patience of firewalls.
const IDLE_CONNECTION: Duration = Duration::from_secs(30);

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
    http: legacy::Client<HttpConnector, Body>,
    metrics: Metrics,
}

impl Client {
    pub fn new(connect_timeout: Duration, metrics: Metrics) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION)
            .pool_max_idle_per_host(1_024)
            .build(connector);
        Self { http, metrics }
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The answer's head, its body still on the way.
    pub async fn send(
        &self,
        upstream: &Upstream,
        outgoing: &Outgoing,
        body: Body,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Fault> {
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
        upstream: &Upstream,
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
        upstream: &Upstream,
        outgoing: &Outgoing,
        body: Body,
        deadline: Instant,
    ) -> Result<Response<Incoming>, Fault> {
        let mut request = Request::new(body);
        *request.method_mut() = outgoing.method.clone();
        *request.uri_mut() = upstream.uri(outgoing.path_and_query.clone());
        *request.headers_mut() = outgoing.headers.clone();
        let left = deadline.saturating_duration_since(Instant::now());
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        request.headers_mut().insert(DEADLINE, HeaderValue::from(left));
        match timeout_at(deadline, self.http.request(request)).await {
            Ok(answer) => answer.map_err(|error| describe(&error)),
            Err(_) => Err(Fault::TimedOut),
        }
    }
}

struct Counted<'a> {
    metrics: &'a Metrics,
    upstream: &'a Upstream,
    result: &'static str,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.upstream_requests.with_label_values(&[self.upstream.label(), self.result]).inc();
    }
}

fn describe(error: &legacy::Error) -> Fault {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<LengthLimitError>() {
            return Fault::BodyTooLarge;
        }
        if inner.is::<TimeoutError>() {
            return Fault::BodyTooSlow;
        }
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    if error.is_connect() { Fault::Unreachable(text) } else { Fault::Broken(text) }
}
