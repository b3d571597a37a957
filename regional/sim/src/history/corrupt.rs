//! Sound histories, each damaged in one way: the checker must say so, and for the right reason.

use common::{PaymentId, ReservationId, ShowId};
use regional::show::{Event, Group};

use super::*;

/// One way to damage a history; none: there was nothing in it to damage so.
type Damage = fn(&mut History) -> Option<()>;

/// What is done, the invariant that it breaks, and how.
const DAMAGES: &[(&str, &str, Damage)] = &[
    ("an acknowledged entry is in no journal", "S2", lost_everywhere),
    ("a show has no journal any more", "S2", no_journal),
    ("an answer names the place behind its own", "S2", |h| place(h, |seq, _, _| *seq += 1)),
    ("an answer names another group", "S2", |h| place(h, |_, index, _| *index += 40)),
    ("an answer comes of a later leader than its entry", "S2", |h| place(h, |_, _, epoch| *epoch += 1)),
    ("two answers are exchanged", "S2", exchanged),
    ("a read without a stamp shows the beginning", "S2", old_read),
    ("a region lacks its last committed entry", "S4", |h| one_journal(h, |j| j.entries.pop().map(drop))),
    ("a region holds a group less", "S4", |h| {
        one_journal(h, |j| j.entries.last_mut()?.groups.pop().map(drop))
    }),
    ("a region holds another hash", "S4", |h| {
        one_journal(h, |j| j.entries.last_mut().map(|e| e.hash.push('0')))
    }),
    ("a region's entry has another time", "S4", |h| one_journal(h, another_time)),
    ("a number is missing", "S4", |h| one_journal(h, |j| j.entries.last_mut().map(|e| e.seq += 1))),
    ("a seat is reserved twice", "S1", |h| again(h, |event| matches!(event, Event::Reserved { .. }), true)),
    ("a taken seat is blocked", "S1", blocked),
    ("seats are changed onto a taken one", "S1", changed),
    ("a reservation that nobody made ends", "S1", lapsed),
    ("a reservation is made twice", "S7", made_twice),
    ("a payment is started twice", "S7", |h| again(h, |e| matches!(e, Event::PaymentStarted { .. }), false)),
    ("a key takes effect twice", "S7", key_twice),
    ("a key was done at two places", "S7", two_places),
    ("what was refused stands in the journal", "S7", refused),
    ("what was surely not done stands in the journal", "S7", not_done),
    ("nobody asked for it", "S7", nobody),
    ("a ballot begins to lead twice", "S3", |h| again(h, |event| matches!(event, Event::Led { .. }), false)),
    ("a lower ballot follows", "S3", |h| last_ballot(h, |ballot| ballot.epoch = 0)),
    ("a ballot writes that never began to lead", "S3", |h| last_ballot(h, |ballot| ballot.attempt += 1)),
    ("one ballot writes two entries of one number", "S3", two_tails),
    ("money came that no journal knows", "S5", unknown_charge),
    ("money came twice", "S5", |h| {
        books(h, |b| b.charges.iter().find(|c| c.captured).cloned().map(|c| b.charges.push(c)))
    }),
    ("money came over another amount", "S5", |h| {
        books(h, |b| b.charges.iter_mut().find(|c| c.captured).map(|c| c.amount += 1))
    }),
    ("money that came did not", "S5", |h| {
        books(h, |b| b.charges.iter_mut().find(|c| c.captured).map(|c| c.captured = false))
    }),
    ("money came for a payment that failed", "S5", |h| {
        books(h, |b| b.charges.iter_mut().find(|c| !c.captured).map(|c| c.captured = true))
    }),
    ("money that went back did not", "S5", |h| books(h, |b| b.refunds.pop().map(drop))),
    ("money went back twice", "S5", |h| books(h, |b| b.refunds.first().cloned().map(|r| b.refunds.push(r)))),
    ("money goes back that never came", "S5", refunded_too_much),
    ("a payment has no outcome", "S5", open_payment),
    ("a read model holds another seat", "S6", |h| {
        model(h, |m| m.reservations.values_mut().next().map(|r| r.seats.push(99)))
    }),
    ("a read model has another status", "S6", |h| {
        model(h, |m| m.payments.values_mut().next().map(|p| p.status = "failed!".into()))
    }),
    ("a read model forgot a payment", "S6", |h| model(h, |m| m.payments.pop_first().map(drop))),
    ("a read model is ahead of the journal", "S6", |h| {
        model(h, |m| {
            m.upto += 1_000;
            Some(())
        })
    }),
];

