//! Each rule of the protocol is needed: without it some seed breaks an invariant.

use regional::replication::Rule;
use simulation::{Emphasis, run_with};

/// Seeds that are tried for each rule; most need a few. `MOST=n` tries more.
const MOST: u64 = 1_000;
const STORIES: u64 = 100;

/// Second fences: what they keep out, another rule keeps out already. `docs/simulation.md` has the argument.
const NOT_FOUND: &[Rule] = &[Rule::FetchedHead, Rule::IncarnationCounts];

/// Which faults show soonest that a rule is needed.
fn emphasis(rule: Rule) -> Option<Emphasis> {
    match rule {
        Rule::PriorMajority | Rule::SettledAfterLed => Some(Emphasis::Sets),
        Rule::ChooseByBallot => Some(Emphasis::Tails),
        Rule::UptoOfMessage => Some(Emphasis::StaleTail),
        Rule::RecoverFirst | Rule::RecoveryMajority => Some(Emphasis::Losses),
        Rule::ReportsPromise => Some(Emphasis::LateAppend),
        _ => None,
    }
}

#[test]
fn the_simulation_notices_when_a_rule_is_broken() {
    let most = std::env::var("MOST").ok().and_then(|text| text.parse().ok());
    // Who gives a number of seeds wants all rules tried.
    let tried = |rule: &Rule| most.is_some() || !NOT_FOUND.contains(rule);
    let most = most.unwrap_or(MOST);
    let mut survived = Vec::new();
    let only = std::env::var("RULE").ok();
    let wanted = |rule: &Rule| only.as_ref().is_none_or(|only| format!("{rule:?}") == *only);
    for rule in Rule::ALL.into_iter().filter(tried).filter(wanted) {
        let run = |seed| run_with(seed, Some(rule), emphasis(rule), false);
        match (1..=most).find_map(|seed| Some((seed, run(seed).broken?))) {
            Some((seed, violation)) => {
                println!("without {rule:?}: {} after {seed} seeds", violation.invariant);
            }
            None => {
                println!("without {rule:?}: nothing within {most} seeds");
                survived.push(rule);
            }
        }
    }
    survived.retain(|rule| !NOT_FOUND.contains(rule));
    assert!(survived.is_empty(), "not noticed within {most} seeds: {survived:?}");
}

/// What shows that a rule is needed must not be a story in which anything breaks.
#[test]
fn stories_break_nothing_while_all_rules_hold() {
    for emphasis in [Emphasis::StaleTail, Emphasis::LateAppend] {
        for seed in 1..=STORIES {
            if let Some(violation) = run_with(seed, None, Some(emphasis), false).broken {
                panic!("seed {seed} of {emphasis:?} breaks {violation:?}");
            }
        }
    }
}
