//! Turns: one design under one load, measured again and again among the others.

use futures::future::BoxFuture;
use hdrhistogram::Histogram;
use regional::bench::Seen;
use serde::Serialize;

use super::Pace;
use crate::launcher::Progress;

type Measure = Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<Seen>> + Send + Sync>;

/// How much is asked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A closed loop: each waits for its answer.
    Clients(usize),
    /// An open loop: so many arrivals a second.
    Rate(f64),
    /// One after the other, by one connection.
    Alone,
}

impl Work {
    pub fn label(self) -> String {
        match self {
            Self::Clients(clients) => clients.to_string(),
            Self::Rate(rate) => format!("{rate:.0}/s"),
            Self::Alone => "1".to_owned(),
        }
    }
}

pub struct Turn {
    pub design: String,
    pub work: Work,
    pub measure: Measure,
}

impl Turn {
    pub fn new<F>(
        design: impl Into<String>,
        work: Work,
        measure: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = anyhow::Result<Seen>> + Send + 'static,
    {
        Self { design: design.into(), work, measure: Box::new(move || Box::pin(measure())) }
    }
}

/// One design under one load: medians over the rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub design: String,
    pub work: Work,
    pub per_second: f64,
    /// The same until the read models had followed, where there are any.
    pub followed_per_second: f64,
    pub behind_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Refusals on the way to one success.
    pub refused_each: f64,
    /// In all rounds together.
    pub failed: u64,
    /// In some round the seats ran out before the time did.
    pub sold_out: bool,
    /// Of every round, a second.
    pub rounds: Vec<f64>,
}

/// Measures every turn once a round; each round begins with another one.
pub async fn take_turns(turns: &[Turn], pace: Pace, progress: &Progress) -> anyhow::Result<Vec<Line>> {
    progress.add_total((turns.len() * pace.rounds) as u64);
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); turns.len()];
    for round in 0..pace.rounds {
        for step in 0..turns.len() {
            let at = (round + step) % turns.len();
            let Turn { design, work, measure } = &turns[at];
            let one = Round::of(&measure().await.map_err(|e| e.context(format!("{design}, {work:?}")))?)?;
            let (load, rate) = (work.label(), one.per_second);
            progress.done(&format!("round {}: {design}, {load}: {rate:.0}/s", round + 1));
            rounds[at].push(one);
        }
    }
    Ok(turns.iter().zip(&rounds).map(|(turn, rounds)| line(&turn.design, turn.work, rounds)).collect())
}

/// The line of something that was measured in rounds elsewhere.
pub fn line_of(design: &str, work: Work, rounds: &[Seen]) -> anyhow::Result<Line> {
    let rounds: Vec<Round> = rounds.iter().map(Round::of).collect::<anyhow::Result<_>>()?;
    Ok(line(design, work, &rounds))
}

/// What one turn of one round comes to.
#[derive(Clone)]
struct Round {
    per_second: f64,
    followed: f64,
    behind_ms: f64,
    /// p50, p90, p99, max.
    latency_ms: [f64; 4],
    refused_each: f64,
    failed: u64,
    sold_out: bool,
}

impl Round {
    fn of(seen: &Seen) -> anyhow::Result<Self> {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 120_000_000, 3)?;
        for latency in &seen.latencies_us {
            histogram.saturating_record(u64::from(*latency).max(1));
        }
        let ms = |micros: u64| micros as f64 / 1e3;
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        let done = seen.done as f64;
        Ok(Self {
            per_second: done / seen.seconds,
            followed: done / (seen.seconds + seen.behind_seconds),
            behind_ms: seen.behind_seconds * 1e3,
            latency_ms: [at(0.5), at(0.9), at(0.99), ms(histogram.max())],
            refused_each: seen.refused as f64 / done.max(1.0),
            failed: seen.failed,
            sold_out: seen.sold_out,
        })
    }
}

fn line(design: &str, work: Work, rounds: &[Round]) -> Line {
    let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    Line {
        design: design.to_owned(),
        work,
        per_second: of(|r| r.per_second),
        followed_per_second: of(|r| r.followed),
        behind_ms: of(|r| r.behind_ms),
        p50_ms: of(|r| r.latency_ms[0]),
        p90_ms: of(|r| r.latency_ms[1]),
        p99_ms: of(|r| r.latency_ms[2]),
        max_ms: of(|r| r.latency_ms[3]),
        refused_each: of(|r| r.refused_each),
        failed: rounds.iter().map(|r| r.failed).sum(),
        sold_out: rounds.iter().any(|r| r.sold_out),
        rounds: rounds.iter().map(|r| r.per_second).collect(),
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    #[tokio::test]
    async fn designs_alternate_and_each_round_begins_with_another() {
        let order = Arc::new(Mutex::new(String::new()));
        let turn = |name: &'static str, done| {
            let order = order.clone();
            Turn::new(name, Work::Alone, move || {
                order.lock().unwrap().push_str(name);
                let latencies_us = vec![1_000; 3];
                async move { Ok(Seen { done, seconds: 2.0, latencies_us, ..Seen::default() }) }
            })
        };
        let turns = [turn("a", 2), turn("b", 4), turn("c", 6)];
        let pace = Pace { rounds: 3, time: Duration::ZERO };
        let lines = take_turns(&turns, pace, &Progress::silent()).await.unwrap();
        assert_eq!(*order.lock().unwrap(), "abcbcacab");
        assert_eq!(lines.iter().map(|l| l.per_second).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
        assert!((lines[0].p99_ms - 1.0).abs() < 0.01);
    }

    #[test]
    fn a_median_is_not_moved_by_one_bad_round() {
        assert_eq!(median(vec![5.0, 1.0, 4.0, 900.0, 3.0]), 4.0);
        assert!(median(Vec::new()).is_nan());
    }
}