#[test]
fn every_damage_is_seen_for_what_it_is() {
    let sound: Vec<History> = (1..=60)
        .map(|seed| crate::run(seed, None, false))
        .filter(|run| run.broken.is_none())
        .map(|run| run.history)
        .collect();
    assert!(DAMAGES.len() >= 20 && sound.len() > 40);
    for (what, expected, damage) in DAMAGES {
        let mut tried = 0;
        for history in &sound {
            let mut damaged = history.clone();
            if damage(&mut damaged).is_none() {
                continue;
            }
            tried += 1;
            let verdict = check(&damaged);
            assert!(verdict.names().contains(expected), "{what}: expected {expected}, not {verdict}");
            if tried == 3 {
                break;
            }
        }
        assert!(tried > 0, "no history could be damaged so: {what}");
    }
    for history in &sound {
        assert!(check(history).is_sound());
    }
}

#[test]
fn histories_can_be_stored() {
    let history = crate::run(1, None, false).history;
    let text = serde_json::to_string(&history).unwrap();
    let read: History = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    assert!(check(&read).is_sound());
}

/// The journal whose committed part reaches farthest, of the show that has most of them.
fn longest(history: &History) -> Option<usize> {
    (0..history.journals.len()).max_by_key(|at| history.journals[*at].committed)
}

/// Does something to the committed end of one region's journal, where another holds as much.
fn one_journal(history: &mut History, act: fn(&mut Journal) -> Option<()>) -> Option<()> {
    let (show, committed) =
        longest(history).map(|at| (history.journals[at].show, history.journals[at].committed))?;
    let mut same = history.journals.iter_mut().filter(|j| j.show == show && j.committed == committed);
    let journal = same.next()?;
    same.next()?;
    journal.entries.truncate(usize::try_from(committed).ok()?);
    act(journal)
}

/// One more committed entry, in all regions alike, under the ballot of the last.
fn append(history: &mut History, show: ShowId, groups: Vec<Group>) -> Option<()> {
    let at = (0..history.journals.len())
        .filter(|at| history.journals[*at].show == show)
        .max_by_key(|at| history.journals[*at].committed)?;
    let mut entries = history.journals[at].entries.clone();
    entries.truncate(usize::try_from(history.journals[at].committed).ok()?);
    let (seq, ballot) = (entries.len() as u64 + 1, entries.last()?.ballot);
    entries.push(Entry { seq, ballot, hash: "damage".into(), groups });
    for journal in history.journals.iter_mut().filter(|journal| journal.show == show) {
        (journal.entries, journal.committed) = (entries.clone(), seq);
    }
    Some(())
}

fn committed(history: &History) -> impl Iterator<Item = (ShowId, &Entry)> {
    let journal = longest(history).map(|at| &history.journals[at]);
    journal.into_iter().flat_map(|j| {
        let upto = j.committed;
        j.entries.iter().take_while(move |entry| entry.seq <= upto).map(|entry| (j.show, entry))
    })
}

fn find(history: &History, wanted: impl Fn(&Event) -> bool) -> Option<(ShowId, Group)> {
    committed(history).find_map(|(show, entry)| {
        let group = entry.groups.iter().find(|group| group.events.iter().any(&wanted))?;
        Some((show, group.clone()))
    })
}

/// A live reservation with seats, as the journal's end has it.
fn held(history: &History) -> Option<(ShowId, ReservationId, Vec<u32>)> {
    let mut hall = seats::Hall::default();
    let mut of = None;
    for (show, entry) in committed(history) {
        of = Some(show);
        entry.groups.iter().for_each(|group| drop(hall.read(group)));
    }
    let live = hall.reservations.into_iter().find(|(_, held)| !held.now.seats.is_empty())?;
    Some((of?, live.0, live.1.now.seats))
}

fn group(history: &History, events: Vec<Event>) -> Option<Group> {
    let at = committed(history).last()?.1.groups.last()?.at;
    Some(Group { at, by: None, key: None, trace: None, from: None, events })
}

