//! What was measured: figures with all their rounds, as a table, as JSON, and as a plot a part.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use marquee::bench::{Machine, Target};
use serde::Serialize;

use super::plot;

/// One figure, by round.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub what: String,
    pub unit: &'static str,
    pub rounds: Vec<f64>,
    pub median: f64,
    pub target: Option<Target>,
}

/// Figures that belong together.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Also the name of its plot.
    pub name: String,
    pub title: String,
    pub figures: Vec<Figure>,
    pub notes: Vec<String>,
}

pub fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value below which so many of 100 are.
pub fn percentile(of: &[f64], percent: usize) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or(f64::NAN)
}

pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Part {
    pub fn new(name: impl Into<String>, title: impl Into<String>) -> Self {
        Self { name: name.into(), title: title.into(), figures: Vec::new(), notes: Vec::new() }
    }

    pub fn add(&mut self, what: impl Into<String>, unit: &'static str, rounds: Vec<f64>) {
        let figure = Figure { what: what.into(), unit, median: median(&rounds), rounds, target: None };
        self.figures.push(figure);
    }

    /// The figure that was added last is to be no more than this.
    pub fn at_most(&mut self, wanted: f64) {
        if let Some(figure) = self.figures.last_mut() {
            figure.target = Some(Target::at_most(figure.what.clone(), wanted, figure.median));
        }
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub fn to_markdown(&self) -> String {
        let mut text =
            format!("\n{}\n\n| what | median | rounds | target |\n| --- | --: | --- | --- |\n", self.title);
        for Figure { what, unit, rounds, median, target } in &self.figures {
            let rounds: Vec<String> = rounds.iter().map(|value| short(*value)).collect();
            let target = target.as_ref().map_or_else(String::new, |target| {
                let met = if target.met { "met" } else { "MISSED" };
                format!("{} {unit}: {met}", short(target.wanted))
            });
            // Writing to a string cannot fail.
            let _ =
                writeln!(text, "| {what} | {} {unit} | {} | {target} |", short(*median), rounds.join(", "));
        }
        for note in &self.notes {
            let _ = writeln!(text, "\n{note}");
        }
        text
    }
}

/// Three digits at least.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Everything of a run, kept at once, also when something fails later.
#[derive(Debug, Serialize)]
pub struct Results {
    machine: Machine,
    parts: Vec<Part>,
    #[serde(skip)]
    out: PathBuf,
}

impl Results {
    pub fn new(machine: Machine, out: &Path) -> Self {
        Self { machine, parts: Vec::new(), out: out.to_owned() }
    }

    pub fn add(&mut self, part: Part) -> anyhow::Result<()> {
        eprintln!("{}", part.to_markdown());
        std::fs::create_dir_all(&self.out)?;
        std::fs::write(self.out.join(format!("{}.svg", part.name)), plot::svg(&part))?;
        self.parts.push(part);
        std::fs::write(self.out.join("figures.json"), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_percentiles_and_targets() {
        let of = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!((median(&of), percentile(&of, 99), percentile(&of, 0)), (3.0, 5.0, 1.0));
        assert!(median(&[]).is_nan() && percentile(&[], 50).is_nan());
        let mut part = Part::new("x", "A title");
        part.add("first success", "s", vec![4.0, 6.0, 5.5]);
        part.at_most(5.0);
        part.add("moves", "a second", vec![123.4]);
        let text = part.to_markdown();
        assert!(text.contains("| first success | 5.50 s | 4.00, 6.00, 5.50 | 5.00 s: MISSED |"), "{text}");
        assert!(text.contains("| moves | 123 a second | 123 |  |"), "{text}");
    }
}
