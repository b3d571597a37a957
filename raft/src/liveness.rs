//! Who has been heard of lately, and what follows when somebody has not. Pure: time comes in, commands come
//! out; the registry's leader alone asks, and alone acts.
//!
//! Clocks decide only *when* a show changes its owner. A wrong decision here costs a pause, and no ticket: a
//! region that is taken for lost while it lives finds its ballots refused. So the rules aim at few changes:
//! - Nobody is given up while nobody at all is heard: then it is this voter that is cut off, or the whole
//!   platform that was restarted, and its regions come back one after the other.
//! - Whoever has not been asked in time himself (a suspended machine, SIGSTOP) judges nobody by that time.

use std::collections::BTreeMap;
use std::time::Duration;

use common::{BootTime, RegionName};

use crate::state::{Command, RegionRecord, RegionState, Registry};

#[derive(Clone, Debug)]
pub struct Patience {
    /// With a process, where its region has others that are heard.
    pub session: Duration,
    /// With a region none of whose processes says that its store takes writes.
    pub region: Duration,
    /// With the region of the leader before, once the first is heard after an election: its voter has been
    /// silent since before that, and its processes, if they live, are on their way to the new leader.
    pub suspect: Duration,
    /// With the other regions, once the first is heard after none was.
    pub boot: Duration,
    /// A region that was down is well again when it was so without a break.
    pub steady: Duration,
}

/// What a process tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Its store has taken a write since the beat before.
    pub healthy: bool,
    /// Its region's journals lack nothing that is known to be committed.
    pub caught_up: bool,
}

/// Who led before this voter.
#[derive(Clone, Debug)]
pub struct Before {
    pub region: RegionName,
    /// By this voter.
    pub last_heard: BootTime,
}

#[derive(Clone, Copy, Debug)]
struct Health {
    /// When it was last heard, or when waiting for it began.
    at: BootTime,
    heard: bool,
    /// Since when it has been well without a break, its journals caught up.
    well_since: Option<BootTime>,
}

/// Between two questions; beyond, this voter itself has slept.
pub const OWN_PAUSE_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Liveness {
    patience: Patience,
    sessions: BTreeMap<u64, BootTime>,
    regions: BTreeMap<RegionName, Health>,
    asked_at: Option<BootTime>,
    silence: Silence,
    /// Where the leader before was, until one of its processes is heard.
    suspect: Option<Before>,
}

/// Of all regions together.
#[derive(Clone, Copy, Debug, Default)]
struct Silence {
    /// No region was heard in time when last asked.
    lasts: bool,
    /// The newest session when it began; none before the first question.
    newest_before: Option<u64>,
    /// A process that lived before it has been heard since: it was this voter that did not hear, and the
    /// others' next beats are on their way. Else the platform is starting.
    survived: bool,
}

impl Liveness {
    pub fn new(patience: Patience) -> Self {
        let (sessions, regions) = (BTreeMap::new(), BTreeMap::new());
        let silence = Silence { lasts: true, ..Silence::default() };
        Self { patience, sessions, regions, asked_at: None, silence, suspect: None }
    }

    /// At the own election: whoever was heard was heard by the leader before. What is due is asked right after.
    pub fn restart(&mut self, before: Option<Before>) {
        *self = Self { suspect: before, ..Self::new(self.patience.clone()) };
    }

    pub fn heard(&mut self, session: u64, region: &RegionName, beat: Beat, now: BootTime) {
        self.sessions.insert(session, now);
        if !beat.healthy {
            return;
        }
        self.suspect.take_if(|suspect| suspect.region == *region);
        self.silence.survived |= self.silence.newest_before.is_some_and(|newest| session <= newest);
        let held = self.regions.get(region).filter(|_| self.is_well(region, now));
        let well_since = held.and_then(|held| held.well_since).unwrap_or(now);
        let health = Health { at: now, heard: true, well_since: beat.caught_up.then_some(well_since) };
        self.regions.insert(region.clone(), health);
    }

    /// Whether one of the region's processes has lately said that its store takes writes.
    pub fn is_well(&self, region: &RegionName, now: BootTime) -> bool {
        self.regions
            .get(region)
            .is_some_and(|health| health.heard && now.since(health.at) <= self.patience.region)
    }

    /// For how long it has been so without a break, its journals caught up.
    pub fn well_for(&self, region: &RegionName, now: BootTime) -> Option<Duration> {
        let health = self.regions.get(region).filter(|_| self.is_well(region, now))?;
        health.well_since.map(|since| now.since(since))
    }

