//! What is explored: each configuration bounds the space for one emphasis, and begins where its question
//! does. A start is reached by the same steps as everything else ([`Start`]).

use std::collections::BTreeSet;

use regional::replication::Rule;

use crate::kind::Broken;
use crate::registry::Record;
use crate::world::{Action, Message, World};

/// How far a space reaches. Within it every order of events is explored.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub name: &'static str,
    pub rules: Broken,
    pub regions: u8,
    /// Of which the show has replicas at first.
    pub replicas: BTreeSet<u8>,
    pub start: Start,
    /// The registry raises the epoch up to here.
    pub epochs: u64,
    /// To whom the show may move; also how a lost region's shows move.
    pub owners: BTreeSet<u8>,
    /// The replica sets that it may be changed to.
    pub sets: Vec<BTreeSet<u8>>,
    /// Tries to lead, of all processes together, after the start.
    pub tries: u8,
    /// Of these, by one region.
    pub each: u8,
    pub restarts: u8,
    /// Stores that go back in time, and which; to their beginning, or to a backup taken at any moment.
    pub losses: u8,
    pub losing: BTreeSet<u8>,
    pub backups: bool,
    /// Whether the registry raises the epoch when it records a loss.
    pub fenced: bool,
    /// Keys with the seats that they want.
    pub commands: Vec<(u8, u8)>,
    /// Whether leaders repeat what was not answered, at any time.
    pub nudges: bool,
    /// Whether the leader of [`Start::TwoTails`] at epoch 2 does not know that it was replaced.
    pub runs_on: bool,
    /// Whether Fetch answers one entry at a time.
    pub small_pages: bool,
    /// In which regions a leader's own store answers as late as the others, out of order, or never.
    pub own_late: BTreeSet<u8>,
}

/// How a configuration begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Empty stores; nobody leads.
    Empty,
    /// Region 0 leads at epoch 1, and its first entry is committed everywhere.
    Led,
    /// As `Led`; then entries that stand in one store each: region 0 gave keys 1 and 2 to its own store,
    /// region 2 led at epoch 2 and gave its first entry and key 3 to its own. The show is region 0's again,
    /// at epoch 3.
    TwoTails,
    /// As `TwoTails` without key 2, with key 4 before the logs part, in every store, and known to be committed to nobody
    /// but region 0.
    LateTails,
}

fn set(regions: &[u8]) -> BTreeSet<u8> {
    regions.iter().copied().collect()
}

impl Bounds {
    fn new(name: &'static str, start: Start) -> Self {
        Self {
            name,
            rules: Broken::NOTHING,
            regions: 3,
            replicas: set(&[0, 1, 2]),
            start,
            epochs: 1,
            owners: set(&[0, 1, 2]),
            sets: Vec::new(),
            tries: 1,
            each: 2,
            restarts: 0,
            losses: 0,
            losing: BTreeSet::new(),
            backups: false,
            fenced: true,
            commands: Vec::new(),
            nudges: false,
            runs_on: false,
            small_pages: false,
            own_late: BTreeSet::new(),
        }
    }

    #[must_use]
    pub fn breaking(mut self, rule: Rule) -> Self {
        self.rules = Broken(Some(rule));
        self
    }

    pub(crate) fn record(&self) -> Record {
        Record {
            epoch: 1,
            owner: 0,
            replicas: self.replicas.clone(),
            prior: BTreeSet::new(),
            incarnations: vec![0; usize::from(self.regions)],
        }
    }

    pub(crate) fn may_lose(&self, world: &World) -> bool {
        world.losses < self.losses
    }

