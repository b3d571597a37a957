//! Answers of one HTTP/2 connection that wait for their client: a client that opens no window for them, and
//! otherwise does what the protocol asks of it, must not hold them for ever.
//!
//! A body is asked for its next piece only when there is room for it, so that the time since it has given one is the
//! time that the client leaves it unread.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

#[derive(Debug, Default)]
pub struct Unread {
    state: Mutex<State>,
    some: Notify,
}

#[derive(Debug, Default)]
struct State {
    since: HashMap<u64, Instant>,
    bodies: u64,
}

impl Unread {
    /// Returns once an answer has been unread for so long.
    pub async fn overdue(&self, patience: Duration) {
        loop {
            let oldest = self.lock().since.values().min().copied();
            match oldest.map(|since| since + patience) {
                None => self.some.notified().await,
                Some(until) if until <= Instant::now() => return,
                Some(until) => sleep_until(until).await,
            }
        }
    }

    /// The body, watched.
    pub fn watch(self: &Arc<Self>, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let number = {
            let mut state = self.lock();
            state.bodies += 1;
            state.bodies
        };
        self.waits(number);
        Body::new(Watched { body, number, unread: self.clone() })
    }

    fn waits(&self, number: u64) {
        let mut state = self.lock();
        if state.since.is_empty() {
            self.some.notify_one();
        }
        state.since.insert(number, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while holding it")
    }
}

struct Watched {
    body: Body,
    number: u64,
    unread: Arc<Unread>,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        this.unread.lock().since.remove(&this.number);
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(Some(Ok(_)))) {
            this.unread.waits(this.number);
        }
        frame
    }

    /// Not before it has been asked once more than it has pieces: that is when the last of them is on its way.
    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.unread.lock().since.remove(&self.number);
    }
}
