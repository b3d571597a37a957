//! One value that holds every dependency of the handlers.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use common::authz::Authority;
use common::authz::jwt::SigningKey;
use common::personal::MonthKeys;
use common::tls::Tls;
use common::{PaymentId, Problem, RegionName, ShowId};
use deadpool_postgres::{Object, Pool};
use http::StatusCode;
use raft::client::{RegistryClient, RegistryView};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::audit;
use crate::config::Config;
use crate::contacts::Contacts;
use crate::host::{Host, HostError, Hosts, Means};
use crate::journal::{Attempts, Journal, Writer};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::payments::Provider;
use crate::projection::Nudge;
use crate::relay::{self, Relay};
use crate::replicas::caught_up::CaughtUp;
use crate::replicas::commits::Commits;
use crate::replicas::copies::{self, Copies, Copy};
use crate::replicas::guard::Guard;
use crate::replicas::peers::{Endpoints, Peers};
use crate::replicas::{Membership, ReplicaStore, store};
use crate::reservations::origin::Origins;
use crate::session::Session;
use crate::tickets::TicketKeys;

#[derive(Clone)]
pub struct App(Arc<Inner>);

pub struct Inner {
    pub config: Config,
    pub pool: Pool,
    /// This region's replicas of shows' journals.
    pub replicas: ReplicaStore,
    pub authority: Arc<Authority>,
    pub global: Channel,
    pub registry: RegistryClient,
    pub view: RegistryView,
    pub hosts: Hosts,
    pub relay: Relay,
    /// Shows that other regions lead.
    pub copies: Copies,
    pub projector: Nudge,
    /// To be called once what is for the audit log has committed.
    pub audit: audit::Nudge,
    pub provider: Box<dyn Provider>,
    pub ticket_keys: TicketKeys,
    /// This process's life, as the registry numbered it.
    pub session: Session,
    /// Said to the registry with every sign of life.
    pub caught_up: CaughtUp,
    /// Who this process is to the others.
    pub tls: Tls,
    pub origins: Origins,
    pub contacts: Contacts,
    pub metrics: Metrics,
    /// The process was told to stop: streams end.
    pub stop: CancellationToken,
    /// Payments that a request here is carrying out now.
    under_way: Mutex<HashSet<PaymentId>>,
}

/// What the handlers' dependencies are made from.
pub struct Parts {
    pub config: Config,
    pub pool: Pool,
    /// The one that looks at the pool's connections.
    pub guard: Guard,
    pub authority: Arc<Authority>,
    /// Followed by the caller.
    pub month_keys: MonthKeys,
    pub global: Channel,
    pub registry: RegistryClient,
    pub view: RegistryView,
    /// Where other regions' processes take journals.
    pub endpoints: Endpoints,
    pub tls: Tls,
    pub session: Session,
    pub caught_up: CaughtUp,
    pub ticket_key: SigningKey,
    pub provider: Box<dyn Provider>,
    pub metrics: Metrics,
    pub stop: CancellationToken,
}

