//! Refusals under an idempotency key, remembered in memory: a repeat is told the same again. They are not
//! journaled, since a refusal leaves nothing to protect; a new leader decides anew.

use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use crate::show::{Asked, Refusal};

/// The oldest is forgotten beyond this many.
const KEPT: usize = 4_096;
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(24);

#[derive(Default)]
pub(super) struct Refused {
    by_key: HashMap<[u8; 16], ([u8; 16], Refusal, Timestamp)>,
    by_age: VecDeque<[u8; 16]>,
}

impl Refused {
    /// The refusal that this key got before; the key with another body is refused for that.
    pub fn before(&self, asked: &Asked, now: Timestamp) -> Option<Refusal> {
        let key = asked.key.as_ref()?;
        let (body, refusal, at) = self.by_key.get(&key.id)?;
        if *at + KEPT_FOR < now {
            return None;
        }
        Some(if *body == key.body { refusal.clone() } else { Refusal::KeyReused })
    }

    pub fn remember(&mut self, asked: &Asked, refusal: &Refusal, now: Timestamp) {
        // What is still under way, and a misused key, say nothing about the request itself.
        let passing = matches!(refusal, Refusal::PaymentUnderWay(_) | Refusal::KeyReused);
        let Some(key) = asked.key.as_ref().filter(|_| !passing) else { return };
        if self.by_key.insert(key.id, (key.body, refusal.clone(), now)).is_none() {
            self.by_age.push_back(key.id);
        }
        if self.by_age.len() > KEPT
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }
}
