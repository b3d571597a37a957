use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn rule(line: &str) -> Rule {
    let mut parts = line.split_whitespace().map(str::to_owned);
    let mut next = || parts.next().unwrap();
    Rule { role: next(), region: next(), resource: next(), action: next() }
}

fn includes(role: &str, other: &str) -> Inheritance {
    Inheritance { role: role.into(), includes: other.into() }
}

fn compile(rules: &[Rule], roles: &[Inheritance]) -> anyhow::Result<Policy> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Policy::new(1, rules, roles))
}

#[test]
fn roles_regions_and_inheritance_decide() {
    let rules = [rule("employee * check_in create"), rule("manager eu show *"), rule("admin * * *")];
    let policy = compile(&rules, &[includes("manager", "employee")]).unwrap();
    assert!(policy.allows("employee", "us", "check_in", "create"));
    assert!(!policy.allows("employee", "us", "show", "create"));
    assert!(policy.allows("manager", "us", "check_in", "create"));
    assert!(policy.allows("manager", "eu", "show", "create"));
    assert!(!policy.allows("manager", "us", "show", "create"));
    assert!(policy.allows("admin", "global", "user", "disable"));
    assert!(!policy.allows("nobody", "eu", "show", "create"));
    // The second answer comes from the table.
    assert!(policy.allows("manager", "eu", "show", "create"));
}

#[test]
fn what_does_not_parse_is_refused_whole() {
    for part in ["", " ", "\t"] {
        let bad = Rule { role: "x".into(), region: part.into(), resource: "y".into(), action: "z".into() };
        assert!(compile(&[rule("admin * * *"), bad], &[]).is_err());
    }
    assert!(compile(&[], &[includes("a", "")]).is_err());
    assert!(compile(&[], &[includes("a", "a")]).is_err());
    assert!(
        compile(&[], &[includes("x", "a"), includes("a", "b"), includes("b", "c"), includes("c", "a")])
            .is_err()
    );
    assert!(
        compile(&[], &[includes("a", "b"), includes("a", "c"), includes("b", "d"), includes("c", "d")])
            .is_ok()
    );
}

const ROLES: [&str; 5] = ["clerk", "boss", "chief", "admin", "nobody"];
const REGIONS: [&str; 4] = ["eu", "us", "global", "mars"];
const RESOURCES: [&str; 3] = ["show", "hall", "unheard-of"];
const ACTIONS: [&str; 3] = ["write", "read", "unheard-of"];

/// What the model says, in the fewest words; not a line of it is shared with casbin or the table.
fn expected(rules: &[Rule], roles: &[Inheritance], cell: [&str; 4]) -> bool {
    let mut held = vec![cell[0].to_owned()];
    loop {
        let more: Vec<String> = roles
            .iter()
            .filter(|i| held.contains(&i.role) && !held.contains(&i.includes))
            .map(|i| i.includes.clone())
            .collect();
        if more.is_empty() {
            break;
        }
        held.extend(more);
    }
    let fits = |pattern: &str, value: &str| pattern == "*" || pattern == value;
    rules.iter().any(|r| {
        held.contains(&r.role)
            && fits(&r.region, cell[1])
            && fits(&r.resource, cell[2])
            && fits(&r.action, cell[3])
    })
}

fn cells() -> impl Iterator<Item = [&'static str; 4]> {
    ROLES.into_iter().flat_map(|role| {
        REGIONS.into_iter().flat_map(move |region| {
            RESOURCES.into_iter().flat_map(move |resource| {
                ACTIONS.into_iter().map(move |action| [role, region, resource, action])
            })
        })
    })
}

/// Every cell, twice, in two orders: the table's answer, casbin's own and the model's are one.
fn agree(rules: &[Rule], roles: &[Inheritance]) {
    let policy = compile(rules, roles).unwrap();
    let all: Vec<[&str; 4]> = cells().collect();
    for cell in all.iter().chain(all.iter().rev()) {
        let [role, region, resource, action] = *cell;
        let answer = policy.allows(role, region, resource, action);
        assert_eq!(Some(answer), policy.ask_casbin(role, region, resource, action), "{cell:?}");
        assert_eq!(answer, expected(rules, roles, *cell), "{cell:?}");
    }
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(words).prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn table_and_casbin_agree_on_every_cell(
        rules in prop::collection::vec(
            (one_of(&ROLES[..4]), one_of(&["eu", "us", "global", "*"]), one_of(&["show", "hall", "*"]),
             one_of(&["write", "read", "*"])),
            0..12,
        ),
        // Only downwards, so never in a circle.
        inherited in prop::collection::btree_set((1..4usize, 0..3usize), 0..4),
    ) {
        let rules: Vec<Rule> = rules
            .into_iter()
            .map(|(role, region, resource, action)| Rule { role, region, resource, action })
            .collect();
        let roles: Vec<Inheritance> = inherited
            .into_iter()
            .filter(|(role, other)| other < role)
            .map(|(role, other)| includes(ROLES[role], ROLES[other]))
            .collect();
        agree(&rules, &roles);
    }

    /// Whatever a rule's text is, it compiles or is refused: nothing panics, and what compiles allows nobody
    /// whom it does not name.
    #[test]
    fn any_text_compiles_or_is_refused(parts in prop::array::uniform4(".{0,12}")) {
        let [role, region, resource, action] = parts;
        let named = role.clone();
        if let Ok(policy) = compile(&[Rule { role, region, resource, action }], &[]) {
            prop_assert!(named == "somebody" || !policy.allows("somebody", "eu", "show", "write"));
        }
    }
}

/// A thousand rules: casbin walks them all, the table does not.
#[test]
fn the_table_does_not_grow_slower_with_the_policy() {
    let rules: Vec<Rule> =
        (0..1000).map(|i| rule(&format!("role-{} * resource-{} write", i % 50, i / 50))).collect();
    let policy = compile(&rules, &[]).unwrap();
    let asked: Vec<String> = (0..20).map(|i| format!("resource-{i}")).collect();
    let best = |mut ask: Box<dyn FnMut(&str) -> bool + '_>, turns: usize| {
        let mut best = Duration::MAX;
        for _ in 0..turns {
            let started = Instant::now();
            assert!(asked.iter().all(|resource| ask(resource)));
            best = best.min(started.elapsed() / 20);
        }
        best
    };
    let casbin = best(Box::new(|r| policy.ask_casbin("role-7", "eu", r, "write").unwrap()), 3);
    let table = best(Box::new(|r| policy.allows("role-7", "eu", r, "write")), 100);
    println!("1,000 rules: casbin {casbin:?}, table {table:?}");
    // The best of a hundred turns, so that a busy machine does not matter.
    let target = Duration::from_micros(if cfg!(debug_assertions) { 10 } else { 2 });
    assert!(table < target && table * 10 < casbin, "casbin {casbin:?}, table {table:?}");
}
