//! Who doesn't get in: foreign clusters, no certificate, expired certificates, banned nodes.

use std::sync::atomic::Ordering;

use super::super::identity::server_name;
use super::super::tls::ALPN_PEER;
use super::*;

const A_WHILE: Duration = Duration::from_millis(1200);

fn refused(node: &Node) -> u64 {
    node.net.counters().handshakes_refused.load(Ordering::Relaxed)
}

fn failed(node: &Node) -> u64 {
    node.net.counters().dials_failed.load(Ordering::Relaxed)
}

#[tokio::test]
async fn nodes_of_different_clusters_refuse_each_other() {
    let (mut a, mut b) = (Node::start(&identity(&authority())), Node::start(&identity(&authority())));
    a.want(&[(b.id(), b.addr())]);
    b.want(&[(a.id(), a.addr())]);
    tokio::join!(a.rest(A_WHILE), b.rest(A_WHILE));
    assert!(a.up.is_empty() && a.down.is_empty() && b.up.is_empty() && b.down.is_empty());
    assert!(failed(&a) > 0 && failed(&b) > 0);
}

/// The dialer would accept the server: only the server can refuse.
#[tokio::test]
async fn a_foreign_or_missing_client_certificate_is_refused() {
    let node = Node::start(&identity(&authority()));
    let foreign = identity(&authority());
    for with_certificate in [true, false] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny));
        let mut client = if with_certificate {
            let key = rustls_pki_types::PrivatePkcs8KeyDer::from(foreign.key().pkcs8().to_vec());
            builder.with_client_auth_cert(foreign.chain(), key.into()).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        client.alpn_protocols = vec![ALPN_PEER.to_vec()];
        let client: quinn::crypto::rustls::QuicClientConfig = client.try_into().unwrap();
        let endpoint = quinn::Endpoint::client(LOOPBACK.parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(client));
        let connection = endpoint.connect_with(config, node.addr(), &server_name(node.id())).unwrap().await.unwrap();
        // The client is through before the server has judged: the verdict comes as a close, and no hello before it.
        let error = timeout(PATIENCE, connection.accept_uni()).await.unwrap().unwrap_err();
        assert!(matches!(error, quinn::ConnectionError::ConnectionClosed(_)), "{error}");
    }
    assert_eq!(refused(&node), 2);
}

#[derive(Debug)]
struct AcceptAny;

impl rustls::client::danger::ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls_pki_types::CertificateDer<'_>,
        _intermediates: &[rustls_pki_types::CertificateDer<'_>],
        _server_name: &rustls_pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &rustls_pki_types::CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &rustls_pki_types::CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ED25519]
    }
}

#[tokio::test]
async fn an_address_that_another_node_of_the_cluster_has_taken_is_noticed() {
    let authority = authority();
    let (mut a, mut b) = (Node::start(&identity(&authority)), Node::start(&identity(&authority)));
    let absent = identity(&authority).node_id();
    a.want(&[(absent, b.addr())]);
    tokio::join!(a.rest(A_WHILE), b.rest(A_WHILE));
    assert!(a.up.is_empty() && b.up.is_empty());
    assert!(failed(&a) > 0);
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_a_renewed_one_accepted() {
    let authority = authority();
    let three_years_ago = now_secs() - 3 * 365 * 24 * 60 * 60;
    let old = Authority::issue(&authority, &NodeKey::generate().unwrap(), three_years_ago).unwrap();
    let (mut a, mut b) = (Node::start(&old), Node::start(&identity(&authority)));
    a.want(&[(b.id(), b.addr())]);
    tokio::join!(a.rest(A_WHILE), b.rest(A_WHILE));
    assert!(a.up.is_empty() && b.up.is_empty());
    assert!(refused(&b) > 0 && failed(&a) > 0);

    assert!(old.needs_renewal(now_secs()));
    assert!(matches!(a.net.set_identity(&identity(&authority)), Err(NetError::OtherNode)));
    a.net.set_identity(&authority.renew(&old, now_secs()).unwrap()).unwrap();
    a.linked(b.id()).await;
    b.linked(a.id()).await;
}

#[tokio::test]
async fn banned_nodes_are_refused_whoever_dials() {
    let authority = authority();
    let (low, high) = two_identities(&authority);
    let banned = high.node_id();
    let mut settings = config(&low);
    settings.banned = Some(Arc::new(move |node| node == banned));
    let (mut a, mut b) = (Node::start_with(settings), Node::start(&high));
    b.want(&[(a.id(), a.addr())]);
    tokio::join!(a.rest(A_WHILE), b.rest(A_WHILE));
    assert!(a.up.is_empty() && b.down.is_empty() && b.up.is_empty());
    assert!(refused(&a) > 0 && failed(&b) > 0);
    assert!(std::mem::take(&mut b.turned_away).contains(&a.id()), "it is told");
    b.net.set_peers(BTreeMap::new());
    a.want(&[(b.id(), b.addr())]);
    tokio::join!(a.rest(A_WHILE), b.rest(A_WHILE));
    assert!(a.up.is_empty() && b.up.is_empty());
    assert!(failed(&a) > 0);
    assert!(b.turned_away.contains(&a.id()), "it is told, too, when it is dialed");
    assert!(a.turned_away.is_empty());
}
