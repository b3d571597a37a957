//! The task of one show: decides what waits, hands it to the journal, and goes on deciding while that is being
//! committed.
//!
//! Invariant: batches are committed, by a majority of the show's regions, and answered in the order in which
//! they were decided; when one does not come to be, nothing after it does, and nobody hears "not done" of what
//! may be done.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use common::ShowId;
use jiff::{Timestamp, Unit};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::clock::boot_ms;
use super::decided::Decided;
use super::refused::Refused;
use super::tenure::{End, Tenure, Told};
use super::{Answer, HostError, Hosts, Message, Replayable};
use crate::live::Live;
use crate::metrics::Metrics;
use crate::replicas::Payload;
use crate::show::{Decision, Event, Group, Refusal, Show, decide, due};

/// How many commands one entry takes at most.
pub(super) const MAX_BATCH: usize = 1_024;

/// Batches on their way into the own store at once. A further one is begun only when at least as many commands
/// wait as are under way, or none is: cutting batches small costs more than waiting for a commit.
const MAX_OWN: usize = 3;

/// Batches that wait for other regions, which are far away: what the own store took goes on meanwhile.
const MAX_UNDER_WAY: usize = 128;

/// A show that nobody asks for leaves memory after this.
const IDLE: Duration = Duration::from_secs(600);

const IDLE_FOR_LONG: &str = "idle";

/// One that was only led so that other regions follow leaves it after this.
const PASSING: Duration = Duration::from_secs(3);

/// A show that nobody has asked for so long keeps its state once, not twice.
const REST: Duration = Duration::from_secs(2);

pub(super) struct Task {
    pub hosts: Hosts,
    pub show: ShowId,
    pub tenure: Tenure,
    /// Ahead of `committed` by what is under way.
    pub decided: Decided,
    pub under_way: VecDeque<Batch>,
    pub committed: Arc<RwLock<Show>>,
    pub asked_for: Arc<AtomicBool>,
    pub live: Arc<Live>,
    pub mailbox: mpsc::Receiver<Message>,
    /// To recognise its own entry among the active hosts.
    pub own: mpsc::WeakSender<Message>,
    pub refused: Refused,
}

type Asker = oneshot::Sender<Result<Replayable, HostError>>;

/// An entry on its way into the journals.
pub(super) struct Batch {
    seq: u64,
    groups: Vec<Arc<Group>>,
    waiting: Vec<Waiting>,
    since: Instant,
}

/// One asker, and what it will hear once the batch is committed.
struct Waiting {
    asker: Asker,
    reply: Reply,
    /// When it was decided, on the clock of proofs.
    since: u64,
}

/// Clocks count finer than the tables that keep these times; what is read there is what was said.
pub(super) fn now() -> Timestamp {
    Timestamp::now().round(Unit::Microsecond).unwrap_or_default()
}

enum Reply {
    /// The group at this place of the batch.
    Group(usize),
    Before {
        seq: u64,
        index: u32,
    },
    Already,
    Refused {
        refusal: Refusal,
        repeated: bool,
    },
}

impl Reply {
    /// Whether it would be wrong had somebody else led since.
    fn is_no(&self) -> bool {
        matches!(self, Self::Already | Self::Refused { .. })
    }
}

impl Task {
    pub async fn run(mut self) {
        let why = self.serve().await;
        tracing::debug!(show = %self.show, why, "stopped leading");
        if why != IDLE_FOR_LONG {
            // Its last entry is this reign's: it began with one.
            let ballot = self.tenure.term().ballot;
            let committed = self.committed.read().expect("no code panics while holding it");
            self.hosts.0.folded.keep(self.show, ballot, &committed);
        }
        self.hosts.forget_host(self.show, &self.own);
        self.hosts.left_behind(self.show, self.tenure.lagging());
        self.live.end();
        self.tenure.proof().end();
        self.hosts.0.means.metrics.shows_active.dec();
        // Whoever still waits in the mailbox was not decided: nothing was done.
        self.mailbox.close();
        while let Ok(message) = self.mailbox.try_recv() {
            message.stopped();
        }
    }

