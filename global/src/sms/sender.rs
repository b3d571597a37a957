//! The reconciler that empties the outbox of messages; as the one of mails (`mail/sender.rs`), beside it, so that
//! neither server holds up the other's.

use std::time::Duration;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use super::codes;
use super::provider::{Message, Provider};
use crate::accounts::store;
use crate::app::App;
use crate::fault::Result;
use crate::mail::outbox::{self, Channel, Claimed, Kind, Outcome};
use crate::mail::sender::{age, pause_secs};
use crate::mail::transport::Unsent;
use crate::metrics::METRICS;

const POLL: Duration = Duration::from_secs(1);
/// A message that comes later than this confuses.
const KEPT_TRYING: SignedDuration = SignedDuration::from_hours(24);

/// Runs until `stop`.
pub async fn run(app: App, provider: Box<dyn Provider>, stop: CancellationToken) {
    loop {
        if let Err(fault) = drain(&app, provider.as_ref(), &stop).await {
            tracing::warn!(error = fault.into_problem().detail, "messages have to wait");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.sms.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        if let Ok(db) = app.db().await
            && let Ok((count, _)) = outbox::waiting(&db, &[Channel::Sms]).await
        {
            METRICS.sms_waiting.set(count);
        }
    }
}

/// Sends what is due. A provider that does not take messages now is left alone until the next turn.
async fn drain(app: &App, provider: &dyn Provider, stop: &CancellationToken) -> Result<()> {
    while !stop.is_cancelled() {
        let Some(claimed) = outbox::claim(&app.db().await?, Channel::Sms).await? else { return Ok(()) };
        let id = claimed.id;
        let outcome = match attempt(app, provider, &claimed).await? {
            Ok(outcome) => outcome,
            Err(Unsent::Refused(why)) => {
                tracing::error!(%id, why, "a message was refused for good");
                Outcome::Refused
            }
            Err(Unsent::Later(why)) if age(&claimed) > KEPT_TRYING => {
                tracing::error!(%id, why, "a message was given up");
                Outcome::GivenUp
            }
            Err(Unsent::Later(why)) => {
                tracing::warn!(%id, attempts = claimed.attempts, why, "a message has to wait");
                METRICS.mails.with_label_values(&["sms", "again"]).inc();
                outbox::again_in(&app.db().await?, id, pause_secs(claimed.attempts)).await?;
                return Ok(());
            }
        };
        outbox::done(&app.db().await?, id, outcome).await?;
        METRICS.mails.with_label_values(&["sms", outcome.as_str()]).inc();
    }
    Ok(())
}

/// To the number that the account has now, if it still wants messages, or has to prove it.
async fn attempt(
    app: &App,
    provider: &dyn Provider,
    claimed: &Claimed,
) -> Result<std::result::Result<Outcome, Unsent>> {
    let Some(user) = claimed.user else { return Ok(Ok(Outcome::Dropped)) };
    let db = app.db().await?;
    let (to, text) = match (claimed.kind, &claimed.text) {
        (Some(Kind::PhoneCode), _) => {
            let Some(to) = store::unproved_number(&db, user).await? else { return Ok(Ok(Outcome::Dropped)) };
            // Whoever presses the button ten times gets one message.
            let Some(code) = codes::make_good(&db, &app.sealing, claimed.id, user, &to).await? else {
                return Ok(Ok(Outcome::Dropped));
            };
            (to, codes::text(&code))
        }
        (_, Some(text)) => match store::number(&db, user).await? {
            Some(to) => (to, text.clone()),
            None => return Ok(Ok(Outcome::Dropped)),
        },
        (_, None) => return Ok(Ok(Outcome::Dropped)),
    };
    drop(db);
    let message = Message { id: claimed.id, to: &to, text: &text };
    Ok(provider.send(message).await.map(|()| Outcome::Sent))
}
