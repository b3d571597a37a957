//! Whether a show can be archived: it is over, all its entries are committed and whole, and nothing of it is
//! still to be brought to an end.

use anyhow::Context;
use common::ShowId;
use data_encoding::HEXLOWER;
use jiff::Timestamp;

use super::file::{Archived, Line};
use crate::journal::{Ballot, Journal};
use crate::show::{self, RefundStatus, ReservationStatus, Show, ShowStatus};
use crate::shows::view::ends_at;
use crate::verify::{self, Store};

/// The show as a file would have it, or why it is left. Its journal is held in memory, as its host would.
pub(super) async fn examine(
    store: &Store,
    show: ShowId,
    before: Timestamp,
) -> anyhow::Result<Result<(Archived, Vec<Line>), String>> {
    // All that `marquee verify` knows: nothing that is wrong in any way leaves for a file.
    let (breaches, behind) = match verify::one_show(store, show).await? {
        Some(checked) => checked,
        None => return Ok(Err("it is gone".into())),
    };
    if let Some(breach) = breaches.first() {
        let seq = breach.seq.map_or_else(String::new, |seq| format!(" at {seq}"));
        return Ok(Err(format!("corrupt ({}{seq}): {}", breach.rule, breach.detail)));
    }
    if behind {
        return Ok(Err("its read models have not followed its journal yet".into()));
    }
    read(store, show, before).await
}

async fn read(
    store: &Store,
    show: ShowId,
    before: Timestamp,
) -> anyhow::Result<Result<(Archived, Vec<Line>), String>> {
    let journal = Journal::new(store.pool.clone());
    let Some(head) = journal.head(show).await? else { return Ok(Err("it is gone".into())) };
    if head.promised == Ballot::ARCHIVED {
        return Ok(Err("it is archived already".into()));
    }
    if head.committed != head.seq {
        return Ok(Err(format!("only {} of {} entries are committed", head.committed, head.seq)));
    }
    let lines = lines(store, show, head.seq).await?;
    let mut state = None;
    for line in &lines {
        let groups = show::decode(line.format, line.events.as_bytes()).map_err(anyhow::Error::msg)?;
        state = Show::fold(state, line.seq, &groups).map_err(anyhow::Error::msg)?;
    }
    let Some(state) = state else { return Ok(Err("it was never created".into())) };
    if let Some(why) = open(&state, before) {
        return Ok(Err(why));
    }
    let hash = HEXLOWER.encode(&head.hash);
    if lines.last().map(|line| &line.hash) != Some(&hash) {
        return Ok(Err("somebody wrote to it meanwhile; the next run takes it".into()));
    }
    let (promised, accepted, seq) = (head.promised, head.accepted, head.seq);
    let (title, starts_at) = (state.plan.facts.title.clone(), state.starts_at);
    Ok(Ok((Archived { show, title, starts_at, promised, accepted, seq, hash }, lines)))
}

async fn lines(store: &Store, show: ShowId, upto: u64) -> anyhow::Result<Vec<Line>> {
    let select = "SELECT seq, epoch, session, attempt, at, format, hash, events FROM show_journal
                   WHERE show_id = $1 AND seq <= $2 ORDER BY seq";
    let rows = store.pool.get().await?.query(select, &[&show.0, &i64::try_from(upto)?]).await?;
    rows.iter()
        .map(|row| {
            let number = |column: &str| u64::try_from(row.get::<_, i64>(column));
            let (hash, events): (&[u8], &[u8]) = (row.get("hash"), row.get("events"));
            Ok(Line {
                seq: number("seq")?,
                ballot: Ballot {
                    epoch: number("epoch")?,
                    session: number("session")?,
                    attempt: number("attempt")?,
                },
                at: row.get("at"),
                format: row.get("format"),
                hash: HEXLOWER.encode(hash),
                events: String::from_utf8(events.to_vec()).context("an entry is no text")?,
            })
        })
        .collect()
}

/// What is still open in it, or that it has not ended; none where it can go.
fn open(show: &Show, before: Timestamp) -> Option<String> {
    let ends = ends_at(&show.plan.facts, show.starts_at);
    if ends >= before {
        return Some(format!("it ends at {ends}"));
    }
    if let Some(payment) = show.payments.values().find(|payment| payment.is_open()) {
        return Some(format!("unsettled: {} is under way", payment.id));
    }
    if let Some(refund) = show.refunds.values().find(|refund| refund.status == RefundStatus::Pending) {
        return Some(format!("unsettled: {} is under way", refund.id));
    }
    if let Some(held) = show.reservations.values().find(|r| r.status == ReservationStatus::Reserved) {
        return Some(format!("unsettled: {} is held", held.id));
    }
    if let Some(owed) = show.payments.values().find(|p| p.unclaimed && p.remainder() > 0) {
        return Some(format!("unsettled: {} of {} is to be given back", owed.remainder(), owed.id));
    }
    if show.status == ShowStatus::Canceled
        && let Some(left) = show.reservations.values().find(|r| r.status == ReservationStatus::Paid)
    {
        return Some(format!("unsettled: the show is canceled, and {} is not", left.id));
    }
    None
}
