//! The reconciler of money and time: finds payments and refunds that nobody brings to their end (a process
//! died, a provider was away) and reservations whose time is over in shows that nobody asks for. No input but
//! the read models; the same path after a crash as before.

use std::time::Duration;

use common::{PaymentId, RefundId, ShowId};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::saga;
use super::steps::{Waiting, waiting};
use crate::app::App;
use crate::host::{Answer, HostError};
use crate::show::{Asked, Command, Event, WithId};

const PERIOD: Duration = Duration::from_secs(2);

/// Halls' bookings are tidied up every so many passes.
const PASSES_BETWEEN_BOOKINGS: u32 = 15;

/// Shows in which something waits: a hold that ran out though nobody leads the show, money under way for long,
/// seats of a canceled show. The projector knows from when on. A replica has other regions' shows too.
const TO_ATTEND: &str = "
SELECT show_id FROM projected WHERE attend_at < now() ORDER BY attend_at LIMIT 10000";

/// How many of them one pass looks at.
const AT_ONCE: usize = 200;

/// A younger payment or refund is still with the request that started it.
const LATE: SignedDuration = SignedDuration::from_secs(10);

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

/// How many reservations of a canceled show one entry ends.
const CANCELED_AT_ONCE: usize = 200;

/// Cancels what is left of a canceled show and gives the money back, as far as it goes now. Begins where the
/// last try ended.
pub async fn calls_off(app: App, show: ShowId) {
    loop {
        let command = Command::CancelRest { limit: CANCELED_AT_ONCE, chance: rand::random() };
        let (host, answer) = match app
            .hosts
            .ask(show, Asked { command, by: None, key: None, trace: None, from: None })
            .await
        {
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
        let rows = self.app.pool.get().await?.query(TO_ATTEND, &[]).await?;
        let shows = rows.iter().map(|row| ShowId(row.get(0))).filter(|show| self.app.owns(*show));
        let looks: Vec<_> = shows.take(AT_ONCE).map(|show| self.look(show)).collect();
        let found: Vec<Found> = futures::stream::iter(looks).buffer_unordered(8).collect().await;
        let payments: Vec<PaymentId> = found.iter().flat_map(|found| &found.payments).copied().collect();
        let refunds: Vec<RefundId> = found.iter().flat_map(|found| &found.refunds).copied().collect();
        self.app.metrics.pending(payments.len(), refunds.len());
        futures::stream::iter(payments).for_each_concurrent(8, |id| self.settle(id)).await;
        futures::stream::iter(refunds).for_each_concurrent(8, |id| self.give_back(id)).await;
        let called_off: Vec<ShowId> = found.iter().filter_map(|found| found.called_off).collect();
        let shows = futures::stream::iter(called_off);
        shows.for_each_concurrent(4, |show| calls_off(self.app.clone(), show)).await;
        Ok(())
    }

    /// What waits in a show. Leading it ends its holds in time; who leads it elsewhere sees to it there.
    async fn look(&self, show: ShowId) -> Found {
        let host = match self.app.hosts.get(show).await {
            Ok(host) => host,
            Err(why) => {
                report(&show, Err(why.into()));
                return Found::default();
            }
        };
        let late = Timestamp::now() - LATE;
        host.read(|state| {
            let Waiting { payments, refunds, called_off } = waiting(state, late);
            Found { payments, refunds, called_off: called_off.then_some(show) }
        })
    }

    async fn settle(&self, id: PaymentId) {
        let settled = async {
            let host = self.app.hosts.get(id.show()).await?;
            match host.read(|show| show.payments.get(&id).map(WithId::to_owned)) {
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
}

/// What the reconciler found in a show.
#[derive(Default)]
struct Found {
    payments: Vec<PaymentId>,
    refunds: Vec<RefundId>,
    called_off: Option<ShowId>,
}

fn report(what: &impl std::fmt::Display, result: Result<(), saga::Stuck>) {
    match result {
        // Its owner is elsewhere and brings it to its end there.
        Ok(()) | Err(saga::Stuck::Host(HostError::NotOwner { .. })) => {}
        Err(why) => tracing::warn!(%what, %why, "not settled yet"),
    }
}
