//! Who knocks without a certificate of the cluster stays outside.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::flock::{Node, connected, eventually};

/// Dials a node with its own protocol, trusting whatever answers.
async fn knock(
    address: SocketAddr,
    certificate: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    alpn: &str,
) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAny));
    let mut tls = match certificate {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).expect("a key that fits"),
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let tls: quinn::crypto::rustls::QuicClientConfig = tls.try_into().expect("settings for QUIC");
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let config = quinn::ClientConfig::new(Arc::new(tls));
    // In TLS 1.3 a client is through before the server has judged it: the verdict comes as a close.
    let Ok(connection) = endpoint.connect_with(config, address, "starling").expect("well-formed").await else { return };
    if let Ok(mut stream) = connection.open_uni().await {
        let _ = stream.write_all(&[0; 64]).await;
    }
    let heard = tokio::time::timeout(Duration::from_secs(10), connection.accept_uni()).await;
    let error = heard.expect("a verdict").map(drop).expect_err("nothing is said to strangers");
    assert!(matches!(error, quinn::ConnectionError::ConnectionClosed(_)), "{error}");
}

#[test]
fn a_stranger_never_gets_past_the_handshake() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let a = Node::start(&directory.path().join("a"), &["--durability", "os"]);
    let address: SocketAddr = a.gossip.parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for alpn in ["starling/1", "starling-join/1"] {
            knock(address, None, alpn).await;
            let key = rcgen::KeyPair::generate().expect("a key");
            let params = rcgen::CertificateParams::new(vec!["starling".into()]).expect("a name");
            let certificate = params.self_signed(&key).expect("a certificate");
            let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
            knock(address, Some((certificate.der().clone(), key)), alpn).await;
        }
    });
    // What is no QUIC at all is not answered either.
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for len in [0, 1, 20, 1200, 1472] {
        socket.send_to(&vec![0xc3; len], address).expect("sent");
    }
    let status = a.status();
    assert_eq!(status["peers"], serde_json::json!([]));
    assert!(status["counters"]["handshakes_refused"].as_u64() >= Some(4), "{status}");
    // And members still come in.
    let b = a.join(&directory.path().join("b"), &["--durability", "os"]);
    connected(&[&a, &b]);
    let namespace = a.namespace("inside");
    a.put(&namespace, "key", "value");
    eventually("it arrives", || b.get(&namespace, "key"));
}

#[derive(Debug)]
struct AcceptAny;

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
