//! What one transaction makes of its requests: the rules one request after the other, each upon what the ones
//! before it would leave.

use std::collections::{BTreeMap, HashMap};

use common::ShowId;

use super::Work;
use super::statements::{Change, Found, Range};
use crate::replicas::{Answer, Entry, Head, Mark, Reply, Request};
use crate::replication::Strict;
use crate::replication::replica::{Replica, Standing, Write};

/// One show in the transaction.
pub struct Working {
    standing: Standing,
    head: Head,
    held: BTreeMap<u64, Mark>,
    cut_after: Option<u64>,
    add: BTreeMap<u64, Entry>,
    is_changed: bool,
}

/// The marks that the requests of each show may ask for.
pub fn ranges<'a>(works: impl Iterator<Item = (ShowId, &'a Work)>) -> Vec<Range> {
    let mut ranges: BTreeMap<ShowId, (u64, u64)> = BTreeMap::new();
    for (show, work) in works {
        let (first, last) = ranges.entry(show).or_insert((u64::MAX >> 1, 0));
        let append = match work {
            Work::Request(Request::Append(append) | Request::Extend(append)) => append,
            Work::Restore(restore) => &restore.append,
            Work::Request(_) => continue,
        };
        *first = (*first).min(append.prev.seq.max(1));
        *last = (*last).max(append.upto());
    }
    ranges.into_iter().map(|(show, (first, last))| (show, first, last)).collect()
}

/// What is there of each show that can be read; one without a head is an empty one, which is whole only where
/// nothing can have been lost.
pub fn working(found: Found, standings: &HashMap<ShowId, Standing>) -> HashMap<ShowId, Working> {
    let Found { mut heads, mut marks } = found;
    let mut shows = HashMap::with_capacity(standings.len());
    for (show, standing) in standings {
        let head = match heads.remove(show) {
            Some(Ok(head)) => head,
            Some(Err(bad)) => {
                tracing::error!(%bad, "its replica answers nothing");
                continue;
            }
            None => Head::empty(0),
        };
        let held = marks.remove(show).unwrap_or_default();
        let (cut_after, add) = (None, BTreeMap::new());
        let standing = *standing;
        shows.insert(*show, Working { standing, head, held, cut_after, add, is_changed: false });
    }
    shows
}

impl Working {
    pub fn handle(&mut self, work: Work) -> Reply {
        let (standing, head, held) = (self.standing, &self.head, &self.held);
        let replica = Replica { rules: Strict, standing, head, held };
        let step = match work {
            Work::Request(request) => replica.handle(request),
            // Another process of the region was faster, and the journal may have gone on since.
            Work::Restore(restore) if head.incarnation >= restore.incarnation => {
                let (ballot, sent) = (restore.append.ballot, restore.append.sent);
                let answer = Answer::Appended { upto: head.last.seq, sent };
                return Reply { incarnation: head.incarnation, ballot, answer };
            }
            Work::Restore(restore) => replica.restore(restore),
        };
        if let Some(write) = step.write {
            self.write(write);
        }
        step.reply
    }

    fn write(&mut self, write: Write<crate::replicas::Regional>) {
        if let Some(upto) = write.cut_after {
            self.cut_after = Some(self.cut_after.map_or(upto, |before| before.min(upto)));
            self.held.split_off(&(upto + 1));
            self.add.split_off(&(upto + 1));
        }
        for entry in write.add {
            self.held.insert(entry.seq, entry.mark());
            self.add.insert(entry.seq, entry);
        }
        self.head = write.head;
        self.is_changed = true;
    }

    pub fn change(&self, show: ShowId) -> Option<Change<'_>> {
        let (cut_after, add) = (self.cut_after, self.add.values().collect());
        self.is_changed.then_some(Change { show, cut_after, add, head: &self.head })
    }
}
