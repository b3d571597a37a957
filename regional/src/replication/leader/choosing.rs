//! From the first Prepare until the own store holds the chosen log.

use std::collections::BTreeMap;

use super::{Effect, Term, Why};
use crate::replication::messages::{Answer, Append, Request};
use crate::replication::quorum::is_majority;
use crate::replication::rules::{Rule, Rules};
use crate::replication::{Ballot, Entry, Head, Kind, Mark};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Choosing<K: Kind> {
    Preparing {
        promises: BTreeMap<K::Region, Head<K>>,
    },
    Fetching(Fetching<K>),
    /// The own store is given what it lacks.
    Copying {
        append: Append<K>,
        chosen: Mark<K>,
        committed: u64,
    },
}

/// Brings the entries that lead up to a promised head from the region that promised it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::replication) struct Fetching<K: Kind> {
    pub from: K::Region,
    pub chosen: Mark<K>,
    /// Where the own log surely agrees: its committed prefix.
    pub after: u64,
    /// The entry `after`, once heard.
    before: Option<Mark<K>>,
    entries: Vec<Entry<K>>,
}

/// What a page of fetched entries led to.
pub(in crate::replication) enum Fetched<K: Kind> {
    More,
    /// These, behind `prev`, end with the promised head.
    All {
        prev: Mark<K>,
        entries: Vec<Entry<K>>,
    },
    /// The head that was promised is not among them.
    Moved,
}

pub(super) enum Outcome<K: Kind> {
    Going(Vec<Effect<K>>),
    Chosen { last: Mark<K>, committed: u64 },
    Failed(Why),
}

impl<K: Kind> Default for Choosing<K> {
    fn default() -> Self {
        Self::Preparing { promises: BTreeMap::new() }
    }
}

impl<K: Kind> Choosing<K> {
    pub fn answered(
        &mut self,
        rules: &K::Rules,
        term: &Term<K>,
        from: &K::Region,
        answer: Answer<K>,
    ) -> Outcome<K> {
        match (&mut *self, answer) {
            (Self::Preparing { promises }, Answer::Promise { head }) => {
                promises.insert(from.clone(), head);
                self.choose(rules, term)
            }
            (Self::Fetching(fetching), Answer::Entries { before, entries, .. }) if *from == fetching.from => {
                match fetching.page(rules, before, entries) {
                    Fetched::More => Outcome::Going(vec![fetching.ask(term.ballot)]),
                    Fetched::Moved => Outcome::Failed(Why::LogMoved),
                    Fetched::All { prev, entries } => {
                        let (chosen, committed) = (fetching.chosen.clone(), fetching.after);
                        let append = Append { ballot: term.ballot, prev, entries, committed, sent: 0 };
                        let effect = give(term, &append);
                        *self = Self::Copying { append, chosen, committed };
                        Outcome::Going(vec![effect])
                    }
                }
            }
            (Self::Copying { append, chosen, committed }, Answer::Appended { upto, .. })
                if *from == term.own && upto >= append.upto() =>
            {
                Outcome::Chosen { last: chosen.clone(), committed: *committed }
            }
            // It held a committed prefix a moment ago.
            (Self::Copying { .. }, Answer::Mismatch { .. }) if *from == term.own => {
                Outcome::Failed(Why::OwnStore)
            }
            _ => Outcome::Going(Vec::new()),
        }
    }

    pub fn nudge(&self, term: &Term<K>, region: &K::Region) -> Vec<Effect<K>> {
        match self {
            Self::Preparing { promises } if !promises.contains_key(region) => {
                let request = Request::Prepare { ballot: term.ballot };
                vec![Effect::Send { to: region.clone(), request }]
            }
            Self::Fetching(fetching) if *region == fetching.from => vec![fetching.ask(term.ballot)],
            Self::Copying { append, .. } if *region == term.own => vec![give(term, append)],
            _ => Vec::new(),
        }
    }

