//! What the network tells the node, and how it fails. Refuses to know why.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::framing::{Class, FRAME_LEN_MAX};
use super::identity::IdentityError;
use super::invite::INVITES_MAX;
use super::mesh::LinkId;
use super::tls::TlsError;
use super::token::TOKEN_ADDRESSES_MAX;
use crate::replica::NodeId;

/// What the network tells the node. Events of one link come in order, beginning with `Connected` and ending with
/// `Disconnected`; at most one link to a node is up at a time. The receiver must keep draining them: what holds a
/// fast peer back is keeping its frames' permits.
#[derive(Debug)]
pub enum NetEvent {
    /// A link is up: both sides have authenticated each other.
    Connected {
        /// Who.
        node: NodeId,
        /// The fresh link.
        link: LinkId,
        /// Its remote address.
        addr: SocketAddr,
        /// Whether this node dialed.
        dialed: bool,
    },
    /// A link is gone. What was not reported as sent may be lost, and some of what was.
    Disconnected {
        /// Who.
        node: NodeId,
        /// The link; it doesn't come back.
        link: LinkId,
        /// For people.
        reason: String,
    },
    /// A node of this cluster refuses this one, which it says is evicted.
    TurnedAway {
        /// Who says so.
        node: NodeId,
    },
    /// A frame has arrived.
    Frame {
        /// From whom.
        node: NodeId,
        /// On which link.
        link: LinkId,
        /// Its class.
        class: Class,
        /// Its content.
        bytes: Bytes,
        /// Its share of the link's inbound budget, given back when dropped: keep it as long as the bytes.
        permit: OwnedSemaphorePermit,
    },
    /// QUIC has taken frames of this class: they no longer wait in this node's queue.
    Sent {
        /// To whom.
        node: NodeId,
        /// On which link.
        link: LinkId,
        /// Their class.
        class: Class,
        /// Their payload bytes: exactly what was handed to [`Net::send`](super::Net::send).
        bytes: usize,
    },
}

/// Why the network could not start or do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The address can't be listened on.
    #[error("cannot listen on UDP {address}: {source}")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Not called within a tokio runtime.
    #[error("the network needs a tokio runtime")]
    NoRuntime,
    /// The identity can't be used for TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The new identity is not the same node's.
    #[error("the new certificate is for another node or cluster")]
    OtherNode,
    /// A key could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The system has no entropy.
    #[error("no entropy: {0}")]
    Entropy(getrandom::Error),
    /// The node has no authority to let others in with.
    #[error("this node cannot issue invites: it was started without the cluster's authority key")]
    NotAnIssuer,
    /// There are too many invites.
    #[error("{INVITES_MAX} invites are outstanding: wait until some have been used or have expired")]
    TooManyInvites,
    /// A token needs an address, and not too many.
    #[error("an invite needs 1 to {TOKEN_ADDRESSES_MAX} addresses at which the newcomer can reach this node")]
    BadAddresses,
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The link is gone; its `Disconnected` was or will be reported.
    #[error("the link is gone")]
    LinkGone,
    /// Longer than [`FRAME_LEN_MAX`].
    #[error("frame of {0} bytes, at most {FRAME_LEN_MAX} are allowed")]
    TooLong(usize),
}
