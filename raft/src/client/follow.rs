//! Keeps a [`RegistryView`] up to date from one voter at a time, for ever.
//!
//! Another voter is taken when the stream breaks, when it is silent, and when the voter has had no leader
//! for a while and another voter has one: then this one is cut off, and what it says is old.

use std::time::Duration;

use common::proto::registry as proto;
use common::proto::registry::registry_client::RegistryClient as GrpcClient;
use common::proto::registry::watch_event::Event;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;
use tonic::transport::Channel;

use super::view::RegistryView;
use crate::state::{Change, RegionRecord, SessionRecord, ShowRecord};
use crate::wire::BadMessage;

/// The voter beats once a second.
const SILENCE: Duration = Duration::from_secs(5);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// Longer than an election takes.
const LEADERLESS: Duration = Duration::from_secs(4);

#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] tonic::Status),
    #[error("no word within {} s", SILENCE.as_secs())]
    Silent,
    #[error("the voter ended the stream")]
    Ended,
    #[error("the voter is cut off from the leader")]
    CutOff,
    #[error("an unreadable event: {0}")]
    Unreadable(#[from] BadMessage),
}

pub(super) async fn follow(voters: &[GrpcClient<Channel>], view: &RegistryView) {
    for turn in 0.. {
        let interrupted = follow_one(voters, turn % voters.len(), view).await;
        let Err(why) = interrupted;
        tracing::warn!(%why, "the registry's watch was interrupted");
        // At once to the next voter, with a pause after each round.
        if (turn + 1) % voters.len() == 0 {
            sleep(Duration::from_millis(200 + rand::random_range(0..300))).await;
        }
    }
}

/// Ends only by an interruption.
async fn follow_one(
    voters: &[GrpcClient<Channel>],
    at: usize,
    view: &RegistryView,
) -> Result<std::convert::Infallible, Interrupted> {
    let mut voter = voters[at].clone();
    let opening = timeout(SILENCE, voter.watch(proto::WatchRequest { many: true }));
    let mut stream = opening.await.map_err(|_| Interrupted::Silent)??.into_inner();
    let mut snapshot = Snapshot::default();
    let mut leaderless_since: Option<Instant> = None;
    loop {
        let event = next(&mut stream).await?;
        view.heard();
        match event {
            Event::Heartbeat(proto::Heartbeat { has_leader: true }) => leaderless_since = None,
            Event::Heartbeat(_) => {
                let since = *leaderless_since.get_or_insert_with(Instant::now);
                if since.elapsed() > LEADERLESS && another_has_a_leader(voters, at).await {
                    return Err(Interrupted::CutOff);
                }
            }
            Event::SnapshotBegin(_) => snapshot = Snapshot { open: true, ..Snapshot::default() },
            Event::SnapshotEnd(_) => {
                let Snapshot { regions, sessions, .. } = std::mem::take(&mut snapshot);
                view.replace(regions, sessions);
            }
            Event::Region(region) if snapshot.open => snapshot.regions.push(region.try_into()?),
            Event::Session(session) if snapshot.open => snapshot.sessions.push(session.try_into()?),
            Event::Show(show) if snapshot.open => view.load(&[show.try_into()?]),
            Event::Shows(shows) if snapshot.open => view.load(&records(shows)?),
            Event::Region(region) => view.apply(Change::Region(region.try_into()?)),
            Event::Session(session) => view.apply(Change::Session(session.try_into()?)),
            Event::Show(show) => view.apply(Change::Show(show.try_into()?)),
            Event::Shows(shows) => view.take(&records(shows)?),
            Event::SessionClosed(closed) => view.apply(Change::SessionClosed(closed.no)),
        }
    }
}

fn records(shows: proto::Shows) -> Result<Vec<ShowRecord>, BadMessage> {
    shows.shows.into_iter().map(TryInto::try_into).collect()
}

/// What a snapshot has brought so far; shows go to the view at once.
#[derive(Default)]
struct Snapshot {
    open: bool,
    regions: Vec<RegionRecord>,
    sessions: Vec<SessionRecord>,
}

async fn next(stream: &mut Streaming<proto::WatchEvent>) -> Result<Event, Interrupted> {
    loop {
        let message = timeout(SILENCE, stream.message()).await.map_err(|_| Interrupted::Silent)??;
        // An event of a kind that is unknown here is passed over: newer voters may tell more.
        if let Some(event) = message.ok_or(Interrupted::Ended)?.event {
            return Ok(event);
        }
    }
}

async fn another_has_a_leader(voters: &[GrpcClient<Channel>], except: usize) -> bool {
    for (i, voter) in voters.iter().enumerate() {
        let mut voter = voter.clone();
        if i != except
            && let Ok(Ok(status)) = timeout(CONNECT_DEADLINE, voter.status(proto::StatusRequest {})).await
            && !status.into_inner().leader.is_empty()
        {
            return true;
        }
    }
    false
}
