//! Passing requests on: to the right service, again where that is safe, elsewhere when the answer is
//! "not mine". Knows nothing of what the requests mean.
//!
//! Invariant: a request that may have been acted on is sent again only if its method is idempotent or it
//! carries an idempotency key. A 421 is a promise that nothing was done.

mod body;
mod breaker;
mod changing;
mod client;
mod events;
mod gate;
mod headers;
mod hold;
mod links;
mod place;
mod shared;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::response::{IntoResponse, Response};
use common::http::{Deadline, RequestId, Told};
use common::telemetry::Trace;
use common::{Problem, RegionName};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use tokio::time::{Instant, timeout_at};
use tower::retry::budget::Budget;

pub use breaker::Breaker;
pub use client::{Client, Fault, Outgoing};
pub use gate::{Gate, Lane};
pub use headers::outgoing;
pub use hold::Waiting;
pub use links::{Answered, Links};
pub use shared::SharedStreams;

use crate::app::App;
use crate::directory::Upstream;
use crate::identity::Caller;
use crate::nearest;
use crate::routes::{self, BodyRule};
use body::Ready;
use hold::Held;
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

/// What is known of a request besides itself.
pub struct Asked<'a> {
    /// The path's pattern in the routing table, and the `id` in the path.
    pub pattern: &'a str,
    pub id: Option<&'a str>,
    pub caller: Caller,
    pub told: Told,
}

/// The handler of a path of which the gateway answers other methods.
pub async fn proxy(
    State(app): State<App>,
    pattern: MatchedPath,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let told = Told::of(request.method(), request.headers());
    // The one that its surroundings have made.
    let id = request.extensions().get::<RequestId>().cloned().unwrap_or_else(|| told.id.clone());
    let trace = request.extensions().get::<Trace>().copied().unwrap_or(told.trace);
    let asked = Asked { pattern: pattern.as_str(), id: None, caller, told: Told { id, trace, ..told } };
    forward(&app, asked, request).await.unwrap_or_else(IntoResponse::into_response)
}

pub async fn forward(app: &App, asked: Asked<'_>, request: Request) -> Result<Response, Problem> {
    let Asked { pattern, id, caller, told } = asked;
    let (parts, body) = request.into_parts();
    let missing = |what: &str| Problem::internal(format!("a proxied request without its {what}"));
    let callers = nearest::choose(app, &parts.headers, &caller)?;
    let any_copy = app.upstream.read_from_copies && reads_any_copy(&parts.method, pattern, &parts.headers);
    let place = routes::target(&parts.method, pattern)
        .and_then(|target| Place::of(app, target, id, &parts.uri, callers.region, any_copy))
        .ok_or_else(|| missing("target"))?;
    let rule = routes::body_rule(pattern);
    let streamed = matches!(rule, BodyRule::Streamed { .. });
    let allowed = if streamed { app.upstream.upload_deadline_ms } else { app.upstream.deadline_ms };
    let deadline = Instant::now() + Duration::from_millis(allowed);
    // Who calls may be in more of a hurry than we, never in less.
    let deadline = match told.deadline {
        Some(Deadline(theirs)) => deadline.min(theirs),
        None => deadline,
    };
    let body = body::ready(&parts.headers, body, rule, deadline, app.body_idle).await?;
    let path_and_query = parts.uri.path_and_query().cloned().ok_or_else(|| missing("path"))?;
    let lane = routes::lane(&parts.method, pattern, caller.is_staff);
    let mut headers = headers::outgoing(parts.headers, &caller.origin, &told.id, &told.trace, streamed);
    let made_key = routes::takes_key(&parts.method, parts.uri.path()) && headers::make_key(&mut headers);
    let watches = events::is_watching(&parts.method, pattern);
    let elsewhere = routes::elsewhere(&parts.method, pattern);
    let outgoing = Outgoing::new(parts.method, path_and_query, headers).in_lane(lane);
    let journey = Journey {
        app,
        place,
        outgoing,
        body,
        deadline,
        tries: 0,
        hops: 0,
        waits: 0,
        avoid: None,
        held: None,
        watches,
        may_have_acted: false,
    };
    let mut answer = journey.run(rule).await?;
    if answer.status() == StatusCode::METHOD_NOT_ALLOWED {
        headers::also_allow(answer.headers_mut(), elsewhere);
    }
    Ok(if made_key { headers::unmark_replay(answer) } else { answer })
}

/// Whether any region's copy may answer. What a customer has just done must be seen at once, so that only
/// what is the same for all may be a little old; `no-cache` asks the owner.
fn reads_any_copy(method: &Method, pattern: &str, headers: &HeaderMap) -> bool {
    let asks_owner = headers.get_all(header::CACHE_CONTROL).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.split(',').any(|word| word.trim().eq_ignore_ascii_case("no-cache")))
    });
    matches!(pattern, "/v1/shows/{id}" | "/v1/shows/{id}/seats")
        && (method == Method::GET || method == Method::HEAD)
        && !asks_owner
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
    /// Answers that named another owner.
    hops: u32,
    /// Answers that said "not mine" and named nobody better.
    waits: u32,
    /// The process that failed last.
    avoid: Option<Arc<Upstream>>,
    /// Its place among those that wait for a show that changes hands.
    held: Option<Held<'a>>,
    /// What is asked for is a stream that outlives its process.
    watches: bool,
    /// An attempt that has failed may have acted.
    may_have_acted: bool,
}

