//! What can be wrong with a journal, each with the invariant of `docs/protocol.md` that it breaks.

use std::fmt;

use common::ShowId;
use serde::Serialize;

/// The rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// An entry's hash is not that of its content and the entry before.
    Chain,
    /// An entry is missing.
    Gap,
    /// The head is not where the entries end, or promises less than it accepted.
    Head,
    /// More is committed than there is.
    Committed,
    /// An entry's bytes are not events of a format that is known.
    Undecodable,
    /// An entry is older than the one before it.
    Time,
    /// A ballot falls, or begins without its `Led`.
    Ballot,
    /// The events do not fold to a state, or two ways of folding them disagree.
    Fold,
    /// Entries or read models of a show that has no head.
    Orphan,
    /// Something is left of a show that was archived.
    Archived,
    /// A seat has two holders, or one that it should not have.
    SeatTwice,
    /// Regions hold different committed entries at one place.
    Prefix,
    /// Money was taken twice, for nothing, or not given back.
    Payment,
    /// A read model is not what the journal folds to.
    ReadModel,
    /// An idempotency key took effect twice.
    KeyTwice,
    /// A ticket that nobody bought, or that admitted twice.
    Ticket,
}

impl Rule {
    /// The invariant, where it is one of the seven.
    pub fn invariant(self) -> Option<&'static str> {
        match self {
            Self::SeatTwice => Some("S1"),
            Self::Chain | Self::Gap | Self::Head | Self::Committed | Self::Undecodable => Some("S2"),
            Self::Ballot => Some("S3"),
            Self::Prefix => Some("S4"),
            Self::Payment => Some("S5"),
            Self::ReadModel | Self::Orphan => Some("S6"),
            Self::KeyTwice => Some("S7"),
            Self::Time | Self::Fold | Self::Archived | Self::Ticket => None,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self).expect("a plain enum");
        f.pad(name.as_str().unwrap_or_default())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Breach {
    pub region: String,
    pub show: ShowId,
    /// The entry at fault, where it is one.
    pub seq: Option<i64>,
    pub rule: Rule,
    pub detail: String,
}

/// Collects what is wrong with one show in one store.
pub(super) struct Findings {
    region: String,
    show: ShowId,
    pub breaches: Vec<Breach>,
}

impl Findings {
    pub fn new(region: &str, show: ShowId) -> Self {
        Self { region: region.to_owned(), show, breaches: Vec::new() }
    }

    pub fn add(&mut self, seq: impl Into<Option<i64>>, rule: Rule, detail: impl Into<String>) {
        let (region, show) = (self.region.clone(), self.show);
        self.breaches.push(Breach { region, show, seq: seq.into(), rule, detail: detail.into() });
    }
}
