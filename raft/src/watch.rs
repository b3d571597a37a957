//! The watch: a snapshot of the registry, then every change.
//!
//! The subscription is taken under the same lock as the first part of the snapshot; the shows follow in
//! pages, so that a million of them are never copied. A page may already hold what a change tells later:
//! records carry epochs, and telling one twice does no harm. A watcher that cannot keep up starts anew.

use std::sync::Arc;
use std::time::Duration;

use common::proto::registry as proto;
use common::proto::registry::watch_event::Event;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::node::Node;
use crate::state::{Change, ShowRecord};
use crate::store::{Published, WatchStart};

const HEARTBEAT: Duration = Duration::from_secs(1);
/// A restarted voter waits so long for a leader to tell it what it has missed, then serves what it has:
/// without a quorum, old knowledge is better than none.
const PATIENCE: Duration = Duration::from_secs(3);
const PAGE_SHOWS: usize = 512;
/// In one event: when a region is lost they come by the ten thousand.
const EVENT_SHOWS: usize = 128;
/// Events that wait for a slow connection; behind them the backlog in the store counts.
const BUFFER_EVENTS: usize = 256;

type Sender = mpsc::Sender<Result<proto::WatchEvent, Status>>;
pub type Stream = ReceiverStream<Result<proto::WatchEvent, Status>>;

/// The watcher is gone.
struct Gone;

/// `many`: the watcher takes many shows in one event.
pub fn start(node: Arc<Node>, many: bool, stop: CancellationToken) -> Stream {
    let (events, stream) = mpsc::channel(BUFFER_EVENTS);
    let watcher = Watcher { events, many };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = watcher.events.closed() => {}
            () = feed(&node, &watcher) => {}
        }
    });
    ReceiverStream::new(stream)
}

/// Ends when the watcher is gone.
async fn feed(node: &Node, watcher: &Watcher) {
    node.caught_up(PATIENCE).await;
    loop {
        let start = node.registry().watch();
        if snapshot(node, watcher, &start).await.is_err() || changes(node, watcher, start).await.is_err() {
            return;
        }
    }
}

struct Watcher {
    events: Sender,
    many: bool,
}

impl Watcher {
    async fn send(&self, index: u64, event: Event) -> Result<(), Gone> {
        let event = proto::WatchEvent { index, event: Some(event) };
        self.events.send(Ok(event)).await.map_err(|_| Gone)
    }

    async fn shows(
        &self,
        index: u64,
        mut shows: impl Iterator<Item = ShowRecord> + Send,
    ) -> Result<(), Gone> {
        let most = if self.many { EVENT_SHOWS } else { 1 };
        loop {
            let mut some: Vec<proto::Show> = shows.by_ref().take(most).map(Into::into).collect();
            let event = match some.len() {
                0 => return Ok(()),
                1 => Event::Show(some.remove(0)),
                _ => Event::Shows(proto::Shows { shows: some }),
            };
            self.send(index, event).await?;
        }
    }

    /// In their order; shows that follow each other together.
    async fn changes(&self, index: u64, changes: &[Change]) -> Result<(), Gone> {
        let show = |change: &Change| if let Change::Show(show) = change { Some(show.clone()) } else { None };
        let is_show = |change: &Change| matches!(change, Change::Show(_));
        for together in changes.chunk_by(|one, next| is_show(one) && is_show(next)) {
            match together {
                [other] if !is_show(other) => self.send(index, other.clone().into()).await?,
                shows => self.shows(index, shows.iter().filter_map(show)).await?,
            }
        }
        Ok(())
    }
}

async fn snapshot(node: &Node, watcher: &Watcher, start: &WatchStart) -> Result<(), Gone> {
    let index = start.index;
    watcher.send(index, Event::SnapshotBegin(proto::SnapshotBegin {})).await?;
    for region in &start.regions {
        watcher.send(index, Event::Region(region.clone().into())).await?;
    }
    for session in &start.sessions {
        watcher.send(index, Event::Session(session.clone().into())).await?;
    }
    let mut after = None;
    loop {
        let page = node.registry().read().registry.shows_after(after, PAGE_SHOWS);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        watcher.shows(index, page.into_iter()).await?;
    }
    watcher.send(index, Event::SnapshotEnd(proto::SnapshotEnd {})).await
}

