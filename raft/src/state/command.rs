//! What may stand in the log, and what applying it answers.
//!
//! Invariant: an entry written once is understood for ever. Each carries its format version; a voter that
//! meets a version or a command it does not know refuses it, and falls behind rather than skip it.

use common::{RegionName, ShowId};
use serde::{Deserialize, Serialize};

use super::record::{RegionRecord, ShowRecord, TicketKey};

/// The version of the log's format. Raised when an old voter could not apply a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub struct Format(u16);

impl Format {
    /// The highest this build reads.
    pub const CURRENT: Self = Self(5);
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
    /// In the lowest format that has the command, so that voters of the release before go on applying
    /// what they can.
    pub fn new(command: Command) -> Self {
        Self { format: Format(command.format()), command }
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
    /// The region is lost: each show it owns goes to another replica that is up. One command, so that no
    /// show is forgotten between two.
    RegionDown {
        region: RegionName,
    },
    /// The region is back, its journals caught up.
    RegionUp {
        region: RegionName,
    },
    /// New shows and moves go elsewhere; what it owns is moved away by planned moves.
    Drain {
        region: RegionName,
    },
    Undrain {
        region: RegionName,
    },
    /// A planned move to another replica. `if_epoch` is what the asker knew: of two moves one counts.
    Move {
        show: ShowId,
        to: RegionName,
        if_epoch: u64,
    },
    /// A change of the replica set; the set before is kept until [`Command::Settled`].
    ChangeReplicas {
        show: ShowId,
        replicas: Vec<RegionName>,
        if_epoch: u64,
    },
    /// The leader of `epoch` has committed its first entry in majorities of both sets.
    Settled {
        show: ShowId,
        epoch: u64,
    },
    /// The region's store went back in time (R5). `incarnation` is the one that was lost: of two who
    /// notice the same loss one counts.
    StoreLost {
        region: RegionName,
        incarnation: u64,
    },
    /// The process has not been heard for too long.
    CloseSession {
        no: u64,
    },
    /// A planned move that the registry makes by itself: away from a region that drains, or home. Unlike
    /// after an operator's [`Command::Move`], the show may be taken home again later.
    Relocate {
        show: ShowId,
        to: RegionName,
        if_epoch: u64,
    },
    /// The region is down and is not waited for: it leaves the replica set of every show.
    GiveUp {
        region: RegionName,
        /// For how many shows something acknowledged may be lost by it, at most. In format 4 whoever passed the
        /// order on had asked.
        #[serde(default = "any_number")]
        at_risk: u64,
    },
    /// A region that was given up keeps the show again; the registry's own, when it is back.
    Rejoin {
        show: ShowId,
        region: RegionName,
        if_epoch: u64,
    },
    /// Commands that arrived together and share one entry, applied in order; each is answered by itself.
    Batch(Vec<Command>),
}

fn any_number() -> u64 {
    u64::MAX
}

impl Command {
    /// The show that it is about, where it is about one.
    pub(crate) fn show(&self) -> Option<ShowId> {
        match self {
            Self::CreateShow { id: show, .. }
            | Self::Move { show, .. }
            | Self::Relocate { show, .. }
            | Self::Rejoin { show, .. }
            | Self::ChangeReplicas { show, .. }
            | Self::Settled { show, .. } => Some(*show),
            _ => None,
        }
    }

    fn format(&self) -> u16 {
        match self {
            Self::OpenSession(_) | Self::CreateShow { .. } => 1,
            Self::CloseSession { .. } | Self::Relocate { .. } => 3,
            Self::Rejoin { .. } => 4,
            Self::GiveUp { .. } => 5,
            Self::Batch(commands) => commands.iter().map(Self::format).max().unwrap_or(1),
            _ => 2,
        }
    }
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
    /// The region as it now is, and how many shows got a new epoch.
    Region {
        region: RegionRecord,
        shows: u64,
    },
    /// The region that was given up; how many shows go on without it, and for how many of them, or of those that
    /// cannot, something acknowledged may be lost.
    GivenUp {
        region: RegionRecord,
        shows: u64,
        at_risk: u64,
    },
    /// Nothing was changed, and repeating it would not help.
    Refused {
        code: Refusal,
        reason: String,
    },
    Batch(Vec<Answer>),
}

/// Why a command was refused, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    UnknownRegion,
    UnknownShow,
    /// The region is down, or draining where it must not.
    RegionNotUp,
    /// It may be well, and is not given up.
    RegionNotDown,
    /// More may be lost than was said.
    ShowsAtRisk,
    /// The region holds no replica of the show.
    NotAReplica,
    /// No other region is up.
    LastRegion,
    /// Somebody was faster.
    EpochPassed,
    /// Another change of the show's replicas is not settled yet.
    ChangeUnderWay,
    /// What was asked cannot be, whatever the state.
    Unfit,
}

impl Refusal {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownRegion => "unknown-region",
            Self::UnknownShow => "unknown-show",
            Self::RegionNotUp => "region-not-up",
            Self::RegionNotDown => "region-not-down",
            Self::ShowsAtRisk => "shows-at-risk",
            Self::NotAReplica => "not-a-replica",
            Self::LastRegion => "last-region",
            Self::EpochPassed => "epoch-passed",
            Self::ChangeUnderWay => "change-under-way",
            Self::Unfit => "unfit",
        }
    }
}

impl Answer {
    pub(crate) fn refused(code: Refusal, reason: impl Into<String>) -> Self {
        Self::Refused { code, reason: reason.into() }
    }
}
