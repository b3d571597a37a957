//! The saga without its calls: what to ask the provider next, and what its answers mean. [`super::saga`] makes
//! the calls; the simulation makes them late, twice, or not at all.
//!
//! Invariant: a payment's outcome is journaled only from what the provider said of it; what nobody knows is
//! asked for, and what the provider does not know either is canceled, so that no late call can charge it.

use common::{PaymentId, RefundId};
use jiff::Timestamp;

use super::provider::{Charge, ChargeStatus, ProviderError};
use crate::show::{Method, Outcome, Payment, PaymentStatus, Show, ShowStatus};

/// How often a charge is sent again when the provider failed without saying what happened.
const CHARGE_TRIES: u32 = 2;

/// What the provider is asked of one payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Charge,
    Find,
    Cancel,
}

/// What it said. None: it knows nothing under this id.
pub type Heard = Result<Option<Charge>, ProviderError>;

/// What follows from that.
#[derive(Debug)]
pub enum Next {
    Call(Call),
    Journal(Outcome),
    /// There is nothing to do.
    Nothing,
    /// Not now; the reconciler tries again.
    Stuck(ProviderError),
}

/// One payment on its way to its outcome.
#[derive(Clone, Debug)]
pub struct Steps {
    at: At,
    tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Charging,
    /// A charge of unknown outcome. A call that ran into the time limit may hang again; asking is quicker
    /// than repeating.
    Asking,
    Settling,
    Canceling,
    Hinted,
}

impl Steps {
    /// Of a payment that was just committed as started.
    pub fn charge() -> (Self, Call) {
        (Self { at: At::Charging, tries: 1 }, Call::Charge)
    }

    /// Of a payment whose outcome nobody knows.
    pub fn settle() -> (Self, Call) {
        (Self { at: At::Settling, tries: 0 }, Call::Find)
    }

    /// Of a payment that the provider speaks of by itself: a hint to ask, also where it was said to have
    /// failed, as money that came all the same goes back.
    pub fn hinted() -> (Self, Call) {
        (Self { at: At::Hinted, tries: 0 }, Call::Find)
    }

    pub fn heard(&mut self, heard: Heard) -> Next {
        match (self.at, heard) {
            (_, Ok(Some(charge))) => Next::Journal(outcome(&charge)),
            (At::Charging, Err(ProviderError::Refused(reason))) if self.tries == 1 => {
                Next::Journal(Outcome::Failed { reason, declined: false })
            }
            // This call was refused; the one before may be on its way yet.
            (At::Charging, Err(ProviderError::Refused(_))) => self.go(At::Settling, Call::Find),
            (At::Charging, Ok(None) | Err(ProviderError::Unknown(_))) => self.go(At::Asking, Call::Find),
            (At::Asking, Ok(None) | Err(_)) if self.tries < CHARGE_TRIES => {
                self.tries += 1;
                self.go(At::Charging, Call::Charge)
            }
            (At::Asking, Ok(None) | Err(_)) => self.go(At::Settling, Call::Find),
            (At::Settling, Ok(None)) => self.go(At::Canceling, Call::Cancel),
            (At::Canceling, Ok(None)) => Next::Stuck(ProviderError::Unknown("no answer to a cancel".into())),
            (At::Hinted, Ok(None)) => Next::Nothing,
            (At::Settling | At::Canceling | At::Hinted, Err(error)) => Next::Stuck(error),
        }
    }

    fn go(&mut self, at: At, call: Call) -> Next {
        self.at = at;
        Next::Call(call)
    }
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

/// Whether the provider has a say in giving this back: cash goes over the counter, and a payment of nothing
/// has nothing to give.
pub fn goes_back_by_provider(payment: &Payment) -> bool {
    payment.method != Method::Cash && payment.status != PaymentStatus::Pending
}

/// What in a show waits for somebody to bring it on.
#[derive(Debug, Default)]
pub struct Waiting {
    pub payments: Vec<PaymentId>,
    pub refunds: Vec<RefundId>,
    /// The show is canceled, and not all that was sold is.
    pub called_off: bool,
}

/// Payments and refunds that began before `late`: younger ones are still with the request that started them.
pub fn waiting(show: &Show, late: Timestamp) -> Waiting {
    let payments = show.payments.values().filter(|p| p.is_open() && p.started_at.time() < late);
    let refunds = show.refunds.values().filter(|r| r.is_open() && r.at.time() < late);
    let has_live = || show.reservations.values().any(|reservation| reservation.is_live());
    Waiting {
        payments: payments.map(|payment| payment.id).collect(),
        refunds: refunds.map(|refund| refund.id).collect(),
        called_off: show.status == ShowStatus::Canceled && has_live(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(status: ChargeStatus) -> Heard {
        Ok(Some(Charge { id: String::new(), status, reason: None }))
    }

    fn unknown() -> Heard {
        Err(ProviderError::Unknown("lost".into()))
    }

    fn calls(mut steps: Steps, first: Call, answers: Vec<Heard>) -> (Vec<Call>, Next) {
        let (mut made, mut last) = (vec![first], Next::Nothing);
        for answer in answers {
            last = steps.heard(answer);
            match last {
                Next::Call(call) => made.push(call),
                _ => break,
            }
        }
        (made, last)
    }

    #[test]
    fn an_unknown_charge_is_asked_for_then_repeated_then_canceled() {
        use Call::{Cancel, Charge, Find};
        let (steps, first) = Steps::charge();
        let answers =
            vec![unknown(), Ok(None), unknown(), unknown(), Ok(None), charge(ChargeStatus::Canceled)];
        let (made, last) = calls(steps, first, answers);
        assert_eq!(made, [Charge, Find, Charge, Find, Find, Cancel]);
        assert!(matches!(last, Next::Journal(Outcome::Failed { declined: false, .. })));

        let (steps, first) = Steps::charge();
        let (made, last) = calls(steps, first, vec![unknown(), charge(ChargeStatus::Succeeded)]);
        assert_eq!(made, [Charge, Find]);
        assert!(matches!(last, Next::Journal(Outcome::Completed)));

        let (steps, first) = Steps::charge();
        let (_, last) = calls(steps, first, vec![Err(ProviderError::Refused("422".into()))]);
        assert!(matches!(last, Next::Journal(Outcome::Failed { declined: false, .. })));

        // Only the second call was refused: the first may come late, and must find the charge canceled.
        let (steps, first) = Steps::charge();
        let refused = Err(ProviderError::Refused("429".into()));
        let answers = vec![unknown(), Ok(None), refused, Ok(None), charge(ChargeStatus::Canceled)];
        let (made, last) = calls(steps, first, answers);
        assert_eq!(made, [Charge, Find, Charge, Find, Cancel]);
        assert!(matches!(last, Next::Journal(Outcome::Failed { declined: false, .. })));
    }

    #[test]
    fn what_nobody_can_say_stays_open() {
        let (steps, first) = Steps::settle();
        let (made, last) = calls(steps, first, vec![unknown()]);
        assert_eq!(made, [Call::Find]);
        assert!(matches!(last, Next::Stuck(_)));
        let (steps, first) = Steps::settle();
        let (made, last) = calls(steps, first, vec![Ok(None), unknown()]);
        assert_eq!(made, [Call::Find, Call::Cancel]);
        assert!(matches!(last, Next::Stuck(_)));
        let (steps, first) = Steps::hinted();
        let (_, last) = calls(steps, first, vec![Ok(None)]);
        assert!(matches!(last, Next::Nothing), "a word about nothing");
    }
}
