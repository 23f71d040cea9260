//! What goes into the replica and what comes out. The driver (or the simulator) owns everything in between: clocks,
//! sockets, disks, and whoever waits for a reply.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;

use super::bookmark::{Bookmark, NodeTag};
use super::clock::Timestamp;
use super::dot::{Dot, NodeId};
use super::entry::{BlobId, Content, Marker};
use super::feed::{Changes, Position};
use super::key::Key;
use super::message::{Class, Message};
use super::repair::Damage;
use super::secrets::SharedSecret;
use super::verify::Verification;

/// One connection to a peer; a number that the driver never uses twice.
pub type LinkId = u64;

/// Names a local request until its reply; a number that the driver never uses twice.
pub type Ticket = u64;

/// Something happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A local client wants something. Exactly one [`Output::Reply`] follows.
    Request {
        /// For the reply.
        ticket: Ticket,
        /// What it wants.
        request: Request,
    },
    /// A connection to an authenticated member stands. It replaces an earlier one to the same node.
    Connected {
        /// The peer.
        node: NodeId,
        /// The connection.
        link: LinkId,
    },
    /// A connection is gone.
    Disconnected {
        /// The peer.
        node: NodeId,
        /// The connection.
        link: LinkId,
    },
    /// A node of this cluster turned this one away: it says that this node is evicted. Whoever may say so may evict it.
    TurnedAway {
        /// Who.
        node: NodeId,
    },
    /// A peer said something.
    Received {
        /// The peer.
        node: NodeId,
        /// The connection.
        link: LinkId,
        /// Decoded, its claims not checked.
        message: Message,
    },
    /// The transport took bytes that an [`Output::Send`] asked it to send.
    Sent {
        /// The peer.
        node: NodeId,
        /// The connection.
        link: LinkId,
        /// The class of the message.
        class: Class,
        /// How many.
        bytes: usize,
    },
    /// Every commit up to this one is durable.
    Synced {
        /// As [`Store::commit`](super::store::Store::commit) numbered it.
        commit: u64,
    },
    /// Time has passed; nothing else happened.
    Wake,
}

/// What a local client may want.
#[derive(Debug, Clone)]
pub enum Request {
    /// Sets a register.
    Write {
        /// Whose.
        key: Key,
        /// To what.
        content: Content,
    },
    /// Sets a register to what a former node of this directory, which was evicted, had set it to, with the marker of
    /// that time: as if that write had come only now.
    Reissue {
        /// Whose.
        key: Key,
        /// To what.
        content: Content,
        /// Its place in the order of the key's writes.
        marker: Marker,
    },
    /// Stores one sealed chunk of a blob that a later write will refer to.
    PutChunk {
        /// The key that will refer to it.
        key: Key,
        /// The blob.
        id: BlobId,
        /// From 0.
        index: u32,
        /// Sealed bytes.
        chunk: Bytes,
    },
    /// Gives up a blob whose chunks were stored and that no write refers to.
    AbandonBlob {
        /// The key it was for.
        key: Key,
        /// The blob.
        id: BlobId,
    },
    /// Waits until enough nodes hold a write on disk.
    AwaitAcks {
        /// The write, one of this process.
        dot: Dot,
        /// How many.
        level: AckLevel,
        /// For how long, in milliseconds.
        patience_ms: u64,
    },
    /// Waits until this node has all that a client has seen.
    AwaitCovered {
        /// What that is.
        bookmark: Bookmark,
        /// For how long, in milliseconds.
        patience_ms: u64,
    },
    /// Asks to be told of changes ([`Output::Changed`]) from this turn's end on.
    Watch,
    /// Makes a bookmark short enough to be encoded.
    Shorten(Bookmark),
    /// Shares a secret with all members.
    ShareSecret(SharedSecret),
    /// Has something that is damaged here replaced by what a peer holds.
    Repair(Damage),
    /// Compares all that is held here with what a peer holds.
    Verify {
        /// Which one; `None`: any that is connected.
        peer: Option<NodeId>,
        /// Whether to replace here what is found damaged, missing or stale.
        repair: bool,
    },
    /// Takes this node off the roster; its peers are told.
    Leave,
    /// Takes another node off the roster: one that is lost, and that everyone would wait for. If it still runs, it is
    /// fenced as soon as it hears of it.
    Evict(NodeId),
    /// Asks for the replica's own view of itself and its peers.
    Status,
}

