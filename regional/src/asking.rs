//! From a request to the show and back: the actor, the trace and the idempotency key go in, the headers that
//! every answer about a show carries come out.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use common::authz::Authorized;
use common::telemetry::Trace;
use common::{Problem, ShowId, UserId};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::host::{Answer, Host, HostError};
use crate::reservations::origin::client_address;
use crate::show::{Asked, Command, Group, KeyUse};

pub const SHOW_EPOCH: HeaderName = HeaderName::from_static("x-show-epoch");
pub const AS_OF: HeaderName = HeaderName::from_static("x-as-of");
pub const MAY_BE_STALE: HeaderName = HeaderName::from_static("x-may-be-stale");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Whence a request comes, for what follows from it later: its `traceparent`, and the client's address by the
/// gateway's word. An extractor that never fails.
pub struct Whence {
    pub trace: Option<String>,
    pub address: Option<IpAddr>,
}

impl<S: Send + Sync> FromRequestParts<S> for Whence {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let trace = parts.extensions.get::<Trace>().map(Trace::header);
        Ok(Self { trace, address: client_address(&parts.headers) })
    }
}

impl Whence {
    /// As the audit log has it: empty where it is not known.
    pub fn place(&self) -> String {
        self.address.map(|address| address.to_string()).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DryRun {
    /// Only say what would go back.
    pub dry_run: Option<bool>,
}

/// Who asks, in which trace; of staff, from where.
pub struct Asker {
    by: Option<UserId>,
    trace: Option<String>,
    from: Option<String>,
}

impl Asker {
    /// `staff`: it is the cinema's business that is done, not the caller's own, and the address is kept for the
    /// audit log.
    pub fn new(authorized: &Authorized, whence: Whence, staff: bool) -> Self {
        let by = authorized.user();
        let from = whence.address.filter(|_| staff).map(|address| address.to_string());
        Self { by, trace: whence.trace, from }
    }

    /// The command with its context. `key`: the header's text, `operation` and `body`: what it was used for.
    pub fn asks(
        &self,
        command: Command,
        key: Option<&str>,
        operation: &str,
        body: &impl Serialize,
    ) -> Result<Asked, Problem> {
        let key = key.map(|key| self.key(key, operation, body)).transpose()?;
        Ok(Asked { command, by: self.by, key, trace: self.trace.clone(), from: self.from.clone() })
    }

    fn key(&self, key: &str, operation: &str, body: &impl Serialize) -> Result<KeyUse, Problem> {
        // Everybody has their own keys; the same text from two people is two keys.
        let who = self.by.map_or_else(String::new, |by| by.to_string());
        let body = serde_json::to_vec(body).map_err(Problem::internal)?;
        Ok(KeyUse {
            id: digest(&[who.as_bytes(), key.as_bytes()]),
            body: digest(&[operation.as_bytes(), &body]),
        })
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

/// What goes wrong in a handler about a show: a problem, perhaps with the show's headers on it already.
pub struct Failed(Response);

impl Failed {
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }
}

impl From<Response> for Failed {
    fn from(response: Response) -> Self {
        Self(response)
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self(problem.into_response())
    }
}

impl From<HostError> for Failed {
    fn from(error: HostError) -> Self {
        Problem::from(error).into()
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        self.0
    }
}

/// What a command did: the group (none: it was so already) and whether it is told again.
pub struct Did {
    pub host: Host,
    pub group: Option<std::sync::Arc<Group>>,
    pub repeated: bool,
}

/// Asks the show; a refusal becomes its problem, marked when it is told again under its key.
pub async fn ask(app: &App, show: ShowId, asked: Asked) -> Result<Did, Failed> {
    let (host, answer) = app.hosts.ask(show, asked).await?;
    match answer {
        Answer::Done { group, repeated } => Ok(Did { host, group: Some(group), repeated }),
        Answer::Already => Ok(Did { host, group: None, repeated: true }),
        Answer::Refused { refusal, repeated } => {
            let response = Problem::from(refusal).into_response();
            Err(about(&host, if repeated { replayed(response) } else { response }).into())
        }
    }
}

/// Marks an answer that was given before.
pub fn replayed(mut response: Response) -> Response {
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Adds what every answer about a show carries.
pub fn about(host: &Host, response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    mark(response.headers_mut(), host.epoch, host.read(|show| show.last_at), host.is_current());
    response
}

/// The epoch; when the last change was made that is known here; and, where another may have led since, that there
/// may be later ones.
pub fn mark(headers: &mut HeaderMap, epoch: u64, at: Timestamp, is_current: bool) {
    headers.insert(SHOW_EPOCH, epoch.into());
    headers.insert(AS_OF, HeaderValue::try_from(at.to_string()).expect("a time is visible ASCII"));
    if !is_current {
        headers.insert(MAY_BE_STALE, HeaderValue::from_static("true"));
    }
}

/// Whether the reader wants the owner's word, and no copy's (`Cache-Control: no-cache`).
pub fn wants_freshest(headers: &HeaderMap) -> bool {
    headers.get_all(header::CACHE_CONTROL).iter().any(|value| {
        let words = value.to_str().unwrap_or_default().split(',');
        words.map(str::trim).any(|word| word.eq_ignore_ascii_case("no-cache"))
    })
}