impl Journey<'_> {
    /// Once an attempt may have acted, that nothing was done by the last one is half the truth.
    async fn run(mut self, rule: BodyRule) -> Result<Response, Problem> {
        let ended = self.pursue(rule).await;
        let status = ended.as_ref().map_or_else(|problem| problem.status, Response::status);
        if self.may_have_acted && status == StatusCode::SERVICE_UNAVAILABLE {
            return Err(Problem::outcome_unknown());
        }
        ended
    }

    async fn pursue(&mut self, rule: BodyRule) -> Result<Response, Problem> {
        let app = self.app;
        loop {
            let upstream = self.place.upstream(app, self.avoid.as_ref());
            if self.tries == 0 && self.hops == 0 && self.waits == 0 {
                upstream.retries.deposit();
            }
            let Some(body) = self.body.take() else {
                return Err(Problem::internal("a streamed request would have been sent twice"));
            };
            let ended = {
                let attempt = pin!(app.client.send(&upstream, &self.outgoing, body, self.deadline));
                changing::or_left(app, attempt, &upstream, self.may_leave()).await
            };
            match ended {
                Ok(answer) if self.is_refusal(&answer) => {
                    if let Some(answer) = self.follow(&upstream, answer).await? {
                        return Ok(answer);
                    }
                }
                Ok(answer) if self.may_be_unknown(&answer) => {
                    if let Some(answer) = self.settle(&upstream, answer).await? {
                        return Ok(answer);
                    }
                }
                Ok(answer) if self.watches && events::is_stream(&answer) => {
                    return Ok(self.resumed(answer, &upstream));
                }
                Ok(answer) => return Ok(pass_back(answer, &upstream)),
                Err(fault) => self.again_after(fault, &upstream, rule).await?,
            }
        }
    }

    fn is_refusal(&self, answer: &http::Response<Answered>) -> bool {
        answer.status() == StatusCode::MISDIRECTED_REQUEST && self.body.is_repeatable()
    }

    /// A 503 that may say that the owner does not know whether it has done it; under its key the request can
    /// be repeated until somebody knows. Or that it cannot do it yet, having only just become the owner.
    fn may_be_unknown(&self, answer: &http::Response<Answered>) -> bool {
        answer.status() == StatusCode::SERVICE_UNAVAILABLE
            && self.body.is_repeatable()
            && (self.outgoing.has_key() || self.may_change_hands())
    }

    fn resumed(&self, answer: http::Response<Answered>, upstream: &Upstream) -> Response {
        let Some(show) = self.place.show() else { return pass_back(answer, upstream) };
        let (head, body) = answer.into_parts();
        let body = events::resumed(self.app, show, self.outgoing.clone(), upstream.region.clone(), body);
        pass_back(http::Response::from_parts(head, body), upstream)
    }

    /// Corrects the place after a 421; gives the answer back when it is not about ownership.
    async fn follow(
        &mut self,
        asked: &Upstream,
        answer: http::Response<Answered>,
    ) -> Result<Option<Response>, Problem> {
        let (head, body) = read(asked, answer, self.deadline).await?;
        let Some(refusal) = NotOwner::read(&body) else {
            let answer = http::Response::from_parts(head, Body::from(body));
            return Ok(Some(pass_back(answer, asked)));
        };
        self.app.metrics.reroutes.inc();
        // A region that keeps no copy, or not yet: its owner has one.
        if let Place::Copy(show) = self.place {
            self.place = Place::Show(show);
        }
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
        if self.place.upstream(self.app, None).region != asked.region {
            self.hops += 1;
            if self.hops > MAX_HOPS {
                tracing::warn!(place = ?self.place, "the regions do not agree on an owner");
                return Err(unsettled());
            }
            return Ok(None);
        }
        // The same region again: nobody named a better place, or the registry's word is newer than the
        // answer's. It is changing hands; nothing was done, so that waiting is safe.
        if self.wait_for_news(refusal.epoch).await? { Ok(None) } else { Err(unsettled()) }
    }

    /// Asks again after `outcome-unknown`; gives any other 503 back, and this one when there is no time.
    async fn settle(
        &mut self,
        asked: &Upstream,
        answer: http::Response<Answered>,
    ) -> Result<Option<Response>, Problem> {
        let (head, body) = read(asked, answer, self.deadline).await?;
        let again = match Code::read(&body).as_deref() {
            Some("outcome-unknown") if self.outgoing.has_key() => {
                self.may_have_acted = true;
                self.may_try_again(asked).await
                    || self.may_change_hands() && self.wait_for_news(self.epoch()).await?
            }
            // Nothing was done.
            Some("show-unavailable") if self.may_change_hands() => self.wait_for_news(self.epoch()).await?,
            _ => false,
        };
        if again {
            return Ok(None);
        }
        Ok(Some(pass_back(http::Response::from_parts(head, Body::from(body)), asked)))
    }

    /// Waits before another attempt, or tells why there is none.
    async fn again_after(
        &mut self,
        fault: Fault,
        asked: &Arc<Upstream>,
        rule: BodyRule,
    ) -> Result<(), Problem> {
        let problem = match &fault {
            Fault::BodyTooLarge => {
                let (BodyRule::Buffered { max_bytes } | BodyRule::Streamed { max_bytes }) = rule;
                return Err(body::too_large(max_bytes));
            }
            Fault::BodyTooSlow => return Err(body::too_slow()),
            // More of the same would not help those who wait.
            Fault::Overloaded => return Err(overloaded(asked)),
            Fault::TimedOut => {
                tracing::warn!(target_region = asked.label(), "no answer within the deadline");
                return Err(timed_out(asked));
            }
            Fault::Unreachable(why) => unreachable_problem(asked, why),
            Fault::LeftAlone => unreachable_problem(asked, "it is being left alone after failures"),
            Fault::Broken(why) => broken(asked, why),
        };
        if matches!(self.place, Place::Copy(_)) && self.body.is_repeatable() {
            self.tries += 1;
            self.avoid = Some(asked.clone());
            let other = self.place.upstream(self.app, self.avoid.as_ref());
            if self.tries >= self.app.upstream.max_tries || other.region == asked.region {
                // A copy is a convenience; its owner answers for the show.
                self.place = self.place.show().map_or(Place::Global, Place::Show);
            }
            return Ok(());
        }
        self.avoid = Some(asked.clone());
        let was_sent = !matches!(fault, Fault::Unreachable(_) | Fault::LeftAlone);
        self.may_have_acted |= was_sent && !self.outgoing.is_safe();
        let other = self.place.upstream(self.app, self.avoid.as_ref());
        if !was_sent && self.body.is_repeatable() && !Arc::ptr_eq(&other, asked) {
            // Another process of the region, at once: this one has not even been asked.
            self.tries += 1;
            if self.tries < self.app.upstream.max_tries {
                self.app.metrics.retries.inc();
                return Ok(());
            }
        }
        let may_repeat = self.body.is_repeatable() && self.outgoing.is_repeatable();
        if may_repeat && self.may_try_again(asked).await {
            return Ok(());
        }
        let safe = self.body.is_repeatable() && (!was_sent || self.outgoing.is_repeatable());
        if safe && self.may_change_hands() && self.wait_for_news(self.epoch()).await? {
            return Ok(());
        }
        Err(problem)
    }

    /// Waits a while. False: there were attempts enough, by this request, by all to this process, or by the
    /// clock.
    async fn may_try_again(&mut self, asked: &Upstream) -> bool {
        self.tries += 1;
        if self.tries >= self.app.upstream.max_tries || !asked.retries.withdraw() {
            return false;
        }
        let pause = backoff(self.tries);
        if Instant::now() + pause >= self.deadline {
            return false;
        }
        tokio::time::sleep(pause).await;
        self.app.metrics.retries.inc();
        true
    }
}

