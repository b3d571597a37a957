//! The reconciler that empties the outbox: nudged by this process's own writes, every second for those of
//! others and for what is due again. Several processes share the work; a claim keeps them apart.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lettre::message::Mailbox;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::outbox::{self, Channel, Claimed, Kind, Outcome};
use super::texts::{Text, compose};
use super::tokens;
use super::transport::{Transport, Unsent, message};
use crate::accounts::store;
use crate::app::App;
use crate::fault::Result;
use crate::metrics::METRICS;

const POLL: Duration = Duration::from_secs(1);
const LONGEST_PAUSE_SECS: f64 = 600.0;
const KEPT_TRYING: SignedDuration = SignedDuration::from_hours(72);

/// Wakes the sender.
#[derive(Clone, Default)]
pub struct Nudge(Arc<Notify>);

impl Nudge {
    pub fn now(&self) {
        self.0.notify_one();
    }

    pub async fn notified(&self) {
        self.0.notified().await;
    }
}

/// Mails about accounts, and how much mail waits. Runs until `stop`.
pub async fn run(app: App, transport: Option<Arc<Transport>>, stop: CancellationToken) {
    if transport.is_none() {
        tracing::warn!("neither `mail.folder` nor `mail.smtp_url` is set: no mail is sent");
    }
    loop {
        if let Some(transport) = &transport {
            told(drain(&app, transport, Channel::Mail, &stop).await);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.mail.0.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        if let Ok(db) = app.db().await
            && let Ok((count, oldest_secs)) = outbox::waiting(&db, &[Channel::Mail, Channel::Order]).await
        {
            METRICS.mail_waiting.set(count);
            METRICS.mail_oldest_secs.set(oldest_secs);
        }
    }
}

/// Mails about orders, beside the others, several at a time: a rush brings thousands. Runs until `stop`.
pub async fn run_orders(app: App, transport: Arc<Transport>, stop: CancellationToken) {
    loop {
        let drain = || async { told(drain(&app, &transport, Channel::Order, &stop).await) };
        tokio::join!(drain(), drain(), drain(), drain());
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.order_mail.0.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

fn told(drained: Result<()>) {
    if let Err(fault) = drained {
        tracing::warn!(error = fault.into_problem().detail, "mail has to wait");
    }
}

/// Sends what is due. A server that does not take mail now is left alone until the next turn.
async fn drain(app: &App, transport: &Transport, channel: Channel, stop: &CancellationToken) -> Result<()> {
    while !stop.is_cancelled() {
        let Some(claimed) = outbox::claim(&app.db().await?, channel).await? else { return Ok(()) };
        let (id, kind) = (claimed.id, claimed.kind);
        let label = kind.map_or("unknown", Kind::as_str);
        let outcome = match attempt(app, transport, &claimed).await? {
            Ok(outcome) => outcome,
            Err(Unsent::Refused(why)) => {
                tracing::error!(%id, kind = label, why, "a mail was refused for good");
                Outcome::Refused
            }
            Err(Unsent::Later(why)) if age(&claimed) > KEPT_TRYING => {
                tracing::error!(%id, kind = label, why, "a mail was given up");
                Outcome::GivenUp
            }
            Err(Unsent::Later(why)) => {
                tracing::warn!(%id, kind = label, attempts = claimed.attempts, why, "a mail has to wait");
                METRICS.mails.with_label_values(&[label, "again"]).inc();
                outbox::again_in(&app.db().await?, id, pause_secs(claimed.attempts)).await?;
                return Ok(());
            }
        };
        outbox::done(&app.db().await?, id, outcome).await?;
        METRICS.mails.with_label_values(&[label, outcome.as_str()]).inc();
    }
    Ok(())
}

pub fn age(claimed: &Claimed) -> SignedDuration {
    Timestamp::now().duration_since(claimed.created_at)
}

/// 1, 2, 4 … seconds, up to ten minutes.
pub fn pause_secs(attempts: u32) -> f64 {
    f64::from(2u32.saturating_pow(attempts.saturating_sub(1).min(16))).min(LONGEST_PAUSE_SECS)
}

/// Finds out whom the mail is for, makes its token good, and hands it over, in this order: a link works
/// before it can be read.
async fn attempt(
    app: &App,
    transport: &Transport,
    claimed: &Claimed,
) -> Result<std::result::Result<Outcome, Unsent>> {
    let Some(kind) = claimed.kind else {
        return Ok(Err(Unsent::Later("this release does not know its kind".into())));
    };
    let mut token = String::new();
    let mut address = claimed.address.clone();
    if let Some(purpose) = kind.purpose() {
        let mut db = app.db().await?;
        let tx = db.transaction().await?;
        let account = match claimed.user {
            Some(user) => store::find_for_update(&tx, user).await?,
            None => match store::find_by_login(&tx, &address).await? {
                Some(account) => store::find_for_update(&tx, account.user.id).await?,
                None => None,
            },
        };
        let account = account.filter(|a| !a.deleted && !a.user.disabled);
        let Some(user) = account.map(|a| a.user) else { return Ok(Ok(Outcome::Dropped)) };
        let same = user.email.as_ref().is_some_and(|own| own.to_lowercase() == address.to_lowercase());
        if !same || (kind == Kind::Verify && user.email_verified) {
            return Ok(Ok(Outcome::Dropped));
        }
        // As the owner writes it, not as somebody typed it.
        address = user.email.unwrap_or(address);
        token = tokens::derive(&app.sealing, purpose, claimed.id);
        // Whoever presses the button ten times gets one mail.
        if tokens::sent_just_now(&tx, &token, purpose, user.id, &address).await? {
            return Ok(Ok(Outcome::Dropped));
        }
        tokens::put(&tx, &token, purpose, user.id, &address).await?;
        tx.commit().await?;
    }
    let text = match (kind, &claimed.text) {
        (Kind::News(news), Some(body)) => {
            if let Some(user) = claimed.user {
                address = store::address(&app.db().await?, user).await?.unwrap_or_default();
            }
            Some(Text { subject: news.subject(), body: body.clone() })
        }
        _ => compose(kind, &token, &app.config.mail.link_url),
    };
    // Who is gone hears of nothing any more.
    let Some(text) = text.filter(|_| !address.is_empty()) else { return Ok(Ok(Outcome::Dropped)) };
    let from: Mailbox = match app.config.mail.from.parse() {
        Ok(from) => from,
        Err(error) => return Ok(Err(Unsent::Later(format!("`mail.from`: {error}")))),
    };
    let message = match message(claimed.id, &from, &address, text) {
        Ok(message) => message,
        Err(unsent) => return Ok(Err(unsent)),
    };
    Ok(transport.send(claimed.id, message).await.map(|()| Outcome::Sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_bounded() {
        let pauses: Vec<f64> = [1, 2, 3, 10, 11, 40].map(pause_secs).to_vec();
        assert_eq!(pauses, [1.0, 2.0, 4.0, 512.0, 600.0, 600.0]);
    }
}
