//! Numbered SQL for each kind of database, applied under a lock, and the connection pool that services use.
//!
//! Migrations expand first and contract a release later, so that old and new processes run side by side. A
//! service refuses to start on a schema that is older than it needs or that it does not know
//! ([`Schema::check`]).

use std::ops::DerefMut;
use std::time::Duration;

use deadpool_postgres::{Config, Hook, ManagerConfig, Pool, PoolConfig, RecyclingMethod, Runtime, Timeouts};
use tokio_postgres::NoTls;

#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "testing")]
#[cfg(test)]
mod tests;

mod global {
    refinery::embed_migrations!("global");
}

mod regional {
    refinery::embed_migrations!("regional");
}

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    Global,
    Regional,
}

/// Any number will do, as long as all replicas of all versions use the same.
const LOCK: i64 = 0x6d61_7271_7565_6501;

impl Schema {
    fn runner(self) -> refinery::Runner {
        match self {
            Self::Global => global::migrations::runner(),
            Self::Regional => regional::migrations::runner(),
        }
    }

    fn newest(self) -> i32 {
        self.runner().get_migrations().iter().map(|m| m.version()).max().unwrap_or(0)
    }

    /// Brings the database up to date; several at once wait for each other. Returns how many were applied.
    pub async fn migrate(self, url: &str) -> anyhow::Result<usize> {
        let pool = pool(url, 1)?;
        let mut client = pool.get().await?;
        // The history table must not move with the user's name, and the lock ends with the connection.
        client.batch_execute("SET search_path TO public").await?;
        client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
        let report = self.runner().run_async(client.deref_mut().deref_mut()).await;
        client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await?;
        Ok(report?.applied_migrations().len())
    }

    /// Refuses a schema that this program does not fit.
    pub async fn check(self, pool: &Pool) -> anyhow::Result<()> {
        let client = pool.get().await?;
        let row = client
            .query_opt("SELECT max(version) FROM public.refinery_schema_history", &[])
            .await
            .map_err(|_| anyhow::anyhow!("the database has no schema yet; run `marquee migrate`"))?;
        let found: i32 = row.and_then(|r| r.get::<_, Option<i32>>(0)).unwrap_or(0);
        let known = self.newest();
        anyhow::ensure!(
            found >= known,
            "the schema is at {found}, this program needs {known}; run `marquee migrate`"
        );
        // One step ahead is the expanding half of the next release, which old processes live with.
        anyhow::ensure!(
            found <= known + 1,
            "the schema is at {found}, this program knows {known}; run a newer one"
        );
        Ok(())
    }
}

/// A pool whose connections say who they are and never trust without `synchronous_commit`.
pub fn pool(url: &str, max_size: usize) -> anyhow::Result<Pool> {
    pool_with(url, max_size, None)
}

/// As [`pool`]; `on_connect` looks at each new connection before anybody gets it.
pub fn pool_with(url: &str, max_size: usize, on_connect: Option<Hook>) -> anyhow::Result<Pool> {
    let mut config = Config::new();
    config.url = Some(url.to_owned());
    config.options = Some("-c synchronous_commit=on -c statement_timeout=30000".to_owned());
    config.connect_timeout = Some(Duration::from_secs(3));
    config.keepalives_idle = Some(Duration::from_secs(10));
    config.application_name = Some("marquee".to_owned());
    config.manager = Some(ManagerConfig { recycling_method: RecyclingMethod::Fast });
    let mut pool = PoolConfig::new(max_size);
    pool.timeouts = Timeouts {
        wait: Some(Duration::from_secs(5)),
        create: Some(Duration::from_secs(5)),
        recycle: Some(Duration::from_secs(5)),
    };
    config.pool = Some(pool);
    // The error's text could carry the URL and with it a password.
    let unusable = || anyhow::anyhow!("the Postgres URL is not usable");
    let mut builder = config.builder(NoTls).map_err(|_| unusable())?.runtime(Runtime::Tokio1);
    if let Some(hook) = on_connect {
        builder = builder.post_create(hook);
    }
    builder.build().map_err(|_| unusable())
}
