//! Inbound connections: how many handshakes at once, and what each caller may become.
//! Refuses to know how a peer or a newcomer is served.

use std::sync::Arc;

use quinn::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection::{self, CloseCode};
use super::counters::count;
use super::endpoint::{Shared, canonical};
use super::issuer;
use super::mesh::Candidate;
use super::tls::Caller;

/// Inbound handshakes at once. Above half of it, callers have to prove their address first (a QUIC Retry).
const HANDSHAKES_MAX: usize = 256;

/// Runs until the endpoint is closed.
pub(super) async fn accept_all(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(incoming) = shared.endpoint.accept().await {
        let Ok(handshake) = Arc::clone(&handshakes).try_acquire_owned() else {
            count(&shared.counters.handshakes_refused);
            incoming.refuse();
            continue;
        };
        let busy = handshakes.available_permits() < HANDSHAKES_MAX / 2;
        if busy && !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        tokio::spawn(accept_one(Arc::clone(&shared), incoming, handshake));
    }
}

async fn accept_one(shared: Arc<Shared>, incoming: Incoming, handshake: OwnedSemaphorePermit) {
    let address = canonical(incoming.remote_address());
    match timeout(shared.tuning.dial_timeout, authenticate(&shared, incoming)).await {
        Ok(Ok(Accepted::Peer(candidate))) => {
            drop(handshake);
            connection::run(shared, candidate).await;
        }
        Ok(Ok(Accepted::Invitee(connection, key))) => {
            drop(handshake);
            issuer::serve(shared, connection, key).await;
        }
        Ok(Err(error)) => {
            count(&shared.counters.handshakes_refused);
            tracing::debug!(%address, error, "refused an inbound connection");
        }
        Err(_) => {
            count(&shared.counters.handshakes_refused);
            tracing::debug!(%address, "an inbound handshake timed out");
        }
    }
}

enum Accepted {
    Peer(Candidate),
    Invitee(quinn::Connection, Vec<u8>),
}

async fn authenticate(shared: &Shared, incoming: Incoming) -> Result<Accepted, String> {
    let text = |error: quinn::ConnectionError| error.to_string();
    let connection = incoming.accept().map_err(text)?.await.map_err(text)?;
    let refuse = |reason: &str| {
        connection.close(CloseCode::Refused.into(), reason.as_bytes());
        Err(reason.to_owned())
    };
    match shared.tls().classify(&connection) {
        None => refuse("not a node of this cluster"),
        Some(Caller::Invitee(key)) => Ok(Accepted::Invitee(connection, key)),
        Some(Caller::Peer(node)) if node == shared.own => {
            tracing::warn!("another process has this node's identity");
            refuse("this node's own identity")
        }
        Some(Caller::Peer(node)) => {
            let boot = connection::meet(shared, node, &connection).await?;
            Ok(Accepted::Peer(Candidate::new(node, connection, false, boot)))
        }
    }
}
