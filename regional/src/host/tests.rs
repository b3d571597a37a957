//! Hosts on a real Postgres: contention, two processes on one show, a database that dies in the middle.

mod crash;
mod ledger;
mod load;
mod platform;
mod reading;
mod regions;
mod two;

use std::collections::BTreeSet;

use common::authz::Authority;
use common::authz::jwt::SigningKey;
use common::tls::Tls;
use common::{ReservationId, ShowId, UserId};
use jiff::{SignedDuration, Timestamp};
use migrations::Schema;
use migrations::testing::{Options, TestPostgres};
use raft::client::{RegistryClient, ShowRecord};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::Config;
use crate::app::{App, Parts};
use crate::halls::layout::SeatType;
use crate::payments::Provider;
use crate::replicas::peers::Endpoints;
use crate::show::{Command, Event, Key, Reserve, SeatStatus, Wish, tests::facts};
use crate::testing::{NoProvider, region};

/// One regional process on the database at `url`, without a registry: it is told who owns what.
async fn process(url: &str, session: u64) -> App {
    process_with(url, session, "").await
}

/// The same, with a Redis.
pub(crate) async fn process_with(url: &str, session: u64, redis: &str) -> App {
    let config = Config {
        region: region("eu"),
        regions: vec![region("eu"), region("us")],
        redis_url: common::config::Secret::new(redis),
        ..Config::default()
    };
    process_of(config, url, session, Arc::new(|_| Vec::new()))
}

/// One with this provider.
pub(crate) async fn process_by(url: &str, provider: Box<dyn Provider>) -> App {
    let config =
        Config { region: region("eu"), regions: vec![region("eu"), region("us")], ..Config::default() };
    process_from(config, url, 1, Arc::new(|_| Vec::new()), provider)
}

/// A process as `config` says, with these ways to other regions.
fn process_of(config: Config, url: &str, session: u64, endpoints: Endpoints) -> App {
    process_from(config, url, session, endpoints, Box::new(NoProvider))
}

fn process_from(
    config: Config,
    url: &str,
    session: u64,
    endpoints: Endpoints,
    provider: Box<dyn Provider>,
) -> App {
    let registry = RegistryClient::new(&["http://127.0.0.1:1".to_owned()], &Tls::plain()).unwrap();
    App::new(Parts {
        config,
        pool: migrations::pool(url, 8).unwrap(),
        guard: Default::default(),
        authority: Authority::new("marquee"),
        month_keys: Default::default(),
        global: Tls::plain().channel("http://127.0.0.1:1", "").unwrap(),
        view: registry.watch(CancellationToken::new()),
        registry,
        endpoints,
        tls: Tls::plain(),
        session: crate::session::Session::fixed(session),
        caught_up: Default::default(),
        ticket_key: SigningKey::generate(),
        provider,
        metrics: crate::metrics::Metrics::new(&prometheus::Registry::new()).unwrap(),
        stop: CancellationToken::new(),
    })
}

pub(crate) async fn database(fsync: bool) -> (TestPostgres, String) {
    let server = tokio::task::spawn_blocking(move || TestPostgres::start_with(Options { fsync }));
    let server = server.await.unwrap();
    let url = server.migrated("region", Schema::Regional).await;
    (server, url)
}

pub(crate) fn owned_by(app: &App, show: ShowId, owner: &str, epoch: u64) {
    let replicas = vec![region("eu")];
    let record =
        ShowRecord { id: show, home: region("eu"), owner: region(owner), epoch, replicas, prior: Vec::new() };
    app.view.note(record);
}

/// A show of eight ordinary seats that starts tomorrow and is on sale.
pub(crate) async fn show(app: &App) -> ShowId {
    let (id, group) = new_show();
    owned_by(app, id, "eu", 1);
    app.hosts.create(id, group).await.unwrap();
    id
}

