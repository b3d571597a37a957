//! Killed in the middle: Postgres, one of its backends, the process that hosts. What was acknowledged must be
//! there, what was refused must not, and what nobody knows must settle under its key.
//!
//! A short form runs with the others; `make test-long` kills a hundred times each (`CRASHES`). `CRASH_SEED`
//! replays the moments, as far as a machine allows.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

use super::load::{Book, ROWS, Tell, customers, ledgers};
use super::*;
use crate::show::{PlanRow, PlanSeat};

/// Lines of the book among whatever a test's process says.
const MARK: char = '\u{1}';

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn seed() -> u64 {
    let seed = setting("CRASH_SEED").unwrap_or_else(|| rand::random::<u64>() >> 1);
    eprintln!("CRASH_SEED={seed}");
    seed
}

/// Some shows of a hundred seats on sale, led by `app`.
pub(super) async fn shows(app: &App, count: usize) -> Vec<ShowId> {
    let mut shows = Vec::new();
    for _ in 0..count {
        let (id, group) = large_show();
        owned_by(app, id, "eu", 1);
        app.hosts.create(id, group).await.unwrap();
        shows.push(id);
    }
    shows
}

pub(super) fn large_show() -> (ShowId, Group) {
    let now = Timestamp::now();
    let mut facts = facts();
    facts.starts_at = now + SignedDuration::from_hours(24);
    facts.on_sale_at = None;
    facts.max_seats_per_customer = None;
    let seat = |number| PlanSeat { number, kind: SeatType::Standard, x: None };
    let row = |row| PlanRow {
        row: char::from(b'A' + row).to_string(),
        y: None,
        seats: (1..=10).map(seat).collect(),
    };
    facts.rows = (0..u8::try_from(ROWS).unwrap()).map(row).collect();
    let id = facts.show;
    let events = vec![Event::Created(Box::new(facts))];
    (id, Group { at: now, by: None, key: None, trace: None, from: None, events })
}

/// Waits until so many more were told "done".
pub(super) async fn more_done(book: &Mutex<Book>, more: u64) {
    let enough = book.lock().unwrap().done() + more;
    let deadline = Instant::now() + Duration::from_secs(60);
    while book.lock().unwrap().done() < enough {
        assert!(Instant::now() < deadline, "nothing is done any more");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Kills a backend that serves the region, if it finds one: the server restarts all of them.
async fn kill_a_backend(url: &str, rng: &mut StdRng) {
    let Ok((client, connection)) = tokio_postgres::connect(url, tokio_postgres::NoTls).await else { return };
    let connection = tokio::spawn(connection);
    let select = "SELECT pid FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'";
    let pids: Vec<i32> =
        client.query(select, &[]).await.map_or(Vec::new(), |rows| rows.iter().map(|r| r.get(0)).collect());
    if !pids.is_empty() {
        let pid = Pid::from_raw(pids[rng.random_range(0..pids.len())]).unwrap();
        let _ = kill_process(pid, Signal::KILL);
    }
    drop(client);
    let _ = connection.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgres_loses_nothing_and_invents_nothing() {
    let (seed, crashes) = (seed(), setting("CRASHES").unwrap_or(6));
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut server, url) = database(true).await;
    let app = process(&url, 1).await;
    let shows = shows(&app, 3).await;
    let book = Arc::new(Mutex::new(Book::default()));
    let noted = book.clone();
    let tell: Tell = Arc::new(move |line| noted.lock().unwrap().line(line));
    let stop = Arc::new(AtomicBool::new(false));
    let at_work = customers(&app, &shows, 8, seed, &tell, &stop);
    let mut before = None;
    for crash in 0..crashes {
        more_done(&book, 20).await;
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..20_000))).await;
        if crash % 2 == 0 {
            server = tokio::task::spawn_blocking(move || {
                server.crash_and_restart();
                server
            })
            .await
            .unwrap();
        } else {
            kill_a_backend(&url, &mut rng).await;
        }
        // It goes on; and what stood there stands there still.
        more_done(&book, 1).await;
        match ledgers(&url, &shows, before.as_ref()).await {
            Ok(read) => before = Some(read),
            // The server may be on its way back.
            Err(why) => assert!(!why.contains(" at ") && !why.contains("had"), "CRASH_SEED={seed}: {why}"),
        }
    }
    stop.store(true, Ordering::Relaxed);
    futures::future::join_all(at_work).await;
    let book = std::mem::take(&mut *book.lock().unwrap());
    finish(book, &app, &url, &shows, before.as_ref(), seed).await;
    drop(server);
}

