//! Who takes messages: an HTTP provider, or a folder.

use std::path::PathBuf;

use async_trait::async_trait;
use common::config::Secret;
use serde_json::json;
use uuid::Uuid;

use super::{SmsConfig, https};
use crate::mail::transport::{Unsent, write_file_once};

pub struct Message<'a> {
    /// The event's: of two with the same one, one is to be sent.
    pub id: Uuid,
    pub to: &'a str,
    pub text: &'a str,
}

#[async_trait]
pub trait Provider: Send + Sync + 'static {
    async fn send(&self, message: Message<'_>) -> Result<(), Unsent>;
}

/// None: messages are not configured.
pub fn of(config: &SmsConfig) -> anyhow::Result<Option<Box<dyn Provider>>> {
    if !config.folder.is_empty() {
        let folder = PathBuf::from(&config.folder);
        std::fs::create_dir_all(&folder)
            .map_err(|e| anyhow::anyhow!("the folder of messages {}: {e}", folder.display()))?;
        return Ok(Some(Box::new(Folder { folder, sender: config.sender.clone() })));
    }
    if config.provider_url.is_empty() {
        return Ok(None);
    }
    let client = https::Client::new(&config.provider_url, &config.ca_file)?;
    Ok(Some(Box::new(Http { client, api_key: config.api_key.clone(), sender: config.sender.clone() })))
}

struct Folder {
    folder: PathBuf,
    sender: String,
}

#[async_trait]
impl Provider for Folder {
    async fn send(&self, message: Message<'_>) -> Result<(), Unsent> {
        let body = body(&self.sender, &message);
        let (folder, id) = (self.folder.clone(), message.id);
        let write = move || write_file_once(&folder, id, "sms.json", body.as_bytes());
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|e| Unsent::Later(e.to_string()))?.map_err(|e| Unsent::Later(e.to_string()))
    }
}

fn body(sender: &str, message: &Message<'_>) -> String {
    json!({ "id": message.id, "from": sender, "to": message.to, "text": message.text }).to_string()
}

/// `POST` of JSON under the event's id as `Idempotency-Key`. 2xx: taken.
struct Http {
    client: https::Client,
    api_key: Secret,
    sender: String,
}

#[async_trait]
impl Provider for Http {
    async fn send(&self, message: Message<'_>) -> Result<(), Unsent> {
        let body = body(&self.sender, &message);
        let answered = self.client.post(self.api_key.reveal(), message.id, body).await;
        // What is told of an answer is its status alone: its body may repeat the number.
        match answered {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) if about_this_message(status.as_u16()) => {
                Err(Unsent::Refused(format!("the provider answered {status}")))
            }
            Ok(status) => Err(Unsent::Later(format!("the provider answered {status}"))),
            Err(error) => Err(Unsent::Later(format!("{error:#}"))),
        }
    }
}

/// Whether asking again will never help. A bad key of ours, a wrong address of the provider's and a limit may be mended.
fn about_this_message(status: u16) -> bool {
    (400..500).contains(&status) && ![401, 402, 403, 404, 405, 407, 408, 409, 421, 425, 429].contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_with_the_message_itself_is_final() {
        for status in [400, 410, 413, 422] {
            assert!(about_this_message(status), "{status}");
        }
        for status in [200, 301, 401, 403, 404, 408, 429, 500, 503] {
            assert!(!about_this_message(status), "{status}");
        }
    }
}
