//! Who a node is: its key, its certificate, and their files. Refuses to know the clock (times are arguments), the
//! network and how certificates are signed.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use zeroize::{Zeroize, Zeroizing};

use super::keyfile::{remove_private, write_private};
use crate::replica::{NodeId, SecretBytes};

/// Certificates are valid from this long before they were made, so that a peer whose clock is behind accepts them.
pub(super) const BACKDATE_SECS: u64 = 24 * 60 * 60;
const NODE_KEY_FILE: &str = "node.key";
const NODE_CERTIFICATE_FILE: &str = "node.crt";
pub(super) const AUTHORITY_CERTIFICATE_FILE: &str = "authority.crt";

/// Why a key or certificate could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is not there; nothing was changed.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// The file system refused; nothing was changed, or the former file is still whole.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a key or certificate that this program writes.
    #[error("malformed {what}: {detail}")]
    Malformed {
        /// Which key or certificate.
        what: &'static str,
        /// What the parser said.
        detail: String,
    },
    /// The private key and the certificate don't belong together.
    #[error("the private key does not match the {0} certificate")]
    KeyMismatch(&'static str),
    /// The node certificate was not signed by this authority.
    #[error("the node certificate was not signed by this cluster's authority")]
    ForeignCertificate,
    /// The cryptographic library refused.
    #[error("could not make a {what}: {detail}")]
    Crypto {
        /// What was being made.
        what: &'static str,
        /// What the library said.
        detail: String,
    },
}

pub(super) fn malformed(what: &'static str) -> impl Fn(String) -> IdentityError {
    move |detail| IdentityError::Malformed { what, detail }
}

pub(super) fn crypto(what: &'static str) -> impl Fn(rcgen::Error) -> IdentityError {
    move |error| IdentityError::Crypto { what, detail: error.to_string() }
}

/// An Ed25519 private key (RFC 8032), wiped from memory when the last clone is dropped.
#[derive(Clone)]
pub struct NodeKey(Arc<WipedKey>);

struct WipedKey(KeyPair);

impl Drop for WipedKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeKey").field(&self.node_id()).finish_non_exhaustive()
    }
}

impl NodeKey {
    /// A fresh key.
    pub fn generate() -> Result<Self, IdentityError> {
        let pair = KeyPair::generate_for(&PKCS_ED25519).map_err(crypto("private key"))?;
        Ok(Self(Arc::new(WipedKey(pair))))
    }

    /// The key that a 32-byte seed stands for.
    pub(super) fn from_seed(seed: &[u8; 32]) -> Result<Self, IdentityError> {
        // RFC 8410, section 7: a PKCS #8 version 1 structure is this prefix and the seed.
        const PREFIX: [u8; 16] =
            [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
        let mut der = Zeroizing::new(Vec::with_capacity(PREFIX.len() + seed.len()));
        der.extend_from_slice(&PREFIX);
        der.extend_from_slice(seed);
        Self::from_pkcs8(&der)
    }

    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, IdentityError> {
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)
            .map_err(|error| malformed("private key")(error.to_string()))?;
        Ok(Self(Arc::new(WipedKey(pair))))
    }

    pub(super) fn pkcs8(&self) -> &[u8] {
        self.0.0.serialized_der()
    }

    /// The node that holds this key: the first 8 bytes of BLAKE3 of the public key (DER SubjectPublicKeyInfo).
    pub fn node_id(&self) -> NodeId {
        node_id_of_public_key(&self.public_key())
    }

    /// DER SubjectPublicKeyInfo.
    pub(super) fn public_key(&self) -> Vec<u8> {
        self.0.0.subject_public_key_info()
    }

    pub(super) fn pair(&self) -> &KeyPair {
        &self.0.0
    }

    /// As the keyring keeps it: PKCS #8.
    pub fn to_secret(&self) -> SecretBytes {
        SecretBytes(self.pkcs8().to_vec())
    }

    /// The inverse of [`NodeKey::to_secret`].
    pub fn from_secret(secret: &SecretBytes) -> Result<Self, IdentityError> {
        Self::from_pkcs8(&secret.0)
    }

    /// Takes `node.key` away, overwritten: a member's key lies in its keyring.
    pub fn remove(directory: &Path) -> Result<(), IdentityError> {
        remove_private(directory, NODE_KEY_FILE)
            .map_err(|source| IdentityError::Io { path: directory.join(NODE_KEY_FILE), source })
    }

    /// Writes `node.key`, so that a join that is interrupted keeps its node id.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        write(directory, NODE_KEY_FILE, &Zeroizing::new(pem("PRIVATE KEY", self.pkcs8())))
    }

    /// Reads `node.key`.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let text = Zeroizing::new(read(directory, NODE_KEY_FILE)?);
        let mut der = PrivatePkcs8KeyDer::from_pem_slice(&text)
            .map_err(|error| malformed("private key file")(error.to_string()))?;
        let key = Self::from_pkcs8(der.secret_pkcs8_der());
        der.zeroize();
        key
    }
}

