//! The network: frames between nodes over QUIC, with mutual TLS 1.3.
//!
//! Owns identities, the mesh of warm connections and the join handshake. Refuses to know what a message means: it
//! carries a [`Class`] and bytes. One UDP socket dials and accepts; each connection has one long-lived
//! unidirectional stream per class and direction, so a slow class never holds up a more urgent one.
//!
//! What comes in is reported as [`NetEvent`]s; what goes out is handed to [`Net::send`], which never blocks.

mod accept;
mod authority;
mod config;
mod congestion;
mod connection;
mod counters;
mod dialer;
mod endpoint;
mod event;
mod framing;
mod identity;
mod invite;
mod issuer;
mod join;
mod join_message;
mod keyfile;
mod mesh;
mod probe;
mod tail;
mod tls;
mod token;

#[cfg(test)]
mod tests;

pub use authority::Authority;
pub use config::{BanHook, JoinIssuer, JoinPolicy, NetConfig, NetTuning, WallClock};
pub use counters::{ClassTraffic, NetCounters};
pub use endpoint::Net;
pub use event::{NetError, NetEvent, SendError};
pub use framing::{Class, FRAME_LEN_MAX, INBOUND_BYTES_MAX};
pub(crate) use identity::pem;
pub use identity::{Identity, IdentityError, NodeKey};
pub use invite::INVITES_MAX;
pub use issuer::{JOINS_MAX, JoinApplicant};
pub use join::{JoinConfig, JoinError, JoinRequest, Joined, join};
pub use join_message::JoinRefusal;
pub use mesh::LinkId;
pub use probe::is_turned_away_by;
pub use tls::TlsError;
pub use token::{JoinToken, TokenError};
