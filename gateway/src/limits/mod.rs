//! How much one caller may ask: by user where a token proves one, and by address; each class of calls apart,
//! so that reports and scrapers use up nothing of what selling has. A request never fails because the
//! counting does.

mod local;
mod shared;

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use common::Problem;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::address::limit_key;
use crate::app::App;
use crate::config::{Limits, Rate};
use crate::identity::Caller;
use crate::metrics::Metrics;
use crate::routes::{self, Class, class};
use local::Local;
use shared::Shared;

// draft-ietf-httpapi-ratelimit-headers
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// How long a refusal for the gateway's own lag is kept back.
const REFUSAL_TAKES: Duration = Duration::from_millis(500);

/// What a bucket says to one more request.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    pub allowed: bool,
    pub rate: Rate,
    /// Requests that would pass at once after this one.
    pub remaining: u32,
    pub retry_after: Duration,
    /// Until the whole burst is there again.
    pub full_after: Duration,
}

/// A name and how fast it refills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub key: String,
    pub rate: Rate,
}

/// What a request is counted against.
fn buckets(limits: &Limits, class: Class, caller: &Caller) -> Vec<Bucket> {
    let bucket = |lane: &str, who: &str, rate| Bucket { key: format!("marquee:limit:{lane}:{who}"), rate };
    let address = limit_key(caller.origin.client);
    let (per_user, per_address) = match class {
        Class::Auth => return vec![bucket("auth", &address, limits.auth_per_address)],
        Class::Sell => (limits.sell_per_user, limits.sell_per_address),
        Class::Write => (limits.write_per_user, limits.write_per_address),
        Class::Read => (limits.read_per_user, limits.read_per_address),
        Class::Report => (limits.report_per_user, limits.report_per_address),
    };
    let class = class.as_str();
    let Some(user) = caller.user else { return vec![bucket(class, &address, per_address)] };
    let user = user.to_string();
    match caller.is_staff {
        // A cinema's counters and scanners share an address, and none of it with customers' limits.
        true => vec![bucket(&format!("staff-{class}"), &user, limits.staff_per_user)],
        false => vec![
            bucket(class, &user, per_user),
            bucket(&format!("users-{class}"), &address, limits.users_per_address),
        ],
    }
}

pub struct Limiter {
    limits: Limits,
    shared: Shared,
    local: Local,
    metrics: Metrics,
}

impl Limiter {
    pub fn new(limits: Limits, redis_url: &str, workers: usize, metrics: Metrics) -> anyhow::Result<Self> {
        let timeout = Duration::from_millis(limits.redis_timeout_ms);
        let shared = Shared::new(redis_url, timeout, workers, metrics.clone())?;
        Ok(Self { limits, shared, local: Local::default(), metrics })
    }

    pub async fn check(&self, class: Class, caller: &Caller) -> Verdict {
        let buckets = buckets(&self.limits, class, caller);
        let verdict = match self.shared.check(buckets).await {
            Ok(verdict) => Some(verdict),
            Err(buckets) => {
                self.metrics.limit_fallback.inc();
                self.local.check_all(&buckets)
            }
        };
        // There is always a bucket; were there none, nothing would be limited.
        let verdict = verdict.unwrap_or(Verdict {
            allowed: true,
            rate: self.limits.read_per_address,
            remaining: 0,
            retry_after: Duration::ZERO,
            full_after: Duration::ZERO,
        });
        if !verdict.allowed {
            self.metrics.limited.with_label_values(&[class.as_str()]).inc();
        }
        verdict
    }

    /// Keeps the process's own buckets few.
    pub fn sweep(&self) {
        self.local.forget_idle();
    }
}

/// Finds out who calls, counts, refuses or lets `run` answer.
pub async fn limit<F: Future<Output = Response>>(
    app: &App,
    peer: SocketAddr,
    pattern: &str,
    request: Request,
    run: impl FnOnce(Request, Caller) -> F,
) -> Response {
    let caller = Caller::of(peer, request.headers(), &app.trusted, &app.authority);
    let class = class(request.method(), pattern);
    let lane = routes::lane(request.method(), pattern, caller.is_staff);
    if app.pressure.refuses(lane) {
        app.metrics.shed_by_lag.with_label_values(&[lane.as_str()]).inc();
        // Whoever asks again at once costs nearly what an answer does.
        tokio::time::sleep(REFUSAL_TAKES.mul_f64(rand::random_range(0.5..1.5))).await;
        return busy().into_response();
    }
    let verdict = app.limiter.check(class, &caller).await;
    let mut response =
        if verdict.allowed { run(request, caller).await } else { too_many(&verdict).into_response() };
    tell(response.headers_mut(), class, &verdict);
    response
}

/// 503: nothing was done.
fn busy() -> Problem {
    let detail = "this gateway has more to do than it can; nothing was done";
    Problem::unavailable("overloaded", detail, rand::random_range(1..=3))
}

fn too_many(verdict: &Verdict) -> Problem {
    let mut problem =
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate-limited", "too many requests; slow down");
    problem.retry_after_secs = Some(secs_up(verdict.retry_after).max(1));
    problem
}

fn tell(headers: &mut HeaderMap, class: Class, verdict: &Verdict) {
    let Rate { per_sec, burst } = verdict.rate;
    let (name, window) = (class.as_str(), burst.div_ceil(per_sec.max(1)).max(1));
    let policy = format!("\"{name}\";q={burst};w={window}");
    let state = format!("\"{name}\";r={};t={}", verdict.remaining, secs_up(verdict.full_after));
    for (name, text) in [(RATELIMIT_POLICY, policy), (RATELIMIT, state)] {
        // A service behind may limit more tightly; its word stands.
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.entry(name).or_insert(value);
        }
    }
}

fn secs_up(duration: Duration) -> u32 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(u32::MAX)
}
