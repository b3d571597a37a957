//! The rows of the read models, as a show's state has them.

use std::collections::BTreeSet;

use common::{PaymentId, RefundId, ReservationId, ShowId, TicketId, UserId};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::queue::Touched;
use crate::audit::{self, Audited, Line};
use crate::notices::{self, Notice};
use crate::reservations::view::Rest;
use crate::show::{
    Method, Moment, Payment, PaymentStatus, Refund, RefundStatus, Reservation, ReservationStatus, Show,
    ShowStatus, TicketStatus, WithId,
};
use crate::shows::view::{ShowView, ends_at};

/// An open payment or refund that is younger is with the request that started it.
const MONEY_IS_LATE: SignedDuration = SignedDuration::from_secs(10);
/// A show that is led ends its holds itself, in time.
const HOLD_IS_LATE: SignedDuration = SignedDuration::from_secs(1);

/// What one transaction writes. Rows that may be there already are deleted first.
#[derive(Default)]
pub(super) struct Rows {
    pub positions: Vec<Position>,
    /// Shows of which every row is written anew.
    pub whole: Vec<ShowId>,
    pub shows: Vec<ShowRow>,
    pub reservations: Vec<ReservationRow>,
    pub payments: Vec<PaymentRow>,
    pub refunds: Vec<RefundRow>,
    pub tickets: Vec<TicketRow>,
    /// For the audit log.
    pub told: Vec<(ShowId, Line)>,
    /// For customers.
    pub news: Vec<(ShowId, Notice)>,
}

/// How far a show has come, with what changes at every booking.
pub(super) struct Position {
    pub show: ShowId,
    pub before: u64,
    pub upto: u64,
    /// Free, held, sold, blocked.
    pub counts: [i32; 4],
    pub attend_at: Option<Timestamp>,
}

pub(super) struct ShowRow {
    pub view: ShowView,
    pub ends_at: Timestamp,
    pub currency: String,
    /// The view without what changes at every booking.
    pub json: Value,
}

pub(super) struct ReservationRow {
    pub id: ReservationId,
    /// No row of it, nor of its tickets, is there yet.
    pub is_new: bool,
    pub customer: Option<UserId>,
    /// Sealed.
    pub contact: Option<String>,
    pub reference: String,
    pub status: ReservationStatus,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub rest: String,
}

pub(super) struct PaymentRow {
    pub id: PaymentId,
    pub is_new: bool,
    pub reservation: ReservationId,
    pub customer: Option<UserId>,
    pub method: Method,
    pub status: PaymentStatus,
    pub amount: i64,
    pub refunded: i64,
    pub reason: Option<String>,
    pub created_at: Timestamp,
    pub settled_at: Option<Timestamp>,
}

pub(super) struct RefundRow {
    pub id: RefundId,
    pub payment: PaymentId,
    pub status: RefundStatus,
    pub amount: i64,
    pub created_at: Timestamp,
}

pub(super) struct TicketRow {
    pub id: TicketId,
    pub is_new: bool,
    pub reservation: ReservationId,
    pub seat: String,
    pub status: TicketStatus,
}

impl Rows {
    pub fn len(&self) -> usize {
        self.positions.len()
            + self.reservations.len()
            + self.payments.len()
            + self.refunds.len()
            + self.tickets.len()
    }

