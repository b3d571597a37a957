//! One value that holds every dependency of the handlers.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use common::authz::Authority;
use common::authz::jwt::SigningKey;
use common::{PaymentId, Problem, RegionName, ShowId};
use deadpool_postgres::{Object, Pool};
use http::StatusCode;
use raft::client::{RegistryClient, RegistryView};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::config::Config;
use crate::host::{Host, HostError, Hosts, Means};
use crate::journal::{Attempts, Journal, Writer};
use crate::metrics::Metrics;
use crate::payments::Provider;
use crate::projection::Nudge;
use crate::reservations::origin::Origins;
use crate::tickets::TicketKeys;

#[derive(Clone)]
pub struct App(Arc<Inner>);

pub struct Inner {
    pub config: Config,
    pub pool: Pool,
    pub authority: Arc<Authority>,
    pub global: Channel,
    pub registry: RegistryClient,
    pub view: RegistryView,
    pub hosts: Hosts,
    pub projector: Nudge,
    pub provider: Box<dyn Provider>,
    pub ticket_keys: TicketKeys,
    pub origins: Origins,
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
    pub authority: Arc<Authority>,
    pub global: Channel,
    pub registry: RegistryClient,
    pub view: RegistryView,
    pub session: u64,
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
            authority,
            global,
            registry,
            view,
            session,
            ticket_key,
            provider,
            metrics,
            stop,
        } = parts;
        let projector = Nudge::default();
        let hosts = Hosts::new(Means {
            region: config.region.clone(),
            session,
            journal: Journal::new(pool.clone()),
            writer: Writer::start(pool.clone(), metrics.clone()),
            registry: registry.clone(),
            view: view.clone(),
            projector: projector.clone(),
            attempts: Attempts::default(),
            metrics: metrics.clone(),
        });
        let origins = Origins::new(config.master_key.reveal());
        let ticket_keys = TicketKeys::new(config.issuer.clone(), ticket_key, view.clone());
        let under_way = Mutex::default();
        Self(Arc::new(Inner {
            config,
            pool,
            authority,
            global,
            registry,
            view,
            hosts,
            projector,
            provider,
            ticket_keys,
            origins,
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
