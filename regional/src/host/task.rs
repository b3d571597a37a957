//! The task of one show.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use common::ShowId;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::lead::was_done;
use super::refused::Refused;
use super::{Answer, HostError, Hosts, Message, Replayable};
use crate::journal::{Append, Appended, Ballot, Head};
use crate::live::Live;
use crate::show::{Decision, Group, Refusal, Show, decide, due};

/// How many commands one entry takes at most.
const MAX_BATCH: usize = 1_024;

/// A show that nobody asks for leaves memory after this.
const IDLE: Duration = Duration::from_secs(600);

/// How long an unknown outcome is looked into before the askers are told that it is unknown.
const SETTLE_TRIES: u32 = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Task {
    pub hosts: Hosts,
    pub show: ShowId,
    pub ballot: Ballot,
    pub head: Head,
    /// Ahead of `committed` while a batch is under way.
    pub decided: Show,
    pub committed: Arc<RwLock<Show>>,
    pub live: Arc<Live>,
    pub mailbox: mpsc::Receiver<Message>,
    /// To recognise its own entry among the active hosts.
    pub own: mpsc::WeakSender<Message>,
    pub refused: Refused,
}

type Asker = oneshot::Sender<Result<Replayable, HostError>>;

/// One asker of the present batch, and what it will hear once the batch is committed.
struct Waiting {
    asker: Asker,
    reply: Reply,
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

impl Task {
    pub async fn run(mut self) {
        let why = self.serve().await;
        tracing::debug!(show = %self.show, why, "stopped leading");
        self.hosts.forget_host(self.show, &self.own);
        self.live.end();
        self.hosts.0.means.metrics.shows_active.dec();
        // Whoever still waits in the mailbox was not decided: nothing was done.
        self.mailbox.close();
        while let Ok(message) = self.mailbox.try_recv() {
            let _ = message.answer.send(Err(HostError::Stopped));
        }
    }

    async fn serve(&mut self) -> &'static str {
        let mut batch = Vec::new();
        loop {
            let deadline = self.next_deadline();
            tokio::select! {
                count = self.mailbox.recv_many(&mut batch, MAX_BATCH) => {
                    if count == 0 {
                        return "no handles left";
                    }
                }
                () = sleep_until(deadline) => {
                    if self.decided.next_deadline().is_none() && self.live.watchers() == 0 {
                        return "idle";
                    }
                }
            }
            if let Err(why) = self.batch(std::mem::take(&mut batch)).await {
                return why;
            }
        }
    }

