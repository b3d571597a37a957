//! What is told of this region to the audit log, which `global` keeps: who changed what, from where.
//!
//! Invariant: what is committed is told, and `global` has it once. A change of a table writes its line in its own
//! transaction; a show's event is told with the read models that are folded from its entry, by every region
//! that keeps the journal, under an id that is made of the event's place in it, so that neither a lost region
//! nor a rebuilt read model loses or doubles a line; an order to the registry is written down before it is given.
//! Personal data beyond ids, and secrets, stay out of `before` and `after`.

mod events;
mod order;
mod outbox;
mod sender;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use common::{AuditId, RegionName, UserId};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Notify;

pub use events::{Audited, event_id, lines, worth_telling};
pub use order::Order;
pub use outbox::put;
pub use sender::run;

/// One line of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub id: AuditId,
    pub at: Timestamp,
    /// None: the system itself.
    pub actor: Option<UserId>,
    pub action: &'static str,
    pub target: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
    /// Empty: not known.
    pub address: String,
    /// Where it was done; of a show, its home.
    pub region: RegionName,
}

impl Line {
    /// Of a change that is made now.
    pub fn now(
        region: &RegionName,
        actor: Option<UserId>,
        address: String,
        action: &'static str,
        target: String,
    ) -> Self {
        let (id, at, region) = (AuditId::new(), Timestamp::now(), region.clone());
        Self { id, at, actor, action, target, before: None, after: None, address, region }
    }

    pub fn before(self, before: Value) -> Self {
        Self { before: Some(before), ..self }
    }

    pub fn after(self, after: Value) -> Self {
        Self { after: Some(after), ..self }
    }
}

/// Wakes the sender, once what is in the outbox has committed.
#[derive(Clone, Default)]
pub struct Nudge(Arc<Notify>);

impl Nudge {
    pub fn now(&self) {
        self.0.notify_one();
    }
}
