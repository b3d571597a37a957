//! Leading: extending the log, following the followers, committing.

use std::collections::{BTreeMap, VecDeque};

use super::{Effect, Limits, Term, Why};
use crate::replication::lease::Lease;
use crate::replication::messages::{Answer, Append, Request};
use crate::replication::progress::{Progress, Sending};
use crate::replication::quorum::majority_reached;
use crate::replication::rules::{Rule, Rules};
use crate::replication::{Ballot, Entry, Kind, Mark};

/// A follower hears of the committed mark within this, when no Append brings it sooner.
const HEARTBEAT_MS: u64 = 100;
/// What is not answered is said again after this.
const REPEAT_MS: u64 = 500;
/// A committed mark whose arrival is not answered is said again after this: nobody waits for it, and a store that is
/// slow to answer has enough to do.
const TOLD_AGAIN_MS: u64 = 2_000;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Leading<K: Kind> {
    /// What of the log is in memory begins behind this.
    base: Mark<K>,
    window: VecDeque<Entry<K>>,
    window_weight: usize,
    /// The number of the first entry of this ballot.
    led: u64,
    /// What was known to be committed when this began; sent on, told to nobody.
    inherited: u64,
    /// Committed under this ballot; 0 before.
    committed: u64,
    progress: BTreeMap<K::Region, Progress>,
    pub lease: Lease<K::Region>,
    /// Whether the registry still waits for `Settled`.
    unsettled: bool,
    /// The latest time heard of. Messages carry it, so that a lease never counts from later than they left.
    now: u64,
}

type Outcome<K> = Result<Vec<Effect<K>>, Why>;

impl<K: Kind> Leading<K> {
    pub fn begin(
        rules: &K::Rules,
        limits: &Limits,
        term: &Term<K>,
        last: Mark<K>,
        inherited: u64,
        led: K::Payload,
        now: u64,
    ) -> (Self, Vec<Effect<K>>) {
        let next = last.seq + 1;
        let mut leading = Self {
            base: last,
            window: VecDeque::new(),
            window_weight: 0,
            led: next,
            inherited,
            committed: 0,
            progress: term.replicas.iter().map(|r| (r.clone(), Progress::new(next))).collect(),
            lease: Lease::new(),
            unsettled: !term.prior.is_empty(),
            now,
        };
        let mut effects = Vec::new();
        if rules.holds(Rule::LedEntry) {
            leading.push(term.ballot, led);
            leading.own_write(rules, term, &mut effects);
        } else {
            leading.led = 0;
        }
        if leading.unsettled && !rules.holds(Rule::SettledAfterLed) {
            effects.push(Effect::Settled { epoch: term.ballot.epoch });
        }
        for region in &term.replicas {
            if *region != term.own || !rules.holds(Rule::LedEntry) {
                leading.send(limits, term, region, &mut effects);
            }
        }
        leading.commit(rules, term, &mut effects);
        (leading, effects)
    }

    pub fn committed(&self) -> u64 {
        self.committed
    }

