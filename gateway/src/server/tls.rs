//! TLS at the edge, optional. The certificate is read again when its file changes and on SIGHUP; one that
//! cannot be read leaves the old one in use and is told in the log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::signal::unix::Signal;
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;

/// Kubernetes replaces mounted secrets within a minute or so; this adds little.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Tls {
    pub acceptor: TlsAcceptor,
    certificate: Arc<Current>,
    files: TlsConfig,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// None: not configured, plain connections are served.
    pub fn new(files: &TlsConfig) -> anyhow::Result<Option<Self>> {
        if !files.is_on() {
            return Ok(None);
        }
        let certificate = Arc::new(Current(ArcSwap::from_pointee(read(files)?)));
        let provider = Arc::new(ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(certificate.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(Self { acceptor: Arc::new(config).into(), certificate, files: files.clone() }))
    }

    /// Looks after the files for as long as the process lives.
    pub async fn keep_fresh(&self, mut hangup: Signal) {
        let mut seen = self.changed_at();
        loop {
            let told = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let now = self.changed_at();
            if told || now != seen {
                match read(&self.files) {
                    Ok(certificate) => {
                        self.certificate.0.store(Arc::new(certificate));
                        seen = now;
                        tracing::info!("the certificate was read again");
                    }
                    // Not `seen`: the other of the two files may be on its way.
                    Err(error) => {
                        tracing::error!(error = format!("{error:#}"), "the old certificate stays in use");
                    }
                }
            }
        }
    }

    fn changed_at(&self) -> [Option<SystemTime>; 2] {
        let of = |path: &str| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        [of(&self.files.cert_file), of(&self.files.key_file)]
    }
}

fn read(files: &TlsConfig) -> anyhow::Result<CertifiedKey> {
    let (cert, key) = (PathBuf::from(&files.cert_file), PathBuf::from(&files.key_file));
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_file_iter(&cert)
        .with_context(|| format!("cannot read {}", cert.display()))?
        .collect();
    let chain = chain.with_context(|| format!("{} is not PEM", cert.display()))?;
    anyhow::ensure!(!chain.is_empty(), "{} has no certificate", cert.display());
    let key = PrivateKeyDer::from_pem_file(&key).with_context(|| format!("cannot read {}", key.display()))?;
    let certified = CertifiedKey::new(chain, ring::sign::any_supported_type(&key)?);
    certified.keys_match().context("the key is not the certificate's")?;
    Ok(certified)
}
