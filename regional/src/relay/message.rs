//! What goes through Redis, as text.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::journal::Ballot;
use crate::live::Delta;
use crate::show::SeatStatus;

/// From a leader to those who follow.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// It still leads, and this was the last entry that changed a seat.
    Beat {
        seq: u64,
    },
    Delta(Delta),
}

#[derive(Serialize, Deserialize)]
struct Wire {
    seq: u64,
    /// A beat has none of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    seats: Vec<(u32, SeatStatus)>,
}

impl Message {
    pub fn write(&self) -> String {
        let wire = match self {
            Self::Beat { seq } => Wire { seq: *seq, after: None, at: None, seats: Vec::new() },
            Self::Delta(delta) => Wire {
                seq: delta.seq,
                after: Some(delta.after),
                at: Some(delta.at),
                seats: delta.seats.clone(),
            },
        };
        serde_json::to_string(&wire).expect("plain data")
    }

    /// None: of a version of this program that speaks otherwise.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let Wire { seq, after, at, seats } = serde_json::from_slice(bytes).ok()?;
        Some(match (after, at) {
            (Some(after), Some(at)) => Self::Delta(Delta { after, seq, at, seats }),
            _ => Self::Beat { seq },
        })
    }
}

/// A ballot as a claim's text: digits alone, so that texts order as ballots do, in any locale.
pub fn write_ballot(ballot: Ballot) -> String {
    format!("{:020}.{:020}.{:020}", ballot.epoch, ballot.attempt, ballot.session)
}

pub fn read_ballot(text: &str) -> Option<Ballot> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    let mut next = || parts.next().flatten();
    Some(Ballot { epoch: next()?, attempt: next()?, session: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_ballots_come_back_as_they_went() {
        let at = Timestamp::UNIX_EPOCH;
        let delta = Delta { after: 3, seq: 5, at, seats: vec![(7, SeatStatus::Sold)] };
        for message in [Message::Beat { seq: 9 }, Message::Delta(delta)] {
            assert_eq!(Message::read(message.write().as_bytes()), Some(message));
        }
        assert_eq!(Message::read(b"{\"kind\":1}"), None);
        let ballot = |epoch, session, attempt| Ballot { epoch, session, attempt };
        let some = [ballot(1, 9, 9), ballot(2, 30, 1), ballot(2, 1, 30), ballot(2, 10, 30), ballot(10, 0, 0)];
        for (one, other) in some.iter().flat_map(|one| some.iter().map(move |other| (*one, *other))) {
            assert_eq!(write_ballot(one).cmp(&write_ballot(other)), one.cmp(&other), "{one:?} {other:?}");
        }
        let (ordered, texts) = (some, some.map(write_ballot));
        assert_eq!(texts.map(|text| read_ballot(&text)), ordered.map(Some));
        assert_eq!(read_ballot("x"), None);
    }
}
