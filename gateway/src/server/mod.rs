//! The public port: connections in, HTTP/1.1 and HTTP/2, with or without TLS.
//!
//! Invariant: nothing that a client does or leaves undone holds a connection for ever. A head, a body and an
//! answer each have their time, and there are only so many connections, streams, headers and bytes.

mod framing;
mod io;
pub mod pressure;
mod refuse;
mod tls;
mod unread;
pub mod workers;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::browser::secure;
use crate::config::{Config, ServerConfig};
use crate::front::Public;
use crate::metrics::Metrics;
use framing::Found;
use io::Watched;
use refuse::Refused;
use tls::Tls;
use unread::Unread;
use workers::Workers;

/// With what a client that speaks HTTP/2 begins (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_PAUSE: Duration = Duration::from_millis(5);

struct Shared {
    public: Public,
    region: HeaderValue,
    options: ServerConfig,
    metrics: Metrics,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    tls: Option<Tls>,
    stop: CancellationToken,
}

/// Serves until `stop`, then finishes what is under way, for at most `drain`.
pub async fn serve(
    listener: TcpListener,
    public: Public,
    app: &App,
    config: &Config,
    stop: CancellationToken,
    drain: Duration,
) -> anyhow::Result<()> {
    let options = config.server.clone();
    let shared = Arc::new(Shared {
        public,
        region: HeaderValue::from_str(config.region.as_str())?,
        http1: http1_builder(&options),
        http2: http2_builder(&options),
        tls: Tls::new(&config.tls)?,
        metrics: app.metrics.clone(),
        stop: stop.clone(),
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
    let workers = Workers::start(workers::count(shared.options.workers), |number| {
        let pressure = app.pressure.clone();
        async move { pressure.measure(number).await }
    })?;
    let (deciding, until) = (app.clone(), stop.clone());
    tokio::spawn(until.run_until_cancelled_owned(async move {
        deciding.pressure.decide(&deciding.metrics).await;
    }));
    let graceful = GracefulShutdown::new();
    while let Some((stream, peer)) = common::http::accept(&listener, &stop).await {
        let Ok(place) = room.clone().try_acquire_owned() else {
            // A refusal in words would cost what there is none left of.
            shared.metrics.connections_refused.inc();
            continue;
        };
        let Ok(stream) = stream.into_std() else { continue };
        let (shared, watcher) = (shared.clone(), graceful.watcher());
        workers.serve(move || async move {
            shared.metrics.connections.inc();
            // It may be served by this thread's own reactor from now on.
            if let Ok(stream) = TcpStream::from_std(stream) {
                shared.connection(stream, peer, watcher).await;
            }
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

fn http1_builder(options: &ServerConfig) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(options.header_timeout_ms))
        .max_headers(options.max_headers)
        .max_buf_size(options.max_head_bytes);
    http
}

fn http2_builder(options: &ServerConfig) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(options.max_streams)
        .max_header_list_size(u32::try_from(options.max_head_bytes).unwrap_or(u32::MAX))
        // Streams that are opened and reset cost us and not the client (CVE-2023-44487).
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(100)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    http
}

/// Which HTTP a client without TLS speaks, by its first bytes, which are left to be read. None: it said nothing.
async fn begins_http2(stream: &TcpStream) -> Option<bool> {
    let mut begun = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut begun).await.ok()?;
        match begun[..length] == PREFACE[..length] {
            _ if length == 0 => return None,
            false => return Some(false),
            true if length == PREFACE.len() => return Some(true),
            // The rest is on its way; what has come would be seen again at once.
            true => tokio::time::sleep(PREFACE_PAUSE).await,
        }
    }
}

impl Shared {
    async fn connection(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        // Small answers must not wait for the acknowledgement of the ones before.
        let _ = stream.set_nodelay(true);
        let patience = Duration::from_millis(self.options.header_timeout_ms);
        let Some(tls) = &self.tls else {
            let begins = tokio::time::timeout(patience, begins_http2(&stream));
            // One that has said nothing yet need not be waited for at the end.
            return match self.stop.run_until_cancelled(begins).await {
                Some(Ok(Some(false))) => self.http1(stream, peer, watcher).await,
                Some(Ok(Some(true))) => Box::pin(self.http2(stream, peer, watcher)).await,
                None | Some(Ok(None) | Err(_)) => {}
            };
        };
        // Boxed, as above: what is larger than a plain HTTP/1.1 connection shall not make that larger.
        match Box::pin(tokio::time::timeout(patience, tls.acceptor.accept(stream))).await {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Box::pin(self.http2(stream, peer, watcher)).await;
            }
            Ok(Ok(stream)) => Box::pin(self.http1(stream, peer, watcher)).await,
            Ok(Err(error)) => tracing::debug!(%error, peer = %peer.ip(), "no TLS handshake"),
            Err(_) => tracing::debug!(peer = %peer.ip(), "no TLS handshake in time"),
        }
    }

    async fn http1<T>(self: &Arc<Self>, stream: T, peer: SocketAddr, watcher: Watcher)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let found = Arc::new(Found::default());
        let io = self.watched(stream, &found);
        let this = self.clone();
        let service = service_fn(move |request| this.clone().answer(request, peer, found.clone()));
        // Its patience with heads is hyper's own.
        if let Err(error) = watcher.watch(self.http1.serve_connection(io, service)).await {
            tracing::debug!(%error, peer = %peer.ip(), "a connection ended badly");
        }
    }

    async fn http2<T>(self: &Arc<Self>, stream: T, peer: SocketAddr, watcher: Watcher)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let found = Arc::new(Found::default());
        let io = self.watched(stream, &found);
        let unread = Arc::new(Unread::default());
        let spoke = Arc::new(AtomicBool::new(false));
        let (this, answers, heard) = (self.clone(), unread.clone(), spoke.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            heard.store(true, Ordering::Relaxed);
            let (answer, answers) = (this.clone().answer(request, peer, found.clone()), answers.clone());
            async move { answer.await.map(|answer| answer.map(|body| answers.watch(body))) }
        });
        let mut connection = pin!(watcher.watch(self.http2.serve_connection(io, service)));
        let mut first = pin!(tokio::time::sleep(Duration::from_millis(self.options.header_timeout_ms)));
        let mut is_known = false;
        let overdue = unread.overdue(Duration::from_millis(self.options.write_stall_ms));
        let mut overdue = pin!(overdue);
        let ended = loop {
            tokio::select! {
                ended = &mut connection => break ended,
                () = &mut overdue => {
                    return tracing::debug!(peer = %peer.ip(), "answers are left unread");
                }
                () = &mut first, if !is_known => match spoke.load(Ordering::Relaxed) {
                    true => is_known = true,
                    false => return,
                },
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, peer = %peer.ip(), "a connection ended badly");
        }
    }

    fn watched<T>(&self, stream: T, found: &Arc<Found>) -> TokioIo<Watched<T>> {
        let patience = Duration::from_millis(self.options.write_stall_ms);
        TokioIo::new(Watched::new(stream, found.clone(), patience, self.options.max_head_bytes))
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        found: Arc<Found>,
    ) -> Result<Response, Infallible> {
        let refused = found
            .form()
            .map(Refused::Framing)
            .or_else(|| refuse::check(request.method(), request.uri(), request.version(), request.headers()));
        let is_page = !request.uri().path().starts_with("/v1/");
        if let Some(refused) = refused {
            self.metrics.malformed.with_label_values(&[refused.as_str()]).inc();
            let mut answer = refused.answer(&self.region, peer);
            if request.version() == Version::HTTP_2 {
                answer.headers_mut().remove(http::header::CONNECTION);
            }
            secure(answer.headers_mut(), is_page);
            return Ok(answer);
        }
        let mut answer = self.public.answer(request.map(Body::new), peer).await;
        secure(answer.headers_mut(), is_page);
        Ok(answer)
    }
}
