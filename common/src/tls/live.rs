//! Certificates as they are now: looked at when somebody connects, and read again when the files have changed.
//!
//! Invariant: files that cannot be read, or do not belong together, change nothing: the last that could stay in
//! use, and the log tells. Connections that stand go on under what they began with.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use anyhow::Context;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::Certificates;

/// HTTP/2, by ALPN: gRPC is nothing else.
const PROTOCOL: &[u8] = b"h2";

/// What is shown to others and asked of them.
#[derive(Clone)]
pub struct Shown {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

impl Shown {
    /// Of texts in PEM: the authority, the certificate with what is between the two, its key.
    pub fn of(authority: &[u8], certificate: &[u8], key: &[u8]) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for root in chain(authority).context("the authority")? {
            roots.add(root).context("the authority")?;
        }
        let roots = Arc::new(roots);
        let chain = chain(certificate).context("the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(key).context("the key")?;
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        // Both refuse a key that is not the certificate's.
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        client.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }

    fn read(files: &Certificates) -> anyhow::Result<Self> {
        let read = |file: &Path| std::fs::read(file).with_context(|| file.display().to_string());
        let [authority, certificate, key] = files.files();
        Self::of(&read(authority)?, &read(certificate)?, &read(key)?)
    }
}

fn chain(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    anyhow::ensure!(!chain.is_empty(), "there is none in it");
    Ok(chain)
}

type ChangedAt = [Option<SystemTime>; 3];

/// Where [`Shown`] comes from.
pub enum Source {
    Fixed(Shown),
    Files { files: Certificates, last: Mutex<Last> },
}

pub struct Last {
    shown: Shown,
    changed_at: ChangedAt,
    /// Files that could not be used, told once.
    refused: Option<ChangedAt>,
}

impl Source {
    pub fn files(files: &Certificates) -> anyhow::Result<Self> {
        // Before they are read: what changes meanwhile is seen next time.
        let changed_at = changed_at(files);
        let last = Last { shown: Shown::read(files)?, changed_at, refused: None };
        Ok(Self::Files { files: files.clone(), last: Mutex::new(last) })
    }

    /// Three looks at files for each connection, which are few and last long.
    pub fn now(&self) -> Shown {
        let (files, last) = match self {
            Self::Fixed(shown) => return shown.clone(),
            Self::Files { files, last } => (files, last),
        };
        let now = changed_at(files);
        let mut last = last.lock().expect("no code panics while holding it");
        if now != last.changed_at && last.refused != Some(now) {
            match Shown::read(files) {
                Ok(shown) => {
                    *last = Last { shown, changed_at: now, refused: None };
                    tracing::info!(file = %files.cert_file.display(), "certificates were read again");
                }
                // One of the files may be on its way; then they change once more.
                Err(error) => {
                    last.refused = Some(now);
                    tracing::error!(error = format!("{error:#}"), "the old certificates stay in use");
                }
            }
        }
        last.shown.clone()
    }
}

fn changed_at(files: &Certificates) -> ChangedAt {
    files.files().map(|file| std::fs::metadata(file).and_then(|meta| meta.modified()).ok())
}
