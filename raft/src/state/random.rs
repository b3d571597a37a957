//! Random commands against what must always be true of the registry.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 4] = ["ap", "eu", "sa", "us"];
const SHOWS: usize = 4;

fn region() -> impl Strategy<Value = RegionName> {
    (0..NAMES.len()).prop_map(|n| NAMES[n].parse().unwrap())
}

fn show() -> impl Strategy<Value = ShowId> {
    (0..SHOWS).prop_map(|n| ShowId(uuid::Uuid::from_u128(n as u128 + 1)))
}

fn regions() -> impl Strategy<Value = Vec<RegionName>> {
    proptest::collection::vec(region(), 0..4)
}

/// Low numbers, so that epochs and incarnations are often the present ones.
fn command() -> impl Strategy<Value = Command> {
    let low = 0_u64..8;
    prop_oneof![
        (region(), 0..3_u8, 0..4_u8).prop_map(|(region, url, attempt)| {
            Command::OpenSession(OpenSession {
                http_url: format!("http://{region}-{url}"),
                grpc_url: String::new(),
                ticket_keys: vec![],
                attempt: format!("{attempt}"),
                region,
            })
        }),
        (show(), region(), regions()).prop_map(|(id, home, replicas)| Command::CreateShow {
            id,
            home,
            replicas
        }),
        region().prop_map(|region| Command::RegionDown { region }),
        region().prop_map(|region| Command::RegionUp { region }),
        region().prop_map(|region| Command::Drain { region }),
        region().prop_map(|region| Command::Undrain { region }),
        (show(), region(), low.clone()).prop_map(|(show, to, if_epoch)| Command::Move { show, to, if_epoch }),
        (show(), region(), low.clone()).prop_map(|(show, to, if_epoch)| Command::Relocate {
            show,
            to,
            if_epoch
        }),
        (1_u64..20).prop_map(|no| Command::CloseSession { no }),
        (show(), regions(), low.clone()).prop_map(|(show, replicas, if_epoch)| Command::ChangeReplicas {
            show,
            replicas,
            if_epoch
        }),
        (show(), low.clone()).prop_map(|(show, epoch)| Command::Settled { show, epoch }),
        (region(), 0_u64..3).prop_map(|(region, incarnation)| Command::StoreLost { region, incarnation }),
        (region(), 0_u64..3).prop_map(|(region, at_risk)| Command::GiveUp { region, at_risk }),
        (show(), region(), low).prop_map(|(show, region, if_epoch)| Command::Rejoin {
            show,
            region,
            if_epoch
        }),
    ]
}

fn records(registry: &Registry) -> BTreeMap<ShowId, ShowRecord> {
    registry.shows_after(None, 100).into_iter().map(|show| (show.id, show)).collect()
}

/// What a watcher knows after these changes.
fn follow(known: &mut BTreeMap<ShowId, ShowRecord>, changes: &[Change]) {
    for change in changes {
        if let Change::Show(show) = change {
            known.insert(show.id, show.clone());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_commanded_the_registry_stays_sound(commands in proptest::collection::vec(command(), 1..80)) {
        let mut registry = Registry::default();
        let mut watcher = BTreeMap::new();
        let mut numbers = Vec::new();
        for (index, command) in (1_u64..).zip(&commands) {
            let before = registry.clone();
            let mut changes = Vec::new();
            let answer = registry.apply(index, command, &mut changes);
            if matches!(answer, Answer::Refused { .. }) {
                prop_assert!(registry == before && changes.is_empty(), "a refusal changes nothing");
            }
            // Sessions: a new number is higher than every one before.
            if let (Answer::Session { no }, true) = (&answer, changes.iter().any(|c| matches!(c, Change::Session(_)))) {
                prop_assert!(numbers.iter().all(|drawn| drawn < no));
                numbers.push(*no);
            }
            if let (Command::GiveUp { at_risk: said, .. }, Answer::GivenUp { at_risk, .. }) = (command, &answer) {
                prop_assert!(at_risk <= said);
            }
            let (old, new) = (records(&before), records(&registry));
            for (id, show) in &new {
                prop_assert!(show.replicas.contains(&show.owner), "{command:?} {show:?}");
                let Some(was) = old.get(id) else { continue };
                let same = (&was.owner, &was.replicas) == (&show.owner, &show.replicas);
                prop_assert!(show.epoch == was.epoch || show.epoch == was.epoch + 1);
                prop_assert!(same || show.epoch == was.epoch + 1, "{command:?} {was:?} {show:?}");
                if matches!(command, Command::GiveUp { .. }) {
                    let settled = if was.prior.is_empty() { &was.replicas } else { &was.prior };
                    prop_assert!(show.replicas.iter().all(|r| was.replicas.contains(r)));
                    prop_assert!(show.prior.iter().all(|r| settled.contains(r)));
                } else if !was.prior.is_empty() {
                    prop_assert_eq!(&show.replicas, &was.replicas, "a second change before the first is settled");
                    prop_assert!(show.prior == was.prior || show.prior.is_empty() && show.epoch == was.epoch);
                } else if !show.prior.is_empty() {
                    prop_assert_eq!(&show.prior, &was.replicas);
                }
            }
            if let (Command::StoreLost { region, .. }, false) = (command, changes.is_empty()) {
                let held = |show: &&ShowRecord| show.replicas.contains(region) || show.prior.contains(region);
                for show in old.values().filter(held) {
                    prop_assert_eq!(new[&show.id].epoch, show.epoch + 1);
                }
                prop_assert!(registry.sessions().all(|session| session.region != *region));
            }
            // A watcher that applies the changes knows all; a voter that starts from the bytes is the same.
            follow(&mut watcher, &changes);
            prop_assert_eq!(&watcher, &new);
            prop_assert!(Registry::from_bytes(&registry.to_bytes()).unwrap() == registry);
            // Repeating a command that names what it knew changes nothing more.
            if matches!(command, Command::Move { .. } | Command::Relocate { .. } | Command::CloseSession { .. } | Command::ChangeReplicas { .. } | Command::Settled { .. }
                | Command::RegionDown { .. } | Command::Drain { .. } | Command::StoreLost { .. } | Command::GiveUp { .. } | Command::Rejoin { .. }) {
                let mut again = registry.clone();
                again.apply(index, command, &mut Vec::new());
                prop_assert!(again == registry, "{command:?} twice");
            }
            let mut other = before.clone();
            prop_assert_eq!(other.apply(index, command, &mut Vec::new()), answer);
            prop_assert!(other == registry, "the same command leads to the same state");
        }
    }
}
