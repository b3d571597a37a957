//! One value that holds every dependency of the handlers.

use std::ops::Deref;
use std::sync::Arc;

use common::authz::Authority;
use common::{Problem, RegionName};
use deadpool_postgres::{Object, Pool};
use http::StatusCode;
use tonic::transport::Channel;

use crate::config::Config;

#[derive(Clone)]
pub struct App(Arc<Inner>);

pub struct Inner {
    pub config: Config,
    pub pool: Pool,
    pub authority: Arc<Authority>,
    pub global: Channel,
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
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
