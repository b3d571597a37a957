//! What a show has many of, in the order in which it came, found by its id.
//!
//! Invariant: nothing is ever removed, so a slot stands for the same thing for ever, and can be kept in four
//! bytes where the id itself takes 26.

use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::ops;

use super::index::{Index, hash};

/// What has an id of its own.
pub trait Named {
    type Id: Hash + Eq + fmt::Debug;

    fn id(&self) -> &Self::Id;
}

/// The place of a value in its slab. It counts from one, so that "none" takes no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(NonZeroU32);

impl Slot {
    pub(super) fn new(at: usize) -> Self {
        let number = u32::try_from(at).ok().and_then(|at| at.checked_add(1)).and_then(NonZeroU32::new);
        Self(number.expect("four billion would not fit into memory"))
    }

    pub(super) fn at(self) -> usize {
        self.0.get() as usize - 1
    }

    pub(super) fn number(self) -> u32 {
        self.0.get()
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }
}

#[derive(Clone)]
pub struct Slab<V> {
    values: Vec<V>,
    by_id: Index<Slot>,
}

impl<V> Default for Slab<V> {
    fn default() -> Self {
        Self { values: Vec::new(), by_id: Index::default() }
    }
}

/// The values are all there is to it.
impl<V: fmt::Debug> fmt::Debug for Slab<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.values.fmt(f)
    }
}

impl<V: Named> Slab<V> {
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// In the order in which they came.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.values.iter()
    }

    pub fn keys(&self) -> impl Iterator<Item = &V::Id> {
        self.values.iter().map(V::id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&V::Id, &V)> {
        self.values.iter().map(|value| (value.id(), value))
    }

    pub fn get(&self, id: &V::Id) -> Option<&V> {
        self.slot(id).map(|slot| &self[slot])
    }

    pub fn contains_key(&self, id: &V::Id) -> bool {
        self.slot(id).is_some()
    }

    pub(super) fn get_mut(&mut self, id: &V::Id) -> Option<&mut V> {
        self.slot(id).map(|slot| &mut self[slot])
    }

    pub(super) fn slot(&self, id: &V::Id) -> Option<Slot> {
        self.by_id.find(hash(id), |slot| self.values[slot.at()].id() == id)
    }

    /// Adds a value, or takes the place of the one that has its id.
    pub(super) fn insert(&mut self, value: V) -> Slot {
        if let Some(slot) = self.slot(value.id()) {
            self[slot] = value;
            return slot;
        }
        let (slot, hashed) = (Slot::new(self.values.len()), hash(value.id()));
        if self.values.len() == self.values.capacity() {
            // Doubling would leave half of it empty; there are tens of thousands of slabs in a process.
            self.values.reserve_exact(4 + self.values.len() / 8);
        }
        self.values.push(value);
        let values = &self.values;
        self.by_id.insert(hashed, slot, |slot| hash(values[slot.at()].id()));
        slot
    }
}

impl<V> ops::Index<Slot> for Slab<V> {
    type Output = V;

    fn index(&self, slot: Slot) -> &V {
        &self.values[slot.at()]
    }
}

impl<V> ops::IndexMut<Slot> for Slab<V> {
    fn index_mut(&mut self, slot: Slot) -> &mut V {
        &mut self.values[slot.at()]
    }
}

/// Like a map: who asks for an id that is not there is wrong.
impl<V: Named> ops::Index<&V::Id> for Slab<V> {
    type Output = V;

    fn index(&self, id: &V::Id) -> &V {
        self.get(id).expect("it is there")
    }
}
