//! What a start makes sure of: a schema that fits, a policy, a signing key, an admin.

use std::time::Duration;

use common::UserId;
use common::ops::Dependency;
use migrations::Schema;
use tokio_util::sync::CancellationToken;

use crate::accounts::store::{self, NewAccount};
use crate::app::App;
use crate::config::BootstrapAdmin;
use crate::fault::{Fault, Result};
use crate::{audit, db, feed, person_keys, policy};

const RETRY: Duration = Duration::from_millis(500);

/// Waits for Postgres; fails on a schema that this program does not fit. False: it was told to stop.
pub async fn wait_for_schema(
    app: &App,
    schema: &Dependency,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    loop {
        match app.pool.get().await {
            Ok(_) => {
                Schema::Global.check(&app.pool).await.inspect_err(|e| schema.down(e.to_string()))?;
                schema.up();
                return Ok(true);
            }
            Err(error) => {
                tracing::warn!(%error, "Postgres is not reached yet");
                schema.down("Postgres is not reached");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

/// Everything that a new database lacks. Several processes may do this at once.
pub async fn seed(app: &App) -> anyhow::Result<()> {
    let told = |fault: Fault| anyhow::anyhow!(fault.into_problem().detail);
    policy::store::seed(&app.pool).await.map_err(told)?;
    person_keys::ensure_months(&app.pool, &app.sealing, app.config.contacts_kept_months)
        .await
        .map_err(told)?;
    app.keys
        .ensure(&app.pool, app.config.signing_key_days, app.config.access_token_secs)
        .await
        .map_err(told)?;
    // Here and not by the feed first: a wrong master key should end the start.
    app.keys.reload(&app.pool).await?;
    bootstrap_admin(app, &app.config.bootstrap_admin).await.map_err(told)
}

async fn bootstrap_admin(app: &App, admin: &BootstrapAdmin) -> Result<()> {
    if !admin.is_wanted() {
        return Ok(());
    }
    let sql = "SELECT 1 FROM user_roles r JOIN users u ON u.id = r.user_id
               WHERE r.role = 'admin' AND r.region = '' AND u.deleted_at IS NULL LIMIT 1";
    if db::row(&app.db().await?, sql, &[]).await?.is_some() {
        return Ok(());
    }
    let hash = app.passwords.hash(admin.password.reveal().to_owned()).await?;
    let mut client = app.db().await?;
    let tx = client.transaction().await?;
    // Asked again under the lock: another process may be starting too.
    feed::store::lock(&tx).await?;
    if db::row(&tx, sql, &[]).await?.is_some() {
        return Ok(());
    }
    let id = UserId::new();
    let (email, username) = (admin.email.trim(), admin.username.trim());
    let new = NewAccount { id, email, username, name: "Administrator", password_hash: &hash };
    store::insert(&tx, &new, "admin").await?;
    let entry = audit::Entry {
        actor: None,
        action: "user.bootstrap",
        target: id.to_string(),
        before: None,
        after: None,
        address: "",
    };
    audit::write(&tx, entry).await?;
    tx.commit().await?;
    tracing::info!(username, "the first admin was created");
    Ok(())
}
