//! The register of a key: content under a marker, merged so that the last writer wins everywhere alike.
//!
//! Merging depends on the two entries and on nothing else: no clock, no receiver.

use bytes::{Bytes, BytesMut};
use crdts::{CvRDT, LWWReg};
use serde::{Deserialize, Serialize};

use super::clock::Timestamp;
use super::digest::RecordHash;
use super::dot::{Dot, Origin};
use super::key::Key;
use super::limits::{
    AUTHENTICATOR_LEN_MAX, CHUNK_LEN, CHUNKS_MAX, INLINE_LEN_MAX, METADATA_LEN_MAX, RECORD_LEN_MAX, SEAL_OVERHEAD_MAX,
};

/// Version of the encoding of a record's body.
pub const BODY_VERSION: u8 = 1;

/// What orders the writes of a key: later timestamps win, origins break ties. No two writes share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Marker {
    /// The writer's hybrid logical time, or just above what it overwrote.
    pub time: Timestamp,
    /// The writer.
    pub origin: Origin,
}

/// What a register holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// Unix milliseconds from which reads hide it; 0 = never.
    pub expire_ms: u64,
    /// Sealed metadata; empty = none. Opaque here.
    pub metadata: Bytes,
    /// The value, sealed, or what stands for it.
    pub value: Value,
}

/// A value as the replica sees it: opaque bytes, where they are, or that there are none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Deleted.
    Tombstone,
    /// Sealed bytes, at most [`INLINE_LEN_MAX`] before sealing.
    Inline(Bytes),
    /// Sealed chunks, kept and spread beside the record.
    Blob(Blob),
    /// Expired, and the bytes reclaimed: the header and the record's hash stay until no node can need them.
    Dropped(RecordHash),
}

/// A large value: chunks of [`CHUNK_LEN`] bytes (before sealing), each known by its hash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Blob {
    /// Minted by the writer, so that two values never share chunks.
    pub id: BlobId,
    /// Length of the value before sealing, in bytes.
    pub len: u64,
    /// BLAKE3 of each sealed chunk.
    pub chunks: Vec<[u8; 32]>,
}

/// Tells the blobs of one key apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct BlobId(pub [u8; 16]);

/// An entry: a register with the dot of the write that set it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The write's own address.
    pub dot: Dot,
    /// The origin's time when it committed the write; rises with `dot.seq`. The marker may lie far from it.
    pub stamp: Timestamp,
    /// Content and marker.
    pub register: LWWReg<Content, Marker>,
    /// Room for a signature over the record; empty so far.
    pub authenticator: Bytes,
    /// Over the record as its origin encoded it.
    pub hash: RecordHash,
}

/// A write on its way: the key, and the body verbatim as its origin encoded it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Where it belongs.
    pub key: Key,
    /// See [`Entry::encode`].
    pub body: Bytes,
}

/// The bytes are not the body of a record that this version can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedRecord(pub &'static str);

/// What merging two entries of one key came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// The other one is held now.
    Won,
    /// Ours stays.
    Lost,
    /// They are the same write.
    Same,
    /// Two different contents under one marker: a node broke the rules. The higher hash is held, everywhere alike.
    Conflict {
        /// Whether the other one is held now.
        won: bool,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    dot: Dot,
    stamp: Timestamp,
    /// The marker's time minus the stamp; mostly zero.
    marker_ahead: i64,
    /// Only where it is not the dot's: a write issued again by a later life.
    marker_origin: Option<Origin>,
    expire_ms: u64,
    metadata_len: u32,
    authenticator_len: u16,
    kind: Kind,
}

#[derive(Serialize, Deserialize)]
enum Kind {
    Tombstone,
    Inline,
    Blob(Blob),
    Dropped(RecordHash),
}

