//! Databases of the bench's own on a platform's server, gone when it is over.

use anyhow::Context;
use migrations::Schema;

use crate::launcher::Run;

/// The URL of the first region's Postgres.
pub fn server(platform: &Run) -> anyhow::Result<String> {
    let url = platform.postgres.iter().find(|(name, _)| *name != "global").map(|(_, url)| url.clone());
    url.context("the platform has no region")
}

pub struct Database {
    server: String,
    name: String,
    pub url: String,
}

impl Database {
    /// An empty, migrated one; what an earlier run left under the name is dropped.
    pub async fn create(server: &str, name: &str) -> anyhow::Result<Self> {
        let client = migrations::pool(server, 1)?.get().await?;
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
        client.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        let (base, _) = server.rsplit_once('/').context("a Postgres URL names its database")?;
        let url = format!("{base}/{name}");
        Schema::Regional.migrate(&url).await?;
        Ok(Self { server: server.to_owned(), name: name.to_owned(), url })
    }

    pub async fn drop(self) -> anyhow::Result<()> {
        let client = migrations::pool(&self.server, 1)?.get().await?;
        client.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await?;
        Ok(())
    }
}
