//! Between the registry's own types and those of the wire; nothing else knows both.

use common::proto::registry as proto;
use common::{RegionName, ShowId};

use crate::state::{
    Change, Command, OpenSession, RegionRecord, RegionState, SessionRecord, ShowRecord, TicketKey,
};
use crate::steward::Mark;

/// A message holds what no such message can hold; the text names the field.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadMessage(String);

const URL_BYTES_MAX: usize = 512;
const KEYS_MAX: usize = 64;
const KID_BYTES_MAX: usize = 64;
const ATTEMPT_BYTES_MAX: usize = 64;
const REPLICAS_MAX: usize = 16;

fn bad(field: &str, why: impl std::fmt::Display) -> BadMessage {
    BadMessage(format!("`{field}`: {why}"))
}

fn region(field: &str, name: &str) -> Result<RegionName, BadMessage> {
    name.parse().map_err(|e| bad(field, e))
}

fn regions(field: &str, names: &[String]) -> Result<Vec<RegionName>, BadMessage> {
    if names.len() > REPLICAS_MAX {
        return Err(bad(field, format_args!("more than {REPLICAS_MAX} regions")));
    }
    names.iter().map(|name| region(field, name)).collect()
}

fn names(regions: Vec<RegionName>) -> Vec<String> {
    regions.into_iter().map(|r| r.to_string()).collect()
}

fn bounded(field: &str, text: String, most: usize) -> Result<String, BadMessage> {
    if text.len() > most { Err(bad(field, format_args!("longer than {most} bytes"))) } else { Ok(text) }
}

pub(crate) fn region_name(name: &str) -> Result<RegionName, BadMessage> {
    region("region", name)
}

/// A command as it is asked for over the wire.
impl TryFrom<proto::MoveRequest> for Command {
    type Error = BadMessage;

    fn try_from(message: proto::MoveRequest) -> Result<Self, BadMessage> {
        let proto::MoveRequest { show_id: show, to, if_epoch } = message;
        Ok(Self::Move { show: show_id(&show)?, to: region("to", &to)?, if_epoch })
    }
}

impl TryFrom<proto::ChangeReplicasRequest> for Command {
    type Error = BadMessage;

    fn try_from(message: proto::ChangeReplicasRequest) -> Result<Self, BadMessage> {
        let proto::ChangeReplicasRequest { show_id: show, replicas, if_epoch } = message;
        if replicas.is_empty() {
            return Err(bad("replicas", "required"));
        }
        Ok(Self::ChangeReplicas {
            show: show_id(&show)?,
            replicas: regions("replicas", &replicas)?,
            if_epoch,
        })
    }
}

impl TryFrom<proto::SettleRequest> for Command {
    type Error = BadMessage;

    fn try_from(message: proto::SettleRequest) -> Result<Self, BadMessage> {
        Ok(Self::Settled { show: show_id(&message.show_id)?, epoch: message.epoch })
    }
}

impl TryFrom<proto::StoreLostRequest> for Command {
    type Error = BadMessage;

    fn try_from(message: proto::StoreLostRequest) -> Result<Self, BadMessage> {
        Ok(Self::StoreLost { region: region_name(&message.region)?, incarnation: message.incarnation })
    }
}

impl From<proto::StoreMark> for Mark {
    fn from(proto::StoreMark { system, timeline, flushed }: proto::StoreMark) -> Self {
        Self { system, timeline, flushed }
    }
}

impl From<Mark> for proto::StoreMark {
    fn from(Mark { system, timeline, flushed }: Mark) -> Self {
        Self { system, timeline, flushed }
    }
}

pub(crate) fn show_id(text: &str) -> Result<ShowId, BadMessage> {
    text.parse().map_err(|e| bad("show_id", e))
}

/// What `CreateShow` asks; `replicas` may be empty.
pub(crate) struct CreateShow {
    pub id: ShowId,
    pub home: RegionName,
    pub replicas: Vec<RegionName>,
}

impl TryFrom<proto::CreateShowRequest> for CreateShow {
    type Error = BadMessage;

    fn try_from(message: proto::CreateShowRequest) -> Result<Self, BadMessage> {
        Ok(Self {
            id: show_id(&message.show_id)?,
            home: region("home", &message.home)?,
            replicas: regions("replicas", &message.replicas)?,
        })
    }
}

impl TryFrom<proto::OpenSessionRequest> for OpenSession {
    type Error = BadMessage;

