//! What was seen, for the eye and for programs: lines, and targets met or missed.

use std::fmt::Write;

use serde::Serialize;

use super::Pace;
use super::turns::{Line, Work};

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `hot`, `spread-http`, …: also the name of its plot.
    pub name: String,
    pub title: String,
    /// What is counted: bookings, reads, …
    pub unit: &'static str,
    pub rounds: usize,
    pub seconds: f64,
    pub lines: Vec<Line>,
    pub targets: Vec<Target>,
    pub notes: Vec<String>,
}

/// A figure that something was promised about.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    pub what: String,
    pub seen: f64,
    pub wanted: f64,
    /// Else at most.
    pub at_least: bool,
    pub met: bool,
}

impl Target {
    pub fn at_least(what: impl Into<String>, wanted: f64, seen: f64) -> Self {
        Self { what: what.into(), seen, wanted, at_least: true, met: seen >= wanted }
    }

    pub fn at_most(what: impl Into<String>, wanted: f64, seen: f64) -> Self {
        Self { what: what.into(), seen, wanted, at_least: false, met: seen <= wanted }
    }
}

impl Report {
    pub fn new(name: &str, title: impl Into<String>, unit: &'static str, pace: Pace) -> Self {
        Self {
            name: name.to_owned(),
            title: title.into(),
            unit,
            rounds: pace.rounds,
            seconds: pace.time.as_secs_f64(),
            lines: Vec::new(),
            targets: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The line of this design under this load.
    pub fn line(&self, design: &str, work: Work) -> Option<&Line> {
        self.lines.iter().find(|line| line.design == design && line.work == work)
    }

    /// The line of this design with the highest rate.
    pub fn best(&self, design: &str) -> Option<&Line> {
        let of = self.lines.iter().filter(|line| line.design == design);
        of.max_by(|a, b| a.per_second.total_cmp(&b.per_second))
    }

    /// States a ratio of two figures as a target, where both were measured.
    pub fn ratio(&mut self, what: &str, wanted: f64, over: Option<f64>, under: Option<f64>) {
        if let (Some(over), Some(under)) = (over, under) {
            self.targets.push(Target::at_least(what, wanted, over / under));
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "\n{}\n{} rounds of {:.1} s, medians\n\n{:<28} {:>8} {:>11} {:>9} {:>9} {:>9}\n",
            self.title,
            self.rounds,
            self.seconds,
            "",
            "load",
            format!("{}/s", self.unit),
            "p50 ms",
            "p99 ms",
            "max ms"
        );
        for line in &self.lines {
            let Line { design, work, per_second, p50_ms, p99_ms, max_ms, .. } = line;
            let load = work.label();
            let _ = write!(
                text,
                "{design:<28} {load:>8} {per_second:>11.0} {p50_ms:>9.2} {p99_ms:>9.2} {max_ms:>9.1}"
            );
            text += &remarks(line);
            text.push('\n');
        }
        if !self.targets.is_empty() {
            text.push('\n');
        }
        for Target { what, seen, wanted, at_least, met } in &self.targets {
            let (bound, met) =
                (if *at_least { "at least" } else { "at most" }, if *met { "met" } else { "MISSED" });
            let _ = writeln!(text, "{what:<64} {seen:>9.2}   {bound} {wanted}: {met}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text
    }
}

/// What of a line is not as usual.
fn remarks(line: &Line) -> String {
    let mut text = String::new();
    if line.behind_ms >= 1.0 {
        let (rate, behind) = (line.followed_per_second, line.behind_ms);
        let _ = write!(text, "  {rate:.0}/s with read models ({behind:.0} ms behind)");
    }
    if line.refused_each > 0.0 {
        let _ = write!(text, "  {:.2} refusals each", line.refused_each);
    }
    if line.failed > 0 {
        let _ = write!(text, "  {} FAILED", line.failed);
    }
    if line.sold_out {
        text += "  sold out early";
    }
    text
}

/// Where it was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub cpu: String,
    pub memory_mib: u64,
    /// One-minute load when the measuring began; others' work shows here.
    pub load_before: f64,
    pub at: String,
    pub optimised: bool,
}

impl Machine {
    pub fn look() -> Self {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let after = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).map(str::to_owned);
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned())).unwrap_or_default()
        };
        let memory = after(&read("/proc/meminfo"), "MemTotal");
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: after(&read("/proc/cpuinfo"), "model name"),
            memory_mib: memory.split(' ').next().and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024,
            load_before: read("/proc/loadavg").split(' ').next().and_then(|l| l.parse().ok()).unwrap_or(0.0),
            at: jiff::Timestamp::now().to_string(),
            optimised: !cfg!(debug_assertions),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cores, cpu, memory_mib, load_before, .. } = self;
        write!(f, "{cores} cores ({cpu}), {memory_mib} MiB, load before: {load_before:.2}")?;
        if self.optimised { Ok(()) } else { f.write_str("; NOT OPTIMISED: the figures mean nothing") }
    }
}
