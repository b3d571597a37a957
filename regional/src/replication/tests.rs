//! The core by hand: each rule at the place where it stands. That the rules together hold is the model's
//! matter (`regional/model`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::memory::Store;
use super::replica::Standing;
use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Small;

impl Kind for Small {
    type Region = char;
    type Payload = &'static str;
    type Digest = u64;
    type Rules = Strict;

    fn chain(before: &u64, seq: u64, ballot: Ballot, payload: &&'static str) -> u64 {
        let mut hash = DefaultHasher::new();
        (before, seq, ballot, payload).hash(&mut hash);
        hash.finish()
    }

    fn weight(payload: &&'static str) -> usize {
        payload.len()
    }
}

fn ballot(epoch: u64, session: u64, attempt: u64) -> Ballot {
    Ballot { epoch, session, attempt }
}

fn set(regions: &str) -> BTreeSet<char> {
    regions.chars().collect()
}

fn standing(epoch: u64) -> Standing {
    Standing { epoch, member: true, incarnation: 0, disowned: 0 }
}

fn log(entries: &[(u64, &'static str)]) -> Vec<Entry<Small>> {
    let mut last = Mark::<Small>::default();
    let mut chained = Vec::new();
    for (epoch, payload) in entries {
        let entry = last.next(ballot(*epoch, *epoch, 1), payload);
        last = entry.mark();
        chained.push(entry);
    }
    chained
}

fn store(entries: &[(u64, &'static str)]) -> Store<Small> {
    let entries = log(entries);
    let last = entries.last().map(Entry::mark).unwrap_or_default();
    let promised = last.ballot;
    Store { head: Head { promised, last, ..Head::empty(0) }, entries }
}

fn append(
    b: Ballot,
    all: &[(u64, &'static str)],
    from: usize,
    upto: usize,
    committed: u64,
) -> Request<Small> {
    let entries = log(all);
    let prev = from.checked_sub(1).map(|at| entries[at].mark()).unwrap_or_default();
    Request::Append(Append { ballot: b, prev, entries: entries[from..upto].to_vec(), committed, sent: 7 })
}

fn payloads(store: &Store<Small>) -> Vec<&'static str> {
    store.entries.iter().map(|entry| entry.payload).collect()
}

/// Stores that answer at once, unless their region is cut off.
struct Cluster {
    stores: BTreeMap<char, Store<Small>>,
    cut: BTreeSet<char>,
    /// Everything that is not a message, in order.
    seen: Vec<Effect<Small>>,
}

impl Cluster {
    fn new(stores: &[(char, &[(u64, &'static str)])]) -> Self {
        let stores = stores.iter().map(|(region, entries)| (*region, store(entries))).collect();
        Self { stores, cut: BTreeSet::new(), seen: Vec::new() }
    }

    fn carry_out(&mut self, leader: &mut Leader<Small>, effects: Vec<Effect<Small>>) {
        let mut queue: VecDeque<Effect<Small>> = effects.into();
        while let Some(effect) = queue.pop_front() {
            let Effect::Send { to, request } = effect else {
                self.seen.push(effect);
                continue;
            };
            if !self.cut.contains(&to) {
                let reply = self.stores.get_mut(&to).unwrap().handle(Strict, standing(9), request);
                queue.extend(leader.answered(&to, reply));
            }
        }
    }

    /// Leads as far as the first entry.
    fn lead(&mut self, limits: Limits, term: Term<Small>) -> Leader<Small> {
        let (mut leader, effects) = Leader::start(Strict, limits, term);
        self.carry_out(&mut leader, effects);
        if leader.is_chosen() {
            let effects = leader.begin("led", 1_000);
            self.carry_out(&mut leader, effects);
        }
        leader
    }

    fn propose(&mut self, leader: &mut Leader<Small>, payload: &'static str) -> u64 {
        let (seq, effects) = leader.propose(payload).unwrap();
        self.carry_out(leader, effects);
        seq
    }

    fn nudge(&mut self, leader: &mut Leader<Small>, region: char) {
        let effects = leader.nudge(&region);
        self.carry_out(leader, effects);
    }
}

fn term(b: Ballot, own: char, replicas: &str, prior: &str) -> Term<Small> {
    let incarnations = replicas.chars().chain(prior.chars()).map(|region| (region, 0)).collect();
    Term { ballot: b, own, replicas: set(replicas), prior: set(prior), incarnations }
}

#[test]
fn a_majority_commits_and_the_rest_catches_up() {
    let mut cluster = Cluster::new(&[('a', &[]), ('b', &[]), ('c', &[])]);
    cluster.cut = set("c");
    let mut leader = cluster.lead(Limits::default(), term(ballot(1, 1, 1), 'a', "abc", ""));
    assert_eq!(leader.committed(), 1);
    assert_eq!(cluster.propose(&mut leader, "x"), 2);
    assert_eq!(leader.committed(), 2);
    assert_eq!(payloads(&cluster.stores[&'b']), ["led", "x"]);
    assert!(cluster.stores[&'c'].entries.is_empty());

    cluster.cut = set("");
    cluster.nudge(&mut leader, 'c');
    assert_eq!(cluster.stores[&'c'].entries, cluster.stores[&'a'].entries);
    assert_eq!(cluster.stores[&'c'].head.committed, 2);
}

#[test]
fn a_quorum_of_one_is_the_same_code() {
    let mut cluster = Cluster::new(&[('a', &[])]);
    let mut leader = cluster.lead(Limits::default(), term(ballot(1, 1, 1), 'a', "a", ""));
    cluster.propose(&mut leader, "x");
    let committed: Vec<_> =
        cluster.seen.iter().filter(|e| matches!(e, Effect::Committed { .. })).cloned().collect();
    assert_eq!(committed, [Effect::Committed { upto: 1 }, Effect::Committed { upto: 2 }]);
}

#[test]
fn without_a_majority_nothing_is_committed() {
    let mut cluster = Cluster::new(&[('a', &[]), ('b', &[]), ('c', &[])]);
    let mut leader = cluster.lead(Limits::default(), term(ballot(1, 1, 1), 'a', "abc", ""));
    cluster.cut = set("bc");
    cluster.propose(&mut leader, "x");
    assert_eq!((leader.committed(), payloads(&cluster.stores[&'a'])), (1, vec!["led", "x"]));
    cluster.cut = set("b");
    cluster.nudge(&mut leader, 'c');
    assert_eq!(leader.committed(), 2);
}

#[test]
fn the_later_ballot_is_chosen_over_the_longer_log_and_fetched() {
    let longer: &[_] = &[(1, "led"), (1, "x"), (1, "y")];
    let later: &[_] = &[(1, "led"), (2, "z")];
    let mut cluster = Cluster::new(&[('a', longer), ('b', later), ('c', &[(1, "led")])]);
    let leader = cluster.lead(Limits::default(), term(ballot(3, 3, 1), 'a', "abc", ""));
    assert_eq!(leader.committed(), 3);
    assert_eq!(payloads(&cluster.stores[&'a']), ["led", "z", "led"]);
    for region in ['b', 'c'] {
        assert_eq!(cluster.stores[&region].entries, cluster.stores[&'a'].entries, "{region}");
    }
}

#[test]
fn a_follower_far_behind_is_fed_from_the_own_store() {
    let long: &[_] = &[(1, "led"), (1, "x"), (1, "y"), (1, "z")];
    let mut cluster = Cluster::new(&[('a', long), ('b', long), ('c', &[])]);
    let limits = Limits { message: 1, kept: 0, under_way: 2 };
    let mut leader = cluster.lead(limits, term(ballot(2, 2, 1), 'a', "abc", ""));
    for _ in 0..10 {
        cluster.propose(&mut leader, "more");
    }
    cluster.nudge(&mut leader, 'c');
    assert_eq!(cluster.stores[&'c'].entries, cluster.stores[&'a'].entries);
    assert_eq!(leader.committed(), 15);
}

#[test]
fn a_refusal_ends_the_try_wherever_it_stands() {
    let mut cluster = Cluster::new(&[('a', &[]), ('b', &[]), ('c', &[])]);
    let mut leader = cluster.lead(Limits::default(), term(ballot(1, 1, 1), 'a', "abc", ""));
    cluster.lead(Limits::default(), term(ballot(2, 2, 1), 'b', "abc", ""));
    let (_, effects) = leader.propose("late").unwrap();
    cluster.carry_out(&mut leader, effects);
    assert!(leader.is_stopped() && leader.propose("x").is_err());
    assert_eq!(payloads(&cluster.stores[&'c']), ["led", "led"]);
    let (again, effects) = Leader::start(Strict, Limits::default(), term(ballot(1, 1, 2), 'a', "abc", ""));
    let mut again = again;
    cluster.carry_out(&mut again, effects);
    assert!(again.is_stopped(), "a lower epoch is refused");
}

#[test]
fn an_own_outcome_unknown_is_said_again_and_counts_when_that_is_answered() {
    let mut cluster = Cluster::new(&[('a', &[]), ('b', &[]), ('c', &[])]);
    let mut leader = cluster.lead(Limits::default(), term(ballot(1, 1, 1), 'a', "abc", ""));
    cluster.cut = set("abc");
    let (seq, effects) = leader.propose("x").unwrap();
    let in_flight: Vec<_> =
        effects.into_iter().filter(|e| matches!(e, Effect::Send { to: 'a', .. })).collect();
    assert!(matches!(&in_flight[..], [Effect::Send { request: Request::Extend(_), .. }]));

    cluster.cut = set("c");
    cluster.nudge(&mut leader, 'b');
    assert_eq!(leader.committed(), seq - 1, "the own store has not answered");
    let effects = leader.own_unknown();
    cluster.carry_out(&mut leader, effects);
    assert_eq!(leader.committed(), seq);
    // The straggler of the first attempt meets another head, and changes nothing.
    let Effect::Send { request, .. } = in_flight[0].clone() else { unreachable!() };
    let before = cluster.stores[&'a'].clone();
    let reply = cluster.stores.get_mut(&'a').unwrap().handle(Strict, standing(9), request);
    assert!(matches!(reply.answer, Answer::Mismatch { .. }));
    assert_eq!(cluster.stores[&'a'], before);
}

#[test]
fn a_change_of_replicas_needs_both_majorities_and_is_settled_after_led() {
    let old: &[_] = &[(1, "led"), (1, "x")];
    let mut cluster = Cluster::new(&[('a', old), ('b', old), ('c', &[]), ('d', &[])]);
    cluster.cut = set("bc");
    let changed = term(ballot(2, 2, 1), 'd', "acd", "abc");
    let (mut leader, effects) = Leader::start(Strict, Limits::default(), changed);
    cluster.carry_out(&mut leader, effects);
    assert!(!leader.is_chosen(), "two of the new set, one of the old");

    cluster.cut = set("c");
    let effects = leader.nudge_all();
    cluster.carry_out(&mut leader, effects);
    assert!(leader.is_chosen());
    cluster.cut = set("ac");
    let effects = leader.begin("led", 0);
    cluster.carry_out(&mut leader, effects);
    assert!(!cluster.seen.contains(&Effect::Settled { epoch: 2 }), "not committed yet");
    cluster.cut = set("c");
    cluster.nudge(&mut leader, 'a');
    assert_eq!(cluster.seen.last(), Some(&Effect::Settled { epoch: 2 }));
    assert_eq!(payloads(&cluster.stores[&'d']), ["led", "x", "led"]);

    let repeats = |effects: Vec<Effect<Small>>| effects.contains(&Effect::Settled { epoch: 2 });
    assert!(repeats(leader.tick(0)), "until the registry has heard");
    leader.heard(2, false);
    assert!(!repeats(leader.tick(0)));
    assert_eq!(leader.heard(3, false), [Effect::Stopped(Why::Registry)]);
}

#[test]
fn a_late_append_cuts_nothing_and_a_stale_tail_does_not_count() {
    let all: &[_] = &[(1, "led"), (1, "x"), (1, "y")];
    let mut held = store(all);
    let before = held.clone();
    let reply = held.handle(Strict, standing(9), append(ballot(1, 1, 1), all, 0, 1, 0));
    assert_eq!(reply.answer, Answer::Appended { upto: 1, sent: 7 });
    assert_eq!(held, before);

    let other: &[_] = &[(1, "led"), (2, "led2")];
    let reply = held.handle(Strict, standing(9), append(ballot(2, 2, 1), other, 1, 2, 5));
    assert_eq!(reply.answer, Answer::Appended { upto: 2, sent: 7 });
    assert_eq!((payloads(&held), held.head.committed), (vec!["led", "led2"], 2));
    assert_eq!(held.head.last.ballot, ballot(2, 2, 1), "accepted follows the last entry");

    let reply = held.handle(Strict, standing(9), append(ballot(1, 1, 1), all, 1, 3, 0));
    assert_eq!(reply.answer, Answer::Refused { promised: ballot(2, 2, 1) });
    let reply = held.handle(Strict, standing(9), append(ballot(3, 3, 1), all, 2, 3, 0));
    assert!(matches!(reply.answer, Answer::Mismatch { committed: 2, .. }), "the same number, another entry");
}

#[test]
fn what_cannot_be_is_not_written() {
    let all: &[_] = &[(1, "led"), (1, "x")];
    let mut held = store(all);
    held.head.committed = 2;
    let before = held.clone();
    let other: &[_] = &[(1, "led"), (2, "y")];
    let reply = held.handle(Strict, standing(9), append(ballot(2, 2, 1), other, 1, 2, 0));
    assert_eq!(reply.answer, Answer::Unable(Unable::Contradiction));

    let Request::Append(mut broken) = append(ballot(2, 2, 1), other, 1, 2, 0) else { unreachable!() };
    broken.entries[0].digest += 1;
    let reply = held.handle(Strict, standing(9), Request::Append(broken));
    assert_eq!(reply.answer, Answer::Unable(Unable::Malformed));

    let stranger = Standing { epoch: 9, member: false, incarnation: 0, disowned: 0 };
    for ignorant in [standing(4), stranger] {
        let reply = held.handle(Strict, ignorant, Request::Prepare { ballot: ballot(5, 5, 1) });
        assert_eq!(reply.answer, Answer::Unable(Unable::NotReplica));
    }
    assert_eq!(held, before);
}

/// What one compare-and-set writes, the general rule writes too: so a shell may try it first.
#[test]
fn whatever_extend_writes_append_writes_too() {
    let logs: [&[(u64, &'static str)]; 4] =
        [&[], &[(1, "led")], &[(1, "led"), (1, "x")], &[(1, "led"), (2, "led2"), (2, "y")]];
    let mut written = 0;
    for held in logs {
        for sent in logs {
            for from in 0..=sent.len() {
                for epoch in 1..4 {
                    let Request::Append(append) = append(ballot(epoch, epoch, 1), sent, from, sent.len(), 1)
                    else {
                        unreachable!()
                    };
                    let (mut by_extend, mut by_append) = (store(held), store(held));
                    by_extend.handle(Strict, standing(9), Request::Extend(append.clone()));
                    by_append.handle(Strict, standing(9), Request::Append(append));
                    if by_extend != store(held) {
                        assert_eq!(by_extend, by_append);
                        written += 1;
                    }
                }
            }
        }
    }
    assert!(written > 2, "{written}");
}

#[test]
fn a_store_that_lost_its_tail_asks_both_others_before_it_votes() {
    let all: &[_] = &[(1, "led"), (1, "x"), (1, "y")];
    let mut cluster = Cluster::new(&[('a', all), ('b', &[(1, "led"), (1, "x")]), ('c', &[(1, "led")])]);
    let now = Standing { epoch: 2, member: true, incarnation: 4, disowned: 0 };
    let lost = cluster.stores.get_mut(&'c').unwrap();
    let reply = lost.handle(Strict, now, Request::Prepare { ballot: ballot(2, 2, 1) });
    assert_eq!(reply.answer, Answer::Unable(Unable::Recovering));
    let reply = lost.handle(Strict, now, append(ballot(2, 2, 1), all, 1, 2, 0));
    assert_eq!(reply.answer, Answer::Unable(Unable::Recovering));

    let mut term = term(ballot(2, 0, 0), 'c', "abc", "");
    term.incarnations.insert('c', 4);
    let (mut recovery, effects) = Recovery::start(Strict, term.clone(), lost.head.clone()).unwrap();
    // One has promised a later ballot already: no reason not to tell.
    cluster.stores.get_mut(&'a').unwrap().head.promised = ballot(2, 2, 1);
    let mut queue: VecDeque<_> = effects.into();
    let (mut heard, mut restored) = (0, false);
    while let Some(effect) = queue.pop_front() {
        match effect {
            RecoveryEffect::Send { to, request } => {
                assert!(!restored && (heard < 2 || matches!(request, Request::Fetch { .. })));
                heard += 1;
                let reply = cluster.stores.get_mut(&to).unwrap().handle(Strict, standing(2), request);
                queue.extend(recovery.answered(&to, reply));
            }
            RecoveryEffect::Restore(restore) => {
                assert_eq!(heard, 3);
                cluster.stores.get_mut(&'c').unwrap().restore(Strict, now, restore);
                restored = true;
            }
            RecoveryEffect::Again => panic!("nothing has moved"),
        }
    }
    let recovered = &cluster.stores[&'c'];
    assert_eq!(payloads(recovered), ["led", "x", "y"]);
    assert_eq!((recovered.head.incarnation, recovered.head.promised), (4, ballot(2, 0, 0)));
    assert_eq!(cluster.stores[&'b'].head.promised, ballot(2, 0, 0));

    term.replicas = set("c");
    assert!(Recovery::start(Strict, term, Head::empty(0)).is_err(), "there is nobody to ask");
}

#[test]
fn answers_from_before_a_loss_do_not_count() {
    let mut cluster = Cluster::new(&[('a', &[]), ('b', &[]), ('c', &[])]);
    cluster.cut = set("bc");
    let mut later = term(ballot(2, 2, 1), 'a', "abc", "");
    later.incarnations.insert('b', 4);
    let mut leader = cluster.lead(Limits::default(), later);
    cluster.cut = set("c");
    cluster.nudge(&mut leader, 'b');
    assert!(!leader.is_chosen(), "b answered as the store it was before");
    cluster.cut = set("");
    cluster.nudge(&mut leader, 'c');
    assert!(leader.is_chosen());
}

#[test]
fn the_lease_counts_from_the_sending_and_needs_a_majority() {
    let mut cluster = Cluster::new(&[('a', &[]), ('b', &[]), ('c', &[])]);
    let mut leader = cluster.lead(Limits::default(), term(ballot(1, 1, 1), 'a', "abc", ""));
    assert!(leader.holds_lease(2_500, 2_000));
    assert!(!leader.holds_lease(3_001, 2_000));
    assert_eq!(leader.heard_since(), Some(1_000));
    cluster.cut = set("bc");
    let effects = leader.tick(3_000);
    cluster.carry_out(&mut leader, effects);
    assert!(!leader.holds_lease(3_001, 2_000), "only the own store answered");
    cluster.cut = set("b");
    let effects = leader.tick(3_600);
    cluster.carry_out(&mut leader, effects);
    assert!(leader.holds_lease(3_700, 2_000));
    assert_eq!(leader.heard_since(), Some(3_600));
    leader.stop(Why::Registry);
    assert_eq!(leader.heard_since(), None);
}

#[test]
fn idle_followers_hear_of_commits_within_a_heartbeat() {
    let mut cluster = Cluster::new(&[('a', &[]), ('b', &[]), ('c', &[])]);
    let mut leader = cluster.lead(Limits::default(), term(ballot(1, 1, 1), 'a', "abc", ""));
    cluster.propose(&mut leader, "x");
    assert!(cluster.stores[&'b'].head.committed < 2);
    assert_eq!(leader.tick(1_050), [], "too soon");
    let effects = leader.tick(1_100);
    cluster.carry_out(&mut leader, effects);
    assert!(['a', 'b', 'c'].iter().all(|region| cluster.stores[region].head.committed == 2));
    assert_eq!(leader.tick(1_200), [], "nothing new");
    assert!(!leader.tick(1_700).is_empty(), "the lease wants answers");
}

#[test]
fn a_committed_mark_is_said_again_until_its_arrival_is_answered() {
    let mut cluster = Cluster::new(&[('a', &[]), ('b', &[]), ('c', &[])]);
    let mut leader = cluster.lead(Limits::default(), term(ballot(1, 1, 1), 'a', "abc", ""));
    cluster.propose(&mut leader, "x");
    let all = |_: &char| true;
    assert_eq!(leader.next_tick(all), Some(1_100));
    // Neither the own store nor b hears of it; but c does.
    cluster.cut = set("ab");
    let effects = leader.tick(1_100);
    cluster.carry_out(&mut leader, effects);
    assert_eq!(['a', 'b', 'c'].map(|region| cluster.stores[&region].head.committed), [1, 1, 2]);
    assert_eq!(leader.next_tick(all), Some(3_100));
    cluster.cut = set("");
    let effects = leader.tick(3_100);
    cluster.carry_out(&mut leader, effects);
    assert_eq!(['a', 'b', 'c'].map(|region| cluster.stores[&region].head.committed), [2, 2, 2]);
    assert_eq!(leader.next_tick(all), None, "all know, and have said so");
}

#[test]
fn the_answer_to_what_left_in_the_same_millisecond_proves_no_later_mark() {
    let mut cluster = Cluster::new(&[('a', &[]), ('b', &[]), ('c', &[])]);
    let mut leader = cluster.lead(Limits::default(), term(ballot(1, 1, 1), 'a', "abc", ""));
    leader.clock(1_100);
    let (_, effects) = leader.propose("x").unwrap();
    let (to_b, others): (Vec<_>, Vec<_>) =
        effects.into_iter().partition(|effect| matches!(effect, Effect::Send { to: 'b', .. }));
    cluster.cut = set("");
    cluster.carry_out(&mut leader, others);
    assert_eq!(leader.committed(), 2, "a and c hold it");
    // The mark follows at once and is lost; then b answers what had left before.
    cluster.cut = set("b");
    cluster.nudge(&mut leader, 'b');
    cluster.cut = set("");
    cluster.carry_out(&mut leader, to_b);
    assert_eq!(cluster.stores[&'b'].head.committed, 1);
    let effects = leader.tick(1_200);
    cluster.carry_out(&mut leader, effects);
    assert_eq!(leader.next_tick(|_| true), Some(3_100), "b may not know");
    let effects = leader.tick(3_100);
    cluster.carry_out(&mut leader, effects);
    assert_eq!(cluster.stores[&'b'].head.committed, 2);
    assert_eq!(leader.next_tick(|_| true), None);
}

#[test]
fn a_message_that_ends_before_the_committed_mark_does_not_bring_it() {
    let mut progress = progress::Progress::new(1);
    progress.tell(100, 5);
    progress.answered(20, 5);
    assert_eq!(progress.knows, 0);
    progress.answered(100, 6);
    assert_eq!(progress.knows, 100);
}

#[test]
fn what_is_proposed_does_not_wait_for_the_answer_to_a_heartbeat() {
    let mut cluster = Cluster::new(&[('a', &[]), ('b', &[]), ('c', &[])]);
    let mut leader = cluster.lead(Limits::default(), term(ballot(1, 1, 1), 'a', "abc", ""));
    cluster.propose(&mut leader, "x");
    // They are on their way, and nobody has answered.
    assert!(!leader.tick(1_100).is_empty() && !leader.nudge_all().is_empty());
    let (_, effects) = leader.propose("y").unwrap();
    let sent = |to: char| {
        let brings = |effect: &&Effect<Small>| match effect {
            Effect::Send { to: whom, request: Request::Append(append) } => {
                *whom == to && append.entries.len() == 1
            }
            _ => false,
        };
        effects.iter().filter(brings).count()
    };
    assert_eq!([sent('b'), sent('c')], [1, 1], "{effects:?}");
}

#[test]
fn every_try_has_a_ballot_of_its_own() {
    let mut ballots = Ballots::<Small>::new(5, Strict);
    let drawn = [ballots.next(2), ballots.next(2), ballots.next(1)];
    assert_eq!(drawn, [ballot(2, 5, 1), ballot(2, 5, 2), ballot(1, 5, 3)]);
}

#[test]
fn what_is_fetched_must_contain_the_promised_head() {
    let promised: &[_] = &[(1, "led"), (2, "led2")];
    let moved: &[_] = &[(1, "led"), (1, "other")];
    for (answered, taken) in [(promised, true), (moved, false), (&promised[..1], false)] {
        let mut cluster = Cluster::new(&[('a', &[(1, "led")]), ('b', promised), ('c', &[])]);
        let (mut leader, effects) =
            Leader::start(Strict, Limits::default(), term(ballot(3, 3, 1), 'a', "abc", ""));
        let (mut queue, mut fetches) = (VecDeque::from(effects), 0);
        while let Some(effect) = queue.pop_front() {
            let Effect::Send { to, request } = effect else { continue };
            if matches!(request, Request::Fetch { .. }) {
                // Between promise and fetch the peer's log became this.
                fetches += 1;
                let head = cluster.stores[&'b'].head.clone();
                cluster.stores.insert('b', Store { head, ..store(answered) });
            }
            if to != 'c' {
                let reply = cluster.stores.get_mut(&to).unwrap().handle(Strict, standing(9), request);
                queue.extend(leader.answered(&to, reply));
            }
        }
        assert_eq!((leader.is_chosen(), leader.is_stopped()), (taken, !taken), "{answered:?}");
        assert!(fetches > 0);
    }
}

/// The core is pure, and the same everywhere: no file knows of clocks, chance, tasks, I/O or hash order.
#[test]
fn the_core_has_no_async_no_clock_and_no_hash_order() {
    let rooms = ["src/replication", "src/replication/leader"];
    let read: usize =
        rooms.iter().map(|room| crate::show::tests::assert_pure(room, &["HashMap", "HashSet"])).sum();
    assert!(read >= 14, "only {read} files were read");
}

#[test]
fn a_disowned_store_keeps_nothing_that_the_others_do_not_have() {
    // It took x and y for committed with another that is gone; who was left went on otherwise, or not at all.
    let own: &[_] = &[(1, "led"), (1, "x"), (1, "y")];
    let went_on: &[_] = &[(1, "led"), (4, "led"), (4, "z")];
    for others in [went_on, &went_on[..1], &[]] {
        let mut cluster = Cluster::new(&[('a', others), ('c', own)]);
        let lost = cluster.stores.get_mut(&'c').unwrap();
        lost.head.committed = 3;
        let now = Standing { epoch: 5, member: true, incarnation: 1, disowned: 1 };
        let mut term = term(ballot(5, 0, 0), 'c', "ac", "");
        term.incarnations.insert('c', 1);
        // As its shell begins: what it took for committed need not be.
        let head = Head { committed: 0, ..lost.head.clone() };
        let (mut recovery, effects) = Recovery::start(Strict, term, head).unwrap();
        let mut queue: VecDeque<_> = effects.into();
        let mut taken = None;
        while let Some(effect) = queue.pop_front() {
            match effect {
                RecoveryEffect::Send { to, request } => {
                    let reply = cluster.stores.get_mut(&to).unwrap().handle(Strict, standing(5), request);
                    queue.extend(recovery.answered(&to, reply));
                }
                RecoveryEffect::Restore(restore) => {
                    // Were it only a lost tail, this could not be.
                    let whole = Standing { disowned: 0, ..now };
                    let mut kept = cluster.stores[&'c'].clone();
                    let refused = kept.restore(Strict, whole, restore.clone());
                    let longer = matches!(refused.answer, Answer::Appended { .. });
                    assert_eq!(longer, others.len() < 3, "only what differs is noticed");
                    taken = Some(cluster.stores.get_mut(&'c').unwrap().restore(Strict, now, restore));
                }
                RecoveryEffect::Again => panic!("nothing has moved"),
            }
        }
        let Some(Answer::Appended { .. }) = taken.map(|reply| reply.answer) else { panic!("not taken") };
        let (a, c) = (&cluster.stores[&'a'], &cluster.stores[&'c']);
        assert_eq!(payloads(c), payloads(a));
        assert_eq!((c.head.last.clone(), c.head.incarnation), (a.head.last.clone(), 1));
        assert!(c.head.committed <= c.head.last.seq && c.head.committed <= 1, "{:?}", c.head);
    }
}
