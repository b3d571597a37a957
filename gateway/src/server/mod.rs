//! The public port: connections in, HTTP/1.1 and HTTP/2, with or without TLS.
//!
//! Invariant: nothing that a client does or leaves undone holds a connection for ever. A head, a body and an
//! answer each have their time, and there are only so many connections, streams, headers and bytes.

mod framing;
mod io;
mod refuse;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::config::{Config, ServerConfig};
use crate::metrics::Metrics;
use framing::Found;
use io::Watched;
use refuse::Refused;
use tls::Tls;

/// After an error of `accept` that is not one connection's own, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

struct Shared {
    router: Router,
    region: HeaderValue,
    options: ServerConfig,
    metrics: Metrics,
    http: auto::Builder<TokioExecutor>,
    tls: Option<Tls>,
}

/// Serves until `stop`, then finishes what is under way, for at most `drain`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &Config,
    metrics: Metrics,
    stop: CancellationToken,
    drain: Duration,
) -> anyhow::Result<()> {
    let options = config.server.clone();
    let shared = Arc::new(Shared {
        router,
        region: HeaderValue::from_str(config.region.as_str())?,
        http: builder(&options),
        tls: Tls::new(&config.tls)?,
        metrics,
        options,
    });
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let (tls, until) = (shared.tls.clone(), stop.clone());
    tokio::spawn(until.run_until_cancelled_owned(async move {
        match tls {
            Some(tls) => tls.keep_fresh(hangup).await,
            // Unheard, the signal would end the process.
            None => while hangup.recv().await.is_some() {},
        }
    }));
    let room = Arc::new(Semaphore::new(shared.options.max_connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            // A refusal in words would cost what there is none left of.
            shared.metrics.connections_refused.inc();
            continue;
        };
        let (shared, watcher) = (shared.clone(), graceful.watcher());
        tokio::spawn(async move {
            shared.metrics.connections.inc();
            shared.connection(stream, peer, watcher).await;
            shared.metrics.connections.dec();
            drop(place);
        });
    }
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(drain) => tracing::warn!("some connections outlived the drain time"),
    }
    Ok(())
}

fn builder(options: &ServerConfig) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(options.header_timeout_ms))
        .max_headers(options.max_headers)
        .max_buf_size(options.max_head_bytes);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_streams)
        .max_header_list_size(u32::try_from(options.max_head_bytes).unwrap_or(u32::MAX))
        // Streams that are opened and reset cost us and not the client (CVE-2023-44487).
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(100)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    http
}

impl Shared {
    async fn connection(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        // Small answers must not wait for the acknowledgement of the ones before.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.http(stream, peer, watcher).await };
        let patience = Duration::from_millis(self.options.header_timeout_ms);
        match tokio::time::timeout(patience, tls.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.http(stream, peer, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, peer = %peer.ip(), "no TLS handshake"),
            Err(_) => tracing::debug!(peer = %peer.ip(), "no TLS handshake in time"),
        }
    }

    async fn http<T>(self: &Arc<Self>, stream: T, peer: SocketAddr, watcher: Watcher)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let found = Arc::new(Found::default());
        let spoke = Arc::new(AtomicBool::new(false));
        let patience = Duration::from_millis(self.options.write_stall_ms);
        let io = TokioIo::new(Watched::new(stream, found.clone(), patience));
        let heard = spoke.clone();
        let service = service_fn(move |request| {
            heard.store(true, Ordering::Relaxed);
            self.clone().answer(request, peer, found.clone())
        });
        let connection = watcher.watch(self.http.serve_connection(io, service));
        tokio::pin!(connection);
        // hyper's own patience with a head begins only when it knows which HTTP is spoken.
        let first = tokio::time::sleep(Duration::from_millis(self.options.header_timeout_ms));
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = first => match spoke.load(Ordering::Relaxed) {
                true => connection.await,
                false => return,
            },
        };
        if let Err(error) = ended {
            tracing::debug!(error = %error, peer = %peer.ip(), "a connection ended badly");
        }
    }

    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        found: Arc<Found>,
    ) -> Result<Response, Infallible> {
        let refused = found
            .form()
            .map(Refused::Framing)
            .or_else(|| refuse::check(request.method(), request.uri(), request.version(), request.headers()));
        if let Some(refused) = refused {
            self.metrics.malformed.with_label_values(&[refused.as_str()]).inc();
            let mut answer = refused.answer(&self.region, peer);
            if request.version() == Version::HTTP_2 {
                answer.headers_mut().remove(http::header::CONNECTION);
            }
            return Ok(answer);
        }
        request.extensions_mut().insert(ConnectInfo(peer));
        self.router.clone().oneshot(request.map(Body::new)).await
    }
}
