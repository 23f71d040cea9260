//! The rows of a store in memory, and how they change.

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use crate::replica::clock::Timestamp;
use crate::replica::dot::{Dot, Origin};
use crate::replica::entry::{Entry, Record, Value};
use crate::replica::key::Key;
use crate::replica::store::{BlobAddress, Snapshot, StoreError, Written};
use crate::replica::version::{Seen, VersionVector};

/// Writes held no more that are told of. Over it, the index has been tidied.
const OUTLIVED_MAX: usize = 512;

/// All rows of a store at one moment. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Image {
    pub(super) data: OrdMap<Key, Entry>,
    pub(super) seq: OrdMap<Dot, Key>,
    /// Writes that the index tells of although they are held no more, as an index on a disk does for a while.
    pub(super) outlived: OrdSet<Dot>,
    pub(super) seen: OrdMap<Origin, Seen>,
    pub(super) folded: OrdMap<Origin, u64>,
    pub(super) scheduled: OrdSet<(u64, Key)>,
    pub(super) chunks: OrdMap<(BlobAddress, u32), Bytes>,
    pub(super) open_blobs: OrdSet<BlobAddress>,
    pub(super) pending: OrdMap<Dot, Record>,
    pub(super) clock: Timestamp,
}

impl Image {
    /// Every entry, tombstones included, in key order.
    pub fn entries(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.data.iter()
    }

    /// Finished blobs with chunks.
    pub fn blobs(&self) -> impl Iterator<Item = BlobAddress> {
        self.chunks.keys().map(|(blob, _)| *blob).filter(|blob| !self.open_blobs.contains(blob))
    }

    /// The entry of a key.
    pub fn entry(&self, key: &Key) -> Option<&Entry> {
        self.data.get(key)
    }

    /// Whether the version vector, as it would be recovered, has seen a write.
    pub fn has_seen(&self, dot: Dot) -> bool {
        self.seen.get(&dot.origin).is_some_and(|seen| seen.contains(dot.seq))
            || self.folded.get(&dot.origin).is_some_and(|last| dot.seq <= *last)
    }

    /// Every write that is held with its key, in order.
    pub fn index(&self) -> impl Iterator<Item = (Dot, &Key)> {
        self.seq.iter().map(|(dot, key)| (*dot, key))
    }

    /// Every chunk held, by blob and index.
    pub fn chunks(&self) -> impl Iterator<Item = (BlobAddress, u32)> {
        self.chunks.keys().copied()
    }

    /// Whether all of the first `count` chunks of a blob are here.
    pub fn holds_blob(&self, blob: BlobAddress, count: u32) -> bool {
        (0..count).all(|index| self.chunks.contains_key(&(blob, index)))
    }

    /// Whether a blob was begun and is neither finished nor abandoned.
    pub fn is_open(&self, blob: BlobAddress) -> bool {
        self.open_blobs.contains(&blob)
    }

    /// The version vector as it would be recovered, folded origins included.
    pub fn versions(&self) -> VersionVector {
        let mut versions = VersionVector::default();
        for (origin, seen) in &self.seen {
            versions.set(*origin, seen.clone());
        }
        for (origin, last) in &self.folded {
            versions.set(*origin, Seen::prefix_of(*last));
        }
        versions
    }

    fn outlive(&mut self, dot: Dot) {
        self.seq.remove(&dot);
        self.outlived.insert(dot);
        if self.outlived.len() > OUTLIVED_MAX {
            self.outlived.clear();
        }
    }

