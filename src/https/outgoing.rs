//! TLS for requests that leave the node: to servers of all the world, whose certificates the system's authorities vouch
//! for.

use std::io;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Trust;

/// The client's end of TLS.
pub struct Outgoing(TlsConnector);

impl Outgoing {
    /// What is wrong, if the system names no authorities.
    pub fn new() -> Result<Self, String> {
        Ok(Self(TlsConnector::from(Arc::new(Trust::world()?))))
    }

    /// TLS over a connection to the server of that name.
    ///
    /// # Errors
    /// When its certificate is not good for the name, or the handshake fails otherwise.
    pub async fn connect(&self, name: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}
