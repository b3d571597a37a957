//! What a run comes to: faults with what they did to customers, as a table for people and as files.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use common::ShowId;
use serde::Serialize;

use crate::faults::{FILL_DISK, Planned};
use crate::record::{Attempt, Kind, Outcome};
use crate::rooms::{Apart, REGIONS};

/// A fault as it went.
#[derive(Clone, Debug, Serialize)]
pub struct Happened {
    pub planned: Planned,
    pub name: String,
    /// On the attempts' clock: when it had been done, and when it had been taken back.
    pub begun: Duration,
    pub ended: Duration,
    /// Of the region that it concerned, when it began; all where it concerned none.
    pub shows: Vec<ShowId>,
    /// What went otherwise than planned.
    pub notes: Vec<String>,
}

/// What customers saw of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    pub ok: usize,
    pub refused: usize,
    pub unknown: usize,
    /// From the fault to the first success for one of the shows, and to that of the last of them.
    pub first: Option<Duration>,
    pub last: Option<Duration>,
    /// Shows without a success until the next fault.
    pub without: usize,
}

/// `until`: when the next fault began.
pub fn seen(fault: &Happened, until: Duration, attempts: &[Attempt]) -> Seen {
    let mut seen = Seen::default();
    let mut first: BTreeMap<ShowId, Duration> = BTreeMap::new();
    for attempt in attempts.iter().filter(|attempt| attempt.start >= fault.begun && attempt.start < until) {
        if attempt.kind == Kind::Look || !fault.shows.contains(&attempt.show) {
            continue;
        }
        match attempt.outcome {
            Outcome::Ok { .. } => seen.ok += 1,
            Outcome::Refused { .. } => seen.refused += 1,
            Outcome::Unknown { .. } => seen.unknown += 1,
        }
        if matches!(attempt.outcome, Outcome::Ok { .. }) {
            let after = attempt.end.saturating_sub(fault.begun);
            let known = first.entry(attempt.show).or_insert(after);
            *known = after.min(*known);
        }
    }
    seen.first = first.values().min().copied();
    seen.last = first.values().max().copied();
    seen.without = fault.shows.len() - first.len();
    seen
}

/// All of a run.
pub struct Told<'a> {
    pub apart: Apart,
    pub seed: u64,
    pub lasting: Duration,
    /// How long customers came.
    pub sold_for: Duration,
    pub rate: u32,
    pub left_out: u32,
    pub attempts: &'a [Attempt],
    pub faults: &'a [Happened],
    pub packets: (u64, u64),
    pub entries: usize,
    pub compared: u64,
    pub unsettled: usize,
    pub wrong: &'a [String],
    /// Whether the judge sees what is wrong.
    pub notices: bool,
    /// From the last healing until every show served through every gateway.
    pub healed_after: Option<Duration>,
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "never".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()))
}

