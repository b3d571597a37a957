//! Explores one configuration.

use std::fmt;
use std::time::{Duration, Instant};

use stateright::{Checker, Model};

use crate::configurations::Bounds;
use crate::world::{Action, World};

/// What was seen.
#[derive(Clone, Debug)]
pub struct Size {
    pub states: usize,
    /// Steps taken, to states seen before too.
    pub steps: usize,
    pub depth: usize,
    pub took: Duration,
    /// Whether that is the whole space.
    pub whole: bool,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, steps, depth, took, whole } = self;
        let whole = if *whole { "the whole space" } else { "cut off" };
        write!(f, "{states} states, {steps} steps, depth {depth}, {:.1} s, {whole}", took.as_secs_f64())
    }
}

/// A shortest way to break an invariant.
#[derive(Clone, Debug)]
pub struct Found {
    pub broken: &'static str,
    pub actions: Vec<Action>,
    pub last: Box<World>,
}

/// Breadth first on one thread, until something breaks, the space ends, or `most` states
/// were seen.
pub fn check(bounds: &Bounds, most: usize) -> (Size, Option<Found>) {
    let began = Instant::now();
    let checker = bounds.clone().checker().threads(1).target_state_count(most).spawn_bfs().join();
    let took = began.elapsed();
    let found = checker.discoveries().into_values().next().map(|path| {
        let last = Box::new(path.last_state().clone());
        let actions = path.into_actions();
        Found { broken: last.broken.unwrap_or("nothing"), actions, last }
    });
    let size = Size {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took,
        whole: checker.state_count() < most && found.is_none(),
    };
    (size, found)
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.broken)?;
        self.actions.iter().try_for_each(|action| writeln!(f, "  {action}"))
    }
}
