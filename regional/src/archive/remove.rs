//! Taking an archived show out of Postgres, and putting it back: each one transaction.
//!
//! Why a host that leads the show meanwhile cannot bring it back: removing locks the head's row and changes its
//! promise. An append under way holds the same row: it commits first, and the head is no longer what the file
//! holds, so nothing is removed; or it waits, and then finds a promise that is not its own, and misses. Every
//! later try to lead is refused by the promise. The projector writes only what lies behind `projected`, which
//! stays at the last entry.

use common::ShowId;
use data_encoding::HEXLOWER;
use tokio_postgres::Transaction;

use super::file::{Archived, Line};
use crate::journal::{Ballot, years};
use crate::verify::Store;

/// What became of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    Done,
    /// The head is not what was archived.
    MovedOn,
}

const SEAL: &str = "
UPDATE show_head SET promised_epoch = $4, promised_session = $5, promised_attempt = $6, committed = 0,
                     nonce = nonce + 1
 WHERE show_id = $1 AND seq = $2 AND hash = $3 AND committed = seq
   AND (promised_epoch, promised_session, promised_attempt) = ($7, $8, $9)";

type Params = [i64; 3];

fn params(ballot: Ballot) -> anyhow::Result<Params> {
    Ok([i64::try_from(ballot.epoch)?, i64::try_from(ballot.session)?, i64::try_from(ballot.attempt)?])
}

/// Seals the head and removes what belongs to the show, if the head still is what was archived.
pub(super) async fn remove(
    store: &Store,
    archived: &Archived,
    forget_lists: bool,
) -> anyhow::Result<Removed> {
    let mut client = store.pool.get().await?;
    let transaction = client.transaction().await?;
    let (seq, hash) = (i64::try_from(archived.seq)?, HEXLOWER.decode(archived.hash.as_bytes())?);
    let (sealed, own, show) = (params(Ballot::ARCHIVED)?, params(archived.promised)?, archived.show.0);
    let changed = transaction
        .execute(SEAL, &[&show, &seq, &hash, &sealed[0], &sealed[1], &sealed[2], &own[0], &own[1], &own[2]])
        .await?;
    // Locked, so that a projector that is at it finishes before, or finds nothing to do.
    let select = "SELECT seq FROM projected WHERE show_id = $1 FOR UPDATE";
    let projected = transaction.query_opt(select, &[&show]).await?.map_or(0, |row| row.get::<_, i64>(0));
    if changed == 0 || projected < seq {
        transaction.rollback().await?;
        return Ok(Removed::MovedOn);
    }
    transaction.execute("DELETE FROM show_journal WHERE show_id = $1", &[&show]).await?;
    forget(&transaction, archived.show, forget_lists).await?;
    transaction.commit().await?;
    Ok(Removed::Done)
}

/// Removes read models: always those that only the door and the books need, and with `lists` the others.
pub(super) async fn forget(
    transaction: &Transaction<'_>,
    show: ShowId,
    lists: bool,
) -> Result<(), tokio_postgres::Error> {
    for table in ["tickets", "refunds", "hall_bookings"] {
        transaction.execute(&format!("DELETE FROM {table} WHERE show_id = $1"), &[&show.0]).await?;
    }
    if lists {
        for table in ["reservations", "payments"] {
            transaction.execute(&format!("DELETE FROM {table} WHERE show_id = $1"), &[&show.0]).await?;
        }
        transaction.execute("DELETE FROM shows WHERE id = $1", &[&show.0]).await?;
    }
    Ok(())
}

/// Puts a show back as it was archived, hash for hash; the projector makes its read models anew. Refused where
/// the show is not archived, or was at another place.
pub async fn restore(store: &Store, archived: &Archived, lines: &[Line]) -> anyhow::Result<()> {
    // Where its year was dropped, it comes back.
    years::make(&store.pool, year_of(archived.show)?).await?;
    let mut client = store.pool.get().await?;
    let transaction = client.transaction().await?;
    let show = archived.show.0;
    let (seq, hash) = (i64::try_from(archived.seq)?, HEXLOWER.decode(archived.hash.as_bytes())?);
    let (sealed, promised) = (params(Ballot::ARCHIVED)?, params(archived.promised)?);
    let accepted = params(archived.accepted)?;
    let tombstone =
        "INSERT INTO show_head (show_id, promised_epoch, promised_session, promised_attempt, seq, hash)
                     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    transaction.execute(tombstone, &[&show, &sealed[0], &sealed[1], &sealed[2], &seq, &hash]).await?;
    // The promise goes back to what it was: nothing was promised or accepted between.
    let open = "UPDATE show_head
           SET promised_epoch = $4, promised_session = $5, promised_attempt = $6, committed = seq,
               accepted_epoch = $7, accepted_session = $8, accepted_attempt = $9, nonce = nonce + 1
         WHERE show_id = $1 AND seq = $2 AND hash = $3 AND promised_epoch = $10 AND committed = 0";
    let opened = transaction
        .execute(
            open,
            &[
                &show,
                &seq,
                &hash,
                &promised[0],
                &promised[1],
                &promised[2],
                &accepted[0],
                &accepted[1],
                &accepted[2],
                &sealed[0],
            ],
        )
        .await?;
    anyhow::ensure!(opened == 1, "{} is not archived here, or not as this file has it", archived.show);
    let insert = "INSERT INTO show_journal (show_id, seq, epoch, session, attempt, at, format, hash, events)
                  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    for line in lines {
        let ballot = params(line.ballot)?;
        let (seq, hash) = (i64::try_from(line.seq)?, HEXLOWER.decode(line.hash.as_bytes())?);
        let events = line.events.as_bytes();
        transaction
            .execute(
                insert,
                &[&show, &seq, &ballot[0], &ballot[1], &ballot[2], &line.at, &line.format, &hash, &events],
            )
            .await?;
    }
    transaction.execute("DELETE FROM projected WHERE show_id = $1", &[&show]).await?;
    transaction.commit().await?;
    Ok(())
}

/// The year in whose partition a show lives.
pub(super) fn year_of(show: ShowId) -> anyhow::Result<i16> {
    let millis = show.0.as_bytes()[..6].iter().fold(0_i64, |sum, byte| (sum << 8) | i64::from(*byte));
    Ok(years::year_of(jiff::Timestamp::from_millisecond(millis)?))
}
