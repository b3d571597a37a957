//! The live seat map: server-sent events (the HTML standard's `text/event-stream`), resumed by
//! `Last-Event-ID`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use common::http::Path;
use common::{Problem, ShowId};
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use tokio_stream::wrappers::BroadcastStream;

use super::view::SeatMap;
use crate::app::App;
use crate::asking::about;
use crate::host::{Change, Host, SeatChange, Watch};

/// How often a silent stream says that it is alive, for proxies and clients.
const ALIVE: Duration = Duration::from_secs(15);

/// Watch a show's seats
///
/// Begins with an event `snapshot`, the whole map, or, with `Last-Event-ID`, with what came after it; then an
/// event `change` for every committed change. `id` is `epoch.seq`. When the stream ends, connect again with
/// the last `id`.
#[utoipa::path(
    get, path = "/v1/shows/{id}/seats/events", tag = "shows", operation_id = "watch_seats",
    params(("id" = ShowId, Path),
           ("Last-Event-ID" = Option<String>, Header, description = "the `id` of the last event seen", example = "1.42")),
    responses((status = 200, description = "Events whose data is a `SeatMap` or a `SeatChange`",
               body = SeatChange<'static>, content_type = "text/event-stream"))
)]
pub async fn watch(
    State(app): State<App>,
    Path(id): Path<ShowId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let seen = headers.get("last-event-id").map(last_event).transpose()?;
    let host = app.hosts.get(id).await?;
    let (first, watch) = begin(&host, seen);
    let epoch = host.epoch;
    let events = first.into_iter().chain(watch.missed.iter().map(|change| to_event(epoch, change)));
    let live = BroadcastStream::new(watch.next)
        // Whoever lags too far is let go and begins anew; the others do not wait.
        .take_while(|change| std::future::ready(change.is_ok()))
        .filter_map(move |change| std::future::ready(change.ok().map(|change| to_event(epoch, &change))));
    let events: Vec<Event> = events.collect();
    let events = stream::iter(events).chain(live).map(Ok::<_, Infallible>);
    let events = Counted::new(app.clone(), events.take_until(app.stop.clone().cancelled_owned()));
    let mut response =
        about(&host, Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
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

/// What the watcher hears first: what it missed, or everything.
fn begin(host: &Host, seen: Option<u64>) -> (Option<Event>, Watch) {
    let current = host.read(|show| show.seq);
    if let Some(seq) = seen.filter(|seq| *seq <= current)
        && let Some(watch) = host.live.watch_after(seq)
    {
        return (None, watch);
    }
    // Subscribed under the same lock under which the host publishes: the map and what follows are seamless.
    host.read(|show| {
        let watch = host.live.watch_after(show.seq).expect("what is now is always kept");
        let map = serde_json::to_string(&SeatMap::of(show, host.epoch)).expect("plain data");
        let event = Event::default().event("snapshot").id(format!("{}.{}", host.epoch, show.seq)).data(map);
        (Some(event), watch)
    })
}

fn to_event(epoch: u64, change: &Arc<Change>) -> Event {
    Event::default().event("change").id(format!("{epoch}.{}", change.seq)).data(&change.json)
}

/// A stream that is counted among the watchers while it lives.
struct Counted<S> {
    app: App,
    events: std::pin::Pin<Box<S>>,
}

impl<S> Counted<S> {
    fn new(app: App, events: S) -> Self {
        app.metrics.watchers.inc();
        Self { app, events: Box::pin(events) }
    }
}

impl<S: Stream> Stream for Counted<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.events.as_mut().poll_next(context)
    }
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        self.app.metrics.watchers.dec();
    }
}
