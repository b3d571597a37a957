//! Orders to the registry, whose record no transaction of ours covers: written down before they are given, and
//! told with what became of them. Where nobody knows (the registry did not answer, this process died), they are
//! told so.

use common::Problem;
use raft::client::RegistryError;
use serde_json::{Value, json};

use super::{Line, outbox};
use crate::app::{App, db_failed};

/// Longer than any order takes.
const KNOWN_WITHIN_SECS: f64 = 60.0;

/// An order that is written down and may be given.
#[must_use]
pub struct Order {
    line: Line,
}

impl Order {
    /// 503 where it cannot be written down: nothing is ordered unseen.
    pub async fn begin(app: &App, line: Line) -> Result<Self, Problem> {
        let line = line.after(json!({ "outcome": "unknown" }));
        let client = app.db().await?;
        outbox::put_due_in(&client, std::slice::from_ref(&line), KNOWN_WITHIN_SECS)
            .await
            .map_err(db_failed)?;
        Ok(Self { line })
    }

    /// What became of it. A refusal changed nothing and leaves no line.
    pub async fn end<T>(self, app: &App, result: &Result<T, RegistryError>, after: impl FnOnce(&T) -> Value) {
        let id = self.line.id;
        let noted = async {
            let client = app.pool.get().await?;
            match result {
                Ok(done) => outbox::settle(&client, id, &after(done)).await?,
                Err(RegistryError::Refused(_)) => outbox::forget(&client, &[id.0]).await?,
                Err(RegistryError::Unavailable(_)) => {}
            }
            anyhow::Ok(())
        };
        if let Err(error) = noted.await {
            // It is told all the same, with an unknown outcome.
            tracing::warn!(%error, "what became of an order is not written down");
        }
        app.audit.now();
    }
}
