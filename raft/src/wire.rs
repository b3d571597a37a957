//! Between the registry's own types and those of the wire; nothing else knows both.

use common::proto::registry as proto;
use common::{RegionName, ShowId};

use crate::state::{Change, OpenSession, RegionRecord, RegionState, SessionRecord, ShowRecord, TicketKey};

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
            ticket_keys: region.ticket_keys.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<proto::Region> for RegionRecord {
    type Error = BadMessage;

    fn try_from(message: proto::Region) -> Result<Self, BadMessage> {
        let state = match message.state.as_str() {
            "up" => RegionState::Up,
            "draining" => RegionState::Draining,
            "down" => RegionState::Down,
            other => return Err(bad("state", format_args!("`{other}` is unknown here"))),
        };
        Ok(Self {
            name: region("name", &message.name)?,
            state,
            incarnation: message.incarnation,
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
