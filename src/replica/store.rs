//! What the replica asks of its storage. Reads are synchronous and see what is staged; nothing staged is durable or
//! visible elsewhere before `commit`.
//!
//! Knows nothing of files, nor of what the rows mean to the protocol.

use std::fmt;

use bytes::Bytes;

use super::clock::Timestamp;
use super::digest::RecordHash;
use super::dot::{Dot, NodeId, Origin};
use super::entry::{BlobId, Entry, Record};
use super::key::{Key, NamespaceId};
use super::version::{Seen, VersionHash, VersionVector};

/// The storage failed. Nothing staged since the last commit may be relied upon; committed state stays readable as far
/// as the medium allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "storage failed: {}", self.0)
    }
}

impl std::error::Error for StoreError {}

/// Where the chunks of one blob lie: the key's hash and the blob's id, so that a record can only ever name chunks of
/// its own key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BlobAddress(pub [u8; 32]);

impl BlobAddress {
    /// The address of blob `id` of `key`.
    pub fn of(key: &Key, id: BlobId) -> Self {
        let mut address = [0; 32];
        address[..16].copy_from_slice(&blake3::hash(key.as_bytes()).as_bytes()[..16]);
        address[16..].copy_from_slice(&id.0);
        Self(address)
    }
}

/// What a replica needs to go on where its directory stopped.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// What was seen, without folded origins.
    pub versions: VersionVector,
    /// Sum over the folded origins, see [`VersionHash`].
    pub folded: VersionHash,
    /// The highest timestamp that this node had minted.
    pub clock_floor: Timestamp,
    /// Records that wait for their blobs.
    pub pending: Vec<Record>,
    /// Blobs begun and neither finished nor abandoned, those of pending records included.
    pub open_blobs: Vec<BlobAddress>,
}

/// The storage of one replica. Every method may fail; after a failure the replica stops writing.
pub trait Store {
    /// A frozen view of committed state.
    type Snapshot: Snapshot;

    /// Reads what a restart needs.
    fn recover(&self) -> Result<Recovered, StoreError>;
    /// Origins whose writes are held, ascending; others may be among them, of which none is held any more.
    fn origins(&self) -> Result<Vec<Origin>, StoreError>;
    /// Calls `visit` for every entry, in no particular order.
    fn for_each_hash(&self, visit: &mut dyn FnMut(&Key, RecordHash)) -> Result<(), StoreError>;

    /// The entry of a key, tombstones included.
    fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError>;
    /// Entries of a namespace after `after`, in byte order, at most `limit`.
    fn scan(&self, namespace: NamespaceId, after: Option<&Key>, limit: usize) -> Result<Vec<(Key, Entry)>, StoreError>;
    /// Entries of all namespaces after `after`, in byte order, at most `limit`.
    fn rows(&self, after: Option<&Key>, limit: usize) -> Result<Vec<(Key, Entry)>, StoreError>;
    /// Stages an entry; `replaces` is the dot it overwrites.
    fn put(&mut self, key: &Key, entry: &Entry, replaces: Option<Dot>);
    /// Stages the removal of an entry whose dot is `dot`.
    fn remove(&mut self, key: &Key, dot: Dot);

    /// Stages that a key's value expires at a millisecond.
    fn schedule(&mut self, key: &Key, at_ms: u64);
    /// Stages that it does not.
    fn unschedule(&mut self, key: &Key, at_ms: u64);
    /// Keys scheduled from `from_ms` on and before `before_ms`, in order of time, at most `limit`. What was staged
    /// since the last commit may be left out, or be there still.
    fn scheduled(&self, from_ms: u64, before_ms: u64, limit: usize) -> Result<Vec<(u64, Key)>, StoreError>;

    /// Stages what was seen of an origin.
    fn set_seen(&mut self, origin: Origin, seen: &Seen);
    /// The last write of a folded origin.
    fn folded(&self, origin: Origin) -> Result<Option<u64>, StoreError>;
    /// The folded lives of a node, each with its last write.
    fn folded_of(&self, node: NodeId) -> Result<Vec<(Origin, u64)>, StoreError>;
    /// Stages moving an origin from the version vector to the folded ones.
    fn fold(&mut self, origin: Origin, last: u64);
    /// Stages the way back.
    fn unfold(&mut self, origin: Origin);
    /// Stages the highest timestamp minted.
    fn set_clock(&mut self, minted: Timestamp);

    /// Stages that a blob's chunks will be written, so that a restart can tell what was left unfinished.
    fn open_blob(&mut self, blob: BlobAddress);
    /// Stages that a blob is finished: a committed entry refers to it.
    fn close_blob(&mut self, blob: BlobAddress);
    /// Stages one sealed chunk.
    fn put_chunk(&mut self, blob: BlobAddress, index: u32, chunk: Bytes);
    /// One sealed chunk.
    fn chunk(&self, blob: BlobAddress, index: u32) -> Result<Option<Bytes>, StoreError>;
    /// Which of the first `count` chunks are here.
    fn chunks_held(&self, blob: BlobAddress, count: u32) -> Result<Vec<bool>, StoreError>;
    /// Stages the removal of a blob's first `count` chunks, or of all there are, and closes it.
    fn remove_blob(&mut self, blob: BlobAddress) -> Result<(), StoreError>;

    /// Stages a record that waits for its blob.
    fn put_pending(&mut self, dot: Dot, record: &Record);
    /// Stages its end.
    fn remove_pending(&mut self, dot: Dot);

    /// Makes everything staged visible, atomically; durable too if `sync`. Returns the number of this commit; they
    /// rise. Commits are durable in order.
    fn commit(&mut self, sync: bool) -> Result<u64, StoreError>;
    /// A view of what is committed.
    fn snapshot(&self) -> Self::Snapshot;
    /// About how many bytes were committed since the store was opened. What is written while a view is open can stay in
    /// memory for as long as that is open.
    fn written(&self) -> u64;
}

/// What was found of an origin's writes.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Written {
    /// Live entries by their seqs, ascending.
    pub writes: Vec<(u64, Key, Entry)>,
    /// There are no others up to this seq.
    pub upto: u64,
    /// How many writes were looked at for it.
    pub examined: usize,
}

/// A frozen view, for sync sessions.
pub trait Snapshot {
    /// Live entries written by `origin` with seqs `first..=last`, as far as looking at `limit` writes leads; at least one.
    fn written_by(&self, origin: Origin, first: u64, last: u64, limit: usize) -> Result<Written, StoreError>;
    /// Folded origins with their last writes, ascending.
    fn folded_origins(&self) -> Result<Vec<(Origin, u64)>, StoreError>;
}
