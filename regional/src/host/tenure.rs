//! One try to lead a show and, where it succeeds, the reign: the pure [`Leader`] between its own store, its
//! peers, the registry's news and the time.
//!
//! Invariants: effects are carried out in their order; the own store's entries reach the journal's writer in
//! theirs, and count by the result of that write alone (R3). A write of unknown outcome is said again, to the
//! letter and under the same ballot, by a transaction that waits for it (R2); nothing is decided meanwhile.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use common::{RegionName, ShowId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::clock::boot_ms;
use super::{Hosts, Proof};
use crate::journal::{Append, Appended};
use crate::replicas::peers::{Heard, Route};
use crate::replicas::{Answer, Mark, Payload, Regional, Reply, Request};
use crate::replication::{Effect, Leader, Limits, Strict, Term, Why};

/// For followers that are behind, a show keeps only this much in memory: what is older they are given from the
/// own store. A region that is away for hours is behind in every show.
const KEPT_BYTES: usize = 128 << 10;
const UNDER_WAY: u64 = 256;

/// How long the own store may leave it open whether it took an entry.
const UNSETTLED: Duration = Duration::from_secs(4);
/// Before a store that did not answer is asked again.
const OWN_PAUSE: Duration = Duration::from_millis(200);
/// Before those who do not prove a reign by an answer are asked again.
const REPEAT_MS: u64 = 500;
/// Questions to the own store at once, beside its entries.
const OWN_ASKED: usize = 4;

/// What the host must know.
pub(super) enum Told {
    /// Fold the own store up to here, then [`Tenure::begin`].
    Chosen(Mark),
    /// All up to here is committed.
    Committed(u64),
    Over(End),
}

/// Why a try or a reign ended.
#[derive(Debug)]
pub(super) enum End {
    /// The own store's head was not as it was left; the own store alone is the quorum, so nothing was done.
    Lost,
    /// The own store surely wrote nothing, and nobody else was asked to.
    Failed(String),
    /// The own store cannot be reached.
    NoStore(String),
    Stopped(Why),
}

/// An entry on its way into the own store.
struct Write {
    seq: u64,
    sent: u64,
    outcome: Pin<Box<dyn Future<Output = Appended> + Send>>,
}

pub(super) struct Tenure {
    hosts: Hosts,
    show: ShowId,
    leader: Leader<Regional>,
    route: Route,
    inbox: mpsc::Receiver<Heard>,
    writes: VecDeque<Write>,
    /// Questions to the own store that are not answered yet.
    asked_own: usize,
    /// Since when it is open whether the own store holds what it was given.
    unsettled: Option<Instant>,
    proof: Arc<Proof>,
    /// When all were last asked for no other reason than a proof.
    asked_all: u64,
}

impl Tenure {
    /// Asks all for their promise.
    pub fn start(hosts: &Hosts, show: ShowId, term: Term<Regional>) -> Self {
        let limits = Limits { kept: KEPT_BYTES, under_way: UNDER_WAY, ..Limits::default() };
        let (route, inbox) = hosts.0.means.peers.route(show, term.ballot.epoch, !term.prior.is_empty());
        let (leader, effects) = Leader::start(Strict, limits, term);
        let mut tenure = Self {
            hosts: hosts.clone(),
            show,
            leader,
            route,
            inbox,
            writes: VecDeque::new(),
            asked_own: 0,
            unsettled: None,
            proof: Arc::default(),
            asked_all: 0,
        };
        // The own store has not answered yet, so there is nothing to be told.
        let told = tenure.carry(effects);
        debug_assert!(told.is_empty());
        tenure
    }

    pub fn term(&self) -> &Term<Regional> {
        self.leader.term()
    }

    /// Whether the own store is the whole quorum: what it surely did not write was surely not done.
    pub fn is_alone(&self) -> bool {
        let term = self.term();
        term.replicas.len() == 1 && term.replicas.contains(&term.own)
    }

    pub fn last_seq(&self) -> u64 {
        self.leader.last_seq()
    }

    /// Entries that the own store has not answered for.
    pub fn own_under_way(&self) -> usize {
        self.writes.len()
    }

    /// Whether entries may be added now.
    pub fn is_settled(&self) -> bool {
        self.unsettled.is_none()
    }

    /// That this reign is the present one, for readers.
    pub fn proof(&self) -> Arc<Proof> {
        self.proof.clone()
    }

    /// Whether everybody who can be reached knows all there is.
    pub fn is_quiet(&self) -> bool {
        self.next_tick().is_none()
    }

