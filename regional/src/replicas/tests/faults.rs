//! Postgres killed, sent back in time, or holding rows that nobody wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use migrations::Schema;
use migrations::testing::TestPostgres;

use super::*;
use crate::replication::{Restore, Unable};

/// A region's store that is looked after as in production.
struct Region {
    server: TestPostgres,
    pool: Pool,
    guard: Guard,
    standings: Arc<Fixed>,
    store: ReplicaStore,
}

impl Region {
    async fn start() -> Self {
        let server = tokio::task::spawn_blocking(TestPostgres::start).await.unwrap();
        let url = server.migrated("region", Schema::Regional).await;
        let (guard, standings) = (Guard::default(), Fixed::member());
        let pool = migrations::pool_with(&url, 8, Some(guard.hook())).unwrap();
        let store = store(&pool, standings.clone(), guard.clone());
        Self { server, pool, guard, standings, store }
    }

    /// Without blocking those that run meanwhile.
    async fn off(self, change: impl FnOnce(&mut TestPostgres) + Send + 'static) -> Self {
        let Self { mut server, pool, guard, standings, store } = self;
        let server = tokio::task::spawn_blocking(move || {
            change(&mut server);
            server
        });
        Self { server: server.await.unwrap(), pool, guard, standings, store }
    }

    async fn answer(&self, show: ShowId, request: Request) -> Option<Answer> {
        self.store.ask(show, request).await.map(|told| told.reply.answer)
    }
}

