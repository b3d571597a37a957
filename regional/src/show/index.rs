//! Finds things by what stands in them: a hash table of places, a few bytes each, whose keys stand only where
//! they belong.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::LazyLock;

use hashbrown::HashTable;

/// Whoever picks names for others to look up (a contact, a nonce) cannot tell which of them meet. Nothing
/// rests on the order that comes of it.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

pub(super) fn hash(key: impl Hash) -> u64 {
    HASHER.hash_one(key)
}

#[derive(Clone)]
pub(super) struct Index<P>(HashTable<P>);

impl<P> Default for Index<P> {
    fn default() -> Self {
        Self(HashTable::new())
    }
}

/// It says nothing that the things themselves do not.
impl<P> fmt::Debug for Index<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

impl<P: Copy> Index<P> {
    pub fn with_capacity(capacity: usize) -> Self {
        Self(HashTable::with_capacity(capacity))
    }

    pub fn find(&self, hash: u64, is_it: impl Fn(P) -> bool) -> Option<P> {
        self.0.find(hash, |place| is_it(*place)).copied()
    }

    /// Adds a place that is not there; `hash_of` tells the hash of those that are.
    pub fn insert(&mut self, hash: u64, place: P, hash_of: impl Fn(P) -> u64) {
        self.0.insert_unique(hash, place, |place| hash_of(*place));
    }

    /// Puts `place` where the one that `is_it` stood, if any, and answers that.
    pub fn replace(
        &mut self,
        hash: u64,
        place: P,
        is_it: impl Fn(P) -> bool,
        hash_of: impl Fn(P) -> u64,
    ) -> Option<P> {
        match self.0.find_mut(hash, |present| is_it(*present)) {
            Some(present) => Some(std::mem::replace(present, place)),
            None => {
                self.insert(hash, place, hash_of);
                None
            }
        }
    }

    pub fn remove(&mut self, hash: u64, is_it: impl Fn(P) -> bool) {
        if let Ok(found) = self.0.find_entry(hash, |place| is_it(*place)) {
            found.remove();
        }
    }
}