/// How it begins.
fn new_show() -> (ShowId, Group) {
    let now = Timestamp::now();
    let mut facts = facts();
    facts.starts_at = now + SignedDuration::from_hours(24);
    facts.on_sale_at = None;
    facts.max_seats_per_customer = None;
    for seat in facts.rows.iter_mut().flat_map(|row| &mut row.seats) {
        seat.kind = SeatType::Standard;
    }
    let id = facts.show;
    let events = vec![Event::Created(Box::new(facts))];
    (id, Group { at: now, by: None, key: None, trace: None, from: None, events })
}

pub(crate) fn wish(show: ShowId, seat: &str, key: Option<[u8; 16]>) -> Asked {
    let command = Command::Reserve(Reserve {
        id: ReservationId::new(show, Timestamp::now(), rand::random()),
        reference: "R".into(),
        customer: Some(UserId::new()),
        contact: None,
        wish: Wish::Seats(vec![(seat.to_owned(), None)]),
        origin: None,
        by_staff: false,
    });
    Asked { command, by: None, key: key.map(|id| Key { id, body: [1; 16] }), trace: None, from: None }
}

const SEATS: [&str; 8] = ["A1", "A2", "A3", "A4", "B1", "B2", "B3", "B4"];

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_gets_each_seat_once_and_few_commits_serve_it() {
    let (_server, url) = database(true).await;
    let app = process(&url, 1).await;
    let id = show(&app).await;
    let crowd = (0..400).map(|n| {
        let (app, asked) = (app.clone(), wish(id, SEATS[n % 8], None));
        tokio::spawn(async move { app.hosts.ask(id, asked).await.unwrap().1 })
    });
    let answers: Vec<Answer> =
        futures::future::join_all(crowd).await.into_iter().map(Result::unwrap).collect();
    let done = answers.iter().filter(|a| matches!(a, Answer::Done { .. })).count();
    let refused = answers
        .iter()
        .filter(|a| matches!(a, Answer::Refused { refusal: Refusal::SeatsUnavailable(_), .. }))
        .count();
    assert_eq!((done, refused), (8, 392));
    let host = app.hosts.get(id).await.unwrap();
    assert_eq!(host.read(Show::counts), [0, 8, 0, 0]);
    let entries = host.read(|show| show.seq);
    assert!(entries <= 10, "{entries} entries for eight bookings");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_gets_its_first_answer_from_the_next_process_too() {
    let (_server, url) = database(false).await;
    let first = process(&url, 1).await;
    let id = show(&first).await;
    let key = Some([9; 16]);
    let (_, answer) = first.hosts.ask(id, wish(id, "A3", key)).await.unwrap();
    let Answer::Done { group, repeated: false } = answer else { panic!("{answer:?}") };
    // The same key, another wish of the same body: what was done is told again, from memory and after.
    let next = process(&url, 2).await;
    owned_by(&next, id, "eu", 1);
    for app in [&first, &next] {
        let (_, answer) = app.hosts.ask(id, wish(id, "A3", key)).await.unwrap();
        let Answer::Done { group: again, repeated: true } = answer else { panic!("{answer:?}") };
        assert_eq!(again, group);
    }
    let refused = [8; 16];
    for repeated in [false, true] {
        let (_, answer) = next.hosts.ask(id, wish(id, "A3", Some(refused))).await.unwrap();
        let Answer::Refused { repeated: told, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(told, repeated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_one_show_never_fork_it() {
    let (_server, url) = database(false).await;
    let apps = [process(&url, 1).await, process(&url, 2).await];
    let id = show(&apps[0]).await;
    owned_by(&apps[1], id, "eu", 1);
    let crowd = (0..160).map(|n| {
        let (app, asked) = (apps[n % 2].clone(), wish(id, SEATS[n / 2 % 8], None));
        tokio::spawn(async move { app.hosts.ask(id, asked).await.map(|(_, answer)| answer) })
    });
    let mut won = BTreeSet::new();
    for answer in futures::future::join_all(crowd).await {
        match answer.unwrap() {
            Ok(Answer::Done { group, .. }) => {
                let Some(Event::Reserved { reservation, .. }) = group.events.last() else {
                    panic!("{group:?}")
                };
                won.insert(*reservation);
            }
            // Between two leaders a request may find neither; it was surely not done.
            Ok(Answer::Refused { .. }) | Err(HostError::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    // What was acknowledged is exactly what the journal holds, whoever reads it.
    let journal = Journal::new(apps[0].pool.clone());
    let committed = journal.committed(id).await.unwrap().unwrap();
    let folded = journal.fold(id, committed).await.unwrap().unwrap();
    let held: BTreeSet<ReservationId> = folded.reservations.keys().collect();
    assert_eq!(held, won);
    assert!(!won.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_regions_show_is_not_led_here() {
    let (_server, url) = database(false).await;
    let app = process(&url, 1).await;
    let id = show(&app).await;
    let other = process(&url, 2).await;
    owned_by(&other, id, "us", 2);
    let error = other.hosts.get(id).await.err().unwrap();
    assert!(matches!(error, HostError::NotOwner { epoch: 2, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_a_killed_database() {
    let (mut server, url) = database(true).await;
    let app = process(&url, 1).await;
    let id = show(&app).await;
    for seat in &SEATS[..4] {
        let (_, answer) = app.hosts.ask(id, wish(id, seat, None)).await.unwrap();
        assert!(matches!(answer, Answer::Done { .. }));
    }
    let server = tokio::task::spawn_blocking(move || {
        server.crash_and_restart();
        server
    });
    let server = server.await.unwrap();
    // The first tries may meet dead connections; then the host leads anew and sells on.
    let mut last = None;
    for _ in 0..50 {
        match app.hosts.ask(id, wish(id, "B1", None)).await {
            Ok((_, Answer::Done { .. } | Answer::Refused { .. })) => {
                last = None;
                break;
            }
            other => last = Some(format!("{:?}", other.map(|(_, a)| a))),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(last, None);
    let host = app.hosts.get(id).await.unwrap();
    for seat in &SEATS[..5] {
        let status = host.read(|s| s.seats[s.plan.seat(seat).unwrap() as usize].status());
        assert_eq!(status, SeatStatus::Held, "{seat}");
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_journal_is_named_and_never_guessed() {
    let (_server, url) = database(false).await;
    let app = process(&url, 1).await;
    let id = show(&app).await;
    app.hosts.ask(id, wish(id, "A3", None)).await.unwrap();
    let client = app.pool.get().await.unwrap();
    let damage = "UPDATE show_journal SET events = set_byte(events, 20, 0) WHERE show_id = $1 AND seq = 2";
    assert_eq!(client.execute(damage, &[&id.0]).await.unwrap(), 1);
    let next = process(&url, 2).await;
    owned_by(&next, id, "eu", 1);
    let error = next.hosts.get(id).await.err().unwrap();
    assert!(matches!(&error, HostError::Broken(why) if why.contains("corrupt at 2")), "{error}");
}

/// Three entries of one show under way at once, held up in Postgres by a lock on its head until `end`; what
/// each asker heard, and the numbers of the show's entries.
async fn three_under_way(
    app: &App,
    id: ShowId,
    seats: [&str; 3],
    end: impl AsyncFnOnce(&deadpool_postgres::Object),
) -> (Vec<Result<Replayable, HostError>>, u64) {
    let host = app.hosts.get(id).await.unwrap();
    let mut blocker = app.pool.get().await.unwrap();
    let lock = blocker.transaction().await.unwrap();
    lock.execute("SELECT 1 FROM show_head WHERE show_id = $1 FOR UPDATE", &[&id.0]).await.unwrap();
    let mut answers = Vec::new();
    for seat in seats {
        let (answer, result) = oneshot::channel();
        let asked = Arc::new(wish(id, seat, None));
        host.mailbox.try_send(Message { asked, answer }).ok().unwrap();
        // Taken from the mailbox, it is decided in the same breath.
        crate::testing::until("the task", async || host.mailbox.capacity() == MAILBOX).await;
        answers.push(result);
    }
    let watcher = app.pool.get().await.unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity
                  WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO show_journal%'";
    crate::testing::until("the first append", async || {
        watcher.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    assert_eq!(host.read(|show| show.reservations.len()), 0, "nothing is shown before it is committed");
    end(&watcher).await;
    lock.rollback().await.unwrap();
    let heard = futures::future::join_all(answers).await.into_iter().map(Result::unwrap).collect();
    let committed = app.hosts.0.means.journal.committed(id).await.unwrap().unwrap();
    (heard, committed)
}

#[tokio::test(flavor = "multi_thread")]
async fn several_batches_are_under_way_and_answered_in_order() {
    let (_server, url) = database(false).await;
    let app = process(&url, 1).await;
    let id = show(&app).await;
    let (heard, committed) = three_under_way(&app, id, ["A1", "A2", "A2"], async |_| ()).await;
    let [first, second, third] = heard.as_slice() else { panic!("three asked") };
    for done in [first, second] {
        assert!(matches!(done, Ok(Replayable::Fresh(Answer::Done { repeated: false, .. }))));
    }
    // Refused because of what was only under way; told once that was committed.
    assert!(matches!(third, Ok(Replayable::Fresh(Answer::Refused { .. }))));
    assert_eq!(committed, 3, "the show's first entry, then one each");
    assert_eq!(app.hosts.get(id).await.unwrap().read(Show::counts), [6, 2, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_behind_a_lost_batch_is_settled_with_it() {
    let (_server, url) = database(false).await;
    let app = process(&url, 1).await;
    let id = show(&app).await;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO show_journal%'";
    let (heard, committed) = three_under_way(&app, id, ["A1", "A2", "A3"], async |watcher| {
        assert_eq!(watcher.query(kill, &[]).await.unwrap().len(), 1);
    })
    .await;
    // Settled by a write, the same once more: nobody need ask again.
    for answer in heard {
        assert!(matches!(answer, Ok(Replayable::Fresh(Answer::Done { repeated: false, .. }))));
    }
    assert_eq!(committed, 4);
    assert_eq!(app.hosts.get(id).await.unwrap().read(Show::counts), [5, 3, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_answers_at_once_and_its_content_later() {
    let (_server, url) = database(false).await;
    let app = process(&url, 1).await;
    let id = show(&app).await;
    let host = app.hosts.get(id).await.unwrap();
    let mut waiting = Vec::new();
    let (heard, _) = three_under_way(&app, id, ["A1", "A2", "A3"], async |_| {
        // Besides those in the mailbox the host has some in hand, and decides nothing while so much is under way.
        let mut full = false;
        while !full || waiting.len() < MAILBOX + task::MAX_BATCH {
            let (answer, result) = oneshot::channel();
            full = host.mailbox.try_send(Message { asked: Arc::new(wish(id, "B1", None)), answer }).is_err();
            match full {
                true => tokio::task::yield_now().await,
                false => waiting.push(result),
            }
        }
        let error = app.hosts.ask(id, wish(id, "B2", None)).await.err().unwrap();
        assert!(matches!(error, HostError::Busy), "{error}");
        let response = Problem::from(error).render(None);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "1");
    })
    .await;
    assert!(heard.into_iter().all(|answer| matches!(answer, Ok(Replayable::Fresh(Answer::Done { .. })))));
    let answers = futures::future::join_all(waiting).await;
    let done = |answer: &_| matches!(answer, Ok(Ok(Replayable::Fresh(Answer::Done { .. }))));
    let refused = |answer: &_| matches!(answer, Ok(Ok(Replayable::Fresh(Answer::Refused { .. }))));
    assert_eq!(answers.iter().filter(|answer| done(answer)).count(), 1, "everybody wanted the same seat");
    assert_eq!(answers.iter().filter(|answer| refused(answer)).count(), answers.len() - 1);
    let (_, answer) = app.hosts.ask(id, wish(id, "B2", None)).await.unwrap();
    assert!(matches!(answer, Answer::Done { .. }), "and there is room again");
}
