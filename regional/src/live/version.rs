//! One version of a seat map: rendered when it is first asked for, once for each form and coding, and then
//! only handed out.

use std::sync::OnceLock;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use common::http::Conditions;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde::Deserialize;
use std::io::Write;
use std::sync::Arc;
use tokio::sync::OnceCell;

use super::{Live, wire};
use crate::asking::{AS_OF, SHOW_EPOCH};
use crate::metrics::SeatMaps;
use crate::show::{Plan, SeatStatus};

/// Smaller bodies fit into one packet either way.
const GZIP_FROM: usize = 1_024;
/// Larger ones are compressed beside the requests, not between them.
const GZIP_INLINE: usize = 64 * 1_024;

/// A layout is another one only for another show, or after a new version of this program.
const LAYOUT_LIVES: HeaderValue = HeaderValue::from_static("public, max-age=3600");
const CHECK_FIRST: HeaderValue = HeaderValue::from_static("no-cache");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const VARY: HeaderValue = HeaderValue::from_static("accept-encoding");

/// How much of the map is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Every seat with its type, status and prices.
    #[default]
    Full,
    /// One letter a seat.
    Compact,
    /// What does not change: places, types, prices.
    Layout,
}

/// How a body may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
}

impl Coding {
    /// The better one of those that the client takes (RFC 9110, section 12.5.3).
    pub fn accepted(headers: &HeaderMap) -> Self {
        let given = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let takes_gzip = given.flat_map(|list| list.split(',')).any(|item| {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let gzip = name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip");
            gzip && !parts
                .any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0)))
        });
        if takes_gzip { Self::Gzip } else { Self::Identity }
    }
}

/// A body in its codings.
#[derive(Default)]
struct Codings {
    plain: OnceLock<Bytes>,
    gzip: OnceCell<Bytes>,
}

impl Codings {
    fn plain(&self, count: &SeatMaps, render: impl FnOnce() -> Vec<u8>) -> &Bytes {
        if let Some(plain) = self.plain.get() {
            count.cached.inc();
            return plain;
        }
        count.rendered.inc();
        self.plain.get_or_init(|| render().into())
    }

    async fn gzip(&self, plain: &Bytes) -> Bytes {
        let made = self.gzip.get_or_init(async || {
            if plain.len() < GZIP_INLINE {
                return gzip(plain);
            }
            let plain = plain.clone();
            let made = tokio::task::spawn_blocking(move || gzip(&plain)).await;
            made.expect("compressing does not panic")
        });
        made.await.clone()
    }
}

fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("writing to memory does not fail").into()
}

/// The tags of a body by its coding, since the bytes differ; who has one of them has what the other names.
fn tags(name: &str) -> [HeaderValue; 2] {
    ["", "-gzip"].map(|coding| {
        HeaderValue::try_from(format!("\"{name}{coding}\"")).expect("digits and hex are visible")
    })
}

/// A show's layout with its tags; made when it is first asked for.
#[derive(Default)]
pub struct LayoutCell(OnceLock<Arc<Layout>>);

struct Layout {
    name: String,
    tags: [HeaderValue; 2],
    body: Codings,
}

impl LayoutCell {
    fn get(&self, plan: &Plan) -> &Arc<Layout> {
        self.0.get_or_init(|| {
            let (name, plain) = wire::layout(plan);
            let body = Codings::default();
            let _ = body.plain.set(plain.into());
            Arc::new(Layout { tags: tags(&name), name, body })
        })
    }
}

pub struct Version {
    pub seq: u64,
    pub epoch: u64,
    /// Of the whole map and of the compact one.
    tags: [[HeaderValue; 2]; 2],
    as_of: HeaderValue,
    seats: Vec<SeatStatus>,
    full: Codings,
    compact: Codings,
    /// The first event of a watcher, in both forms.
    snapshots: [OnceLock<Bytes>; 2],
}

impl Version {
    pub(super) fn new(live: &Live, seq: u64, at: Timestamp, seats: Vec<SeatStatus>) -> Self {
        let as_of = HeaderValue::try_from(at.to_string()).expect("a time is visible ASCII");
        Self {
            seq,
            epoch: live.epoch,
            tags: ["", "-c"].map(|form| tags(&format!("{seq}-{}{form}", live.epoch))),
            as_of,
            seats,
            full: Codings::default(),
            compact: Codings::default(),
            snapshots: Default::default(),
        }
    }

    /// What every answer about the show carries.
    pub fn mark(&self, headers: &mut HeaderMap) {
        headers.insert(SHOW_EPOCH, self.epoch.into());
        headers.insert(AS_OF, self.as_of.clone());
    }

    fn plain(&self, live: &Live, form: Form) -> Bytes {
        let place = (live.show, self.epoch, self.seq);
        let count = &live.metrics.seat_maps;
        match form {
            Form::Full => self.full.plain(count, || wire::full(place, &live.plan, &self.seats)),
            Form::Compact => {
                let layout = live.layout.get(&live.plan);
                self.compact.plain(count, || wire::compact(place, &layout.name, &self.seats))
            }
            Form::Layout => {
                let layout = live.layout.get(&live.plan);
                layout.body.plain(count, Vec::new)
            }
        }
        .clone()
    }

    /// The answer to a read: 200, or 304 to whom has it already.
    pub async fn answer(&self, live: &Live, form: Form, coding: Coding, conditions: &Conditions) -> Response {
        let layout = (form == Form::Layout).then(|| live.layout.get(&live.plan));
        let tags = layout.map_or(&self.tags[usize::from(form == Form::Compact)], |layout| &layout.tags);
        let [plain_tag, gzip_tag] = tags;
        let mut response = Response::new(Body::empty());
        let mut tag = plain_tag;
        if conditions.has(plain_tag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else if conditions.has(gzip_tag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            tag = gzip_tag;
        } else {
            let mut body = self.plain(live, form);
            if coding == Coding::Gzip && body.len() >= GZIP_FROM {
                body = match form {
                    Form::Full => self.full.gzip(&body).await,
                    Form::Compact => self.compact.gzip(&body).await,
                    Form::Layout => live.layout.get(&live.plan).body.gzip(&body).await,
                };
                response.headers_mut().insert(header::CONTENT_ENCODING, GZIP);
                tag = gzip_tag;
            }
            response.headers_mut().insert(header::CONTENT_TYPE, JSON);
            *response.body_mut() = Body::from(body);
        }
        let headers = response.headers_mut();
        headers.insert(header::ETAG, tag.clone());
        headers.insert(header::VARY, VARY);
        let cache = if form == Form::Layout { LAYOUT_LIVES } else { CHECK_FIRST };
        headers.insert(header::CACHE_CONTROL, cache);
        self.mark(headers);
        response
    }

    /// The event that a watcher's stream begins with.
    pub(super) fn snapshot(&self, live: &Live, compact: bool) -> Bytes {
        let form = if compact { Form::Compact } else { Form::Full };
        let made = self.snapshots[usize::from(compact)]
            .get_or_init(|| wire::event("snapshot", self.epoch, self.seq, &self.plain(live, form)));
        made.clone()
    }
}