    pub fn clock(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    pub fn settled(&mut self) {
        self.unsettled = false;
    }

    pub fn propose(
        &mut self,
        rules: &K::Rules,
        limits: &Limits,
        term: &Term<K>,
        payload: K::Payload,
    ) -> (u64, Vec<Effect<K>>) {
        let mut effects = Vec::new();
        self.push(term.ballot, payload);
        self.own_write(rules, term, &mut effects);
        let seq = self.last_seq();
        for region in &term.replicas {
            let is_streaming = self.progress.get(region).is_some_and(|p| p.state == Sending::Streaming);
            if *region != term.own && is_streaming {
                self.stream(limits, term, region, &mut effects);
            }
        }
        self.commit(rules, term, &mut effects);
        (seq, effects)
    }

    pub fn answered(
        &mut self,
        rules: &K::Rules,
        limits: &Limits,
        term: &Term<K>,
        from: &K::Region,
        answer: Answer<K>,
    ) -> Outcome<K> {
        let mut effects = Vec::new();
        match answer {
            Answer::Appended { upto, sent } => {
                self.lease.answered(from, sent);
                let last = self.last_seq();
                let Some(progress) = self.progress.get_mut(from) else { return Ok(effects) };
                // Nobody can hold more of this log than there is.
                let upto = if rules.holds(Rule::UptoOfMessage) { upto.min(last) } else { upto };
                progress.appended(upto);
                progress.answered(upto, sent);
                self.commit(rules, term, &mut effects);
                if *from != term.own {
                    self.stream(limits, term, from, &mut effects);
                }
                self.forget(limits, term);
            }
            // Its entries are this leader's own, or its committed past.
            Answer::Mismatch { .. } if *from == term.own => return Err(Why::OwnStore),
            Answer::Mismatch { last, committed, sent } => {
                self.lease.answered(from, sent);
                let prev = if self.mark(last.seq).as_ref() == Some(&last) { last.seq } else { committed };
                let Some(progress) = self.progress.get_mut(from) else { return Ok(effects) };
                // A late one, from before it was found where the logs part.
                let is_late = progress.matched > 0 && progress.matched >= prev;
                if is_late || progress.state == Sending::Loading {
                    return Ok(effects);
                }
                progress.next = prev + 1;
                progress.state = Sending::Probing;
                self.send(limits, term, from, &mut effects);
            }
            Answer::Entries { promised, before, entries } if *from == term.own => {
                // Another try has this store now: what it holds is no longer this leader's log.
                if promised != term.ballot {
                    return Err(Why::OwnStore);
                }
                self.loaded(term, &before, &entries, &mut effects);
            }
            _ => {}
        }
        Ok(effects)
    }

    /// To a follower: all that it has not acknowledged, or nothing new, as a heartbeat. To the own store:
    /// what its last transaction did not answer.
    pub fn nudge(&mut self, limits: &Limits, term: &Term<K>, region: &K::Region) -> Vec<Effect<K>> {
        let mut effects = Vec::new();
        let (led, last) = (self.led, self.last_seq());
        let Some(progress) = self.progress.get_mut(region) else { return effects };
        // Who has acknowledged all there is keeps up: what is proposed next follows at once, and does not wait for
        // the answer to this.
        if progress.matched < last || progress.state != Sending::Streaming {
            progress.again(led);
        }
        self.send(limits, term, region, &mut effects);
        effects
    }

    /// When a [`Self::tick`] would next have something to say to somebody who can hear it; none while all that
    /// can be reached have answered that they know all there is. The lease is then left to run out: who reads asks for it.
    pub fn next_tick(&self, term: &Term<K>, reachable: impl Fn(&K::Region) -> bool) -> Option<u64> {
        let (last, known) = (self.last_seq(), self.known_committed());
        let due = |(region, progress): (&K::Region, &Progress)| {
            let own = *region == term.own;
            let wait = match progress.matched < last {
                // The own store's transactions answer by themselves, in the end.
                true if own => return None,
                true => REPEAT_MS,
                false if progress.told < known => HEARTBEAT_MS,
                false if progress.knows < known => TOLD_AGAIN_MS,
                false => return None,
            };
            (own || reachable(region)).then_some(progress.last_sent + wait)
        };
        let settled = (self.unsettled && self.committed > 0).then_some(self.now + REPEAT_MS);
        self.progress.iter().filter_map(due).chain(settled).min()
    }

    /// How many entries each replica is known to lack.
    pub fn lags(&self) -> impl Iterator<Item = (&K::Region, u64)> {
        let last = self.last_seq();
        self.progress.iter().map(move |(region, progress)| (region, last.saturating_sub(progress.matched)))
    }

    pub fn tick(&mut self, limits: &Limits, term: &Term<K>, now: u64) -> Vec<Effect<K>> {
        self.clock(now);
        let (last, known) = (self.last_seq(), self.known_committed());
        let is_due = |progress: &Progress| {
            let since = now.saturating_sub(progress.last_sent);
            let unanswered = progress.matched < last;
            since >= REPEAT_MS || (since >= HEARTBEAT_MS && !unanswered && progress.told < known)
        };
        let due: Vec<K::Region> =
            self.progress.iter().filter(|(_, p)| is_due(p)).map(|(r, _)| r.clone()).collect();
        let mut effects: Vec<Effect<K>> =
            due.iter().flat_map(|region| self.nudge(limits, term, region)).collect();
        if self.unsettled && self.committed > 0 {
            effects.push(Effect::Settled { epoch: term.ballot.epoch });
        }
        effects
    }

    fn push(&mut self, ballot: Ballot, payload: K::Payload) {
        let entry = self.last_mark().next(ballot, payload);
        self.window_weight += K::weight(&entry.payload);
        self.window.push_back(entry);
    }

    /// Gives the last entry to the own store, as a compare-and-set on the head that the one before made.
    fn own_write(&mut self, rules: &K::Rules, term: &Term<K>, effects: &mut Vec<Effect<K>>) {
        let Some(entry) = self.window.back().cloned() else { return };
        let Some(prev) = self.mark(entry.seq - 1) else { return };
        let (seq, now) = (entry.seq, self.now);
        let told = self.committed_with(term, &term.own, seq);
        let append = Append { ballot: term.ballot, prev, entries: vec![entry], committed: told, sent: now };
        effects.push(Effect::Send { to: term.own.clone(), request: Request::Extend(append) });
        if let Some(progress) = self.progress.get_mut(&term.own) {
            progress.next = seq + 1;
            progress.tell(told, now);
            if !rules.holds(Rule::OwnResult) {
                progress.appended(seq);
            }
        }
    }

    /// Sends on, while the follower keeps up.
    fn stream(&mut self, limits: &Limits, term: &Term<K>, region: &K::Region, effects: &mut Vec<Effect<K>>) {
        loop {
            let last = self.last_seq();
            let Some(progress) = self.progress.get(region) else { return };
            let under_way = progress.next.saturating_sub(progress.matched + 1);
            let is_open = progress.state == Sending::Streaming && under_way < limits.under_way;
            if !is_open || progress.next > last {
                return;
            }
            self.send(limits, term, region, effects);
        }
    }

    /// One message from `next` on; where memory no longer reaches back so far, the own store is read first.
    fn send(&mut self, limits: &Limits, term: &Term<K>, region: &K::Region, effects: &mut Vec<Effect<K>>) {
        let now = self.now;
        let Some(after) = self.progress.get(region).map(|progress| progress.next - 1) else { return };
        let prev = self.mark(after);
        let entries = if prev.is_some() { self.page(limits, after) } else { Vec::new() };
        let committed = self.committed_with(term, region, after + entries.len() as u64);
        let Some(progress) = self.progress.get_mut(region) else { return };
        let Some(prev) = prev else {
            (progress.state, progress.last_sent) = (Sending::Loading, now);
            let request = Request::Fetch { ballot: term.ballot, after };
            effects.push(Effect::Send { to: term.own.clone(), request });
            return;
        };
        progress.next = after + entries.len() as u64 + 1;
        progress.tell(committed, now);
        let append = Append { ballot: term.ballot, prev, entries, committed, sent: now };
        effects.push(Effect::Send { to: region.clone(), request: Request::Append(append) });
    }

    /// Entries from the own store, for every follower that waits for just these.
    fn loaded(
        &mut self,
        term: &Term<K>,
        before: &Mark<K>,
        entries: &[Entry<K>],
        effects: &mut Vec<Effect<K>>,
    ) {
        let committed = self.known_committed();
        for (region, progress) in &mut self.progress {
            if progress.state != Sending::Loading || progress.next != before.seq + 1 {
                continue;
            }
            progress.state = Sending::Probing;
            progress.next += entries.len() as u64;
            let sent = progress.last_sent;
            progress.tell(committed, sent);
            let append = Append {
                ballot: term.ballot,
                prev: before.clone(),
                entries: entries.to_vec(),
                committed,
                sent,
            };
            effects.push(Effect::Send { to: region.clone(), request: Request::Append(append) });
        }
    }

    /// The greatest number that a majority holds, if its entry is of this ballot (Raft §5.4.2).
    fn commit(&mut self, rules: &K::Rules, term: &Term<K>, effects: &mut Vec<Effect<K>>) {
        let matched = |region: &K::Region| self.progress.get(region).map_or(0, |p| p.matched);
        let reached = if rules.holds(Rule::QuorumCommits) {
            majority_reached(&term.replicas, matched)
        } else {
            matched(&term.own)
        };
        let reached = reached.min(self.last_seq());
        if reached <= self.committed || (reached < self.led && rules.holds(Rule::OwnBallotOnly)) {
            return;
        }
        let first = self.committed == 0;
        self.committed = reached;
        effects.push(Effect::Committed { upto: reached });
        if first && self.unsettled {
            effects.push(Effect::Settled { epoch: term.ballot.epoch });
        }
    }

    /// Lets go of what every replica holds, and of what is committed where memory is full. What the own
    /// store has not answered stays: it may have to be said again.
    fn forget(&mut self, limits: &Limits, term: &Term<K>) {
        let all = self.progress.values().map(|p| p.matched).min().unwrap_or(0);
        let own = self.progress.get(&term.own).map_or(0, |p| p.matched);
        while let Some(entry) = self.window.front() {
            let done = entry.seq <= self.committed.min(own);
            if !done || (entry.seq > all && self.window_weight <= limits.kept) {
                return;
            }
            self.base = entry.mark();
            self.window_weight -= K::weight(&entry.payload);
            self.window.pop_front();
        }
    }

    /// As many entries behind `after` as one message takes.
    fn page(&self, limits: &Limits, after: u64) -> Vec<Entry<K>> {
        let mut weight = 0;
        let behind = self.window.iter().filter(|entry| entry.seq > after);
        let fits = behind.take_while(|entry| {
            let is_first = weight == 0;
            weight += K::weight(&entry.payload).max(1);
            is_first || weight <= limits.message
        });
        fits.cloned().collect()
    }

    fn mark(&self, seq: u64) -> Option<Mark<K>> {
        if seq == self.base.seq {
            return Some(self.base.clone());
        }
        let at = usize::try_from(seq.checked_sub(self.base.seq + 1)?).ok()?;
        self.window.get(at).map(Entry::mark)
    }

    fn last_mark(&self) -> Mark<K> {
        self.window.back().map_or_else(|| self.base.clone(), Entry::mark)
    }

    pub fn last_seq(&self) -> u64 {
        self.window.back().map_or(self.base.seq, |entry| entry.seq)
    }

    fn known_committed(&self) -> u64 {
        self.committed.max(self.inherited)
    }

    /// What to say is committed, in a message to `region` that reaches to `upto`. A store that is a majority
    /// by itself commits what it writes by writing it, and is spared a second word about it.
    fn committed_with(&self, term: &Term<K>, region: &K::Region, upto: u64) -> u64 {
        let alone = term.replicas.len() == 1 && *region == term.own && term.replicas.contains(region);
        if alone { upto.max(self.known_committed()) } else { self.known_committed() }
    }
}