impl Content {
    /// Whether of two contents one is what is left of the other, or of the same third: they expire at one time, and one
    /// has no bytes any more. A write that was issued again after its expiry differs so from how it was first issued.
    fn is_spent_form_of(&self, other: &Content) -> bool {
        let is_spent = |content: &Content| matches!(content.value, Value::Tombstone | Value::Dropped(_));
        self.expire_ms == other.expire_ms && self.expire_ms != 0 && (is_spent(self) || is_spent(other))
    }
}

impl Entry {
    /// An entry as its origin makes it.
    pub fn new(key: &Key, dot: Dot, stamp: Timestamp, marker: Marker, content: Content) -> Self {
        let register = LWWReg { val: content, marker };
        let mut entry = Self { dot, stamp, register, authenticator: Bytes::new(), hash: RecordHash::default() };
        entry.hash = RecordHash::of(key, &entry.encode());
        entry
    }

    /// The marker.
    pub fn marker(&self) -> Marker {
        self.register.marker
    }

    /// The content.
    pub fn content(&self) -> &Content {
        &self.register.val
    }

    /// The blob it refers to, if it does.
    pub fn blob(&self) -> Option<&Blob> {
        match &self.content().value {
            Value::Blob(blob) => Some(blob),
            _ => None,
        }
    }

    /// Whether readers see a value at `wall_ms`.
    pub fn is_visible(&self, wall_ms: u64) -> bool {
        let content = self.content();
        let expired = content.expire_ms != 0 && content.expire_ms <= wall_ms;
        !expired && matches!(content.value, Value::Inline(_) | Value::Blob(_))
    }

    /// The last moment that anything about this entry speaks of; nothing later than a stable frontier is purged.
    pub fn horizon_ms(&self) -> u64 {
        self.stamp.ms().max(self.marker().time.ms()).max(self.content().expire_ms)
    }

    /// The body: version byte, header, metadata, authenticator, value to the end.
    pub fn encode(&self) -> Bytes {
        let content = self.content();
        let (kind, tail) = match &content.value {
            Value::Tombstone => (Kind::Tombstone, &[][..]),
            Value::Inline(bytes) => (Kind::Inline, &bytes[..]),
            Value::Blob(blob) => (Kind::Blob(blob.clone()), &[][..]),
            Value::Dropped(hash) => (Kind::Dropped(*hash), &[][..]),
        };
        let marker = self.marker();
        let header = Header {
            dot: self.dot,
            stamp: self.stamp,
            marker_ahead: marker.time.0.wrapping_sub(self.stamp.0) as i64,
            marker_origin: (marker.origin != self.dot.origin).then_some(marker.origin),
            expire_ms: content.expire_ms,
            metadata_len: content.metadata.len() as u32,
            authenticator_len: self.authenticator.len() as u16,
            kind,
        };
        let mut body = BytesMut::with_capacity(64 + content.metadata.len() + self.authenticator.len() + tail.len());
        body.extend_from_slice(&[BODY_VERSION]);
        let mut body = postcard::to_extend(&header, body).expect("a header always serializes");
        body.extend_from_slice(&content.metadata);
        body.extend_from_slice(&self.authenticator);
        body.extend_from_slice(tail);
        body.freeze()
    }

    /// The inverse of [`Entry::encode`]; shares the body's memory.
    pub fn decode(key: &Key, body: &Bytes) -> Result<Self, MalformedRecord> {
        Self::decode_with(body, || RecordHash::of(key, body))
    }

    /// [`Entry::decode`] for a body whose hash is known, as on disk.
    pub fn decode_hashed(body: &Bytes, hash: RecordHash) -> Result<Self, MalformedRecord> {
        Self::decode_with(body, || hash)
    }

