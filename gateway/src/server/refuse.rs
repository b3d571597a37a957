//! What a request's head must be before anyone routes it. Answers are whole already: these requests never
//! reach the layers that name and log the others.

use std::net::SocketAddr;

use axum::response::Response;
use common::Problem;
use common::http::REQUEST_ID;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};

use super::framing::Form;

/// Why a request is refused unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Framing(Form),
    NoHost,
    ManyHosts,
    /// `CONNECT`, or a target that is no path.
    Target,
    /// Dots, backslashes or NUL, plain or encoded, by which two parts of the way may see different paths.
    Path,
    /// A header that may stand once stands twice.
    Repeated(&'static str),
}

/// Those that services read, and of which two parts of the way may each believe another.
const ONCE: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::EXPECT,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-region"),
];

impl Refused {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Framing(form) => form.as_str(),
            Self::NoHost => "no-host",
            Self::ManyHosts => "many-hosts",
            Self::Target => "odd-target",
            Self::Path => "odd-path",
            Self::Repeated(_) => "repeated-header",
        }
    }

    fn problem(self) -> Problem {
        let bad = |detail: &str| Problem::bad_request("malformed-request", detail);
        match self {
            Self::Framing(Form::BothLengths) => {
                bad("the body's length is told twice: Content-Length and Transfer-Encoding")
            }
            Self::Framing(Form::RepeatedLength) => bad("there is more than one Content-Length"),
            Self::Framing(Form::OddEncoding) => bad("the only Transfer-Encoding taken is `chunked`, once"),
            Self::Framing(Form::BareLf) => bad("a line of the head ends without CR"),
            Self::Framing(Form::TooLarge) => {
                let detail = "the request's line and headers are longer than is taken";
                Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-large", detail)
            }
            Self::NoHost => bad("there is no Host"),
            Self::ManyHosts => bad("there is more than one Host"),
            Self::Target => bad("the request's target is not a path"),
            Self::Path => bad("the path has dot segments, backslashes or NUL"),
            Self::Repeated(name) => bad(&format!("there is more than one `{name}`")),
        }
    }

    pub fn answer(self, region: &HeaderValue, peer: SocketAddr) -> Response {
        let id = format!("req_{}", uuid::Uuid::now_v7().simple());
        tracing::info!(request_id = id, peer = %peer.ip(), form = self.as_str(), "a malformed request");
        let mut response = self.problem().render(Some(&id));
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, id);
        }
        headers.insert(common::http::REGION, region.clone());
        if matches!(self, Self::Framing(_) | Self::NoHost | Self::ManyHosts) {
            // Where the next request begins is not certain.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

pub fn check(method: &Method, uri: &Uri, version: Version, headers: &HeaderMap) -> Option<Refused> {
    let hosts = headers.get_all(header::HOST).iter().count();
    match hosts {
        0 if version < Version::HTTP_2 && version > Version::HTTP_10 => return Some(Refused::NoHost),
        0 | 1 => {}
        _ => return Some(Refused::ManyHosts),
    }
    let has_path = uri.path_and_query().is_some() && uri.path().starts_with('/');
    if !has_path || method == Method::CONNECT {
        return Some(Refused::Target);
    }
    if is_odd_path(uri.path()) {
        return Some(Refused::Path);
    }
    for name in &ONCE {
        let mut values = headers.get_all(name).iter();
        if values.next().is_some() && values.next().is_some() {
            return Some(Refused::Repeated(name_of(name)));
        }
    }
    None
}

fn name_of(name: &HeaderName) -> &'static str {
    ["authorization", "content-type", "expect", "idempotency-key", "x-region"]
        .into_iter()
        .find(|known| name == known)
        .unwrap_or("header")
}

fn is_odd_path(path: &str) -> bool {
    let bytes = path.as_bytes();
    // Most paths have none of these.
    if !bytes.iter().any(|b| matches!(b, b'%' | b'.' | b'\\')) {
        return false;
    }
    let decoded = path.to_ascii_lowercase().replace("%2e", ".");
    decoded.split('/').any(|segment| segment == "." || segment == "..")
        || ["\\", "%5c", "%00", "%2f"].iter().any(|odd| decoded.contains(odd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_may_be_seen_as_others_are_refused() {
        for path in ["/v1/../openapi.json", "/v1/%2E%2e/x", "/a/./b", "/a%2Fb", "/a\\b", "/a%00", "/.."] {
            assert!(is_odd_path(path), "{path}");
        }
        for path in ["/", "/v1/tickets/tkt_1.svg", "/.well-known/jwks.json", "/v1/movies/a%20b", "/v1/a..b"] {
            assert!(!is_odd_path(path), "{path}");
        }
    }
}
