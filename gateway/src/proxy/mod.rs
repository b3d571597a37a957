//! Passing requests on: to the right service, again where that is safe, elsewhere when the answer is
//! "not mine". Knows nothing of what the requests mean.
//!
//! Invariant: a request that may have been acted on is sent again only if its method is idempotent or it
//! carries an idempotency key. A 421 is a promise that nothing was done.

mod body;
mod client;
mod headers;
mod place;

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::response::{IntoResponse, Response};
use common::http::RequestId;
use common::telemetry::Trace;
use common::{Problem, RegionName};
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

pub use client::{Client, Fault, Outgoing};
pub use headers::outgoing;

use crate::app::App;
use crate::directory::Upstream;
use crate::identity::Caller;
use crate::routes::{self, BodyRule};
use body::Ready;
use place::Place;

/// How often a request follows "not mine" before it gives up.
const MAX_HOPS: u32 = 3;
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A "not mine" is a problem of a few members.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// The region whose service answered, for the access log.
#[derive(Clone, Debug)]
pub struct AnsweredBy(pub Option<RegionName>);

/// The handler of every proxied path.
pub async fn proxy(State(app): State<App>, request: Request) -> Response {
    forward(&app, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn forward(app: &App, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let missing = |what: &str| Problem::internal(format!("a proxied request without its {what}"));
    let pattern = parts.extensions.get::<MatchedPath>().cloned().ok_or_else(|| missing("pattern"))?;
    let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(|| missing("caller"))?;
    let id = parts.extensions.get::<RequestId>().cloned().ok_or_else(|| missing("id"))?;
    let trace = parts.extensions.get::<Trace>().cloned().ok_or_else(|| missing("trace"))?;
    let params = RawPathParams::from_request_parts(&mut parts, &())
        .await
        .map_err(|_| Problem::not_found("resource"))?;

    let pinned = app.directory.pinned(&parts.headers)?;
    let place = routes::target(&parts.method, pattern.as_str())
        .and_then(|target| Place::of(app, target, &params, &parts.uri, pinned))
        .ok_or_else(|| missing("target"))?;
    let rule = routes::body_rule(pattern.as_str());
    let streamed = matches!(rule, BodyRule::Streamed { .. });
    let allowed = if streamed { app.upstream.upload_deadline_ms } else { app.upstream.deadline_ms };
    let deadline = Instant::now() + Duration::from_millis(allowed);
    let body = body::ready(&parts.headers, body, rule, deadline, app.body_idle).await?;
    let path_and_query = parts.uri.path_and_query().cloned().ok_or_else(|| missing("path"))?;
    let headers = headers::outgoing(parts.headers, &caller.origin, &id, &trace, streamed);
    let outgoing = Outgoing::new(parts.method, path_and_query, headers);
    Journey { app, place, outgoing, body, deadline, tries: 0, hops: 0 }.run(rule).await
}

/// One request's way to its answer.
struct Journey<'a> {
    app: &'a App,
    place: Place,
    outgoing: Outgoing,
    body: Ready,
    deadline: Instant,
    /// Attempts that failed.
    tries: u32,
    /// Answers that said "not mine".
    hops: u32,
}

impl Journey<'_> {
    async fn run(mut self, rule: BodyRule) -> Result<Response, Problem> {
        let app = self.app;
        loop {
            let upstream = self.place.upstream(app);
            let Some(body) = self.body.take() else {
                return Err(Problem::internal("a streamed request would have been sent twice"));
            };
            let attempt = app.client.send(upstream, &self.outgoing, body);
            match timeout_at(self.deadline, attempt).await {
                Ok(Ok(answer)) if self.is_refusal(&answer) => {
                    if let Some(answer) = self.follow(upstream, answer).await? {
                        return Ok(answer);
                    }
                }
                Ok(Ok(answer)) => return Ok(pass_back(answer, upstream)),
                Ok(Err(fault)) => self.again_after(fault, upstream, rule).await?,
                Err(_) => {
                    tracing::warn!(target_region = upstream.label(), "no answer within the deadline");
                    return Err(timed_out(upstream));
                }
            }
        }
    }

    fn is_refusal(&self, answer: &http::Response<Incoming>) -> bool {
        answer.status() == StatusCode::MISDIRECTED_REQUEST && self.body.is_repeatable()
    }

    /// Corrects the place after a 421; gives the answer back when it is not about ownership.
    async fn follow(
        &mut self,
        asked: &Upstream,
        answer: http::Response<Incoming>,
    ) -> Result<Option<Response>, Problem> {
        let (head, body) = answer.into_parts();
        let read = Limited::new(body, MAX_REFUSAL_BYTES).collect();
        let body = match timeout_at(self.deadline, read).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => return Err(broken(asked, &error.to_string())),
            Err(_) => return Err(timed_out(asked)),
        };
        let Some(refusal) = NotOwner::read(&body) else {
            let answer = http::Response::from_parts(head, Body::from(body));
            return Ok(Some(pass_back(answer, asked)));
        };
        self.hops += 1;
        if self.hops > MAX_HOPS {
            tracing::warn!(place = ?self.place, "the regions do not agree on an owner");
            return Err(Problem::unavailable(
                "owner-unsettled",
                "the regions do not agree on who serves this; it is probably moving",
                1,
            ));
        }
        self.app.metrics.reroutes.inc();
        let owner = refusal.owner.filter(|owner| {
            self.app.directory.named(owner.as_str()).is_some() && Some(owner) != asked.region.as_ref()
        });
        match (&self.place, owner) {
            (Place::Show(show), Some(owner)) => {
                let home = self.app.directory.by_tag(show.home_tag()).map(|r| r.name.clone());
                let home = home.unwrap_or_else(|| owner.clone());
                self.app.ownership.learn(*show, home, owner, refusal.epoch);
            }
            (_, Some(owner)) => self.place = Place::Region(owner),
            (_, None) => {}
        }
        // The same region again: nobody named a better place, or the registry's word is newer than the
        // answer's. It is changing hands; give it a moment.
        let same = self.place.upstream(self.app).region == asked.region;
        if same && !pause(self.hops, self.deadline).await {
            return Err(timed_out(asked));
        }
        Ok(None)
    }

    /// Waits before another attempt, or tells why there is none.
    async fn again_after(&mut self, fault: Fault, asked: &Upstream, rule: BodyRule) -> Result<(), Problem> {
        let problem = match &fault {
            Fault::BodyTooLarge => {
                let (BodyRule::Buffered { max_bytes } | BodyRule::Streamed { max_bytes }) = rule;
                return Err(body::too_large(max_bytes));
            }
            Fault::BodyTooSlow => return Err(body::too_slow()),
            Fault::Unreachable(why) => unreachable_problem(asked, why),
            Fault::Broken(why) => broken(asked, why),
        };
        self.tries += 1;
        let may_repeat = self.body.is_repeatable() && self.outgoing.is_repeatable();
        if !may_repeat || self.tries >= self.app.upstream.max_tries {
            return Err(problem);
        }
        if !pause(self.tries, self.deadline).await {
            return Err(problem);
        }
        self.app.metrics.retries.inc();
        Ok(())
    }
}

