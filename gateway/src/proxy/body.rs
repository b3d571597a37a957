//! Bodies on their way in: counted always, held whole where the request may have to be repeated.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use common::Problem;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::Instant;
use tower_http::timeout::TimeoutBody;

use crate::routes::BodyRule;

/// A body ready to go out.
pub enum Ready {
    Whole(Bytes),
    /// Sent once: taken by the first attempt.
    Once(Option<Body>),
}

impl Ready {
    /// The body for an attempt. None: it has gone already.
    pub fn take(&mut self) -> Option<Body> {
        match self {
            Self::Whole(bytes) if bytes.is_empty() => Some(Body::empty()),
            Self::Whole(bytes) => Some(Body::from(bytes.clone())),
            Self::Once(body) => body.take(),
        }
    }

    /// Of what is held here.
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Once(_) => 0,
        }
    }

    pub fn is_repeatable(&self) -> bool {
        matches!(self, Self::Whole(_))
    }
}

/// How much of a body that is too large is still read, so that a caller who writes before reading gets its
/// 413 and not a reset connection.
const DRAIN_MAX_BYTES: usize = 16 * 1024 * 1024;
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// 413 by the told length before a byte is read, else by counting.
pub async fn ready(
    headers: &HeaderMap,
    body: Body,
    rule: BodyRule,
    deadline: Instant,
    idle: Duration,
) -> Result<Ready, Problem> {
    let (BodyRule::Buffered { max_bytes } | BodyRule::Streamed { max_bytes }) = rule;
    let told = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    if told.is_some_and(|bytes: u64| bytes > max_bytes as u64) {
        // One who waits for `100 Continue` has sent nothing and gets the answer at once.
        if !headers.contains_key(header::EXPECT) {
            drain(body).await;
        }
        return Err(too_large(max_bytes));
    }
    if matches!(rule, BodyRule::Streamed { .. }) {
        return Ok(Ready::Once(Some(Body::new(TimeoutBody::new(idle, Limited::new(body, max_bytes))))));
    }
    if hyper::body::Body::is_end_stream(&body) {
        return Ok(Ready::Whole(Bytes::new()));
    }
    // A body that is told to be small is wanted soon.
    let deadline = deadline.min(Instant::now() + idle);
    let mut body = body;
    match tokio::time::timeout_at(deadline, Limited::new(&mut body, max_bytes).collect()).await {
        Ok(Ok(whole)) => Ok(Ready::Whole(whole.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            drain(body).await;
            Err(too_large(max_bytes))
        }
        Ok(Err(_)) => Err(Problem::bad_request("body-incomplete", "the body did not arrive whole")),
        Err(_) => Err(too_slow()),
    }
}

pub fn too_slow() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", "the body did not arrive in time")
}

pub fn too_large(max_bytes: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body-too-large",
        format!("the body is larger than the {max_bytes} bytes that this call takes"),
    )
}

async fn drain(mut body: Body) {
    let read = async {
        let mut left = DRAIN_MAX_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(len) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Either way the answer follows.
    let _ = tokio::time::timeout(DRAIN_MAX, read).await;
}
