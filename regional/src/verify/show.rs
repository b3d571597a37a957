//! One show in one store: its head, its entries one after the other, its read models. Everything is read in one
//! snapshot, so that a host that goes on meanwhile is no breach.
//!
//! Nothing here trusts the store: numbers are taken as they are, and an entry that cannot be read is told and
//! stepped over as far as that makes sense.

use common::ShowId;
use futures::TryStreamExt;
use jiff::Timestamp;
use tokio_postgres::{IsolationLevel, Row, Transaction};

use super::breach::{Breach, Findings, Rule};
use super::ledger::Ledger;
use super::models;
use crate::journal::{Ballot, chain};
use crate::show::{self, Event, Group, Show};

type Triple = (i64, i64, i64);

/// A head as the store has it.
#[derive(Clone, Debug)]
pub(super) struct RawHead {
    pub promised: Triple,
    pub accepted: Triple,
    pub seq: i64,
    pub committed: i64,
    pub hash: Vec<u8>,
}

impl RawHead {
    pub fn is_archived(&self) -> bool {
        self.promised == triple(Ballot::ARCHIVED)
    }

    fn of(row: &Row) -> Self {
        let ballot = |prefix: &str| {
            let part = |name: &str| row.get::<_, i64>(format!("{prefix}_{name}").as_str());
            (part("epoch"), part("session"), part("attempt"))
        };
        Self {
            promised: ballot("promised"),
            accepted: ballot("accepted"),
            seq: row.get("seq"),
            committed: row.get("committed"),
            hash: row.get("hash"),
        }
    }
}

fn triple(ballot: Ballot) -> Triple {
    let part = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    (part(ballot.epoch), part(ballot.session), part(ballot.attempt))
}

/// The order of ballots: epoch, attempt, session.
fn place(ballot: Triple) -> Triple {
    (ballot.0, ballot.2, ballot.1)
}

/// What was read of one show.
pub(super) struct Checked {
    pub entries: u64,
    pub archived: bool,
    /// The read models have not caught up, so they were not compared.
    pub behind: bool,
    /// Where the read models stand beyond what the head says is committed: the entry and its hash.
    pub ahead: Option<(i64, Vec<u8>)>,
    pub breaches: Vec<Breach>,
    /// Hashes of the committed entries at the places asked for.
    pub hash_at: Option<Vec<u8>>,
}

/// The head alone; none where the show has none here.
pub(super) async fn head(
    client: &deadpool_postgres::Client,
    show: ShowId,
) -> Result<Option<RawHead>, tokio_postgres::Error> {
    let select = "SELECT * FROM show_head WHERE show_id = $1";
    Ok(client.query_opt(select, &[&show.0]).await?.as_ref().map(RawHead::of))
}

/// Checks one show. `mark`: the entry whose hash is wanted, for comparing with other regions.
pub(super) async fn check(
    client: &mut deadpool_postgres::Client,
    region: &str,
    show: ShowId,
    mark: Option<i64>,
) -> Result<Option<Checked>, tokio_postgres::Error> {
    let snapshot = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let select = "SELECT * FROM show_head WHERE show_id = $1";
    // Gone since it was listed: its year was dropped.
    let Some(row) = snapshot.query_opt(select, &[&show.0]).await? else { return Ok(None) };
    let head = RawHead::of(&row);
    let projected = models::projected(&snapshot, show).await?;
    let mut reading = Reading::new(region, show, &head, projected, mark);
    let select = "SELECT seq, epoch, session, attempt, at, format, hash, events FROM show_journal
                   WHERE show_id = $1 ORDER BY seq";
    let statement = snapshot.prepare_cached(select).await?;
    let mut rows = std::pin::pin!(snapshot.query_raw(&statement, [&show.0]).await?);
    while let Some(row) = rows.try_next().await? {
        reading.entry(&row);
    }
    let mut checked = reading.finish(&snapshot).await?;
    snapshot.rollback().await?;
    if head.is_archived() {
        checked.behind = false;
    }
    Ok(Some(checked))
}

struct Reading<'a> {
    head: &'a RawHead,
    show: ShowId,
    /// Where the read models stand.
    projected: i64,
    mark: Option<i64>,
    findings: Findings,
    entries: u64,
    last: Option<Last>,
    /// None once an entry could not be folded.
    fold: Option<Fold>,
    hash_at: Option<Vec<u8>>,
    ahead: Option<(i64, Vec<u8>)>,
}

struct Last {
    seq: i64,
    ballot: Triple,
    at: Timestamp,
    hash: Vec<u8>,
}

#[derive(Default)]
struct Fold {
    state: Option<Show>,
    ledger: Ledger,
    /// The state at which the read models stand, where more follows.
    projected: Option<Show>,
}

impl<'a> Reading<'a> {
    fn new(region: &str, show: ShowId, head: &'a RawHead, projected: i64, mark: Option<i64>) -> Self {
        Self {
            head,
            show,
            projected,
            mark,
            findings: Findings::new(region, show),
            entries: 0,
            last: None,
            fold: Some(Fold::default()),
            hash_at: None,
            ahead: None,
        }
    }

