//! The server of a service's HTTP port.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use bytes::Bytes;
use futures::TryFutureExt;
use futures::future::{Either, MapOk};
use http_body_util::{Either as EitherBody, Full};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower::util::Oneshot;

use super::Front;

/// After an error of `accept`, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`, then finishes what is under way, for at most `drain`.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    stop: CancellationToken,
    drain: Duration,
) -> anyhow::Result<()> {
    serve_with(listener, app, None, stop, drain).await
}

/// As [`serve`]; what `front` has ready does not reach `app`.
pub async fn serve_behind(
    front: Front,
    listener: TcpListener,
    app: Router,
    stop: CancellationToken,
    drain: Duration,
) -> anyhow::Result<()> {
    serve_with(listener, app, Some(Arc::new(front)), stop, drain).await
}

/// The next connection; none once `stop` is said.
pub async fn accept(listener: &TcpListener, stop: &CancellationToken) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_with(
    listener: TcpListener,
    app: Router,
    front: Option<Arc<Front>>,
    stop: CancellationToken,
    drain: Duration,
) -> anyhow::Result<()> {
    let http = Arc::new(auto::Builder::new(TokioExecutor::new()));
    let graceful = GracefulShutdown::new();
    while let Some((stream, peer)) = accept(&listener, &stop).await {
        let (http, watcher) = (http.clone(), graceful.watcher());
        let served = Served { app: app.clone(), front: front.clone(), peer };
        tokio::spawn(async move {
            let connection = http.serve_connection(io(stream), served);
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%error, %peer, "a connection ended badly");
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(drain) => tracing::warn!("some connections outlived the drain time"),
    }
    Ok(())
}

fn io(stream: TcpStream) -> TokioIo<TcpStream> {
    // Small answers must not wait for the acknowledgement of the ones before.
    let _ = stream.set_nodelay(true);
    TokioIo::new(stream)
}

/// One connection's requests.
struct Served {
    app: Router,
    front: Option<Arc<Front>>,
    peer: SocketAddr,
}

type Answer = http::Response<EitherBody<Full<Bytes>, Body>>;
type Answered = Result<Answer, Infallible>;

impl Service<http::Request<Incoming>> for Served {
    type Response = Answer;
    type Error = Infallible;
    type Future = Either<Ready<Answered>, MapOk<Oneshot<Router, Request>, fn(Response) -> Answer>>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        let answer = self.front.as_ref().and_then(|front| front.answer(&request));
        if let Some(answer) = answer {
            return Either::Left(ready(Ok(answer.map(|body| EitherBody::Left(Full::new(body))))));
        }
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let through_layers: fn(Response) -> Answer = |response| response.map(EitherBody::Right);
        Either::Right(self.app.clone().oneshot(request.map(Body::new)).map_ok(through_layers))
    }
}
