//! Deciding and committing what is led: commands against the decided state, one batch after the other, and the
//! answers once they are committed.

use std::rc::Rc;

use regional::replication::Entry;
use regional::show::{Asked, Decision, Group, decide, due};

use crate::event::{At, Ms, Said, Who};
use crate::host::{Answer, Asker, Batch, Hosted, LEASE, States, Waiting};
use crate::kind::Payload;
use crate::process::wall;
use crate::world::World;

const UNDER_WAY: usize = 3;

impl World {
    pub fn expire(&mut self, who: Who, show: u8) {
        let (now, skew) = (self.now, self.processes[&who.at].skew);
        let Some(hosted) = self.processes[&who.at].hosted.get(&show) else { return };
        let Some(states) = &hosted.states else { return };
        let waits = hosted.under_way.is_empty()
            && hosted.leader.committed() > 0
            && states.decided.next_deadline().is_some_and(|at| at <= wall(now, skew));
        if waits {
            self.decide_batch(who.at, show, Vec::new());
        }
    }

    /// Decides what waits, unless enough is under way.
    pub fn decide_all(&mut self, at: At, show: u8) {
        let Some(hosted) = self.processes.get_mut(&at).and_then(|process| process.hosted.get_mut(&show))
        else {
            return;
        };
        // What the chosen log holds is committed with this leader's first entry, and answers nobody before.
        let ready = hosted.states.is_some() && hosted.leader.committed() > 0;
        if ready && !hosted.mailbox.is_empty() && hosted.under_way.len() < UNDER_WAY {
            let waiting = std::mem::take(&mut hosted.mailbox);
            self.decide_batch(at, show, waiting);
        }
    }

    fn decide_batch(&mut self, at: At, show: u8, messages: Vec<(Rc<Asked>, Asker)>) {
        let skew = self.processes[&at].skew;
        let clock = wall(self.now, skew);
        let Some(process) = self.processes.get_mut(&at) else { return };
        let who = process.who();
        let Some(hosted) = process.hosted.get_mut(&show) else { return };
        let Some(states) = &mut hosted.states else { return };
        let now = clock.max(states.decided.last_at);
        let seq = hosted.log.len() as u64 + 1;
        let (mut groups, mut waiting) = (Vec::new(), Vec::new());
        let mut wrong = None;
        let mut into = |states: &mut States, group: Group, groups: &mut Vec<Rc<Group>>| match Rc::make_mut(
            &mut states.decided,
        )
        .apply_group(seq, groups.len(), &group)
        {
            Ok(()) => groups.push(Rc::new(group)),
            Err(why) => wrong = Some(why),
        };
        let lapsed = due(&states.decided, now);
        if !lapsed.is_empty() {
            lapsed.iter().for_each(|event| self.counts.happened(event));
            into(
                states,
                Group { at: now, by: None, key: None, trace: None, from: None, events: lapsed },
                &mut groups,
            );
        }
        for (asked, asker) in messages {
            let answer = match decide(&states.decided, &asked, now) {
                Decision::Do(events) => {
                    for event in &events {
                        self.counts.happened(event);
                    }
                    let group =
                        Group { at: now, by: asked.by, key: asked.key, trace: None, from: None, events };
                    into(states, group, &mut groups);
                    Answer::Group { index: groups.len() - 1, repeated: false }
                }
                Decision::Repeat { seq: at, index } if at == seq => {
                    Answer::Group { index: index as usize, repeated: true }
                }
                Decision::Repeat { seq, index } => Answer::Before { seq, index },
                Decision::Already => Answer::Already,
                Decision::Refuse(refusal) => {
                    self.counts.refusal(&refusal);
                    Answer::Refused(refusal)
                }
            };
            waiting.push(Waiting { asker, answer, since: self.now });
        }
        if let Some(why) = wrong {
            self.fail("S1", format!("show {show}: a decision does not apply: {why}"));
            return;
        }
        if groups.is_empty() {
            if let Some(last) = hosted.under_way.back_mut() {
                // What these answers rest on is not committed yet.
                last.waiting.extend(waiting);
            } else {
                self.answer_proven(who, show, 0, waiting);
            }
            return;
        }
        let payload = Payload::new(groups.clone());
        let ballot = hosted.leader.ballot();
        let before = hosted.log.last().map(Entry::mark).unwrap_or_default();
        let entry = before.next(ballot, payload.clone());
        let Ok((_, effects)) = hosted.leader.propose(payload) else { return };
        hosted.log.push(entry);
        hosted.under_way.push_back(Batch { seq, groups, waiting });
        self.carry_out(at, show, effects);
    }

