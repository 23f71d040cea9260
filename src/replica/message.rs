//! Messages between replicas: their shapes, sizes, classes and encoding.
//!
//! One protocol version byte, then postcard. What a message makes a replica do stands with the concept it serves.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::clock::{Mono, Timestamp};
use super::digest::DigestSum;
use super::dot::{Dot, NodeId, Origin};
use super::entry::{BlobId, Record};
use super::key::Key;
use super::limits::{
    COVERS_MAX, HEAD_LIVES_MAX, MESSAGE_LEN_MAX, ORIGINS_MAX, SECRET_LEN_MAX, SECRETS_PER_MESSAGE_MAX,
};
use super::secrets::{SecretsHash, SharedSecret};
use super::verify::{VerifyAnswer, VerifyRequest};
use super::version::{VersionHash, VersionVector};

/// Version of the messages. A node speaks to peers of its own version only, until there are two.
pub const PROTOCOL_VERSION: u8 = 1;

/// Messages of one class keep their order; a higher class (listed first) goes before a lower one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// Small and urgent.
    Control,
    /// Fresh writes.
    Records,
    /// Repair.
    Sync,
    /// Chunks of large values.
    Blobs,
}

impl Class {
    /// All of them, highest first.
    pub const ALL: [Self; 4] = [Self::Control, Self::Records, Self::Sync, Self::Blobs];
}

/// What replicas say to one another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// First on every link.
    Hello(Hello),
    /// Every second or so: am I alive, in step, and on time?
    Beat(Beat),
    /// The answer to a beat.
    Echo(Echo),
    /// Fresh writes.
    Records(Records),
    /// Tell me when all my writes up to this one are on disk at your side.
    AckPlease {
        /// A write of the sender's current life.
        dot: Dot,
    },
    /// All writes of the receiver up to this one are on disk at the sender.
    Ack {
        /// Last of the gapless prefix.
        upto: Dot,
    },
    /// The sender dropped writes meant for the receiver: sync with me.
    Lagging,
    /// Send me what I lack.
    SyncRequest(SyncRequest),
    /// A session begins; this is what the sender's snapshot has seen.
    SyncStart {
        /// The receiver's number for the session.
        session: u64,
        /// To be joined when the session is complete, not before.
        versions: VersionVector,
        /// Whether folded origins are included.
        full: bool,
    },
    /// Part of a session.
    SyncChunk(SyncChunk),
    /// Chunks up to this one are applied; more may come.
    SyncAck {
        /// The session.
        session: u64,
        /// Chunks applied so far.
        applied: u64,
    },
    /// The session is complete after this many chunks.
    SyncDone {
        /// The session.
        session: u64,
        /// How many chunks there were.
        chunks: u64,
    },
    /// There will be no such session.
    SyncRefused {
        /// The session.
        session: u64,
        /// Why.
        reason: SyncRefusal,
    },
    /// Send me chunk `index` of a blob.
    ChunkRequest(ChunkRequest),
    /// Here it is; `None`: not here, or not now.
    Chunk {
        /// What was asked for.
        request: ChunkRequest,
        /// Sealed bytes, to be verified against the record.
        chunk: Option<Bytes>,
    },
    /// A newer process with the receiver's identity is connected here.
    Superseded,
    /// Secrets that the receiver should hold too.
    Secrets(Vec<SharedSecret>),
    /// Send me what you hold under a key: mine is damaged.
    RecordRequest {
        /// The key.
        key: Key,
    },
    /// Here it is; `None`: not here, or damaged here too.
    Record {
        /// The key.
        key: Key,
        /// Verbatim.
        record: Option<Record>,
    },
    /// Compares a page of entries.
    VerifyRequest(VerifyRequest),
    /// How it compares.
    VerifyAnswer(VerifyAnswer),
}

/// Introduces a process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Random, per process start.
    pub boot: u64,
    /// When the process started, above all that its directory had minted: of two processes with one identity the
    /// older one yields.
    pub started: Timestamp,
    /// The highest timestamp that the sender has heard from the receiver.
    pub heard: Timestamp,
}

/// What a node says about its own writes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// The node.
    pub node: NodeId,
    /// Its lives that are over and not folded yet, each with the last write that it knows of.
    pub former: Vec<(Origin, u64)>,
    /// Hash over those that it has folded, so that who has joined since, or lost them, knows to lack them.
    pub folded: u64,
    /// Its current life with its last write, once it has written.
    pub life: Option<(Origin, u64)>,
    /// Every write to come will be stamped later than this.
    pub stamp: Timestamp,
    /// All writes of everyone stamped up to this are applied and on disk at the node.
    pub watermark: Timestamp,
}

/// Compares two replicas, and measures the way between them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Beat {
    /// The sender's monotonic clock, for it alone.
    pub sent: Mono,
    /// Hash of the sender's version vector.
    pub versions: VersionHash,
    /// The same over former lives only.
    pub former: VersionHash,
    /// Records of former lives wait for blobs at the sender: gaps in what was seen may still close.
    pub waits: bool,
    /// Sum of the sender's digest.
    pub digest: DigestSum,
    /// Over the secrets that the sender holds.
    pub secrets: SecretsHash,
    /// The sender's head first, then some that it knows of others.
    pub heads: Vec<Head>,
}

