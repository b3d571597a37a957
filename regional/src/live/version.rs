//! One version of a seat map: rendered when it is first asked for, once for each form and coding, and then
//! only handed out, headers included.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use common::http::Conditions;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::{Live, wire};
use crate::asking::{AS_OF, MAY_BE_STALE, SHOW_EPOCH};
use crate::metrics::SeatMaps;
use crate::show::{Plan, SeatStatus};

/// Smaller bodies fit into one packet either way.
const GZIP_FROM: usize = 1_024;
/// Larger ones are compressed beside the requests, not between them.
const GZIP_INLINE: usize = 64 * 1_024;

/// Headers of an answer, with those that the edge adds.
const HEADERS: usize = 9;

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

impl Form {
    /// The form that a request's query asks for, where it is spelt as usual.
    pub fn of(query: Option<&str>) -> Option<Self> {
        match query {
            None | Some("format=full") => Some(Self::Full),
            Some("format=compact") => Some(Self::Compact),
            Some("format=layout") => Some(Self::Layout),
            Some(_) => None,
        }
    }
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

/// Where another may have led since: a version is kept, but not whether it is the latest.
fn warn(live: &Live, headers: &mut HeaderMap) {
    if !live.proof.holds_lease() {
        headers.insert(MAY_BE_STALE, HeaderValue::from_static("true"));
    }
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

/// An answer with its body, as it goes out.
struct Whole {
    headers: HeaderMap,
    body: Bytes,
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
    /// The answers made of them, by form and coding.
    answers: [[OnceLock<Whole>; 2]; 3],
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
            answers: Default::default(),
            snapshots: Default::default(),
        }
    }

    /// What every answer about the show carries.
    pub fn mark(&self, live: &Live, headers: &mut HeaderMap) {
        self.place(headers);
        warn(live, headers);
    }

    fn place(&self, headers: &mut HeaderMap) {
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

    fn tags<'a>(&'a self, live: &'a Live, form: Form) -> &'a [HeaderValue; 2] {
        match form {
            Form::Full => &self.tags[0],
            Form::Compact => &self.tags[1],
            Form::Layout => &live.layout.get(&live.plan).tags,
        }
    }

    /// The answer to a read, where nothing must be rendered for it: 200, or 304 to whom has it already.
    pub(super) fn ready(
        &self,
        live: &Live,
        form: Form,
        coding: Coding,
        conditions: &Conditions,
    ) -> Option<Response<Bytes>> {
        let known = self.tags(live, form).iter().find(|tag| conditions.has(tag));
        let mut response = Response::default();
        if let Some(tag) = known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.headers_mut() = self.headers(form, tag);
            warn(live, response.headers_mut());
            live.metrics.seat_maps.not_modified.inc();
            return Some(response);
        }
        let whole = self.answers[form as usize][coding as usize].get()?;
        live.metrics.seat_maps.cached.inc();
        *response.headers_mut() = whole.headers.clone();
        warn(live, response.headers_mut());
        *response.body_mut() = whole.body.clone();
        Some(response)
    }

    /// The answer to a read, rendered where it is the first.
    pub async fn answer(
        &self,
        live: &Live,
        form: Form,
        coding: Coding,
        conditions: &Conditions,
    ) -> Response<Bytes> {
        if let Some(ready) = self.ready(live, form, coding, conditions) {
            return ready;
        }
        let whole = self.whole(live, form, coding).await;
        let Whole { headers, body } = self.answers[form as usize][coding as usize].get_or_init(|| whole);
        let mut response = Response::new(body.clone());
        *response.headers_mut() = headers.clone();
        warn(live, response.headers_mut());
        response
    }

    async fn whole(&self, live: &Live, form: Form, coding: Coding) -> Whole {
        let [plain_tag, gzip_tag] = self.tags(live, form);
        let mut body = self.plain(live, form);
        let compressed = coding == Coding::Gzip && body.len() >= GZIP_FROM;
        let mut headers = self.headers(form, if compressed { gzip_tag } else { plain_tag });
        if compressed {
            body = match form {
                Form::Full => self.full.gzip(&body).await,
                Form::Compact => self.compact.gzip(&body).await,
                Form::Layout => live.layout.get(&live.plan).body.gzip(&body).await,
            };
            headers.insert(header::CONTENT_ENCODING, GZIP);
        }
        headers.insert(header::CONTENT_TYPE, JSON);
        Whole { headers, body }
    }

    fn headers(&self, form: Form, tag: &HeaderValue) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(HEADERS);
        headers.insert(header::ETAG, tag.clone());
        headers.insert(header::VARY, VARY);
        let cache = if form == Form::Layout { LAYOUT_LIVES } else { CHECK_FIRST };
        headers.insert(header::CACHE_CONTROL, cache);
        self.place(&mut headers);
        headers
    }

    /// The event that a watcher's stream begins with.
    pub(super) fn snapshot(&self, live: &Live, compact: bool) -> Bytes {
        let form = if compact { Form::Compact } else { Form::Full };
        let made = self.snapshots[usize::from(compact)]
            .get_or_init(|| wire::event("snapshot", self.epoch, self.seq, &self.plain(live, form)));
        made.clone()
    }
}