/// Returns `Ok` when the watcher must start anew.
async fn changes(node: &Node, watcher: &Watcher, start: WatchStart) -> Result<(), Gone> {
    let WatchStart { mut index, mut published, .. } = start;
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => {
                let has_leader = node.leader().is_some();
                watcher.send(index, Event::Heartbeat(proto::Heartbeat { has_leader })).await?;
            }
            heard = published.recv() => match heard {
                Ok(Published::Changes { index: at, changes }) => {
                    index = at;
                    watcher.changes(index, &changes).await?;
                }
                Ok(Published::Replaced) => return Ok(()),
                Err(RecvError::Lagged(entries)) => {
                    tracing::warn!(entries, "a watcher fell behind and starts anew");
                    return Ok(());
                }
                Err(RecvError::Closed) => return Err(Gone),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use common::{RegionName, ShowId};
    use tokio_stream::StreamExt;

    use super::*;
    use crate::config::{Config, Peer};
    use crate::metrics::Metrics;
    use crate::state::Command;

    async fn alone(dir: &std::path::Path) -> Arc<Node> {
        let region: RegionName = "eu".parse().unwrap();
        let config = Config {
            node_id: 1,
            region: "eu".into(),
            data_dir: dir.to_owned(),
            peers: vec![Peer { id: 1, region, url: "http://127.0.0.1:1".into() }],
            ..Config::default()
        };
        let node =
            Arc::new(Node::start(config, common::tls::Tls::plain(), Metrics::new().unwrap()).await.unwrap());
        node.bootstrap().await;
        assert!(node.caught_up(Duration::from_secs(30)).await);
        node
    }

    async fn create(node: &Node, count: usize) {
        let home: RegionName = "eu".parse().unwrap();
        for _ in 0..count {
            let (id, replicas) = (ShowId::new(&home), vec![home.clone()]);
            node.propose(Command::CreateShow { id, home: home.clone(), replicas }).await.unwrap();
        }
    }

    /// The shows of one snapshot, or of the changes up to the next snapshot's begin.
    async fn shows_until(stream: &mut Stream, end: fn(&Event) -> bool) -> usize {
        let mut shows = 0;
        loop {
            let event = stream.next().await.unwrap().unwrap().event.unwrap();
            shows += usize::from(matches!(event, Event::Show(_)));
            if end(&event) {
                return shows;
            }
        }
    }

    /// How many shows each event brings, up to one that ends it.
    async fn told_until(stream: &mut Stream, end: impl Fn(&Event, usize) -> bool) -> Vec<usize> {
        let mut told = Vec::new();
        loop {
            let event = stream.next().await.unwrap().unwrap().event.unwrap();
            match &event {
                Event::Show(_) => told.push(1),
                Event::Shows(many) => told.push(many.shows.len()),
                _ => {}
            }
            if end(&event, told.iter().sum()) {
                return told;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn shows_that_change_together_come_together_for_those_who_take_them() {
        let dir = tempfile::tempdir().unwrap();
        let node = alone(dir.path()).await;
        let stop = CancellationToken::new();
        let mut streams = [true, false].map(|many| start(Arc::clone(&node), many, stop.clone()));
        for stream in &mut streams {
            assert!(told_until(stream, |event, _| matches!(event, Event::SnapshotEnd(_))).await.is_empty());
        }
        let home: RegionName = "eu".parse().unwrap();
        let create = |_| Command::CreateShow {
            id: ShowId::new(&home),
            home: home.clone(),
            replicas: vec![home.clone()],
        };
        let all = 2 * EVENT_SHOWS + 1;
        node.propose(Command::Batch((0..all).map(create).collect())).await.unwrap();
        let [many, single] = &mut streams;
        let is_all = |_: &Event, told| told == all;
        assert_eq!(told_until(many, is_all).await, [EVENT_SHOWS, EVENT_SHOWS, 1]);
        assert_eq!(told_until(single, is_all).await, vec![1; all]);
        // So does a snapshot.
        let mut late = start(Arc::clone(&node), true, stop.clone());
        let told = told_until(&mut late, |event, _| matches!(event, Event::SnapshotEnd(_))).await;
        assert_eq!(told, [EVENT_SHOWS, EVENT_SHOWS, 1]);
        stop.cancel();
        node.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_watcher_that_falls_behind_starts_anew_with_all() {
        let dir = tempfile::tempdir().unwrap();
        let node = alone(dir.path()).await;
        create(&node, 3).await;
        let stop = CancellationToken::new();
        let mut stream = start(Arc::clone(&node), false, stop.clone());
        assert_eq!(shows_until(&mut stream, |e| matches!(e, Event::SnapshotEnd(_))).await, 3);

        // Nobody reads: the buffer fills, then the backlog overflows.
        create(&node, BUFFER_EVENTS + 100).await;
        let told = shows_until(&mut stream, |e| matches!(e, Event::SnapshotBegin(_))).await;
        assert!(told < BUFFER_EVENTS + 100, "{told} were told before it started anew");
        let all = shows_until(&mut stream, |e| matches!(e, Event::SnapshotEnd(_))).await;
        assert_eq!(all, 3 + BUFFER_EVENTS + 100);

        stop.cancel();
        while stream.next().await.is_some() {}
        node.shutdown().await;
    }
}