/// Answers a beat.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Echo {
    /// As in the beat.
    pub sent: Mono,
    /// The sender's wall clock, milliseconds.
    pub wall_ms: u64,
}

/// Fresh writes of the sender.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Records {
    /// The writes, oldest first.
    pub pushes: Vec<Push>,
}

/// One record and what else it stands for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Push {
    /// Verbatim.
    pub record: Record,
    /// Earlier writes of the same key that it dominates and that were not sent for it.
    pub covers: Vec<Dot>,
}

/// Opens a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncRequest {
    /// The receiver's number for the session.
    pub session: u64,
    /// What need not be sent.
    pub have: VersionVector,
    /// Hash over the receiver's folded origins.
    pub folded: VersionHash,
    /// Whether `have` includes the folded origins.
    pub full: bool,
}

/// Records of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SyncChunk {
    /// The session.
    pub session: u64,
    /// From 0, without gaps.
    pub index: u64,
    /// Verbatim.
    pub records: Vec<Record>,
    /// How far the scan has come: all that the snapshot holds up to here was sent.
    pub upto: Dot,
}

/// Why a session can't be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SyncRefusal {
    /// Too many already; try again later, or elsewhere.
    Busy,
    /// The folded origins differ: ask again with all of them.
    NeedFull,
}

/// Names one chunk of one blob.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkRequest {
    /// The key that refers to the blob.
    pub key: Key,
    /// The blob.
    pub id: BlobId,
    /// From 0.
    pub index: u32,
}

/// The bytes are not a message of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedMessage(pub &'static str);

impl Message {
    /// Which stream it takes.
    pub fn class(&self) -> Class {
        match self {
            Self::Records(_) => Class::Records,
            Self::SyncStart { .. } | Self::SyncChunk(_) | Self::SyncDone { .. } => Class::Sync,
            Self::Record { .. } | Self::VerifyAnswer(_) => Class::Sync,
            Self::Chunk { .. } => Class::Blobs,
            _ => Class::Control,
        }
    }

    /// As it travels.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.len_expected());
        bytes.push(PROTOCOL_VERSION);
        postcard::to_extend(self, bytes).expect("a message always serializes").into()
    }

    /// Room to encode it without moving it about.
    fn len_expected(&self) -> usize {
        let record = |record: &Record| record.key.as_bytes().len() + record.body.len() + 16;
        match self {
            Self::Beat(beat) => 128 + 64 * beat.heads.len(),
            Self::Records(records) => {
                let push = |push: &Push| record(&push.record) + 32 * push.covers.len();
                16 + records.pushes.iter().map(push).sum::<usize>()
            }
            Self::SyncRequest(SyncRequest { have: versions, .. }) | Self::SyncStart { versions, .. } => {
                64 + 32 * versions.len()
            }
            Self::SyncChunk(chunk) => 64 + chunk.records.iter().map(record).sum::<usize>(),
            Self::Chunk { chunk: Some(chunk), .. } => 640 + chunk.len(),
            _ => 32,
        }
    }

    /// The inverse of [`Message::encode`]; refuses what no correct peer sends.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedMessage> {
        if bytes.len() > MESSAGE_LEN_MAX {
            return Err(MalformedMessage("message too long"));
        }
        let Some((version, body)) = bytes.split_first() else { return Err(MalformedMessage("empty message")) };
        if *version != PROTOCOL_VERSION {
            return Err(MalformedMessage("message of a protocol version that this node does not speak"));
        }
        let (message, rest) = postcard::take_from_bytes::<Self>(body).map_err(|_| MalformedMessage("message"))?;
        if !rest.is_empty() {
            return Err(MalformedMessage("bytes after the end of a message"));
        }
        message.check()?;
        Ok(message)
    }

    fn check(&self) -> Result<(), MalformedMessage> {
        let versions = match self {
            Self::SyncRequest(request) => &request.have,
            Self::SyncStart { versions, .. } => versions,
            Self::Records(records) if records.pushes.iter().any(|push| push.covers.len() > COVERS_MAX) => {
                return Err(MalformedMessage("a record that covers too much"));
            }
            Self::Beat(beat) if beat.heads.iter().any(|head| head.former.len() > HEAD_LIVES_MAX) => {
                return Err(MalformedMessage("a head of too many lives"));
            }
            Self::Secrets(secrets)
                if secrets.len() > SECRETS_PER_MESSAGE_MAX
                    || secrets.iter().any(|secret| secret.bytes.0.len() > SECRET_LEN_MAX) =>
            {
                return Err(MalformedMessage("secrets out of bounds"));
            }
            _ => return Ok(()),
        };
        if versions.len() > ORIGINS_MAX || !versions.is_valid() {
            return Err(MalformedMessage("version vector"));
        }
        Ok(())
    }
}
