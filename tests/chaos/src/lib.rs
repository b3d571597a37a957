//! `make chaos`: a platform of three regions, each in a network namespace of its own (without root: on loopback), with
//! a wide-area network in user space between them; a load through the gateways; a fault every 10 to 20 seconds; and at the end a
//! judgement of S1 to S7 from what customers were told, the regions' journals and the provider's books.
//! `docs/chaos.md` tells how and what was seen. `make figures` measures the same platform in place of breaking it.
//!
//! Invariant: nothing outlives the run. Everything, the run itself included, lives in namespaces of network,
//! mounts and processes that the kernel clears away with their first process, however that ends; on loopback the
//! launcher ties its processes' lives to the run's.

mod arguments;
mod faults;
mod figures;
mod inject;
mod journals;
mod judge;
mod load;
mod record;
mod report;
mod rooms;
mod run;
mod stage;
mod wan;

use std::path::Path;
use std::process::ExitCode;

pub use arguments::Arguments;

/// The whole program. `marquee`: the executable that the platform is made of.
#[must_use]
pub fn main(marquee: &Path) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = Arguments::parse(&words).and_then(|arguments| match arguments {
        None => Ok(true),
        Some(arguments) => rooms::inside(arguments.wanted, arguments.loopback, |apart| {
            let marquee = arguments.program.as_deref().unwrap_or(marquee);
            match arguments.figures {
                None => run::run(marquee, &arguments, apart),
                Some(rounds) => figures::run(marquee, &arguments, apart, rounds).map(|()| true),
            }
        }),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// A line for whoever watches.
fn say(text: &str) {
    eprintln!("chaos: {text}");
}
