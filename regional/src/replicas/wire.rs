//! Between messages on the wire and the protocol's own words.
//!
//! Invariant: what comes out of here fits the tables and its own show; a message that does not is refused whole,
//! never mended.

use bytes::Bytes;
use common::{RegionName, ShowId};
use jiff::Timestamp;
use uuid::Uuid;

use super::guard::StoreMark;
use super::{Answer, Append, Entry, Hash, Head, Mark, Payload, Reply, Request, proto};
use crate::journal::Ballot;
use crate::replication::Unable;
use crate::show;

/// The version of the messages that this program speaks.
pub const VERSION: u32 = 1;

/// A longer message is refused by whoever receives it; a sender stays below [`MESSAGE_BYTES_AIM`] unless a
/// single entry is longer.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;
pub const MESSAGE_BYTES_AIM: usize = 4 << 20;

/// Requests, or answers, in one message.
pub const MESSAGE_PARTS_MAX: usize = 1_024;

/// The sender's message cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadMessage(&'static str);

/// How far a region's store was, in the incarnation that the registry had counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub incarnation: u64,
    pub mark: StoreMark,
}

/// The first message of a stream, either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub from: RegionName,
    pub to: RegionName,
    pub session: u64,
    /// The hearer's own store, at the latest that the sender knows.
    pub heard: Option<Heard>,
}

/// A request for one show, or what can be told about one that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub show: ShowId,
    pub ballot: Ballot,
    pub request: Result<Request, BadMessage>,
}

type Read<T> = Result<T, BadMessage>;

/// Tables have no unsigned numbers, and the highest one is the archive's own.
fn number(number: u64) -> Read<u64> {
    i64::try_from(number).map(|_| number).map_err(|_| BadMessage("a number is out of range"))
}

fn present<T>(part: Option<T>) -> Read<T> {
    part.ok_or(BadMessage("a part is missing"))
}

fn show_id(bytes: &[u8]) -> Read<ShowId> {
    let id = Uuid::from_slice(bytes).map_err(|_| BadMessage("a show's id has 16 bytes"))?;
    Ok(ShowId(id))
}

fn hash(bytes: &[u8]) -> Read<Hash> {
    Hash::from_slice(bytes).ok_or(BadMessage("a hash has 32 bytes"))
}

impl TryFrom<proto::Ballot> for Ballot {
    type Error = BadMessage;

    fn try_from(ballot: proto::Ballot) -> Read<Self> {
        let proto::Ballot { epoch, session, attempt } = ballot;
        Ok(Self { epoch: number(epoch)?, session: number(session)?, attempt: number(attempt)? })
    }
}

impl From<Ballot> for proto::Ballot {
    fn from(Ballot { epoch, session, attempt }: Ballot) -> Self {
        Self { epoch, session, attempt }
    }
}

impl From<proto::StoreMark> for Heard {
    fn from(proto::StoreMark { system, timeline, flushed, incarnation }: proto::StoreMark) -> Self {
        Self { incarnation, mark: StoreMark { system, timeline, flushed } }
    }
}

impl From<Heard> for proto::StoreMark {
    fn from(Heard { incarnation, mark: StoreMark { system, timeline, flushed } }: Heard) -> Self {
        Self { system, timeline, flushed, incarnation }
    }
}

impl TryFrom<proto::Hello> for Hello {
    type Error = BadMessage;

    fn try_from(hello: proto::Hello) -> Read<Self> {
        if hello.version != VERSION {
            return Err(BadMessage("this version of the messages is not known here"));
        }
        let region = |name: &str| name.parse().map_err(|_| BadMessage("a region's name is none"));
        Ok(Self {
            from: region(&hello.from)?,
            to: region(&hello.to)?,
            session: number(hello.session)?,
            heard: hello.heard.map(Into::into),
        })
    }
}

impl From<Hello> for proto::Hello {
    fn from(Hello { from, to, session, heard }: Hello) -> Self {
        let [from, to] = [from, to].map(|region| region.to_string());
        Self { version: VERSION, from, to, session, heard: heard.map(Into::into) }
    }
}

impl TryFrom<proto::Mark> for Mark {
    type Error = BadMessage;

