//! The service as `marquee gateway` runs it: its operations port, the feed and the registry's watch, and
//! the way it stops. One test: metrics are registered once a process.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod support;

use std::pin::Pin;
use std::time::Duration;

use common::ShowId;
use common::proto::feed::feed_server::{Feed, FeedServer};
use common::proto::feed::{
    FollowRequest, GetMovieRequest, GetPersonKeysRequest, Heartbeat, Keys, Movie, PersonKeys, Update, update,
};
use futures::Stream;
use serde_json::Value;
use support::registry::FakeRegistry;
use support::{Fake, closed_port, config, eventually, region};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Says the given, then beats like the real one.
fn then_beats<T: Clone + Send + 'static>(first: Vec<T>, beat: T) -> Response<Events<T>> {
    let beats = futures::stream::unfold(beat, |beat| async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Some((Ok(beat.clone()), beat))
    });
    let first = futures::stream::iter(first.into_iter().map(Ok));
    Response::new(Box::pin(futures::StreamExt::chain(first, beats)))
}

struct FakeFeed;

#[tonic::async_trait]
impl Feed for FakeFeed {
    type FollowStream = Events<Update>;

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let asked = request.into_inner();
        assert!(!asked.movies && !asked.month_keys);
        let at = |update| Update { position: 1, update: Some(update) };
        let key = common::authz::jwt::SigningKey::generate();
        let jwk = common::authz::jwt::Jwk::ed25519(key.public());
        let jwks = serde_json::json!({ "keys": [jwk] }).to_string();
        let first = vec![
            at(update::Update::Policy(common::proto::feed::Policy::default())),
            at(update::Update::Keys(Keys { jwks })),
        ];
        Ok(then_beats(first, at(update::Update::Heartbeat(Heartbeat {}))))
    }

    async fn get_person_keys(
        &self,
        _: Request<GetPersonKeysRequest>,
    ) -> Result<Response<PersonKeys>, Status> {
        Err(Status::unimplemented("gateways have no use for them"))
    }

    async fn get_movie(&self, _: Request<GetMovieRequest>) -> Result<Response<Movie>, Status> {
        Err(Status::not_found("none"))
    }
}

async fn text(url: &str) -> (u16, String) {
    match reqwest::get(url).await {
        Ok(response) => (response.status().as_u16(), response.text().await.unwrap()),
        Err(_) => (0, String::new()),
    }
}

#[tokio::test]
async fn it_becomes_ready_routes_by_the_registry_and_stops_gracefully() {
    let (eu, us) = (Fake::ok("eu").await, Fake::ok("us").await);
    let show = ShowId::new(&region("eu"));
    let grpc = closed_port().await;
    let mut config = config(&[("eu", eu.url()), ("us", us.url())]).await;
    config.listen = closed_port().await.to_string();
    config.ops_listen = closed_port().await.to_string();
    config.global_grpc_url = format!("http://{grpc}");
    config.registry_urls = vec![format!("http://{grpc}")];
    assert_eq!(common::config::Config::problems(&config), Vec::<String>::new());
    let (public, ops) = (format!("http://{}", config.listen), format!("http://{}", config.ops_listen));
    let stop = CancellationToken::new();
    let running = tokio::spawn(gateway::run(config, stop.clone()));

    let ready = format!("{ops}/readyz");
    eventually("the operations port answers", || async { text(&ready).await.0 == 503 }).await;
    let (_, missing) = text(&ready).await;
    assert!(missing.contains("registry") && missing.contains("feed"), "{missing}");

    // Knows one show, born in `eu` and owned by `us`; `us` is draining.
    let registry = FakeRegistry::default();
    registry.region("us", "draining");
    registry.show(show, "us", 2, &["eu", "us"]);
    let incoming = TcpListenerStream::new(TcpListener::bind(grpc).await.unwrap());
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(FeedServer::new(FakeFeed))
            .add_service(registry.server())
            .serve_with_incoming(incoming),
    );
    eventually("ready", || async { text(&ready).await.0 == 200 }).await;

    assert_eq!(text(&format!("{public}/v1/shows/{show}")).await, (200, "us".into()));
    assert_eq!(text(&format!("{public}/v1/shows/{}", ShowId::new(&region("eu")))).await.1, "eu");
    let regions: Value = serde_json::from_str(&text(&format!("{public}/v1/regions")).await.1).unwrap();
    assert_eq!(regions["items"][1]["status"], "draining");

    let (_, metrics) = text(&format!("{ops}/metrics")).await;
    for line in [
        r#"marquee_gateway_upstream_requests_total{result="ok",target_region="us"}"#,
        r#"marquee_http_requests_total{code="200",method="GET",route="/v1/shows/{id}"} 2"#,
        "marquee_gateway_feed_up 1",
        "marquee_rate_limit_fallback_total",
        "marquee_redis_commands_total{result=\"ok\"} 0",
        "marquee_rate_limited_total{class=\"auth\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }

    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(15), running).await;
    ended.expect("it stops in time").unwrap().unwrap();
}