    /// The regions that lack entries, as far as is known.
    pub fn lagging(&self) -> Vec<RegionName> {
        let own = &self.term().own;
        let lags = self.leader.lags().into_iter().filter(|(region, lag)| *lag > 0 && *region != own);
        lags.map(|(region, _)| region.clone()).collect()
    }

    /// Appends the first entry of the own ballot.
    pub fn begin(&mut self, led: Payload) -> Vec<Told> {
        let effects = self.leader.begin(led, boot_ms());
        self.carry(effects)
    }

    /// Appends an entry, on its way everywhere when this returns; its number. None: no longer led here.
    pub fn propose(&mut self, payload: Payload) -> Option<(u64, Vec<Told>)> {
        self.leader.clock(boot_ms());
        let (seq, effects) = self.leader.propose(payload).ok()?;
        Some((seq, self.carry(effects)))
    }

    /// Says again what was not answered.
    pub fn again(&mut self) -> Vec<Told> {
        self.leader.clock(boot_ms());
        let effects = self.leader.nudge_all();
        self.carry(effects)
    }

    /// Waits for what the host must know. May be dropped and called again at any time.
    pub async fn next(&mut self) -> Vec<Told> {
        loop {
            let tick = self.next_tick();
            let mut told = tokio::select! {
                biased;
                appended = first(&mut self.writes) => self.written(appended),
                // The route holds a sender.
                Some(heard) = self.inbox.recv() => self.hear(heard),
                () = until(tick) => {
                    let effects = self.leader.tick(boot_ms());
                    self.carry(effects)
                }
                () = self.proof.asked_for() => Vec::new(),
            };
            if let Some(since) = self.leader.heard_since() {
                self.proof.note(since);
            }
            told.append(&mut self.prove());
            if !told.is_empty() {
                return told;
            }
        }
    }

    /// Asks all whether this is still the present reign, where somebody wants to know and no answer to what is
    /// under way anyway will tell.
    fn prove(&mut self) -> Vec<Told> {
        let Some(wanted) = self.proof.wanted() else { return Vec::new() };
        let now = boot_ms();
        let is_under_way = self.leader.committed() < self.leader.last_seq();
        let is_asked = wanted < self.asked_all && now < self.asked_all + REPEAT_MS;
        if is_asked || is_under_way || !self.leader.is_leading() {
            return Vec::new();
        }
        // What is asked from the next millisecond on is proven by a round of its own.
        self.asked_all = now + 1;
        self.again()
    }

    fn next_tick(&self) -> Option<u64> {
        if self.is_alone() && self.term().prior.is_empty() {
            return None;
        }
        let peers = &self.hosts.0.means.peers;
        self.leader.next_tick(|region| peers.is_reachable(region))
    }

    fn hear(&mut self, heard: Heard) -> Vec<Told> {
        self.leader.clock(boot_ms());
        let effects = match heard {
            Heard::Answer { from, reply } => {
                if from == self.term().own {
                    self.asked_own -= 1;
                    return self.own_answered(*reply);
                }
                let effects = self.leader.answered(&from, *reply);
                self.count_lag(&from);
                effects
            }
            Heard::OwnSilent(why) => {
                self.asked_own -= 1;
                return self.own_silent(why);
            }
            Heard::News { epoch, has_prior } => self.leader.heard(epoch, has_prior),
            Heard::SessionGone => self.leader.stop(Why::Registry),
            Heard::Reachable(region) => self.leader.nudge(&region),
        };
        self.carry(effects)
    }

    /// The result of the first of the own store's writes.
    fn written(&mut self, appended: Appended) -> Vec<Told> {
        let Some(Write { seq, sent, .. }) = self.writes.pop_front() else { return Vec::new() };
        self.leader.clock(boot_ms());
        match appended {
            Appended::Done(_) => {
                let reply = self.own_reply(Answer::Appended { upto: seq, sent });
                return self.own_answered(reply);
            }
            // Because of the one before it, of which nobody knows; or another took the show.
            Appended::Lost if self.unsettled.is_some() => {}
            Appended::Lost if self.is_alone() => return self.over(End::Lost),
            Appended::Lost => {
                let effects = self.leader.stop(Why::OwnStore);
                return self.carry(effects);
            }
            Appended::Failed(why) if self.is_alone() && self.unsettled.is_none() => {
                return self.over(End::Failed(why));
            }
            // Others may hold it, and commit it; so it is said again until it stands here too.
            Appended::Failed(_) | Appended::Unknown(_) => {
                self.unsettled.get_or_insert_with(Instant::now);
            }
        }
        self.settle()
    }

