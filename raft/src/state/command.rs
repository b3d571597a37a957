//! What may stand in the log, and what applying it answers.
//!
//! Invariant: an entry written once is understood for ever. Each carries its format version; a voter that
//! meets a version or a command it does not know refuses it, and falls behind rather than skip it.

use common::{RegionName, ShowId};
use serde::{Deserialize, Serialize};

use super::record::{ShowRecord, TicketKey};

/// The version of the log's format. Raised when an old voter could not apply a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub struct Format(u16);

impl Format {
    /// The one this build writes, and the highest it reads.
    pub const CURRENT: Self = Self(1);
}

impl From<Format> for u16 {
    fn from(format: Format) -> Self {
        format.0
    }
}

impl TryFrom<u16> for Format {
    type Error = String;

    fn try_from(version: u16) -> Result<Self, String> {
        if (1..=Self::CURRENT.0).contains(&version) {
            Ok(Self(version))
        } else {
            Err(format!("log entries of format {version} are unknown here; this voter must be upgraded"))
        }
    }
}

/// One log entry's body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    #[serde(rename = "v")]
    pub format: Format,
    #[serde(rename = "do")]
    pub command: Command,
}

impl Proposal {
    pub fn new(command: Command) -> Self {
        Self { format: Format::CURRENT, command }
    }
}

/// A change of the registry. All that a command depends on is inside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    OpenSession(OpenSession),
    /// Registers a show with its home as first owner; a repeat answers the present record.
    CreateShow {
        id: ShowId,
        home: RegionName,
        replicas: Vec<RegionName>,
    },
    /// Commands that arrived together and share one entry, applied in order; each is answered by itself.
    Batch(Vec<Command>),
}

/// Draws a number for one life of one regional process and closes older sessions of the same URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSession {
    pub region: RegionName,
    pub http_url: String,
    pub grpc_url: String,
    pub ticket_keys: Vec<TicketKey>,
    pub attempt: String,
}

/// What a command led to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// For entries that are raft's own.
    Nothing,
    Session {
        no: u64,
    },
    Show(ShowRecord),
    /// Nothing was changed, and repeating it would not help.
    Refused {
        reason: String,
    },
    Batch(Vec<Answer>),
}

impl Answer {
    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }
}