/// How many nodes must hold a write on disk, the writer included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckLevel {
    /// That many.
    Nodes(usize),
    /// Everyone on the roster.
    All,
}

/// Answers to a [`Request`].
#[derive(Debug, Clone)]
pub enum Reply {
    /// The write is in the store, durable if the durability asks for it.
    Written {
        /// Its address.
        dot: Dot,
        /// Its place in the order of the key's writes.
        marker: Marker,
        /// When it was committed.
        stamp: Timestamp,
    },
    /// The answer to [`Request::Reissue`] if the key holds that write, or a later one.
    Dominated,
    /// Nothing was changed.
    Refused(Refusal),
    /// Done: the chunk is staged, the blob given up, the bookmark covered.
    Done,
    /// The answer to [`Request::Watch`].
    Watching {
        /// All of this is in the store.
        position: Position,
        /// The nodes that have departed, of which watermarks don't speak.
        departed: BTreeSet<NodeTag>,
    },
    /// The answer to [`Request::Shorten`].
    Bookmark(Bookmark),
    /// These nodes, this one included, hold the write on disk.
    Acknowledged(Vec<NodeId>),
    /// Time ran out; these nodes, this one included, hold the write on disk, or none if a bookmark was awaited.
    TimedOut(Vec<NodeId>),
    /// The answer to [`Request::Verify`].
    Verified(Box<Verification>),
    /// The answer to [`Request::Status`].
    Status(Box<super::status::Status>),
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The namespace is deleted.
    NamespaceDeleted,
    /// This node's clock is too far from its peers' (milliseconds, positive = ahead).
    ClockFenced(i64),
    /// This node's timestamps lie this many milliseconds ahead of its clock, which must have been wrong: it lets nobody
    /// in until the time has come.
    ClockAhead(u64),
    /// A newer process runs with this node's identity.
    Superseded,
    /// This node was taken off the roster.
    Evicted,
    /// The key's marker stands at the ceiling of time; it can't be overwritten.
    Frozen,
    /// The record would be longer than a record may be, or a chunk out of bounds.
    TooLarge,
    /// Chunks of the blob are not here.
    ChunksMissing,
    /// This process has not had all that some member has yet.
    Behind,
    /// Too many requests wait already.
    Overloaded,
    /// No connected peer can give it.
    NotElsewhere,
    /// The dot is not one of this process.
    UnknownDot,
    /// More nodes were asked for than the roster has, which is this many.
    FewerNodes(usize),
    /// Writes of a node that has departed and that are not here may never come.
    EvictedOrigin,
}

/// Something to do, in order.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send to a connected peer.
    Send {
        /// The connection.
        link: LinkId,
        /// The peer.
        node: NodeId,
        /// Messages of one class keep their order.
        class: Class,
        /// An encoded [`Message`].
        bytes: Bytes,
    },
    /// Close a connection.
    Disconnect {
        /// The connection.
        link: LinkId,
        /// The peer.
        node: NodeId,
        /// Why, for people.
        reason: &'static str,
    },
    /// Close a connection and tell the peer that it is evicted: by itself it would not hear of it.
    TurnAway {
        /// The connection.
        link: LinkId,
        /// The peer.
        node: NodeId,
    },
    /// Answer a local client.
    Reply {
        /// Of the request.
        ticket: Ticket,
        /// The answer.
        reply: Reply,
    },
    /// Keep these secrets, all there are, durably and apart from the store. What follows must wait until that is done.
    KeepSecrets(Vec<SharedSecret>),
    /// Entries have changed, and are committed.
    Changed(Changes),
    /// The roster changed: whom to keep connected may have changed with it.
    RosterChanged,
    /// An operator should know.
    Alarm(Alarm),
}

