//! The issuer's side of a join: asks the policy, signs, and uses up the invite once the newcomer has confirmed.
//! Refuses to know what the policy looks at.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, SendStream};
use tokio::time::timeout;

use super::authority::node_id_of_request;
use super::config::JoinIssuer;
use super::connection::CloseCode;
use super::counters::count;
use super::endpoint::{Shared, canonical};
use super::invite::{InviteClaim, InviteState};
use super::join_message::{
    CONFIRMATION, GrantMessage, JOIN_TIMEOUT, JOIN_VERSION, JoinRefusal, MessageError, ReplyMessage, RequestMessage,
    Zeroed, read_message, write_message,
};
use crate::replica::NodeId;

/// Joins served at once.
pub const JOINS_MAX: usize = 8;

/// A node that holds a valid invite and asks to be let in.
#[derive(Clone, Debug)]
pub struct JoinApplicant {
    /// The node id its key stands for; it has proven to hold the key.
    pub node: NodeId,
    /// The name it wants; not checked in any way.
    pub name: String,
    /// The PoP it says it is at; not checked in any way.
    pub pop: String,
    /// What its caller passed along; not checked in any way.
    pub info: Bytes,
    /// Its wall clock minus ours, ms.
    pub clock_difference_ms: i64,
    /// Where it connects from.
    pub addr: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("{0}")]
    Message(#[from] MessageError),
    #[error("{0}")]
    Lost(#[from] quinn::ConnectionError),
    #[error("refused: {0}")]
    Refused(JoinRefusal),
    #[error("the newcomer speaks version {0} of the join protocol")]
    OtherVersion(u16),
    #[error("could not sign: {0}")]
    Sign(#[from] super::identity::IdentityError),
    #[error("the newcomer did not confirm its grant")]
    NotConfirmed,
}

/// Serves one inbound connection with the join protocol, whose certificate has this public key.
pub(super) async fn serve(shared: Arc<Shared>, connection: Connection, key: Vec<u8>) {
    let now_secs = (shared.clock)().as_secs();
    let (Some(issuer), InviteState::Outstanding) = (&shared.join, shared.invites.state(&key, now_secs)) else {
        // Also a node of this cluster: its certificate is valid, but it needs no invite.
        count(&shared.counters.handshakes_refused);
        connection.close(CloseCode::UnknownInvite.into(), b"not an outstanding invite");
        return;
    };
    let Ok(_permit) = shared.joins.try_acquire() else {
        connection.close(CloseCode::Busy.into(), b"too many joins at the moment");
        return;
    };
    let Some(claim) = shared.invites.claim(&key) else {
        connection.close(CloseCode::Busy.into(), b"another join with this token is going on");
        return;
    };
    let addr = canonical(connection.remote_address());
    match timeout(JOIN_TIMEOUT, exchange(&shared, issuer, &connection, claim)).await {
        Ok(Ok(node)) => {
            tracing::info!(%node, %addr, "let a new node in");
            connection.close(CloseCode::Shutdown.into(), b"welcome");
        }
        Ok(Err(error)) => {
            tracing::info!(%addr, %error, "join failed");
            if matches!(error, ServeError::Message(MessageError::Malformed | MessageError::TooLong(_))) {
                count(&shared.counters.malformed);
            }
            connection.close(CloseCode::Malformed.into(), b"join failed");
        }
        Err(_) => {
            tracing::info!(%addr, "join timed out");
            connection.close(CloseCode::Disconnected.into(), b"join timed out");
        }
    }
}

async fn exchange(
    shared: &Shared,
    issuer: &JoinIssuer,
    connection: &Connection,
    claim: InviteClaim,
) -> Result<NodeId, ServeError> {
    let (mut send, mut receive) = connection.accept_bi().await?;
    let request: RequestMessage = read_message(&mut receive).await?;
    let now = (shared.clock)();
    if request.version != JOIN_VERSION {
        reply_last(send, &ReplyMessage::OtherVersion(JOIN_VERSION)).await?;
        return Err(ServeError::OtherVersion(request.version));
    }
    // Half a round trip lies between the two readings.
    let now_ms = i128::try_from(now.as_millis()).unwrap_or(i128::MAX);
    let one_way_ms = i128::try_from(connection.rtt().as_millis() / 2).unwrap_or(0);
    let difference_ms = i128::from(request.clock_ms) + one_way_ms - now_ms;
    let applicant = JoinApplicant {
        node: node_id_of_request(&request.certificate_request)?,
        name: request.name,
        pop: request.pop,
        info: request.info,
        clock_difference_ms: difference_ms.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
        addr: canonical(connection.remote_address()),
    };
    let grant = match (issuer.policy)(applicant).await {
        Ok(grant) => grant,
        Err(refusal) => {
            reply_last(send, &ReplyMessage::Refused(refusal.clone())).await?;
            return Err(ServeError::Refused(refusal));
        }
    };
    let (node, certificate) = issuer.authority.sign_request(&request.certificate_request, now.as_secs())?;
    let granted = ReplyMessage::Granted(GrantMessage {
        certificate: certificate.to_vec(),
        authority_certificate: issuer.authority.certificate().to_vec(),
        authority_key: Zeroed(issuer.authority.key().pkcs8().to_vec()),
        grant,
    });
    write_message(&mut send, &granted).await?;
    // Until the newcomer says that it has its grant, it may come again with the same invite.
    let mut confirmation = [0];
    receive.read_exact(&mut confirmation).await.map_err(|_| ServeError::NotConfirmed)?;
    if confirmation != [CONFIRMATION] {
        return Err(ServeError::NotConfirmed);
    }
    claim.spend();
    Ok(node)
}

/// Sends a reply that ends the exchange, and waits until it has arrived.
async fn reply_last(mut send: SendStream, reply: &ReplyMessage) -> Result<(), MessageError> {
    write_message(&mut send, reply).await?;
    let _ = send.finish();
    let _ = send.stopped().await;
    Ok(())
}
