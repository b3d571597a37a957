//! Streams of server-sent events that go on when the process they come from does not: whole events are passed on,
//! and when the stream ends, or its show has another owner, the next process is asked for what came after the last
//! event that was.
//!
//! Who has caught up hears the stream that is [`shared`](super::shared) by all who asked for the same.
//!
//! Invariant: an event is passed on whole or not at all, and none twice; so a client notices nothing. A stream
//! without ids, which nobody could resume, is passed on as it is.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use common::{RegionName, ShowId};
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_stream::wrappers::ReceiverStream;

use super::client::Outgoing;
use super::links::Answered;
use super::place::Place;
use super::shared::{Feeding, Joined, Watcher};
use super::{BACKOFF_FIRST, NotOwner, backoff, read};
use crate::app::App;

/// How often it is looked whether the show has another owner: its old one may be cut off and silent.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Without a process that takes the stream over for so long, it ends, and the client comes back by itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of one event; a whole seat map is far smaller.
const EVENT_BYTES_MAX: usize = 8 << 20;
/// Pieces that wait for a slow client.
const BUFFER: usize = 64;

const LAST_EVENT_ID: &str = "last-event-id";

pub fn is_watching(method: &Method, pattern: &str) -> bool {
    *method == Method::GET && pattern == "/v1/shows/{id}/seats/events"
}

/// Whether the answer is a stream that may have to be resumed.
pub fn is_stream(answer: &Response<Answered>) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    answer.status() == StatusCode::OK
        && kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
        && !answer.headers().contains_key(header::CONTENT_ENCODING)
}

/// The body as the client gets it; `from` is the region that it comes from.
pub fn resumed(app: &App, show: ShowId, asked: Outgoing, from: Option<RegionName>, first: Answered) -> Body {
    let (watcher, body) = mpsc::channel(BUFFER);
    let last_id = asked.header(LAST_EVENT_ID).cloned();
    let follower = Follower {
        app: app.clone(),
        show,
        asked,
        from,
        rest: BytesMut::new(),
        last_id,
        has_told: false,
        to: To::One(watcher),
    };
    tokio::spawn(follower.run(first));
    Body::from_stream(ReceiverStream::new(body))
}

/// Who hears the stream.
enum To {
    /// The client that asked for it.
    One(Watcher),
    /// All who asked for the same.
    All(Feeding),
}

/// How a stream came to its end.
enum Ended {
    /// Ended, or broken; or its show has another owner.
    Upstream,
    /// Nobody is left who hears it here.
    Unheard,
}

struct Follower {
    app: App,
    show: ShowId,
    asked: Outgoing,
    from: Option<RegionName>,
    /// What has come of an event that is not whole yet.
    rest: BytesMut,
    last_id: Option<HeaderValue>,
    /// Whether an id has come from the service, not only from the client.
    has_told: bool,
    to: To,
}

impl Follower {
    async fn run(mut self, first: Answered) {
        let mut stream = Some(first);
        while let Some(body) = stream {
            match self.pass_on(body).await {
                Ended::Unheard => return,
                Ended::Upstream => {}
            }
            if self.last_id.is_none() {
                return;
            }
            self.rest.clear();
            let client = match &self.to {
                To::One(watcher) => Some(watcher.clone()),
                To::All(_) => None,
            };
            let gone = async {
                match &client {
                    Some(watcher) => watcher.closed().await,
                    None => std::future::pending().await,
                }
            };
            stream = tokio::select! {
                () = gone => None,
                next = self.next() => next,
            };
        }
    }