    fn try_from(mark: proto::Mark) -> Read<Self> {
        let (seq, digest) = (number(mark.seq)?, hash(&mark.hash)?);
        let ballot = mark.ballot.unwrap_or_default().try_into()?;
        if (seq == 0) != (digest == Hash::default()) || (seq == 0 && ballot != Ballot::default()) {
            return Err(BadMessage("a mark contradicts itself"));
        }
        Ok(Self { seq, ballot, digest })
    }
}

impl From<Mark> for proto::Mark {
    fn from(Mark { seq, ballot, digest }: Mark) -> Self {
        Self { seq, ballot: Some(ballot.into()), hash: Bytes::copy_from_slice(digest.as_slice()) }
    }
}

/// The entries that follow `before`. Whether they do, the replica looks at: it is a matter of hashes.
fn entries(show: ShowId, before: &Mark, entries: Vec<proto::Entry>) -> Read<Vec<Entry>> {
    let read = |(seq, entry): (u64, proto::Entry)| {
        let at = Timestamp::from_microsecond(entry.at_micros);
        let format = i16::try_from(entry.format).unwrap_or_default();
        // Rather behind than with a gap in what is understood (R11).
        if !(1..=show::FORMAT).contains(&format) {
            return Err(BadMessage("this format of entries is not known here"));
        }
        Ok(Entry {
            seq: number(seq)?,
            ballot: present(entry.ballot)?.try_into()?,
            digest: hash(&entry.hash)?,
            payload: Payload {
                show,
                at: at.map_err(|_| BadMessage("a time is out of range"))?,
                format,
                events: entry.events,
            },
        })
    };
    (before.seq + 1..).zip(entries).map(read).collect()
}

impl From<Entry> for proto::Entry {
    fn from(entry: Entry) -> Self {
        Self {
            ballot: Some(entry.ballot.into()),
            hash: Bytes::copy_from_slice(entry.digest.as_slice()),
            at_micros: entry.payload.at.as_microsecond(),
            format: u32::from(entry.payload.format.unsigned_abs()),
            events: entry.payload.events,
        }
    }
}

fn written(entries: Vec<Entry>) -> Vec<proto::Entry> {
    entries.into_iter().map(Into::into).collect()
}

impl TryFrom<proto::Head> for Head {
    type Error = BadMessage;

    fn try_from(head: proto::Head) -> Read<Self> {
        Ok(Self {
            incarnation: number(head.incarnation)?,
            promised: present(head.promised)?.try_into()?,
            last: present(head.last)?.try_into()?,
            committed: number(head.committed)?,
        })
    }
}

impl From<Head> for proto::Head {
    fn from(Head { incarnation, promised, last, committed }: Head) -> Self {
        Self { incarnation, promised: Some(promised.into()), last: Some(last.into()), committed }
    }
}

impl TryFrom<proto::Request> for Asked {
    type Error = BadMessage;

    /// An error is one that cannot even be answered.
    fn try_from(message: proto::Request) -> Read<Self> {
        let show = show_id(&message.show_id)?;
        let ballot: Ballot = present(message.ballot)?.try_into()?;
        // The archive's own is promised by nobody's try.
        if ballot >= Ballot::ARCHIVED {
            return Err(BadMessage("no try has this ballot"));
        }
        Ok(Self { show, ballot, request: request(show, ballot, message.kind) })
    }
}

fn request(show: ShowId, ballot: Ballot, kind: Option<proto::request::Kind>) -> Read<Request> {
    use proto::request::Kind;
    Ok(match present(kind)? {
        Kind::Prepare(_) => Request::Prepare { ballot },
        Kind::Append(message) => Request::Append(append(show, ballot, message)?),
        Kind::Extend(message) => Request::Extend(append(show, ballot, message)?),
        Kind::Fetch(fetch) => Request::Fetch { ballot, after: number(fetch.after)? },
        Kind::Report(_) => Request::Report { ballot },
    })
}

fn append(show: ShowId, ballot: Ballot, message: proto::Append) -> Read<Append> {
    let prev: Mark = present(message.prev)?.try_into()?;
    let entries = entries(show, &prev, message.entries)?;
    let (committed, sent) = (number(message.committed)?, message.sent);
    Ok(Append { ballot, prev, entries, committed, sent })
}