    /// Carries out a change.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Put { key, entry, replaces } => {
                if let Some(dot) = replaces {
                    self.outlive(dot);
                }
                self.outlived.remove(&entry.dot);
                self.seq.insert(entry.dot, key.clone());
                self.data.insert(key, entry);
            }
            Change::Remove { key, dot } => {
                self.outlive(dot);
                self.data.remove(&key);
            }
            Change::Schedule(at_ms, key) => _ = self.scheduled.insert((at_ms, key)),
            Change::Unschedule(at_ms, key) => _ = self.scheduled.remove(&(at_ms, key)),
            Change::Seen(origin, seen) => _ = self.seen.insert(origin, seen),
            Change::Fold(origin, last) => {
                self.seen.remove(&origin);
                self.folded.insert(origin, last);
            }
            Change::Unfold(origin) => {
                if let Some(last) = self.folded.remove(&origin) {
                    self.seen.insert(origin, Seen::prefix_of(last));
                }
            }
            Change::Clock(minted) => self.clock = minted,
            Change::OpenBlob(blob) => _ = self.open_blobs.insert(blob),
            Change::CloseBlob(blob) => _ = self.open_blobs.remove(&blob),
            Change::PutChunk(blob, index, chunk) => _ = self.chunks.insert((blob, index), chunk),
            Change::RemoveBlob(blob) => {
                let rows: Vec<_> = self.chunks.range((blob, 0)..=(blob, u32::MAX)).map(|(row, _)| *row).collect();
                for row in rows {
                    self.chunks.remove(&row);
                }
                self.open_blobs.remove(&blob);
            }
            Change::PutPending(dot, record) => _ = self.pending.insert(dot, record),
            Change::RemovePending(dot) => _ = self.pending.remove(&dot),
        }
    }
}

/// A change of a store's rows.
#[derive(Clone)]
pub(super) enum Change {
    Put { key: Key, entry: Entry, replaces: Option<Dot> },
    Remove { key: Key, dot: Dot },
    Schedule(u64, Key),
    Unschedule(u64, Key),
    Seen(Origin, Seen),
    Fold(Origin, u64),
    Unfold(Origin),
    Clock(Timestamp),
    OpenBlob(BlobAddress),
    CloseBlob(BlobAddress),
    PutChunk(BlobAddress, u32, Bytes),
    RemoveBlob(BlobAddress),
    PutPending(Dot, Record),
    RemovePending(Dot),
}

impl Change {
    /// About how many bytes a disk would write for it, without what every row costs.
    pub(super) fn len(&self) -> u64 {
        let len = match self {
            Self::Put { key, entry, .. } => {
                let content = entry.content();
                let value = match &content.value {
                    Value::Inline(bytes) => bytes.len(),
                    _ => 0,
                };
                key.as_bytes().len() + content.metadata.len() + value
            }
            Self::PutChunk(_, _, chunk) => chunk.len(),
            Self::PutPending(_, record) => record.key.as_bytes().len() + record.body.len(),
            _ => 0,
        };
        len as u64
    }
}

/// Rows that are about to rot.
pub struct Tampered<'a>(pub(super) &'a mut Image);

impl Tampered<'_> {
    /// Puts something else under a key, or nothing.
    pub fn set(&mut self, key: &Key, entry: Option<Entry>) {
        match entry {
            Some(entry) => self.0.data.insert(key.clone(), entry),
            None => self.0.data.remove(key),
        };
    }

    /// Puts something else in place of a chunk.
    pub fn set_chunk(&mut self, blob: BlobAddress, index: u32, chunk: Bytes) {
        self.0.chunks.insert((blob, index), chunk);
    }
}

impl Snapshot for Image {
    fn written_by(&self, origin: Origin, first: u64, last: u64, limit: usize) -> Result<Written, StoreError> {
        let mut found = Written { upto: last, ..Written::default() };
        let range = origin.dot(first)..=origin.dot(last);
        let mut held = self.seq.range(range.clone()).peekable();
        let mut outlived = self.outlived.range(range).copied().peekable();
        while let Some(dot) = held.peek().map(|(dot, _)| **dot).into_iter().chain(outlived.peek().copied()).min() {
            if found.examined == limit {
                found.upto = dot.seq - 1;
                break;
            }
            found.examined += 1;
            match held.next_if(|(held, _)| **held == dot) {
                Some((_, key)) => {
                    found.writes.extend(self.data.get(key).map(|entry| (dot.seq, key.clone(), entry.clone())));
                }
                None => _ = outlived.next(),
            }
        }
        Ok(found)
    }

    fn folded_origins(&self) -> Result<Vec<(Origin, u64)>, StoreError> {
        Ok(self.folded.iter().map(|(origin, last)| (*origin, *last)).collect())
    }
}