    async fn pass_on(&mut self, mut body: Answered) -> Ended {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let gone = async {
                match &self.to {
                    To::One(watcher) => watcher.closed().await,
                    To::All(_) => std::future::pending().await,
                }
            };
            let frame = tokio::select! {
                frame = body.frame() => frame,
                _ = look.tick() => {
                    if self.last_id.is_some() && self.has_moved() {
                        return Ended::Upstream;
                    }
                    if self.is_unheard() {
                        return Ended::Unheard;
                    }
                    continue;
                }
                () = gone => return Ended::Unheard,
            };
            let Some(Ok(frame)) = frame else { return Ended::Upstream };
            let Ok(data) = frame.into_data() else { continue };
            self.rest.extend_from_slice(&data);
            if !self.flush().await || self.is_unheard() {
                return Ended::Unheard;
            }
        }
    }

    /// Passes on all that is whole. False: there is nobody to pass it to.
    async fn flush(&mut self) -> bool {
        if self.rest.len() > EVENT_BYTES_MAX {
            tracing::warn!(show = %self.show, "an event of a stream is too large");
            return false;
        }
        let Some(end) = last_boundary(&self.rest) else { return true };
        let whole = self.rest.split_to(end).freeze();
        if let Some(id) = last_id(&whole) {
            self.last_id = Some(id);
            self.has_told = true;
        }
        match &self.to {
            To::One(watcher) => watcher.send(Ok(whole)).await.is_ok(),
            To::All(all) => {
                all.pass(&numbered(&whole), &whole);
                true
            }
        }
    }

    /// Whether this stream is not needed: its client hears another, which tells the same from here on, or all have
    /// gone.
    fn is_unheard(&mut self) -> bool {
        let watcher = match &self.to {
            To::All(all) => return all.is_deserted(),
            To::One(watcher) => watcher,
        };
        let Some(seq) = self.last_id.as_ref().and_then(|id| number(id.as_bytes())) else { return false };
        match self.app.streams.join(self.asked.path(), seq, self.has_told, watcher) {
            Joined::With => true,
            Joined::First(all) => {
                // What is asked for all is not asked in one caller's name.
                self.asked = self.asked.clone().without_caller();
                self.to = To::All(all);
                false
            }
            Joined::NotYet => false,
        }
    }

    fn has_moved(&self) -> bool {
        let owner = self.app.ownership.owner(self.show);
        owner.is_some_and(|owner| self.from.as_ref().is_some_and(|from| *from != owner))
    }

    /// The stream from whoever leads the show now, after the last event that was passed on.
    async fn next(&mut self) -> Option<Answered> {
        let id = self.last_id.clone()?;
        let asked = self.asked.clone().with_header(LAST_EVENT_ID, id);
        let until = Instant::now() + PATIENCE;
        let mut avoid = None;
        // Even one that ends at once is not asked again without a pause.
        sleep(BACKOFF_FIRST.mul_f64(rand::random_range(0.5..1.5))).await;
        for turn in 1.. {
            let upstream = Place::Show(self.show).upstream(&self.app, avoid.as_ref());
            let deadline = until.min(Instant::now() + Duration::from_secs(5));
            match self.app.client.send(&upstream, &asked, Body::empty(), deadline).await {
                Ok(answer) if is_stream(&answer) => {
                    self.app.metrics.resumed.inc();
                    self.from.clone_from(&upstream.region);
                    return Some(answer.into_body());
                }
                Ok(answer) if answer.status() == StatusCode::MISDIRECTED_REQUEST => {
                    let refusal = read(&upstream, answer, deadline)
                        .await
                        .ok()
                        .and_then(|(_, body)| NotOwner::read(&body));
                    if let Some(NotOwner { owner: Some(owner), epoch, .. }) = refusal
                        && self.app.directory.named(owner.as_str()).is_some()
                    {
                        let home = self.app.directory.by_tag(self.show.home_tag()).map(|r| r.name.clone());
                        let home = home.unwrap_or_else(|| owner.clone());
                        self.app.ownership.learn(self.show, home, owner, epoch);
                    }
                }
                // It will say so to the client as well, who can read it.
                Ok(answer) if answer.status().is_client_error() => return None,
                Ok(_) => {}
                Err(_) => avoid = Some(upstream),
            }
            let pause = backoff(turn.min(4));
            if Instant::now() + pause >= until {
                return None;
            }
            sleep(pause).await;
        }
        None
    }
}

/// Where the last whole event ends: after an empty line.
fn last_boundary(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).rposition(|pair| pair == b"\n\n").map(|at| at + 2)
}

/// The last `id:` among whole events.
fn last_id(events: &[u8]) -> Option<HeaderValue> {
    let id = events.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"id:")).next_back()?;
    HeaderValue::from_bytes(id.trim_ascii()).ok().filter(|id| !id.is_empty())
}

/// The number in an id: `epoch.seq` goes on across epochs.
fn number(id: &[u8]) -> Option<u64> {
    std::str::from_utf8(id).ok()?.split_once('.')?.1.parse().ok()
}

/// Whole events, each with its number.
fn numbered(whole: &Bytes) -> Vec<(Option<u64>, Bytes)> {
    let mut events = Vec::new();
    let mut from = 0;
    while from < whole.len() {
        let length =
            whole[from..].windows(2).position(|pair| pair == b"\n\n").map_or(whole.len() - from, |at| at + 2);
        let event = whole.slice(from..from + length);
        events.push((last_id(&event).and_then(|id| number(id.as_bytes())), event));
        from += length;
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_events_count() {
        let text = b"id: 1.2\ndata: a\n\nid: 1.3\ndata: b\n\nid: 1.4\ndata";
        let end = last_boundary(text).unwrap();
        assert_eq!(&text[end..], b"id: 1.4\ndata");
        assert_eq!(last_id(&text[..end]).unwrap(), "1.3");
        assert_eq!(last_boundary(b"id: 1.2\ndata: a\n"), None);
        assert_eq!(last_id(b": a comment\n\n"), None);
        assert_eq!(last_id(b"id:\n\n"), None);
    }
    #[test]
    fn events_are_told_apart_by_their_numbers() {
        let whole = Bytes::from_static(b"id: 1.2\ndata: a\n\n: beat\n\nid: 2.30\ndata: b\n\n");
        let seqs: Vec<Option<u64>> = numbered(&whole).into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(seqs, [Some(2), None, Some(30)]);
        assert_eq!(numbered(&whole)[2].1, "id: 2.30\ndata: b\n\n");
        assert_eq!(number(b"7"), None);
    }
}
