//! One POST over HTTP/1.1, with TLS by rustls where the URL says `https`. Messages are few: each has a connection of
//! its own, follows no redirect, and is over within five seconds.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto, pki_types::ServerName};
use uuid::Uuid;

const TIMEOUT: Duration = Duration::from_secs(5);

pub struct Client {
    uri: Uri,
    host: String,
    port: u16,
    /// None: plain.
    tls: Option<TlsConnector>,
}

impl Client {
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().context("`sms.provider_url`")?;
        let host = uri.host().context("`sms.provider_url` names no host")?.to_owned();
        let (tls, usual) = match uri.scheme_str() {
            Some("https") => (Some(connector()?), 443),
            _ => (None, 80),
        };
        let port = uri.port_u16().unwrap_or(usual);
        Ok(Self { uri, host, port, tls })
    }

    /// The status of the answer; its body is not read.
    pub async fn post(&self, bearer: &str, key: Uuid, body: String) -> anyhow::Result<StatusCode> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or(self.host.as_str(), |a| a.as_str());
        let request = Request::post(path)
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, format!("Bearer {bearer}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", key.to_string())
            .body(Full::new(Bytes::from(body)))
            // Its text could carry the key.
            .map_err(|_| anyhow::anyhow!("`sms.api_key` is no header's value"))?;
        tokio::time::timeout(TIMEOUT, self.exchange(request))
            .await
            .context("the provider did not answer in time")?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<StatusCode> {
        let host = self.host.trim_matches(['[', ']']);
        let tcp = TcpStream::connect((host, self.port)).await.context("the provider is not reached")?;
        match &self.tls {
            None => ask(tcp, request).await,
            Some(connector) => {
                let name = ServerName::try_from(host.to_owned()).context("the provider's name")?;
                ask(connector.connect(name, tcp).await.context("the provider's TLS")?, request).await
            }
        }
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<StatusCode> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answered = sender.send_request(request).await;
    connection.abort();
    Ok(answered.context("the provider broke off")?.status())
}

fn connector() -> anyhow::Result<TlsConnector> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
