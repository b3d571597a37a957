//! Text messages: short notices of what happened to orders (`notices`), for those who gave a number, proved it and want
//! them; and the codes that prove a number ([`codes`]).
//!
//! Invariant: one event is one message. It waits in the outbox beside the mails, and is handed over with the event's
//! id as its idempotency key; the number is looked up then, and stands nowhere else.

pub mod codes;
mod https;
pub mod provider;
pub mod sender;

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
    /// Authorities (PEM) that vouch for an `https` provider, instead of those that browsers trust.
    pub ca_file: String,
}

impl SmsConfig {
    /// Whether messages are sent.
    pub fn is_on(&self) -> bool {
        !(self.folder.is_empty() && self.provider_url.is_empty())
    }

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
