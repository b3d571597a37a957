//! What the API says of payments and refunds.

use anyhow::Context;
use common::{Money, PaymentId, RefundId, ReservationId, ShowId};
use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Row;
use utoipa::ToSchema;

use crate::reservations::list::named;
use crate::show::{FirstResult, Method, Moment, Payment, PaymentStatus, Refund, RefundStatus, Show, WithId};

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PaymentView {
    pub id: PaymentId,
    pub reservation_id: ReservationId,
    pub show_id: ShowId,
    pub method: Method,
    pub status: PaymentStatus,
    pub amount: Money,
    pub refunded: Money,
    /// Why it failed.
    pub reason: Option<String>,
    pub created_at: Timestamp,
    pub settled_at: Option<Timestamp>,
}

impl PaymentView {
    pub fn of(show: &Show, payment: WithId<'_, Payment>) -> Self {
        Self {
            id: payment.id,
            reservation_id: show.reservation_of(&payment).id,
            show_id: show.plan.facts.show,
            method: payment.method,
            status: payment.status,
            amount: show.plan.money(payment.amount),
            refunded: show.plan.money(payment.refunded),
            reason: payment.failure().map(str::to_owned),
            created_at: payment.started_at.time(),
            settled_at: payment.settled_at.map(Moment::time),
        }
    }

    /// From its row in the read model, with its show's currency.
    pub fn stored(row: &Row) -> anyhow::Result<Self> {
        let show = ShowId(row.get("show_id"));
        let currency = row.get::<_, &str>("currency").parse()?;
        let money = |column: &str| Money::new(row.get(column), currency);
        Ok(Self {
            id: PaymentId::of(show, row.get("own")).context("an id of another length")?,
            reservation_id: ReservationId::of(show, row.get("reservation"))
                .context("an id of another length")?,
            show_id: show,
            method: named(row.get("method"))?,
            status: named(row.get("status"))?,
            amount: money("amount"),
            refunded: money("refunded"),
            reason: row.get("reason"),
            created_at: row.get("created_at"),
            settled_at: row.get("settled_at"),
        })
    }

    /// As it was first answered, however it went on since.
    pub fn first(show: &Show, payment: WithId<'_, Payment>, first: &FirstResult) -> Self {
        let status = match first {
            FirstResult::Pending => PaymentStatus::Pending,
            FirstResult::Completed => PaymentStatus::Completed,
            FirstResult::Failed { .. } => PaymentStatus::Failed,
        };
        let settled_at =
            if status == PaymentStatus::Pending { None } else { payment.settled_at.map(Moment::time) };
        Self { status, settled_at, refunded: show.plan.money(0), ..Self::of(show, payment) }
    }
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RefundView {
    pub id: RefundId,
    pub payment_id: PaymentId,
    pub reservation_id: Option<ReservationId>,
    pub status: RefundStatus,
    pub amount: Money,
    pub reason: String,
    pub created_at: Timestamp,
}

impl RefundView {
    pub fn of(show: &Show, refund: WithId<'_, Refund>) -> Self {
        let payment = show.payment_of(&refund);
        Self {
            id: refund.id,
            payment_id: payment.id,
            reservation_id: Some(show.reservation_of(&payment).id),
            status: refund.status,
            amount: show.plan.money(refund.amount),
            reason: refund.reason.to_string(),
            created_at: refund.at.time(),
        }
    }
}
