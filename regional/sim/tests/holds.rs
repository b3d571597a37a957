//! No seed breaks anything, everything that can happen does, and a seed is the same story every time.

use simulation::{Counts, HEALED_WITHIN, run};

/// More of them: `make sim SEEDS=100000`.
const SEEDS: u64 = 2_000;

#[test]
fn no_seed_breaks_an_invariant_and_all_that_can_happen_does() {
    let began = std::time::Instant::now();
    let (mut counts, mut events, mut slowest) = (Counts::default(), 0, 0);
    for seed in 1..=SEEDS {
        let run = run(seed, None, false);
        if let Some(violation) = run.broken {
            panic!("seed {seed} breaks {violation:?}; replay: make sim SEED={seed}");
        }
        counts.take_in(&run.counts);
        events += run.events;
        slowest = slowest.max(run.served_after.unwrap_or(HEALED_WITHIN));
    }
    for line in counts.lines() {
        println!("{line}");
    }
    let took = began.elapsed().as_secs_f64();
    println!("{SEEDS} seeds, {events} events in {took:.0} s; all served within {slowest} ms of healing");
    assert!(slowest < HEALED_WITHIN, "{slowest} ms");
    assert_eq!(counts.missing(), Vec::<&str>::new(), "never reached");
}

#[test]
fn a_seed_replays_to_the_same_trace() {
    for seed in [7, 42, 1_234] {
        let (first, again) = (run(seed, None, true), run(seed, None, false));
        assert_eq!((first.trace, first.events), (again.trace, again.events), "seed {seed}");
        assert_eq!(first.history.operations.len(), again.history.operations.len());
        assert_ne!(first.trace, run(seed + 1, None, false).trace);
    }
}