/// The same event once more; of a reservation under another name, so that only its seats are the same.
fn again(history: &mut History, wanted: fn(&Event) -> bool, renamed: bool) -> Option<()> {
    let (show, of) = if renamed {
        let (show, id, _) = held(history)?;
        find(history, |event| matches!(event, Event::Reserved { reservation, .. } if *reservation == id))
            .map(|(_, group)| (show, group))?
    } else {
        find(history, wanted)?
    };
    let mut event = of.events.into_iter().find(wanted)?;
    if let (true, Event::Reserved { reservation, seats, .. }) = (renamed, &mut event) {
        let (_, _, now) = held(history)?;
        *reservation = ReservationId::new(show, of.at, 4_711);
        seats.retain(|line| now.contains(&line.seat));
        if seats.is_empty() {
            return None;
        }
    }
    let group = group(history, vec![event])?;
    append(history, show, vec![group])
}

fn lost_everywhere(history: &mut History) -> Option<()> {
    let (show, seq) = history.operations.iter().find_map(|operation| match operation.outcome {
        Told::Ok { seq, .. } => Some((operation.show, seq)),
        _ => None,
    })?;
    for journal in history.journals.iter_mut().filter(|journal| journal.show == show) {
        journal.entries.truncate(usize::try_from(seq - 1).ok()?);
        journal.committed = journal.committed.min(seq - 1);
    }
    Some(())
}

fn no_journal(history: &mut History) -> Option<()> {
    let show = history.operations.first()?.show;
    history.journals.retain(|journal| journal.show != show);
    Some(())
}

fn done(history: &mut History) -> impl Iterator<Item = &mut Operation> {
    let is_new = |operation: &&mut Operation| matches!(operation.outcome, Told::Ok { repeated: false, .. });
    history.operations.iter_mut().filter(is_new)
}

fn place(history: &mut History, act: fn(&mut u64, &mut u32, &mut u64)) -> Option<()> {
    let Told::Ok { epoch, seq, index, .. } = &mut done(history).next()?.outcome else { return None };
    act(seq, index, epoch);
    Some(())
}

fn exchanged(history: &mut History) -> Option<()> {
    let show = done(history).next()?.show;
    let mut both = done(history).filter(|operation| operation.show == show);
    let (one, other) = (both.next()?, both.next()?);
    std::mem::swap(&mut one.outcome, &mut other.outcome);
    Some(())
}

fn old_read(history: &mut History) -> Option<()> {
    let end = history.operations.iter().map(|operation| operation.end).max()? + 60_000;
    let show = done(history).next()?.show;
    history.operations.push(Operation {
        client: 1,
        show,
        key: None,
        what: "read".into(),
        start: end,
        end,
        outcome: Told::Read { epoch: 1, seq: 0, stamped: false },
    });
    Some(())
}

fn another_time(journal: &mut Journal) -> Option<()> {
    let group = journal.entries.last_mut()?.groups.last_mut()?;
    group.at = group.at.checked_add(jiff::SignedDuration::from_secs(1)).ok()?;
    Some(())
}

fn blocked(history: &mut History) -> Option<()> {
    let (show, _, seats) = held(history)?;
    let group = group(history, vec![Event::Blocked { seats, reason: "x".into() }])?;
    append(history, show, vec![group])
}

fn changed(history: &mut History) -> Option<()> {
    let (show, _, seats) = held(history)?;
    let (_, of) = find(history, |event| matches!(event, Event::Reserved { .. }))?;
    let Event::Reserved { seats: mut lines, .. } =
        of.events.into_iter().find(|e| matches!(e, Event::Reserved { .. }))?
    else {
        return None;
    };
    lines.truncate(1);
    lines.first_mut()?.seat = *seats.first()?;
    let other = find(history, |event| matches!(event, Event::Lapsed { .. } | Event::Canceled(_)))?.1;
    let reservation = other.events.iter().find_map(|event| match event {
        Event::Lapsed { reservation } => Some(*reservation),
        Event::Canceled(cancellation) => Some(cancellation.reservation),
        _ => None,
    })?;
    let group = group(history, vec![Event::SeatsChanged { reservation, seats: lines, waived: Vec::new() }])?;
    append(history, show, vec![group])
}

fn lapsed(history: &mut History) -> Option<()> {
    let (show, at) = committed(history).last().map(|(show, entry)| (show, entry.groups[0].at))?;
    let reservation = ReservationId::new(show, at, 4_711);
    let group = group(history, vec![Event::Lapsed { reservation }])?;
    append(history, show, vec![group])
}