/// Waits longer each time, with jitter, so that many who failed together do not come back together.
/// False when the deadline would pass meanwhile.
async fn pause(nth: u32, deadline: Instant) -> bool {
    let most = BACKOFF_FIRST.saturating_mul(1 << nth.min(10)).min(BACKOFF_MAX);
    let pause = most.mul_f64(rand::random_range(0.5..1.0));
    if Instant::now() + pause >= deadline {
        return false;
    }
    tokio::time::sleep(pause).await;
    true
}

/// The members of a 421 `not-owner` that routing needs.
#[derive(serde::Deserialize)]
struct NotOwner {
    code: String,
    #[serde(default)]
    owner: Option<RegionName>,
    #[serde(default)]
    epoch: u64,
}

impl NotOwner {
    fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok().filter(|refusal: &Self| refusal.code == "not-owner")
    }
}

/// A service's answer as the caller gets it; its body streams on.
fn pass_back<B>(answer: http::Response<B>, upstream: &Upstream) -> Response
where
    B: hyper::body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let (mut head, body) = answer.into_parts();
    headers::incoming(&mut head.headers);
    head.extensions = http::Extensions::new();
    head.extensions.insert(AnsweredBy(upstream.region.clone()));
    head.version = http::Version::HTTP_11;
    Response::from_parts(head, Body::new(body))
}

fn said_of(upstream: &Upstream) -> String {
    match &upstream.region {
        Some(region) => format!("the region `{region}`"),
        None => "the global service".to_owned(),
    }
}

/// 503: nothing was done.
fn unreachable_problem(upstream: &Upstream, why: &str) -> Problem {
    tracing::warn!(target_region = upstream.label(), why, "cannot reach a service");
    let code = if upstream.region.is_some() { "region-unavailable" } else { "global-unavailable" };
    with_region(
        Problem::unavailable(code, format!("{} cannot be reached; nothing was done", said_of(upstream)), 2),
        upstream,
    )
}

/// 502: whether it was done is not known.
fn broken(upstream: &Upstream, why: &str) -> Problem {
    tracing::warn!(target_region = upstream.label(), why, "a service broke off");
    let detail = format!("{} broke off before it answered; it may have acted", said_of(upstream));
    with_region(Problem::new(StatusCode::BAD_GATEWAY, "upstream-broken", detail), upstream)
}

/// 504: whether it was done is not known.
fn timed_out(upstream: &Upstream) -> Problem {
    let detail = format!("{} did not answer in time; it may have acted", said_of(upstream));
    with_region(Problem::new(StatusCode::GATEWAY_TIMEOUT, "upstream-timeout", detail), upstream)
}

fn with_region(problem: Problem, upstream: &Upstream) -> Problem {
    match &upstream.region {
        Some(region) => problem.with("region", region),
        None => problem,
    }
}
