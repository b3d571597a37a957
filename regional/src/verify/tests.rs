//! Stores that were damaged on purpose: each damage is told, with its show and its kind, and nothing else is.

use std::collections::BTreeSet;

use deadpool_postgres::Pool;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::show::{Event, FORMAT, Key};
use crate::testing::journals::{Draft, story, write};
use crate::testing::{Database, TestRegion};

fn store(region: &str, pool: &Pool) -> Store {
    Store { region: region.into(), pool: pool.clone() }
}

/// Rules broken, by show.
fn told(report: &Report) -> BTreeSet<(ShowId, Rule)> {
    report.breaches.iter().map(|breach| (breach.show, breach.rule)).collect()
}

/// Folds what was written into the read models.
async fn project(region: &TestRegion, shows: &[ShowId]) {
    let stop = CancellationToken::new();
    tokio::spawn(crate::projector(&region.app).run(stop.clone()));
    for show in shows {
        region.app.projector.nudge(*show);
    }
    crate::testing::until("the projector", async || {
        let select = "SELECT count(*) FROM show_head JOIN projected USING (show_id, seq)";
        let row = region.app.pool.get().await.unwrap().query_one(select, &[]).await.unwrap();
        row.get::<_, i64>(0) == i64::try_from(shows.len()).unwrap()
    })
    .await;
    stop.cancel();
}

