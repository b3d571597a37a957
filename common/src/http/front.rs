//! A way past the layers for one public route whose answers are ready before anybody asks: a seat map is
//! read a thousand times between two changes, and the layers would cost more than the answer.
//!
//! Invariant: nobody can tell by which way an answer came; request id, region and metrics are the same. Who
//! wants a line of log for every request (`debug`) gets it from the layers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri};
use tracing::Level;

use super::edge::{Counts, Edge, request_id};

type Ready = dyn Fn(&Uri, &HeaderMap) -> Option<Response<Bytes>> + Send + Sync;

pub struct Front {
    edge: Edge,
    counts: Counts,
    ready: Box<Ready>,
}

impl Front {
    /// `ready`: the answer to a GET of `route`, 200 or 304, where it takes no waiting; none: the request goes
    /// through the layers. No permission is looked at, so the route must be a public one.
    pub fn new(
        edge: &Edge,
        route: &str,
        ready: impl Fn(&Uri, &HeaderMap) -> Option<Response<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self { edge: edge.clone(), counts: edge.counts(&Method::GET, route), ready: Box::new(ready) }
    }

    pub(super) fn answer<B>(&self, request: &Request<B>) -> Option<Response<Bytes>> {
        let told = tracing::enabled!(target: "common::http::edge", Level::DEBUG);
        if *request.method() != Method::GET || told {
            return None;
        }
        let started = Instant::now();
        // After a panic the layers take over, which answer it with 500.
        let ready = catch_unwind(AssertUnwindSafe(|| (self.ready)(request.uri(), request.headers())));
        let mut response = ready.ok().flatten()?;
        self.edge.mark(response.headers_mut(), request_id(request.headers()));
        self.counts.answered(response.status(), started.elapsed());
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::super::REQUEST_ID;
    use super::*;
    use crate::RegionName;

    #[test]
    fn only_what_is_ready_is_answered() {
        let region: RegionName = "eu".parse().unwrap();
        let edge = Edge::new("test", Some(&region)).unwrap();
        let front = Front::new(&edge, "/{thing}", |uri, _| match uri.path() {
            "/ready" => Some(Response::new(Bytes::from_static(b"body"))),
            "/broken" => panic!("broken"),
            _ => None,
        });
        let ask = |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(path).header(REQUEST_ID, "mine");
            front.answer(&request.body(()).unwrap())
        };
        let answer = ask(Method::GET, "/ready").unwrap();
        assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, &b"body"[..]));
        assert_eq!(answer.headers()[REQUEST_ID], HeaderValue::from_static("mine"));
        assert_eq!(answer.headers()[super::super::REGION], HeaderValue::from_static("eu"));
        assert!(ask(Method::HEAD, "/ready").is_none() && ask(Method::POST, "/ready").is_none());
        assert!(ask(Method::GET, "/other").is_none() && ask(Method::GET, "/broken").is_none());
        // Who listens at `debug` is to see a line for every request.
        let listens =
            tracing_subscriber::fmt().with_max_level(Level::DEBUG).with_writer(std::io::sink).finish();
        tracing::subscriber::with_default(listens, || assert!(ask(Method::GET, "/ready").is_none()));
    }
}