/// As it goes on the wire.
pub fn asked(show: ShowId, request: Request) -> proto::Request {
    use proto::request::Kind;
    let append = |append: Append| proto::Append {
        prev: Some(append.prev.into()),
        entries: written(append.entries),
        committed: append.committed,
        sent: append.sent,
    };
    let (ballot, kind) = match request {
        Request::Prepare { ballot } => (ballot, Kind::Prepare(proto::Prepare {})),
        Request::Append(message) => (message.ballot, Kind::Append(append(message))),
        Request::Extend(message) => (message.ballot, Kind::Extend(append(message))),
        Request::Fetch { ballot, after } => (ballot, Kind::Fetch(proto::Fetch { after })),
        Request::Report { ballot } => (ballot, Kind::Report(proto::Report {})),
    };
    proto::Request { show_id: id_bytes(show), ballot: Some(ballot.into()), kind: Some(kind) }
}

/// An answer, as it goes on the wire.
pub fn answered(show: ShowId, reply: Reply) -> proto::Answer {
    use proto::answer::Kind;
    let kind = match reply.answer {
        Answer::Promise { head } => Kind::Promise(head.into()),
        Answer::Appended { upto, sent } => Kind::Appended(proto::Appended { upto, sent }),
        Answer::Mismatch { last, committed, sent } => {
            Kind::Mismatch(proto::Mismatch { last: Some(last.into()), committed, sent })
        }
        Answer::Refused { promised } => Kind::Refused(promised.into()),
        Answer::Entries { promised, before, entries } => Kind::Entries(proto::Entries {
            promised: Some(promised.into()),
            before: Some(before.into()),
            entries: written(entries),
        }),
        Answer::Reported { head } => Kind::Reported(head.into()),
        Answer::Unable(why) => Kind::Unable(proto::Unable::from(why).into()),
    };
    let (show_id, ballot) = (id_bytes(show), Some(reply.ballot.into()));
    proto::Answer { show_id, ballot, incarnation: reply.incarnation, kind: Some(kind) }
}

/// An answer from the wire, and the show that it is about.
pub fn reply(message: proto::Answer) -> Result<(ShowId, Reply), BadMessage> {
    use proto::answer::Kind;
    let show = show_id(&message.show_id)?;
    let answer = match present(message.kind)? {
        Kind::Promise(head) => Answer::Promise { head: head.try_into()? },
        Kind::Appended(appended) => Answer::Appended { upto: number(appended.upto)?, sent: appended.sent },
        Kind::Mismatch(mismatch) => Answer::Mismatch {
            last: present(mismatch.last)?.try_into()?,
            committed: number(mismatch.committed)?,
            sent: mismatch.sent,
        },
        Kind::Refused(promised) => Answer::Refused { promised: promised.try_into()? },
        Kind::Entries(found) => {
            let before: Mark = present(found.before)?.try_into()?;
            let entries = entries(show, &before, found.entries)?;
            Answer::Entries { promised: present(found.promised)?.try_into()?, before, entries }
        }
        Kind::Reported(head) => Answer::Reported { head: head.try_into()? },
        Kind::Unable(why) => {
            let why =
                proto::Unable::try_from(why).map_err(|_| BadMessage("this answer is not known here"))?;
            Answer::Unable(why.try_into()?)
        }
    };
    let (incarnation, ballot) = (number(message.incarnation)?, present(message.ballot)?.try_into()?);
    Ok((show, Reply { incarnation, ballot, answer }))
}

impl From<Unable> for proto::Unable {
    fn from(why: Unable) -> Self {
        match why {
            Unable::NotReplica => Self::NotReplica,
            Unable::Recovering => Self::Recovering,
            Unable::Malformed => Self::Malformed,
            Unable::Contradiction => Self::Contradiction,
            Unable::Unknown => Self::Unknown,
        }
    }
}

impl TryFrom<proto::Unable> for Unable {
    type Error = BadMessage;

    fn try_from(why: proto::Unable) -> Read<Self> {
        Ok(match why {
            proto::Unable::Unspecified => return Err(BadMessage("a part is missing")),
            proto::Unable::NotReplica => Self::NotReplica,
            proto::Unable::Recovering => Self::Recovering,
            proto::Unable::Malformed => Self::Malformed,
            proto::Unable::Contradiction => Self::Contradiction,
            proto::Unable::Unknown => Self::Unknown,
        })
    }
}

fn id_bytes(show: ShowId) -> Bytes {
    Bytes::copy_from_slice(show.0.as_bytes())
}