    pub(crate) fn begin(&self) -> World {
        let mut world = World::new(self);
        match self.start {
            Start::Empty => {}
            Start::Led => self.lead_everywhere(&mut world),
            Start::TwoTails | Start::LateTails => {
                self.lead_everywhere(&mut world);
                if self.start == Start::LateTails {
                    world.step(self, Action::Propose { region: 0, key: 4, seat: 4 });
                    self.deliver_until(&mut world, |_| false, &[0, 1, 2]);
                }
                let keys: &[u8] = if self.start == Start::LateTails { &[1] } else { &[1, 2] };
                for key in keys.iter().copied() {
                    world.step(self, Action::Propose { region: 0, key, seat: key });
                }
                world.network.clear();
                world.step(self, Action::Move(2));
                self.hear_all(&mut world);
                world.step(self, Action::Try(2));

                self.deliver_until(&mut world, |world| world.leads(2), &[1, 2]);
                world.step(self, Action::Propose { region: 2, key: 3, seat: 1 });
                world.step(self, Action::Move(0));
                world.step(self, Action::Hear(0));
                world.step(self, Action::Hear(1));
                if !self.runs_on {
                    world.network.clear();
                    world.step(self, Action::Restart(2));
                    world.restarts = 0;
                }
            }
        }
        world.tries.fill(0);
        world
    }

    fn hear_all(&self, world: &mut World) {
        for region in 0..self.regions {
            world.step(self, Action::Hear(region));
        }
    }

    /// Region 0 leads, and everybody holds its first entry and knows it to be committed.
    fn lead_everywhere(&self, world: &mut World) {
        let all: Vec<u8> = (0..self.regions).collect();
        world.step(self, Action::Try(0));
        self.deliver_until(world, |_| false, &all);
        for to in &self.replicas {
            world.step(self, Action::Nudge { region: 0, to: *to });
        }
        self.deliver_until(world, |_| false, &all);
        world.network.clear();
    }

    /// Delivers what goes between `among`, until `done` or nothing changes.
    fn deliver_until(&self, world: &mut World, done: impl Fn(&World) -> bool, among: &[u8]) {
        loop {
            let before = world.clone();
            for message in before.network.clone() {
                let between = match &message {
                    Message::Ask { from, to, .. } | Message::Say { from, to, .. } => {
                        among.contains(from) && among.contains(to)
                    }
                    Message::Settled { .. } => true,
                };
                if done(world) {
                    return;
                }
                if between {
                    world.step(self, Action::Deliver(message));
                }
            }
            if *world == before {
                return;
            }
        }
    }
}

/// The configurations in which nothing may break. Those of the short form end within seconds.
pub fn all() -> Vec<(Bounds, bool)> {
    let mut of = Vec::new();
    let mut add = |short: bool, bounds: Bounds| of.push((bounds, short));
    add(true, failover());
    add(true, from_nothing());
    add(true, two_tails());
    add(true, led_again());
    add(true, tail_loss());
    add(true, small_change());
    add(false, pipelined());
    add(false, replica_change());
    add(false, moved_log());
    add(false, late_tails());
    add(false, early_settled());
    add(false, tail_loss_then_move());
    add(false, two_tails_running());
    add(false, own_late());
    add(false, own_late_loss());
    of
}

fn failover() -> Bounds {
    Bounds {
        epochs: 2,
        owners: set(&[1]),
        tries: 1,
        commands: vec![(1, 1), (2, 1)],
        ..Bounds::new("failover: two commands for one seat, the old leader runs on", Start::Led)
    }
}

fn pipelined() -> Bounds {
    Bounds {
        epochs: 2,
        owners: set(&[1]),
        tries: 1,
        commands: vec![(1, 1), (2, 2)],
        ..Bounds::new("pipeline: two entries under way when the owner changes", Start::Led)
    }
}

fn from_nothing() -> Bounds {
    Bounds {
        epochs: 2,
        owners: set(&[1]),
        tries: 2,
        commands: vec![(1, 1)],
        ..Bounds::new("from nothing: two first leaders", Start::Empty)
    }
}

fn two_tails() -> Bounds {
    Bounds {
        epochs: 4,
        owners: set(&[2]),
        tries: 2,
        each: 1,
        small_pages: true,
        ..Bounds::new("two tails: entries of three leaders, a fourth to come", Start::TwoTails)
    }
}

fn two_tails_running() -> Bounds {
    Bounds { name: "two tails: the leader before runs on", runs_on: true, ..two_tails() }
}

