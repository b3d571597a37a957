//! Beginning to lead a show: promise a ballot that was never used, fold the journal, append the `Led` entry.

use std::collections::VecDeque;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use common::ShowId;
use jiff::Timestamp;
use raft::client::ShowRecord;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::decided::Decided;
use super::refused::Refused;
use super::{Host, HostError, Hosts, MAILBOX, task};
use crate::journal::{Append, Appended, Ballot, Head, JournalError};
use crate::live::Live;
use crate::show::{Event, Group, Show};

/// How often a refused promise is tried again, and at most after how long.
const PROMISE_TRIES: u32 = 5;
const PROMISE_PAUSE: Duration = Duration::from_millis(10);

/// Leads `show`; `first` is the group that creates it, where it is new.
pub(super) async fn lead(hosts: &Hosts, show: ShowId, first: Option<Group>) -> Result<Host, HostError> {
    let record = owner(hosts, show).await?;
    let means = &hosts.0.means;
    if record.owner != means.region {
        return Err(HostError::NotOwner { owner: record.owner, epoch: record.epoch });
    }
    if first.is_some() {
        means.journal.create(show).await.map_err(unreadable)?;
    }
    let (ballot, head) = promise(hosts, show, record.epoch).await?;
    let before = means.journal.fold(show, head.seq).await.map_err(unreadable)?;
    let now = task::now();
    let at = before.as_ref().map_or(now, |show| show.last_at.max(now));
    let led = Event::Led { epoch: ballot.epoch, session: ballot.session, attempt: ballot.attempt };
    let mut groups = vec![Group { at, by: None, key: None, trace: None, events: vec![led] }];
    if before.is_none() {
        // A journal without its first event was created and never written; only its creation may go on.
        // It was asked for before this began to lead; no time in a journal is before the one that it follows.
        let first = first.ok_or(HostError::NoShow)?;
        groups.push(Group { at: first.at.max(at), ..first });
    }
    let head = append_led(hosts, show, ballot, head, at, &groups).await?;
    let state = Show::fold(before, head.seq, &groups).map_err(HostError::Broken)?;
    let state = state.ok_or_else(|| HostError::Broken(format!("{show}: nothing to lead")))?;

    let (sender, mailbox) = mpsc::channel(MAILBOX);
    // The `Led` entry changes no seat: who saw all before it goes on without a break.
    let publisher = means.relay.publisher(show, ballot);
    let live = Live::new(record.epoch, state.seq - 1, &state, publisher, means.metrics.clone());
    let committed = Arc::new(RwLock::new(state));
    let host = Host {
        epoch: record.epoch,
        mailbox: sender.clone(),
        committed: committed.clone(),
        live: live.clone(),
    };
    let task = task::Task {
        hosts: hosts.clone(),
        show,
        ballot,
        head,
        decided: Decided::new(committed.clone()),
        under_way: VecDeque::new(),
        committed,
        live,
        mailbox,
        own: sender.downgrade(),
        refused: Refused::default(),
    };
    means.metrics.shows_active.inc();
    tokio::spawn(task.run());
    host.read(|state| means.projector.committed(show, state.seq, &groups));
    Ok(host)
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

/// Promises a ballot that is above all others of its epoch. Another process of this region may lead, or have
/// led before it died: the next attempt goes beyond its.
async fn promise(hosts: &Hosts, show: ShowId, epoch: u64) -> Result<(Ballot, Head), HostError> {
    let means = &hosts.0.means;
    let mut tries = 0;
    loop {
        tries += 1;
        let ballot = Ballot { epoch, session: means.session, attempt: means.attempts.next() };
        match means.journal.prepare(show, ballot).await {
            Ok(head) => return Ok((ballot, head)),
            Err(JournalError::Refused(promised)) if promised.epoch == epoch && tries < PROMISE_TRIES => {
                means.attempts.beyond(promised.attempt);
                // Two that want it at once should not keep on meeting.
                sleep(rand::random_range(Duration::ZERO..PROMISE_PAUSE)).await;
            }
            Err(other) => return Err(unreadable(other)),
        }
    }
}

/// When it is committed, all before it is.
async fn append_led(
    hosts: &Hosts,
    show: ShowId,
    ballot: Ballot,
    head: Head,
    at: Timestamp,
    groups: &[Group],
) -> Result<Head, HostError> {
    let means = &hosts.0.means;
    let append = Append::new(show, ballot, &head, at, groups);
    match means.writer.append(append).await {
        Appended::Done(head) => Ok(head),
        Appended::Lost => Err(HostError::Unavailable("another process took the show".into())),
        Appended::Failed(why) => Err(HostError::Unavailable(why)),
        Appended::Unknown(next) => {
            let written = means.journal.settle(show, &[(next.seq, next.hash)]).await.map_err(unreadable)?;
            // The nonce has moved: even if it is there, this ballot's head is not the one we know.
            Err(HostError::Unavailable(format!("leading was interrupted ({written} written); try again")))
        }
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
