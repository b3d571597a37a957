//! The rows of one show's read models, and the statements that write them.

use std::collections::BTreeSet;

use common::{PaymentId, RefundId, ReservationId, TicketId};
use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Transaction;

use crate::payments::view::PaymentView;
use crate::reservations::view::ReservationView;
use crate::show::{Payment, Refund, Reservation, Show, TicketStatus};
use crate::shows::view::ShowView;

/// What some entries touched.
#[derive(Default)]
pub struct Touched {
    pub everything: bool,
    pub reservations: BTreeSet<ReservationId>,
    pub payments: BTreeSet<PaymentId>,
    pub refunds: BTreeSet<RefundId>,
    pub tickets: BTreeSet<TicketId>,
}

pub struct Rows {
    pub seq: u64,
    show: ShowRow,
    reservations: Vec<ReservationRow>,
    payments: Vec<PaymentRow>,
    refunds: Vec<RefundRow>,
    tickets: Vec<TicketRow>,
}

struct ShowRow {
    view: ShowView,
    ends_at: Timestamp,
}

struct ReservationRow {
    id: String,
    customer: Option<String>,
    reference: String,
    status: Value,
    created_at: Timestamp,
    expires_at: Timestamp,
    view: Value,
}

struct PaymentRow {
    id: String,
    reservation: String,
    customer: Option<String>,
    status: Value,
    created_at: Timestamp,
    view: Value,
}

struct RefundRow {
    id: String,
    payment: String,
    status: Value,
    amount: i64,
    created_at: Timestamp,
}

struct TicketRow {
    id: String,
    reservation: String,
    seat: String,
    status: TicketStatus,
}

/// What `touched` names, as the state has it.
pub fn of(show: &Show, touched: &Touched) -> Rows {
    let refunds: Vec<&Refund> =
        show.refunds.values().filter(|r| touched.everything || touched.refunds.contains(&r.id)).collect();
    let payments: Vec<&Payment> = show
        .payments
        .values()
        .filter(|p| {
            touched.everything
                || touched.payments.contains(&p.id)
                || refunds.iter().any(|r| r.payment == p.id)
        })
        .collect();
    let owners: BTreeSet<ReservationId> = payments
        .iter()
        .map(|payment| payment.reservation)
        .chain(touched.tickets.iter().filter_map(|ticket| show.ticket(*ticket).map(|(r, _)| r.id)))
        .chain(touched.reservations.iter().copied())
        .collect();
    let reservations: Vec<&Reservation> = if touched.everything {
        show.reservations.values().collect()
    } else {
        owners.iter().filter_map(|id| show.reservations.get(id)).collect()
    };
    Rows {
        seq: show.seq,
        show: ShowRow {
            view: ShowView::of(show),
            ends_at: crate::shows::view::ends_at(&show.plan.facts, show.starts_at),
        },
        tickets: reservations.iter().flat_map(|r| tickets(show, r)).collect(),
        reservations: reservations.into_iter().map(|r| reservation(show, r)).collect(),
        payments: payments.into_iter().map(|p| payment(show, p)).collect(),
        refunds: refunds.into_iter().map(refund).collect(),
    }
}

fn json(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).expect("views are plain data")
}

fn reservation(show: &Show, reservation: &Reservation) -> ReservationRow {
    ReservationRow {
        id: reservation.id.to_string(),
        customer: reservation.customer.map(|c| c.to_string()),
        reference: reservation.reference.clone(),
        status: json(reservation.status),
        created_at: reservation.created_at,
        expires_at: reservation.expires_at,
        view: json(ReservationView::of(show, reservation)),
    }
}

fn payment(show: &Show, payment: &Payment) -> PaymentRow {
    let customer = show.reservations.get(&payment.reservation).and_then(|r| r.customer);
    PaymentRow {
        id: payment.id.to_string(),
        reservation: payment.reservation.to_string(),
        customer: customer.map(|c| c.to_string()),
        status: json(payment.status),
        created_at: payment.started_at,
        view: json(PaymentView::of(show, payment)),
    }
}

fn refund(refund: &Refund) -> RefundRow {
    RefundRow {
        id: refund.id.to_string(),
        payment: refund.payment.to_string(),
        status: json(refund.status),
        amount: refund.amount,
        created_at: refund.at,
    }
}

fn tickets<'a>(show: &'a Show, reservation: &'a Reservation) -> impl Iterator<Item = TicketRow> + 'a {
    reservation.tickets.iter().map(|ticket| TicketRow {
        id: ticket.id.to_string(),
        reservation: reservation.id.to_string(),
        seat: show.plan.place(ticket.seat).name.clone(),
        status: ticket.status,
    })
}

const SHOW: &str = "
INSERT INTO shows (id, cinema_id, hall_id, movie_id, starts_at, ends_at, on_sale_at, status, home, view)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (id) DO UPDATE SET starts_at = excluded.starts_at, ends_at = excluded.ends_at,
    on_sale_at = excluded.on_sale_at, status = excluded.status, view = excluded.view";

const RESERVATIONS: &str = "
INSERT INTO reservations (id, show_id, customer, reference, status, created_at, expires_at, view)
SELECT b.id, $8, b.customer, b.reference, b.status #>> '{}', b.created_at, b.expires_at, b.view
  FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::timestamptz[], $6::timestamptz[], $7::jsonb[])
    AS b (id, customer, reference, status, created_at, expires_at, view)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, view = excluded.view";