    /// Says again to the own store what it may or may not hold, once nothing else is on its way there.
    fn settle(&mut self) -> Vec<Told> {
        if self.unsettled.is_none() || !self.writes.is_empty() || self.asked_own > 0 {
            return Vec::new();
        }
        let effects = self.leader.own_unknown();
        self.carry(effects)
    }

    fn own_answered(&mut self, reply: Reply) -> Vec<Told> {
        let own = self.term().own.clone();
        let upto = if let Answer::Appended { upto, .. } = reply.answer { upto } else { 0 };
        let effects = self.leader.answered(&own, reply);
        if upto >= self.leader.last_seq() {
            self.unsettled = None;
        }
        let mut told = self.carry(effects);
        if self.unsettled.is_some() {
            told.append(&mut self.settle());
        }
        told
    }

    fn own_silent(&mut self, why: String) -> Vec<Told> {
        let Some(since) = self.unsettled else {
            // While choosing there is no leading without the own store; later, others may carry it.
            return if self.leader.is_leading() { Vec::new() } else { self.over(End::NoStore(why)) };
        };
        if since.elapsed() < UNSETTLED {
            return self.settle();
        }
        self.over(End::NoStore(why))
    }

    fn over(&mut self, end: End) -> Vec<Told> {
        self.leader.stop(Why::OwnStore);
        vec![Told::Over(end)]
    }

    fn carry(&mut self, effects: Vec<Effect<Regional>>) -> Vec<Told> {
        let mut told = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send { to, request } if to == self.term().own => self.give_own(request),
                Effect::Send { to, request } => self.hosts.0.means.peers.send(&to, self.show, request),
                Effect::Chosen { last } => told.push(Told::Chosen(last)),
                Effect::Committed { upto } => told.push(Told::Committed(upto)),
                Effect::Settled { epoch } => self.tell_settled(epoch),
                Effect::Stopped(why) => told.push(Told::Over(End::Stopped(why))),
            }
        }
        told
    }

    fn give_own(&mut self, request: Request) {
        match request {
            Request::Extend(append) => self.extend(append),
            // What is on its way there answers by itself.
            Request::Append(_) if !self.writes.is_empty() => {}
            request => self.ask_own(request),
        }
    }

    fn extend(&mut self, append: crate::replicas::Append) {
        let (prev, committed, sent) = (append.prev, append.committed, append.sent);
        // A leader extends its own store by one entry at a time.
        for entry in append.entries {
            let seq = entry.seq;
            let append = Append::of(&prev, entry, committed);
            let outcome = Box::pin(self.hosts.0.means.writer.append(append));
            self.writes.push_back(Write { seq, sent, outcome });
        }
    }

    fn ask_own(&mut self, request: Request) {
        if self.asked_own >= OWN_ASKED {
            return;
        }
        self.asked_own += 1;
        let (store, show) = (self.hosts.0.means.store.clone(), self.show);
        let (inbox, own) = (self.route.inbox(), self.term().own.clone());
        tokio::spawn(async move {
            let heard = match store.ask(show, request).await {
                Some(told) => Heard::Answer { from: own, reply: Box::new(told.reply) },
                None => {
                    sleep(OWN_PAUSE).await;
                    Heard::OwnSilent("the own store's outcome is not known".into())
                }
            };
            // Nobody listens once the try is over.
            let _ = inbox.send(heard).await;
        });
    }

    fn own_reply(&self, answer: Answer) -> Reply {
        let term = self.term();
        let incarnation = term.incarnations.get(&term.own).copied().unwrap_or_default();
        Reply { incarnation, ballot: term.ballot, answer }
    }

    /// The leader says it again until the registry's news tell that it was heard.
    fn tell_settled(&self, epoch: u64) {
        let (registry, show) = (self.hosts.0.means.registry.clone(), self.show);
        tokio::spawn(async move {
            if let Err(error) = registry.settled(show, epoch).await {
                tracing::debug!(%show, %error, "that a change is settled was not told");
            }
        });
    }

    fn count_lag(&mut self, region: &RegionName) {
        let lag = self.leader.lags().into_iter().find(|(of, _)| *of == region).map(|(_, lag)| lag);
        if let Some(lag) = lag {
            self.route.lags(region, lag);
        }
    }
}

/// The result of the first write.
async fn first(writes: &mut VecDeque<Write>) -> Appended {
    match writes.front_mut() {
        Some(write) => write.outcome.as_mut().await,
        None => pending().await,
    }
}

async fn until(tick: Option<u64>) {
    match tick {
        Some(at) => sleep_until(Instant::now() + Duration::from_millis(at.saturating_sub(boot_ms()))).await,
        None => pending().await,
    }
}