/// Damage done to rows after they were written whole. `$1` is the show.
const DAMAGED_ROWS: &[(&str, Rule, &str)] = &[
    (
        "a hash",
        Rule::Chain,
        "UPDATE show_journal SET hash = set_byte(hash, 0, get_byte(hash, 0) # 1) WHERE show_id = $1 AND seq = 3",
    ),
    ("a ballot", Rule::Chain, "UPDATE show_journal SET attempt = 2 WHERE show_id = $1 AND seq = 3"),
    (
        "bytes",
        Rule::Undecodable,
        "UPDATE show_journal SET events = set_byte(events, 0, 0) WHERE show_id = $1 AND seq = 3",
    ),
    (
        "another show's entry",
        Rule::Chain,
        "UPDATE show_journal j SET events = o.events FROM show_journal o
        WHERE j.show_id = $1 AND j.seq = 4 AND o.show_id <> $1 AND o.seq = 5",
    ),
    ("an entry gone", Rule::Gap, "DELETE FROM show_journal WHERE show_id = $1 AND seq = 4"),
    ("the first entry gone", Rule::Gap, "DELETE FROM show_journal WHERE show_id = $1 AND seq = 1"),
    (
        "the tail gone",
        Rule::Head,
        "DELETE FROM show_journal WHERE show_id = $1 AND seq = (SELECT seq FROM show_head WHERE show_id = $1)",
    ),
    ("all entries gone", Rule::Head, "DELETE FROM show_journal WHERE show_id = $1"),
    (
        "the head behind",
        Rule::Head,
        "UPDATE show_head SET seq = seq - 1, committed = seq - 1 WHERE show_id = $1",
    ),
    ("the head's hash", Rule::Head, "UPDATE show_head SET hash = '\\x00' WHERE show_id = $1"),
    ("the accepted ballot", Rule::Head, "UPDATE show_head SET accepted_attempt = 0 WHERE show_id = $1"),
    ("a promise forgotten", Rule::Head, "UPDATE show_head SET promised_epoch = 0 WHERE show_id = $1"),
    ("too much committed", Rule::Committed, "UPDATE show_head SET committed = seq + 1 WHERE show_id = $1"),
    (
        "a promise of the archive",
        Rule::Archived,
        "UPDATE show_head SET promised_epoch = 9223372036854775807,
        promised_session = 9223372036854775807, promised_attempt = 9223372036854775807 WHERE show_id = $1",
    ),
    ("no head", Rule::Orphan, "DELETE FROM show_head WHERE show_id = $1"),
    ("projected too far", Rule::ReadModel, "UPDATE projected SET seq = seq + 1 WHERE show_id = $1"),
    (
        "a reservation's state",
        Rule::ReadModel,
        "UPDATE reservations SET status = 'paid' WHERE show_id = $1 AND status = 'expired'",
    ),
    ("seats counted free", Rule::ReadModel, "UPDATE projected SET free = free + 1 WHERE show_id = $1"),
    (
        "a reservation gone",
        Rule::ReadModel,
        "DELETE FROM reservations WHERE show_id = $1 AND status = 'expired'",
    ),
    (
        "a payment's state",
        Rule::ReadModel,
        "UPDATE payments SET status = 'completed' WHERE show_id = $1 AND status = 'failed'",
    ),
    ("a refund's amount", Rule::ReadModel, "UPDATE refunds SET amount = amount + 1 WHERE show_id = $1"),
    (
        "a ticket's seat",
        Rule::ReadModel,
        "UPDATE tickets SET seat = 'B3' WHERE show_id = $1 AND status = 'admitted'",
    ),
    (
        "the show's time",
        Rule::ReadModel,
        "UPDATE shows SET starts_at = starts_at + interval '1 hour' WHERE id = $1",
    ),
    (
        "a ticket too many",
        Rule::ReadModel,
        "INSERT INTO tickets (show_id, own, reservation, seat, status)
        SELECT show_id, own || '0'::bytea, reservation, 'B3', 'canceled' FROM tickets WHERE show_id = $1 LIMIT 1",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn damaged_rows_are_each_told() {
    let region = TestRegion::start(None).await;
    let pool = &region.app.pool;
    let mut shows = Vec::new();
    // One more, which nobody damages.
    for _ in 0..=DAMAGED_ROWS.len() {
        shows.push(write(pool, &story()).await);
    }
    project(&region, &shows).await;
    let report = verify(&[store("eu", pool)], |_| ()).await.unwrap();
    assert_eq!(report.breaches, []);
    assert_eq!(report.regions["eu"].shows, shows.len() as u64);
    assert_eq!(report.regions["eu"].behind, 0);

    let client = pool.get().await.unwrap();
    // Postgres itself would refuse some of it; a damaged disk asks nobody.
    client.batch_execute("ALTER TABLE show_head DROP CONSTRAINT show_head_check").await.unwrap();
    for (show, (what, _, damage)) in shows.iter().zip(DAMAGED_ROWS) {
        assert!(client.execute(*damage, &[&show.0]).await.unwrap() > 0, "{what}");
    }
    let report = verify(&[store("eu", pool)], |_| ()).await.unwrap();
    let told = told(&report);
    for (show, (what, rule, _)) in shows.iter().zip(DAMAGED_ROWS) {
        assert!(told.contains(&(*show, *rule)), "{what}: {:#?}", report.breaches);
    }
    let whole = shows.last().unwrap();
    assert!(!told.iter().any(|(show, _)| show == whole), "{:#?}", report.breaches);
    assert_eq!(report.regions["eu"].breaches, report.breaches.len() as u64);
}

type Tamper = fn(&mut Vec<Draft>);

fn insert_after(drafts: &mut Vec<Draft>, at: usize, change: impl FnOnce(&mut Draft)) {
    let mut draft = drafts[at].clone();
    change(&mut draft);
    drafts.insert(at + 1, draft);
}

fn find(drafts: &[Draft], kind: fn(&Event) -> bool) -> usize {
    drafts.iter().position(|draft| draft.groups.iter().flat_map(|g| &g.events).any(kind)).unwrap()
}

/// Journals that chain perfectly and are wrong in what they say.
const LIES: &[(&str, Rule, Tamper)] = &[
    ("a seat sold twice", Rule::SeatTwice, |drafts| {
        insert_after(drafts, 1, |draft| {
            let Event::Reserved { reservation, .. } = draft.event() else { unreachable!() };
            *reservation = common::ReservationId::new(reservation.show(), Timestamp::now(), 77);
        });
    }),
    ("a blocked seat sold", Rule::SeatTwice, |drafts| {
        let at = find(drafts, |e| matches!(e, Event::Blocked { .. }));
        insert_after(drafts, at, |draft| {
            let Event::Blocked { seats, .. } = draft.event() else { unreachable!() };
            let seats: Vec<_> = seats
                .iter()
                .map(|s| crate::show::SeatLine { seat: *s, category: "adult".into(), amount: 1 })
                .collect();
            let show = common::ShowId::new(&"eu".parse().unwrap());
            *draft.event() = Event::Reserved {
                reservation: common::ReservationId::new(show, Timestamp::now(), 78),
                reference: "R".into(),
                customer: None,
                contact: None,
                seats,
                expires_at: Timestamp::now(),
                held_since: None,
                origin: None,
                waived: Vec::new(),
            };
        });
    }),
    ("captured twice", Rule::Payment, |drafts| {
        let at = find(drafts, |e| matches!(e, Event::PaymentCompleted { .. }));
        insert_after(drafts, at, |_| ());
    }),
    ("charged more than the seats", Rule::Payment, |drafts| {
        let at = find(drafts, |e| matches!(e, Event::PaymentStarted { .. }));
        let Event::PaymentStarted { amount, .. } = drafts[at].event() else { unreachable!() };
        *amount += 1;
    }),
    ("given back twice", Rule::Payment, |drafts| {
        let at = find(drafts, |e| matches!(e, Event::Canceled(c) if c.refund.is_some()));
        let Event::Canceled(cancellation) = drafts[at].event() else { unreachable!() };
        let back = cancellation.refund.clone().unwrap();
        insert_after(drafts, at, |draft| {
            *draft.event() = Event::RefundStarted {
                refund: common::RefundId::new(back.refund.show(), Timestamp::now(), 79),
                payment: back.payment,
                amount: back.amount,
                reason: "x".into(),
                release: false,
                was: None,
            };
        });
    }),
    ("money kept for nothing", Rule::Payment, |drafts| {
        let at = find(drafts, |e| matches!(e, Event::PaymentFailed { .. }));
        let Event::PaymentFailed { payment, .. } = drafts[at].event() else { unreachable!() };
        let payment = *payment;
        let refund = common::RefundId::new(payment.show(), Timestamp::now(), 80);
        insert_after(drafts, at, |d| *d.event() = Event::PaymentUnclaimed { payment, refund });
        insert_after(drafts, at + 1, |d| *d.event() = Event::RefundFailed { refund, reason: "x".into() });
    }),
    ("lapsed while it is paid for", Rule::Payment, |drafts| {
        let at = find(drafts, |e| matches!(e, Event::PaymentStarted { .. }));
        let Event::PaymentStarted { reservation, .. } = drafts[at].event() else { unreachable!() };
        let reservation = *reservation;
        insert_after(drafts, at, |d| *d.event() = Event::Lapsed { reservation });
    }),
    ("a key used twice", Rule::KeyTwice, |drafts| {
        for draft in &mut drafts[1..3] {
            draft.groups[0].key = Some(Key { id: [7; 16], body: [8; 16] });
        }
    }),
    ("admitted twice", Rule::Ticket, |drafts| {
        let at = find(drafts, |e| matches!(e, Event::CheckedIn { .. }));
        insert_after(drafts, at, |_| ());
    }),
    ("a ticket too few", Rule::Ticket, |drafts| {
        let at = find(drafts, |e| matches!(e, Event::PaymentCompleted { .. }));
        let Event::PaymentCompleted { tickets, .. } = drafts[at].event() else { unreachable!() };
        tickets.pop();
    }),
    ("an unknown format", Rule::Undecodable, |drafts| drafts[2].format = FORMAT + 1),
    ("a lower ballot", Rule::Ballot, |drafts| {
        let last = drafts.len() - 1;
        drafts[last].ballot = (1, 1, 0);
    }),
    ("a ballot without its `led`", Rule::Ballot, |drafts| {
        let last = drafts.len() - 1;
        drafts[last].ballot = (1, 1, 2);
    }),
    ("time runs back", Rule::Time, |drafts| {
        let last = drafts.len() - 1;
        drafts[last].at -= SignedDuration::from_hours(1);
    }),
    ("nothing before the creation", Rule::Fold, |drafts| {
        let first = drafts[0].groups.remove(1);
        insert_after(drafts, 0, |draft| draft.groups = vec![first]);
        drafts.swap(1, 2);
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn journals_that_lie_are_each_told() {
    let database = Database::start().await;
    let whole = write(&database.pool, &story()).await;
    let mut shows = Vec::new();
    for (_, _, tamper) in LIES {
        let mut drafts = story();
        tamper(&mut drafts);
        shows.push(write(&database.pool, &drafts).await);
    }
    let report = verify(&[store("eu", &database.pool)], |_| ()).await.unwrap();
    let told = told(&report);
    for (show, (what, rule, _)) in shows.iter().zip(LIES) {
        assert!(told.contains(&(*show, *rule)), "{what}: {:#?}", report.breaches);
    }
    assert!(!told.iter().any(|(show, _)| *show == whole), "{:#?}", report.breaches);
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_that_disagree_are_told_and_a_shorter_journal_is_not() {
    let (eu, us) = (Database::start().await, Database::start().await);
    let (same, shorter, forked) = (story(), story(), story());
    let mut other = forked.clone();
    other[4].groups[0].trace = Some("another leader wrote this".into());
    for drafts in [&same, &shorter, &forked] {
        write(&eu.pool, drafts).await;
    }
    write(&us.pool, &same).await;
    write(&us.pool, &shorter[..5]).await;
    let show = write(&us.pool, &other).await;
    let stores = [store("eu", &eu.pool), store("us", &us.pool)];
    let report = verify(&stores, |_| ()).await.unwrap();
    assert_eq!(report.compared, 3);
    let expected = Breach {
        region: "us".into(),
        show,
        seq: Some(5),
        rule: Rule::Prefix,
        detail: "its entry is not that of eu".into(),
    };
    assert_eq!(report.breaches, [expected]);
    // What is not committed may differ: it will be replaced.
    let client = us.pool.get().await.unwrap();
    let uncommit = "UPDATE show_head SET committed = 4 WHERE show_id = $1";
    client.execute(uncommit, &[&show.0]).await.unwrap();
    assert_eq!(verify(&stores, |_| ()).await.unwrap().breaches, []);
}

/// A leader knows what a majority holds before its own store is told so.
#[tokio::test(flavor = "multi_thread")]
async fn read_models_may_be_ahead_of_the_mark_where_a_majority_holds_the_entry() {
    let region = TestRegion::start(None).await;
    let (us, ap) = (Database::start().await, Database::start().await);
    let (held, alone, wrong) = (story(), story(), story());
    let mut shows = Vec::new();
    for (drafts, elsewhere) in [(&held, true), (&alone, false), (&wrong, true)] {
        shows.push(write(&region.app.pool, drafts).await);
        let without_last = &drafts[..drafts.len() - 1];
        write(&us.pool, if elsewhere { drafts } else { without_last }).await;
        write(&ap.pool, without_last).await;
    }
    for other in [&us, &ap] {
        let client = other.pool.get().await.unwrap();
        client.execute("UPDATE show_head SET committed = 0", &[]).await.unwrap();
    }
    project(&region, &shows).await;
    let client = region.app.pool.get().await.unwrap();
    client.execute("UPDATE show_head SET committed = seq - 1", &[]).await.unwrap();
    let spoil = "UPDATE tickets SET seat = 'B3' WHERE show_id = $1 AND status = 'admitted'";
    client.execute(spoil, &[&shows[2].0]).await.unwrap();
    let stores = [store("eu", &region.app.pool), store("us", &us.pool), store("ap", &ap.pool)];
    let report = verify(&stores, |_| ()).await.unwrap();
    assert!(report.breaches.iter().all(|breach| breach.region == "eu" && breach.rule == Rule::ReadModel));
    let told: BTreeSet<_> = report.breaches.iter().map(|breach| breach.show).collect();
    assert_eq!(told, BTreeSet::from([shows[1], shows[2]]), "{:#?}", report.breaches);
    let of_alone = report.breaches.iter().find(|breach| breach.show == shows[1]).unwrap();
    let seq = alone.len();
    assert_eq!(of_alone.detail, format!("the read models stand at {seq}, which 1 of 3 hold"));
}