    /// What is to be done now. To be asked again and again, a few times a second.
    pub fn due(&mut self, registry: &Registry, now: BootTime) -> Vec<Command> {
        let slept = self.asked_at.is_some_and(|at| now.since(at) > OWN_PAUSE_MAX);
        if slept {
            self.restart(None);
        }
        self.asked_at = Some(now);
        self.sessions.retain(|no, _| registry.session(*no).is_some());
        for session in registry.sessions() {
            self.sessions.entry(session.no).or_insert(now);
        }
        for region in registry.regions() {
            let waiting = Health { at: now, heard: false, well_since: None };
            self.regions.entry(region.name.clone()).or_insert(waiting);
        }
        self.listen(registry, now);
        if self.silence.lasts {
            return Vec::new();
        }
        let mut commands = self.silent_sessions(registry, now);
        commands.extend(self.changed_regions(registry, now));
        commands
    }

    fn silent_sessions(&self, registry: &Registry, now: BootTime) -> Vec<Command> {
        let silence = |no: u64| self.sessions.get(&no).map_or(Duration::ZERO, |at| now.since(*at));
        let is_gone = |no: u64, region: &RegionName| {
            let mut others = registry.sessions().filter(|other| other.no != no && other.region == *region);
            let heard = others.any(|other| silence(other.no) < self.patience.session);
            silence(no) > if heard { self.patience.session } else { self.patience.region }
        };
        let gone = registry.sessions().filter(|session| is_gone(session.no, &session.region));
        gone.map(|session| Command::CloseSession { no: session.no }).collect()
    }

    fn changed_regions(&self, registry: &Registry, now: BootTime) -> Vec<Command> {
        let well = |region: &RegionName| self.is_well(region, now);
        let change = |region: &RegionRecord| {
            let name = region.name.clone();
            if region.state == RegionState::Down {
                let steady = self.well_for(&name, now).is_some_and(|well| well >= self.patience.steady);
                return steady.then_some(Command::RegionUp { region: name });
            }
            // Without an heir that lives the shows are best left where they are.
            let mut heirs = registry.regions().filter(|r| r.name != name && r.state == RegionState::Up);
            let lost = self.is_lost(&name, now) && heirs.any(|heir| well(&heir.name));
            lost.then_some(Command::RegionDown { region: name })
        };
        registry.regions().filter_map(change).collect()
    }

    /// Notes when all fall silent, and when the first is heard again: then waiting for the others begins.
    fn listen(&mut self, registry: &Registry, now: BootTime) {
        let silent = !self.regions.keys().any(|region| self.is_well(region, now));
        if silent && (!self.silence.lasts || self.silence.newest_before.is_none()) {
            let newest = registry.sessions().map(|session| session.no).max().unwrap_or(0);
            self.silence = Silence { lasts: true, newest_before: Some(newest), survived: false };
        }
        if !silent && self.silence.lasts {
            self.silence.lasts = false;
            let waiting: Vec<RegionName> =
                self.regions.keys().filter(|region| !self.is_well(region, now)).cloned().collect();
            for region in waiting {
                self.regions.insert(region, Health { at: now, heard: false, well_since: None });
            }
            for at in self.sessions.values_mut() {
                *at = now;
            }
        }
    }

