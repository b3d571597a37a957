//! The leader's housekeeping: notes the processes' beats, and carries out what the rules of [`crate::liveness`]
//! and [`crate::moves`] find due.
//!
//! Invariant: only the registry's leader acts, and at its own election it forgets what it heard before.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::{BootTime, RegionName};
use futures::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::Moves;
use crate::liveness::{Beat, Before, Liveness, OWN_PAUSE_MAX, Patience};
use crate::metrics::Metrics;
use crate::moves::{Allowance, Due, Search};
use crate::node::Node;
use crate::state::{Answer, Command, RegionRecord};

const TICK: Duration = Duration::from_millis(100);
/// After a look at all shows that found nothing to move.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How far a region's store is, as it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub system: u64,
    pub timeline: u32,
    pub flushed: u64,
}

/// What was heard of processes.
pub struct Ears {
    liveness: Mutex<Liveness>,
    /// Of each region's store, with the incarnation it is of.
    highest: Mutex<BTreeMap<RegionName, (u64, Mark)>>,
}

impl Ears {
    pub fn new(patience: Patience) -> Self {
        Self { liveness: Mutex::new(Liveness::new(patience)), highest: Mutex::default() }
    }

    pub fn heard(&self, session: u64, region: &RegionName, beat: Beat) {
        self.liveness().heard(session, region, beat, BootTime::now());
    }

    /// Whether the region is well, and for how long without a break, its journals caught up.
    pub fn of(&self, region: &RegionName) -> (bool, Option<Duration>) {
        let (liveness, now) = (self.liveness(), BootTime::now());
        (liveness.is_well(region, now), liveness.well_for(region, now))
    }

    /// The highest mark heard of the region's store, this one included. Beats of several processes overtake
    /// each other, so that a lower one proves nothing here; but what a process reads *after* it was told
    /// this one must not be lower.
    pub fn highest(&self, region: &RegionRecord, mark: Option<Mark>) -> Option<Mark> {
        let mut highest = self.highest.lock().expect("no code panics while holding it");
        let held = highest.get(&region.name).filter(|(incarnation, _)| *incarnation == region.incarnation);
        let held = held.map(|(_, mark)| *mark);
        let next = match (held, mark) {
            (Some(held), Some(mark)) if held.system == mark.system => {
                if (mark.timeline, mark.flushed) > (held.timeline, held.flushed) { mark } else { held }
            }
            // Another system is what the process itself must notice.
            (Some(held), _) => held,
            (None, mark) => mark?,
        };
        highest.insert(region.name.clone(), (region.incarnation, next));
        Some(next)
    }

    fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.liveness.lock().expect("no code panics while holding it")
    }
}

/// Tokens that come in at a rate, by the time that has passed: a tick that waited for commits is a long one.
#[derive(Default)]
struct Bucket {
    tokens: f64,
    filled_at: Option<BootTime>,
}

impl Bucket {
    fn fill(&mut self, per_sec: u32, now: BootTime) -> usize {
        let per_sec = f64::from(per_sec);
        let passed = self.filled_at.replace(now).map_or(TICK, |at| now.since(at));
        self.tokens = (self.tokens + per_sec * passed.as_secs_f64()).min(per_sec.max(1.0));
        self.tokens as usize
    }

    fn take(&mut self, count: usize) {
        self.tokens -= count as f64;
    }
}

/// Runs until dropped.
pub async fn run(node: Arc<Node>, moves: Moves, metrics: Metrics) -> std::convert::Infallible {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut reign, mut before, mut looked_at) = (None, None, BootTime::now());
    let mut mover = Mover::new(moves);
    loop {
        tick.tick().await;
        if looked_at.elapsed() > OWN_PAUSE_MAX {
            // Asleep, it heard nobody.
            before = None;
        }
        looked_at = BootTime::now();
        let term = node.metrics().current_term;
        let now = (node.leader() == Some(node.id())).then_some(term);
        if now != reign {
            reign = now;
            node.ears().liveness().restart(before.take());
        }
        if reign.is_none() {
            // Kept while nobody leads: it is where the silence began.
            before = heard_leader(&node).or(before);
            continue;
        }
        let due = {
            let applied = node.registry().read();
            node.ears().liveness().due(&applied.registry, BootTime::now())
        };
        join_all(due.into_iter().map(|command| carry_out(&node, &metrics, command, "lost"))).await;
        mover.go_on(&node, &metrics).await;
    }
}

fn heard_leader(node: &Node) -> Option<Before> {
    let region = node.peer(node.leader()?)?.region.clone();
    Some(Before { region, last_heard: node.contact().heard_at()? })
}

