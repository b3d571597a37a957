//! Each rule is needed: without it something breaks, within bounds in which nothing breaks with it.

use protocol_model::{check, mutants};

/// Steps; far more than any of them needs.
const MOST: usize = 5_000_000;

#[test]
fn every_mutant_is_caught() {
    let mut survived = Vec::new();
    for (rule, bounds) in mutants() {
        let (size, found) = check(&bounds, MOST);
        match found {
            Some(found) => {
                println!("without {rule:?}: {} ({} steps; {size})", found.broken, found.actions.len());
            }
            None => {
                println!("without {rule:?}: NOTHING BREAKS ({size})");
                survived.push(rule);
            }
        }
    }
    assert!(survived.is_empty(), "not caught: {survived:?}");
}
