//! Text messages: short notices of what was bought or called off, for those who gave a number and want them.
//!
//! Invariant: one event is one message. It is derived by the regions, waits in the outbox beside the mails, and is handed
//! over with the event's id as its idempotency key; the number is looked up then, and stands nowhere else. Nothing
//! in it is secret, or typed by a customer.

mod https;
pub mod notices;
pub mod provider;
pub mod sender;
pub mod texts;

use common::config::{Secret, check};
use serde::{Deserialize, Serialize};

/// Where messages go. Neither a folder nor a provider: nobody is told anything by message.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SmsConfig {
    /// Each message becomes a `.sms.json` file here.
    pub folder: String,
    /// Takes `{"id", "from", "to", "text"}` by POST.
    pub provider_url: String,
    /// The provider's bearer token.
    pub api_key: Secret,
    /// Whom messages come from: a number, or a name as the provider allows.
    pub sender: String,
}

impl SmsConfig {
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.folder.is_empty() && !self.provider_url.is_empty() {
            problems.push("`sms.folder` and `sms.provider_url`: only one of them".to_owned());
        }
        if !self.provider_url.is_empty() {
            check::url(&mut problems, "sms.provider_url", &self.provider_url);
            check::required(&mut problems, "sms.api_key", self.api_key.reveal());
            check::required(&mut problems, "sms.sender", &self.sender);
        }
        problems
    }
}
