//! Archiving on a real Postgres: beside a host that leads, killed at every step, damaged, restored, dropped.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{PaymentId, ReservationId, UserId};
use futures::TryStreamExt;
use jiff::SignedDuration;
use raft::client::ShowRecord;
use tokio_util::sync::CancellationToken;

use super::file::Line;
use super::*;
use crate::host::{Answer, HostError};
use crate::journal::Journal;
use crate::show::tests::facts;
use crate::show::{Asked, Command, Event, Group, Method, Reserve, StartPayment, Wish};
use crate::testing::{TestRegion, region};
use crate::verify;

struct Stage {
    region: TestRegion,
    folder: tempfile::TempDir,
    stop: CancellationToken,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Stage {
    async fn start() -> Self {
        let region = TestRegion::start(None).await;
        let stop = CancellationToken::new();
        tokio::spawn(crate::projector(&region.app).run(stop.clone()));
        Self { region, folder: tempfile::tempdir().unwrap(), stop }
    }

    fn store(&self) -> Store {
        Store { region: "eu".into(), pool: self.region.app.pool.clone() }
    }

    /// By what begins tomorrow has ended.
    fn plan(&self) -> Plan {
        Plan {
            before: Timestamp::now() + SignedDuration::from_hours(72),
            folder: self.folder.path().to_owned(),
            dry_run: false,
            forget_lists: false,
        }
    }

    /// A show that is led here, with a seat sold.
    async fn show(&self) -> (ShowId, ReservationId) {
        let app = &self.region.app;
        let mut facts = facts();
        let now = Timestamp::now();
        (facts.starts_at, facts.on_sale_at) = (now + SignedDuration::from_hours(24), None);
        let id = facts.show;
        let replicas = vec![region("eu")];
        let (home, owner) = (region("eu"), region("eu"));
        app.view.note(ShowRecord { id, home, owner, epoch: 1, replicas, prior: Vec::new() });
        let events = vec![Event::Created(Box::new(facts))];
        app.hosts
            .create(id, Group { at: now, by: None, key: None, trace: None, from: None, events })
            .await
            .unwrap();
        let reservation = self.reserve(id, "A3").await.unwrap();
        let pay = StartPayment {
            id: PaymentId::new(id, now, rand::random()),
            reservation,
            method: Method::Cash,
            token: None,
            chance: rand::random(),
        };
        self.ask(id, Command::StartPayment(pay)).await.unwrap();
        (id, reservation)
    }

    async fn ask(&self, show: ShowId, command: Command) -> Result<Answer, HostError> {
        let asked = Asked { command, by: None, key: None, trace: None, from: None };
        self.region.app.hosts.ask(show, asked).await.map(|(_, answer)| answer)
    }

    async fn reserve(&self, show: ShowId, seat: &str) -> Result<ReservationId, HostError> {
        let id = ReservationId::new(show, Timestamp::now(), rand::random());
        let wish = Wish::Seats(vec![(seat.to_owned(), None)]);
        let (reference, customer) = ("R".to_owned(), Some(UserId::new()));
        let reserve = Reserve { id, reference, customer, contact: None, wish, origin: None, by_staff: false };
        match self.ask(show, Command::Reserve(reserve)).await? {
            Answer::Done { .. } => Ok(id),
            other => panic!("{other:?}"),
        }
    }

    async fn caught_up(&self) {
        let select = "SELECT count(*) FROM show_head h LEFT JOIN projected p USING (show_id)
                       WHERE h.committed > coalesce(p.seq, 0)";
        // Where nobody tells the projector, it takes a sweep or two.
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.count(select).await > 0 {
            assert!(Instant::now() < deadline, "the projector has not caught up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn count(&self, select: &str) -> i64 {
        self.region.app.pool.get().await.unwrap().query_one(select, &[]).await.unwrap().get(0)
    }

    async fn rows_of(&self, table: &str, show: ShowId) -> i64 {
        self.count(&format!("SELECT count(*) FROM {table} WHERE show_id = '{}'", show.0)).await
    }

    async fn archive(&self, plan: &Plan) -> Outcome {
        archive(&self.store(), plan, &mut |_| Ok(())).await.unwrap()
    }

    /// Nothing is wrong with what is left.
    async fn verified(&self) {
        let report = verify::verify(&[self.store()], |_| ()).await.unwrap();
        assert_eq!(report.breaches, []);
    }
}

/// A show's lines in a file.
fn lines_in(path: &Path, show: ShowId) -> (Archived, Vec<Line>) {
    let (mut head, mut lines) = (None, Vec::new());
    read_file(path, |archived, line| {
        if archived.show == show {
            head = Some(archived.clone());
            lines.push(line.clone());
        }
        Ok(())
    })
    .unwrap();
    (head.unwrap(), lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_show_leaves_for_a_file_while_its_host_runs_and_comes_back_hash_for_hash() {
    let stage = Stage::start().await;
    let (show, reservation) = stage.show().await;
    stage.caught_up().await;
    let journal = Journal::new(stage.region.app.pool.clone());
    let head = journal.head(show).await.unwrap().unwrap();
    let before: Vec<_> = journal.entries(show, 0, head.seq).await.unwrap().try_collect().await.unwrap();

    let dry = stage.archive(&Plan { dry_run: true, ..stage.plan() }).await;
    assert_eq!((dry.archived, dry.files.len()), (1, 0));
    assert_eq!(stage.rows_of("show_journal", show).await, head.seq as i64, "a dry run changes nothing");

    let outcome = stage.archive(&stage.plan()).await;
    assert_eq!((outcome.archived, outcome.left), (1, vec![]));
    for (table, rows) in
        [("show_journal", 0), ("tickets", 0), ("refunds", 0), ("reservations", 1), ("payments", 1)]
    {
        assert_eq!(stage.rows_of(table, show).await, rows, "{table}");
    }
    // The host still has it in memory, and cannot write: it loses, and nobody leads it again.
    let error = stage.reserve(show, "A4").await.unwrap_err();
    assert!(matches!(error, HostError::Archived | HostError::OutcomeUnknown), "{error}");
    assert!(matches!(stage.region.app.hosts.get(show).await.err(), Some(HostError::Archived)));
    let answer = stage.region.get(&format!("/v1/shows/{show}")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (410, "show-archived"));
    // However late the projector is asked, nothing comes back.
    stage.region.app.projector.nudge(show);
    stage.region.app.projector.caught_up().await;
    assert_eq!(stage.rows_of("tickets", show).await, 0);
    stage.verified().await;
    // A repeat has nothing to do.
    assert_eq!(stage.archive(&stage.plan()).await.ended, 0);

    let (archived, lines) = lines_in(&outcome.files[0], show);
    let restored = (archived.clone(), lines.clone());
    restore(&stage.store(), &restored.0, &restored.1).await.unwrap();
    let again = journal.head(show).await.unwrap().unwrap();
    assert_eq!((again.seq, &again.hash, again.promised), (head.seq, &head.hash, head.promised));
    let after: Vec<_> = journal.entries(show, 0, head.seq).await.unwrap().try_collect().await.unwrap();
    assert_eq!(after, before);
    restore(&stage.store(), &archived, &lines).await.unwrap_err();
    // It sells on.
    stage.reserve(show, "A4").await.unwrap();
    stage.caught_up().await;
    assert!(
        stage.region.app.hosts.get(show).await.unwrap().read(|s| s.reservations.contains_key(&reservation))
    );
    stage.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_or_corrupt_is_left_and_named() {
    let stage = Stage::start().await;
    let (settled, _) = stage.show().await;
    let (held, _) = stage.show().await;
    let reservation = stage.reserve(held, "A4").await.unwrap();
    let (corrupt, _) = stage.show().await;
    let (torn, _) = stage.show().await;
    stage.caught_up().await;
    let client = stage.region.app.pool.get().await.unwrap();
    let damage = "UPDATE show_journal SET events = set_byte(events, 40, 0) WHERE show_id = $1 AND seq = 2";
    client.execute(damage, &[&corrupt.0]).await.unwrap();
    // As a replica has it whose leader went away in the middle.
    client.execute("UPDATE show_head SET committed = seq - 1 WHERE show_id = $1", &[&torn.0]).await.unwrap();
    client.execute("UPDATE projected SET seq = seq - 1 WHERE show_id = $1", &[&torn.0]).await.unwrap();

    let outcome = stage.archive(&stage.plan()).await;
    assert_eq!(outcome.archived, 1);
    let why = |show: ShowId| outcome.left.iter().find(|left| left.show == show).unwrap().why.clone();
    assert_eq!(why(held), format!("unsettled: {reservation} is held"));
    assert!(why(corrupt).starts_with("corrupt ("), "{}", why(corrupt));
    assert_eq!(outcome.left.len(), 3);
    assert!(outcome.left.iter().any(|left| left.show == torn), "{:?}", outcome.left);
    assert_eq!(stage.rows_of("show_journal", settled).await, 0);
    for show in [held, corrupt, torn] {
        assert!(stage.rows_of("show_journal", show).await > 0);
    }
    // One that ends later is not even looked at.
    let early = Plan { before: Timestamp::now(), ..stage.plan() };
    assert_eq!(stage.archive(&early).await.ended, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_each_show_is_whole_here_or_there() {
    let stage = Stage::start().await;
    let mut shows = BTreeSet::new();
    for _ in 0..3 {
        shows.insert(stage.show().await.0);
    }
    stage.caught_up().await;
    let mut kills = 0;
    loop {
        let mut left = kills;
        let run = archive(&stage.store(), &stage.plan(), &mut |_| {
            left -= 1;
            if left < 0 { anyhow::bail!("killed") } else { Ok(()) }
        })
        .await;
        for show in &shows {
            let here = stage.rows_of("show_journal", *show).await > 0;
            let there = !files_with(stage.folder.path(), *show).unwrap().is_empty();
            assert!(here || there, "after {kills} steps {show} is nowhere");
        }
        stage.verified().await;
        if run.is_ok() {
            break;
        }
        kills += 1;
    }
    assert!(kills > 3, "{kills}");
    for show in &shows {
        assert_eq!(stage.rows_of("show_journal", *show).await, 0);
        assert_eq!(files_with(stage.folder.path(), *show).unwrap().len(), 1, "written once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_between_the_file_and_the_removal_keeps_the_show() {
    let stage = Stage::start().await;
    let (show, _) = stage.show().await;
    stage.caught_up().await;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (mut sender, runtime) = (Some(sender), tokio::runtime::Handle::current());
    let outcome = archive(&stage.store(), &stage.plan(), &mut |step| {
        if let Step::Remove(_) = step {
            let id = tokio::task::block_in_place(|| runtime.block_on(stage.reserve(show, "A4")));
            let _ = sender.take().unwrap().send(id.unwrap());
        }
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!((outcome.archived, outcome.left.len()), (0, 1));
    let reservation = receiver.await.unwrap();
    let host = stage.region.app.hosts.get(show).await.unwrap();
    assert!(host.read(|s| s.reservations.contains_key(&reservation)));
    stage.caught_up().await;
    stage.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_refused() {
    let stage = Stage::start().await;
    let (_, _) = stage.show().await;
    stage.caught_up().await;
    let path = stage.archive(&stage.plan()).await.files.remove(0);
    let whole = std::fs::read(&path).unwrap();
    assert!(
        path.with_file_name(
            path.file_name().unwrap().to_string_lossy().replace(".ndjson.gz", ".manifest.json")
        )
        .exists()
    );
    let mut refused = 0;
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        refused += u32::from(read_file(&path, |_, _| Ok(())).is_err());
        std::fs::write(&path, &whole[..at]).unwrap();
        read_file(&path, |_, _| Ok(())).unwrap_err();
    }
    // A few bytes of gzip's head (the time, the system) say nothing about the content.
    assert!(refused >= 38, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_is_dropped_only_when_all_of_it_is_archived() {
    let stage = Stage::start().await;
    let (show, _) = stage.show().await;
    stage.caught_up().await;
    let year = super::remove::year_of(show).unwrap();
    let now = Timestamp::now() + SignedDuration::from_hours(24 * 366);
    let refused = drop_year(&stage.store(), year, now).await.unwrap_err();
    assert!(format!("{refused:#}").contains("1 shows"), "{refused:#}");
    assert!(drop_year(&stage.store(), year, Timestamp::now()).await.is_err(), "the year is not over");

    let path = stage.archive(&stage.plan()).await.files.remove(0);
    let dropped = drop_year(&stage.store(), year, now).await.unwrap();
    assert_eq!(dropped.shows, 1);
    assert!(!crate::journal::years::present(&stage.region.app.pool).await.unwrap().contains(&year));
    for table in ["show_head", "projected", "reservations", "payments"] {
        assert_eq!(stage.rows_of(table, show).await, 0, "{table}");
    }
    // Nobody knows it any more, once it has left memory, until it is restored.
    stage.region.app.hosts.retire();
    assert!(matches!(stage.region.app.hosts.get(show).await.err(), Some(HostError::NoShow)));
    let (archived, lines) = lines_in(&path, show);
    restore(&stage.store(), &archived, &lines).await.unwrap();
    stage.caught_up().await;
    stage.reserve(show, "A4").await.unwrap();
    stage.caught_up().await;
    stage.verified().await;
}
