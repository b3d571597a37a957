//! The registry's nouns, as its users see them, and the changes that watchers hear of.

use std::fmt;

use common::{RegionName, ShowId};
use serde::{Deserialize, Serialize};

/// Who owns a show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShowRecord {
    pub id: ShowId,
    /// Where the show was created, and where it belongs when all is well.
    pub home: RegionName,
    /// The region that may lead the show's journal.
    pub owner: RegionName,
    /// Rises by one at every change of `owner` or `replicas`; starts at 1.
    pub epoch: u64,
    pub replicas: Vec<RegionName>,
    /// The replica set before, while a change of it is not settled; else empty.
    pub prior: Vec<RegionName>,
}

/// One life of one regional process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Never 0, never used twice, and higher than every number drawn before.
    pub no: u64,
    pub region: RegionName,
    /// Where gateways reach the process.
    pub http_url: String,
    /// Where its peers reach it; empty while it has none.
    pub grpc_url: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegionState {
    #[default]
    Up,
    Draining,
    Down,
}

impl RegionState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for RegionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A public key with which a region signs tickets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKey {
    pub kid: String,
    /// Ed25519.
    pub public_key: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionRecord {
    pub name: RegionName,
    pub state: RegionState,
    /// Of its store: rises when the store is found to have lost its tail.
    #[serde(default)]
    pub incarnation: u64,
    /// It is down, and drains on when it comes back: somebody has asked for that before.
    #[serde(default)]
    pub drains: bool,
    /// It was down, and an operator would not wait for it: no show counts on it until it is up again.
    #[serde(default)]
    pub given_up: bool,
    /// What its store has of an incarnation before this one counts for nothing, committed or not: others went on
    /// without it.
    #[serde(default)]
    pub disowned: u64,
    /// All that were ever announced: tickets outlive the key's use.
    pub ticket_keys: Vec<TicketKey>,
}

impl RegionRecord {
    pub(crate) fn up(name: RegionName) -> Self {
        Self {
            name,
            state: RegionState::Up,
            incarnation: 0,
            drains: false,
            given_up: false,
            disowned: 0,
            ticket_keys: Vec::new(),
        }
    }
}

/// One thing that an applied command changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Region(RegionRecord),
    Session(SessionRecord),
    SessionClosed(u64),
    Show(ShowRecord),
}