    fn is_lost(&self, region: &RegionName, now: BootTime) -> bool {
        let Some(health) = self.regions.get(region) else { return false };
        let waited = now.since(health.at);
        if !health.heard && !self.silence.survived {
            return waited > self.patience.boot;
        }
        let suspect = self.suspect.as_ref().filter(|suspect| suspect.region == *region);
        let silent = suspect.map_or(waited, |suspect| now.since(suspect.last_heard));
        waited > self.patience.region || (silent > self.patience.region && waited > self.patience.suspect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::OpenSession;

    fn region(name: &str) -> RegionName {
        name.parse().unwrap()
    }

    fn ms(ms: u64) -> BootTime {
        BootTime::default() + Duration::from_millis(ms)
    }

    const WELL: Beat = Beat { healthy: true, caught_up: true };
    const ILL: Beat = Beat { healthy: false, caught_up: true };

    /// A registry, the leader's ears, and a clock; every command that is due is carried out at once.
    struct World {
        registry: Registry,
        liveness: Liveness,
        now: u64,
        done: Vec<Command>,
    }

    impl World {
        fn new() -> Self {
            let patience = Patience {
                session: Duration::from_millis(1500),
                region: Duration::from_secs(3),
                suspect: Duration::from_secs(1),
                boot: Duration::from_secs(15),
                steady: Duration::from_secs(3),
            };
            let liveness = Liveness::new(patience);
            Self { registry: Registry::default(), liveness, now: 1_000_000, done: Vec::new() }
        }

        fn apply(&mut self, command: &Command) -> crate::state::Answer {
            self.registry.apply(self.now, command, &mut Vec::new())
        }

        fn open(&mut self, name: &str, url: &str) -> u64 {
            let open = OpenSession {
                region: region(name),
                http_url: url.into(),
                grpc_url: String::new(),
                ticket_keys: vec![],
                attempt: self.now.to_string(),
            };
            match self.apply(&Command::OpenSession(open)) {
                crate::state::Answer::Session { no } => no,
                other => panic!("{other:?}"),
            }
        }

        /// Time passes while these processes beat; what was done meanwhile.
        fn pass(&mut self, for_ms: u64, beating: &[(u64, &str, Beat)]) -> Vec<Command> {
            self.done.clear();
            for step in 0..for_ms / 100 {
                self.now += 100;
                if step % 5 == 0 {
                    for (no, name, beat) in beating {
                        self.liveness.heard(*no, &region(name), *beat, ms(self.now));
                    }
                }
                self.ask();
            }
            self.done.clone()
        }

        fn ask(&mut self) {
            let due = self.liveness.due(&self.registry, ms(self.now));
            for command in due {
                self.apply(&command);
                self.done.push(command);
            }
        }

        fn state(&self, name: &str) -> RegionState {
            self.registry.region(&region(name)).unwrap().state
        }
    }

    /// Three regions with one process each.
    fn three() -> (World, [u64; 3]) {
        let mut world = World::new();
        let sessions = ["ap", "eu", "us"].map(|name| {
            world.now += 1;
            world.open(name, &format!("http://{name}"))
        });
        let all = all(sessions, WELL);
        assert_eq!(world.pass(5_000, &all), []);
        (world, sessions)
    }

    fn all(sessions: [u64; 3], beat: Beat) -> Vec<(u64, &'static str, Beat)> {
        sessions.into_iter().zip(["ap", "eu", "us"]).map(|(no, name)| (no, name, beat)).collect()
    }

    #[test]
    fn a_region_that_is_not_heard_is_lost_in_time_and_comes_back_when_it_is_well_for_long() {
        let (mut world, sessions) = three();
        let alive = all(sessions, WELL);
        assert_eq!(world.pass(2_000, &alive[1..]), []);
        let done = world.pass(1_500, &alive[1..]);
        assert!(done.contains(&Command::RegionDown { region: region("ap") }), "{done:?}");
        assert!(done.contains(&Command::CloseSession { no: sessions[0] }));
        assert_eq!(done.len(), 2, "and once: {done:?}");

        let back = world.open("ap", "http://ap");
        let mut now_alive = alive[1..].to_vec();
        now_alive.push((back, "ap", Beat { healthy: true, caught_up: false }));
        assert_eq!(world.pass(10_000, &now_alive), [], "its journals lack something");
        now_alive[2].2 = WELL;
        assert_eq!(world.pass(2_000, &now_alive), []);
        now_alive[2].2 = ILL;
        world.pass(4_000, &now_alive);
        now_alive[2].2 = WELL;
        assert_eq!(world.pass(2_500, &now_alive), [], "counted anew after a break");
        assert_eq!(world.pass(1_500, &now_alive), [Command::RegionUp { region: region("ap") }]);
    }

    #[test]
    fn a_process_that_cannot_write_does_not_speak_for_its_region_but_lives() {
        let (mut world, sessions) = three();
        let mut alive = all(sessions, WELL);
        alive[1].2 = ILL;
        let done = world.pass(4_000, &alive);
        assert_eq!(done, [Command::RegionDown { region: region("eu") }], "no session ends");

        let (mut world, sessions) = three();
        let second = world.open("eu", "http://eu-2");
        let mut alive = all(sessions, WELL);
        alive.push((second, "eu", ILL));
        assert_eq!(world.pass(10_000, &alive), [], "one of its processes can");
    }

    #[test]
    fn a_dead_process_ends_sooner_where_its_region_has_others() {
        let (mut world, sessions) = three();
        let second = world.open("eu", "http://eu-2");
        let mut alive = all(sessions, WELL);
        alive.push((second, "eu", WELL));
        world.pass(1_000, &alive);
        alive.remove(1);
        assert_eq!(world.pass(1_700, &alive), [Command::CloseSession { no: sessions[1] }]);
        assert_eq!(world.pass(10_000, &alive), []);
    }

    #[test]
    fn an_election_restarts_all_timers() {
        let (mut world, sessions) = three();
        let alive = all(sessions, WELL);
        world.pass(2_300, &alive[1..]);
        world.liveness.restart(None);
        world.ask();
        assert_eq!(world.pass(2_900, &alive[1..]), []);
        let done = world.pass(700, &alive[1..]);
        assert!(done.contains(&Command::RegionDown { region: region("ap") }), "{done:?}");
    }

    /// Elected after this voter had not heard the leader before, in `ap`, for so long.
    fn elected_after(silence_ms: u64) -> (World, [u64; 3]) {
        let (mut world, sessions) = three();
        let last_heard = ms(world.now - silence_ms);
        world.liveness.restart(Some(Before { region: region("ap"), last_heard }));
        world.ask();
        (world, sessions)
    }

    #[test]
    fn the_silence_of_the_region_of_the_leader_before_began_before_the_election() {
        let (mut world, sessions) = elected_after(1_500);
        let alive = all(sessions, WELL);
        assert_eq!(world.pass(1_500, &alive[1..]), []);
        assert_eq!(world.pass(200, &alive[1..]), [Command::RegionDown { region: region("ap") }]);

        // However long it was, its processes need time to find the new leader.
        let (mut world, sessions) = elected_after(2_900);
        let alive = all(sessions, WELL);
        assert_eq!(world.pass(1_000, &alive[1..]), []);
        assert_eq!(world.pass(300, &alive[1..]), [Command::RegionDown { region: region("ap") }]);

        let (mut world, sessions) = elected_after(1_500);
        let alive = all(sessions, WELL);
        // Only its voter was lost.
        world.pass(1_000, &alive);
        assert_eq!(world.pass(2_500, &alive[1..]), []);
    }

    #[test]
    fn who_hears_nobody_gives_up_nobody() {
        let (mut world, sessions) = three();
        assert_eq!(world.pass(60_000, &[]), []);
        // They open new sessions one after the other, and get the time that starting takes.
        let eu = world.open("eu", "http://eu");
        let done = world.pass(10_000, &[(eu, "eu", WELL)]);
        assert!(done.iter().all(|c| matches!(c, Command::CloseSession { .. })), "{done:?}");
        let us = world.open("us", "http://us");
        assert_eq!(world.pass(4_000, &[(eu, "eu", WELL), (us, "us", WELL)]), []);
        let done = world.pass(2_000, &[(eu, "eu", WELL), (us, "us", WELL)]);
        assert_eq!(done, [Command::RegionDown { region: region("ap") }]);
        assert_eq!(world.state("us"), RegionState::Up);
        assert!(world.registry.session(sessions[0]).is_none());
    }

    #[test]
    fn who_was_cut_off_from_all_waits_as_long_as_for_a_region() {
        let (mut world, sessions) = three();
        assert_eq!(world.pass(30_000, &[]), []);
        // Those who lived before live: nothing was restarted.
        let alive = all(sessions, WELL);
        let eu_us = &alive[1..];
        assert_eq!(world.state("ap"), RegionState::Up);
        world.pass(2_500, eu_us);
        assert_eq!(world.state("ap"), RegionState::Up);
        world.pass(1_500, eu_us);
        assert_eq!(world.state("ap"), RegionState::Down);
    }

    #[test]
    fn who_slept_himself_judges_nobody() {
        let (mut world, sessions) = three();
        world.done.clear();
        world.now += 30_000;
        world.ask();
        assert_eq!(world.done, []);
        assert_eq!(world.pass(2_000, &all(sessions, WELL)), []);
    }

    #[test]
    fn the_last_regions_are_left_where_they_are() {
        let (mut world, sessions) = three();
        let alive = all(sessions, WELL);
        world.pass(8_000, &alive[..1]);
        assert_eq!(
            ["ap", "eu", "us"].map(|name| world.state(name)),
            [RegionState::Up, RegionState::Down, RegionState::Down]
        );
        world.pass(8_000, &[]);
        assert_eq!(world.state("ap"), RegionState::Up);
    }
}
