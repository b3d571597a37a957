//! What is done from time to time: forgetting what is over, renewing the signing key, sampling the pool.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::accounts::sessions;
use crate::app::App;
use crate::fault::Result;
use crate::feed;
use crate::mail::{outbox, tokens};
use crate::metrics::METRICS;
use crate::sms::codes;
use crate::{person_keys, throttle};

const SAMPLE: Duration = Duration::from_secs(1);
/// In samples.
const ROUND: u32 = 60;

/// Runs until `stop`. What fails is tried again in the next round.
pub async fn run(app: App, stop: CancellationToken) {
    let mut beat = tokio::time::interval(SAMPLE);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for turn in (0..ROUND).cycle() {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = beat.tick() => {}
        }
        METRICS.sample_pool(&app.pool);
        if turn == ROUND - 1
            && let Err(fault) = round(&app).await
        {
            tracing::warn!(error = fault.into_problem().detail, "upkeep has to wait");
        }
    }
}

async fn round(app: &App) -> Result<()> {
    let db = app.db().await?;
    let revocations = feed::store::purge(&db).await?;
    let sessions = sessions::purge(&db).await?;
    let mails = outbox::purge(&db).await? + tokens::purge(&db).await? + codes::purge(&db).await?;
    let attempts = throttle::purge(&db).await?;
    if revocations + sessions + mails + attempts > 0 {
        tracing::debug!(revocations, sessions, mails, attempts, "forgot what is over");
    }
    drop(db);
    if let Some(position) =
        app.keys.ensure(&app.pool, app.config.signing_key_days, app.config.access_token_secs).await?
    {
        app.feed.published(position).await;
    }
    let kept = app.config.contacts_kept_months;
    if let Some(position) = person_keys::ensure_months(&app.pool, &app.sealing, kept).await? {
        app.feed.published(position).await;
    }
    Ok(())
}
