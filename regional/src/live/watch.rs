//! A watcher: where it goes on, and its stream as the body of an answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::HttpBody;
use bytes::Bytes;
use futures::Stream;
use http_body::Frame;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::{Event, KEPT, Live, beat, wire};
use crate::metrics::Metrics;

/// Where a watcher goes on.
pub struct Watch {
    /// What it hears first: everything, or what it missed; empty where it missed nothing.
    first: Bytes,
    upto: u64,
    next: broadcast::Receiver<Event>,
}

impl Live {
    /// Goes on after entry `seen`, or begins with the whole map. None: nobody is told here any more.
    pub fn watch(self: &Arc<Self>, seen: Option<u64>, compact: bool) -> Option<Watch> {
        let mut state = self.state();
        if state.ended {
            return None;
        }
        let next = state.events.get_or_insert_with(|| broadcast::Sender::new(KEPT)).subscribe();
        if !state.beating {
            state.beating = true;
            tokio::spawn(beat(self.clone()));
        }
        let upto = state.seq;
        let first = match seen {
            Some(seen) if (state.since..=upto).contains(&seen) => {
                let missed = state.since(seen);
                if missed.seats.is_empty() {
                    Bytes::new()
                } else {
                    wire::change_event(self.show, self.epoch, &self.plan, &missed)
                }
            }
            _ => {
                let version = self.version_of(&state);
                drop(state);
                version.snapshot(self, compact)
            }
        };
        Some(Watch { first, upto, next })
    }
}

impl Watch {
    pub fn stream(self, metrics: Metrics) -> Watching {
        metrics.watchers.inc();
        let events = BroadcastStream::new(self.next);
        Watching { first: Some(self.first), upto: self.upto, events, metrics }
    }
}

/// The body of a watcher's answer: the same bytes for all of them.
pub struct Watching {
    first: Option<Bytes>,
    upto: u64,
    events: BroadcastStream<Event>,
    metrics: Metrics,
}

impl HttpBody for Watching {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        // An empty first chunk would end the body.
        if let Some(first) = this.first.take().filter(|first| !first.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        loop {
            return match std::task::ready!(Pin::new(&mut this.events).poll_next(context)) {
                // It was told already with what the stream began with.
                Some(Ok(event)) if event.upto <= this.upto => continue,
                Some(Ok(event)) => Poll::Ready(Some(Ok(Frame::data(event.bytes)))),
                // Too far behind: let go, to come back with the last id that it has.
                Some(Err(BroadcastStreamRecvError::Lagged(_))) => {
                    this.metrics.watchers_dropped.inc();
                    Poll::Ready(None)
                }
                None => Poll::Ready(None),
            };
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.metrics.watchers.dec();
    }
}
