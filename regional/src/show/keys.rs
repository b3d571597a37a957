//! Idempotency keys that were used, remembered for a day: what was asked under each, and where in the journal
//! what it did stands.

use std::collections::VecDeque;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::event::Key;
use super::index::{Index, hash};
use super::moment::Moment;

/// How long an idempotency key is remembered.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// Also of a time that no clock shows.
fn until(at: Timestamp) -> Timestamp {
    at.saturating_add(KEPT).unwrap_or(Timestamp::MAX)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UsedKey {
    pub key: Key,
    /// Four billion entries would take a thousand a second for seven weeks.
    pub seq: u32,
    pub index: u32,
    at: Moment,
}

impl UsedKey {
    pub fn new(key: Key, seq: u32, index: u32, at: Timestamp) -> Self {
        Self { key, seq, index, at: at.into() }
    }

    /// Until when it is remembered.
    pub fn until(&self) -> Timestamp {
        until(self.at.time())
    }
}

#[derive(Clone, Default)]
pub(super) struct Keys {
    /// In the order of use.
    used: VecDeque<UsedKey>,
    /// How many were forgotten; numbers of keys go on from there.
    forgotten: u32,
    by_id: Index<u32>,
}

/// Those that are remembered are all there is to it.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.used.fmt(f)
    }
}

impl Keys {
    pub fn get(&self, id: &[u8; 16]) -> Option<&UsedKey> {
        self.number(id).and_then(|number| self.numbered(number))
    }

    /// Remembers a key that was used now, and forgets those whose time is over. One that is used again counts
    /// from its last use.
    pub fn remember(&mut self, used: UsedKey) {
        let number = self.forgotten.wrapping_add(u32::try_from(self.used.len()).unwrap_or(u32::MAX));
        if self.used.len() == self.used.capacity() {
            self.used.reserve_exact(4 + self.used.len() / 8);
        }
        self.used.push_back(used);
        let (all, first) = (&self.used, self.forgotten);
        let id_of = |number: u32| all[number.wrapping_sub(first) as usize].key.id;
        self.by_id.replace(hash(used.key.id), number, |n| id_of(n) == used.key.id, |n| hash(id_of(n)));
    }

    /// Forgets those whose time is over.
    pub fn forget(&mut self, now: Timestamp) {
        while let Some(oldest) = self.used.front().filter(|oldest| oldest.until() <= now) {
            let (id, number) = (oldest.key.id, self.forgotten);
            // It may have been used again since.
            self.by_id.remove(hash(id), |n| n == number);
            self.used.pop_front();
            self.forgotten = number.wrapping_add(1);
        }
    }

    fn number(&self, id: &[u8; 16]) -> Option<u32> {
        self.by_id.find(hash(id), |number| self.numbered(number).is_some_and(|used| used.key.id == *id))
    }

    fn numbered(&self, number: u32) -> Option<&UsedKey> {
        self.used.get(number.wrapping_sub(self.forgotten) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(id: u8, secs: i64) -> UsedKey {
        UsedKey::new(Key { id: [id; 16], body: [0; 16] }, u32::try_from(secs).unwrap(), 0, at(secs))
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(secs)
    }

    #[test]
    fn keys_are_forgotten_a_day_after_their_last_use() {
        let mut keys = Keys::default();
        let day = KEPT.as_secs();
        for (id, secs) in [(1, 0), (2, 10), (1, 20), (3, 30)] {
            keys.remember(used(id, secs));
        }
        let seq = |keys: &Keys, id: u8| keys.get(&[id; 16]).map(|used| used.seq);
        assert_eq!([1, 2, 3, 4].map(|id| seq(&keys, id)), [Some(20), Some(10), Some(30), None]);
        keys.forget(at(day));
        assert_eq!([1, 2, 3].map(|id| seq(&keys, id)), [Some(20), Some(10), Some(30)]);
        keys.forget(at(day + 19));
        assert_eq!([1, 2, 3].map(|id| seq(&keys, id)), [Some(20), None, Some(30)]);
        keys.remember(used(2, day + 19));
        keys.forget(at(day + 30));
        assert_eq!([1, 2, 3].map(|id| seq(&keys, id)), [None, Some(u32::try_from(day).unwrap() + 19), None]);
    }
}
