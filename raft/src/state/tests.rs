//! The state machine alone: numbers, repeats, refusals, and its bytes.

use super::*;

fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

fn all() -> Vec<RegionName> {
    ["ap", "eu", "us"].map(region).to_vec()
}

fn open(name: &str, url: &str, attempt: &str) -> Command {
    Command::OpenSession(OpenSession {
        region: region(name),
        http_url: url.into(),
        grpc_url: String::new(),
        ticket_keys: vec![key("k1", 1)],
        attempt: attempt.into(),
    })
}

fn key(kid: &str, byte: u8) -> TicketKey {
    TicketKey { kid: kid.into(), public_key: [byte; 32] }
}

fn create(id: ShowId, home: &str) -> Command {
    Command::CreateShow { id, home: region(home), replicas: all() }
}

fn apply(registry: &mut Registry, index: u64, command: &Command) -> (Answer, Vec<Change>) {
    let mut changes = Vec::new();
    let answer = registry.apply(index, command, &mut changes);
    (answer, changes)
}

fn session_no(answer: &Answer) -> u64 {
    match answer {
        Answer::Session { no } => *no,
        other => panic!("not a session: {other:?}"),
    }
}

#[test]
fn session_numbers_only_grow_and_are_never_used_twice() {
    let mut registry = Registry::default();
    let mut seen = Vec::new();
    let batch =
        Command::Batch((0..5).map(|i| open("eu", &format!("http://eu-{i}"), &format!("a{i}"))).collect());
    let (Answer::Batch(answers), _) = apply(&mut registry, 1, &batch) else { panic!("a batch") };
    seen.extend(answers.iter().map(session_no));
    for index in 2..20 {
        let (answer, _) = apply(&mut registry, index, &open("us", "http://us-0", &format!("b{index}")));
        seen.push(session_no(&answer));
    }
    assert!(seen[0] > 0 && seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    assert_eq!(registry.sessions().count(), 6);
}

#[test]
fn a_new_session_closes_the_older_one_of_its_url_and_a_repeat_does_not() {
    let mut registry = Registry::default();
    let (first, changes) = apply(&mut registry, 5, &open("eu", "http://eu-0", "a"));
    let first = session_no(&first);
    assert!(matches!(&changes[0], Change::Region(r) if r.state == RegionState::Up && r.name == region("eu")));
    assert!(matches!(&changes[1], Change::Session(s) if s.no == first));

    let (again, changes) = apply(&mut registry, 6, &open("eu", "http://eu-0", "a"));
    assert_eq!((session_no(&again), changes), (first, vec![]));

    apply(&mut registry, 7, &open("eu", "http://eu-1", "b"));
    let (second, changes) = apply(&mut registry, 8, &open("eu", "http://eu-0", "c"));
    assert!(session_no(&second) > first);
    assert_eq!(changes[0], Change::SessionClosed(first));
    let open_now: Vec<_> = registry.sessions().map(|s| s.http_url.as_str()).collect();
    assert_eq!(open_now, ["http://eu-1", "http://eu-0"]);
}

#[test]
fn ticket_keys_are_kept_for_ever_and_never_replaced() {
    let mut registry = Registry::default();
    let with = |attempt: &str, keys: Vec<TicketKey>| {
        Command::OpenSession(OpenSession {
            region: region("eu"),
            http_url: "http://eu".into(),
            grpc_url: String::new(),
            ticket_keys: keys,
            attempt: attempt.into(),
        })
    };
    apply(&mut registry, 1, &with("a", vec![key("k1", 1)]));
    apply(&mut registry, 2, &with("b", vec![key("k2", 2)]));
    let before = registry.clone();
    let (answer, changes) = apply(&mut registry, 3, &with("c", vec![key("k3", 3), key("k1", 9)]));
    assert!(matches!(answer, Answer::Refused { .. }));
    assert_eq!((&registry, changes.len()), (&before, 0), "a refusal changes nothing");
    let keys = &registry.regions().next().unwrap().ticket_keys;
    assert_eq!(*keys, vec![key("k1", 1), key("k2", 2)]);
}

#[test]
fn a_show_is_created_once() {
    let mut registry = Registry::default();
    let id = ShowId::new(&region("eu"));
    let (answer, changes) = apply(&mut registry, 1, &create(id, "eu"));
    let Answer::Show(record) = answer else { panic!("{answer:?}") };
    assert_eq!((record.owner.as_str(), record.epoch, record.replicas.len()), ("eu", 1, 3));
    assert_eq!(changes, vec![Change::Show(record.clone())]);

    let (answer, changes) = apply(&mut registry, 2, &create(id, "us"));
    assert_eq!((answer, changes), (Answer::Show(record.clone()), vec![]));
    assert_eq!(registry.show(id), Some(record));

    let stranger = create(ShowId::new(&region("eu")), "mars");
    assert!(matches!(apply(&mut registry, 3, &stranger).0, Answer::Refused { .. }));
    assert_eq!(registry.show_count(), 1);
}

#[test]
fn bytes_carry_everything_and_damage_is_noticed() {
    let mut registry = Registry::default();
    apply(&mut registry, 1, &open("eu", "http://eu", "a"));
    for index in 2..500 {
        apply(&mut registry, index, &create(ShowId::new(&region("us")), "us"));
    }
    let mut moved = registry.shows_after(None, 1).remove(0);
    (moved.owner, moved.epoch, moved.prior) = (region("ap"), 7, vec![region("eu"), region("us")]);
    registry.shows.put(&moved).unwrap();

    let bytes = registry.to_bytes();
    assert_eq!(Registry::from_bytes(&bytes).unwrap(), registry);
    assert_eq!(Registry::from_bytes(&Registry::default().to_bytes()).unwrap(), Registry::default());
    for cut in [0, 3, 9, bytes.len() / 2, bytes.len() - 1] {
        assert!(Registry::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(Registry::from_bytes(&longer).is_err());
    let mut wrong = bytes;
    let home = wrong.len() - 6;
    wrong[home] = 200;
    assert!(Registry::from_bytes(&wrong).is_err(), "a region that is not in the table");
}

#[test]
fn pages_cover_every_show_once() {
    let mut registry = Registry::default();
    for index in 1..=1000 {
        apply(&mut registry, index, &create(ShowId::new(&region("eu")), "eu"));
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = registry.shows_after(after, 64);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.into_iter().map(|s| s.id));
    }
    assert_eq!(seen.len(), 1000);
    assert!(seen.is_sorted_by(|a, b| a < b));
}

#[test]
fn an_entry_of_an_unknown_format_is_refused_not_skipped() {
    let proposal = Proposal::new(create(ShowId::new(&region("eu")), "eu"));
    let text = serde_json::to_string(&proposal).unwrap();
    assert_eq!(serde_json::from_str::<Proposal>(&text).unwrap(), proposal);
    assert!(serde_json::from_str::<Proposal>(&text.replace("\"v\":1", "\"v\":9")).is_err());
    assert!(serde_json::from_str::<Proposal>(&text.replace("create_show", "sink_show")).is_err());
}

#[test]
fn the_tables_of_names_are_bounded() {
    let mut table = ShowTable::default();
    let put = |table: &mut ShowTable, n: usize| {
        let name = region(&format!("r{n}"));
        let (id, owner) = (ShowId::new(&name), name.clone());
        table.put(&ShowRecord { id, home: name, owner, epoch: 1, replicas: vec![], prior: vec![] })
    };
    for n in 0..255 {
        put(&mut table, n).unwrap();
    }
    assert!(put(&mut table, 255).is_err());
    assert!(put(&mut table, 7).is_ok(), "a known region still has its place");
}

fn three_regions() -> Registry {
    let mut registry = Registry::default();
    for (index, name) in (1..).zip(["ap", "eu", "us"]) {
        apply(&mut registry, index, &open(name, &format!("http://{name}"), name));
    }
    registry
}

fn shown(answer: &Answer) -> &ShowRecord {
    match answer {
        Answer::Show(show) => show,
        other => panic!("not a show: {other:?}"),
    }
}

fn is_refused(registry: &mut Registry, command: &Command) -> bool {
    matches!(apply(registry, 90, command).0, Answer::Refused { .. })
}

#[test]
fn a_lost_regions_shows_are_spread_over_those_that_are_up() {
    let mut registry = three_regions();
    let ids: Vec<ShowId> = (0..300).map(|_| ShowId::new(&region("eu"))).collect();
    for id in &ids {
        apply(&mut registry, 10, &create(*id, "eu"));
    }
    let down = Command::RegionDown { region: region("eu") };
    let mut twin = registry.clone();
    let (answer, changes) = apply(&mut registry, 11, &down);
    assert!(matches!(&answer, Answer::Region { region, shows: 300 } if region.state == RegionState::Down));
    assert_eq!(changes.len(), 301);
    let of = |registry: &Registry, name: &str| {
        ids.iter().filter(|id| registry.show(**id).unwrap().owner == region(name)).count()
    };
    assert!(
        of(&registry, "ap") > 100 && of(&registry, "us") > 100,
        "{} and {}",
        of(&registry, "ap"),
        of(&registry, "us")
    );
    assert!(ids.iter().all(|id| registry.show(*id).unwrap().epoch == 2));
    apply(&mut twin, 99, &down);
    assert_eq!(twin, registry, "every voter chooses the same");
    assert_eq!(apply(&mut registry, 12, &down).1, [], "a repeat changes nothing");

    let moved_before = of(&registry, "ap");
    apply(&mut registry, 13, &Command::RegionDown { region: region("ap") });
    assert_eq!((of(&registry, "us"), of(&registry, "ap")), (300, 0));
    assert!(moved_before > 0 && is_refused(&mut registry, &Command::RegionDown { region: region("us") }));
    let (answer, _) = apply(&mut registry, 14, &Command::RegionUp { region: region("eu") });
    assert!(matches!(answer, Answer::Region { region, shows: 0 } if region.state == RegionState::Up));
    assert_eq!(of(&registry, "us"), 300, "they come back by planned moves");
}

#[test]
fn a_move_counts_once_and_only_where_it_can() {
    let mut registry = three_regions();
    let id = ShowId::new(&region("eu"));
    apply(&mut registry, 10, &create(id, "eu"));
    let to = |name: &str, if_epoch| Command::Move { show: id, to: region(name), if_epoch };
    assert_eq!(shown(&apply(&mut registry, 11, &to("us", 1)).0).epoch, 2);
    assert_eq!(shown(&apply(&mut registry, 12, &to("us", 1)).0).epoch, 2, "a repeat");
    assert!(is_refused(&mut registry, &to("ap", 1)), "a second move that knew the same epoch");
    assert!(is_refused(&mut registry, &to("mars", 2)));
    apply(&mut registry, 13, &Command::Drain { region: region("ap") });
    assert!(is_refused(&mut registry, &to("ap", 2)), "it drains");
    assert!(is_refused(&mut registry, &Command::RegionUp { region: region("ap") }));
    apply(&mut registry, 14, &Command::Undrain { region: region("ap") });
    assert_eq!(shown(&apply(&mut registry, 15, &to("ap", 2)).0).epoch, 3);
    let stranger = Command::Move { show: ShowId::new(&region("eu")), to: region("us"), if_epoch: 1 };
    assert!(is_refused(&mut registry, &stranger));
    for name in ["eu", "us"] {
        apply(&mut registry, 16, &Command::Drain { region: region(name) });
    }
    assert!(is_refused(&mut registry, &Command::Drain { region: region("ap") }), "the last one up");
}

#[test]
fn the_set_before_is_kept_until_the_present_epochs_leader_settles() {
    let mut registry = three_regions();
    let id = ShowId::new(&region("eu"));
    apply(&mut registry, 10, &create(id, "eu"));
    let change = |names: &[&str], if_epoch| Command::ChangeReplicas {
        show: id,
        replicas: names.iter().copied().map(region).collect(),
        if_epoch,
    };
    assert!(is_refused(&mut registry, &change(&["ap", "us"], 1)), "without the owner");
    assert!(is_refused(&mut registry, &change(&["eu", "mars"], 1)));
    let (answer, _) = apply(&mut registry, 11, &change(&["us", "eu"], 1));
    assert_eq!((shown(&answer).epoch, &shown(&answer).prior), (2, &all()));
    assert!(is_refused(&mut registry, &change(&["eu"], 2)), "not settled");
    let to_us = Command::Move { show: id, to: region("us"), if_epoch: 2 };
    assert_eq!(shown(&apply(&mut registry, 12, &to_us).0).prior, all(), "a change of owner keeps it");
    assert!(is_refused(&mut registry, &Command::Settled { show: id, epoch: 2 }), "of an older leader");
    let (answer, changes) = apply(&mut registry, 13, &Command::Settled { show: id, epoch: 3 });
    assert_eq!((shown(&answer).prior.len(), shown(&answer).epoch, changes.len()), (0, 3, 1));
    assert_eq!(apply(&mut registry, 14, &Command::Settled { show: id, epoch: 3 }).1, []);
}

#[test]
fn a_store_that_lost_its_tail_gets_every_show_it_ever_held_a_new_epoch() {
    let mut registry = three_regions();
    let [was, is, never] = [(); 3].map(|()| ShowId::new(&region("eu")));
    apply(&mut registry, 10, &create(was, "eu"));
    apply(&mut registry, 10, &create(is, "eu"));
    let only = Command::CreateShow { id: never, home: region("eu"), replicas: vec![region("eu")] };
    apply(&mut registry, 10, &only);
    let without_us = vec![region("ap"), region("eu")];
    apply(&mut registry, 11, &Command::ChangeReplicas { show: was, replicas: without_us, if_epoch: 1 });
    apply(&mut registry, 12, &Command::Settled { show: was, epoch: 2 });

    let lost = Command::StoreLost { region: region("us"), incarnation: 0 };
    let (answer, changes) = apply(&mut registry, 13, &lost);
    assert!(matches!(&answer, Answer::Region { region, shows: 2 } if region.incarnation == 1));
    assert!(matches!(&changes[0], Change::Region(r) if r.incarnation == 1), "told before the shows");
    assert!(matches!(&changes[1], Change::SessionClosed(_)));
    let epoch = |id| registry.show(id).unwrap().epoch;
    assert_eq!([epoch(was), epoch(is), epoch(never)], [3, 2, 1]);
    assert_eq!(apply(&mut registry.clone(), 14, &lost).1, [], "of two who notice one counts");
    assert_eq!(Registry::from_bytes(&registry.to_bytes()).unwrap(), registry);
}

#[test]
fn new_commands_are_written_in_the_new_format_only() {
    let format = |command| serde_json::to_value(Proposal::new(command)).unwrap()["v"].clone();
    assert_eq!(format(create(ShowId::new(&region("eu")), "eu")), 1);
    let down = Command::RegionDown { region: region("eu") };
    assert_eq!(format(down.clone()), 2);
    assert_eq!(format(Command::Batch(vec![open("eu", "http://eu", "a"), down])), 2);
    assert_eq!(format(Command::CloseSession { no: 1 }), 3);
}

#[test]
fn what_an_operator_has_placed_stays_and_is_known_in_the_bytes() {
    let mut registry = three_regions();
    let [placed, drained] = [(); 2].map(|()| ShowId::new(&region("eu")));
    for id in [placed, drained] {
        apply(&mut registry, 10, &create(id, "eu"));
    }
    apply(&mut registry, 11, &Command::Move { show: placed, to: region("us"), if_epoch: 1 });
    apply(&mut registry, 12, &Command::Relocate { show: drained, to: region("us"), if_epoch: 1 });
    assert!(registry.is_placed(placed) && !registry.is_placed(drained));
    assert_eq!(Registry::from_bytes(&registry.to_bytes()).unwrap(), registry);
    let away = |owner: &RegionName, home: &RegionName| owner != home;
    let nobody = |_: &RegionName| false;
    assert_eq!(registry.search(None, 10, away, nobody).0.len(), 2);
    let (first, next) = registry.search(None, 1, away, nobody);
    assert_eq!((first.len(), next.is_some()), (1, true));
    assert_eq!(registry.search(Some(first[0].id), 10, away, nobody).0.len(), 1);
    apply(&mut registry, 13, &Command::RegionDown { region: region("us") });
    assert!(!registry.is_placed(placed), "the loss of its region has moved it");
    let back =
        Command::Move { show: drained, to: region("eu"), if_epoch: registry.show(drained).unwrap().epoch };
    apply(&mut registry, 14, &back);
    assert!(!registry.is_placed(drained), "home is no place of its own");
}

#[test]
fn a_region_that_drained_when_it_was_lost_drains_on() {
    let mut registry = three_regions();
    let state = |registry: &Registry| registry.region(&region("eu")).unwrap().state;
    apply(&mut registry, 10, &Command::Drain { region: region("eu") });
    apply(&mut registry, 11, &Command::RegionDown { region: region("eu") });
    let mut undrained = registry.clone();
    apply(&mut registry, 12, &Command::RegionUp { region: region("eu") });
    assert_eq!(state(&registry), RegionState::Draining);
    apply(&mut undrained, 12, &Command::Undrain { region: region("eu") });
    assert_eq!(state(&undrained), RegionState::Down);
    apply(&mut undrained, 13, &Command::RegionUp { region: region("eu") });
    assert_eq!(state(&undrained), RegionState::Up);
    assert!(is_refused(&mut registry, &Command::RegionUp { region: region("eu") }), "it drains");
}

#[test]
fn a_closed_session_is_gone_and_closing_it_again_does_nothing() {
    let mut registry = three_regions();
    let no = registry.sessions().next().unwrap().no;
    let (_, changes) = apply(&mut registry, 10, &Command::CloseSession { no });
    assert_eq!((changes, registry.session(no)), (vec![Change::SessionClosed(no)], None));
    assert_eq!(apply(&mut registry, 11, &Command::CloseSession { no }).1, []);
}

fn given_up(registry: &mut Registry, index: u64, name: &str) -> (u64, u64) {
    let seen = at_risk(&registry.shows, &region(name), |r| registry.is_given_up(r), 10).1;
    if let Some(less) = seen.checked_sub(1).filter(|_| !registry.is_given_up(&region(name))) {
        let not_said = Command::GiveUp { region: region(name), at_risk: less };
        assert!(is_refused(registry, &not_said), "more may be lost than was said");
    }
    match apply(registry, index, &Command::GiveUp { region: region(name), at_risk: seen }).0 {
        Answer::GivenUp { shows, at_risk, .. } => {
            assert_eq!(at_risk, seen, "as was told before");
            (shows, at_risk)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_three_regions_one_goes_without_risk_and_the_second_at_once_does_not() {
    let mut registry = three_regions();
    let (id, settled) = (ShowId::new(&region("us")), ShowId::new(&region("us")));
    apply(&mut registry, 10, &create(id, "us"));
    apply(&mut registry, 11, &create(settled, "us"));
    assert!(is_refused(&mut registry, &Command::GiveUp { region: region("us"), at_risk: 0 }), "it is up");
    apply(&mut registry, 12, &Command::RegionDown { region: region("us") });
    assert_eq!(given_up(&mut registry, 13, "us"), (2, 0), "each majority of three has one of the other two");
    let show = registry.show(id).unwrap();
    assert_eq!((show.replicas.len(), show.prior.len(), show.epoch), (2, 3, 3), "{show:?}");
    assert_eq!(given_up(&mut registry, 14, "us"), (0, 0), "again");

    // Of one show the two that are left have agreed; of the other they have not.
    apply(&mut registry, 15, &Command::Settled { show: settled, epoch: 3 });
    apply(&mut registry, 16, &Command::RegionDown { region: region("ap") });
    let before = registry.region(&region("ap")).unwrap().incarnation;
    assert_eq!(given_up(&mut registry, 17, "ap"), (2, 1));
    for id in [id, settled] {
        let show = registry.show(id).unwrap();
        assert_eq!(
            (show.owner, show.replicas, show.prior.contains(&region("us"))),
            (region("eu"), vec![region("eu")], false)
        );
    }
    let ap = registry.region(&region("ap")).unwrap();
    assert!(ap.given_up && ap.incarnation == before + 1 && ap.disowned == ap.incarnation);
    assert!(registry.sessions().all(|session| session.region == region("eu")));

    // New shows are without them, and remember that they belong.
    let late = ShowId::new(&region("eu"));
    apply(&mut registry, 18, &create(late, "eu"));
    assert_eq!(registry.show(late).unwrap().replicas, [region("eu")]);
    assert_eq!(registry.past_replicas(late), [region("ap"), region("us")]);
    let reloaded = Registry::from_bytes(&registry.to_bytes()).unwrap();
    assert!(reloaded == registry);
}

#[test]
fn who_comes_back_is_taken_in_one_at_a_time() {
    let mut registry = three_regions();
    let id = ShowId::new(&region("us"));
    apply(&mut registry, 10, &create(id, "us"));
    for (index, name) in [(11, "us"), (13, "ap")] {
        apply(&mut registry, index, &Command::RegionDown { region: region(name) });
        given_up(&mut registry, index + 1, name);
    }
    let epoch = |registry: &Registry| registry.show(id).unwrap().epoch;
    let rejoin = |name: &str, if_epoch| Command::Rejoin { show: id, region: region(name), if_epoch };
    let now = epoch(&registry);
    apply(&mut registry, 20, &Command::Settled { show: id, epoch: now });
    assert!(is_refused(&mut registry, &rejoin("us", now)), "it is down still");
    for name in ["us", "ap"] {
        apply(&mut registry, 21, &Command::RegionUp { region: region(name) });
        assert!(!registry.is_given_up(&region(name)));
    }
    apply(&mut registry, 22, &rejoin("us", now));
    assert_eq!(registry.show(id).unwrap().prior, [region("eu")]);
    assert!(is_refused(&mut registry, &rejoin("ap", now + 1)), "the first is not settled");
    apply(&mut registry, 23, &Command::Settled { show: id, epoch: now + 1 });
    apply(&mut registry, 24, &rejoin("ap", now + 1));
    assert_eq!(registry.show(id).unwrap().replicas, all());
    assert!(registry.past_replicas(id).is_empty());
}

#[test]
fn the_only_one_that_had_a_show_is_not_given_up_without_risk() {
    let mut registry = three_regions();
    let id = ShowId::new(&region("eu"));
    let create = Command::CreateShow { id, home: region("eu"), replicas: vec![region("eu")] };
    apply(&mut registry, 10, &create);
    // Another is taken in, and does not have it yet: the change is not settled.
    let replicas = vec![region("eu"), region("ap")];
    apply(&mut registry, 11, &Command::ChangeReplicas { show: id, replicas, if_epoch: 1 });
    apply(&mut registry, 12, &Command::RegionDown { region: region("eu") });
    assert_eq!(given_up(&mut registry, 13, "eu"), (1, 1));
    assert_eq!(registry.show(id).unwrap().replicas, [region("ap")]);

    // Nobody else keeps it: it waits for its region.
    let alone = ShowId::new(&region("us"));
    let create = Command::CreateShow { id: alone, home: region("us"), replicas: vec![region("us")] };
    apply(&mut registry, 14, &create);
    apply(&mut registry, 15, &Command::RegionDown { region: region("us") });
    assert_eq!(given_up(&mut registry, 16, "us"), (0, 1));
    assert_eq!(registry.show(alone).unwrap().replicas, [region("us")]);
}
