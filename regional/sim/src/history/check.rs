//! The verdict on a history.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use common::ShowId;
use regional::show::Event;

use super::seats::Hall;
use super::{Ballot, Entry, History, Journal, Millis, Operation, Told, books};

/// A read without a stamp shows all that was acknowledged this long before it began; a little more than the
/// read lease, for clocks.
const LEASE: Millis = 2_000;

/// What does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub invariant: &'static str,
    pub show: Option<ShowId>,
    pub why: String,
}

#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub wrong: Vec<Wrong>,
    pub operations: usize,
    pub entries: usize,
}

impl Verdict {
    pub fn is_sound(&self) -> bool {
        self.wrong.is_empty()
    }

    pub fn names(&self) -> BTreeSet<&'static str> {
        self.wrong.iter().map(|wrong| wrong.invariant).collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operations, entries) = (self.operations, self.entries);
        writeln!(f, "{operations} operations, {entries} entries, {} wrong", self.wrong.len())?;
        for Wrong { invariant, show, why } in &self.wrong {
            let show = show.map_or_else(String::new, |show| format!(" {show}:"));
            writeln!(f, "  {invariant}:{show} {why}")?;
        }
        Ok(())
    }
}

/// Decides S1 to S7.
pub fn check(history: &History) -> Verdict {
    let mut checker = Checker { history, verdict: Verdict::default(), halls: BTreeMap::new() };
    checker.verdict.operations = history.operations.len();
    let mut shows: BTreeMap<ShowId, Vec<&Journal>> = BTreeMap::new();
    for journal in &history.journals {
        checker.verdict.entries += journal.entries.len();
        shows.entry(journal.show).or_default().push(journal);
    }
    for (show, journals) in &shows {
        checker.show(*show, journals);
    }
    for operation in &history.operations {
        if !shows.contains_key(&operation.show) {
            checker.wrong("S2", operation.show, "nobody has its journal".into());
        }
    }
    if let Some(books) = &history.books {
        for (show, why) in books::compare(books, &checker.halls) {
            checker.wrong("S5", show, why);
        }
    }
    checker.verdict
}

struct Checker<'a> {
    history: &'a History,
    verdict: Verdict,
    halls: BTreeMap<ShowId, Hall>,
}

