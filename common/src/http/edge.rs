//! The layers around every service's routes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};
use tracing::Instrument;

use crate::Problem;
use crate::telemetry::Trace;

/// Larger bodies are 413, unless a route says otherwise.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const REGION: HeaderName = HeaderName::from_static("x-region");
/// How many milliseconds the caller will wait for the answer's head. It shrinks at each hop.
pub const DEADLINE: HeaderName = HeaderName::from_static("x-deadline-ms");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The id of one request, from the edge to Postgres; an extension of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub Arc<str>);

/// When the caller stops waiting; an extension of requests that tell it. What is begun for the request
/// should not go on for longer, and hops from here should be told what is left.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub tokio::time::Instant);

impl Deadline {
    fn told(headers: &HeaderMap) -> Option<Self> {
        let left = headers.get(&DEADLINE)?.to_str().ok()?.parse().ok()?;
        tokio::time::Instant::now().checked_add(Duration::from_millis(left)).map(Self)
    }
}

/// What the layers need to know of the service; cheap to clone.
#[derive(Clone)]
pub struct Edge(Arc<Inner>);

struct Inner {
    service: &'static str,
    /// Said in `X-Region`; none for `global`, whose answers the gateway marks.
    region: Option<HeaderValue>,
    requests: IntCounterVec,
    duration: HistogramVec,
    in_flight: IntGauge,
}

/// Metrics of one method and route without a look-up.
pub(super) struct Counts {
    ok: IntCounter,
    not_modified: IntCounter,
    duration: Histogram,
}

impl Edge {
    /// Registers the HTTP metrics; call once a process.
    pub fn new(service: &'static str, region: Option<&crate::RegionName>) -> anyhow::Result<Self> {
        let requests = prometheus::register_int_counter_vec!(
            "marquee_http_requests_total",
            "Requests answered, by method, route and status.",
            &["method", "route", "code"]
        )?;
        let duration = prometheus::register_histogram_vec!(
            "marquee_http_request_duration_seconds",
            "Time from the request's head to the answer's head.",
            &["method", "route"],
            vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
        )?;
        let in_flight = prometheus::register_int_gauge!(
            "marquee_http_requests_in_flight",
            "Requests being answered now."
        )?;
        let region = region.map(|r| HeaderValue::from_str(r.as_str())).transpose()?;
        Ok(Self(Arc::new(Inner { service, region, requests, duration, in_flight })))
    }

    pub(super) fn counts(&self, method: &Method, route: &str) -> Counts {
        let Inner { requests, duration, .. } = &*self.0;
        let of = |code| requests.with_label_values(&[method.as_str(), route, code]);
        let duration = duration.with_label_values(&[method.as_str(), route]);
        Counts { ok: of("200"), not_modified: of("304"), duration }
    }

    /// What every answer carries.
    pub(super) fn mark(&self, headers: &mut HeaderMap, id: HeaderValue) {
        headers.insert(REQUEST_ID, id);
        if let Some(region) = &self.0.region {
            headers.entry(REGION).or_insert_with(|| region.clone());
        }
    }
}

impl Counts {
    /// Counts a 200 or a 304.
    pub fn answered(&self, code: StatusCode, elapsed: Duration) {
        let count = if code == StatusCode::NOT_MODIFIED { &self.not_modified } else { &self.ok };
        count.inc();
        self.duration.observe(elapsed.as_secs_f64());
    }
}

/// Wraps the routes: request id, trace, log line, metrics, 404 and 405 as problems, panics as 500.
pub fn with_edge(routes: Router, edge: Edge) -> Router {
    routes
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such path"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "this path has no such method")
        })
        .layer(middleware::from_fn_with_state(edge, around))
}

/// Sorts by time; its random part comes from the process, since asking the system is a call of its own.
fn new_request_id() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid();
    format!("req_{}", id.simple())
}

/// The id that the caller gave, or a new one; text, as headers go.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(&REQUEST_ID);
    let given = given.filter(|id| (1..=128).contains(&id.len()) && id.to_str().is_ok());
    given.cloned().unwrap_or_else(|| HeaderValue::try_from(new_request_id()).expect("visible ASCII"))
}