    async fn serve(&mut self) -> &'static str {
        let (mut messages, mut batch_before) = (Vec::new(), 0);
        loop {
            let passing = !self.asked_for.load(Ordering::Relaxed);
            let deadline = self.next_deadline(passing);
            let idle = self.under_way.is_empty();
            let room = messages.len() < MAX_BATCH;
            tokio::select! {
                biased;
                told = self.tenure.next() => {
                    if let Err(why) = self.hear(told) {
                        // Whoever is in hand was not decided: nothing was done.
                        messages.drain(..).for_each(Message::stopped);
                        return why;
                    }
                    // Those who were just answered may ask again, and go into one batch.
                    tokio::task::yield_now().await;
                    while messages.len() < MAX_BATCH && let Ok(message) = self.mailbox.try_recv() {
                        messages.push(message);
                    }
                }
                count = self.mailbox.recv_many(&mut messages, MAX_BATCH), if room => {
                    if count == 0 {
                        return self.finish_all("no handles left").await;
                    }
                }
                () = sleep_until(deadline), if idle => {
                    if self.decided.is_ahead() && self.decided.next_deadline().is_none_or(|at| at > now()) {
                        self.decided.rest();
                        continue;
                    }
                    let unused = self.decided.next_deadline().is_none() && self.live.watchers() == 0;
                    let asked_for = self.asked_for.load(Ordering::Relaxed);
                    if unused && self.tenure.is_quiet() && passing != asked_for {
                        return IDLE_FOR_LONG;
                    }
                    if unused {
                        continue;
                    }
                    if let Err(why) = self.decide_batch(Vec::new()) {
                        return self.finish_all(why).await;
                    }
                }
            }
            let own = self.tenure.own_under_way();
            let worthwhile = own == 0 || (own < MAX_OWN && messages.len() >= batch_before);
            let possible = self.tenure.is_settled() && self.under_way.len() < MAX_UNDER_WAY;
            if !messages.is_empty() && worthwhile && possible {
                batch_before = messages.len();
                if let Err(why) = self.decide_batch(std::mem::take(&mut messages)) {
                    return self.finish_all(why).await;
                }
            }
        }
    }

    /// When to look for lapsed reservations, to rest, or to leave memory.
    fn next_deadline(&self, passing: bool) -> Instant {
        let longest = match passing {
            _ if self.decided.is_ahead() => REST,
            true => PASSING,
            false => IDLE,
        };
        let wait = match self.decided.next_deadline() {
            Some(at) => Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO),
            None => longest,
        };
        Instant::now() + wait.min(longest)
    }

    /// Decides everything that waits and hands it on as one entry.
    fn decide_batch(&mut self, messages: Vec<Message>) -> Result<(), &'static str> {
        let (now, since) = (now().max(self.decided.ahead().last_at), boot_ms());
        let seq = self.tenure.last_seq() + 1;
        let mut groups: Vec<Arc<Group>> = Vec::new();
        let lapsed = due(self.decided.ahead(), now);
        if !lapsed.is_empty() {
            let group = Group { at: now, by: None, key: None, trace: None, from: None, events: lapsed };
            self.decide_into(&mut groups, group, seq)?;
        }
        let mut waiting = Vec::with_capacity(messages.len());
        for Message { asked, answer } in messages {
            if let Some(refusal) = self.refused.before(&asked, now) {
                let reply = Reply::Refused { refusal, repeated: true };
                waiting.push(Waiting { asker: answer, reply, since });
                continue;
            }
            let reply = match decide(self.decided.ahead(), &asked, now) {
                Decision::Do(events) => {
                    let (by, key, trace) = (asked.by, asked.key, asked.trace.clone());
                    // An address is kept only where the audit log needs it.
                    let told = || events.iter().any(Event::is_told_to_audit);
                    let from = asked.from.clone().filter(|_| told());
                    let group = Group { at: now, by, key, trace, from, events };
                    self.decide_into(&mut groups, group, seq)?;
                    Reply::Group(groups.len() - 1)
                }
                // Its first use may stand in this very batch.
                Decision::Repeat { seq: at, index } if at == seq => Reply::Group(index as usize),
                Decision::Repeat { seq, index } => Reply::Before { seq, index },
                Decision::Already => Reply::Already,
                Decision::Refuse(refusal) => {
                    self.refused.remember(&asked, &refusal, now);
                    Reply::Refused { refusal, repeated: false }
                }
            };
            waiting.push(Waiting { asker: answer, reply, since });
        }
        if !groups.is_empty() {
            return self.append(now, groups, waiting);
        }
        if let Some(last) = self.under_way.back_mut() {
            // What these answers rest on is not committed yet.
            last.waiting.extend(waiting);
        } else {
            self.answer(waiting, &[], None);
        }
        Ok(())
    }

    fn decide_into(
        &mut self,
        groups: &mut Vec<Arc<Group>>,
        group: Group,
        seq: u64,
    ) -> Result<(), &'static str> {
        if let Err(why) = self.decided.ahead().apply_group(seq, groups.len(), &group) {
            // A decision that does not apply is a defect; nothing of the batch was written.
            tracing::error!(show = %self.show, why, "a decision does not apply");
            return Err("a decision does not apply");
        }
        groups.push(Arc::new(group));
        Ok(())
    }

    fn append(
        &mut self,
        at: Timestamp,
        groups: Vec<Arc<Group>>,
        waiting: Vec<Waiting>,
    ) -> Result<(), &'static str> {
        let payload = Payload::new(self.show, at, &groups);
        let seq = self.tenure.last_seq() + 1;
        self.under_way.push_back(Batch { seq, groups, waiting, since: Instant::now() });
        match self.tenure.propose(payload) {
            Some((_, told)) => self.hear(told),
            None => {
                self.fail(&HostError::OutcomeUnknown);
                Err("no longer led here")
            }
        }
    }

    /// What the majority, or whoever deposed this leader, said.
    fn hear(&mut self, told: Vec<Told>) -> Result<(), &'static str> {
        for told in told {
            match told {
                Told::Chosen(_) => {}
                Told::Committed(upto) => {
                    while self.under_way.front().is_some_and(|batch| batch.seq <= upto) {
                        self.commit_first();
                    }
                }
                Told::Over(end) => {
                    tracing::debug!(show = %self.show, ?end, "deposed");
                    return Err(self.over(end));
                }
            }
        }
        Ok(())
    }

    /// What is under way will have no outcome here.
    fn over(&mut self, end: End) -> &'static str {
        match end {
            // Nothing was written, and no later entry can be without this one.
            End::Lost => {
                self.fail(&HostError::Stopped);
                "another process leads"
            }
            End::Failed(why) => {
                self.fail(&HostError::Unavailable(why));
                "the journal refused"
            }
            End::NoStore(_) => {
                self.fail(&HostError::OutcomeUnknown);
                "the own store cannot be reached"
            }
            End::Stopped(_) => {
                self.fail(&HostError::OutcomeUnknown);
                "deposed"
            }
        }
    }

    /// Lets what is under way come to its end.
    async fn finish_all(&mut self, why: &'static str) -> &'static str {
        while !self.under_way.is_empty() {
            let told = self.tenure.next().await;
            if let Err(why) = self.hear(told) {
                return why;
            }
        }
        why
    }

    fn fail(&mut self, failure: &HostError) {
        for batch in self.under_way.drain(..).collect::<Vec<_>>() {
            self.answer(batch.waiting, &batch.groups, Some(failure.clone()));
        }
    }

    /// Brings the committed state to what was just written, for readers and the projector; then answers.
    fn commit_first(&mut self) {
        let Some(Batch { seq, groups, waiting, since }) = self.under_way.pop_front() else { return };
        self.hosts.0.means.metrics.replication.quorum_seconds.observe(since.elapsed().as_secs_f64());
        {
            let mut committed = self.committed.write().expect("never poisoned");
            if let Err(why) = committed.apply(seq, &groups) {
                tracing::error!(show = %self.show, why, "the committed state does not follow the decided one");
            }
            self.live.publish(&committed);
            self.hosts.0.means.projector.committed(self.show, seq, groups.iter().map(Arc::as_ref));
        }
        self.answer(waiting, &groups, None);
    }

    /// A "no" is committed by nothing. It waits for the proof that nobody else had led when it was decided: what is
    /// refused here may have been done there, and a repeat under its key would hear the opposite.
    fn answer(&self, waiting: Vec<Waiting>, groups: &[Arc<Group>], failure: Option<HostError>) {
        let (metrics, proof) = (&self.hosts.0.means.metrics, self.tenure.proof());
        let is_open = |waiting: &Waiting| waiting.reply.is_no() && !proof.is_proven(waiting.since);
        let (open, certain): (Vec<Waiting>, Vec<Waiting>) =
            waiting.into_iter().partition(|waiting| failure.is_none() && is_open(waiting));
        answer(metrics, certain, groups, failure);
        let Some(since) = open.iter().map(|waiting| waiting.since).max() else { return };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let failure = proof.from(since).await.err();
            answer(&metrics, open, &[], failure);
        });
    }
}

fn answer(metrics: &Metrics, waiting: Vec<Waiting>, groups: &[Arc<Group>], failure: Option<HostError>) {
    let counts = &metrics.commands;
    let mut used = vec![false; groups.len()];
    for Waiting { asker, reply, .. } in waiting {
        let (count, answer) = match (&failure, reply) {
            (Some(failure), _) => (&counts.failed, Err(failure.clone())),
            (None, Reply::Group(at)) => {
                let repeated = std::mem::replace(&mut used[at], true);
                let answer = Answer::Done { group: groups[at].clone(), repeated };
                (&counts.done, Ok(Replayable::Fresh(answer)))
            }
            (None, Reply::Before { seq, index }) => (&counts.repeated, Ok(Replayable::Before { seq, index })),
            (None, Reply::Already) => (&counts.already, Ok(Replayable::Fresh(Answer::Already))),
            (None, Reply::Refused { refusal, repeated }) => {
                (&counts.refused, Ok(Replayable::Fresh(Answer::Refused { refusal, repeated })))
            }
        };
        count.inc();
        // Who no longer listens finds the result under the key.
        let _ = asker.send(answer);
    }
}
