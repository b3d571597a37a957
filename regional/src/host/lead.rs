//! Beginning to lead a show: a ballot that was never used, the promises of a majority, the log that they leave
//! to choose, folded; then the `Led` entry. When that is committed, all before it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use common::{RegionName, ShowId};
use raft::client::ShowRecord;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::decided::Decided;
use super::refused::Refused;
use super::tenure::{End, Tenure, Told};
use super::{Host, HostError, Hosts, MAILBOX, task};
use crate::journal::{Ballot, JournalError};
use crate::live::Live;
use crate::metrics::Led;
use crate::replicas::{Mark, Payload, Regional};
use crate::replication::{Term, Why};
use crate::show::{Event, Group, Show};

/// How long it is tried before those who ask are told that it is not possible now.
const PATIENCE: Duration = Duration::from_secs(4);
/// For the first entry, once the journal is folded.
const LED: Duration = Duration::from_secs(2);
/// What nobody answered is said again after this.
const REPEAT: Duration = Duration::from_millis(250);
/// At most how long a try waits after a refusal; twice as long after the next.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);
/// For a word of the registry, where a store knows of a later epoch.
const ASK_REGISTRY: Duration = Duration::from_secs(1);

/// Why one try did not come to lead.
enum Failed {
    /// Another try may: a later ballot was promised, or the log was no longer where it was.
    Try(Why),
    For(HostError),
}

impl From<HostError> for Failed {
    fn from(error: HostError) -> Self {
        Self::For(error)
    }
}

impl From<End> for Failed {
    fn from(end: End) -> Self {
        match end {
            End::Stopped(why) => Self::Try(why),
            // Between the promise and the entry, another process took the show.
            End::Lost => Self::Try(Why::OwnStore),
            End::Failed(why) | End::NoStore(why) => Self::For(HostError::Unavailable(why)),
        }
    }
}

