//! Damaged journals: whatever a disk, a bad restore or a careless hand did to an entry, reading says which
//! show and which entry, and never panics, and never makes something of it.
//!
//! `FUZZ_CASES` sets how many damages are tried (`make test-long`); a failure is shrunk and printed with its
//! seed. `regional/fuzz` does the same with libFuzzer, where a nightly compiler is at hand.

use common::ShowId;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::*;
use crate::show::{self, FORMAT, Show};

/// A journal with every kind of event, an entry a line.
const SAMPLE: &str = include_str!("../show/tests/format_1.jsonl");

fn id() -> ShowId {
    "shw_06gvh7euohpghdtdfvoncnid08".parse().unwrap()
}

/// The sample as a store would have it, chained under two ballots.
fn journal() -> Vec<Stored> {
    let mut before = Vec::new();
    (1_u32..)
        .zip(SAMPLE.lines())
        .map(|(seq, line)| {
            let ballot = Ballot { epoch: 1, session: 1, attempt: u64::from(seq / 10) };
            let hash = chain(&before, id(), seq.into(), ballot, FORMAT, line.as_bytes());
            before.clone_from(&hash);
            Stored {
                seq: seq.into(),
                ballot: [1, 1, i64::from(seq / 10)],
                at: jiff::Timestamp::UNIX_EPOCH,
                format: FORMAT,
                hash,
                events: line.as_bytes().to_vec(),
            }
        })
        .collect()
}

/// Reads it all; the state, or the number of the entry at fault.
fn read(journal: Vec<Stored>) -> Result<Option<Show>, u64> {
    let (mut state, mut last, mut before) = (None, 0, Vec::new());
    for stored in journal {
        let entry = stored.read(id(), last, &before).map_err(|error| match error {
            JournalError::Corrupt { show, seq, why } => {
                assert!(show == id() && !why.is_empty());
                seq
            }
            other => panic!("{other}"),
        })?;
        state = Show::fold(state, entry.seq, &entry.groups).map_err(|_| entry.seq)?;
        (last, before) = (entry.seq, entry.hash);
    }
    Ok(state)
}

/// One thing that went wrong with a journal.
#[derive(Clone, Debug)]
enum Damage {
    Flip {
        entry: prop::sample::Index,
        byte: prop::sample::Index,
        bit: u8,
    },
    Cut {
        entry: prop::sample::Index,
        to: prop::sample::Index,
    },
    /// A part of another entry in the middle of this one.
    Splice {
        entry: prop::sample::Index,
        other: prop::sample::Index,
        at: prop::sample::Index,
    },
    /// Bytes of nobody.
    Noise {
        entry: prop::sample::Index,
        bytes: Vec<u8>,
    },
    Format {
        entry: prop::sample::Index,
        format: i16,
    },
    Seq {
        entry: prop::sample::Index,
        seq: i64,
    },
    Ballot {
        entry: prop::sample::Index,
        part: usize,
        number: i64,
    },
    Hash {
        entry: prop::sample::Index,
        byte: prop::sample::Index,
    },
    ShortHash {
        entry: prop::sample::Index,
        to: usize,
    },
    Swap {
        entry: prop::sample::Index,
    },
    Drop {
        entry: prop::sample::Index,
    },
    Twice {
        entry: prop::sample::Index,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => (index(), index(), 0..8_u8).prop_map(|(entry, byte, bit)| Damage::Flip { entry, byte, bit }),
        3 => (index(), index()).prop_map(|(entry, to)| Damage::Cut { entry, to }),
        3 => (index(), index(), index()).prop_map(|(entry, other, at)| Damage::Splice { entry, other, at }),
        2 => (index(), prop::collection::vec(any::<u8>(), 0..200))
            .prop_map(|(entry, bytes)| Damage::Noise { entry, bytes }),
        1 => (index(), any::<i16>()).prop_map(|(entry, format)| Damage::Format { entry, format }),
        1 => (index(), any::<i64>()).prop_map(|(entry, seq)| Damage::Seq { entry, seq }),
        1 => (index(), 0..3_usize, any::<i64>())
            .prop_map(|(entry, part, number)| Damage::Ballot { entry, part, number }),
        1 => (index(), index()).prop_map(|(entry, byte)| Damage::Hash { entry, byte }),
        1 => (index(), 0..32_usize).prop_map(|(entry, to)| Damage::ShortHash { entry, to }),
        1 => index().prop_map(|entry| Damage::Swap { entry }),
        1 => index().prop_map(|entry| Damage::Drop { entry }),
        1 => index().prop_map(|entry| Damage::Twice { entry }),
    ]
}

