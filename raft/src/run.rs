//! The service: operations port, gRPC server, and an eye on raft, from start to graceful stop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use common::config::Config as _;
use common::ops::{Dependency, Health};
use common::proto::registry::ownership_server::OwnershipServer;
use common::proto::registry::raft_peer_server::RaftPeerServer;
use common::proto::registry::registry_server::RegistryServer;
use common::tls::Connection;
use futures::Stream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::callers::Callers;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::network::MESSAGE_BYTES_MAX;
use crate::node::Node;
use crate::peer::PeerService;
use crate::service::RegistryService;
use crate::steward;

const OBSERVE_EVERY: Duration = Duration::from_millis(250);
/// Calls in flight may end within this after the stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3);

/// Runs a voter until `stop`, or until it can no longer do its work: then it ends with an error, for
/// whoever supervises it to start it again.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(common::config::ConfigErrors(problems).into());
    }
    let health = Health::default();
    let store = health.needs("store");
    let leader = health.needs("leader");
    let ops = common::ops::serve(config.ops_listen.parse()?, "raft", health, stop.clone());
    let ops = AbortOnDropHandle::new(tokio::spawn(ops));

    let metrics = Metrics::new()?;
    metrics.register(prometheus::default_registry());
    let (bootstrap, moves) = (config.bootstrap, config.moves.clone());
    let listen = config.listen.parse().context("`listen`")?;
    let incoming = TcpIncoming::bind(listen)
        .map_err(|e| anyhow::anyhow!("cannot listen on {listen}: {e}"))?
        .with_nodelay(Some(true));
    let tls = config.peer_tls.load().context("`peer_tls`")?;
    let incoming = tls.incoming(incoming);
    let callers = Arc::new(Callers::new(tls.clone(), metrics.callers_refused.clone()));
    let node = Arc::new(Node::start(config, tls, metrics.clone()).await.context("cannot start raft")?);
    store.up();

    let founding = AbortOnDropHandle::new(tokio::spawn({
        let node = Arc::clone(&node);
        async move {
            if bootstrap {
                node.bootstrap().await;
            }
        }
    }));

    let connections = AbortOnDropHandle::new(tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.network().stay_connected(node.id()).await }
    }));

    // Ends the server and its streams, at the stop or when the voter fails.
    let ending = stop.child_token();
    let mut server = AbortOnDropHandle::new(tokio::spawn(serve(
        Arc::clone(&node),
        callers,
        metrics.clone(),
        incoming,
        ending.clone(),
    )));
    let ended = tokio::select! {
        // First: at a stop the server ends as well.
        biased;
        () = stop.cancelled() => Ok(()),
        ended = &mut server => Err(flatten("the gRPC server", ended)),
        ended = ops => Err(flatten("the operations port", ended)),
        error = observe(&node, &metrics, &leader) => Err(error),
        never = steward::run(Arc::clone(&node), moves, metrics.clone()) => match never {},
    };
    drop((founding, connections));
    ending.cancel();
    if !server.is_finished() && timeout(DRAIN_DEADLINE, server).await.is_err() {
        tracing::warn!("some calls did not end in time");
    }
    node.shutdown().await;
    ended
}

fn flatten(what: &str, ended: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("{what} ended unasked"),
        Ok(Err(error)) => error.context(format!("{what} failed")),
        Err(error) => anyhow::Error::new(error).context(format!("{what} broke")),
    }
}

async fn serve(
    node: Arc<Node>,
    callers: Arc<Callers>,
    metrics: Metrics,
    incoming: impl Stream<Item = std::io::Result<Connection>> + Send + 'static,
    ending: CancellationToken,
) -> anyhow::Result<()> {
    let peers = RaftPeerServer::new(PeerService { node: Arc::clone(&node), callers: Arc::clone(&callers) })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let service = RegistryService { node, callers, metrics, stop: ending.clone() };
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(3)))
        .add_service(peers)
        .add_service(OwnershipServer::new(service.clone()))
        .add_service(RegistryServer::new(service))
        .serve_with_incoming_shutdown(incoming, async move { ending.cancelled().await })
        .await?;
    Ok(())
}

/// Keeps readiness and metrics true; ends when raft has ended by itself.
async fn observe(node: &Node, metrics: &Metrics, leader: &Dependency) -> anyhow::Error {
    let mut tick = interval(OBSERVE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_leader = None;
    loop {
        tick.tick().await;
        let raft = node.metrics();
        if let Err(fatal) = &raft.running_state {
            leader.down("raft has stopped");
            return anyhow::Error::new(fatal.clone()).context("raft has stopped");
        }
        let known = node.leader();
        if known.is_some() && known != last_leader {
            if last_leader.is_some() {
                metrics.leader_changes_total.inc();
            }
            last_leader = known;
            tracing::info!(leader = known, term = raft.current_term, "the registry has a leader");
        }
        match known {
            Some(_) => leader.up(),
            None => leader.down("none was heard of lately"),
        }
        let applied = node.registry().read();
        metrics.set(&raft, known.is_some(), applied.registry.show_count());
        metrics.set_regions(&applied.registry);
    }
}
