//! Random commands, decided by the core and by a slow, obvious model ([`slow`]) side by side.
//!
//! After each: a refusal must be one of the reasons that the model has, a success needs that it has none; what
//! both then hold must be equal, seat by seat and payment by payment. At the end of a story the stored journal
//! must fold to the live state, and the same story told again must give the same journal, byte for byte.
//!
//! `MODEL_COMMANDS` sets how many (`make test-long`: a million); `MODEL_SEED` replays a run. A failure is
//! shrunk to the shortest story that fails.

mod pictures;
mod slow;
mod story;

use std::time::Instant;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::*;
use pictures::{of_model, of_show, whole};
use slow::Slow;
use story::{Step, stories};

/// Commands in a story, at most; so many stories as the commands need.
const STEPS: usize = 150;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn random_commands_are_decided_as_the_slow_model_decides() {
    let seed = setting("MODEL_SEED").unwrap_or_else(rand::random);
    let commands = setting("MODEL_COMMANDS").unwrap_or(40_000);
    let cases = u32::try_from(commands.div_ceil(STEPS as u64 / 2)).unwrap();
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let began = Instant::now();
    let counts = std::cell::RefCell::new([0_u64; 3]);
    let result = runner.run(&stories(STEPS), |(facts, steps)| {
        let told = tell(&facts, &steps).map_err(TestCaseError::fail)?;
        let mut counts = counts.borrow_mut();
        for (sum, more) in counts.iter_mut().zip(told) {
            *sum += more;
        }
        Ok(())
    });
    let [done, refused, neither] = counts.into_inner();
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, (facts, steps))) => {
            panic!("MODEL_SEED={seed}: {why}\nthe shortest story: {facts:?}\n{steps:#?}")
        }
        Err(other) => panic!("MODEL_SEED={seed}: {other}"),
    }
    let all = done + refused + neither;
    eprintln!(
        "{all} commands in {:.1} s: {done} done, {refused} refused, {neither} changed nothing (MODEL_SEED={seed})",
        began.elapsed().as_secs_f64()
    );
    assert!(all * 2 > commands, "{all} of {commands}");
    assert!(done > all / 8 && refused > all / 8, "one-sided: {done} done, {refused} refused of {all}");
}

/// Tells a story to both; how many commands did something, were refused, changed nothing.
fn tell(facts: &story::Facts, steps: &[Step]) -> Result<[u64; 3], String> {
    let created = facts.created();
    let mut stage = Stage::of(created.clone());
    let mut slow = Slow::new(&created);
    let mut asked = Vec::new();
    let mut counts = [0; 3];
    for (at, step) in steps.iter().enumerate() {
        let wrong = |why: String| format!("step {at}, {step:?}: {why}");
        let Some(command) = step.command(&mut stage) else { continue };
        let reasons = slow.reasons(&command, stage.now);
        let decision = stage.ask(command.clone());
        counts[match &decision {
            Decision::Do(_) => 0,
            Decision::Refuse(_) => 1,
            Decision::Already | Decision::Repeat { .. } => 2,
        }] += 1;
        slow.judge(&command, &decision, &reasons, stage.now).map_err(wrong)?;
        let (live, model) = (of_show(&stage.show), of_model(&slow));
        if live != model {
            return Err(wrong(format!("{decision:?} led to\n{live:#?}\nnot to\n{model:#?}")));
        }
        asked.push((command, stage.now));
    }
    let mut second = crate::verify::second_reading(&stage.journal, &stage.show);
    // Money whose refund the provider refused is rightly told; the stories have such providers.
    let failed = || stage.show.refunds.values().filter(|refund| refund.status == RefundStatus::Failed);
    second.retain(|(_, why)| {
        !failed().any(|refund| why.starts_with(&stage.show.payment_of(&refund).id.to_string()))
    });
    if !second.is_empty() {
        return Err(format!("the bookkeeping of `marquee verify` disagrees: {second:?}"));
    }
    folds_to_the_live_state(&stage)?;
    the_same_again(created, &asked, &stage.journal)?;
    Ok(counts)
}

fn folds_to_the_live_state(stage: &Stage) -> Result<(), String> {
    let mut again = None;
    for (seq, groups) in (1..).zip(&stage.journal) {
        let bytes = encode(groups);
        let stored = decode(FORMAT, &bytes).map_err(|why| format!("entry {seq}: {why}"))?;
        if &stored != groups || encode(&stored) != bytes {
            return Err(format!("entry {seq} is not what was written: {stored:?}"));
        }
        again = Show::fold(again, seq, &stored)?;
    }
    let again = again.ok_or("no show")?;
    let (again, live) = (whole(&again), whole(&stage.show));
    if again == live { Ok(()) } else { Err(format!("the fold\n{again}\nis not the live state\n{live}")) }
}

/// Nothing but the commands and their times decides.
fn the_same_again(
    facts: Created,
    asked: &[(Asked, Timestamp)],
    journal: &[Vec<Group>],
) -> Result<(), String> {
    let mut stage = Stage::of(facts);
    for (asked, now) in asked {
        stage.now = *now;
        stage.ask(asked.clone());
    }
    let bytes = |journal: &[Vec<Group>]| journal.iter().map(|groups| encode(groups)).collect::<Vec<_>>();
    if bytes(&stage.journal) == bytes(journal) { Ok(()) } else { Err("told again, it went otherwise".into()) }
}
