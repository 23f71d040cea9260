//! Asking a node whether it would talk to this one, before this one starts: who was evicted while it was off has heard
//! nothing of it. Owns one handshake; refuses to know what follows from the answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::Endpoint;
use tokio::time::timeout;

use super::config::{NetTuning, WallClock};
use super::connection::{CloseCode, is_turned_away};
use super::identity::{Identity, server_name};
use super::join::local_address_for;
use super::tls::TlsSettings;
use crate::replica::NodeId;

/// How long one address has to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether `node`, at one of these addresses, holds the node with this identity for evicted. Whoever can't be reached
/// does not say so. Needs a tokio runtime.
pub async fn is_turned_away_by(node: NodeId, addresses: &[SocketAddr], identity: &Identity, clock: &WallClock) -> bool {
    let Ok(tls) = TlsSettings::new(identity, Arc::default(), clock) else { return false };
    for address in addresses {
        if let Ok(Some(answer)) = timeout(PROBE_TIMEOUT, ask(node, *address, &tls)).await {
            return answer;
        }
    }
    false
}

/// `None` if there was no answer.
async fn ask(node: NodeId, address: SocketAddr, tls: &TlsSettings) -> Option<bool> {
    let endpoint = Endpoint::client(local_address_for(address)).ok()?;
    let mut client = quinn::ClientConfig::new(Arc::clone(&tls.client) as _);
    client.transport_config(NetTuning::default().transport());
    let connecting = endpoint.connect_with(client, address, &server_name(node)).ok()?;
    let connection = match connecting.await {
        Ok(connection) => connection,
        Err(ended) => return is_turned_away(&ended).then_some(true),
    };
    // It either ends the connection or opens the stream of its hello.
    let answer = match connection.accept_uni().await {
        Ok(_) => Some(false),
        Err(ended) => is_turned_away(&ended).then_some(true),
    };
    connection.close(CloseCode::Shutdown.into(), b"done");
    // Lets the close reach the other side; not worth more than a moment.
    let _ = timeout(Duration::from_millis(500), endpoint.wait_idle()).await;
    answer
}