/// A small answer, whole.
async fn read(
    asked: &Upstream,
    answer: http::Response<Answered>,
    deadline: Instant,
) -> Result<(http::response::Parts, bytes::Bytes), Problem> {
    let (head, body) = answer.into_parts();
    match timeout_at(deadline, Limited::new(body, MAX_REFUSAL_BYTES).collect()).await {
        Ok(Ok(body)) => Ok((head, body.to_bytes())),
        Ok(Err(error)) => Err(broken(asked, &error.to_string())),
        Err(_) => Err(timed_out(asked)),
    }
}

/// Longer each time, with jitter, so that many who failed together do not come back together.
fn backoff(nth: u32) -> Duration {
    let most = BACKOFF_FIRST.saturating_mul(1 << nth.min(10)).min(BACKOFF_MAX);
    most.mul_f64(rand::random_range(0.5..1.0))
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

/// The stable code of a problem.
#[derive(serde::Deserialize)]
struct Code {
    code: String,
}

impl Code {
    fn read(body: &[u8]) -> Option<String> {
        serde_json::from_slice(body).ok().map(|Self { code }| code)
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

/// 503: nothing was done.
fn unsettled() -> Problem {
    let detail = "the regions do not agree on who serves this; it is probably moving";
    Problem::unavailable("owner-unsettled", detail, 1)
}

/// 503: nothing was done. Not all at once, please.
fn overloaded(upstream: &Upstream) -> Problem {
    let detail = format!("{} has more to do than it can; nothing was done", said_of(upstream));
    with_region(Problem::unavailable("overloaded", detail, rand::random_range(1..=3)), upstream)
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
