//! Where the journal's statements go on a real Postgres: into one partition each.

use common::ShowId;
use deadpool_postgres::Pool;
use jiff::Timestamp;
use uuid::Uuid;

use super::*;
use crate::metrics::Metrics;
use crate::show::{Event, Group, tests::facts};
use crate::testing::{Database, until};

fn group(event: Event) -> std::sync::Arc<Group> {
    std::sync::Arc::new(Group {
        at: Timestamp::now(),
        by: None,
        key: None,
        trace: None,
        from: None,
        events: vec![event],
    })
}

/// The id of a show created in the middle of `year`.
fn show_of(year: i16) -> ShowId {
    let at: Timestamp = format!("{year}-07-01T00:00:00Z").parse().unwrap();
    let mut bytes = *Uuid::now_v7().as_bytes();
    bytes[..6].copy_from_slice(&at.as_millisecond().to_be_bytes()[2..]);
    ShowId(Uuid::from_bytes(bytes))
}

/// A journal of `entries` entries, of which the first creates the show.
async fn write(journal: &Journal, writer: &Writer, show: ShowId, entries: u64) {
    journal.create(show, 0).await.unwrap();
    let ballot = Ballot { epoch: 1, session: 1, attempt: 1 };
    let mut head = journal.prepare(show, ballot).await.unwrap();
    for seq in 1..=entries {
        let mut facts = facts();
        facts.show = show;
        let event = match seq {
            1 => Event::Created(Box::new(facts)),
            _ => Event::Led { epoch: 1, session: 1, attempt: seq },
        };
        let append = Append::new(show, ballot, &head, Timestamp::now(), &[group(event)]);
        let Appended::Done(next) = writer.append(append).await else { panic!("entry {seq}") };
        head = next;
    }
}

/// Scans of and rows put into each partition, as Postgres counts them: (name, scans, rows).
async fn used(pool: &Pool) -> Vec<(String, i64, i64)> {
    let select = "SELECT relname::text, seq_scan + coalesce(idx_scan, 0), n_tup_ins FROM pg_stat_user_tables
                   WHERE relname LIKE 'show_journal_%' ORDER BY relname";
    let rows = pool.get().await.unwrap().query(select, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_about_a_journal_touches_its_own_year_only() {
    let database = Database::start().await;
    let journal = Journal::new(database.pool.clone());
    let writer = Writer::start(database.pool.clone(), Metrics::new(&prometheus::Registry::new()).unwrap());
    let this = years::year_of(Timestamp::now());
    let (show, own) = (show_of(this + 1), format!("show_journal_y{}", this + 1));
    // The migration's connection tells what it did when it ends.
    until("the migration's end", async || {
        let select = "SELECT count(*) FROM pg_stat_activity
                       WHERE backend_type = 'client backend' AND application_name = 'marquee'";
        let row = database.pool.get().await.unwrap().query_one(select, &[]).await.unwrap();
        row.get::<_, i64>(0) == i64::try_from(database.pool.status().size).unwrap()
    })
    .await;
    let before = used(&database.pool).await;
    // Often enough that Postgres plans once for all parameters, too.
    write(&journal, &writer, show, 20).await;
    for _ in 0..10 {
        assert_eq!(journal.fold(show, 20).await.unwrap().unwrap().seq, 20);
        journal.entry(show, 7).await.unwrap();
        journal.entry(show, 13).await.unwrap();
    }
    // Postgres tells its counts a little later.
    until("the counts", async || {
        used(&database.pool)
            .await
            .iter()
            .any(|(name, scans, rows)| *name == own && *rows == 20 && *scans >= 30)
    })
    .await;
    let others = |rows: Vec<(String, i64, i64)>| -> Vec<(String, i64, i64)> {
        rows.into_iter().filter(|(name, ..)| *name != own).collect()
    };
    assert_eq!(others(used(&database.pool).await), others(before));
}

#[tokio::test(flavor = "multi_thread")]
async fn years_are_made_ahead_and_what_none_takes_is_told_and_moved() {
    let database = Database::start().await;
    let pool = &database.pool;
    let journal = Journal::new(pool.clone());
    let writer = Writer::start(pool.clone(), Metrics::new(&prometheus::Registry::new()).unwrap());
    let now = Timestamp::now();
    let this = years::year_of(now);
    assert_eq!(years::present(pool).await.unwrap(), [this, this + 1, this + 2]);
    assert!(!years::keep(pool, now).await.unwrap());

    let show = show_of(this + 3);
    write(&journal, &writer, show, 3).await;
    assert!(years::keep(pool, now).await.unwrap(), "it is told");
    // Next year comes; several processes see to it at once.
    let next = now + jiff::SignedDuration::from_hours(24 * 366);
    let kept = futures::future::join_all((0..4).map(|_| years::keep(pool, next))).await;
    assert!(kept.into_iter().all(|strays| !strays.unwrap()));
    assert!(years::present(pool).await.unwrap().contains(&(this + 3)));
    assert_eq!(journal.fold(show, 3).await.unwrap().unwrap().seq, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fold_goes_on_from_what_the_journal_still_has_and_begins_anew_from_else() {
    let database = Database::start().await;
    let journal = Journal::new(database.pool.clone());
    let drafts = crate::testing::journals::story();
    let show = crate::testing::journals::write(&database.pool, &drafts).await;
    let all = drafts.len() as u64;
    let whole = format!("{:?}", journal.fold(show, all).await.unwrap().unwrap());
    let part = async |upto| journal.fold(show, upto).await.unwrap().unwrap();
    let (own, other) =
        (Ballot { epoch: 1, session: 1, attempt: 1 }, Ballot { epoch: 1, session: 1, attempt: 2 });
    for upto in [1, all / 2, all] {
        let on = journal.fold_on(show, Some((own, part(upto).await)), all).await.unwrap().unwrap();
        assert_eq!(format!("{on:?}"), whole, "from {upto}");
    }
    // A state that is not of this journal is not even looked at: it would show.
    let mut foreign = part(all / 2).await;
    foreign.strays.insert(common::PaymentId::new(show, Timestamp::now(), 1));
    let known = |ballot, state| Some((ballot, state));
    let on = journal.fold_on(show, known(own, foreign.clone()), all).await.unwrap().unwrap();
    assert_ne!(format!("{on:?}"), whole, "the ballot alone decides");
    let anew = journal.fold_on(show, known(other, foreign.clone()), all).await.unwrap().unwrap();
    assert_eq!(format!("{anew:?}"), whole);
    let shorter = journal.fold_on(show, known(own, foreign), 2).await.unwrap().unwrap();
    assert_eq!((shorter.seq, shorter.strays.len()), (2, 0));
}
