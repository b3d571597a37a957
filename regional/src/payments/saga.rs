//! Bringing one payment or refund to its end: asks the provider, journals what it said. The same steps serve
//! the request that started it, the webhook and the reconciler, in any order and as often as they like.

use common::{Money, PaymentId, RefundId, ShowBound};

use super::provider::ProviderError;
use super::steps::{Call, Next, Steps, goes_back_by_provider};
use crate::app::App;
use crate::host::{Answer, Host, HostError};
use crate::show::{Asked, Command, Outcome, Owned, Payment, Refund, RefundStatus};

/// Why a payment could not be brought further now; the reconciler tries again.
#[derive(Debug, thiserror::Error)]
pub enum Stuck {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

/// Charges a payment that was just committed as started, and journals the outcome.
pub async fn charge(app: &App, host: &Host, payment: &Owned<Payment>) -> Result<Host, Stuck> {
    bring_on(app, host, payment, Steps::charge()).await
}

/// Settles a payment of unknown outcome: what the provider knows is the truth; what it does not know is
/// canceled under the same id, so that a late call cannot charge.
pub async fn settle(app: &App, host: &Host, payment: &Owned<Payment>) -> Result<Host, Stuck> {
    bring_on(app, host, payment, Steps::settle()).await
}

/// Follows up the provider's own word: what its books say is journaled.
pub async fn hinted(app: &App, host: &Host, payment: &Owned<Payment>) -> Result<Host, Stuck> {
    bring_on(app, host, payment, Steps::hinted()).await
}

async fn bring_on(
    app: &App,
    host: &Host,
    payment: &Owned<Payment>,
    (mut steps, mut call): (Steps, Call),
) -> Result<Host, Stuck> {
    let (amount, token) = (money(host, payment.amount), payment.token().unwrap_or_default());
    loop {
        let heard = match call {
            Call::Charge => app.provider.charge(payment.id, amount, token).await.map(Some),
            Call::Find => app.provider.find(payment.id).await,
            Call::Cancel => app.provider.cancel(payment.id, amount).await.map(Some),
        };
        if let Err(error @ ProviderError::Unknown(_)) = &heard {
            tracing::warn!(payment = %payment.id, ?call, %error, "the provider did not say");
        }
        match steps.heard(heard) {
            Next::Call(next) => call = next,
            Next::Journal(outcome) => return journal(app, payment.id, outcome).await,
            Next::Nothing => return Ok(host.clone()),
            Next::Stuck(error) => return Err(error.into()),
        }
    }
}

fn money(host: &Host, amount: i64) -> Money {
    host.read(|show| show.plan.money(amount))
}

/// Journals an outcome; one that is known already changes nothing. Money that came for seats that are gone
/// is on its way back when this returns.
pub async fn journal(app: &App, payment: PaymentId, outcome: Outcome) -> Result<Host, Stuck> {
    let show = payment.show();
    let now = jiff::Timestamp::now();
    let command = Command::SettlePayment {
        payment,
        outcome,
        chance: rand::random(),
        refund: RefundId::new(show, now, rand::random()),
    };
    let asked = Asked { command, by: None, key: None, trace: None, from: None };
    let (host, answer) = app.hosts.ask(show, asked).await?;
    if let Answer::Refused { refusal, .. } = &answer {
        return Err(HostError::Broken(format!("{payment} cannot be settled: {refusal:?}")).into());
    }
    let label = host.read(|show| show.payments.get(&payment).map(|p| p.status));
    app.metrics.payment(label, matches!(answer, Answer::Done { .. }));
    let unclaimed: Vec<RefundId> = host.read(|show| {
        let open = show
            .refunds
            .values()
            .filter(|r| show.payment_of(r).id == payment && r.status == RefundStatus::Pending);
        open.map(|r| r.id).collect()
    });
    for refund in unclaimed {
        give_back(app, &host, refund).await?;
    }
    Ok(host)
}

/// Gives back what the provider has for a payment that no entry tells of. That it goes back is in the journal
/// first; that it did, the provider's books say.
pub async fn return_stray(app: &App, payment: PaymentId, amount: i64) -> Result<(), Stuck> {
    let show = payment.show();
    // One for all tries.
    let refund = RefundId::within(show, payment.own());
    let command = Command::ReturnStray { payment, refund, amount };
    let (host, _) =
        app.hosts.ask(show, Asked { command, by: None, key: None, trace: None, from: None }).await?;
    if host.read(|show| !show.strays.contains(&payment)) {
        return Ok(());
    }
    match app.provider.refund(refund, payment, money(&host, amount)).await {
        Ok(()) => app.metrics.refund(true),
        Err(ProviderError::Refused(why)) => {
            app.metrics.refund(false);
            tracing::error!(%payment, why, "the provider refuses to give a stray's money back; an operator must look");
        }
        Err(error @ ProviderError::Unknown(_)) => return Err(error.into()),
    }
    Ok(())
}

/// Carries out a refund that is committed as started.
pub async fn give_back(app: &App, host: &Host, refund: RefundId) -> Result<(), Stuck> {
    let found = host.read(|show| {
        let refund = show.refunds.get(&refund)?;
        Some((refund.to_owned(), show.payment_of(&refund).to_owned()))
    });
    let Some((refund, payment)) = found else {
        return Err(HostError::Broken(format!("{refund} is not in its show")).into());
    };
    if refund.status != RefundStatus::Pending {
        return Ok(());
    }
    let failed = match given_back(app, host, &refund, &payment).await {
        Ok(()) => None,
        Err(ProviderError::Refused(why)) => {
            tracing::error!(refund = %refund.id, why, "the provider refuses a refund; an operator must look");
            Some(why)
        }
        Err(error @ ProviderError::Unknown(_)) => return Err(error.into()),
    };
    app.metrics.refund(failed.is_none());
    let command = Command::SettleRefund { refund: refund.id, failed };
    app.hosts.ask(refund.id.show(), Asked { command, by: None, key: None, trace: None, from: None }).await?;
    Ok(())
}

async fn given_back(
    app: &App,
    host: &Host,
    refund: &Owned<Refund>,
    payment: &Owned<Payment>,
) -> Result<(), ProviderError> {
    if !goes_back_by_provider(payment) {
        return Ok(());
    }
    app.provider.refund(refund.id, payment.id, money(host, refund.amount)).await
}
