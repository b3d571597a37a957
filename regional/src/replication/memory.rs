//! A replica's store in memory: what Postgres is to the shells, for the model, the simulation and tests.

use super::replica::{Held, Replica, Standing, Write};
use super::{Append, Ballot, Entry, Head, Kind, Mark, Reply, Request, Restore};

/// A show's head and entries, in one store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Store<K: Kind> {
    pub head: Head<K>,
    /// In the order of their numbers.
    pub entries: Vec<Entry<K>>,
}

impl<K: Kind> Held<K> for Vec<Entry<K>> {
    fn mark(&self, seq: u64) -> Option<Mark<K>> {
        let at = self.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        Some(self[at].mark())
    }
}

impl<K: Kind> Store<K> {
    pub fn empty(incarnation: u64) -> Self {
        Self { head: Head::empty(incarnation), entries: Vec::new() }
    }

    /// One transaction: what is written stands when the reply is there.
    pub fn handle(&mut self, rules: K::Rules, standing: Standing, request: Request<K>) -> Reply<K> {
        if let Request::Fetch { ballot, after } = request {
            return self.fetch(rules, standing, ballot, after);
        }
        let step = self.replica(rules, standing).handle(request);
        self.write(step.write);
        step.reply
    }

    pub fn restore(&mut self, rules: K::Rules, standing: Standing, restore: Restore<K>) -> Reply<K> {
        let step = self.replica(rules, standing).restore(restore);
        self.write(step.write);
        step.reply
    }

    /// The mark of an entry, also of the place before the first.
    pub fn mark(&self, seq: u64) -> Option<Mark<K>> {
        if seq == 0 { Some(Mark::default()) } else { self.entries.mark(seq) }
    }

    fn fetch(&self, rules: K::Rules, standing: Standing, ballot: Ballot, after: u64) -> Reply<K> {
        let entries = self.entries.iter().filter(|entry| entry.seq > after).cloned().collect();
        self.replica(rules, standing).fetched(ballot, self.mark(after), entries)
    }

    fn replica(&self, rules: K::Rules, standing: Standing) -> Replica<'_, K, Vec<Entry<K>>> {
        Replica { rules, standing, head: &self.head, held: &self.entries }
    }

    fn write(&mut self, write: Option<Write<K>>) {
        let Some(write) = write else { return };
        if let Some(upto) = write.cut_after {
            self.entries.retain(|entry| entry.seq <= upto);
        }
        self.entries.extend(write.add);
        self.head = write.head;
    }
}

impl<K: Kind> Append<K> {
    /// An append of nothing after `prev`.
    pub fn nothing(ballot: Ballot, prev: Mark<K>) -> Self {
        Self { ballot, prev, entries: Vec::new(), committed: 0, sent: 0 }
    }
}