    fn try_from(message: proto::OpenSessionRequest) -> Result<Self, BadMessage> {
        if message.http_url.is_empty() {
            return Err(bad("http_url", "required"));
        }
        if message.attempt.is_empty() {
            return Err(bad("attempt", "required"));
        }
        if message.ticket_keys.len() > KEYS_MAX {
            return Err(bad("ticket_keys", format_args!("more than {KEYS_MAX}")));
        }
        Ok(Self {
            region: region("region", &message.region)?,
            http_url: bounded("http_url", message.http_url, URL_BYTES_MAX)?,
            grpc_url: bounded("grpc_url", message.grpc_url, URL_BYTES_MAX)?,
            ticket_keys: message.ticket_keys.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            attempt: bounded("attempt", message.attempt, ATTEMPT_BYTES_MAX)?,
        })
    }
}

impl TryFrom<proto::TicketKey> for TicketKey {
    type Error = BadMessage;

    fn try_from(key: proto::TicketKey) -> Result<Self, BadMessage> {
        let public_key = key.public_key.as_ref().try_into();
        let public_key = public_key.map_err(|_| bad("ticket_keys.public_key", "not 32 bytes"))?;
        if key.kid.is_empty() {
            return Err(bad("ticket_keys.kid", "required"));
        }
        Ok(Self { kid: bounded("ticket_keys.kid", key.kid, KID_BYTES_MAX)?, public_key })
    }
}

impl From<TicketKey> for proto::TicketKey {
    fn from(key: TicketKey) -> Self {
        Self { kid: key.kid, public_key: key.public_key.to_vec().into() }
    }
}

impl From<ShowRecord> for proto::Show {
    fn from(show: ShowRecord) -> Self {
        Self {
            show_id: show.id.to_string(),
            home: show.home.to_string(),
            owner: show.owner.to_string(),
            epoch: show.epoch,
            replicas: names(show.replicas),
            prior: names(show.prior),
        }
    }
}

impl TryFrom<proto::Show> for ShowRecord {
    type Error = BadMessage;

    fn try_from(show: proto::Show) -> Result<Self, BadMessage> {
        Ok(Self {
            id: show_id(&show.show_id)?,
            home: region("home", &show.home)?,
            owner: region("owner", &show.owner)?,
            epoch: show.epoch,
            replicas: regions("replicas", &show.replicas)?,
            prior: regions("prior", &show.prior)?,
        })
    }
}

impl From<SessionRecord> for proto::Session {
    fn from(session: SessionRecord) -> Self {
        Self {
            no: session.no,
            region: session.region.to_string(),
            http_url: session.http_url,
            grpc_url: session.grpc_url,
        }
    }
}

impl TryFrom<proto::Session> for SessionRecord {
    type Error = BadMessage;

    fn try_from(session: proto::Session) -> Result<Self, BadMessage> {
        Ok(Self {
            no: session.no,
            region: region("region", &session.region)?,
            http_url: session.http_url,
            grpc_url: session.grpc_url,
        })
    }
}

impl From<RegionRecord> for proto::Region {
    fn from(region: RegionRecord) -> Self {
        Self {
            name: region.name.to_string(),
            state: region.state.to_string(),
            incarnation: region.incarnation,
            given_up: region.given_up,
            disowned: region.disowned,
            ticket_keys: region.ticket_keys.into_iter().map(Into::into).collect(),
        }
    }
}

pub(crate) fn region_state(text: &str) -> Result<RegionState, BadMessage> {
    match text {
        "up" => Ok(RegionState::Up),
        "draining" => Ok(RegionState::Draining),
        "down" => Ok(RegionState::Down),
        other => Err(bad("state", format_args!("`{other}` is unknown here"))),
    }
}

impl TryFrom<proto::Region> for RegionRecord {
    type Error = BadMessage;

    fn try_from(message: proto::Region) -> Result<Self, BadMessage> {
        let state = region_state(&message.state)?;
        Ok(Self {
            name: region("name", &message.name)?,
            state,
            incarnation: message.incarnation,
            drains: false,
            given_up: message.given_up,
            disowned: message.disowned,
            ticket_keys: message.ticket_keys.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<Change> for proto::watch_event::Event {
    fn from(change: Change) -> Self {
        match change {
            Change::Region(region) => Self::Region(region.into()),
            Change::Session(session) => Self::Session(session.into()),
            Change::SessionClosed(no) => Self::SessionClosed(proto::SessionClosed { no }),
            Change::Show(show) => Self::Show(show.into()),
        }
    }
}