impl Told<'_> {
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let count =
            |wanted: fn(&Outcome) -> bool| self.attempts.iter().filter(|a| wanted(&a.outcome)).count();
        let (ok, refused) = (
            count(|outcome| matches!(outcome, Outcome::Ok { .. })),
            count(|outcome| matches!(outcome, Outcome::Refused { .. })),
        );
        match self.apart {
            Apart::Namespaces => {}
            Apart::Proxies => {
                writeln!(out, "- on loopback, with proxies between regions; `{FILL_DISK}` is left out")?
            }
        }
        let all = self.attempts.len();
        let per_second = all as f64 / self.sold_for.as_secs_f64().max(0.001);
        writeln!(out, "# chaos, seed {}\n", self.seed)?;
        writeln!(
            out,
            "- {} s with {} faults; again with `--seed {}`",
            self.lasting.as_secs(),
            self.faults.len(),
            self.seed
        )?;
        writeln!(
            out,
            "- {all} commands, {per_second:.0} a second ({} aimed at; {} were not begun, as 400 waited for their answers): \
             {ok} ok, {refused} refused, {} unknown, of which {} stayed so",
            self.rate,
            self.left_out,
            all - ok - refused,
            self.unsettled
        )?;
        writeln!(
            out,
            "- {} packets passed the network, {} were lost or met a cut",
            self.packets.0, self.packets.1
        )?;
        writeln!(
            out,
            "- {} entries in {} regions' journals, {} shows compared",
            self.entries,
            REGIONS.len(),
            self.compared
        )?;
        writeln!(
            out,
            "- after the last fault every show served through every gateway within {}",
            seconds(self.healed_after)
        )?;
        let eyes = if self.notices { "is" } else { "is NOT" };
        writeln!(out, "- the same history with one acknowledged entry made another's {eyes} rejected")?;
        writeln!(out, "- **{} breaches of S1 to S7**\n", self.wrong.len())?;
        for why in self.wrong.iter().take(200) {
            writeln!(out, "  - {why}")?;
        }
        writeln!(
            out,
            "| at | fault | lasted | shows | ok | refused | unknown | first success | of the last show | shows without |"
        )?;
        writeln!(out, "| --: | --- | --: | --: | --: | --: | --: | --: | --: | --: |")?;
        for (no, fault) in self.faults.iter().enumerate() {
            let until = self.faults.get(no + 1).map_or(Duration::MAX, |next| next.begun);
            let seen = seen(fault, until, self.attempts);
            let lasted = fault.ended.saturating_sub(fault.begun);
            writeln!(
                out,
                "| {:.0} s | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                fault.begun.as_secs_f64(),
                fault.name,
                seconds(Some(lasted)),
                fault.shows.len(),
                seen.ok,
                seen.refused,
                seen.unknown,
                seconds(seen.first),
                seconds(seen.last),
                seen.without
            )?;
        }
        for fault in self.faults.iter().filter(|fault| !fault.notes.is_empty()) {
            writeln!(out, "\n{} at {:.0} s:", fault.name, fault.begun.as_secs_f64())?;
            for note in &fault.notes {
                writeln!(out, "- {note}")?;
            }
        }
        writeln!(out, "\nWhat kept customers from an answer:\n")?;
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for attempt in self.attempts {
            if let Outcome::Unknown { why } = &attempt.outcome {
                *reasons.entry(why).or_default() += 1;
            }
        }
        for (why, count) in reasons {
            writeln!(out, "- {count} × {why}")?;
        }
        writeln!(out, "\nWhat customers were refused for:\n")?;
        let mut codes: BTreeMap<(String, &str), usize> = BTreeMap::new();
        for attempt in self.attempts {
            if let Outcome::Refused { code } = &attempt.outcome {
                *codes.entry((format!("{:?}", attempt.kind), code)).or_default() += 1;
            }
        }
        for ((kind, code), count) in codes {
            writeln!(out, "- {count} × {kind}: {code}")?;
        }
        Ok(())
    }

    /// `report.md` and what it rests on.
    pub fn write_files(&self, folder: &Path, history: &simulation::history::History) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("report.md"), self.to_markdown())?;
        std::fs::write(folder.join("faults.json"), serde_json::to_vec_pretty(self.faults)?)?;
        let file = std::io::BufWriter::new(std::fs::File::create(folder.join("attempts.json"))?);
        serde_json::to_writer(file, self.attempts)?;
        let file = std::io::BufWriter::new(std::fs::File::create(folder.join("history.json"))?);
        Ok(serde_json::to_writer(file, history)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Fault;

    #[test]
    fn the_first_success_after_a_fault_is_counted_from_it_show_by_show() {
        let shows: Vec<ShowId> = (1..=3).map(|n| ShowId(uuid::Uuid::from_u128(n))).collect();
        let secs = Duration::from_secs;
        let attempt = |show: usize, start: u64, end: u64, outcome: Outcome| Attempt {
            client: 0,
            show: shows[show],
            key: None,
            kind: Kind::Reserve,
            gateway: 0,
            start: secs(start),
            end: secs(end),
            outcome,
        };
        let ok = || Outcome::Ok { epoch: 1, id: String::new(), status: String::new(), replayed: false };
        let unknown = || Outcome::Unknown { why: "503".into() };
        let attempts = [
            attempt(0, 9, 11, ok()),
            attempt(0, 10, 14, unknown()),
            attempt(0, 15, 16, ok()),
            attempt(1, 11, 13, Outcome::Refused { code: "seats-unavailable".into() }),
            attempt(2, 12, 13, unknown()),
            attempt(2, 30, 31, ok()),
        ];
        let planned = Planned { at: secs(10), lasts: secs(5), fault: Fault::KillRegion(0) };
        let (name, notes) = (planned.fault.to_string(), Vec::new());
        let fault = Happened { planned, name, begun: secs(10), ended: secs(15), shows: shows.clone(), notes };
        let seen = seen(&fault, secs(30), &attempts);
        assert_eq!((seen.ok, seen.refused, seen.unknown), (1, 1, 2));
        assert_eq!((seen.first, seen.last, seen.without), (Some(secs(6)), Some(secs(6)), 2));
    }
}
