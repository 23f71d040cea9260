//! What clients are shown: a certificate from files, read again when they change, or one of the cluster's own authority,
//! renewed in time. TLS 1.3 with HTTP/2 or HTTP/1.1.
//!
//! Knows nothing of what is asked on a connection.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::datadir::write_private;
use crate::net::Authority;
use crate::node::MachineClock;

/// How often files are looked at, and certificates of our own are judged.
const RELOAD_PERIOD: Duration = Duration::from_secs(2);
/// How long a client may take for the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a certificate of our own is good; it is renewed after half of that.
const OWN_VALIDITY_SECS: u64 = 90 * 24 * 3600;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("can't read {}: {cause}; check tls_cert and tls_key", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file holds no such thing.
    #[error("{} holds no {what} in PEM form: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// A certificate, or a private key.
        what: &'static str,
        /// What the parser said.
        reason: String,
    },
    /// They don't go together, or can't be used.
    #[error("the certificate and the key for clients can't be used: {0}")]
    Unusable(String),
}

/// Where the certificate for clients comes from.
#[derive(Clone)]
pub enum CertificateSource {
    /// PEM files: the chain, leaf first, and its key.
    Files {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The cluster's authority signs for these names and addresses. What it signs is also written to `shown`, for
    /// commands on this machine.
    Authority {
        /// Signs.
        authority: Box<Authority>,
        /// DNS names and IP addresses.
        names: Vec<String>,
        /// A file within the data directory.
        shown: PathBuf,
    },
}

/// The certificate that clients are shown, kept current.
pub struct ServerTls {
    clock: MachineClock,
    source: CertificateSource,
    current: RwLock<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    stamp: Stamp,
}

/// Tells whether there is something to load anew.
#[derive(Clone, PartialEq, Eq)]
enum Stamp {
    /// When each was last changed, seconds and nanoseconds, and its inode.
    Files(Vec<Option<(i64, i64, u64)>>),
    Until(u64),
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("certificate", &self.certificate_path()).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Loads the certificate, so that a mistake is told before anything is served.
    pub fn load(source: CertificateSource, clock: MachineClock) -> Result<Self, TlsError> {
        let current = RwLock::new(source.load(clock)?);
        Ok(Self { clock, source, current })
    }

    /// Where the certificate can be read, for commands on this machine.
    pub fn certificate_path(&self) -> &PathBuf {
        match &self.source {
            CertificateSource::Files { certificate, .. } => certificate,
            CertificateSource::Authority { shown, .. } => shown,
        }
    }

    /// Keeps the certificate current, for as long as it is polled. A new one that can't be used changes nothing.
    pub(crate) async fn keep_current(&self) {
        let mut refused = None;
        loop {
            tokio::time::sleep(RELOAD_PERIOD).await;
            let stamp = self.source.stamp();
            let is_due = match &self.current.read().unwrap_or_else(PoisonError::into_inner).stamp {
                Stamp::Until(until_secs) => self.clock.wall().as_secs() >= *until_secs,
                known => Some(known) != stamp.as_ref(),
            };
            if !is_due || (refused.is_some() && refused == stamp) {
                continue;
            }
            match self.source.load(self.clock) {
                Ok(current) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
                    refused = None;
                    tracing::info!("loaded the certificate for clients anew");
                }
                Err(error) => {
                    tracing::warn!(%error, "the new certificate for clients is not used, the old one stays");
                    refused = stamp;
                }
            }
        }
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config);
        let accepting = TlsAcceptor::from(config).accept(stream);
        tokio::time::timeout(HANDSHAKE_TIMEOUT, accepting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl CertificateSource {
    fn stamp(&self) -> Option<Stamp> {
        let changed = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.mtime(), metadata.mtime_nsec(), metadata.ino()))
        };
        match self {
            Self::Files { certificate, key } => Some(Stamp::Files(vec![changed(certificate), changed(key)])),
            Self::Authority { .. } => None,
        }
    }

    fn load(&self, clock: MachineClock) -> Result<Current, TlsError> {
        let unusable = |error: &dyn fmt::Display| TlsError::Unusable(error.to_string());
        let (chain, key, stamp) = match self {
            Self::Files { certificate, key } => {
                // Before the files are read: what changes meanwhile is seen next time.
                let stamp = self.stamp().unwrap_or(Stamp::Files(Vec::new()));
                (read_chain(certificate)?, read_key(key)?, stamp)
            }
            Self::Authority { authority, names, shown } => {
                let now_secs = clock.wall().as_secs();
                let issued = authority.issue_for_clients(names, now_secs, OWN_VALIDITY_SECS);
                let (chain, key) = issued.map_err(|error| unusable(&error))?;
                let text: String =
                    chain.iter().map(|certificate| crate::net::pem("CERTIFICATE", certificate)).collect();
                write_private(shown, text.as_bytes()).map_err(|error| unusable(&error))?;
                (chain, key, Stamp::Until(now_secs + OWN_VALIDITY_SECS / 2))
            }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config.map_err(|error| unusable(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Current { config: Arc::new(config), stamp })
    }
}

/// The certificates in a PEM file.
pub(super) fn read_chain(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let malformed = |reason: String| TlsError::Malformed { path: path.clone(), what: "certificate", reason };
    let text = std::fs::read(path).map_err(|cause| TlsError::Unreadable { path: path.clone(), cause })?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(malformed("there is none".into())),
        chain => chain.map_err(|error| malformed(error.to_string())),
    }
}

fn read_key(path: &PathBuf) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = std::fs::read(path).map_err(|cause| TlsError::Unreadable { path: path.clone(), cause })?;
    let text = zeroize::Zeroizing::new(text);
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| TlsError::Malformed {
        path: path.clone(),
        what: "private key",
        reason: error.to_string(),
    })
}
