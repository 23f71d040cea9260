//! Who gets past the TLS handshake: certificate verifiers and the rustls and QUIC settings built from them.
//! Refuses to know what happens on a connection afterwards.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::config::WallClock;
use super::identity::{Identity, NodeKey, fingerprint, node_id_of_certificate, public_key_of_certificate};
use super::invite::{InviteState, Invites};
use super::token::JoinToken;
use crate::replica::NodeId;

/// Application protocol of connections between nodes.
pub(super) const ALPN_PEER: &[u8] = b"starling/1";
/// Application protocol of a newcomer's one connection.
pub(super) const ALPN_JOIN: &[u8] = b"starling-join/1";

/// TLS settings could not be built from this identity.
#[derive(Debug, Clone, thiserror::Error)]
#[error("TLS settings: {0}")]
pub struct TlsError(String);

fn tls_error(error: impl fmt::Display) -> TlsError {
    TlsError(error.to_string())
}

/// Everything TLS that follows from one identity.
pub(super) struct TlsSettings {
    pub(super) server: Arc<QuicServerConfig>,
    pub(super) client: Arc<QuicClientConfig>,
    peers: Arc<dyn ClientCertVerifier>,
    clock: WallClock,
}

/// What an inbound connection's certificate allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Caller {
    Peer(NodeId),
    /// The holder of the invite with this public key: may speak the join protocol and nothing else.
    Invitee(Vec<u8>),
}

impl TlsSettings {
    pub(super) fn new(identity: &Identity, invites: Arc<Invites>, clock: &WallClock) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(identity.authority().clone()).map_err(tls_error)?;
        let roots = Arc::new(roots);
        let peers = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(tls_error)?;

        let verifier = Arc::new(PeerOrInvitee { peers: Arc::clone(&peers), invites });
        let time: Arc<dyn TimeProvider> = Arc::new(ClockTime(Arc::clone(clock)));
        let mut server = rustls::ServerConfig::builder_with_details(Arc::clone(&provider), time)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls_error)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain(), private_key(identity.key()))
            .map_err(tls_error)?;
        server.alpn_protocols = vec![ALPN_PEER.to_vec(), ALPN_JOIN.to_vec()];
        // A resumed session skips the certificate check: an invite could be used twice, an expired node return.
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build().map_err(tls_error)?;
        let client = client_config(provider, clock, verifier, identity.chain(), identity.key(), ALPN_PEER)?;
        Ok(Self { server: Arc::new(server.try_into().map_err(tls_error)?), client, peers, clock: Arc::clone(clock) })
    }

    /// Tells peers and invitees apart once the handshake is over. The handshake's own verdict is not remembered by
    /// TLS, so the certificate is verified again rather than guessed at.
    pub(super) fn classify(&self, connection: &quinn::Connection) -> Option<Caller> {
        let chain = peer_chain(connection)?;
        let (leaf, intermediates) = chain.split_first()?;
        let protocol = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?.protocol?;
        if protocol == ALPN_JOIN {
            return Some(Caller::Invitee(public_key_of_certificate(leaf)?));
        }
        let now = UnixTime::since_unix_epoch((self.clock)());
        self.peers.verify_client_cert(leaf, intermediates, now).ok()?;
        Some(Caller::Peer(node_id_of_certificate(leaf)?))
    }
}

fn peer_chain(connection: &quinn::Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok().map(|chain| *chain)
}

/// A newcomer's side of the handshake.
pub(super) struct JoinTls {
    pub(super) client: Arc<QuicClientConfig>,
    verifier: Arc<IssuerVerifier>,
}

impl JoinTls {
    pub(super) fn new(token: &JoinToken, clock: &WallClock) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(IssuerVerifier {
            authority_fingerprint: token.authority_fingerprint,
            provider: Arc::clone(&provider),
            wrong_cluster: AtomicBool::new(false),
        });
        let key = token.client_key().map_err(tls_error)?;
        let certificate = rcgen::CertificateParams::default().self_signed(key.pair()).map_err(tls_error)?;
        let chain = vec![certificate.der().clone()];
        let server_verifier = Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>;
        let client = client_config(provider, clock, server_verifier, chain, &key, ALPN_JOIN)?;
        Ok(Self { client, verifier })
    }

    /// Whether a server was met that belongs to another cluster than the token's.
    pub(super) fn met_wrong_cluster(&self) -> bool {
        self.verifier.wrong_cluster.load(Ordering::Relaxed)
    }
}

pub(super) fn client_config(
    provider: Arc<CryptoProvider>,
    clock: &WallClock,
    verifier: Arc<dyn ServerCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: &NodeKey,
    protocol: &[u8],
) -> Result<Arc<QuicClientConfig>, TlsError> {
    let time: Arc<dyn TimeProvider> = Arc::new(ClockTime(Arc::clone(clock)));
    let mut client = rustls::ClientConfig::builder_with_details(provider, time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, private_key(key))
        .map_err(tls_error)?;
    client.alpn_protocols = vec![protocol.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(client.try_into().map_err(tls_error)?))
}

fn private_key(key: &NodeKey) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8().to_vec()))
}

struct ClockTime(WallClock);

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockTime")
    }
}

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch((self.0)()))
    }
}

/// Accepts certificates of this cluster, and the self-signed ones of outstanding invites. Possession of the private
/// key is proven in either case by the signature over the handshake.
#[derive(Debug)]
struct PeerOrInvitee {
    peers: Arc<dyn ClientCertVerifier>,
    invites: Arc<Invites>,
}

impl ClientCertVerifier for PeerOrInvitee {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.peers.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let key = public_key_of_certificate(end_entity).ok_or(CertificateError::BadEncoding)?;
        match self.invites.state(&key, now.as_secs()) {
            InviteState::Outstanding => Ok(ClientCertVerified::assertion()),
            InviteState::Expired => Err(CertificateError::Expired.into()),
            InviteState::Unknown => self.peers.verify_client_cert(end_entity, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.peers.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.peers.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.peers.supported_verify_schemes()
    }
}

/// A newcomer's view of the issuer: the chain must hold the authority that the token names, and the leaf must be
/// signed by it for the server name dialed, which is the issuer's.
#[derive(Debug)]
struct IssuerVerifier {
    authority_fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
    wrong_cluster: AtomicBool,
}

impl ServerCertVerifier for IssuerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authority) =
            intermediates.iter().find(|certificate| fingerprint(certificate) == self.authority_fingerprint)
        else {
            self.wrong_cluster.store(true, Ordering::Relaxed);
            return Err(CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        // A fresh machine's clock may be anywhere. The token pins who the issuer is, and the issuer judges the
        // clock and says by how much it is off: that is more use than a refusal here.
        let now = clamp_to_validity(end_entity, now).ok_or(CertificateError::BadEncoding)?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn clamp_to_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<UnixTime> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let from = u64::try_from(parsed.validity().not_before.timestamp()).ok()?;
    let until = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    let secs = now.as_secs().max(from).min(until);
    Some(UnixTime::since_unix_epoch(Duration::from_secs(secs)))
}
