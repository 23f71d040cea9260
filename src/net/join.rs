//! The newcomer's side of a join: from a token to an identity. Refuses to know what the grant means and where the
//! result is kept.

use std::net::SocketAddr;

use bytes::Bytes;
use quinn::{ConnectError, Connection, ConnectionError, Endpoint};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use super::authority::Authority;
use super::config::{NetTuning, WallClock};
use super::connection::{CloseCode, quoted};
use super::identity::{Identity, IdentityError, NodeKey, server_name};
use super::join_message::{
    CONFIRMATION, GrantMessage, JOIN_TIMEOUT, JOIN_VERSION, JoinRefusal, MessageError, ReplyMessage, RequestMessage,
    read_message, write_message,
};
use super::tls::JoinTls;
use super::token::{JoinToken, TokenError};

/// The newcomer gives a token up by itself only when it is this long past its end: its own clock may be wrong, and
/// the issuer judges by its own.
const EXPIRY_TOLERANCE_SECS: u64 = 24 * 60 * 60;
/// TLS alerts (RFC 8446, section 6) within QUIC's range of error codes (RFC 9001, section 4.8).
const CRYPTO_ERROR: u64 = 0x100;
const ALERT_CERTIFICATE_EXPIRED: u64 = 45;
const ALERTS_ABOUT_CERTIFICATES: std::ops::RangeInclusive<u64> = 42..=49;

/// What a newcomer says about itself.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The node's name.
    pub name: String,
    /// The PoP it is at.
    pub pop: String,
    /// Passed to the issuer's policy as it is. At most about 60 KiB.
    pub info: Bytes,
}

/// How to join.
#[derive(Clone)]
pub struct JoinConfig {
    /// This node's wall clock.
    pub clock: WallClock,
    /// Timers of the connection.
    pub tuning: NetTuning,
}

/// What a newcomer has got. Save it before using it: the invite is used up.
#[derive(Clone, Debug)]
pub struct Joined {
    /// This node's identity.
    pub identity: Identity,
    /// The cluster's authority, with which this node can let others in.
    pub authority: Authority,
    /// What the issuer's policy handed out.
    pub grant: Bytes,
    /// The address at which the issuer answered.
    pub issuer_addr: SocketAddr,
}

/// Why a node could not join. The invite is not used up by any of these.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token can't be read.
    #[error(transparent)]
    InvalidToken(#[from] TokenError),
    /// The token's time is over.
    #[error("the join token has expired: make a new one on a node of the cluster")]
    Expired,
    /// The issuer doesn't know the invite.
    #[error(
        "the issuer does not know this join token (it was used, has expired, or the issuer has restarted since): \
         make a new one"
    )]
    UnknownInvite,
    /// Who answered belongs to another cluster.
    #[error("the node that answered belongs to another cluster than the token: check the addresses in the token")]
    WrongCluster,
    /// The issuer answered at none of the addresses.
    #[error(
        "the node that made the token answers at none of {addresses:?}: check that it runs, that these addresses \
         are right, and that UDP gets through"
    )]
    Unreachable {
        /// Those in the token.
        addresses: Vec<SocketAddr>,
    },
    /// This machine's clock, or the issuer's, is wrong.
    #[error("this machine's clock differs from the issuer's by {difference_ms} ms: set both by NTP and try again")]
    ClockFarOff {
        /// This machine's minus the issuer's.
        difference_ms: i64,
    },
    /// The issuer said no.
    #[error("the issuer refused: {0}")]
    Refused(JoinRefusal),
    /// The issuer's answers make no sense.
    #[error("the join failed: {0}; check that both nodes run the same version, and try again")]
    Protocol(String),
    /// Something failed on this machine.
    #[error("the join failed on this machine: {0}")]
    Local(String),
}

/// What to do after one address has failed.
enum Failure {
    TryNext,
    Final(JoinError),
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        Self::Final(error)
    }
}

impl From<MessageError> for Failure {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Lost(error) => judge(error),
            MessageError::Malformed | MessageError::TooLong(_) => JoinError::Protocol(error.to_string()).into(),
        }
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        judge(error)
    }
}

/// Joins the cluster that `token` invites to, as the node that holds `key`. Needs a tokio runtime. May be called
/// again with the same token and key after any error, and after a crash before it returned.
pub async fn join(
    token: &JoinToken,
    request: JoinRequest,
    key: &NodeKey,
    config: &JoinConfig,
) -> Result<Joined, JoinError> {
    let now_secs = (config.clock)().as_secs();
    if now_secs > token.expires_secs.saturating_add(EXPIRY_TOLERANCE_SECS) {
        return Err(JoinError::Expired);
    }
    let tls = JoinTls::new(token, &config.clock).map_err(|error| JoinError::Local(error.to_string()))?;
    for address in &token.addresses {
        match attempt(token, &request, key, config, &tls, *address).await {
            Ok(joined) => return Ok(joined),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::TryNext) => {}
        }
    }
    if tls.met_wrong_cluster() {
        return Err(JoinError::WrongCluster);
    }
    Err(JoinError::Unreachable { addresses: token.addresses.clone() })
}