const PAYMENTS: &str = "
INSERT INTO payments (id, reservation_id, show_id, customer, status, created_at, view)
SELECT b.id, b.reservation, $7, b.customer, b.status #>> '{}', b.created_at, b.view
  FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::timestamptz[], $6::jsonb[])
    AS b (id, reservation, customer, status, created_at, view)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, view = excluded.view";

const REFUNDS: &str = "
INSERT INTO refunds (id, payment_id, show_id, status, amount, created_at)
SELECT b.id, b.payment, $6, b.status #>> '{}', b.amount, b.created_at
  FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::bigint[], $5::timestamptz[])
    AS b (id, payment, status, amount, created_at)
ON CONFLICT (id) DO UPDATE SET status = excluded.status";

const TICKETS: &str = "
INSERT INTO tickets (id, reservation_id, show_id, seat, status)
SELECT b.id, b.reservation, $5, b.seat, b.status
  FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS b (id, reservation, seat, status)
ON CONFLICT (id) DO UPDATE SET status = excluded.status";

impl Rows {
    /// Upserts everything, in the caller's transaction.
    pub async fn write(&self, transaction: &Transaction<'_>) -> anyhow::Result<()> {
        let show = &self.show.view;
        let id = show.id.0;
        let (cinema, hall, movie) = (show.cinema_id.0, show.hall_id.0, show.movie_id.0);
        let status = json(show.status);
        transaction
            .execute(
                SHOW,
                &[
                    &id,
                    &cinema,
                    &hall,
                    &movie,
                    &show.starts_at,
                    &self.show.ends_at,
                    &show.on_sale_at,
                    &status.as_str(),
                    &show.region.as_str(),
                    &json(show),
                ],
            )
            .await?;
        self.write_reservations(transaction, id).await?;
        self.write_money(transaction, id).await?;
        // Those that gave their seat up first, so that it is free for the one that has it now.
        for live in [false, true] {
            let tickets: Vec<&TicketRow> = self.tickets.iter().filter(|t| t.is_live() == live).collect();
            let column = |f: fn(&TicketRow) -> String| tickets.iter().map(|t| f(t)).collect::<Vec<_>>();
            let (ids, owners) = (column(|t| t.id.clone()), column(|t| t.reservation.clone()));
            let seats = column(|t| t.seat.clone());
            let statuses = column(|t| json(t.status).as_str().unwrap_or_default().to_owned());
            if !ids.is_empty() {
                transaction.execute(TICKETS, &[&ids, &owners, &seats, &statuses, &id]).await?;
            }
        }
        Ok(())
    }

    async fn write_reservations(
        &self,
        transaction: &Transaction<'_>,
        show: uuid::Uuid,
    ) -> anyhow::Result<()> {
        let rows = &self.reservations;
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = rows.iter().map(|r| r.id.as_str()).collect();
        let customers: Vec<Option<&str>> = rows.iter().map(|r| r.customer.as_deref()).collect();
        let references: Vec<&str> = rows.iter().map(|r| r.reference.as_str()).collect();
        let statuses: Vec<&Value> = rows.iter().map(|r| &r.status).collect();
        let created: Vec<Timestamp> = rows.iter().map(|r| r.created_at).collect();
        let expires: Vec<Timestamp> = rows.iter().map(|r| r.expires_at).collect();
        let views: Vec<&Value> = rows.iter().map(|r| &r.view).collect();
        transaction
            .execute(
                RESERVATIONS,
                &[&ids, &customers, &references, &statuses, &created, &expires, &views, &show],
            )
            .await?;
        Ok(())
    }

    async fn write_money(&self, transaction: &Transaction<'_>, show: uuid::Uuid) -> anyhow::Result<()> {
        if !self.payments.is_empty() {
            let rows = &self.payments;
            let ids: Vec<&str> = rows.iter().map(|p| p.id.as_str()).collect();
            let reservations: Vec<&str> = rows.iter().map(|p| p.reservation.as_str()).collect();
            let customers: Vec<Option<&str>> = rows.iter().map(|p| p.customer.as_deref()).collect();
            let statuses: Vec<&Value> = rows.iter().map(|p| &p.status).collect();
            let created: Vec<Timestamp> = rows.iter().map(|p| p.created_at).collect();
            let views: Vec<&Value> = rows.iter().map(|p| &p.view).collect();
            transaction
                .execute(PAYMENTS, &[&ids, &reservations, &customers, &statuses, &created, &views, &show])
                .await?;
        }
        if !self.refunds.is_empty() {
            let rows = &self.refunds;
            let ids: Vec<&str> = rows.iter().map(|r| r.id.as_str()).collect();
            let payments: Vec<&str> = rows.iter().map(|r| r.payment.as_str()).collect();
            let statuses: Vec<&Value> = rows.iter().map(|r| &r.status).collect();
            let amounts: Vec<i64> = rows.iter().map(|r| r.amount).collect();
            let created: Vec<Timestamp> = rows.iter().map(|r| r.created_at).collect();
            transaction.execute(REFUNDS, &[&ids, &payments, &statuses, &amounts, &created, &show]).await?;
        }
        Ok(())
    }
}

impl TicketRow {
    fn is_live(&self) -> bool {
        matches!(self.status, TicketStatus::Valid | TicketStatus::Admitted)
    }
}
