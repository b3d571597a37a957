//! Which headers go on and which end here (RFC 9110 §7.6).

use common::http::{DEADLINE, REGION, REQUEST_ID, RequestId};
use common::telemetry::Trace;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::address::{Origin, X_FORWARDED_FOR};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Headers that concern one connection only.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What proxies in front say; believed from trusted ones only.
const PROXY_SAYS: [HeaderName; 4] = [
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-port"),
];

/// The caller's address by this edge's own word, whatever anybody in front says.
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The caller's headers as the service behind gets them. `streamed`: the body is passed on as it comes, so
/// its length, where told, still holds; a buffered body tells its own.
pub fn outgoing(
    mut headers: HeaderMap,
    origin: &Origin,
    id: &RequestId,
    trace: &Trace,
    streamed: bool,
) -> HeaderMap {
    strip_hop_by_hop(&mut headers);
    // The client sets the host of the service; this edge has answered the expectation itself; the pinned
    // region has been read.
    headers.remove(header::HOST);
    headers.remove(header::EXPECT);
    headers.remove(&REGION);
    headers.remove(&DEADLINE);
    if !streamed {
        headers.remove(header::CONTENT_LENGTH);
    }
    if !origin.peer_trusted {
        for name in &PROXY_SAYS {
            headers.remove(name);
        }
    }
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(X_FORWARDED_FOR, &origin.forwarded_for);
    set(X_REAL_IP, &origin.client.to_string());
    set(REQUEST_ID, &id.0);
    set(TRACEPARENT, &trace.header());
    headers
}

/// Gives a request a key where the caller sent none, so that it can be repeated when its outcome is not known.
pub fn make_key(headers: &mut HeaderMap) -> bool {
    if headers.contains_key(&IDEMPOTENCY_KEY) {
        return false;
    }
    let Ok(key) = HeaderValue::try_from(format!("gw-{:032x}", rand::random::<u128>())) else { return false };
    headers.insert(IDEMPOTENCY_KEY, key);
    true
}

/// Whoever sent no key has not repeated anything.
pub fn unmark_replay(mut answer: axum::response::Response) -> axum::response::Response {
    answer.headers_mut().remove(REPLAYED);
    answer
}

/// The service's headers as the caller gets them.
pub fn incoming(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    // The edge says it itself.
    headers.remove(&REQUEST_ID);
}

/// Adds methods to `Allow` that other services answer at the same path.
pub fn also_allow(headers: &mut HeaderMap, methods: &[&str]) {
    if methods.is_empty() {
        return;
    }
    let told = headers.get(header::ALLOW).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let told = told.split(',').map(str::trim).filter(|method| !method.is_empty());
    let all: Vec<&str> = methods.iter().copied().chain(told.filter(|m| !methods.contains(m))).collect();
    if let Ok(value) = HeaderValue::from_str(&all.join(",")) {
        headers.insert(header::ALLOW, value);
    }
}