/// The books are compared, what is unknown is settled by a process, and they are compared again.
async fn finish(
    mut book: Book,
    app: &App,
    url: &str,
    shows: &[ShowId],
    before: Option<&std::collections::BTreeMap<ShowId, super::ledger::Ledger>>,
    seed: u64,
) {
    let read = ledgers(url, shows, before).await.unwrap_or_else(|why| panic!("CRASH_SEED={seed}: {why}"));
    book.compare(&read).unwrap_or_else(|why| panic!("CRASH_SEED={seed}: {why}"));
    let unknown = book.unknown();
    book.settle(app).await;
    let read =
        ledgers(url, shows, Some(&read)).await.unwrap_or_else(|why| panic!("CRASH_SEED={seed}: {why}"));
    book.compare(&read).unwrap_or_else(|why| panic!("CRASH_SEED={seed}: {why}"));
    let entries: usize = read.values().map(|ledger| ledger.hashes.len()).sum();
    eprintln!("{} done, {unknown} were unknown and settled, {entries} entries", book.done());
    // The program's own reader agrees with this one about the end.
    let journal = Journal::new(app.pool.clone());
    for (show, ledger) in &read {
        let committed = journal.committed(*show).await.unwrap().unwrap();
        assert!(committed as usize >= ledger.hashes.len());
        journal.fold(*show, committed).await.unwrap().unwrap();
    }
}

/// What a child is told in its environment: the store, its session, the shows, its seed.
const CHILD: &str = "MARQUEE_TEST_CHILD";

/// No test by itself: the process that is killed. It sells until then, and keeps the book on its output.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let mut told = told.split(' ');
    let (url, session, seed) = (told.next().unwrap(), told.next().unwrap(), told.next().unwrap());
    let app = process(url, session.parse().unwrap()).await;
    let shows: Vec<ShowId> = told.map(|show| show.parse().unwrap()).collect();
    for show in &shows {
        owned_by(&app, *show, "eu", 1);
    }
    let tell: Tell = Arc::new(|line| {
        let mut out = std::io::stdout().lock();
        // A line is whole or not there: its end is written with it.
        out.write_all(format!("{MARK}{line}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    });
    let never = Arc::new(AtomicBool::new(false));
    futures::future::join_all(customers(&app, &shows, 8, seed.parse().unwrap(), &tell, &never)).await;
}

fn start_child(url: &str, session: u64, seed: u64, shows: &[ShowId]) -> Child {
    let shows: Vec<String> = shows.iter().map(ToString::to_string).collect();
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "host::tests::crash::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{url} {session} {seed} {}", shows.join(" ")))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_and_invents_nothing() {
    let (seed, crashes) = (seed(), setting("CRASHES").unwrap_or(8));
    let mut rng = StdRng::seed_from_u64(seed);
    let (_server, url) = database(true).await;
    let first = process(&url, 1).await;
    let shows = shows(&first, 3).await;
    let book = Arc::new(Mutex::new(Book::default()));
    let mut before = None;
    for life in 0..crashes {
        let mut child = start_child(&url, 2 + life, rng.random::<u64>() >> 1, &shows);
        let output = child.stdout.take().unwrap();
        let noted = book.clone();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some((_, line)) = line.split_once(MARK) {
                    noted.lock().unwrap().line(line);
                }
            }
        });
        more_done(&book, 5).await;
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..100_000))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        // The pipe gives what was written before the end; a half line at the end is never a whole one.
        reader.join().unwrap();
        let read = ledgers(&url, &shows, before.as_ref()).await;
        before = Some(read.unwrap_or_else(|why| panic!("CRASH_SEED={seed} life {life}: {why}")));
        let whole = book.lock().unwrap().compare(before.as_ref().unwrap());
        whole.unwrap_or_else(|why| panic!("CRASH_SEED={seed} life {life}: {why}"));
    }
    let last = process(&url, 2 + crashes).await;
    for show in &shows {
        owned_by(&last, *show, "eu", 1);
    }
    let book = std::mem::take(&mut *book.lock().unwrap());
    finish(book, &last, &url, &shows, before.as_ref(), seed).await;
}
