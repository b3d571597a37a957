//! The reconciler of money and time: finds payments and refunds that nobody brings to their end (a process
//! died, a provider was away) and reservations whose time is over in shows that nobody asks for. No input but
//! the read models; the same path after a crash as before.

use std::time::Duration;

use common::{PaymentId, RefundId, ReservationId, ShowId};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::saga;
use crate::app::App;
use crate::host::{Answer, HostError};
use crate::show::{Asked, Command, Event};

const PERIOD: Duration = Duration::from_secs(2);

/// Halls' bookings are tidied up every so many passes.
const PASSES_BETWEEN_BOOKINGS: u32 = 15;

// Younger ones are still with the request that started them.
const OPEN_PAYMENTS: &str = "
SELECT id FROM payments WHERE status = 'pending' AND created_at < now() - interval '10 seconds'
 ORDER BY created_at LIMIT 200";
const OPEN_REFUNDS: &str = "
SELECT id FROM refunds WHERE status = 'pending' AND created_at < now() - interval '10 seconds'
 ORDER BY created_at LIMIT 200";

/// A show that is led expires its reservations itself, in time.
const LAPSED: &str = "
SELECT id FROM reservations WHERE status = 'reserved' AND expires_at < now() - interval '1 second'
 ORDER BY expires_at LIMIT 200";

/// A hall booked for a show that never came to be is free again.
const ORPHANED_BOOKINGS: &str = "
DELETE FROM hall_bookings b WHERE created_at < now() - interval '10 minutes'
   AND NOT EXISTS (SELECT 1 FROM show_head h WHERE h.show_id = b.show_id AND h.seq > 0)";

/// Bookings of shows that were moved or called off.
const OUTDATED_BOOKINGS: &str = "
DELETE FROM hall_bookings b USING shows s
 WHERE s.id = b.show_id AND b.created_at < now() - interval '10 minutes'
   AND (lower(b.during) <> s.starts_at OR s.status = 'canceled')";

/// Nothing can be booked for the past, so what was is in nobody's way.
const PAST_BOOKINGS: &str = "
DELETE FROM hall_bookings WHERE upper(during) < now() - interval '1 day'";

/// Canceled shows in which somebody still has seats.
const CALLED_OFF: &str = "
SELECT DISTINCT s.id FROM shows s JOIN reservations r ON r.show_id = s.id
 WHERE s.status = 'canceled' AND r.status IN ('reserved', 'paid') LIMIT 20";

/// How many reservations of a canceled show one entry ends.
const CANCELED_AT_ONCE: usize = 200;

/// Cancels what is left of a canceled show and gives the money back, as far as it goes now. Begins where the
/// last try ended.
pub async fn calls_off(app: App, show: ShowId) {
    loop {
        let command = Command::CancelRest { limit: CANCELED_AT_ONCE, chance: rand::random() };
        let (host, answer) =
            match app.hosts.ask(show, Asked { command, by: None, key: None, trace: None }).await {
                Ok(answered) => answered,
                Err(why) => return report(&show, Err(why.into())),
            };
        let Answer::Done { group, .. } = answer else { return };
        let refunds = group.events.iter().filter_map(|event| match event {
            Event::Canceled(cancellation) => cancellation.refund.as_ref().map(|back| back.refund),
            _ => None,
        });
        futures::stream::iter(refunds)
            .for_each_concurrent(8, async |refund| {
                report(&refund, saga::give_back(&app, &host, refund).await)
            })
            .await;
    }
}

pub struct Reconciler {
    pub app: App,
}

impl Reconciler {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut period = tokio::time::interval(PERIOD);
        let mut passes = 0_u32;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = period.tick() => {}
            }
            if let Err(error) = self.pass().await {
                tracing::warn!(error = %format!("{error:#}"), "reconciliation interrupted");
            }
            if passes.is_multiple_of(PASSES_BETWEEN_BOOKINGS)
                && let Err(error) = self.tidy_bookings().await
            {
                tracing::warn!(error = %format!("{error:#}"), "halls stay booked");
            }
            passes = passes.wrapping_add(1);
        }
    }

    /// Frees halls that nobody needs any more.
    async fn tidy_bookings(&self) -> anyhow::Result<()> {
        let client = self.app.pool.get().await?;
        for delete in [ORPHANED_BOOKINGS, OUTDATED_BOOKINGS, PAST_BOOKINGS] {
            client.execute(delete, &[]).await?;
        }
        Ok(())
    }

    async fn pass(&self) -> anyhow::Result<()> {
        let payments = self.ids::<PaymentId>(OPEN_PAYMENTS).await?;
        let refunds = self.ids::<RefundId>(OPEN_REFUNDS).await?;
        let lapsed = self.ids::<ReservationId>(LAPSED).await?;
        self.app.metrics.pending(payments.len(), refunds.len());

        futures::stream::iter(payments).for_each_concurrent(8, |id| self.settle(id)).await;
        futures::stream::iter(refunds).for_each_concurrent(8, |id| self.give_back(id)).await;
        let shows: std::collections::BTreeSet<ShowId> = lapsed.iter().map(ReservationId::show).collect();
        futures::stream::iter(shows).for_each_concurrent(8, |show| self.expire(show)).await;

        let called_off = self.app.pool.get().await?.query(CALLED_OFF, &[]).await?;
        let called_off = called_off.iter().map(|row| ShowId(row.get(0)));
        futures::stream::iter(called_off).for_each_concurrent(4, |show| self.call_off(show)).await;
        Ok(())
    }

    async fn ids<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        &self,
        select: &str,
    ) -> anyhow::Result<Vec<T>> {
        let rows = self.app.pool.get().await?.query(select, &[]).await?;
        rows.iter().map(|row| Ok(row.get::<_, &str>(0).parse()?)).collect()
    }

    async fn settle(&self, id: PaymentId) {
        let settled = async {
            let host = self.app.hosts.get(id.show()).await?;
            match host.read(|show| show.payments.get(&id).cloned()) {
                Some(payment) if payment.is_open() => {
                    saga::settle(&self.app, &host, &payment).await.map(drop)
                }
                _ => Ok(()),
            }
        };
        report(&id, settled.await);
    }

    async fn give_back(&self, id: RefundId) {
        let given = async {
            let host = self.app.hosts.get(id.show()).await?;
            saga::give_back(&self.app, &host, id).await
        };
        report(&id, given.await);
    }

    async fn call_off(&self, show: ShowId) {
        calls_off(self.app.clone(), show).await;
    }

    async fn expire(&self, show: ShowId) {
        let asked = Asked { command: Command::ExpireDue, by: None, key: None, trace: None };
        report(&show, self.app.hosts.ask(show, asked).await.map(drop).map_err(saga::Stuck::from));
    }
}

fn report(what: &impl std::fmt::Display, result: Result<(), saga::Stuck>) {
    match result {
        // Its owner is elsewhere and brings it to its end there.
        Ok(()) | Err(saga::Stuck::Host(HostError::NotOwner { .. })) => {}
        Err(why) => tracing::warn!(%what, %why, "not settled yet"),
    }
}