    fn entry(&mut self, row: &Row) {
        let seq: i64 = row.get("seq");
        let ballot: Triple = (row.get("epoch"), row.get("session"), row.get("attempt"));
        let (at, hash, events) =
            (row.get("at"), row.get::<_, Vec<u8>>("hash"), row.get::<_, &[u8]>("events"));
        let format: i16 = row.get("format");
        self.entries += 1;
        let expected = self.last.as_ref().map_or(1, |last| last.seq + 1);
        let whole = seq == expected;
        if !whole {
            self.findings.add(expected, Rule::Gap, format!("the next entry there is has number {seq}"));
            self.fold = None;
        }
        let parts = [seq, ballot.0, ballot.1, ballot.2].map(u64::try_from);
        match parts {
            [Ok(seq_no), Ok(epoch), Ok(session), Ok(attempt)] if whole => {
                let before = self.last.as_ref().map_or(&[][..], |last| &last.hash);
                let ballot = Ballot { epoch, session, attempt };
                if chain(before, self.show, seq_no, ballot, format, events) != hash {
                    self.findings.add(seq, Rule::Chain, "the hash does not fit");
                }
            }
            [Ok(_), Ok(_), Ok(_), Ok(_)] => {}
            _ => self.findings.add(seq, Rule::Ballot, "a number is negative"),
        }
        if self.last.as_ref().is_some_and(|last| at < last.at) {
            self.findings.add(seq, Rule::Time, "the entry is older than the one before it");
        }
        match show::decode(format, events) {
            Ok(groups) => {
                self.ballot(seq, ballot, &groups);
                self.fold(seq, &groups);
            }
            Err(why) => {
                self.findings.add(seq, Rule::Undecodable, why);
                self.fold = None;
            }
        }
        if Some(seq) == self.mark && seq <= self.head.committed {
            self.hash_at = Some(hash.clone());
        }
        if seq == self.projected && seq > self.head.committed {
            self.ahead = Some((seq, hash.clone()));
        }
        self.last = Some(Last { seq, ballot, at, hash });
    }

    /// Ballots only rise, and each begins with the entry that says who leads under it.
    fn ballot(&mut self, seq: i64, ballot: Triple, groups: &[Group]) {
        let before = self.last.as_ref().map_or((0, 0, 0), |last| last.ballot);
        if place(ballot) < place(before) {
            self.findings.add(seq, Rule::Ballot, format!("ballot {ballot:?} after {before:?}"));
        }
        if place(ballot) > place(before) {
            let first = groups.first().and_then(|group| group.events.first());
            let led = match first {
                Some(Event::Led { epoch, session, attempt }) => {
                    let own = Ballot { epoch: *epoch, session: *session, attempt: *attempt };
                    triple(own) == ballot
                }
                _ => false,
            };
            if !led {
                self.findings.add(seq, Rule::Ballot, format!("ballot {ballot:?} begins without `led`"));
            }
        }
    }

    fn fold(&mut self, seq: i64, groups: &[Group]) {
        let Some(fold) = &mut self.fold else { return };
        for (rule, detail) in fold.ledger.entry(groups) {
            self.findings.add(seq, rule, detail);
        }
        let number = u64::try_from(seq).unwrap_or(0);
        match Show::fold(fold.state.take(), number, groups) {
            Ok(state) => {
                if seq == self.projected && seq < self.head.seq {
                    fold.projected.clone_from(&state);
                }
                fold.state = state;
            }
            Err(why) => {
                self.findings.add(seq, Rule::Fold, why);
                self.fold = None;
            }
        }
    }

    async fn finish(mut self, snapshot: &Transaction<'_>) -> Result<Checked, tokio_postgres::Error> {
        self.head_fits();
        let archived = self.head.is_archived();
        let mut behind = false;
        if let Some(Fold { state: Some(state), ledger, projected }) = self.fold.take()
            && !archived
        {
            for (rule, detail) in ledger.finish(&state) {
                self.findings.add(self.head.seq, rule, detail);
            }
            let facts = &state.plan.facts;
            if facts.show != self.show {
                self.findings.add(1, Rule::Fold, format!("the entries are those of {}", facts.show));
            }
            let state = if self.projected == self.head.seq { Some(state) } else { projected };
            behind = self.projected < self.head.committed;
            if let Some(state) = state.filter(|_| !behind) {
                models::compare(snapshot, self.projected, &state, &mut self.findings).await?;
            } else if !behind && self.projected > 0 {
                let why = format!("the read models stand at {}, the journal ends before", self.projected);
                self.findings.add(self.projected, Rule::ReadModel, why);
            }
        }
        let Self { findings, entries, ahead, hash_at, .. } = self;
        Ok(Checked { entries, archived, behind, ahead, breaches: findings.breaches, hash_at })
    }

    fn head_fits(&mut self) {
        let head = self.head;
        let findings = &mut self.findings;
        if head.is_archived() {
            if self.entries > 0 {
                findings.add(None, Rule::Archived, format!("{} entries are left of it", self.entries));
            }
            if head.committed != 0 {
                findings.add(None, Rule::Archived, "its head still says that something is committed here");
            }
            return;
        }
        if head.committed < 0 || head.committed > head.seq {
            let why = format!("{} is committed of {}", head.committed, head.seq);
            findings.add(head.seq, Rule::Committed, why);
        }
        let (seq, ballot, hash) = self
            .last
            .as_ref()
            .map_or((0, (0, 0, 0), &[][..]), |last| (last.seq, last.ballot, last.hash.as_slice()));
        if seq != head.seq {
            findings.add(
                head.seq,
                Rule::Head,
                format!("the head is at {}, the entries end at {seq}", head.seq),
            );
        } else if hash != head.hash {
            findings.add(seq, Rule::Head, "the head's hash is not the last entry's");
        }
        if seq == head.seq && ballot != head.accepted {
            let why = format!("accepted {:?}, the last entry's ballot is {ballot:?}", head.accepted);
            findings.add(seq, Rule::Head, why);
        }
        if place(head.promised) < place(head.accepted) {
            let why = format!("promised {:?} and accepted {:?}", head.promised, head.accepted);
            findings.add(seq, Rule::Head, why);
        }
    }
}