    fn decode_with(body: &Bytes, hash: impl FnOnce() -> RecordHash) -> Result<Self, MalformedRecord> {
        let malformed = |what| Err(MalformedRecord(what));
        if body.len() > RECORD_LEN_MAX {
            return malformed("record too long");
        }
        let Some((version, rest)) = body.split_first() else { return malformed("empty record") };
        if *version != BODY_VERSION {
            return malformed("record of a version that this node can't read");
        }
        let Ok((header, rest)) = postcard::take_from_bytes::<Header>(rest) else { return malformed("record header") };
        let metadata_len = header.metadata_len as usize;
        let authenticator_len = usize::from(header.authenticator_len);
        if metadata_len > METADATA_LEN_MAX + SEAL_OVERHEAD_MAX || authenticator_len > AUTHENTICATOR_LEN_MAX {
            return malformed("record metadata or authenticator too long");
        }
        let metadata_at = body.len() - rest.len();
        let authenticator_at = metadata_at + metadata_len;
        let tail_at = authenticator_at + authenticator_len;
        if tail_at > body.len() {
            return malformed("record cut short");
        }
        let tail = body.slice(tail_at..);
        let has_tail = !tail.is_empty();
        let value = match header.kind {
            Kind::Inline if tail.len() <= INLINE_LEN_MAX + SEAL_OVERHEAD_MAX => Value::Inline(tail),
            Kind::Inline => return malformed("inline value too long"),
            _ if has_tail => return malformed("bytes after the end of a record"),
            Kind::Tombstone => Value::Tombstone,
            Kind::Blob(blob) => {
                let chunks = blob.len.div_ceil(CHUNK_LEN as u64);
                if chunks == 0 || chunks > CHUNKS_MAX as u64 || chunks != blob.chunks.len() as u64 {
                    return malformed("blob length and chunks disagree");
                }
                Value::Blob(blob)
            }
            Kind::Dropped(_) if header.expire_ms == 0 => {
                return malformed("the value of what never expires is missing");
            }
            Kind::Dropped(hash) => Value::Dropped(hash),
        };
        if header.dot.seq == 0 {
            return malformed("sequence numbers start at 1");
        }
        let hash = match &value {
            Value::Dropped(original) => *original,
            _ => hash(),
        };
        let marker = Marker {
            time: Timestamp(header.stamp.0.wrapping_add(header.marker_ahead as u64)),
            origin: header.marker_origin.unwrap_or(header.dot.origin),
        };
        let content =
            Content { expire_ms: header.expire_ms, metadata: body.slice(metadata_at..authenticator_at), value };
        Ok(Self {
            dot: header.dot,
            stamp: header.stamp,
            register: LWWReg { val: content, marker },
            authenticator: body.slice(authenticator_at..tail_at),
            hash,
        })
    }

    /// The same entry without its value's bytes.
    pub fn dropped(&self) -> Self {
        let content =
            Content { value: Value::Dropped(self.hash), metadata: Bytes::new(), expire_ms: self.content().expire_ms };
        let register = LWWReg { val: content, marker: self.marker() };
        Self { register, ..self.clone() }
    }

    /// As it travels.
    pub fn to_record(&self, key: &Key) -> Record {
        Record { key: key.clone(), body: self.encode() }
    }

    /// Whether `other` would be held after [`Entry::merge`].
    pub fn loses_to(&self, other: &Entry) -> bool {
        (self.marker(), self.hash) < (other.marker(), other.hash)
    }

    /// Merges `other`, an entry of the same key, into this one. Commutative, associative and idempotent.
    pub fn merge(&mut self, other: Entry) -> Merge {
        if self.hash == other.hash {
            return Merge::Same;
        }
        let is_conflict = self.register.validate_merge(&other.register).is_err();
        let was_reissued = self.dot.origin != self.marker().origin || other.dot.origin != other.marker().origin;
        let conflict = is_conflict && !(was_reissued && self.content().is_spent_form_of(other.content()));
        let won = self.loses_to(&other);
        if won {
            if self.marker() == other.marker() {
                self.register = other.register;
            } else {
                self.register.merge(other.register);
            }
            (self.dot, self.stamp, self.authenticator, self.hash) =
                (other.dot, other.stamp, other.authenticator, other.hash);
        }
        match (conflict, won) {
            (true, won) => Merge::Conflict { won },
            (false, true) => Merge::Won,
            (false, false) => Merge::Lost,
        }
    }
}
