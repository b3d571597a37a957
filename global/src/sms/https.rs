//! One POST over HTTP/1.1, with TLS by rustls where the URL says `https`. Messages are few: each has a connection of
//! its own, follows no redirect, and is over within five seconds.

use std::path::Path;
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
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
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
    /// `ca_file`: authorities to trust instead of the usual ones, if it is not empty.
    pub fn new(url: &str, ca_file: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().context("`sms.provider_url`")?;
        let host = uri.host().context("`sms.provider_url` names no host")?.to_owned();
        let (tls, usual) = match uri.scheme_str() {
            Some("https") => (Some(connector(ca_file)?), 443),
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

fn connector(ca_file: &str) -> anyhow::Result<TlsConnector> {
    let roots = match ca_file {
        "" => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        file => authorities(Path::new(file)).with_context(|| format!("`sms.ca_file` {file}"))?,
    };
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn authorities(file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    anyhow::ensure!(!roots.is_empty(), "there is no certificate in it");
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    use super::*;

    struct Authority(Issuer<'static, KeyPair>, String);

    fn authority() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority(Issuer::new(params, key), pem)
    }

    /// A provider on loopback with a certificate for `name`, good until that year.
    struct Provider {
        port: u16,
        /// What it was asked, decrypted.
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Provider {
        async fn start(authority: &Authority, name: &str, until: i32) -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.not_after = date_time_ymd(until, 1, 1);
            let certificate = params.signed_by(&key, &authority.0).unwrap();
            let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            let provider = Arc::new(crypto::ring::default_provider());
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], private)
                .unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let asked = Arc::new(Mutex::new(Vec::new()));
            let (acceptor, heard) = (TlsAcceptor::from(Arc::new(config)), asked.clone());
            tokio::spawn(async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
                    let mut request = vec![0; 4_096];
                    let length = stream.read(&mut request).await.unwrap_or(0);
                    heard.lock().unwrap().push(String::from_utf8_lossy(&request[..length]).into_owned());
                    let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
                    let _ = stream.write_all(answer).await;
                }
            });
            Self { port, asked }
        }

        async fn post(&self, host: &str, ca_file: &str) -> anyhow::Result<StatusCode> {
            let client = Client::new(&format!("https://{host}:{}/v1/messages", self.port), ca_file)?;
            client.post("the key", Uuid::nil(), r#"{"text":"a secret"}"#.into()).await
        }

        fn was_asked(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    fn file(folder: &tempfile::TempDir, name: &str, pem: &str) -> String {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    }

    #[tokio::test]
    async fn a_provider_is_asked_over_tls_where_its_certificate_is_good_and_told_nothing_where_not() {
        let folder = tempfile::tempdir().unwrap();
        let (own, foreign) = (authority(), authority());
        let trusted = file(&folder, "ca.pem", &own.1);

        let good = Provider::start(&own, "localhost", 4_000).await;
        assert_eq!(good.post("localhost", &trusted).await.unwrap(), StatusCode::ACCEPTED);
        let asked = good.asked.lock().unwrap()[0].clone();
        for part in ["POST /v1/messages HTTP/1.1", "Bearer the key", &Uuid::nil().to_string(), "a secret"] {
            assert!(asked.contains(part), "{part} in {asked}");
        }

        // Each with what is wrong of it.
        let other_name = Provider::start(&own, "elsewhere.example", 4_000).await;
        let expired = Provider::start(&own, "localhost", 2_000).await;
        let of_another = Provider::start(&foreign, "localhost", 4_000).await;
        for (what, provider, ca_file) in [
            ("another name", &other_name, trusted.as_str()),
            ("expired", &expired, &trusted),
            ("another authority", &of_another, &trusted),
            ("an authority that no browser trusts", &good, ""),
        ] {
            let before = provider.was_asked();
            let error = provider.post("localhost", ca_file).await.expect_err(what);
            let text = format!("{error:#}");
            assert!(text.contains("the provider's TLS") && text.contains("certificate"), "{what}: {text}");
            assert!(!text.contains("the key"), "{text}");
            assert_eq!(provider.was_asked(), before, "{what}: it was told something");
        }
        // The host that is asked is the one whose name is checked.
        assert!(good.post("127.0.0.1", &trusted).await.is_err());

        // Who speaks no TLS gets nothing in clear.
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = plain.local_addr().unwrap().port();
        let heard = tokio::spawn(async move {
            let (mut tcp, _) = plain.accept().await.unwrap();
            tcp.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            let mut heard = Vec::new();
            let _ = tcp.read_to_end(&mut heard).await;
            String::from_utf8_lossy(&heard).into_owned()
        });
        let client = Client::new(&format!("https://localhost:{port}/"), &trusted).unwrap();
        assert!(client.post("the key", Uuid::nil(), "a secret".into()).await.is_err());
        let heard = heard.await.unwrap();
        assert!(!heard.contains("the key") && !heard.contains("a secret"), "{heard}");
    }

    #[test]
    fn a_file_without_an_authority_ends_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let url = "https://sms.example/v1";
        for (name, pem) in
            [("empty", ""), ("text", "no certificate"), ("broken", "-----BEGIN CERTIFICATE-----\nAA")]
        {
            let file = file(&folder, name, pem);
            let error = Client::new(url, &file).err().map(|error| format!("{error:#}"));
            assert!(error.as_ref().is_some_and(|e| e.contains("sms.ca_file")), "{name}: {error:?}");
        }
        assert!(Client::new(url, &folder.path().join("missing").display().to_string()).is_err());
        assert!(Client::new(url, "").is_ok());
    }
}
