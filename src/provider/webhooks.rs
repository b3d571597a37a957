//! What the provider does by itself: late charges come true, and their webhooks are repeated, signed as
//! Standard Webhooks has it, until somebody accepts them or three days have passed.

use std::sync::Arc;
use std::time::Duration;

use common::config::Secret;
use data_encoding::BASE64;
use jiff::Timestamp;
use ring::hmac;
use tokio_util::sync::CancellationToken;

use super::store::{Message, Store};

const GIVE_UP_AFTER_ATTEMPTS: u32 = 4_400; // about three days at a minute each

pub async fn settle_late_charges(store: Arc<Store>, stop: CancellationToken) {
    loop {
        let now_ms = Timestamp::now().as_millisecond();
        let books = store.clone();
        let next = match tokio::task::spawn_blocking(move || books.settle_late(now_ms)).await {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => {
                tracing::error!(%error, "late charges cannot be settled");
                Some(now_ms + 1_000)
            }
            Err(_) => return,
        };
        let pause = next.map_or(Duration::from_secs(3600), |due_ms| {
            Duration::from_millis(u64::try_from(due_ms - Timestamp::now().as_millisecond()).unwrap_or(0))
        });
        tokio::select! {
            () = stop.cancelled() => return,
            () = store.late_added.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

pub async fn deliver(store: Arc<Store>, urls: Vec<String>, secret: Secret, stop: CancellationToken) {
    let client = match reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "no webhooks: the HTTP client cannot be made");
            return;
        }
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    loop {
        let messages = store.messages().unwrap_or_else(|error| {
            tracing::error!(%error, "the outbox cannot be read");
            Vec::new()
        });
        let now_ms = Timestamp::now().as_millisecond();
        let mut next_ms = now_ms + 60_000;
        for mut message in messages {
            if message.next_attempt_ms > now_ms {
                next_ms = next_ms.min(message.next_attempt_ms);
                continue;
            }
            let done = send(&client, &urls, &key, &message).await;
            message.attempts += 1;
            let kept = if done || message.attempts > GIVE_UP_AFTER_ATTEMPTS {
                store.delivered(&message.id)
            } else {
                let pause_ms = 500_i64 << message.attempts.min(7);
                message.next_attempt_ms = Timestamp::now().as_millisecond() + pause_ms.min(60_000);
                next_ms = next_ms.min(message.next_attempt_ms);
                store.postpone(&message)
            };
            if let Err(error) = kept {
                tracing::error!(%error, "the outbox cannot be written; the message goes out again");
            }
        }
        let pause_ms = (next_ms - Timestamp::now().as_millisecond()).max(50);
        tokio::select! {
            () = stop.cancelled() => return,
            () = store.outbox_added.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(pause_ms.unsigned_abs())) => {}
        }
    }
}

/// Whether one of the URLs took it.
async fn send(client: &reqwest::Client, urls: &[String], key: &hmac::Key, message: &Message) -> bool {
    for url in urls {
        let timestamp = Timestamp::now().as_second();
        let sent = client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", signature(key, &message.id, timestamp, &message.body))
            .body(message.body.clone())
            .send()
            .await;
        match sent {
            Ok(answer) if answer.status().is_success() => return true,
            Ok(answer) => tracing::warn!(%url, status = %answer.status(), "a webhook was refused"),
            Err(error) => tracing::warn!(%url, %error, "a webhook did not arrive"),
        }
    }
    false
}

/// `v1,<base64 HMAC-SHA256 of "{id}.{timestamp}.{body}">`
fn signature(key: &hmac::Key, id: &str, timestamp_secs: i64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{id}.{timestamp_secs}.{body}").as_bytes());
    format!("v1,{}", BASE64.encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_covers_id_time_and_body() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let whole = signature(&key, "msg_1", 1_700_000_000, "{}");
        // Computed once with another implementation (Python's hmac).
        assert_eq!(whole, "v1,A5oIrJxXPB/PkULSoVu0e4khvPiqpF9vljmhkSKg0FI=");
        assert_ne!(whole, signature(&key, "msg_2", 1_700_000_000, "{}"));
        assert_ne!(whole, signature(&key, "msg_1", 1_700_000_001, "{}"));
    }
}