    /// Adds what the audit log and customers are told; `show` is the state with it, or after it.
    pub fn tell<'a>(&mut self, show: &Show, audited: impl IntoIterator<Item = &'a Audited>) {
        let id = show.plan.facts.show;
        for audited in audited {
            self.told.extend(audit::lines(show, audited).into_iter().map(|line| (id, line)));
            self.news.extend(notices::notices(show, audited).into_iter().map(|notice| (id, notice)));
        }
    }

    /// Adds what `touched` names, as the state has it, or all of the show. `exact`: it tells of the entries after
    /// `before`, and of no others.
    pub fn add(&mut self, show: &Show, before: u64, touched: Option<&Touched>, exact: bool) {
        let id = show.plan.facts.show;
        let counts = show.counts().map(|count| i32::try_from(count).expect("a hall's seats"));
        let attend_at = attend_at(show);
        self.positions.push(Position { show: id, before, upto: show.seq, counts, attend_at });
        let Some(touched) = touched else {
            self.whole.push(id);
            self.shows.push(show_row(show));
            show.reservations.values().for_each(|held| self.reservation(show, held, true));
            self.payments.extend(show.payments.values().map(|payment| payment_row(show, payment, true)));
            self.refunds.extend(show.refunds.values().map(|refund| refund_row(show, refund)));
            return;
        };
        if touched.facts {
            self.shows.push(show_row(show));
        }
        let refunds: Vec<WithId<'_, Refund>> =
            touched.refunds.iter().filter_map(|id| show.refunds.get(id)).collect();
        let paid: BTreeSet<PaymentId> = touched
            .payments
            .keys()
            .copied()
            .chain(refunds.iter().map(|refund| show.payment_of(refund).id))
            .collect();
        let payments: Vec<WithId<'_, Payment>> = paid.iter().filter_map(|id| show.payments.get(id)).collect();
        let owners: BTreeSet<ReservationId> = payments
            .iter()
            .map(|payment| show.reservation_of(payment).id)
            .chain(touched.tickets.iter().filter_map(|ticket| show.ticket(*ticket).map(|(r, _)| r.id)))
            .chain(touched.reservations.keys().copied())
            .collect();
        for held in owners.iter().filter_map(|id| show.reservations.get(id)) {
            self.reservation(show, held, exact && touched.reservations.get(&held.id) == Some(&true));
        }
        self.payments.extend(payments.into_iter().map(|payment| {
            let is_new = exact && touched.payments.get(&payment.id) == Some(&true);
            payment_row(show, payment, is_new)
        }));
        self.refunds.extend(refunds.into_iter().map(|refund| refund_row(show, refund)));
    }

    fn reservation(&mut self, show: &Show, held: WithId<'_, Reservation>, is_new: bool) {
        self.reservations.push(ReservationRow {
            id: held.id,
            is_new,
            customer: held.customer,
            contact: held.contact.as_ref().map(ToString::to_string),
            reference: held.reference.to_string(),
            status: held.status,
            created_at: held.created_at.time(),
            expires_at: held.expires_at.time(),
            rest: Rest::of(show, held).to_json(),
        });
        self.tickets.extend(held.tickets().map(|ticket| TicketRow {
            id: ticket.id,
            is_new,
            reservation: held.id,
            seat: show.plan.place(ticket.seat).name.to_owned(),
            status: ticket.status,
        }));
    }

    /// As if the show had not been added.
    pub fn forget(&mut self, show: ShowId) {
        self.positions.retain(|position| position.show != show);
        self.retain(|other| other != show);
    }

    /// Keeps only what belongs to these shows.
    pub fn retain(&mut self, keep: impl Fn(ShowId) -> bool) {
        self.whole.retain(|show| keep(*show));
        self.shows.retain(|row| keep(row.view.id));
        self.reservations.retain(|row| keep(row.id.show()));
        self.payments.retain(|row| keep(row.id.show()));
        self.refunds.retain(|row| keep(row.id.show()));
        self.tickets.retain(|row| keep(row.id.show()));
        self.told.retain(|(show, _)| keep(*show));
        self.news.retain(|(show, _)| keep(*show));
    }
}

/// When somebody should look after the show, even if nobody leads it.
fn attend_at(show: &Show) -> Option<Timestamp> {
    let holds = show.next_deadline().map(|at| at + HOLD_IS_LATE);
    let payments =
        show.payments.values().filter(|p| p.is_open()).map(|p| p.started_at.time() + MONEY_IS_LATE);
    let refunds = show.refunds.values().filter(|r| r.is_open()).map(|r| r.at.time() + MONEY_IS_LATE);
    let called_off = (show.status == ShowStatus::Canceled && show.reservations.values().any(|r| r.is_live()))
        .then_some(show.last_at);
    holds.into_iter().chain(payments).chain(refunds).chain(called_off).min()
}

fn show_row(show: &Show) -> ShowRow {
    let view = ShowView::of(show);
    let mut json = serde_json::to_value(&view).expect("views are plain data");
    if let Some(fields) = json.as_object_mut() {
        fields.remove("availability");
    }
    let facts = &show.plan.facts;
    let ends_at = ends_at(facts, show.starts_at);
    ShowRow { view, ends_at, currency: facts.currency.to_string(), json }
}

fn payment_row(show: &Show, payment: WithId<'_, Payment>, is_new: bool) -> PaymentRow {
    let reservation = show.reservation_of(&payment);
    PaymentRow {
        id: payment.id,
        is_new,
        reservation: reservation.id,
        customer: reservation.customer,
        method: payment.method,
        status: payment.status,
        amount: payment.amount,
        refunded: payment.refunded,
        reason: payment.failure().map(str::to_owned),
        created_at: payment.started_at.time(),
        settled_at: payment.settled_at.map(Moment::time),
    }
}

fn refund_row(show: &Show, refund: WithId<'_, Refund>) -> RefundRow {
    RefundRow {
        id: refund.id,
        payment: show.payment_of(&refund).id,
        status: refund.status,
        amount: refund.amount,
        created_at: refund.at.time(),
    }
}
