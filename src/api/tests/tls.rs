//! HTTPS: both kinds of certificates, both versions of HTTP, and a certificate that changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;

use super::*;
use crate::client::{Client, ClientError};
use crate::https::{CertificateSource, ServerTls, Trust};
use crate::secret::Secret;

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn certificate(&self) -> PathBuf {
        self.directory.path().join("chain.pem")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    fn source(&self) -> CertificateSource {
        CertificateSource::Files { certificate: self.certificate(), key: self.key() }
    }

    /// A self-signed certificate, as an operator would put it there.
    fn write(&self) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(self.key(), key.serialize_pem()).unwrap();
        std::fs::write(self.certificate(), params.self_signed(&key).unwrap().pem()).unwrap();
    }
}

fn clock() -> crate::node::MachineClock {
    crate::node::MachineClock::start(0)
}

fn files() -> Files {
    let files = Files { directory: tempfile::tempdir().unwrap() };
    files.write();
    files
}

fn client(server: &Server, authorities: &Path) -> Client {
    let port = server.address.rsplit(':').next().unwrap();
    Client::of_url(&format!("https://localhost:{port}"), Some(Secret::new(TOKEN))).unwrap().trusting(authorities)
}

#[tokio::test]
async fn a_given_certificate_is_shown_and_read_again_when_it_changes() {
    let files = files();
    let mut server = Server::start(false).await;
    server.serve_tls(ServerTls::load(files.source(), clock()).unwrap()).await;
    let old = files.directory.path().join("old.pem");
    std::fs::copy(files.certificate(), &old).unwrap();
    assert!(client(&server, &old).status().await.is_ok());
    let stranger = self::files();
    let refused = client(&server, &stranger.certificate()).status().await;
    assert!(matches!(refused, Err(ClientError::Untrusted { .. })), "{refused:?}");

    // A file that can't be used changes nothing; then a good one does.
    std::fs::write(files.certificate(), "not a certificate").unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(client(&server, &old).status().await.is_ok());
    files.write();
    let mut is_new = false;
    for _ in 0..100 {
        is_new = client(&server, &files.certificate()).status().await.is_ok();
        if is_new {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(is_new);
    assert!(client(&server, &old).status().await.is_err());
}

#[tokio::test]
async fn the_clusters_own_authority_vouches_and_http2_is_spoken() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(false).await;
    let authority = server.node().authority().clone();
    authority.save(directory.path()).unwrap();
    let shown = directory.path().join("api.crt");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let source = CertificateSource::Authority { authority: Box::new(authority), names, shown: shown.clone() };
    server.serve_tls(ServerTls::load(source, clock()).unwrap()).await;
    assert!(client(&server, &directory.path().join("authority.crt")).status().await.is_ok());

    let trust = Trust::Exactly(shown);
    for (protocol, version) in [(&b"h2"[..], hyper::Version::HTTP_2), (&b"http/1.1"[..], hyper::Version::HTTP_11)] {
        let mut config = trust.config().unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = server.connect().await;
        let name = ServerName::try_from("whatever.example").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        let request = hyper::Request::get("https://localhost/healthz").body(http_body_util::Empty::<Bytes>::new());
        let response = if version == hyper::Version::HTTP_2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request.unwrap()).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request.unwrap()).await.unwrap()
        };
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
    }

    // Plain HTTP gets no answer, let alone a value.
    let mut stream = server.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"), "{}", answer.escape_ascii());
}

#[test]
fn files_that_are_no_certificate_and_key_are_refused() {
    let files = files();
    let other = self::files();
    std::fs::copy(other.key(), files.key()).unwrap();
    assert!(ServerTls::load(files.source(), clock()).is_err(), "a key of another certificate");
    std::fs::write(files.key(), "").unwrap();
    assert!(ServerTls::load(files.source(), clock()).is_err());
    std::fs::remove_file(files.key()).unwrap();
    assert!(ServerTls::load(files.source(), clock()).unwrap_err().to_string().contains("tls_key"));
}
