//! The reconciler that brings notices to `global`, a second after they were written at the latest.

use std::time::Duration;

use common::UserId;
use common::proto::notices::notices_client::NoticesClient;
use common::proto::notices::{Notice, TellRequest};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::outbox;
use crate::app::App;

const POLL: Duration = Duration::from_secs(1);
/// While `global` does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
const AT_ONCE: i64 = 200;

/// Runs until `stop`.
pub async fn run(app: App, stop: CancellationToken) {
    let mut pause = POLL;
    loop {
        pause = match drain(&app, &stop).await {
            Ok(()) => POLL,
            Err(error) => {
                if pause == POLL {
                    tracing::warn!(error = format!("{error:#}"), "notices have to wait");
                }
                (pause * 2).min(LONGEST_PAUSE)
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn drain(app: &App, stop: &CancellationToken) -> anyhow::Result<()> {
    outbox::forget_old(&app.pool.get().await?).await?;
    while !stop.is_cancelled() {
        let rows = outbox::waiting(&app.pool.get().await?, AT_ONCE).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = rows.iter().map(|row| row.get("id")).collect();
        let mut notices = Vec::with_capacity(rows.len());
        for row in &rows {
            notices.extend(read(app, row)?);
        }
        let request = TellRequest { teller: app.region().to_string(), notices };
        let mut client = NoticesClient::new(app.global_channel());
        tokio::time::timeout(ANSWERED_WITHIN, client.tell(request)).await??;
        outbox::forget(&app.pool.get().await?, &ids).await?;
    }
    Ok(())
}

/// None: whose it is cannot be told any more, the address being forgotten.
///
/// # Errors
/// Where the keys that open addresses are yet to be heard.
fn read(app: &App, row: &tokio_postgres::Row) -> anyhow::Result<Option<Notice>> {
    let customer: Option<Uuid> = row.get("customer");
    let reservation: &str = row.get("reservation");
    let address = match row.get::<_, Option<&str>>("contact") {
        None => String::new(),
        Some(contact) => {
            anyhow::ensure!(app.contacts.can_open(), "no key of a month was heard yet");
            match app.contacts.guests(contact, reservation) {
                Some(address) => address,
                None => return Ok(None),
            }
        }
    };
    Ok(Some(Notice {
        id: row.get::<_, Uuid>("id").to_string(),
        at_micros: row.get::<_, Timestamp>("at").as_microsecond(),
        user_id: customer.map(|customer| UserId(customer).to_string()).unwrap_or_default(),
        kind: row.get("kind"),
        reference: row.get("reference"),
        title: row.get("title"),
        starts_at_local: row.get("starts_at"),
        cinema: row.get("cinema"),
        seats: row.get("seats"),
        reservation_id: reservation.to_owned(),
        was_starts_at_local: row.get::<_, Option<String>>("was_starts_at").unwrap_or_default(),
        address,
    }))
}
