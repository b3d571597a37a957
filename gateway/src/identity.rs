//! Who is calling, for limits and logs only: an address always, a user where the token is good. A bad
//! token is the concern of the service it is shown to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use common::authz::{Actor, Authority};
use common::feed::{Follower, apply_to_authority};
use common::ops::Dependency;
use common::proto::feed::Update;
use common::{RegionName, UserId};
use http::{HeaderMap, header};

use crate::address::{Network, Origin, origin};
use crate::metrics::Metrics;

#[derive(Clone, Debug)]
pub struct Caller {
    pub origin: Origin,
    pub user: Option<UserId>,
    /// Whether the token names any role beyond a customer's.
    pub is_staff: bool,
    /// Where the user wants to be served.
    pub region: Option<RegionName>,
}

impl Caller {
    pub fn of(peer: SocketAddr, headers: &HeaderMap, trusted: &[Network], authority: &Authority) -> Self {
        let actor = bearer(headers).and_then(|token| authority.authenticate(token).ok());
        let is_staff = actor.as_ref().is_some_and(|a| a.claims.roles.iter().any(|r| r.role != "customer"));
        Self {
            origin: origin(peer, headers, trusted),
            user: actor.as_ref().map(Actor::user),
            is_staff,
            region: actor.and_then(|a| a.claims.region.clone()),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// How long a start waits for the feed.
const AWAITED: Duration = Duration::from_secs(5);

/// Keeps the authority current from the feed, in memory.
pub struct InMemory {
    authority: Arc<Authority>,
    position: AtomicI64,
    seen: Dependency,
    metrics: Metrics,
    started: Instant,
}

impl InMemory {
    pub fn new(authority: Arc<Authority>, seen: Dependency, metrics: Metrics) -> Self {
        Self { authority, position: AtomicI64::new(0), seen, metrics, started: Instant::now() }
    }
}

#[tonic::async_trait]
impl Follower for InMemory {
    async fn position(&self) -> anyhow::Result<i64> {
        Ok(self.position.load(Ordering::Relaxed))
    }

    async fn apply(&self, updates: Vec<Update>) -> anyhow::Result<()> {
        for update in &updates {
            apply_to_authority(&self.authority, update).await?;
            self.position.fetch_max(update.position, Ordering::Relaxed);
        }
        Ok(())
    }

    fn connection(&self, fault: Option<String>) {
        self.metrics.feed_up.set(fault.is_none().into());
        // Once seen it stays up: the gateway works without it, and so do the regions behind. One that starts
        // while `global` is away waits for it a moment, then serves: all limits go by address until it comes.
        if self.authority.ready() || self.started.elapsed() > AWAITED {
            self.seen.up();
        }
    }
}