async fn around(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("(none)", MatchedPath::as_str);
    // Here and not as a layer: each layer more is a clone and a box of all that lies within, for each request.
    DefaultBodyLimit::max(MAX_BODY_BYTES).apply(&mut request);
    let told = Told::of(request.method(), request.headers());
    let run = |told: &Told| {
        request.extensions_mut().insert(told.id.clone());
        request.extensions_mut().insert(told.trace);
        if let Some(deadline) = told.deadline {
            request.extensions_mut().insert(deadline);
        }
        next.run(request)
    };
    edge.around(told, route, run).await
}

/// What a request tells of itself, or is given.
#[derive(Clone, Debug)]
pub struct Told {
    pub method: Method,
    pub id: RequestId,
    /// The id as it goes in headers.
    pub id_header: HeaderValue,
    pub trace: Trace,
    pub deadline: Option<Deadline>,
}

impl Told {
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        let id_header = request_id(headers);
        Self {
            method: method.clone(),
            id: RequestId(id_header.to_str().expect("an id is text").into()),
            id_header,
            trace: Trace::from_header(headers.get(&TRACEPARENT).and_then(|v| v.to_str().ok())),
            deadline: Deadline::told(headers),
        }
    }
}

impl Edge {
    /// What is around every answer: its request's id and trace, metrics, log line; a panic is a 500. `run` answers.
    pub async fn around<F: Future<Output = Response>>(
        &self,
        told: Told,
        route: &str,
        run: impl FnOnce(&Told) -> F,
    ) -> Response {
        let inner = &self.0;
        let Told { method, id: RequestId(id), trace, deadline, .. } = &told;
        let span = tracing::info_span!(
            "request",
            service = inner.service,
            request_id = &**id,
            trace_id = %trace.trace_id(),
            span_id = %trace.span_id(),
        );
        let in_flight = InFlight::new(&inner.in_flight);
        let started = Instant::now();
        let answer = AssertUnwindSafe(run(&told)).catch_unwind().instrument(span.clone());
        let answer = answer.map(|ran| ran.unwrap_or_else(|_panic| panicked()));
        let mut response = match deadline {
            None => answer.await,
            Some(Deadline(at)) => match tokio::time::timeout_at(*at, answer).await {
                Ok(response) => response,
                Err(_) => too_late().into_response(),
            },
        };
        drop(in_flight);

        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            let rendered = problem.render(Some(id));
            // What layers inside added (limits, `Allow`) stays; the problem's own headers win.
            let added = std::mem::take(response.headers_mut());
            response = rendered;
            for (name, value) in &added {
                if !response.headers().contains_key(name) && name != http::header::CONTENT_LENGTH {
                    response.headers_mut().append(name, value.clone());
                }
            }
        }
        let elapsed = started.elapsed();
        let code = response.status();
        self.mark(response.headers_mut(), told.id_header.clone());
        inner.requests.with_label_values(&[method.as_str(), route, code.as_str()]).inc();
        inner.duration.with_label_values(&[method.as_str(), route]).observe(elapsed.as_secs_f64());
        let _entered = span.enter();
        let (code, millis) = (code.as_u16(), elapsed.as_secs_f64() * 1000.0);
        if code >= 500 {
            tracing::warn!(%method, route, code, millis, "answered");
        } else {
            tracing::debug!(%method, route, code, millis, "answered");
        }
        response
    }
}

/// What is broken by it ends with the request; its message is in the log already.
fn panicked() -> Response {
    Problem::internal("a handler panicked").into_response()
}

/// Counts also those whose caller goes away.
struct InFlight(IntGauge);

impl InFlight {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// 504: whether it was done is not known.
fn too_late() -> Problem {
    let detail = "the caller's deadline passed before there was an answer; it may have been done";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "deadline-exceeded", detail)
}

/// Completes on SIGTERM or Ctrl-C.
pub async fn stop_signal() {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .expect("a process may listen for SIGTERM");
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
