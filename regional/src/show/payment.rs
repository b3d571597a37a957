//! Payments and refunds as the state keeps them: without what is the show's, and texts only where there are any.

use common::{PaymentId, RefundId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::moment::Moment;
use super::slab::{Named, Slot};

/// How a reservation is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Card,
    Online,
    Cash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    Pending,
    Completed,
    Failed,
    Refunded,
    PartiallyRefunded,
}

/// How a payment was first answered; what a repeat under its key is answered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstResult {
    Pending,
    Completed,
    Failed { reason: Box<str>, declined: bool },
}

#[derive(Clone, Debug)]
pub struct Payment {
    pub(super) own: [u8; 10],
    pub(super) reservation: Slot,
    /// The next one of the same reservation.
    pub(super) next: Option<Slot>,
    pub method: Method,
    pub status: PaymentStatus,
    /// It came for nothing: what it paid for is had by nobody, or by another payment.
    pub unclaimed: bool,
    pub(super) first: Option<First>,
    pub amount: i64,
    /// Sum of refunds started and not failed.
    pub refunded: i64,
    pub started_at: Moment,
    pub settled_at: Option<Moment>,
    /// Most have none once they are settled.
    pub(super) texts: Option<Box<Texts>>,
}

/// [`FirstResult`], its reason apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    Pending,
    Completed,
    Failed { declined: bool },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Texts {
    /// Forgotten once the outcome is known: nothing is charged after that.
    pub token: Option<Box<str>>,
    pub failure: Option<Box<str>>,
    /// Why it first failed.
    pub first: Option<Box<str>>,
}

impl Named for Payment {
    type Id = PaymentId;

    fn own(&self) -> [u8; 10] {
        self.own
    }
}

impl Payment {
    /// As it is before anybody has heard of it.
    pub(super) fn begun(
        own: [u8; 10],
        reservation: Slot,
        method: Method,
        amount: i64,
        at: Timestamp,
    ) -> Self {
        Self {
            own,
            reservation,
            next: None,
            method,
            status: PaymentStatus::Pending,
            unclaimed: false,
            first: None,
            amount,
            refunded: 0,
            started_at: at.into(),
            settled_at: None,
            texts: None,
        }
    }

    /// Whether the provider may still move money under it.
    pub fn is_open(&self) -> bool {
        self.status == PaymentStatus::Pending
    }

    pub fn remainder(&self) -> i64 {
        self.amount.saturating_sub(self.refunded)
    }

    /// Stands for the means of payment at the provider, until the outcome is known.
    pub fn token(&self) -> Option<&str> {
        self.texts.as_ref()?.token.as_deref()
    }

    /// Why no money moved, where none did.
    pub fn failure(&self) -> Option<&str> {
        self.texts.as_ref()?.failure.as_deref()
    }

    pub fn first(&self) -> Option<FirstResult> {
        Some(match self.first? {
            First::Pending => FirstResult::Pending,
            First::Completed => FirstResult::Completed,
            First::Failed { declined } => {
                let reason = self.texts.as_ref().and_then(|texts| texts.first.clone());
                FirstResult::Failed { reason: reason.unwrap_or_default(), declined }
            }
        })
    }

    /// Changes its texts; where none is left they take no room.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Texts)) {
        let mut texts = self.texts.take().unwrap_or_default();
        write(&mut texts);
        self.texts = Some(texts).filter(|texts| **texts != Texts::default());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    Pending,
    Completed,
    Failed,
}

#[derive(Clone, Debug)]
pub struct Refund {
    pub(super) own: [u8; 10],
    pub(super) payment: Slot,
    pub amount: i64,
    pub reason: Box<str>,
    pub status: RefundStatus,
    pub at: Moment,
}

impl Named for Refund {
    type Id = RefundId;

    fn own(&self) -> [u8; 10] {
        self.own
    }
}

impl Refund {
    /// Whether the money is still on its way.
    pub fn is_open(&self) -> bool {
        self.status == RefundStatus::Pending
    }
}
