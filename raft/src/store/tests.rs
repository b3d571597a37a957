//! openraft's own storage suite on real files, and what the suite does not ask.

use std::time::Duration;

use common::{RegionName, ShowId};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader, RaftSnapshotBuilder};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::state::{Answer, Command, Proposal};
use crate::types::{Entry, LogId, NodeId, StorageError, TypeConfig, Vote};

struct Build;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Build {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let (log, machine) = open(dir.path(), 1).unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn openrafts_storage_suite_passes() {
    Suite::test_all(Build).unwrap();
}

fn create(index: u64) -> Entry {
    let eu: RegionName = "eu".parse().unwrap();
    let command = Command::CreateShow { id: ShowId::new(&eu), home: eu.clone(), replicas: vec![eu] };
    Entry { log_id: log_id(index), payload: EntryPayload::Normal(Proposal::new(command)) }
}

fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

#[test]
fn a_directory_belongs_to_one_voter() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), 1).unwrap());
    let error = open(dir.path(), 2).err().map(|e| format!("{e:#}")).unwrap();
    assert!(error.contains("belongs to voter 1"), "{error}");
    let held = open(dir.path(), 1).unwrap();
    assert!(open(dir.path(), 1).is_err(), "two processes must not share a log");
    drop(held);
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, mut machine) = open(dir.path(), 1).unwrap();
    let entries: Vec<Entry> = (1..=20).map(create).collect();
    log.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
    log.blocking_append(entries.clone()).await.unwrap();
    log.save_committed(Some(log_id(18))).await.unwrap();
    machine.apply(entries[..10].to_vec()).await.unwrap();
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    machine.apply(entries[10..].to_vec()).await.unwrap();
    log.purge(log_id(6)).await.unwrap();
    drop((log, machine));

    let (mut log, mut machine) = open(dir.path(), 1).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(3, 1)), "its own reign is over");
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(18)));
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(6)), Some(log_id(20))));
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries[6..]);
    assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(10)), "from the snapshot");
    assert_eq!(machine.shared().read().registry.show_count(), 10);
    let answers = machine.apply(entries[10..].to_vec()).await.unwrap();
    assert!(answers.iter().all(|a| matches!(a, Answer::Show(_))));
    assert_eq!(machine.shared().read().registry.show_count(), 20);
}

#[tokio::test]
async fn an_overtaken_build_does_not_replace_a_newer_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, mut machine) = open(dir.path(), 1).unwrap();
    machine.apply([create(1)]).await.unwrap();
    let mut slow = machine.get_snapshot_builder().await;
    machine.apply([create(2)]).await.unwrap();
    machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    slow.build_snapshot().await.unwrap();
    let held = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(held.meta.last_log_id, Some(log_id(2)));
}

#[tokio::test]
async fn a_broken_snapshot_is_refused_and_leaves_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, mut machine) = open(dir.path(), 1).unwrap();
    machine.apply([create(1)]).await.unwrap();
    let good = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let mut bytes = good.snapshot.into_inner();
    bytes.truncate(bytes.len() - 1);
    let broken = Box::new(std::io::Cursor::new(bytes));
    assert!(machine.install_snapshot(&good.meta, broken).await.is_err());
    assert_eq!(machine.shared().read().registry.show_count(), 1);
    assert_eq!(machine.get_current_snapshot().await.unwrap().unwrap().meta, good.meta);
}

#[tokio::test]
async fn reads_for_one_message_are_bounded_and_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _machine) = open(dir.path(), 1).unwrap();
    let big = |index| {
        let many = (0..4000).map(|_| match create(index).payload {
            EntryPayload::Normal(proposal) => proposal.command,
            _ => unreachable!("`create` makes commands"),
        });
        let batch = Proposal::new(Command::Batch(many.collect()));
        Entry { log_id: log_id(index), payload: EntryPayload::Normal(batch) }
    };
    log.blocking_append((1..=6).map(big)).await.unwrap();
    let some = log.limited_get_log_entries(1, 7).await.unwrap();
    assert!((1..6).contains(&some.len()), "{}", some.len());
    assert_eq!(some[0].log_id.index, 1);
    assert_eq!(log.try_get_log_entries(1..7).await.unwrap().len(), 6);
}

/// Appends as raft does, and says whether that was reported before it was flushed.
async fn reported_early(log: &mut LogStore, index: u64, leader: NodeId) -> bool {
    let entry = Entry { log_id: LogId::new(CommittedLeaderId::new(3, leader), index), ..create(index) };
    // Nothing can be flushed meanwhile.
    let before = log.hold_disk();
    let reported = timeout(Duration::from_millis(200), log.blocking_append([entry])).await.is_ok();
    drop(before);
    log.flushing().all().await.unwrap();
    reported
}

#[tokio::test]
async fn only_a_leaders_own_entries_are_reported_before_they_are_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _machine) = open(dir.path(), 1).unwrap();
    log.save_vote(&Vote::new(3, 1)).await.unwrap();
    assert!(!reported_early(&mut log, 1, 1).await, "a candidate");
    log.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
    assert!(reported_early(&mut log, 2, 1).await, "a leader");
    log.save_vote(&Vote::new_committed(3, 2)).await.unwrap();
    assert!(!reported_early(&mut log, 3, 2).await, "a follower");
    drop((log, _machine));
    // Another leader's reign goes on after a restart of this voter, its own does not.
    let (mut log, machine) = open(dir.path(), 1).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(3, 2)));
    log.save_vote(&Vote::new_committed(4, 1)).await.unwrap();
    drop((log, machine));
    let (mut log, _machine) = open(dir.path(), 1).unwrap();
    assert!(!reported_early(&mut log, 4, 1).await, "it led before it was restarted");
}

#[tokio::test]
async fn what_is_not_flushed_is_read_but_neither_applied_nor_followed_by_another_vote() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, mut machine) = open(dir.path(), 1).unwrap();
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    let all: Vec<Entry> = (1..=4).map(create).collect();
    log.blocking_append(all[..2].to_vec()).await.unwrap();
    log.flushing().all().await.unwrap();
    let held = log.hold_disk();
    log.blocking_append(all[2..3].to_vec()).await.unwrap();
    log.blocking_append(all[3..].to_vec()).await.unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), all);
    assert_eq!(log.try_get_log_entries(2..4).await.unwrap(), all[1..3]);
    assert_eq!(log.limited_get_log_entries(3, 5).await.unwrap(), all[2..]);
    machine.apply(all[..2].to_vec()).await.unwrap();
    log.save_committed(Some(log_id(4))).await.unwrap();
    let mut voter = log.clone();
    let vote = tokio::spawn(async move { voter.save_vote(&Vote::new(2, 2)).await.unwrap() });
    let entries = all[2..].to_vec();
    let applied = tokio::spawn(async move {
        machine.apply(entries).await.unwrap();
        machine
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!vote.is_finished() && !applied.is_finished());
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(1, 1)));
    drop(held);
    vote.await.unwrap();
    let machine = applied.await.unwrap();
    assert_eq!(machine.shared().read().index(), 4);
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), all);
    drop((log, machine));
    let (mut log, _machine) = open(dir.path(), 1).unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), all);
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(4)));
}
