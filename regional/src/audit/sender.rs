//! The reconciler that brings the outbox to `global`: nudged by this process's own writes, every second for
//! those of others and of the projector. Several processes may bring the same line; its id makes one of them.

use std::time::Duration;

use common::AuditId;
use common::proto::audit::audit_log_client::AuditLogClient;
use common::proto::audit::{Line, TellRequest};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::outbox::{self, Due};
use crate::app::App;

const POLL: Duration = Duration::from_secs(1);
/// While `global` does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// Of one message.
const MOST_LINES: i64 = 500;
const MOST_BYTES: usize = 1 << 20;

/// Runs until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    let mut pause = POLL;
    loop {
        match drain(&app, &stop).await {
            Ok(()) => pause = POLL,
            Err(error) => {
                if pause == POLL {
                    tracing::warn!(error = format!("{error:#}"), "the audit log's lines have to wait");
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        if let Ok(client) = app.pool.get().await
            && let Ok((count, oldest_secs, refused)) = outbox::waiting(&client).await
        {
            app.metrics.audit.waiting.set(count);
            app.metrics.audit.oldest_secs.set(oldest_secs.max(0.0));
            app.metrics.audit.refused.set(refused);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            // A nudge does not shorten the pause that a failing `global` is given.
            () = app.audit.0.notified(), if pause == POLL => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Brings all that is due, the oldest first.
async fn drain(app: &App, stop: &CancellationToken) -> anyhow::Result<()> {
    while !stop.is_cancelled() {
        let due = outbox::due(&app.pool.get().await?, MOST_LINES).await?;
        if due.is_empty() {
            return Ok(());
        }
        let (ids, lines) = message(due);
        let request = TellRequest { teller: app.region().to_string(), lines };
        let mut client = AuditLogClient::new(app.global_channel());
        let reply = tokio::time::timeout(ANSWERED_WITHIN, client.tell(request)).await??.into_inner();
        let refused: Vec<Uuid> =
            reply.refused.iter().filter_map(|id| id.parse::<AuditId>().ok()).map(|id| id.0).collect();
        let db = app.pool.get().await?;
        if !refused.is_empty() {
            tracing::error!(count = refused.len(), first = %AuditId(refused[0]), "lines for the audit log were refused");
            outbox::refused(&db, &refused).await?;
        }
        outbox::forget(&db, &ids).await?;
    }
    Ok(())
}

/// As many as one message takes, at least one.
fn message(due: Vec<Due>) -> (Vec<Uuid>, Vec<Line>) {
    let (mut ids, mut lines, mut bytes) = (Vec::new(), Vec::new(), 0);
    for row in due {
        let line = Line {
            id: AuditId(row.id).to_string(),
            at_micros: row.at.as_microsecond(),
            actor: row.actor.map(|actor| actor.to_string()).unwrap_or_default(),
            action: row.action,
            target: row.target,
            before: row.before.unwrap_or_default(),
            after: row.after.unwrap_or_default(),
            address: row.address,
            region: row.region,
        };
        bytes += line.target.len() + line.before.len() + line.after.len() + 200;
        if bytes > MOST_BYTES && !ids.is_empty() {
            break;
        }
        ids.push(row.id);
        lines.push(line);
    }
    (ids, lines)
}