impl Checker<'_> {
    fn wrong(&mut self, invariant: &'static str, show: ShowId, why: String) {
        self.verdict.wrong.push(Wrong { invariant, show: Some(show), why });
    }

    fn show(&mut self, show: ShowId, journals: &[&Journal]) {
        for journal in journals {
            self.numbers_and_ballots(journal);
        }
        self.same_prefixes(show, journals);
        let Some(longest) = journals.iter().max_by_key(|journal| journal.committed) else { return };
        let committed: Vec<&Entry> =
            longest.entries.iter().take_while(|entry| entry.seq <= longest.committed).collect();
        let mut hall = Hall::default();
        for entry in &committed {
            for group in &entry.groups {
                if let Err((invariant, why)) = hall.read(group) {
                    self.wrong(invariant, show, format!("entry {}: {why}", entry.seq));
                    return;
                }
            }
        }
        self.keys(show, &committed);
        self.answers(show, &committed);
        self.reads(show);
        self.models(show, &committed);
        self.halls.insert(show, hall);
    }

    /// Entries are numbered without a gap; ballots only rise, and each begins with the entry that says so.
    fn numbers_and_ballots(&mut self, journal: &Journal) {
        let (mut last, mut led) = (Ballot::default(), BTreeSet::new());
        for (entry, expected) in journal.entries.iter().zip(1..) {
            let at = format!("region {}, entry {}", journal.region, entry.seq);
            if entry.seq != expected {
                self.wrong("S4", journal.show, format!("{at}: expected number {expected}"));
            }
            let rank = |ballot: &Ballot| (ballot.epoch, ballot.attempt, ballot.session);
            if rank(&entry.ballot) < rank(&last) {
                self.wrong("S3", journal.show, format!("{at}: a lower ballot follows"));
            }
            let leds: Vec<Ballot> =
                entry.groups.iter().flat_map(|group| &group.events).filter_map(led_by).collect();
            for ballot in &leds {
                if !led.insert(rank(ballot)) || *ballot != entry.ballot {
                    self.wrong("S3", journal.show, format!("{at}: {ballot:?} leads twice, or elsewhere"));
                }
            }
            if entry.ballot != last && leds.is_empty() {
                self.wrong("S3", journal.show, format!("{at}: a ballot that never began to lead"));
            }
            last = entry.ballot;
        }
        if journal.committed > journal.entries.len() as u64 {
            self.wrong("S4", journal.show, format!("region {}: committed beyond its end", journal.region));
        }
    }

    /// Committed parts are equal, hash for hash (S4); one (number, ballot) never stands for two entries (S3).
    fn same_prefixes(&mut self, show: ShowId, journals: &[&Journal]) {
        for (no, one) in journals.iter().enumerate() {
            for other in &journals[no + 1..] {
                for (a, b) in one.entries.iter().zip(&other.entries) {
                    let committed = a.seq <= one.committed.min(other.committed);
                    let same = a.hash == b.hash && a.groups == b.groups && a.ballot == b.ballot;
                    let at = format!("entry {}, in {} and {}", a.seq, one.region, other.region);
                    if committed && !same {
                        self.wrong("S4", show, format!("{at}: not the same"));
                        break;
                    }
                    if !same && a.ballot == b.ballot {
                        self.wrong("S3", show, format!("{at}: one ballot wrote two"));
                        break;
                    }
                }
            }
        }
    }

    /// Each key stands in one group, and was asked for by somebody (S7).
    fn keys(&mut self, show: ShowId, committed: &[&Entry]) {
        let mut at: BTreeMap<String, (u64, usize)> = BTreeMap::new();
        let history = self.history;
        let of_show = history.operations.iter().filter(|operation| operation.show == show);
        let asked: BTreeSet<&str> = of_show.filter_map(|operation| operation.key.as_deref()).collect();
        for entry in committed {
            for (index, group) in entry.groups.iter().enumerate() {
                let Some(key) = &group.key else { continue };
                let key = hex(&key.id);
                if !asked.contains(key.as_str()) {
                    self.wrong("S7", show, format!("entry {}: nobody asked with {key}", entry.seq));
                }
                if let Some(before) = at.insert(key.clone(), (entry.seq, index)) {
                    self.wrong("S7", show, format!("{key} took effect at {before:?} and {}", entry.seq));
                }
            }
        }
        let mut done: BTreeMap<&str, &Operation> = BTreeMap::new();
        let mut refused: BTreeMap<&str, bool> = BTreeMap::new();
        for operation in self.history.operations.iter().filter(|operation| operation.show == show) {
            let Some(key) = operation.key.as_deref() else { continue };
            let is_no = matches!(operation.outcome, Told::Refused { .. } | Told::NotDone);
            *refused.entry(key).or_insert(true) &= is_no;
            if let Told::Ok { seq, index, .. } = operation.outcome
                && let Some(before) = done.insert(key, operation)
                && let Told::Ok { seq: other, index: at, .. } = before.outcome
                && (seq, index) != (other, at)
            {
                self.wrong("S7", show, format!("{key} was said to be done at {other} and at {seq}"));
            }
        }
        for (key, _) in refused.iter().filter(|(_, refused)| **refused) {
            if let Some((seq, _)) = at.get(*key) {
                self.wrong("S7", show, format!("{key} was refused, and stands at {seq}"));
            }
        }
    }

    fn operations(&self, show: ShowId) -> impl Iterator<Item = &Operation> {
        self.history.operations.iter().filter(move |operation| operation.show == show)
    }

    /// What was acknowledged stands where it was said to (S2), in the order in which it was said.
    fn answers(&mut self, show: ShowId, committed: &[&Entry]) {
        let mut found = Vec::new();
        let mut done: Vec<(Millis, Millis, u64, u64)> = Vec::new();
        for operation in self.operations(show) {
            let Told::Ok { epoch, seq, index, repeated } = &operation.outcome else { continue };
            let what = format!("{} of client {}", operation.what, operation.client);
            let entry = usize::try_from(*seq).ok().and_then(|seq| committed.get(seq.checked_sub(1)?));
            let Some(entry) = entry else {
                found.push(("S2", format!("{what}: entry {seq} is gone")));
                continue;
            };
            let group = entry.groups.get(*index as usize);
            let key = group.and_then(|group| group.key.as_ref()).map(|key| hex(&key.id));
            if group.is_none() || (operation.key.is_some() && key != operation.key) {
                found.push(("S2", format!("{what}: entry {seq} is another's")));
            }
            let is_epoch =
                if *repeated { *epoch >= entry.ballot.epoch } else { *epoch == entry.ballot.epoch };
            if !is_epoch {
                found.push(("S2", format!("{what}: epoch {epoch}, the entry's is {}", entry.ballot.epoch)));
            }
            if !*repeated {
                done.push((operation.start, operation.end, *seq, *epoch));
            }
        }
        // Who began after another was answered stands behind it.
        done.sort_by_key(|(_, end, ..)| *end);
        let mut starts: Vec<_> = done.clone();
        starts.sort_by_key(|(start, ..)| *start);
        let (mut ended, mut highest) = (done.iter().peekable(), (0, 0));
        for (start, _, seq, epoch) in starts {
            while let Some((.., seq, epoch)) = ended.next_if(|(_, end, ..)| *end < start) {
                highest = (highest.0.max(*seq), highest.1.max(*epoch));
            }
            if seq < highest.0 || epoch < highest.1 {
                found.push(("S2", format!("entry {seq}, asked for later, stands before {}", highest.0)));
            }
        }
        for (invariant, why) in found {
            self.wrong(invariant, show, why);
        }
    }

    /// A read without a stamp is no older than the lease.
    fn reads(&mut self, show: ShowId) {
        let mut acknowledged: Vec<(Millis, u64)> = self
            .operations(show)
            .filter_map(|operation| match operation.outcome {
                Told::Ok { seq, .. } => Some((operation.end, seq)),
                _ => None,
            })
            .collect();
        acknowledged.sort_unstable();
        let mut stale = Vec::new();
        for operation in self.operations(show) {
            let Told::Read { seq, stamped: false, .. } = operation.outcome else { continue };
            let before = acknowledged.iter().take_while(|(end, _)| end + LEASE < operation.start);
            let known = before.map(|(_, seq)| *seq).max().unwrap_or(0);
            if seq < known {
                stale.push(format!("a read without a stamp shows {seq}, long after {known}"));
            }
        }
        for why in stale {
            self.wrong("S2", show, why);
        }
    }

    /// Read models are what the committed journal comes to (S6).
    fn models(&mut self, show: ShowId, committed: &[&Entry]) {
        for model in self.history.models.iter().filter(|model| model.show == show) {
            let at = format!("the read models of {}", model.region);
            if model.upto > committed.len() as u64 {
                self.wrong("S6", show, format!("{at} are ahead of what is committed"));
                continue;
            }
            let mut hall = Hall::default();
            let read = committed.iter().take_while(|entry| entry.seq <= model.upto);
            let groups = read.flat_map(|entry| &entry.groups);
            let _ = groups.map(|group| hall.read(group)).collect::<Result<Vec<()>, _>>();
            let reservations = hall.reservations.iter().map(|(id, held)| (*id, held.now.clone()));
            let payments = hall.payments.iter().map(|(id, paid)| (*id, paid.now.clone()));
            if model.reservations != reservations.collect() {
                self.wrong("S6", show, format!("{at}: other reservations"));
            }
            if model.payments != payments.collect() {
                self.wrong("S6", show, format!("{at}: other payments"));
            }
        }
    }
}

fn led_by(event: &Event) -> Option<Ballot> {
    match event {
        Event::Led { epoch, session, attempt } => {
            Some(Ballot { epoch: *epoch, attempt: *attempt, session: *session })
        }
        _ => None,
    }
}

/// As histories write a key.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