fn moved_log() -> Bounds {
    Bounds { name: "two tails: a third region takes over", owners: set(&[1]), ..two_tails() }
}

fn late_tails() -> Bounds {
    Bounds { name: "late tails: as before, behind a common entry", start: Start::LateTails, ..two_tails() }
}

fn led_again() -> Bounds {
    Bounds {
        tries: 2,
        restarts: 1,
        commands: vec![(1, 1)],
        ..Bounds::new("led again: one region tries again, and restarts", Start::Led)
    }
}

fn tail_loss() -> Bounds {
    Bounds {
        epochs: 2,
        owners: set(&[1]),
        tries: 1,
        losses: 1,
        losing: set(&[2]),
        commands: vec![(1, 1)],
        ..Bounds::new("tail loss: a follower loses all it held and promised", Start::Led)
    }
}

fn tail_loss_then_move() -> Bounds {
    Bounds { name: "tail loss, with a move before or after", epochs: 3, ..tail_loss() }
}

fn own_late() -> Bounds {
    Bounds {
        epochs: 2,
        owners: set(&[1]),
        tries: 1,
        commands: vec![(1, 1)],
        own_late: set(&[0]),
        ..Bounds::new("own outcome unknown: the leader's store answers late, or never", Start::Led)
    }
}

fn own_late_loss() -> Bounds {
    Bounds {
        epochs: 3,
        owners: set(&[1]),
        tries: 1,
        losses: 1,
        losing: set(&[2]),
        commands: vec![(1, 1)],
        own_late: set(&[0]),
        ..Bounds::new("tail loss while an own outcome is unknown", Start::Led)
    }
}

fn replica_change() -> Bounds {
    Bounds {
        regions: 4,
        epochs: 3,
        owners: set(&[3]),
        sets: vec![set(&[0, 2, 3])],
        tries: 1,
        commands: vec![(1, 1)],
        ..Bounds::new("replica-set change: the old leader runs on, the new owner is new", Start::Led)
    }
}

fn small_change() -> Bounds {
    Bounds {
        replicas: set(&[0, 1]),
        epochs: 3,
        owners: set(&[2]),
        sets: vec![set(&[0, 2])],
        tries: 1,
        commands: vec![(1, 1)],
        ..Bounds::new("replica-set change: one of two is replaced, and leads", Start::Led)
    }
}

fn early_settled() -> Bounds {
    Bounds {
        regions: 4,
        replicas: set(&[0, 1]),
        epochs: 4,
        owners: set(&[1, 2]),
        sets: vec![set(&[1, 2, 3])],
        tries: 2,
        ..Bounds::new("replica-set change, then a move: what is settled when", Start::Led)
    }
}

/// For each rule a space in which breaking it is noticed. Not among them: `FetchedHead`, which was
/// tried in one space only, where nothing broke, `IncarnationCounts`, not tried since the recovery was
/// corrected, and `ReportsPromise`, which needs a larger space; see `docs/protocol.md`.
pub fn mutants() -> Vec<(Rule, Bounds)> {
    let of = [
        (Rule::PromiseDurable, failover()),
        (Rule::AppendBelowPromise, failover()),
        (Rule::PrepareBelowPromise, from_nothing()),
        (Rule::PrevChecked, pipelined()),
        (Rule::MatchByBallotAndHash, two_tails_running()),
        (Rule::TruncateOnConflict, pipelined()),
        (Rule::UptoOfMessage, late_tails()),
        (Rule::ChooseByBallot, two_tails_running()),
        (Rule::LedEntry, two_tails()),
        (Rule::OwnBallotOnly, two_tails()),
        (Rule::QuorumCommits, failover()),
        (Rule::OwnResult, own_late()),
        (Rule::PriorMajority, replica_change()),
        (Rule::SettledAfterLed, early_settled()),
        (Rule::BallotOnce, led_again()),
        (Rule::RecoverFirst, tail_loss()),
        (Rule::RecoveryMajority, tail_loss()),
    ];
    of.map(|(rule, bounds)| (rule, bounds.breaking(rule))).into()
}