/// What an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// Two different contents under one marker: some node breaks the rules.
    MarkerConflict {
        /// Where.
        key: Key,
        /// The node that both claim as writer.
        node: NodeId,
    },
    /// This node's clock differs from the median of its peers by this many milliseconds.
    ClockSkew(i64),
    /// The clock is back within bounds.
    ClockFine,
    /// A newer process runs with this node's identity; writes are refused here.
    Superseded,
    /// This node was evicted.
    Evicted,
    /// What is held under a key is not what was written.
    Damaged(Key),
    /// The members share more secrets than there may be; some are not held here.
    TooManySecrets,
    /// A peer sent what no correct peer sends.
    BadPeer {
        /// Who.
        node: NodeId,
        /// What.
        what: &'static str,
    },
}

impl Alarm {
    /// Its kind, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::MarkerConflict { .. } => "marker_conflict",
            Self::ClockSkew(_) => "clock_skew",
            Self::ClockFine => "clock_fine",
            Self::Superseded => "superseded",
            Self::Evicted => "evicted",
            Self::BadPeer { .. } => "bad_peer",
            Self::TooManySecrets => "too_many_secrets",
            Self::Damaged(_) => "damaged",
        }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MarkerConflict { key, node } => {
                write!(f, "two different values of {key:?} under one marker of node {node}: that node breaks the rules")
            }
            Self::ClockSkew(ahead_ms) => {
                let (ms, side) = (ahead_ms.unsigned_abs(), if *ahead_ms < 0 { "behind" } else { "ahead of" });
                write!(f, "this machine's clock is {ms} ms {side} the median of its peers: check NTP")
            }
            Self::ClockFine => f.write_str("this machine's clock agrees with its peers' again"),
            Self::Superseded => f.write_str(
                "a newer process runs with this node's identity (a cloned data directory?): writes are refused here",
            ),
            Self::Evicted => f.write_str(
                "this node was taken off the roster: writes are refused here. To come back as another node, start it with \
                 --join and a new token",
            ),
            Self::Damaged(key) => {
                write!(f, "what this node stores under {key:?} is damaged: check its disk, and run `starling verify`")
            }
            Self::TooManySecrets => f.write_str(
                "there are more keys of namespaces than a node holds, so some values can't be read here: delete namespaces",
            ),
            Self::BadPeer { node, what } => write!(f, "node {node} was disconnected: {what}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NamespaceDeleted => f.write_str("the namespace is deleted"),
            Self::ClockFenced(ahead_ms) if *ahead_ms < 0 => {
                write!(f, "this node's clock is {} ms behind its peers'", ahead_ms.unsigned_abs())
            }
            Self::ClockFenced(ahead_ms) => write!(f, "this node's clock is {ahead_ms} ms ahead of its peers'"),
            Self::ClockAhead(ms) => {
                write!(f, "this node's timestamps run {ms} ms ahead of its clock: join through another node, or later")
            }
            Self::Superseded => f.write_str("a newer process runs with this node's identity"),
            Self::Evicted => f.write_str("this node was taken off the roster"),
            Self::Frozen => f.write_str("the key's last write lies at the end of time"),
            Self::TooLarge => f.write_str("the record is too large, or a chunk of it is missing"),
            Self::ChunksMissing => f.write_str("chunks of its value are missing"),
            Self::Behind => f.write_str("this node has not caught up with the others yet"),
            Self::NotElsewhere => f.write_str("no connected peer can help"),
            Self::Overloaded => f.write_str("too many requests wait already"),
            Self::UnknownDot => f.write_str("this process made no such write"),
            Self::FewerNodes(nodes) => write!(f, "the roster has {nodes} nodes"),
            Self::EvictedOrigin => f.write_str("the bookmark names writes of a node that has left the roster"),
        }
    }
}
