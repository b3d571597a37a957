//! What was acknowledged, as an observer sees who is everywhere at once; S1 to S4 and S7 are checked against
//! it after each step that could break them.

use std::collections::BTreeMap;
use std::rc::Rc;

use regional::replication::{Ballot, Entry, Mark};
use regional::show::Show;

use crate::event::{At, Ms};
use crate::fold::fold_in;
use crate::kind::Sim;
use crate::world::World;

/// One show's.
#[derive(Default)]
pub struct Truth {
    /// Every entry that a leader ever called committed, and under which ballot first.
    pub entries: Vec<(Ballot, Entry<Sim>)>,
    /// And when.
    times: Vec<Ms>,
    /// What they fold to.
    pub show: Option<Rc<Show>>,
    /// Where each key took effect.
    keys: BTreeMap<[u8; 16], u64>,
    /// The log that each ballot's leader chose.
    chosen: BTreeMap<Ballot, Vec<u64>>,
}

impl Truth {
    /// Folds a log; from where the acknowledged part of it ends, when it has that.
    pub fn fold(&self, log: &[Entry<Sim>]) -> Result<Option<Rc<Show>>, String> {
        let known = self.entries.last().map(|(_, entry)| entry);
        let is_known = |known: &Entry<Sim>| at(log, known.seq).is_some_and(|e| e.digest == known.digest);
        let (mut show, from) = match known {
            Some(known) if is_known(known) => (self.show.clone(), known.seq),
            _ => (None, 0),
        };
        for entry in log.iter().filter(|entry| entry.seq > from) {
            fold_in(&mut show, entry)?;
        }
        Ok(show)
    }

    /// When the first entry after number `known` was committed.
    pub fn missing_since(&self, known: u64) -> Option<Ms> {
        at(&self.times, known + 1).copied()
    }

    fn digest(&self, seq: u64) -> Option<u64> {
        at(&self.entries, seq).map(|(_, entry)| entry.digest)
    }
}

fn at<T>(list: &[T], seq: u64) -> Option<&T> {
    usize::try_from(seq).ok()?.checked_sub(1).and_then(|at| list.get(at))
}

impl World {
    /// A leader chose this log. What any ballot below committed must be in it (S2), and no ballot leads
    /// twice (S3).
    pub fn chose(&mut self, show: u8, ballot: Ballot, log: &[Entry<Sim>]) {
        let truth = &mut self.truths[usize::from(show)];
        let lost = truth
            .entries
            .iter()
            .rev()
            .find(|(by, _)| *by < ballot)
            .filter(|(_, entry)| at(log, entry.seq).is_none_or(|held| held.digest != entry.digest));
        let lost = lost.map(|(by, entry)| (*by, entry.seq));
        let twice = truth.chosen.insert(ballot, log.iter().map(|entry| entry.digest).collect()).is_some();
        if let Some((by, seq)) = lost {
            let why = format!(
                "show {show}: entry {seq}, acknowledged under {by:?}, is not in the log of {ballot:?}"
            );
            self.fail("S2", why);
        }
        if twice {
            self.fail("S3", format!("show {show}: {ballot:?} leads twice"));
        }
    }

    /// A leader says that all up to here is committed.
    pub fn acknowledge(&mut self, at_process: At, show: u8, upto: u64) {
        let Some(hosted) = self.processes[&at_process].hosted.get(&show) else { return };
        let ballot = hosted.leader.ballot();
        let truth = &mut self.truths[usize::from(show)];
        let log = &hosted.log[..usize::try_from(upto).unwrap_or(0).min(hosted.log.len())];
        let Some(last) = log.last() else { return };
        self.trace.mix(last.digest);
        let mut wrong: Option<(&'static str, String)> = None;
        let known = truth.entries.len().min(log.len());
        if known > 0 && truth.digest(known as u64) != log.get(known - 1).map(|entry| entry.digest) {
            wrong = Some(("S2", "two entries were acknowledged at one place".into()));
        }
        for entry in log.iter().skip(truth.entries.len()) {
            for group in entry.payload.groups() {
                if let Some(key) = group.key
                    && let Some(before) = truth.keys.insert(key.id, entry.seq)
                {
                    wrong.get_or_insert(("S7", format!("a key took effect at {before} and {}", entry.seq)));
                }
            }
            if let Err(why) = fold_in(&mut truth.show, entry) {
                wrong.get_or_insert(("S1", why));
            }
            truth.entries.push((ballot, entry.clone()));
            truth.times.push(self.now);
        }
        let later = truth.chosen.range(ballot..).filter(|(by, _)| **by > ballot);
        for (by, digests) in later {
            if at(digests, last.seq) != Some(&last.digest) {
                wrong.get_or_insert(("S3", format!("{} commits, which {by:?} does not hold", last.seq)));
            }
        }
        if let Some((invariant, why)) = wrong {
            self.fail(invariant, format!("show {show}, under {ballot:?}: {why}"));
        }
    }

    /// What a store calls committed is what was committed, hash for hash (S4).
    pub fn check_store(&mut self, region: u8, show: u8) {
        let store = self.databases[usize::from(region)].replica(show);
        let committed = store.head.committed;
        if committed == 0 {
            return;
        }
        let held: Option<Mark<Sim>> = store.mark(committed);
        let truth = self.truths[usize::from(show)].digest(committed);
        if truth.is_none() || held.map(|mark| mark.digest) != truth {
            let why = format!("show {show}: region {region} calls {committed} committed, which it is not");
            self.fail("S4", why);
        }
    }
}
