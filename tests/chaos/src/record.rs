//! What customers did and were told: every attempt, with its start and end on one clock.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use common::ShowId;
use serde::Serialize;
use sha2::{Digest, Sha256};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Reserve,
    Pay,
    Cancel,
    Look,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// `id`: of the reservation or payment that the answer named; `status`: of that payment. `replayed`: answered
    /// before, by its own word.
    Ok {
        epoch: u64,
        id: String,
        status: String,
        replayed: bool,
    },
    Refused {
        code: String,
    },
    /// `why`: the answer's code, or what kept one away.
    Unknown {
        why: String,
    },
}

/// One attempt; repeats under one key are several.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    pub client: u32,
    pub show: ShowId,
    /// As the journal holds it, in hex; none for a look.
    pub key: Option<String>,
    pub kind: Kind,
    /// The region whose gateway was asked.
    pub gateway: usize,
    pub start: Duration,
    pub end: Duration,
    pub outcome: Outcome,
}

pub struct Record {
    began: Instant,
    attempts: Mutex<Vec<Attempt>>,
}

impl Record {
    pub fn new() -> Self {
        Self { began: Instant::now(), attempts: Mutex::default() }
    }

    /// Now, on the clock of all attempts.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn add(&self, attempt: Attempt) {
        self.lock().push(attempt);
    }

    pub fn all(&self) -> Vec<Attempt> {
        self.lock().clone()
    }

    /// How many since, and how many of them did what they should.
    pub fn since(&self, start: Duration) -> (usize, usize) {
        let attempts = self.lock();
        let recent = attempts.iter().rev().take_while(|attempt| attempt.end >= start);
        recent.fold((0, 0), |(all, ok), attempt| {
            (all + 1, ok + usize::from(matches!(attempt.outcome, Outcome::Ok { .. })))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.attempts.lock().expect("no code panics while holding it")
    }
}

/// A key as journals hold it: whose, and its text, each with its length before it. Written down once more on
/// purpose: a change of what the product keeps shows here as keys that nobody asked with.
pub fn digest(user: &str, key: &str) -> String {
    let mut hash = Sha256::new();
    for part in [user, key] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    simulation::history::hex(&hash.finalize()[..16])
}
