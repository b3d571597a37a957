//! Bringing one payment or refund to its end: asks the provider, journals what it said. The same steps serve
//! the request that started it, the webhook and the reconciler, in any order and as often as they like.

use common::{Money, PaymentId, RefundId};

use super::provider::{Charge, ChargeStatus, ProviderError};
use crate::app::App;
use crate::host::{Answer, Host, HostError};
use crate::show::{Asked, Command, Outcome, Payment, PaymentStatus, Refund, RefundStatus};

/// How often a charge is sent again when the provider failed without saying what happened.
const CHARGE_TRIES: u32 = 2;

/// Why a payment could not be brought further now; the reconciler tries again.
#[derive(Debug, thiserror::Error)]
pub enum Stuck {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

/// Charges a payment that was just committed as started, and journals the outcome.
pub async fn charge(app: &App, host: &Host, payment: &Payment) -> Result<Host, Stuck> {
    let (amount, token) = (money(host, payment.amount), payment.token.as_deref().unwrap_or_default());
    let mut last = None;
    for _ in 0..CHARGE_TRIES {
        match app.provider.charge(payment.id, amount, token).await {
            Ok(charge) => return journal(app, payment.id, outcome(&charge)).await,
            Err(ProviderError::Refused(why)) => {
                let failed = Outcome::Failed { reason: why, declined: false };
                return journal(app, payment.id, failed).await;
            }
            Err(error @ ProviderError::Unknown(_)) => {
                tracing::warn!(payment = %payment.id, %error, "a charge of unknown outcome");
                // A call that ran into the time limit may hang again; asking is quicker than repeating.
                if matches!(app.provider.find(payment.id).await, Ok(Some(_))) {
                    return settle(app, host, payment).await;
                }
                last = Some(error);
            }
        }
    }
    match last {
        Some(_) => settle(app, host, payment).await,
        None => Ok(host.clone()),
    }
}

/// Settles a payment of unknown outcome: what the provider knows is the truth; what it does not know is
/// canceled under the same id, so that a late call cannot charge.
pub async fn settle(app: &App, host: &Host, payment: &Payment) -> Result<Host, Stuck> {
    let charge = match app.provider.find(payment.id).await? {
        Some(charge) => charge,
        None => app.provider.cancel(payment.id, money(host, payment.amount)).await?,
    };
    journal(app, payment.id, outcome(&charge)).await
}

fn money(host: &Host, amount: i64) -> Money {
    host.read(|show| show.plan.money(amount))
}

/// What the provider's answer means for the payment.
pub fn outcome(charge: &Charge) -> Outcome {
    let reason = || charge.reason.clone();
    match charge.status {
        ChargeStatus::Succeeded => Outcome::Completed,
        ChargeStatus::Pending => Outcome::Pending,
        ChargeStatus::Declined => {
            Outcome::Failed { reason: reason().unwrap_or_else(|| "declined".into()), declined: true }
        }
        ChargeStatus::Canceled => {
            Outcome::Failed { reason: reason().unwrap_or_else(|| "provider_timeout".into()), declined: false }
        }
    }
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
    let asked = Asked { command, by: None, key: None, trace: None };
    let (host, answer) = app.hosts.ask(show, asked).await?;
    if let Answer::Refused { refusal, .. } = &answer {
        return Err(HostError::Broken(format!("{payment} cannot be settled: {refusal:?}")).into());
    }
    let label = host.read(|show| show.payments.get(&payment).map(|p| p.status));
    app.metrics.payment(label, matches!(answer, Answer::Done { .. }));
    let unclaimed: Vec<RefundId> = host.read(|show| {
        let open =
            show.refunds.values().filter(|r| r.payment == payment && r.status == RefundStatus::Pending);
        open.map(|r| r.id).collect()
    });
    for refund in unclaimed {
        give_back(app, &host, refund).await?;
    }
    Ok(host)
}

/// Carries out a refund that is committed as started.
pub async fn give_back(app: &App, host: &Host, refund: RefundId) -> Result<(), Stuck> {
    let found = host.read(|show| {
        let refund = show.refunds.get(&refund)?;
        let payment = show.payments.get(&refund.payment)?;
        Some((refund.clone(), payment.clone()))
    });
    let Some((refund, payment)): Option<(Refund, Payment)> = found else {
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
    app.hosts.ask(refund.id.show(), Asked { command, by: None, key: None, trace: None }).await?;
    Ok(())
}

async fn given_back(app: &App, host: &Host, refund: &Refund, payment: &Payment) -> Result<(), ProviderError> {
    // Cash goes back over the counter; a payment of nothing has nothing to give back.
    if payment.method == crate::show::Method::Cash || payment.status == PaymentStatus::Pending {
        return Ok(());
    }
    app.provider.refund(refund.id, refund.payment, money(host, refund.amount)).await
}