fn made_twice(history: &mut History) -> Option<()> {
    let (show, of) = find(history, |event| matches!(event, Event::Reserved { .. }))?;
    let mut event = of.events.into_iter().find(|event| matches!(event, Event::Reserved { .. }))?;
    if let Event::Reserved { seats, .. } = &mut event {
        seats.clear();
    }
    let group = group(history, vec![event])?;
    append(history, show, vec![group])
}

fn key_twice(history: &mut History) -> Option<()> {
    let (show, of) = committed(history).find_map(|(show, entry)| {
        Some((show, entry.groups.iter().find(|group| group.key.is_some())?.clone()))
    })?;
    append(history, show, vec![Group { events: Vec::new(), ..of }])
}

fn two_places(history: &mut History) -> Option<()> {
    let mut again = done(history).find(|operation| operation.key.is_some())?.clone();
    let Told::Ok { seq, .. } = &mut again.outcome else { return None };
    *seq += 1;
    history.operations.push(again);
    Some(())
}

/// Sets the outcome of the only operation under its key.
fn denied(history: &mut History, outcome: Told) -> Option<()> {
    let key = done(history).find(|operation| operation.key.is_some())?.key.clone();
    for operation in history.operations.iter_mut().filter(|operation| operation.key == key) {
        operation.outcome = outcome.clone();
    }
    Some(())
}

fn refused(history: &mut History) -> Option<()> {
    denied(history, Told::Refused { code: "SeatsUnavailable".into() })
}

fn not_done(history: &mut History) -> Option<()> {
    denied(history, Told::NotDone)
}

fn nobody(history: &mut History) -> Option<()> {
    let key = done(history).find(|operation| operation.key.is_some())?.key.clone();
    history.operations.retain(|operation| operation.key != key);
    Some(())
}

fn last_ballot(history: &mut History, act: fn(&mut Ballot)) -> Option<()> {
    let (show, at) = committed(history).last().map(|(show, entry)| (show, entry.groups[0].at))?;
    append(
        history,
        show,
        vec![Group { at, by: None, key: None, trace: None, from: None, events: Vec::new() }],
    )?;
    for journal in history.journals.iter_mut().filter(|journal| journal.show == show) {
        act(&mut journal.entries.last_mut()?.ballot);
    }
    Some(())
}

fn two_tails(history: &mut History) -> Option<()> {
    let (show, at) = committed(history).last().map(|(show, entry)| (show, entry.groups[0].at))?;
    append(
        history,
        show,
        vec![Group { at, by: None, key: None, trace: None, from: None, events: Vec::new() }],
    )?;
    for (no, journal) in history.journals.iter_mut().filter(|journal| journal.show == show).enumerate() {
        // Of nobody's committed part.
        journal.committed -= 1;
        journal.entries.last_mut()?.hash = format!("tail {no}");
    }
    Some(())
}

fn books(history: &mut History, act: fn(&mut Books) -> Option<()>) -> Option<()> {
    act(history.books.as_mut()?)
}

fn unknown_charge(history: &mut History) -> Option<()> {
    let (show, at) = committed(history).last().map(|(show, entry)| (show, entry.groups[0].at))?;
    let id = PaymentId::new(show, at, 4_711);
    history.books.as_mut()?.charges.push(Charge { id, amount: 1, captured: true });
    Some(())
}

fn refunded_too_much(history: &mut History) -> Option<()> {
    let refund = history.books.as_mut()?.refunds.first_mut()?;
    refund.amount += 1_000_000;
    Some(())
}

fn open_payment(history: &mut History) -> Option<()> {
    let (show, of) = find(history, |event| matches!(event, Event::PaymentStarted { .. }))?;
    let mut event = of.events.into_iter().find(|event| matches!(event, Event::PaymentStarted { .. }))?;
    if let Event::PaymentStarted { payment, .. } = &mut event {
        *payment = PaymentId::new(show, of.at, 4_711);
    }
    let group = group(history, vec![event])?;
    append(history, show, vec![group])
}

fn model(history: &mut History, act: fn(&mut Model) -> Option<()>) -> Option<()> {
    history.models.iter_mut().find_map(act)
}
