//! Connections of the gRPC ports, with TLS where there are certificates: those that are taken ([`Tls::incoming`])
//! and those that are made ([`Tls::connector`]).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::Request;
use tonic::transport::server::{Connected, TcpIncoming};
use tower::Service;
use tower::util::service_fn;

use super::{Caller, CertificateDer, Tls};

/// For the other side to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// So many may be about it at once.
const HANDSHAKES: usize = 1024;
/// After the system had no connection to give: too many files are open, say.
const PAUSE: Duration = Duration::from_millis(50);

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection, whichever side has begun it.
pub struct Connection {
    stream: Box<dyn Duplex>,
    peer: Peer,
}

/// Who is on the other side, as far as the connection tells; with every request that comes on it.
#[derive(Clone)]
pub struct Peer {
    address: Option<SocketAddr>,
    certificate: Option<CertificateDer<'static>>,
}

impl Connection {
    fn plain(tcp: TcpStream) -> Self {
        let peer = Peer { address: tcp.peer_addr().ok(), certificate: None };
        Self { stream: Box::new(tcp), peer }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Tls {
    /// What comes in at a port: only those whom the platform's authority vouches for, where there is one.
    pub fn incoming(&self, port: TcpIncoming) -> impl Stream<Item = io::Result<Connection>> + use<> {
        let tls = self.clone();
        let accepted = port.filter_map(async |tcp| match tcp {
            Ok(tcp) => Some(tcp),
            Err(error) => {
                tracing::debug!(%error, "no connection was taken");
                tokio::time::sleep(PAUSE).await;
                None
            }
        });
        let greeted = accepted.map(move |tcp| tls.clone().greet(tcp)).buffer_unordered(HANDSHAKES);
        greeted.filter_map(async |greeted| match greeted {
            Ok(connection) => Some(Ok(connection)),
            Err(error) => {
                tracing::debug!(%error, "a connection without a certificate of ours");
                None
            }
        })
    }

    async fn greet(self, tcp: TcpStream) -> io::Result<Connection> {
        let Some(shown) = self.now() else { return Ok(Connection::plain(tcp)) };
        let address = tcp.peer_addr().ok();
        let tls = timeout(HANDSHAKE, TlsAcceptor::from(shown.server).accept(tcp)).await??;
        let certificates = tls.get_ref().1.peer_certificates();
        let certificate =
            certificates.and_then(|chain| chain.first()).map(|first| first.clone().into_owned());
        Ok(Connection { stream: Box::new(tls), peer: Peer { address, certificate } })
    }

    /// Makes connections to wherever an [`tonic::transport::Endpoint`] leads, where somebody called `name` must answer.
    pub fn connector(
        &self,
        name: &str,
    ) -> impl Service<
        Uri,
        Response = TokioIo<Connection>,
        Error = io::Error,
        Future = impl Future<Output = io::Result<TokioIo<Connection>>> + Send + use<>,
    > + Clone
    + Send
    + use<> {
        let (tls, name) = (self.clone(), name.to_owned());
        service_fn(move |uri: Uri| {
            let (tls, name) = (tls.clone(), name.clone());
            async move { tls.connect(&uri, name).await.map(TokioIo::new) }
        })
    }

    async fn connect(self, uri: &Uri, name: String) -> io::Result<Connection> {
        let shown = self.now();
        let port = uri.port_u16().unwrap_or(if shown.is_some() { 443 } else { 80 });
        // IPv6 addresses are in brackets here and nowhere else.
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        let Some(shown) = shown else { return Ok(Connection::plain(tcp)) };
        let peer = Peer { address: tcp.peer_addr().ok(), certificate: None };
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let tls = timeout(HANDSHAKE, TlsConnector::from(shown.client).connect(name, tcp)).await??;
        Ok(Connection { stream: Box::new(tls), peer })
    }

    /// Who sends `request`.
    pub fn caller<T>(&self, request: &Request<T>) -> Caller {
        if self.is_plain() {
            return Caller::Anybody;
        }
        Caller::Holder(request.extensions().get::<Peer>().and_then(|peer| peer.certificate.clone()))
    }
}

/// Where `request` comes from.
pub fn address<T>(request: &Request<T>) -> Option<IpAddr> {
    request.extensions().get::<Peer>().and_then(|peer| peer.address).map(|address| address.ip())
}