impl Damage {
    /// Does it, and tells which entry is the first that is not as it was (counting from one).
    fn to(&self, journal: &mut Vec<Stored>) -> u64 {
        let last = journal.len() - 1;
        let at = match self {
            Self::Flip { entry, byte, bit } => {
                let at = entry.index(journal.len());
                let events = &mut journal[at].events;
                let byte = byte.index(events.len());
                events[byte] ^= 1 << bit;
                at
            }
            Self::Cut { entry, to } => {
                let at = entry.index(journal.len());
                let to = to.index(journal[at].events.len());
                journal[at].events.truncate(to);
                at
            }
            Self::Splice { entry, other, at: place } => {
                let at = entry.index(journal.len());
                let other = journal[other.index(journal.len())].events.clone();
                let place = place.index(journal[at].events.len());
                let from = place.min(other.len() / 2);
                journal[at].events.splice(place..place, other[from..].to_vec());
                at
            }
            Self::Noise { entry, bytes } => {
                let at = entry.index(journal.len());
                journal[at].events.clone_from(bytes);
                at
            }
            Self::Format { entry, format } => {
                let at = entry.index(journal.len());
                journal[at].format = *format;
                at
            }
            Self::Seq { entry, seq } => {
                let at = entry.index(journal.len());
                journal[at].seq = *seq;
                at
            }
            Self::Ballot { entry, part, number } => {
                let at = entry.index(journal.len());
                journal[at].ballot[*part] = *number;
                at
            }
            Self::Hash { entry, byte } => {
                let at = entry.index(journal.len());
                let byte = byte.index(journal[at].hash.len());
                journal[at].hash[byte] ^= 1;
                at
            }
            Self::ShortHash { entry, to } => {
                let at = entry.index(journal.len());
                journal[at].hash.truncate(*to);
                at
            }
            Self::Swap { entry } => {
                let at = entry.index(last);
                journal.swap(at, at + 1);
                at
            }
            Self::Drop { entry } => {
                // The last one may be missing: only the head knows of it, and the reader is told how far to go.
                let at = entry.index(last);
                journal.remove(at);
                at
            }
            Self::Twice { entry } => {
                let at = entry.index(journal.len());
                let again = journal[at].clone();
                journal.insert(at + 1, again);
                at + 1
            }
        };
        at as u64 + 1
    }
}

fn runner(cases: u32) -> TestRunner {
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    eprintln!("FUZZ_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let cases = std::env::var("FUZZ_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(cases);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

#[test]
fn a_whole_journal_is_read() {
    assert!(read(journal()).unwrap().is_some());
}

#[test]
fn a_damaged_entry_is_named_and_nothing_is_made_of_it() {
    let whole = journal();
    let result = runner(1_000).run(&damage(), |damage| {
        let mut journal = whole.clone();
        let at = damage.to(&mut journal);
        let same = journal.len() == whole.len()
            && journal.iter().zip(&whole).all(|(a, b)| format!("{a:?}") == format!("{b:?}"));
        match read(journal) {
            Err(named) if named == at && !same => Ok(()),
            Ok(_) if same => Ok(()),
            other => Err(TestCaseError::fail(format!("entry {at}: {:?}", other.map(|_| "read")))),
        }
    });
    result.unwrap();
}

/// Behind the hash, too: bytes that pass for a format are read or refused, and what is read folds or does not.
/// Neither panics, whatever it says: seats that are not there, sums beyond all numbers, times beyond all time.
#[test]
fn damaged_bytes_never_panic_behind_the_hash() {
    let lines: Vec<&str> = SAMPLE.lines().collect();
    let numbers = prop_oneof![
        Just(i64::MAX.to_string()),
        Just(i64::MIN.to_string()),
        Just(u64::MAX.to_string()),
        Just("4294967295".to_owned()),
        Just("-1".to_owned()),
        Just("1e400".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
    ];
    let times = prop_oneof![
        Just("9999-12-30T22:00:00.999999999Z"),
        Just("-009999-01-02T01:59:59Z"),
        Just("2027-03-01T12:00:00Z"),
    ];
    let edit = prop_oneof![
        (any::<prop::sample::Index>(), numbers).prop_map(|(at, number)| (at, Ok(number))),
        (any::<prop::sample::Index>(), times).prop_map(|(at, time)| (at, Err(time))),
    ];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), edit), 1..4);
    let result = runner(400).run(&(edits, prop::option::of(damage())), |(edits, damage)| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        for (line, (at, edit)) in edits {
            let line = line.index(lines.len());
            lines[line] = edited(&lines[line], at, &edit);
        }
        let mut journal = journal();
        for (stored, line) in journal.iter_mut().zip(&lines) {
            stored.events = line.as_bytes().to_vec();
        }
        if let Some(damage) = damage {
            damage.to(&mut journal);
        }
        let mut state = None;
        for (seq, stored) in (1..).zip(journal) {
            let Ok(groups) = show::decode(stored.format, &stored.events) else { break };
            // What was read can be written, and reads the same.
            prop_assert_eq!(&show::decode(FORMAT, &show::encode(&groups)).unwrap(), &groups);
            match Show::fold(state.take(), seq, &groups) {
                Ok(next) => state = next,
                Err(why) => {
                    prop_assert!(!why.is_empty());
                    break;
                }
            }
            if let Some(show) = &state {
                // Looking at it is safe, too.
                let _ = (show.counts(), show.next_deadline());
                let _: Vec<i64> =
                    show.reservations.values().map(|reservation| reservation.total_minor()).collect();
            }
        }
        Ok(())
    });
    result.unwrap();
}

/// The text with its nth number, or its nth time, replaced.
fn edited(line: &str, at: prop::sample::Index, edit: &Result<String, &str>) -> String {
    let is_part = |c: char| c.is_ascii_digit() || (edit.is_err() && "-:TZ".contains(c));
    let mut places = Vec::new();
    let mut from = None;
    for (place, c) in line.char_indices() {
        match (from, is_part(c)) {
            (None, true) => from = Some(place),
            (Some(first), false) => {
                let before = line[..first].chars().next_back();
                let whole = if edit.is_err() { place - first == 20 } else { before == Some(':') };
                if whole {
                    places.push(first..place);
                }
                from = None;
            }
            _ => {}
        }
    }
    if places.is_empty() {
        return line.to_owned();
    }
    let place = places[at.index(places.len())].clone();
    let new = edit.as_deref().unwrap_or_else(|time| time);
    format!("{}{new}{}", &line[..place.start], &line[place.end..])
}
