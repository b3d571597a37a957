//! `make model`: explores every configuration, then shows that each rule is needed. Words on the command
//! line choose configurations and rules by their names; `MOST=n` cuts each off after so many steps.
#![expect(clippy::print_stdout, reason = "this talks to a person")]

use std::process::ExitCode;

use protocol_model::{all, check, mutants};

/// Some hours of states; a configuration that reaches it is said to be cut off.
const MOST: usize = 200_000_000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let most = std::env::var("MOST").ok().and_then(|text| text.parse().ok()).unwrap_or(MOST);
    let mut failed = false;
    for (bounds, _) in all().iter().filter(|(bounds, _)| wanted(bounds.name)) {
        let (size, found) = check(bounds, most);
        println!("{}: {size}", bounds.name);
        if let Some(found) = found {
            println!("  {found}");
            failed = true;
        }
    }
    for (rule, bounds) in mutants().iter().filter(|(rule, _)| wanted(&format!("{rule:?}"))) {
        let (size, found) = check(bounds, most);
        match found {
            Some(found) => {
                println!("without {rule:?}: {}, after {} steps; {size}", found.broken, found.actions.len());
                if !words.is_empty() {
                    println!("{found}");
                }
            }
            None => {
                println!("without {rule:?}: nothing breaks; {size}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