async fn carry_out(node: &Node, metrics: &Metrics, command: Command, reason: &str) {
    let told = command.clone();
    match node.propose(command).await {
        Ok(Answer::Refused { reason, .. }) => tracing::info!(command = ?told, reason, "not needed any more"),
        Ok(Answer::Region { region, shows }) => {
            tracing::warn!(region = %region.name, state = %region.state, shows, "a region's state has changed");
            metrics.owner_changes.with_label_values(&[reason]).inc_by(shows);
        }
        Ok(Answer::Session { no }) => {
            tracing::warn!(session = no, "a process was not heard; its session ended")
        }
        Ok(Answer::Show(show)) => {
            tracing::info!(show = %show.id, owner = %show.owner, epoch = show.epoch, reason, "moved");
            metrics.owner_changes.with_label_values(&[reason]).inc();
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(command = ?told, %error, "not carried out yet"),
    }
}

struct Mover {
    moves: Moves,
    search: Search,
    drain: Bucket,
    home: Bucket,
    /// Until then a whole look has found nothing.
    rest_until: BootTime,
    found: bool,
}

impl Mover {
    fn new(moves: Moves) -> Self {
        let (drain, home) = (Bucket::default(), Bucket::default());
        let rest_until = BootTime::default();
        Self { moves, search: Search::default(), drain, home, rest_until, found: false }
    }

    async fn go_on(&mut self, node: &Node, metrics: &Metrics) {
        let now = BootTime::now();
        let allowance = Allowance {
            drain: self.drain.fill(self.moves.drain_per_sec, now),
            home: self.home.fill(self.moves.home_per_sec, now),
        };
        if now < self.rest_until {
            return;
        }
        let Due { away, home, ended } = {
            let applied = node.registry().read();
            let liveness = node.ears().liveness();
            let settled = Duration::from_millis(self.moves.home_after_ms);
            let is_well = |region: &RegionName| liveness.is_well(region, now);
            let is_settled =
                |region: &RegionName| liveness.well_for(region, now).is_some_and(|well| well >= settled);
            self.search.due(&applied.registry, allowance, is_well, is_settled)
        };
        self.drain.take(away.len());
        self.home.take(home.len());
        self.found |= !(away.is_empty() && home.is_empty());
        if ended && !std::mem::take(&mut self.found) {
            self.rest_until = now + LOOK_AGAIN;
        }
        let away = away.into_iter().map(|command| carry_out(node, metrics, command, "drained"));
        let home = home.into_iter().map(|command| carry_out(node, metrics, command, "home"));
        futures::future::join(join_all(away), join_all(home)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_mark_is_kept_until_the_store_is_another() {
        let ears = Ears::new(crate::config::Config::default().patience());
        let mut region = RegionRecord::up("eu".parse().unwrap());
        let mark = |timeline, flushed| Some(Mark { system: 7, timeline, flushed });
        assert_eq!(ears.highest(&region, None), None);
        assert_eq!(ears.highest(&region, mark(1, 100)), mark(1, 100));
        assert_eq!(ears.highest(&region, mark(1, 90)), mark(1, 100));
        assert_eq!(ears.highest(&region, None), mark(1, 100));
        assert_eq!(ears.highest(&region, mark(2, 50)), mark(2, 50), "a later timeline");
        region.incarnation += 1;
        assert_eq!(ears.highest(&region, mark(1, 10)), mark(1, 10), "what was lost no longer counts");
    }

    #[test]
    fn a_bucket_gives_what_its_rate_allows() {
        // Each after so long, in milliseconds: by the tick, late ones, and unevenly.
        for pauses in [&[100][..], &[180], &[100, 900, 30]] {
            let (mut bucket, mut now, mut taken) = (Bucket::default(), BootTime::default(), 0);
            let start = now;
            for pause in pauses.iter().cycle() {
                let given = bucket.fill(7, now);
                bucket.take(given);
                taken += given;
                if now.since(start) >= Duration::from_secs(10) {
                    break;
                }
                now = now + Duration::from_millis(*pause);
            }
            assert!((69..=72).contains(&taken), "{taken} with {pauses:?}");
        }
        assert_eq!(Bucket::default().fill(0, BootTime::default()), 0);
        let mut idle = Bucket::default();
        idle.fill(7, BootTime::default());
        assert_eq!(
            idle.fill(7, BootTime::default() + Duration::from_secs(60)),
            7,
            "a second's worth is kept"
        );
    }
}
