//! What happened, as a number that tells two runs apart, and, where somebody wants to read it, in words.

use std::collections::VecDeque;

use regional::replication::{Answer, Request};

use crate::event::Ms;
use crate::kind::Sim;
use crate::random::mix;

#[derive(Debug, Default)]
pub struct Trace {
    pub digest: u64,
    /// None: nobody reads.
    pub words: Option<VecDeque<String>>,
}

/// Of the words, so many last ones are kept.
const KEPT: usize = 20_000;

impl Trace {
    pub fn new(in_words: bool) -> Self {
        Self { digest: 0, words: in_words.then(VecDeque::new) }
    }

    pub fn mix(&mut self, word: u64) {
        self.digest = mix(self.digest ^ word);
    }

    pub fn say(&mut self, now: Ms, what: impl FnOnce() -> String) {
        if let Some(words) = &mut self.words {
            words.push_back(format!("{:>7.3} {}", now as f64 / 1_000.0, what()));
            if words.len() > KEPT {
                words.pop_front();
            }
        }
    }
}

/// A request in words.
pub fn asks(request: &Request<Sim>) -> String {
    match request {
        Request::Append(append) | Request::Extend(append) => {
            let (from, upto) = (append.prev.seq, append.upto());
            format!("Append {from}..{upto}, committed {}", append.committed)
        }
        other => crate::counts::first_word(other),
    }
}

/// An answer in words.
pub fn short(answer: &Answer<Sim>) -> String {
    use Answer::{Appended, Mismatch, Refused, Unable};
    match answer {
        Appended { upto, .. } => format!("Appended up to {upto}"),
        Mismatch { last, committed, .. } => format!("Mismatch, last {}, committed {committed}", last.seq),
        Refused { promised } => format!("Refused, promised {promised:?}"),
        Unable(why) => format!("Unable: {why:?}"),
        other => crate::counts::first_word(other),
    }
}
