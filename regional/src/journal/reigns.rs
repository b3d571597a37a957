//! Who has led a show: the first entry of each ballot is its leader's `Led`.

use common::ShowId;
use jiff::Timestamp;

use super::store::{ballot, number};
use super::{Ballot, Journal, JournalError};

/// When a leader began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led {
    pub ballot: Ballot,
    pub seq: u64,
    pub at: Timestamp,
}

impl Journal {
    /// The last `limit` leaders, the newest first.
    pub async fn reigns(&self, show: ShowId, limit: i64) -> Result<Vec<Led>, JournalError> {
        // Times never run back within a journal.
        let select = "SELECT epoch, session, attempt, min(seq) AS seq, min(at) AS at FROM show_journal
                       WHERE show_id = $1 GROUP BY epoch, session, attempt ORDER BY min(seq) DESC LIMIT $2";
        let rows = self.client().await?.query(select, &[&show.0, &limit]).await?;
        let led = |row| Led { ballot: ballot(row, ""), seq: number(row, "seq"), at: row.get("at") };
        Ok(rows.iter().map(led).collect())
    }
}