    /// All up to here is committed: apply, answer, publish.
    pub fn committed(&mut self, who: Who, show: u8, upto: u64) {
        self.counts.add("lead: committed");
        self.acknowledge(who.at, show, upto);
        loop {
            let hosted = self.processes.get_mut(&who.at).and_then(|p| p.hosted.get_mut(&show));
            let Some(hosted) = hosted else { return };
            if hosted.under_way.front().is_none_or(|batch| batch.seq > upto) {
                return;
            }
            let Some(batch) = hosted.under_way.pop_front() else { return };
            if let Some(states) = &mut hosted.states
                && Rc::make_mut(&mut states.committed).apply(batch.seq, &batch.groups).is_err()
            {
                self.fail("S1", format!("show {show}: what is committed does not apply"));
                return;
            }
            self.pay(who, show, &batch.groups);
            self.answer_proven(who, show, batch.seq, batch.waiting);
        }
    }

    /// Answers what is committed; a "no", which is committed by nothing, waits for the proof that nobody else had led
    /// when it was decided.
    fn answer_proven(&mut self, who: Who, show: u8, seq: u64, waiting: Vec<Waiting>) {
        let is_no = |waiting: &Waiting| matches!(waiting.answer, Answer::Already | Answer::Refused(_));
        let (no, yes): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_no);
        self.answer_all(who, show, seq, yes);
        if no.is_empty() {
            return;
        }
        let Some(hosted) = self.processes.get_mut(&who.at).and_then(|p| p.hosted.get_mut(&show)) else {
            return;
        };
        hosted.unproven.extend(no);
        self.prove(who.at, show);
        let now = self.now;
        let waits = |hosted: &Hosted| !hosted.unproven.is_empty();
        if self.processes[&who.at].hosted.get(&show).is_some_and(waits) {
            self.counts.add("lead: a no waits for a proof");
            self.on_leader(who.at, show, |leader| {
                leader.clock(now);
                leader.nudge_all()
            });
        }
    }

    /// Gives each "no" once it is proven; says that it cannot be given when nobody proves it for long.
    pub fn prove(&mut self, at: At, show: u8) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&at).filter(|process| process.is_up) else { return };
        let who = process.who();
        let Some(hosted) = process.hosted.get_mut(&show).filter(|hosted| !hosted.unproven.is_empty()) else {
            return;
        };
        let Hosted { leader, unproven, .. } = hosted;
        let is_proven = |waiting: &mut Waiting| leader.holds_lease(now, now - waiting.since);
        let proven: Vec<Waiting> = unproven.extract_if(.., is_proven).collect();
        let old: Vec<Waiting> = unproven.extract_if(.., |waiting| now > waiting.since + LEASE).collect();
        if let Some(since) = proven.iter().map(|waiting| waiting.since).max() {
            self.counts.add("lead: a no was proven");
            self.check_known(who, show, since);
            self.answer_all(who, show, 0, proven);
        }
        for Waiting { asker, .. } in old {
            self.counts.add("lead: a no was not proven");
            self.answer(who, asker, Said::Unavailable);
        }
    }

    /// What a leader says no from, or lets be read without a stamp, is what was committed anywhere at that time.
    pub fn check_known(&mut self, who: Who, show: u8, at: Ms) {
        let Some(hosted) = self.processes[&who.at].hosted.get(&show) else { return };
        let (known, ballot) = (hosted.leader.committed(), hosted.leader.ballot());
        let missing = self.truths[usize::from(show)].missing_since(known);
        if let Some(missing) = missing.filter(|missing| *missing < at) {
            let why = format!(
                "show {show}: {ballot:?} speaks for {known} as of {at}, and more was committed at {missing}"
            );
            self.fail("lease", why);
        }
    }

    fn answer_all(&mut self, who: Who, show: u8, at: u64, all: Vec<Waiting>) {
        let Some(hosted) = self.processes[&who.at].hosted.get(&show) else { return };
        let epoch = hosted.leader.ballot().epoch;
        let said: Vec<(Asker, Said)> = all
            .into_iter()
            .map(|Waiting { asker, answer, .. }| {
                let said = match answer {
                    Answer::Group { index, repeated } => {
                        let index = u32::try_from(index).unwrap_or(u32::MAX);
                        Said::Done { epoch, seq: at, index, repeated }
                    }
                    Answer::Before { seq, index } => {
                        let entry = usize::try_from(seq).ok().and_then(|seq| hosted.log.get(seq - 1));
                        match entry.and_then(|entry| entry.payload.groups().get(index as usize)) {
                            Some(_) => Said::Done { epoch, seq, index, repeated: true },
                            None => Said::Unknown,
                        }
                    }
                    Answer::Already => Said::Already,
                    Answer::Refused(refusal) => Said::Refused { refusal },
                };
                (asker, said)
            })
            .collect();
        for (asker, said) in said {
            self.answer(who, asker, said);
        }
    }
}