    /// With promises from a majority of each set, and the own store's: what leads must be able to hold it.
    fn choose(&mut self, rules: &K::Rules, term: &Term<K>) -> Outcome<K> {
        let Self::Preparing { promises } = self else { return Outcome::Going(Vec::new()) };
        let promised = |region: &K::Region| promises.contains_key(region);
        let prior = term.prior.is_empty() || !rules.holds(Rule::PriorMajority);
        if !is_majority(&term.replicas, promised) || !(prior || is_majority(&term.prior, promised)) {
            return Outcome::Going(Vec::new());
        }
        let Some(own) = promises.get(&term.own) else { return Outcome::Going(Vec::new()) };
        let Some((from, best)) = greatest(rules, promises, &term.own) else {
            return Outcome::Going(Vec::new());
        };
        // Committed prefixes are equal everywhere (S4), and every log a majority can offer holds them.
        let committed = promises.values().map(|head| head.committed).max().unwrap_or(0);
        if best.last == own.last {
            return Outcome::Chosen { last: own.last.clone(), committed };
        }
        if own.committed > best.last.seq {
            return Outcome::Failed(Why::Contradiction);
        }
        let fetching = Fetching::new(from.clone(), best.last.clone(), own.committed);
        let effect = fetching.ask(term.ballot);
        *self = Self::Fetching(fetching);
        Outcome::Going(vec![effect])
    }
}

/// The log to take: the greatest (accepted, seq), the own where it is as good.
pub(in crate::replication) fn greatest<'a, K: Kind>(
    rules: &K::Rules,
    heads: &'a BTreeMap<K::Region, Head<K>>,
    own: &K::Region,
) -> Option<(&'a K::Region, &'a Head<K>)> {
    heads.iter().max_by_key(|(region, head)| {
        let (ballot, seq) = head.last.rank();
        let ballot = if rules.holds(Rule::ChooseByBallot) { ballot } else { Ballot::default() };
        (ballot, seq, *region == own)
    })
}

fn give<K: Kind>(term: &Term<K>, append: &Append<K>) -> Effect<K> {
    Effect::Send { to: term.own.clone(), request: Request::Append(append.clone()) }
}

impl<K: Kind> Fetching<K> {
    pub fn new(from: K::Region, chosen: Mark<K>, after: u64) -> Self {
        Self { from, chosen, after, before: None, entries: Vec::new() }
    }

    pub fn request(&self, ballot: Ballot) -> Request<K> {
        Request::Fetch { ballot, after: self.entries.last().map_or(self.after, |entry| entry.seq) }
    }

    fn ask(&self, ballot: Ballot) -> Effect<K> {
        Effect::Send { to: self.from.clone(), request: self.request(ballot) }
    }

    /// Takes one page. The peer may have moved on since it promised, so the whole must chain to the
    /// promised head, number, ballot and hash.
    pub fn page(&mut self, rules: &K::Rules, before: Mark<K>, entries: Vec<Entry<K>>) -> Fetched<K> {
        let mut last = match self.entries.last() {
            Some(entry) => entry.mark(),
            None if before.seq == self.after => before.clone(),
            None => return Fetched::More,
        };
        if before.seq < last.seq {
            // A page that was asked for twice.
            return Fetched::More;
        }
        let checked = rules.holds(Rule::FetchedHead);
        if before != last && checked {
            return Fetched::Moved;
        }
        self.before.get_or_insert(before);
        let ended = entries.is_empty();
        for entry in entries {
            if last.seq == self.chosen.seq {
                break;
            }
            if !last.precedes(&entry) {
                return Fetched::Moved;
            }
            last = entry.mark();
            self.entries.push(entry);
        }
        let prev = self.before.clone().unwrap_or_default();
        if last == self.chosen || (!checked && (last.seq == self.chosen.seq || ended)) {
            self.chosen = last;
            return Fetched::All { prev, entries: std::mem::take(&mut self.entries) };
        }
        if ended || last.seq >= self.chosen.seq { Fetched::Moved } else { Fetched::More }
    }
}