/// A payment that is being carried out; ends with the value.
pub struct UnderWay {
    app: App,
    payment: PaymentId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.app.under_way().remove(&self.payment);
    }
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    /// Wires the parts together; the projector and the reconciler are started by the caller.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            config,
            pool,
            guard,
            authority,
            month_keys,
            global,
            registry,
            view,
            endpoints,
            tls,
            session,
            caught_up,
            ticket_key,
            provider,
            metrics,
            stop,
        } = parts;
        let projector = Nudge::new(config.notices);
        let url = config.redis_url.reveal();
        let relayed = relay::Means {
            region: config.region.clone(),
            session: session.clone(),
            journal: Journal::new(pool.clone()),
            view: view.clone(),
            metrics: metrics.clone(),
        };
        let relay = if url.is_empty() { Relay::none() } else { Relay::start(url, relayed, &stop) };
        let peers = Peers::new(
            &config.region,
            session.clone(),
            endpoints,
            tls.clone(),
            metrics.clone(),
            stop.clone(),
        );
        let standings = Membership {
            region: config.region.clone(),
            view: view.clone(),
            registry: registry.clone(),
            guard: guard.clone(),
        };
        let commits = Commits::default();
        let replicas = ReplicaStore::start(store::Means {
            pool: pool.clone(),
            guard,
            standings: Arc::new(standings),
            metrics: metrics.replicas.clone(),
            wanted: Default::default(),
            commits: commits.clone(),
        });
        let hosts = Hosts::new(Means {
            region: config.region.clone(),
            session: session.clone(),
            journal: Journal::new(pool.clone()),
            writer: Writer::start(pool.clone(), metrics.clone()),
            store: replicas.clone(),
            peers,
            registry: registry.clone(),
            view: view.clone(),
            projector: projector.clone(),
            attempts: Attempts::default(),
            metrics: metrics.clone(),
            relay: relay.clone(),
        });
        relay.serve(hosts.clone(), stop.clone());
        let copies = Copies::new(copies::Means {
            region: config.region.clone(),
            journal: Journal::new(pool.clone()),
            view: view.clone(),
            commits,
            metrics: metrics.clone(),
            stop: stop.clone(),
        });
        let contacts = Contacts::new(month_keys, global.clone());
        let origins = Origins::new(config.master_key.reveal());
        let ticket_keys = TicketKeys::new(config.issuer.clone(), ticket_key, view.clone());
        let under_way = Mutex::default();
        Self(Arc::new(Inner {
            config,
            pool,
            replicas,
            authority,
            global,
            registry,
            view,
            hosts,
            relay,
            copies,
            projector,
            audit: audit::Nudge::default(),
            provider,
            ticket_keys,
            session,
            caught_up,
            tls,
            origins,
            contacts,
            metrics,
            stop,
            under_way,
        }))
    }

    /// Marks a payment as being carried out by this request; none where another one is at it.
    pub fn begin(&self, payment: PaymentId) -> Option<UnderWay> {
        self.under_way().insert(payment).then(|| UnderWay { app: self.clone(), payment })
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, HashSet<PaymentId>> {
        self.0.under_way.lock().expect("no code panics while holding it")
    }

    /// The host of the show inside another thing's id. Where there is no such show, there is no such `what`.
    pub async fn host_of(&self, show: ShowId, what: &str) -> Result<Host, Problem> {
        self.hosts.get(show).await.map_err(|error| match error {
            HostError::NoShow => Problem::not_found(what),
            other => other.into(),
        })
    }

    /// The seat map of a show: where it is led here, from there; where another process of the region leads
    /// it, from a copy that follows; else it is led from now on.
    pub async fn live(&self, show: ShowId) -> Result<Arc<Live>, HostError> {
        if let Some(live) = self.hosts.live(show) {
            return Ok(live);
        }
        if let Some(live) = self.relay.follow(show).await {
            return Ok(live);
        }
        match self.hosts.get(show).await {
            Ok(host) => Ok(host.live),
            // Perhaps a later ballot was promised: another process leads, and Redis does not tell.
            Err(error @ HostError::Unavailable(_)) => self.relay.follow_journal(show).await.ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// What this region has of a show that it does not lead, unless `freshest` is asked for: that has the owner.
    pub async fn copy(&self, show: ShowId, freshest: bool) -> Option<Arc<Copy>> {
        if freshest { None } else { self.copies.of(show).await }
    }

    /// The same where it owns the show and cannot lead it, as no majority answers.
    pub async fn copy_instead(&self, show: ShowId, freshest: bool, why: &HostError) -> Option<Arc<Copy>> {
        let unled = matches!(why, HostError::Unavailable(_)) && !freshest;
        if unled { self.copies.kept(show).await } else { None }
    }

    /// Whether this is the process of its region that does what one of them is to do.
    pub fn is_first_process(&self) -> bool {
        self.session.is_first(&self.view, self.region())
    }

    /// Whether this region answers for the show, as last heard: a replica knows other regions' shows too.
    pub fn owns(&self, show: ShowId) -> bool {
        match self.view.show(show) {
            Some(record) => record.owner == *self.region(),
            None => show.is_home(self.region()),
        }
    }

    /// The region in which a show was born, by its id.
    pub fn home_of(&self, show: ShowId) -> Option<RegionName> {
        self.regions().iter().find(|region| show.is_home(region)).cloned()
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A connection, or 503: nothing was done.
    pub async fn db(&self) -> Result<Object, Problem> {
        self.pool.get().await.map_err(|error| {
            tracing::warn!(%error, "no database connection");
            Problem::unavailable("database-unavailable", "this region's database cannot be reached", 2)
        })
    }

    pub fn region(&self) -> &RegionName {
        &self.config.region
    }

    pub fn regions(&self) -> &[RegionName] {
        &self.config.regions
    }

    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    pub fn global_channel(&self) -> Channel {
        self.global.clone()
    }

    /// 421 to the home region of an id with this tag (`ids::home_tag_in`), for the gateway to follow; 404
    /// where no region has the tag.
    pub fn elsewhere(&self, tag: [u8; 2], what: &str) -> Problem {
        match self.regions().iter().find(|r| r.tag() == tag) {
            Some(home) if home != self.region() => not_owner(home, 0),
            _ => Problem::not_found(what),
        }
    }
}

/// 421: another region answers for this; `epoch` 0 where no registry was asked.
pub fn not_owner(owner: &RegionName, epoch: u64) -> Problem {
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "not-owner", format!("`{owner}` answers for this"))
        .with("owner", owner)
        .with("epoch", epoch)
}

/// A database error inside a handler: logged, not shown.
pub fn db_failed(error: impl std::fmt::Display) -> Problem {
    Problem::internal(error)
}
