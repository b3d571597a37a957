//! Mail: an outbox that is written in the transaction of the change it tells of, and a reconciler that sends.
//!
//! Invariant: what is committed is sent, and one event is one mail, whose `Message-ID` is the event's id. A
//! folder takes a mail exactly once. SMTP has no such promise: a process that dies between the server's
//! "accepted" and its own note sends the same mail, with the same id and the same token, once more.

pub mod outbox;
pub mod sender;
pub mod texts;
pub mod tokens;
pub mod transport;

use common::config::Secret;
use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};

/// Where mail goes. Neither a folder nor a server: it waits, and is given up in the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailConfig {
    /// Each mail becomes an `.eml` file here.
    pub folder: String,
    /// `smtp://user:password@host:587?tls=required`, `smtps://…`; without `tls` it is not encrypted.
    pub smtp_url: Secret,
    pub from: String,
    /// Where customers' pages are; the links in mails go there. Empty: mails carry the token alone.
    pub link_url: String,
}

impl Default for MailConfig {
    fn default() -> Self {
        Self {
            folder: String::new(),
            smtp_url: Secret::default(),
            from: "Marquee <no-reply@marquee.example>".into(),
            link_url: String::new(),
        }
    }
}

impl MailConfig {
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.folder.is_empty() && !self.smtp_url.reveal().is_empty() {
            problems.push("`mail.folder` and `mail.smtp_url`: only one of them".to_owned());
        }
        if !self.smtp_url.reveal().is_empty() && transport::smtp(self.smtp_url.reveal()).is_err() {
            problems.push("`mail.smtp_url` must be a URL such as smtp://host:25 or smtps://host".to_owned());
        }
        if self.from.parse::<Mailbox>().is_err() {
            problems.push("`mail.from` must be an address such as Marquee <no-reply@example.org>".to_owned());
        }
        if !self.link_url.is_empty() {
            common::config::check::url(&mut problems, "mail.link_url", &self.link_url);
        }
        problems
    }
}