/// A node's key, its certificate and the authority that signed it.
#[derive(Clone)]
pub struct Identity {
    key: NodeKey,
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    not_before_secs: u64,
    not_after_secs: u64,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node", &self.node_id())
            .field("not_after_secs", &self.not_after_secs)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Checks that the three belong together.
    pub(super) fn new(
        key: NodeKey,
        certificate: CertificateDer<'static>,
        authority: CertificateDer<'static>,
    ) -> Result<Self, IdentityError> {
        let parsed = parse(&certificate, "node certificate")?;
        if parsed.public_key().raw != key.public_key() {
            return Err(IdentityError::KeyMismatch("node"));
        }
        let signer = parse(&authority, "authority certificate")?;
        parsed.verify_signature(Some(signer.public_key())).map_err(|_| IdentityError::ForeignCertificate)?;
        let secs = |time: i64| u64::try_from(time).unwrap_or(0);
        let not_before_secs = secs(parsed.validity().not_before.timestamp());
        let not_after_secs = secs(parsed.validity().not_after.timestamp());
        Ok(Self { key, certificate, authority, not_before_secs, not_after_secs })
    }

    /// Writes `node.crt` and `authority.crt`; the key is kept elsewhere.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        write(directory, AUTHORITY_CERTIFICATE_FILE, &pem("CERTIFICATE", &self.authority))?;
        write(directory, NODE_CERTIFICATE_FILE, &pem("CERTIFICATE", &self.certificate))
    }

    /// Reads `node.crt` and `authority.crt`, which must fit the key.
    pub fn load(key: NodeKey, directory: &Path) -> Result<Self, IdentityError> {
        Self::new(
            key,
            load_certificate(directory, NODE_CERTIFICATE_FILE)?,
            load_certificate(directory, AUTHORITY_CERTIFICATE_FILE)?,
        )
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.key.node_id()
    }

    /// BLAKE3 of the authority's DER certificate: names the cluster.
    pub fn cluster_fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.authority)
    }

    /// When the node certificate ends (Unix time, seconds).
    pub fn not_after_secs(&self) -> u64 {
        self.not_after_secs
    }

    /// When the node certificate was made (Unix time, seconds).
    pub fn issued_secs(&self) -> u64 {
        self.not_before_secs + BACKDATE_SECS
    }

    /// Whether less than half of the certificate's life is left at `now_secs` (Unix time).
    pub fn needs_renewal(&self, now_secs: u64) -> bool {
        let life = self.not_after_secs.saturating_sub(self.not_before_secs);
        self.not_after_secs.saturating_sub(now_secs) < life / 2
    }

    /// Its key.
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    pub(super) fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// Leaf first, as TLS wants it; the authority is included so that a joiner can check its fingerprint.
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone(), self.authority.clone()]
    }
}

/// The name in a node's certificate, and the server name to dial it with.
pub(super) fn server_name(node: NodeId) -> String {
    format!("{node}.starling")
}

pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    blake3::hash(certificate).into()
}

/// The node id a certificate's public key stands for. Says nothing about who signed it.
pub(super) fn node_id_of_certificate(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    Some(node_id_of_public_key(&public_key_of_certificate(certificate)?))
}

/// DER SubjectPublicKeyInfo of a certificate.
pub(super) fn public_key_of_certificate(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.public_key().raw.to_vec())
}

pub(super) fn node_id_of_public_key(public_key: &[u8]) -> NodeId {
    let hash: [u8; 32] = blake3::hash(public_key).into();
    let [a, b, c, d, e, f, g, h, ..] = hash;
    NodeId(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

pub(super) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
    what: &'static str,
) -> Result<X509Certificate<'a>, IdentityError> {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => Ok(parsed),
        Err(error) => Err(malformed(what)(error.to_string())),
    }
}

pub(super) fn load_certificate(directory: &Path, name: &'static str) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(&read(directory, name)?).map_err(|error| malformed(name)(error.to_string()))
}

fn read(directory: &Path, name: &str) -> Result<Vec<u8>, IdentityError> {
    let path = directory.join(name);
    fs::read(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing(path),
        _ => IdentityError::Io { path, source },
    })
}

pub(super) fn write(directory: &Path, name: &str, content: &str) -> Result<(), IdentityError> {
    write_private(directory, name, content.as_bytes())
        .map_err(|source| IdentityError::Io { path: directory.join(name), source })
}

/// RFC 7468 textual encoding.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let mut text = String::with_capacity(encoded.len() + encoded.len() / 64 + 64);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for (index, character) in encoded.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str(&format!("\n-----END {label}-----\n"));
    text
}