async fn attempt(
    token: &JoinToken,
    request: &JoinRequest,
    key: &NodeKey,
    config: &JoinConfig,
    tls: &JoinTls,
    address: SocketAddr,
) -> Result<Joined, Failure> {
    let endpoint = Endpoint::client(local_address_for(address))
        .map_err(|error| JoinError::Local(format!("could not open a UDP socket: {error}")))?;
    let mut client = quinn::ClientConfig::new(tls.client.clone());
    client.transport_config(config.tuning.transport());
    let connecting = match endpoint.connect_with(client, address, &server_name(token.issuer)) {
        Ok(connecting) => connecting,
        Err(ConnectError::InvalidRemoteAddress(_)) => return Err(Failure::TryNext),
        Err(error) => return Err(JoinError::Local(error.to_string()).into()),
    };
    let connection = match timeout(config.tuning.dial_timeout, connecting).await {
        Ok(connection) => connection?,
        Err(_) => return Err(Failure::TryNext),
    };
    let result = match timeout(JOIN_TIMEOUT, exchange(token, request, key, config, &connection)).await {
        Ok(result) => result,
        Err(_) => Err(JoinError::Protocol("the issuer did not answer in time".into()).into()),
    };
    connection.close(CloseCode::Shutdown.into(), b"done");
    // Lets the close reach the issuer; not worth more than a moment.
    let _ = timeout(std::time::Duration::from_millis(500), endpoint.wait_idle()).await;
    result
}

async fn exchange(
    token: &JoinToken,
    request: &JoinRequest,
    key: &NodeKey,
    config: &JoinConfig,
    connection: &Connection,
) -> Result<Joined, Failure> {
    let certificate_request = rcgen::CertificateParams::default()
        .serialize_request(key.pair())
        .map_err(|error| JoinError::Local(error.to_string()))?;
    let (mut send, mut receive) = connection.open_bi().await?;
    let message = RequestMessage {
        version: JOIN_VERSION,
        certificate_request: certificate_request.der().to_vec(),
        name: request.name.clone(),
        pop: request.pop.clone(),
        info: request.info.clone(),
        clock_ms: u64::try_from((config.clock)().as_millis()).unwrap_or(u64::MAX),
    };
    write_message(&mut send, &message).await?;
    let granted = match read_message(&mut receive).await? {
        ReplyMessage::Granted(granted) => granted,
        ReplyMessage::Refused(JoinRefusal::ClockFarOff { difference_ms }) => {
            return Err(JoinError::ClockFarOff { difference_ms }.into());
        }
        ReplyMessage::Refused(refusal) => return Err(JoinError::Refused(sanitized(refusal)).into()),
        ReplyMessage::OtherVersion(version) => {
            let detail = format!("the issuer speaks version {version} of the join protocol, not {JOIN_VERSION}");
            return Err(JoinError::Protocol(detail).into());
        }
    };
    let joined = check(token, key, granted, connection)?;
    // From here on the grant is good, whether or not the issuer hears of it.
    if send.write_all(&[CONFIRMATION]).await.is_ok() && send.finish().is_ok() {
        let _ = send.stopped().await;
    }
    Ok(joined)
}

fn check(
    token: &JoinToken,
    key: &NodeKey,
    granted: GrantMessage,
    connection: &Connection,
) -> Result<Joined, JoinError> {
    let bad = |error: IdentityError| JoinError::Protocol(format!("the issuer sent a bad grant: {error}"));
    let certificate = CertificateDer::from(granted.authority_certificate);
    let authority_key = NodeKey::from_pkcs8(&granted.authority_key.0).map_err(bad)?;
    let authority = Authority::from_parts(authority_key, certificate.clone()).map_err(bad)?;
    if authority.fingerprint() != token.authority_fingerprint {
        return Err(JoinError::WrongCluster);
    }
    let identity = Identity::new(key.clone(), CertificateDer::from(granted.certificate), certificate).map_err(bad)?;
    let issuer_addr = super::endpoint::canonical(connection.remote_address());
    Ok(Joined { identity, authority, grant: granted.grant, issuer_addr })
}

fn sanitized(refusal: JoinRefusal) -> JoinRefusal {
    match refusal {
        JoinRefusal::Other(text) => JoinRefusal::Other(quoted(text.as_bytes()).to_string()),
        other => other,
    }
}

fn judge(error: ConnectionError) -> Failure {
    match error {
        ConnectionError::ConnectionClosed(close) => match u64::from(close.error_code).checked_sub(CRYPTO_ERROR) {
            Some(ALERT_CERTIFICATE_EXPIRED) => JoinError::Expired.into(),
            // The issuer's own certificate has passed our check by now: it is ours that it doesn't like.
            Some(alert) if ALERTS_ABOUT_CERTIFICATES.contains(&alert) => JoinError::UnknownInvite.into(),
            _ => JoinError::Protocol(close.to_string()).into(),
        },
        ConnectionError::ApplicationClosed(close) => {
            let reason = quoted(&close.reason).to_string();
            if close.error_code == CloseCode::Busy.into() {
                JoinError::Refused(JoinRefusal::Other(format!("{reason}: try again in a minute"))).into()
            } else if close.error_code == CloseCode::UnknownInvite.into() {
                JoinError::UnknownInvite.into()
            } else {
                JoinError::Protocol(reason).into()
            }
        }
        // Refused by our verifier: not the issuer, or not its cluster. Another address may be better.
        ConnectionError::TransportError(_)
        | ConnectionError::TimedOut
        | ConnectionError::Reset
        | ConnectionError::VersionMismatch => Failure::TryNext,
        ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => JoinError::Local(error.to_string()).into(),
    }
}

pub(super) fn local_address_for(remote: SocketAddr) -> SocketAddr {
    use std::net::{Ipv4Addr, Ipv6Addr};
    match remote {
        SocketAddr::V4(address) if address.ip().is_loopback() => (Ipv4Addr::LOCALHOST, 0).into(),
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(address) if address.ip().is_loopback() => (Ipv6Addr::LOCALHOST, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
