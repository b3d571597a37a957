//! What a replica answers: functions from what a store holds to what it must write and then say.
//!
//! A shell runs each in one transaction: lock the head row, read the marks that the message speaks of,
//! call, carry out [`Step::write`], commit, and only then send [`Step::answer`]. A transaction that failed
//! or whose outcome is unknown answers nothing.

use super::rules::{Rule, Rules};
use super::{Answer, Append, Ballot, Entry, Head, Kind, Mark, Reply, Request, Restore, Unable};

/// What the region knows of itself and the show, from the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing {
    /// Of the newest record heard.
    pub epoch: u64,
    /// Whether that record has this region in `replicas` or `prior`.
    pub member: bool,
    /// Of this region's store, as the registry numbers it (R5).
    pub incarnation: u64,
    /// What the store has of an incarnation before this one counts for nothing, committed or not: the region was
    /// given up, and the others went on without it.
    pub disowned: u64,
}

/// The marks of the entries held. A shell need only bring those from `prev` to the message's end.
pub trait Held<K: Kind> {
    fn mark(&self, seq: u64) -> Option<Mark<K>>;
}

impl<K: Kind> Held<K> for std::collections::BTreeMap<u64, Mark<K>> {
    fn mark(&self, seq: u64) -> Option<Mark<K>> {
        self.get(&seq).cloned()
    }
}

/// What one transaction changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write<K: Kind> {
    /// Drop every entry behind this number first.
    pub cut_after: Option<u64>,
    pub add: Vec<Entry<K>>,
    /// The head row as it is to be.
    pub head: Head<K>,
}

/// First the write, durably; then the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<K: Kind> {
    pub write: Option<Write<K>>,
    pub reply: Reply<K>,
}

/// One replica in the transaction that handles one message.
pub struct Replica<'a, K: Kind, H> {
    pub rules: K::Rules,
    pub standing: Standing,
    pub head: &'a Head<K>,
    pub held: &'a H,
}

