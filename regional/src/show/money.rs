//! What goes back when seats are given up.

use jiff::Timestamp;

use super::command::Refusal;
use super::payment::{Payment, PaymentStatus};
use super::slab::WithId;
use super::state::{Line, Reservation, Show};

/// An offer: what would go back now, and what the cinema keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    pub refund: i64,
    pub fee: i64,
}

/// What giving up `lines` of a reservation brings, by the tiers that the show was sold under. Staff give
/// everything back. Rounding is in the customer's favour.
pub fn quote(
    show: &Show,
    reservation: &Reservation,
    lines: &[&Line],
    by_staff: bool,
    now: Timestamp,
) -> Result<Quote, Refusal> {
    let price: i64 = lines.iter().map(|line| line.amount).sum();
    let Some(payment) = paid_by(show, reservation) else { return Ok(Quote { refund: 0, fee: 0 }) };
    let price = price.min(payment.remainder());
    if by_staff {
        return Ok(Quote { refund: price, fee: 0 });
    }
    let facts = &show.plan.facts;
    let left = show.starts_at.duration_since(now);
    let tier = facts.refund_tiers.iter().find(|tier| tier.fits(left)).ok_or(Refusal::RefundWindowClosed)?;
    let fee = price * i64::from(100 - tier.percent.min(100)) / 100;
    Ok(Quote { refund: price - fee, fee })
}

/// The payment that paid for a reservation, if money of it is still here.
pub fn paid_by<'a>(show: &'a Show, reservation: &Reservation) -> Option<WithId<'a, Payment>> {
    show.payments_of(reservation)
        .filter(|payment| !payment.unclaimed)
        .find(|payment| matches!(payment.status, PaymentStatus::Completed | PaymentStatus::PartiallyRefunded))
}
