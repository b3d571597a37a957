//! Whether S1 to S7 hold: the checker of histories over what customers were told, the journals and the books, and
//! `marquee verify` over the databases themselves, read models included.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use common::ShowId;
use marquee::launcher::Run;
use regional::show::{Event, Group};
use regional::verify::{self, Store};
use simulation::history::{self, Entry, History, Journal, Operation, Told, hex};

use crate::journals;
use crate::record::{Attempt, Kind, Outcome};

/// What was found; nothing wrong means that all seven hold.
pub struct Judgement {
    pub history: History,
    pub wrong: Vec<String>,
    pub entries: usize,
    pub compared: u64,
}

pub async fn judge(run: &Run, stores: &[Store], attempts: &[Attempt]) -> anyhow::Result<Judgement> {
    let mut journals = Vec::new();
    for store in stores {
        let read = journals::read(store).await;
        journals.extend(read.with_context(|| format!("the journals of {}", store.region))?);
    }
    let (books, mut wrong) = journals::books(run, &journals).await.context("the provider's books")?;
    wrong.iter_mut().for_each(|why| why.insert_str(0, "S5: "));
    let (operations, misplaced) = operations(attempts, &journals);
    wrong.extend(misplaced);
    let history = History { operations, journals, books: Some(books), models: Vec::new() };
    let verdict = history::check(&history);
    wrong.extend(verdict.wrong.iter().map(|found| {
        let show = found.show.map_or_else(String::new, |show| format!(" {show}:"));
        format!("{}:{show} {}", found.invariant, found.why)
    }));
    let report = verify::verify(stores, |_| {}).await.context("marquee verify")?;
    wrong.extend(report.breaches.iter().map(|breach| {
        let invariant = breach.rule.invariant().unwrap_or("--");
        format!(
            "{invariant}: {} in {}, entry {:?}: {}: {}",
            breach.show, breach.region, breach.seq, breach.rule, breach.detail
        )
    }));
    for (region, summary) in report.regions.iter().filter(|(_, summary)| summary.behind > 0) {
        wrong.push(format!("S6: the read models of {} shows in {region} do not follow", summary.behind));
    }
    Ok(Judgement { history, wrong, entries: verdict.entries, compared: report.compared })
}

/// Where each key stands, by show.
type Places<'a> = BTreeMap<ShowId, BTreeMap<String, (&'a Entry, u32, &'a Group)>>;

/// Attempts as the checker wants them. The API's answers tell the epoch and not the number, so the place of what
/// was acknowledged is looked up by its key, and what stands there must be what the answer told of.
fn operations(attempts: &[Attempt], journals: &[Journal]) -> (Vec<Operation>, Vec<String>) {
    let mut longest: BTreeMap<ShowId, &Journal> = BTreeMap::new();
    for journal in journals {
        let known = longest.entry(journal.show).or_insert(journal);
        if journal.committed > known.committed {
            *known = journal;
        }
    }
    let mut places = Places::new();
    let (mut operations, mut wrong) = (Vec::new(), Vec::new());
    let mut outcomes: BTreeSet<(ShowId, String)> = BTreeSet::new();
    for (show, journal) in longest {
        let keys = places.entry(show).or_default();
        for entry in journal.entries.iter().take_while(|entry| entry.seq <= journal.committed) {
            for (group, index) in entry.groups.iter().zip(0..) {
                let Some(key) = &group.key else { continue };
                keys.insert(hex(&key.id), (entry, index, group));
                if group.events.iter().any(|event| matches!(event, Event::Created(_))) {
                    operations.push(staged(show, hex(&key.id)));
                }
            }
            let events = entry.groups.iter().flat_map(|group| &group.events);
            outcomes.extend(events.filter_map(|event| match event {
                Event::PaymentCompleted { payment, .. } => Some((show, payment.to_string())),
                _ => None,
            }));
        }
    }
    for attempt in attempts.iter().filter(|attempt| attempt.kind != Kind::Look) {
        let place = attempt.key.as_ref().and_then(|key| places.get(&attempt.show)?.get(key));
        let outcome = match &attempt.outcome {
            Outcome::Refused { code } => Told::Refused { code: code.clone() },
            Outcome::Unknown { .. } => Told::Unknown,
            Outcome::Ok { epoch, id, status, replayed } => {
                let (seq, index) = place.map_or((u64::MAX, 0), |(entry, index, _)| (entry.seq, *index));
                let names = |group: &Group| {
                    serde_json::to_string(&group.events).is_ok_and(|text| text.contains(id.as_str()))
                };
                if place.is_some_and(|(.., group)| !names(group)) {
                    wrong.push(format!(
                        "S2: {}: {id} was acknowledged, entry {seq} is about another",
                        attempt.show
                    ));
                }
                let paid = attempt.kind == Kind::Pay && status == "completed";
                if paid && !outcomes.contains(&(attempt.show, id.clone())) {
                    wrong.push(format!("S2: {}: {id} was said to be completed, and is not", attempt.show));
                }
                // A payment's answer is given after its second entry, perhaps by a later leader.
                let repeated = *replayed || attempt.kind == Kind::Pay;
                Told::Ok { epoch: *epoch, seq, index, repeated }
            }
        };
        operations.push(Operation {
            client: attempt.client,
            show: attempt.show,
            key: attempt.key.clone(),
            what: format!("{:?}", attempt.kind).to_lowercase(),
            start: u64::try_from(attempt.start.as_millis()).unwrap_or(u64::MAX),
            end: u64::try_from(attempt.end.as_millis()).unwrap_or(u64::MAX),
            outcome,
        });
    }
    (operations, wrong)
}

/// Whether a history is rejected once an acknowledged entry is no longer what was asked for: a judge that calls
/// everything sound would not notice.
pub fn notices(mut history: History) -> bool {
    let done = history.operations.iter().find_map(|operation| match operation.outcome {
        Told::Ok { seq, index, .. } => Some((operation.show, seq, index)),
        _ => None,
    });
    let Some((show, seq, index)) = done else { return false };
    for journal in history.journals.iter_mut().filter(|journal| journal.show == show) {
        for entry in journal.entries.iter_mut().filter(|entry| entry.seq == seq) {
            if let Some(group) = entry.groups.get_mut(index as usize) {
                group.key = None;
            }
        }
    }
    history::check(&history).names().contains("S2")
}

/// Shows were made before the first customer came, by somebody whom nobody recorded.
fn staged(show: ShowId, key: String) -> Operation {
    let what = "create".to_owned();
    Operation { client: u32::MAX, show, key: Some(key), what, start: 0, end: 0, outcome: Told::Unknown }
}