impl<K: Kind, H: Held<K>> Replica<'_, K, H> {
    /// Answers everything but Fetch, which reads entries and writes nothing: see [`Self::fetched`].
    pub fn handle(&self, request: Request<K>) -> Step<K> {
        match request {
            Request::Prepare { ballot } => self.prepare(ballot),
            Request::Append(append) => self.append(append),
            Request::Extend(append) => self.extend(append),
            Request::Report { ballot } => self.report(ballot),
            Request::Fetch { ballot, .. } => self.answer(ballot, Answer::Unable(Unable::Unknown)),
        }
    }

    /// Promises, or refuses below the promise. The same ballot again is a repeat of the same message, and
    /// is answered with the head as it is now.
    pub fn prepare(&self, ballot: Ballot) -> Step<K> {
        if let Some(why) = self.unable(ballot) {
            return self.answer(ballot, Answer::Unable(why));
        }
        if ballot < self.head.promised && self.rules.holds(Rule::PrepareBelowPromise) {
            return self.answer(ballot, Answer::Refused { promised: self.head.promised });
        }
        let head = Head { promised: ballot, ..self.head.clone() };
        let write = self.rules.holds(Rule::PromiseDurable).then(|| head.clone());
        self.step(
            ballot,
            write.and_then(|head| self.changed(None, Vec::new(), head)),
            Answer::Promise { head },
        )
    }

    /// Raft's AppendEntries: match the entry before, then entry by entry; drop from the first that differs.
    pub fn append(&self, append: Append<K>) -> Step<K> {
        let ballot = append.ballot;
        if let Some(why) = self.unable(ballot) {
            return self.answer(ballot, Answer::Unable(why));
        }
        if ballot < self.head.promised && self.rules.holds(Rule::AppendBelowPromise) {
            return self.answer(ballot, Answer::Refused { promised: self.head.promised });
        }
        let incarnation = self.head.incarnation;
        self.merge(append, incarnation, false)
    }

    /// An append that meets the head exactly: anything else is [`Answer::Mismatch`] or refused, and writes
    /// nothing. Where this writes, [`Self::append`] would write the same.
    pub fn extend(&self, append: Append<K>) -> Step<K> {
        let (ballot, head) = (append.ballot, self.head);
        let own = head.promised == ballot || !self.rules.holds(Rule::PromiseDurable);
        if self.unable(ballot).is_none() && ballot >= head.promised && (!own || head.last != append.prev) {
            return self.answer(ballot, self.mismatch(append.sent));
        }
        self.append(append)
    }

    /// For a store in recovery (R5): promises at least `ballot`, durably, then tells the head. A promise
    /// that is already higher is no reason to refuse: it fences all that the asker may have forgotten.
    pub fn report(&self, ballot: Ballot) -> Step<K> {
        if let Some(why) = self.unable(ballot) {
            return self.answer(ballot, Answer::Unable(why));
        }
        let mut head = self.head.clone();
        if self.rules.holds(Rule::ReportsPromise) {
            head.promised = head.promised.max(ballot);
        }
        self.step(ballot, self.changed(None, Vec::new(), head.clone()), Answer::Reported { head })
    }

    /// A recovering replica takes what the others reported, promises, and may vote again; all at once. Of a
    /// disowned store nothing else stays, whatever it took for committed.
    pub fn restore(&self, restore: Restore<K>) -> Step<K> {
        let disowned = self.head.incarnation < self.standing.disowned;
        self.merge(restore.append, restore.incarnation, disowned)
    }

    /// The answer to Fetch, from what one consistent read gave: `before` is the entry `after`.
    pub fn fetched(&self, ballot: Ballot, before: Option<Mark<K>>, entries: Vec<Entry<K>>) -> Reply<K> {
        let promised = self.head.promised;
        let answer = match (self.unable(ballot), before) {
            (Some(why), _) => Answer::Unable(why),
            (None, None) => Answer::Unable(Unable::Unknown),
            (None, Some(before)) => Answer::Entries { promised, before, entries },
        };
        self.answer(ballot, answer).reply
    }

    /// A replica answers only for a show of which it is one, by a registry state as new as the ballot, and
    /// only while its store is whole (R5).
    fn unable(&self, ballot: Ballot) -> Option<Unable> {
        if self.standing.epoch < ballot.epoch || !self.standing.member {
            return Some(Unable::NotReplica);
        }
        let whole = self.head.incarnation == self.standing.incarnation;
        (!whole && self.rules.holds(Rule::RecoverFirst)).then_some(Unable::Recovering)
    }

    fn merge(&self, append: Append<K>, incarnation: u64, disowned: bool) -> Step<K> {
        let (ballot, sent) = (append.ballot, append.sent);
        if !append.is_sound() {
            return self.answer(ballot, Answer::Unable(Unable::Malformed));
        }
        if !self.holds(&append.prev) {
            return self.answer(ballot, self.mismatch(sent));
        }
        let upto = append.upto();
        let same = append.entries.iter().take_while(|entry| {
            let held = self.held.mark(entry.seq);
            held.is_some_and(|held| self.is_same(&held, &entry.mark()))
        });
        let first_new = same.count();
        let kept_upto = append.prev.seq + first_new as u64;
        let add: Vec<Entry<K>> = append.entries.into_iter().skip(first_new).collect();
        let conflicts = !add.is_empty() && self.head.last.seq > kept_upto;
        let longer = self.head.last.seq > kept_upto;
        let shortens = longer && (disowned || !self.rules.holds(Rule::TruncateOnConflict));
        let cut_after = (conflicts || shortens).then_some(kept_upto);
        let committed = if disowned { self.head.committed.min(kept_upto) } else { self.head.committed };
        if cut_after.is_some_and(|upto| upto < committed) {
            return self.answer(ballot, Answer::Unable(Unable::Contradiction));
        }
        let last = match (add.last(), cut_after) {
            (Some(entry), _) => entry.mark(),
            (None, Some(upto)) => self.held.mark(upto).unwrap_or_default(),
            (None, None) => self.head.last.clone(),
        };
        let head = Head {
            incarnation,
            promised: self.head.promised.max(ballot),
            committed: committed.max(append.committed.min(upto)),
            last,
        };
        let answered = if self.rules.holds(Rule::UptoOfMessage) { upto } else { head.last.seq };
        self.step(ballot, self.changed(cut_after, add, head), Answer::Appended { upto: answered, sent })
    }

    fn holds(&self, prev: &Mark<K>) -> bool {
        if !self.rules.holds(Rule::PrevChecked) {
            return true;
        }
        let held = if prev.seq == 0 { Some(Mark::default()) } else { self.held.mark(prev.seq) };
        held.is_some_and(|held| self.is_same(&held, prev))
    }

    fn is_same(&self, held: &Mark<K>, sent: &Mark<K>) -> bool {
        held == sent || !self.rules.holds(Rule::MatchByBallotAndHash)
    }

    fn mismatch(&self, sent: u64) -> Answer<K> {
        Answer::Mismatch { last: self.head.last.clone(), committed: self.head.committed, sent }
    }

    fn changed(&self, cut_after: Option<u64>, add: Vec<Entry<K>>, head: Head<K>) -> Option<Write<K>> {
        (cut_after.is_some() || !add.is_empty() || head != *self.head).then_some(Write {
            cut_after,
            add,
            head,
        })
    }

    fn answer(&self, ballot: Ballot, answer: Answer<K>) -> Step<K> {
        self.step(ballot, None, answer)
    }

    fn step(&self, ballot: Ballot, write: Option<Write<K>>, answer: Answer<K>) -> Step<K> {
        // As the store itself believes; who knows better does not count it.
        let whole = self.rules.holds(Rule::RecoverFirst);
        let incarnation = if whole { self.head.incarnation } else { self.standing.incarnation };
        Step { write, reply: Reply { incarnation, ballot, answer } }
    }
}