/// Leads `show`; `first` is the group that creates it, where it is new.
pub(super) async fn lead(hosts: &Hosts, show: ShowId, first: Option<Group>) -> Result<Host, HostError> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = PAUSE;
    loop {
        let record = owner(hosts, show).await?;
        let means = &hosts.0.means;
        if record.owner != means.region {
            return Err(HostError::NotOwner { owner: record.owner, epoch: record.epoch });
        }
        let Some(session) = means.session.no() else {
            return Err(HostError::Unavailable("the registry knows no session of this process".into()));
        };
        let ballot = Ballot { epoch: record.epoch, session, attempt: means.attempts.next() };
        let epoch = record.epoch;
        match try_once(hosts, record, ballot, first.clone(), deadline).await {
            Ok(host) => return Ok(host),
            Err(Failed::For(error)) => return Err(error),
            Err(Failed::Try(why)) => learn(hosts, show, epoch, &why).await?,
        }
        if Instant::now() >= deadline {
            return Err(HostError::Unavailable("the show is changing hands".into()));
        }
        // Two that want it at once should not keep on meeting.
        sleep(rand::random_range(Duration::ZERO..pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What the next try must know.
async fn learn(hosts: &Hosts, show: ShowId, epoch: u64, why: &Why) -> Result<(), HostError> {
    let means = &hosts.0.means;
    match why {
        Why::Refused { promised: Ballot::ARCHIVED } => Err(HostError::Archived),
        Why::Refused { promised } if promised.epoch > epoch => {
            // The registry knows why; its news may be on their way.
            if let Ok(Ok(Some(record))) = timeout(ASK_REGISTRY, means.registry.get_show(show)).await {
                means.view.note(record);
            }
            Ok(())
        }
        Why::Refused { promised } => {
            // Another process of this region may lead, or have led before it died: go beyond its attempt.
            means.attempts.beyond(promised.attempt);
            Ok(())
        }
        Why::Contradiction => {
            Err(HostError::Broken(format!("{show}: replicas' journals contradict each other")))
        }
        Why::OwnStore | Why::LogMoved | Why::Registry => Ok(()),
    }
}

async fn try_once(
    hosts: &Hosts,
    record: ShowRecord,
    ballot: Ballot,
    first: Option<Group>,
    deadline: Instant,
) -> Result<Host, Failed> {
    let (show, means) = (record.id, &hosts.0.means);
    let term = term(hosts, record, ballot);
    let sole = term.replicas.len() == 1 && term.prior.is_empty();
    if sole && first.is_none() && means.journal.head(show).await.map_err(unreadable)?.is_none() {
        // There is nobody else who could hold it; asking for a promise would make an empty journal of it.
        return Err(HostError::NoShow.into());
    }
    let mut tenure = Tenure::start(hosts, show, term);
    let last = chosen(&mut tenure, deadline).await?;
    let known = hosts.0.folded.take(show);
    let before = means.journal.fold_on(show, known, last.seq).await.map_err(unreadable)?;
    if let Some(state) = &before {
        hosts.0.folded.keep(show, last.ballot, state);
    }
    // What took long to fold is not folded in vain.
    let deadline = deadline.max(Instant::now() + LED);
    let led = led_by(ballot, &last, first.is_some() && before.is_none());
    let now = task::now();
    let at = before.as_ref().map_or(now, |show| show.last_at.max(now));
    let events = vec![Event::Led { epoch: ballot.epoch, session: ballot.session, attempt: ballot.attempt }];
    let mut groups = vec![Group { at, by: None, key: None, trace: None, from: None, events }];
    if before.is_none() {
        // A journal without its first event was created and never written; only its creation may go on.
        // It was asked for before this began to lead; no time in a journal is before the one that it follows.
        let first = first.ok_or(HostError::NoShow)?;
        groups.push(Group { at: first.at.max(at), ..first });
    }
    let state = Show::fold(before, last.seq + 1, &groups).map_err(HostError::Broken)?;
    let state = state.ok_or_else(|| HostError::Broken(format!("{show}: nothing to lead")))?;
    let told = tenure.begin(Payload::new(show, at, &groups));
    committed(&mut tenure, told, state.seq, deadline).await?;
    means.metrics.led(led);
    Ok(reign(hosts, tenure, state, &groups))
}

/// The registry's record, and the incarnations of the stores that count.
fn term(hosts: &Hosts, record: ShowRecord, ballot: Ballot) -> Term<Regional> {
    let means = &hosts.0.means;
    let regions = means.view.regions();
    let replicas: BTreeSet<RegionName> = record.replicas.into_iter().collect();
    let prior: BTreeSet<RegionName> = record.prior.into_iter().collect();
    let incarnation = |name: &RegionName| {
        // A region of which the registry has not told yet has lost nothing yet.
        let known = regions.iter().find(|region| region.name == *name);
        (name.clone(), known.map_or(0, |region| region.incarnation))
    };
    let incarnations: BTreeMap<RegionName, u64> = replicas.union(&prior).map(incarnation).collect();
    Term { ballot, own: means.region.clone(), replicas, prior, incarnations }
}

/// Waits until the own store holds the log that this try goes on from.
async fn chosen(tenure: &mut Tenure, deadline: Instant) -> Result<Mark, Failed> {
    loop {
        let repeat = (Instant::now() + REPEAT).min(deadline);
        let Ok(told) = timeout_at(repeat, tenure.next()).await else {
            if Instant::now() >= deadline {
                return Err(HostError::Unavailable("no majority of the show's regions answers".into()).into());
            }
            tenure.again();
            continue;
        };
        for told in told {
            match told {
                Told::Chosen(last) => return Ok(last),
                Told::Over(end) => return Err(end.into()),
                Told::Committed(_) => {}
            }
        }
    }
}

/// Waits until entry `seq` is on a majority.
async fn committed(tenure: &mut Tenure, told: Vec<Told>, seq: u64, deadline: Instant) -> Result<(), Failed> {
    let mut told = told;
    loop {
        for told in told {
            match told {
                Told::Committed(upto) if upto >= seq => return Ok(()),
                Told::Over(end) => return Err(end.into()),
                _ => {}
            }
        }
        told = match timeout_at(deadline, tenure.next()).await {
            Ok(told) => told,
            Err(_) => {
                return Err(HostError::Unavailable("no majority of the show's regions took it".into()).into());
            }
        };
    }
}

/// Why this process came to lead, for those who count it.
fn led_by(ballot: Ballot, last: &Mark, is_new: bool) -> Led {
    match last.ballot {
        _ if is_new => Led::Created,
        before if before.epoch < ballot.epoch => Led::Moved,
        before if before.session != ballot.session => Led::Process,
        _ => Led::Again,
    }
}

/// From here on the show is led: its task runs, its committed state can be read.
fn reign(hosts: &Hosts, tenure: Tenure, state: Show, groups: &[Group]) -> Host {
    let means = &hosts.0.means;
    let ballot = tenure.term().ballot;
    let show = state.plan.facts.show;
    let (sender, mailbox) = mpsc::channel(MAILBOX);
    // The `Led` entry changes no seat: who saw all before it goes on without a break.
    let publisher = means.relay.publisher(show, ballot);
    let proof = tenure.proof();
    let live =
        Live::new(ballot.epoch, state.seq - 1, &state, publisher, proof.clone(), means.metrics.clone());
    let committed = Arc::new(RwLock::new(state));
    let host = Host {
        epoch: ballot.epoch,
        mailbox: sender.clone(),
        committed: committed.clone(),
        asked_for: Arc::default(),
        proof,
        live: live.clone(),
    };
    let task = task::Task {
        hosts: hosts.clone(),
        show,
        tenure,
        decided: Decided::new(committed.clone()),
        under_way: VecDeque::new(),
        committed,
        asked_for: host.asked_for.clone(),
        live,
        mailbox,
        own: sender.downgrade(),
        refused: Refused::default(),
    };
    means.metrics.shows_active.inc();
    tokio::spawn(task.run());
    host.read(|state| means.projector.committed(show, state.seq, groups));
    host
}

/// The registry's record: as last heard, else asked for.
async fn owner(hosts: &Hosts, show: ShowId) -> Result<ShowRecord, HostError> {
    let means = &hosts.0.means;
    if let Some(record) = means.view.show(show) {
        return Ok(record);
    }
    match means.registry.get_show(show).await {
        Ok(Some(record)) => {
            means.view.note(record.clone());
            Ok(record)
        }
        Ok(None) => Err(HostError::NoShow),
        Err(error) => Err(HostError::Unavailable(error.to_string())),
    }
}

pub(super) fn unreadable(error: JournalError) -> HostError {
    match error {
        JournalError::Unknown => HostError::NoShow,
        JournalError::Archived => HostError::Archived,
        JournalError::Refused(_) | JournalError::Store(_) => HostError::Unavailable(error.to_string()),
        JournalError::Corrupt { .. } => HostError::Broken(error.to_string()),
    }
}
