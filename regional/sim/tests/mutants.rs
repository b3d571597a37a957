//! Each rule of the protocol is needed: without it some seed breaks an invariant.

use regional::replication::Rule;
use simulation::{Emphasis, run_with};

/// Seeds that are tried for each rule; most need a few. `MOST=n` tries more.
const MOST: u64 = 1_000;

/// Rules without which nothing was found to break here; `docs/simulation.md` says how far that was looked for.
const NOT_FOUND: &[Rule] =
    &[Rule::UptoOfMessage, Rule::FetchedHead, Rule::ReportsPromise, Rule::IncarnationCounts];

/// Which faults show soonest that a rule is needed.
fn emphasis(rule: Rule) -> Option<Emphasis> {
    match rule {
        Rule::PriorMajority | Rule::SettledAfterLed => Some(Emphasis::Sets),
        Rule::ChooseByBallot | Rule::UptoOfMessage => Some(Emphasis::Tails),
        Rule::RecoverFirst | Rule::RecoveryMajority | Rule::ReportsPromise => Some(Emphasis::Losses),
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
    for rule in Rule::ALL.into_iter().filter(tried) {
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