fn some_show() -> ShowId {
    ShowId::new(&region("eu"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_outlives_a_crash_of_postgres() {
    let region = Region::start().await;
    let (b, stop) = (ballot(1, 1, 1), Arc::new(AtomicBool::new(false)));
    // Four shows grow as fast as they can; what got no answer is repeated, as leaders do.
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (store, stop) = (region.store.clone(), stop.clone());
            tokio::spawn(async move {
                let show = some_show();
                let (mut answered, mut last) = (Vec::new(), Mark::default());
                while !stop.load(Ordering::Relaxed) {
                    let (message, next) = append(show, b, last.clone(), &["entry"], last.seq);
                    let told = store.ask(show, Request::Append(message)).await;
                    let Some(told) = told else { continue };
                    assert_eq!(told.reply.answer, Answer::Appended { upto: next.seq, sent: 7 });
                    answered.push(next.clone());
                    last = next;
                }
                (show, answered)
            })
        })
        .collect();
    let (mut region, started) = (region, Instant::now());
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        region = region.off(TestPostgres::crash_and_restart).await;
    }
    // It writes again.
    let (message, _) = append(some_show(), b, Mark::default(), &["after"], 0);
    let show = message.entries[0].payload.show;
    while region.answer(show, Request::Append(message.clone())).await.is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "the store does not come back");
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        let (show, answered) = writer.await.unwrap();
        assert!(answered.len() > 10, "{} entries", answered.len());
        let head = region.store.head(show).await.unwrap().unwrap();
        assert_eq!(Some(&head.last), answered.last());
    }
    assert_eq!(region.guard.lost(), None, "a crash is no loss");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_went_back_in_time_answers_nothing_until_it_has_recovered() {
    let region = Region::start().await;
    let (show, later_show, b) = (some_show(), some_show(), ballot(1, 1, 1));
    let (message, first) = append(show, b, Mark::default(), &["kept"], 0);
    assert!(region.answer(show, Request::Append(message)).await.is_some());

    let (keep, kept) = std::sync::mpsc::channel();
    let region = region.off(move |server| keep.send(server.snapshot()).unwrap()).await;
    let snapshot = kept.recv().unwrap();
    // A restart of a whole store is none of its business.
    let (message, second) = append(show, b, first.clone(), &["lost"], 1);
    let told = until_told(&region.store, show, Request::Append(message)).await;
    assert_eq!(told.reply.answer, Answer::Appended { upto: 2, sent: 7 });
    let prepare = Request::Prepare { ballot: ballot(1, 9, 1) };
    assert!(region.answer(later_show, prepare.clone()).await.is_some());
    let heard = until_told(&region.store, show, Request::Prepare { ballot: ballot(1, 5, 1) }).await.mark;
    assert_eq!(region.guard.lost(), None);

    let region = region.off(move |server| server.go_back_to(&snapshot)).await;
    // Below the promise that was lost: without R5 it would be promised.
    let below = Request::Prepare { ballot: ballot(1, 2, 1) };
    assert_eq!(region.answer(show, below.clone()).await, None);
    let lost = tokio::time::timeout(Duration::from_secs(10), region.guard.until_lost()).await.unwrap();
    assert!(lost.now.flushed < lost.before.flushed && lost.before.system == lost.now.system);
    assert_eq!(region.answer(later_show, below.clone()).await, None);
    assert!(region.pool.get().await.is_err(), "nor does anybody else get a connection");

    // A process that starts knows nothing; others tell it.
    let fresh = Guard::default();
    let pool = migrations::pool_with(&region.server.url("region"), 8, Some(fresh.hook())).unwrap();
    assert!(fresh.check(&pool, Some(heard)).await.is_err());
    assert!(fresh.lost().is_some());

    // The registry has counted the incarnation on.
    fresh.begin_anew();
    *region.standings.standing.lock().unwrap() =
        Standing { epoch: 2, member: true, incarnation: 1, disowned: 0 };
    let standings =
        Arc::new(Fixed { standing: (*region.standings.standing.lock().unwrap()).into(), is_new: false });
    let store = store(&pool, standings, fresh);
    let recovering = Some(Answer::Unable(Unable::Recovering));
    let answer = async |show, request| store.ask(show, request).await.map(|told| told.reply.answer);
    for request in [below.clone(), Request::Prepare { ballot: ballot(2, 1, 1) }] {
        assert_eq!(answer(show, request.clone()).await, recovering);
        assert_eq!(answer(later_show, request).await, recovering, "its head was lost as a whole");
    }
    let report = Request::Report { ballot: ballot(2, 0, 0) };
    assert_eq!(answer(show, report).await, recovering);
    assert_eq!(answer(show, Request::Fetch { ballot: ballot(2, 1, 1), after: 0 }).await, recovering);
    assert_eq!(store.head(later_show).await.unwrap(), None, "nor is one made for it");

    // What others reported.
    let (mut message, _) = append(show, b, first, &["lost"], 0);
    message.ballot = ballot(2, 0, 0);
    let told = store.restore(show, Restore { append: message, incarnation: 1 }).await.unwrap();
    assert_eq!(told.reply.answer, Answer::Appended { upto: 2, sent: 7 });
    let restore = Append::nothing(ballot(2, 0, 0), Mark::default());
    store.restore(later_show, Restore { append: restore, incarnation: 1 }).await.unwrap();
    let head = store.head(show).await.unwrap().unwrap();
    assert_eq!((head.last, head.incarnation), (second, 1));
    for show in [show, later_show] {
        let below = answer(show, below.clone()).await;
        assert_eq!(below, Some(Answer::Refused { promised: ballot(2, 0, 0) }));
        let promise = answer(show, Request::Prepare { ballot: ballot(2, 1, 1) }).await;
        assert!(matches!(promise, Some(Answer::Promise { .. })), "{promise:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_disowned_store_took_for_committed_goes_and_is_projected_anew() {
    let database = crate::testing::Database::start().await;
    let (standings, b) = (Fixed::member(), ballot(1, 1, 1));
    let store = store(&database.pool, standings.clone(), Guard::default());
    let client = database.pool.get().await.unwrap();
    let (show, other) = (some_show(), some_show());
    for show in [show, other] {
        let (message, _) = append(show, b, Mark::default(), &["kept", "gone", "gone too"], 3);
        store.ask(show, Request::Append(message)).await.unwrap();
        let project =
            "INSERT INTO projected (show_id, seq, free, held, sold, blocked) VALUES ($1, 3, 1, 1, 1, 0)";
        client.execute(project, &[&show.0]).await.unwrap();
    }
    // Those who were left have gone on without it.
    *standings.standing.lock().unwrap() = Standing { epoch: 5, member: true, incarnation: 1, disowned: 1 };
    let (mut whole, first) = append(show, b, Mark::default(), &["kept"], 0);
    let (rest, last) = append(show, ballot(4, 1, 2), first, &["went on"], 0);
    whole.entries.extend(rest.entries);
    whole.ballot = ballot(5, 0, 0);
    let told = store.restore(show, Restore { append: whole, incarnation: 1 }).await.unwrap();
    assert_eq!(told.reply.answer, Answer::Appended { upto: 2, sent: 7 });
    let head = store.head(show).await.unwrap().unwrap();
    assert_eq!((head.last, head.committed, head.incarnation), (last, 1, 1));
    let (kept, _) = append(other, b, Mark::default(), &["kept", "gone", "gone too"], 0);
    store.restore(other, Restore { append: kept, incarnation: 1 }).await.unwrap();
    let head = store.head(other).await.unwrap().unwrap();
    assert_eq!((head.last.seq, head.committed), (3, 3), "the others had it all");
    let rows = client.query("SELECT show_id FROM projected", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| ShowId(row.get(0))).collect::<Vec<_>>(), [other]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_show_that_is_newer_than_the_loss_needs_no_recovery() {
    let database = crate::testing::Database::start().await;
    let standing = Standing { epoch: 1, member: true, incarnation: 3, disowned: 0 };
    let standings = Arc::new(Fixed { standing: standing.into(), is_new: true });
    let (store, show) = (store(&database.pool, standings, Guard::default()), some_show());
    let prepare = Request::Prepare { ballot: ballot(1, 1, 1) };
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match store.ask(show, prepare.clone()).await.unwrap().reply {
            Reply { answer: Answer::Unable(Unable::Recovering), .. } => assert!(Instant::now() < deadline),
            Reply { answer: Answer::Promise { .. }, incarnation: 3, .. } => break,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_show_with_broken_rows_fails_alone() {
    let database = crate::testing::Database::start().await;
    let store = store(&database.pool, Fixed::member(), Guard::default());
    let shows: Vec<ShowId> = (0..6).map(|_| some_show()).collect();
    let b = ballot(1, 1, 1);
    let first = |show: ShowId| append(show, b, Mark::default(), &["one"], 0).0;
    for show in &shows {
        store.ask(*show, Request::Append(first(*show))).await.unwrap();
    }
    let client = database.pool.get().await.unwrap();
    // An entry behind the head, where the next one goes; and a hash that is none.
    let stray =
        "INSERT INTO show_journal SELECT show_id, 2, epoch, session, attempt, at, format, hash, events
                   FROM show_journal WHERE show_id = $1";
    client.execute(stray, &[&shows[0].0]).await.unwrap();
    client.execute("UPDATE show_head SET hash = '\\x00' WHERE show_id = $1", &[&shows[1].0]).await.unwrap();
    let mut told = Vec::new();
    for show in &shows {
        let prev = first(*show).entries[0].mark();
        let (next, _) = append(*show, b, prev, &["two"], 1);
        told.push(store.ask_later(*show, Request::Append(next)).await.unwrap());
    }
    for (at, told) in told.into_iter().enumerate() {
        let answered = told.await.is_ok();
        assert_eq!(answered, at > 1, "show {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_show_is_refused_for_good() {
    let database = crate::testing::Database::start().await;
    let (store, show) = (store(&database.pool, Fixed::member(), Guard::default()), some_show());
    let (message, _) = append(show, ballot(1, 1, 1), Mark::default(), &["one"], 0);
    store.ask(show, Request::Append(message.clone())).await.unwrap();
    let seal = "UPDATE show_head SET promised_epoch = $2, promised_session = $2, promised_attempt = $2
                 WHERE show_id = $1";
    database.pool.get().await.unwrap().execute(seal, &[&show.0, &i64::MAX]).await.unwrap();
    let refused = Answer::Refused { promised: Ballot::ARCHIVED };
    for request in [Request::Prepare { ballot: ballot(900, 1, 1) }, Request::Append(message)] {
        assert_eq!(store.ask(show, request).await.unwrap().reply.answer, refused);
    }
}

async fn until_told(store: &ReplicaStore, show: ShowId, request: Request) -> Told {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(told) = store.ask(show, request.clone()).await {
            return told;
        }
        assert!(Instant::now() < deadline, "no answer to {request:?}");
    }
}
