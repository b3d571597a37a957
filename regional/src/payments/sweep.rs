//! Every minute the provider's books are compared with the journals: money that came and was told to nobody who
//! understood (a webhook that was lost for good, the late call of a leader that was replaced) is journaled, and so
//! completed or given back; so is money for what a majority of regions has lost. What cannot be explained is told
//! to the operator (R9).
//!
//! Invariant: only what the provider answers when it is asked about one payment becomes an event
//! ([`saga::hinted`]); what the list says is only a reason to ask.

use std::time::Duration;

use common::{PaymentId, ShowId};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::provider::{Booked, ChargeStatus};
use super::saga::{self, Stuck};
use crate::app::App;
use crate::host::HostError;
use crate::show::{Payment, PaymentStatus, Show, WithId};

const PERIOD: Duration = Duration::from_secs(60);
/// How far back the first look goes; a process that was away for longer needs an operator's eye.
const FIRST: SignedDuration = SignedDuration::from_hours(24);
/// Each goes back behind the one before: owners change, and clocks differ.
const OVERLAP: SignedDuration = SignedDuration::from_mins(10);
/// What is younger is still with the request that began it.
const YOUNG: SignedDuration = SignedDuration::from_secs(15);

/// What these read models say of payments of one page; a hint that spares leading shows that are over.
const KNOWN: &str = "
SELECT p.show_id, p.own, p.status, p.amount, p.refunded
  FROM unnest($1::uuid[], $2::bytea[]) AS w (show_id, own)
  JOIN payments p ON p.show_id = w.show_id AND p.own = w.own";

/// What the comparison of one charge comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fits,
    /// Money moved, and the journal does not know.
    Untold,
    /// No journal knows of the payment at all.
    Stray,
    /// Both know, and not the same.
    Differs,
}

/// Pure. `payment` is what the journal has; `giving_back`: a refund of it is under way.
fn verdict(payment: Option<&Payment>, giving_back: bool, booked: &Booked) -> Verdict {
    if booked.status != ChargeStatus::Succeeded {
        return Verdict::Fits;
    }
    let Some(payment) = payment else {
        return if booked.refunded < booked.amount { Verdict::Stray } else { Verdict::Fits };
    };
    if matches!(payment.status, PaymentStatus::Pending | PaymentStatus::Failed) {
        return Verdict::Untold;
    }
    let same = payment.amount == booked.amount
        && (payment.refunded == booked.refunded || giving_back && booked.refunded < payment.refunded);
    if same { Verdict::Fits } else { Verdict::Differs }
}

/// What one look at the books found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub untold: usize,
    pub stray: usize,
    pub differing: usize,
}

pub struct Sweep {
    app: App,
    /// Everything before was compared.
    since: Timestamp,
}

impl Sweep {
    pub fn new(app: App) -> Self {
        Self { app, since: Timestamp::now() - FIRST }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut period = tokio::time::interval(PERIOD);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = period.tick() => {}
            }
            if !self.app.is_first_process() {
                continue;
            }
            match self.pass(Timestamp::now() - YOUNG).await {
                Ok(found) => self.app.metrics.books(&found),
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "the provider's books are not compared");
                }
            }
        }
    }

    /// Compares what changed until `until`.
    pub async fn pass(&mut self, until: Timestamp) -> anyhow::Result<Found> {
        let (mut found, mut after, mut is_complete) = (Found::default(), None, true);
        loop {
            let page = self.app.provider.changed(self.since, after.take()).await?;
            let own = page.charges.iter().filter(|booked| booked.changed_at <= until);
            let own = own.filter_map(|booked| Some((booked.id.parse::<PaymentId>().ok()?, booked)));
            let own: Vec<_> = own.filter(|(id, _)| self.app.owns(id.show())).collect();
            for (id, booked) in self.doubtful(own).await? {
                match self.compare(id, booked, &mut found).await {
                    Ok(()) | Err(Stuck::Host(HostError::NotOwner { .. } | HostError::Archived)) => {}
                    Err(why) => {
                        is_complete = false;
                        tracing::warn!(payment = %id, %why, "not compared yet");
                    }
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if is_complete {
            self.since = self.since.max(until - OVERLAP);
        }
        Ok(found)
    }

    /// Those that the read models do not show to be in order.
    async fn doubtful<'a>(
        &self,
        all: Vec<(PaymentId, &'a Booked)>,
    ) -> anyhow::Result<Vec<(PaymentId, &'a Booked)>> {
        let moved: Vec<_> =
            all.into_iter().filter(|(_, booked)| booked.status == ChargeStatus::Succeeded).collect();
        let shows: Vec<uuid::Uuid> = moved.iter().map(|(id, _)| id.show().0).collect();
        let own: Vec<Vec<u8>> = moved.iter().map(|(id, _)| id.own().to_vec()).collect();
        let client = self.app.pool.get().await?;
        let rows = client.query(&client.prepare_cached(KNOWN).await?, &[&shows, &own]).await?;
        let in_order = |(id, booked): &(PaymentId, &Booked)| {
            rows.iter().any(|row| {
                let is_it = ShowId(row.get("show_id")) == id.show() && row.get::<_, &[u8]>("own") == id.own();
                let status: &str = row.get("status");
                let settled = matches!(status, "completed" | "refunded" | "partially_refunded");
                let sums: [i64; 2] = [row.get("amount"), row.get("refunded")];
                is_it && settled && sums == [booked.amount, booked.refunded]
            })
        };
        Ok(moved.into_iter().filter(|charge| !in_order(charge)).collect())
    }

    async fn compare(&self, id: PaymentId, booked: &Booked, found: &mut Found) -> Result<(), Stuck> {
        let host = match self.app.hosts.get(id.show()).await {
            Err(HostError::NoShow) => {
                found.stray += 1;
                tracing::error!(payment = %id, "the provider has money for a show that has no journal; an operator must look");
                return Ok(());
            }
            host => host?,
        };
        let look = |show: &Show| {
            let payment = show.payments.get(&id);
            let giving_back = payment
                .as_ref()
                .is_some_and(|_| show.refunds.values().any(|r| r.is_open() && show.payment_of(&r).id == id));
            (verdict(payment.as_deref(), giving_back, booked), payment.map(WithId::to_owned))
        };
        let (verdict, payment) = host.read(look);
        match (verdict, payment) {
            (Verdict::Untold, Some(payment)) => {
                found.untold += 1;
                tracing::warn!(payment = %id, status = ?payment.status, "the provider has money that no journal knew of");
                saga::hinted(&self.app, &host, &payment).await.map(drop)
            }
            (Verdict::Stray, _) => {
                // Another may lead, and know it.
                host.was_current().await?;
                found.stray += 1;
                let amount = booked.amount.saturating_sub(booked.refunded);
                tracing::error!(payment = %id, amount, "the provider has money for a payment that no journal has; it goes back");
                saga::return_stray(&self.app, id, amount).await
            }
            (Verdict::Differs, Some(payment)) => {
                host.was_current().await?;
                found.differing += 1;
                let (amount, refunded) = (payment.amount, payment.refunded);
                tracing::error!(payment = %id, amount, refunded, ?booked, "the provider's books differ from ours; an operator must look");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