    /// When to look for lapsed reservations, or to leave memory.
    fn next_deadline(&self) -> Instant {
        let wait = match self.decided.next_deadline() {
            Some(at) => Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO),
            None => IDLE,
        };
        Instant::now() + wait.min(IDLE)
    }

    /// Decides everything that waits, appends it as one entry, then answers.
    async fn batch(&mut self, messages: Vec<Message>) -> Result<(), &'static str> {
        let now = Timestamp::now().max(self.decided.last_at);
        let seq = self.head.seq + 1;
        let mut groups: Vec<Arc<Group>> = Vec::new();
        let lapsed = due(&self.decided, now);
        if !lapsed.is_empty() {
            let group = Group { at: now, by: None, key: None, trace: None, events: lapsed };
            self.decide_into(&mut groups, group, seq)?;
        }
        let mut waiting = Vec::with_capacity(messages.len());
        for Message { asked, answer } in messages {
            if let Some(refusal) = self.refused.before(&asked, now) {
                waiting.push(Waiting { asker: answer, reply: Reply::Refused { refusal, repeated: true } });
                continue;
            }
            let reply = match decide(&self.decided, &asked, now) {
                Decision::Do(events) => {
                    let group = Group { at: now, by: asked.by, key: asked.key, trace: asked.trace, events };
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
            waiting.push(Waiting { asker: answer, reply });
        }
        if groups.is_empty() {
            self.answer(waiting, &[], None);
            return Ok(());
        }
        self.append(now, groups, waiting).await
    }

    fn decide_into(
        &mut self,
        groups: &mut Vec<Arc<Group>>,
        group: Group,
        seq: u64,
    ) -> Result<(), &'static str> {
        if let Err(why) = self.decided.apply_group(seq, groups.len(), &group) {
            // A decision that does not apply is a defect; nothing of the batch was written.
            tracing::error!(show = %self.show, why, "a decision does not apply");
            return Err("a decision does not apply");
        }
        groups.push(Arc::new(group));
        Ok(())
    }

    async fn append(
        &mut self,
        at: Timestamp,
        groups: Vec<Arc<Group>>,
        waiting: Vec<Waiting>,
    ) -> Result<(), &'static str> {
        let (show, ballot, head) = (self.show, self.ballot, self.head.clone());
        let append = Append { show, ballot, head, at, groups: groups.clone() };
        let appended = self.hosts.0.means.writer.append(append).await;
        match appended {
            Appended::Done(head) => {
                self.head = head;
                self.commit(&groups);
                self.answer(waiting, &groups, None);
                Ok(())
            }
            Appended::Lost => {
                self.answer(waiting, &groups, Some(HostError::Stopped));
                Err("another process leads")
            }
            Appended::Failed(why) => {
                self.answer(waiting, &groups, Some(HostError::Unavailable(why)));
                Err("the journal refused")
            }
            Appended::Unknown(next) => {
                let failure = match self.settle(&next).await {
                    Some(true) => {
                        self.commit(&groups);
                        None
                    }
                    Some(false) => Some(HostError::Stopped),
                    None => Some(HostError::OutcomeUnknown),
                };
                self.answer(waiting, &groups, failure);
                Err("an unknown outcome was settled")
            }
        }
    }

    /// Whether a batch of unknown outcome was written; none where even that cannot be learnt.
    async fn settle(&self, next: &Head) -> Option<bool> {
        for _ in 0..SETTLE_TRIES {
            match self.hosts.0.means.journal.settle(self.show, next.seq, &next.hash).await {
                Ok(settled) => return Some(was_done(settled)),
                Err(error) => tracing::warn!(show = %self.show, %error, "cannot settle yet"),
            }
            sleep(SETTLE_PAUSE).await;
        }
        None
    }

    /// Brings the committed state to what was just written, for readers and the projector.
    fn commit(&mut self, groups: &[Arc<Group>]) {
        let seq = self.decided.seq;
        {
            let mut committed = self.committed.write().expect("never poisoned");
            if let Err(why) = committed.apply(seq, groups) {
                tracing::error!(show = %self.show, why, "the committed state does not follow the decided one");
            }
            self.live.publish(&committed);
        }
        self.hosts.0.means.projector.nudge(self.show);
    }

    fn answer(&self, waiting: Vec<Waiting>, groups: &[Arc<Group>], failure: Option<HostError>) {
        let mut used = vec![false; groups.len()];
        for Waiting { asker, reply } in waiting {
            let (label, answer) = match (&failure, reply) {
                (Some(failure), _) => ("failed", Err(failure.clone())),
                (None, Reply::Group(at)) => {
                    let repeated = std::mem::replace(&mut used[at], true);
                    let answer = Answer::Done { group: groups[at].clone(), repeated };
                    ("done", Ok(Replayable::Fresh(answer)))
                }
                (None, Reply::Before { seq, index }) => ("repeated", Ok(Replayable::Before { seq, index })),
                (None, Reply::Already) => ("already", Ok(Replayable::Fresh(Answer::Already))),
                (None, Reply::Refused { refusal, repeated }) => {
                    ("refused", Ok(Replayable::Fresh(Answer::Refused { refusal, repeated })))
                }
            };
            self.hosts.0.means.metrics.commands.with_label_values(&[label]).inc();
            // Who no longer listens finds the result under the key.
            let _ = asker.send(answer);
        }
    }
}
