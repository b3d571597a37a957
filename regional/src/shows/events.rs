//! The live seat map: server-sent events (the HTML standard's `text/event-stream`), resumed by
//! `Last-Event-ID`.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use common::http::{Path, Query};
use common::{Problem, ShowId};
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;

use crate::app::App;
use crate::live::wire::SeatChange;

#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Watching {
    /// How a `snapshot` is written: `full`, or `compact`, one letter a seat.
    #[param(inline)]
    format: Option<Whole>,
}

/// How the whole map is written at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Whole {
    Full,
    Compact,
}

/// Watch a show's seats
///
/// Begins with an event `snapshot`, the whole map, or, with `Last-Event-ID`, with what came after it; then
/// events `change`: the present status of every seat that changed since the event before. Changes that come
/// faster than they can be told share an event. `id` is `epoch.seq`, where `seq` counts the show's journal:
/// it rises, with gaps. When the stream ends, connect again with the last `id`; a reader that is too slow is
/// let go so. A `snapshot` replaces all that was known.
#[utoipa::path(
    get, path = "/v1/shows/{id}/seats/events", tag = "shows", operation_id = "watch_seats",
    params(("id" = ShowId, Path), Watching,
           ("Last-Event-ID" = Option<String>, Header, description = "the `id` of the last event seen", example = "1.42")),
    responses((status = 200, description = "Events whose data is a `SeatMap` (or `CompactSeatMap`) or a `SeatChange`",
               body = SeatChange<'static>, content_type = "text/event-stream"))
)]
pub async fn watch(
    State(app): State<App>,
    Path(id): Path<ShowId>,
    Query(query): Query<Watching>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let seen = headers.get("last-event-id").map(last_event).transpose()?;
    let compact = query.format == Some(Whole::Compact);
    let stopping = || Problem::unavailable("show-unavailable", "this show is changing hands", 1);
    // Between finding the show and listening it may have gone: the next look finds its new place.
    for _ in 0..3 {
        let live = app.live(id).await?;
        if seen.is_some_and(|seen| seen > live.seq()) {
            // It heard more from another process than this one has heard of it.
            app.relay.refresh(id).await;
        }
        let Some(watch) = live.watch(seen, compact).filter(|_| !app.stop.is_cancelled()) else { continue };
        let mut response = Response::new(Body::new(watch.stream(app.metrics.clone())));
        let headers = response.headers_mut();
        live.version().mark(&live, headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok(response);
    }
    Err(stopping())
}

/// `epoch.seq`; the sequence goes on across epochs, so only it is compared.
fn last_event(value: &HeaderValue) -> Result<u64, Problem> {
    let text = value.to_str().unwrap_or_default();
    let parts =
        text.split_once('.').and_then(|(epoch, seq)| Some((epoch.parse::<u64>().ok()?, seq.parse().ok()?)));
    parts
        .map(|(_, seq)| seq)
        .ok_or_else(|| Problem::invalid("Last-Event-ID", "is not the id of an event of this stream"))
}
