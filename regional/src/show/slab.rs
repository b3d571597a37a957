//! What a show has many of, in the order in which it came, found by its id.
//!
//! Invariant: nothing is ever removed, so a slot stands for the same thing for ever, and can be kept in four
//! bytes where the id itself takes 26. Of ids only what is not the show's is kept; who looks something up gets
//! the whole one beside it ([`WithId`]).

use std::fmt;
use std::num::NonZeroU32;
use std::ops;

use common::{ShowBound, ShowId};

use super::index::{Index, hash};

/// What has an id of its own.
pub trait Named {
    type Id: ShowBound;

    /// What of it is not the show's.
    fn own(&self) -> [u8; 10];
}

/// A value as it stands in a show, with its whole id.
pub struct WithId<'a, V: Named> {
    pub id: V::Id,
    value: &'a V,
}

impl<V: Named> Clone for WithId<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V: Named> Copy for WithId<'_, V> {}

impl<V: Named> ops::Deref for WithId<'_, V> {
    type Target = V;

    fn deref(&self) -> &V {
        self.value
    }
}

impl<'a, V: Named> WithId<'a, V> {
    pub fn within(show: ShowId, value: &'a V) -> Self {
        Self { id: V::Id::within(show, value.own()), value }
    }

    /// It lives as long as the show is looked at.
    pub fn value(self) -> &'a V {
        self.value
    }

    /// For who keeps it beyond that look.
    pub fn to_owned(self) -> Owned<V>
    where
        V: Clone,
    {
        Owned { id: self.id, value: self.value.clone() }
    }
}

/// A copy of a value, with its whole id.
#[derive(Clone)]
pub struct Owned<V: Named> {
    pub id: V::Id,
    value: V,
}

impl<V: Named> ops::Deref for Owned<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<V: Named> Owned<V> {
    pub fn with_id(&self) -> WithId<'_, V> {
        WithId { id: self.id, value: &self.value }
    }
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
    show: ShowId,
    values: Vec<V>,
    by_own: Index<Slot>,
}

/// The values are all there is to it.
impl<V: fmt::Debug> fmt::Debug for Slab<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.values.fmt(f)
    }
}

impl<V: Named> Slab<V> {
    pub(super) fn of(show: ShowId) -> Self {
        Self { show, values: Vec::new(), by_own: Index::default() }
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// In the order in which they came.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = WithId<'_, V>> + Clone {
        self.values.iter().map(|value| WithId::within(self.show, value))
    }

    pub fn keys(&self) -> impl Iterator<Item = V::Id> {
        self.values().map(|value| value.id)
    }

    pub fn get(&self, id: &V::Id) -> Option<WithId<'_, V>> {
        self.slot(id).map(|slot| self.at(slot))
    }

    pub fn at(&self, slot: Slot) -> WithId<'_, V> {
        WithId::within(self.show, &self[slot])
    }

    pub fn contains_key(&self, id: &V::Id) -> bool {
        self.slot(id).is_some()
    }

    pub(super) fn get_mut(&mut self, id: &V::Id) -> Option<&mut V> {
        self.slot(id).map(|slot| &mut self[slot])
    }

    pub fn slot(&self, id: &V::Id) -> Option<Slot> {
        let own = Some(id.own()).filter(|_| id.show() == self.show)?;
        self.by_own.find(hash(own), |slot| self[slot].own() == own)
    }

    /// Adds a value, or takes the place of the one that has its id.
    pub(super) fn insert(&mut self, value: V) -> Slot {
        let own = value.own();
        if let Some(slot) = self.by_own.find(hash(own), |slot| self[slot].own() == own) {
            self[slot] = value;
            return slot;
        }
        let slot = Slot::new(self.values.len());
        push(&mut self.values, value);
        let values = &self.values;
        self.by_own.insert(hash(own), slot, |slot| hash(values[slot.at()].own()));
        slot
    }
}

/// Doubling would leave half of a list empty; there are tens of thousands of them in a process.
pub(super) fn push<V>(list: &mut Vec<V>, value: V) {
    if list.len() == list.capacity() {
        list.reserve_exact(4 + list.len() / 8);
    }
    list.push(value);
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
        &self[self.slot(id).expect("it is there")]
    }
}
