//! What an old store looks like: a journal with many entries of other shows, and a show with a long one.

use std::time::{Duration, Instant};

use common::{RegionName, ReservationId, ShowId, UserId};
use jiff::{SignedDuration, Timestamp};

use super::marquee::{Marquee, facts};
use crate::journal::{Ballot, chain};
use crate::show::{Cancellation, Event, Group, SeatLine, encode};

/// Of other shows, of usual length, whatever is in them: nobody reads them.
const FILL: &str = "
INSERT INTO show_journal (show_id, seq, epoch, session, attempt, at, format, hash, events)
SELECT s, n, 1, 1, 1, now(), 1, decode(repeat('5a', 32), 'hex'), convert_to(repeat('x', 280), 'UTF8')
  FROM unnest($1::uuid[]) s, generate_series(1, $2::bigint) n";
/// Entries of each of those shows.
const EACH: u64 = 500;

const ENTRIES: &str = "
INSERT INTO show_journal (show_id, seq, epoch, session, attempt, at, format, hash, events)
SELECT $1, b.seq, 1, 0, 1, now(), 1, b.hash, b.events
  FROM unnest($2::bigint[], $3::bytea[], $4::bytea[]) AS b (seq, hash, events)";

const HEAD: &str = "
INSERT INTO show_head (show_id, promised_epoch, promised_session, promised_attempt, accepted_epoch,
                       accepted_session, accepted_attempt, seq, committed, hash)
VALUES ($1, 1, 0, 1, 1, 0, 1, $2, $2, $3)";

/// Puts `entries` entries of other shows into the journal.
pub async fn fill_journal(url: &str, entries: u64) -> anyhow::Result<()> {
    let region: RegionName = "bench".parse()?;
    let client = migrations::pool(url, 1)?.get().await?;
    let each = EACH.min(entries);
    for _ in 0..(entries / each).div_ceil(100) {
        let shows = (entries / each).min(100);
        let shows: Vec<_> = (0..shows).map(|_| ShowId::new(&region).0).collect();
        client.execute(FILL, &[&shows, &i64::try_from(each)?]).await?;
    }
    client.batch_execute("VACUUM ANALYZE show_journal").await?;
    Ok(())
}

/// Makes a show whose journal has `entries` entries: it is created, then seats are taken and given up again.
pub async fn long_show(url: &str, entries: u64) -> anyhow::Result<ShowId> {
    let region: RegionName = "bench".parse()?;
    let facts = facts(&region, 200);
    let (show, customer) = (facts.show, UserId::new());
    // Before any ballot of the process that will lead it.
    let ballot = Ballot { epoch: 1, session: 0, attempt: 1 };
    let created = Event::Created(Box::new(facts));
    let (mut seqs, mut hashes, mut written) = (Vec::new(), Vec::new(), Vec::new());
    let (mut before, mut last) = (Vec::new(), None);
    for seq in 1..=entries {
        let now = Timestamp::now();
        let events = match last.take() {
            _ if seq == 1 => vec![created.clone()],
            Some(reservation) => {
                vec![Event::Canceled(Cancellation {
                    reservation,
                    seats: vec![0, 1],
                    refund: None,
                    was: None,
                })]
            }
            None => {
                let reservation = ReservationId::new(show, now, rand::random());
                last = Some(reservation);
                let seat = |seat| SeatLine { seat, category: "adult".into(), amount: 1_000 };
                vec![Event::Reserved {
                    reservation,
                    reference: "BENCH".into(),
                    customer: Some(customer),
                    contact: None,
                    seats: vec![seat(0), seat(1)],
                    expires_at: now + SignedDuration::from_hours(1),
                    held_since: None,
                    origin: None,
                    waived: Vec::new(),
                }]
            }
        };
        let events =
            encode(&[Group { at: now, by: Some(customer), key: None, trace: None, from: None, events }]);
        before = chain(&before, show, seq, ballot, 1, &events);
        seqs.push(i64::try_from(seq)?);
        hashes.push(before.clone());
        written.push(events);
    }
    let mut client = migrations::pool(url, 1)?.get().await?;
    let transaction = client.transaction().await?;
    transaction.execute(ENTRIES, &[&show.0, &seqs, &hashes, &written]).await?;
    transaction.execute(HEAD, &[&show.0, &i64::try_from(entries)?, &before]).await?;
    transaction.commit().await?;
    Ok(show)
}

/// How long a process takes to begin leading a show that it has never seen, as its first asker feels it.
pub async fn lead_time(url: &str, show: ShowId) -> anyhow::Result<Duration> {
    let marquee = Marquee::start(url, 0, 2).await?;
    marquee.owns(show);
    let asked = Instant::now();
    marquee.hosts().get(show).await?;
    Ok(asked.elapsed())
}
