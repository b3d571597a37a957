//! The leader's side: renewing claims, which tells who still leads, and publishing changes.

use std::sync::Arc;
use std::time::Duration;

use common::ShowId;
use redis::Script;
use redis::aio::ConnectionManager;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::message::{Message, write_ballot};
use super::{Inner, PATIENCE, name_of};
use crate::host::Hosts;
use crate::live::Live;
use crate::metrics::Metrics;

const RENEW: Duration = Duration::from_secs(1);
/// Longer than one renewal may be late, shorter than anybody minds that reads of a dead leader's shows come
/// from the journal.
const CLAIM_LIVES_MS: u64 = 4_000;
/// Redis does nothing else meanwhile.
const CLAIMS_AT_ONCE: usize = 200;
const MESSAGES_AT_ONCE: usize = 256;

/// Claims every show that is led here, again and again, and at once where somebody begins to follow one.
pub(super) async fn claim(inner: &Arc<Inner>, hosts: &Hosts, mut greetings: mpsc::UnboundedReceiver<ShowId>) {
    let script = Script::new(include_str!("claim.lua"));
    let mut period = interval(RENEW);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let lives = tokio::select! {
            _ = period.tick() => hosts.lives(),
            Some(show) = greetings.recv() => hosts.live(show).into_iter().collect(),
        };
        for lives in lives.chunks(CLAIMS_AT_ONCE) {
            claim_some(inner, hosts, &script, lives).await;
        }
    }
}

async fn claim_some(inner: &Inner, hosts: &Hosts, script: &Script, lives: &[Arc<Live>]) {
    let claimed: Vec<_> = lives.iter().filter_map(|live| Some((live, live.publisher().ballot()?))).collect();
    let mut call = script.prepare_invoke();
    call.arg(CLAIM_LIVES_MS);
    for (live, ballot) in &claimed {
        call.key(name_of(live.show)).arg(write_ballot(*ballot));
        call.arg(Message::Beat { seq: live.seq() }.write());
    }
    let mut connection = inner.connection.clone();
    let answered = tokio::time::timeout(PATIENCE, call.invoke_async::<Vec<i64>>(&mut connection)).await;
    let Ok(Ok(followers)) = answered else {
        inner.means.metrics.relay.failed.inc();
        return;
    };
    for ((live, _), followers) in claimed.iter().zip(followers) {
        if followers < 0 {
            tracing::info!(show = %live.show, "another process of this region leads now");
            hosts.stand_down(live);
        } else {
            live.publisher().want(followers > 0);
        }
    }
}

/// Publishes what the outbox holds, many messages in one round trip.
pub(super) async fn send(
    mut connection: ConnectionManager,
    mut messages: mpsc::Receiver<(ShowId, Message)>,
    metrics: Metrics,
) {
    let mut batch = Vec::with_capacity(MESSAGES_AT_ONCE);
    while messages.recv_many(&mut batch, MESSAGES_AT_ONCE).await > 0 {
        let mut pipeline = redis::pipe();
        for (show, message) in &batch {
            pipeline.publish(name_of(*show), message.write()).ignore();
        }
        let sent = tokio::time::timeout(PATIENCE, pipeline.query_async::<()>(&mut connection)).await;
        let counter = if matches!(sent, Ok(Ok(()))) { &metrics.relay.sent } else { &metrics.relay.dropped };
        counter.inc_by(batch.len() as u64);
        batch.clear();
    }
}
