//! A store in memory, with the failures of a disk: a crash forgets what was not synced, a copy can be put back.
//!
//! For the simulator and for tests. Persistent maps make snapshots and copies cheap.

use std::collections::VecDeque;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use super::clock::Timestamp;
use super::digest::RecordHash;
use super::dot::{Dot, Incarnation, NodeId, Origin};
use super::entry::{Entry, Record};
use super::key::{Key, NamespaceId};
use super::store::{BlobAddress, Recovered, Snapshot, Store, StoreError};
use super::version::{Seen, VersionHash, VersionVector};

/// All rows of a store at one moment. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Image {
    data: OrdMap<Key, Entry>,
    seq: OrdMap<Dot, Key>,
    seen: OrdMap<Origin, Seen>,
    folded: OrdMap<Origin, u64>,
    scheduled: OrdSet<(u64, Key)>,
    chunks: OrdMap<(BlobAddress, u32), Bytes>,
    open_blobs: OrdSet<BlobAddress>,
    pending: OrdMap<Dot, Record>,
    clock: Timestamp,
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

    /// Every write of the `seq` index with its key, in order.
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
}

/// Rows that are about to rot.
pub struct Tampered<'a>(&'a mut Image);

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

/// What commits have changed, in order, for whoever watches.
#[derive(Clone, Default, Debug)]
pub struct Edits {
    /// Entries that were put.
    pub puts: Vec<(Key, Entry)>,
    /// Keys whose entry was removed.
    pub removed: Vec<Key>,
    /// Origins of which something more was seen, or which were folded or unfolded.
    pub seen: Vec<Origin>,
}

/// A store in memory.
#[derive(Clone, Default)]
pub struct MemStore {
    staged: Image,
    committed: Image,
    /// Number of the last commit.
    commit: u64,
    /// Committed but not yet durable, oldest first.
    unsynced: VecDeque<(u64, Image)>,
    durable: Image,
    failing: bool,
    /// An fsync takes time: whoever owns the disk does it.
    slow: bool,
    sync_wanted: bool,
    edits: Option<Edits>,
}

impl MemStore {
    /// A store that holds `image`, durably.
    pub fn restored(image: Image) -> Self {
        Self { staged: image.clone(), committed: image.clone(), durable: image, ..Self::default() }
    }

    /// Puts an entry and a chunk in place behind the replica's back, as a rotting disk would.
    pub fn tamper(&mut self, change: impl Fn(&mut Tampered<'_>)) {
        for image in [&mut self.staged, &mut self.committed, &mut self.durable] {
            change(&mut Tampered(image));
        }
    }

    /// The same store on a disk that takes its time: a commit that asks for an fsync is not durable before
    /// [`MemStore::sync_up_to`]. Its owner must carry out nothing until then.
    pub fn on_slow_disk(mut self) -> Self {
        self.slow = true;
        self
    }

    /// The same store, noting what changes.
    pub fn watched(mut self) -> Self {
        self.edits = Some(Edits::default());
        self
    }

    /// Whether a commit has asked for an fsync since this was last asked.
    pub fn take_sync_wanted(&mut self) -> bool {
        std::mem::take(&mut self.sync_wanted)
    }

    /// What has changed since this was last asked, if the store is watched.
    pub fn take_edits(&mut self) -> Edits {
        self.edits.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What is committed.
    pub fn image(&self) -> &Image {
        &self.committed
    }

    /// What would survive a loss of power.
    pub fn durable_image(&self) -> &Image {
        &self.durable
    }

    /// Makes everything up to a commit durable, as a disk does in its own time.
    pub fn sync_up_to(&mut self, commit: u64) {
        while self.unsynced.front().is_some_and(|(number, _)| *number <= commit) {
            if let Some((_, image)) = self.unsynced.pop_front() {
                self.durable = image;
            }
        }
    }

    /// Number of the last commit.
    pub fn last_commit(&self) -> u64 {
        self.commit
    }

    /// What a start after a loss of power finds, if the disk had kept `extra` of the unsynced commits.
    pub fn crashed(&self, extra: usize) -> Self {
        let image = match extra.min(self.unsynced.len()) {
            0 => self.durable.clone(),
            kept => self.unsynced[kept - 1].1.clone(),
        };
        Self::restored(image)
    }

    /// From now on every commit fails, as on a full disk.
    pub fn fail(&mut self) {
        self.failing = true;
    }

    fn note_seen(&mut self, origin: Origin) {
        if let Some(edits) = &mut self.edits {
            edits.seen.push(origin);
        }
    }
}

impl Store for MemStore {
    type Snapshot = Image;

    fn recover(&self) -> Result<Recovered, StoreError> {
        let image = &self.committed;
        let mut recovered = Recovered {
            clock_floor: image.clock,
            pending: image.pending.values().cloned().collect(),
            open_blobs: image.open_blobs.iter().copied().collect(),
            ..Recovered::default()
        };
        for (origin, seen) in &image.seen {
            recovered.versions.set(*origin, seen.clone());
        }
        for (origin, last) in &image.folded {
            recovered.folded = recovered.folded.plus(VersionHash::of(*origin, &Seen::prefix_of(*last)));
        }
        Ok(recovered)
    }

    fn for_each_hash(&self, visit: &mut dyn FnMut(&Key, RecordHash)) -> Result<(), StoreError> {
        self.committed.data.iter().for_each(|(key, entry)| visit(key, entry.hash));
        Ok(())
    }

    fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.staged.data.get(key).cloned())
    }

    fn scan(&self, namespace: NamespaceId, after: Option<&Key>, limit: usize) -> Result<Vec<(Key, Entry)>, StoreError> {
        let Some(first) = after.cloned().or_else(|| Key::new(namespace, &[0])) else { return Ok(Vec::new()) };
        Ok(self
            .staged
            .data
            .range(first..)
            .filter(|(key, _)| after != Some(*key))
            .take_while(|(key, _)| key.namespace() == namespace)
            .take(limit)
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect())
    }

    fn rows(&self, after: Option<&Key>, limit: usize) -> Result<Vec<(Key, Entry)>, StoreError> {
        let rows = match after {
            Some(after) => self.staged.data.range::<_, Key>(after..),
            None => self.staged.data.range::<_, Key>(..),
        };
        let rows = rows.filter(|(key, _)| after != Some(*key)).take(limit);
        Ok(rows.map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    fn put(&mut self, key: &Key, entry: &Entry, replaces: Option<Dot>) {
        if let Some(dot) = replaces {
            self.staged.seq.remove(&dot);
        }
        self.staged.seq.insert(entry.dot, key.clone());
        self.staged.data.insert(key.clone(), entry.clone());
        if let Some(edits) = &mut self.edits {
            edits.puts.push((key.clone(), entry.clone()));
        }
    }

    fn remove(&mut self, key: &Key, dot: Dot) {
        self.staged.seq.remove(&dot);
        self.staged.data.remove(key);
        if let Some(edits) = &mut self.edits {
            edits.removed.push(key.clone());
        }
    }

    fn schedule(&mut self, key: &Key, at_ms: u64) {
        self.staged.scheduled.insert((at_ms, key.clone()));
    }

    fn unschedule(&mut self, key: &Key, at_ms: u64) {
        self.staged.scheduled.remove(&(at_ms, key.clone()));
    }

    fn scheduled(&self, from_ms: u64, before_ms: u64, limit: usize) -> Result<Vec<(u64, Key)>, StoreError> {
        let due = self.staged.scheduled.iter().skip_while(|(at_ms, _)| *at_ms < from_ms);
        Ok(due.take_while(|(at_ms, _)| *at_ms < before_ms).take(limit).cloned().collect())
    }

    fn set_seen(&mut self, origin: Origin, seen: &Seen) {
        self.staged.seen.insert(origin, seen.clone());
        self.note_seen(origin);
    }

    fn folded(&self, origin: Origin) -> Result<Option<u64>, StoreError> {
        Ok(self.staged.folded.get(&origin).copied())
    }

    fn folded_of(&self, node: NodeId) -> Result<Vec<(Origin, u64)>, StoreError> {
        let (first, last) = (Incarnation(0), Incarnation(u64::MAX));
        let lives = Origin { node, incarnation: first }..=Origin { node, incarnation: last };
        Ok(self.staged.folded.range(lives).map(|(origin, last)| (*origin, *last)).collect())
    }

    fn fold(&mut self, origin: Origin, last: u64) {
        self.staged.seen.remove(&origin);
        self.staged.folded.insert(origin, last);
        self.note_seen(origin);
    }

    fn unfold(&mut self, origin: Origin) {
        if let Some(last) = self.staged.folded.remove(&origin) {
            self.staged.seen.insert(origin, Seen::prefix_of(last));
            self.note_seen(origin);
        }
    }

    fn set_clock(&mut self, minted: Timestamp) {
        self.staged.clock = minted;
    }

    fn open_blob(&mut self, blob: BlobAddress) {
        self.staged.open_blobs.insert(blob);
    }

    fn close_blob(&mut self, blob: BlobAddress) {
        self.staged.open_blobs.remove(&blob);
    }

    fn put_chunk(&mut self, blob: BlobAddress, index: u32, chunk: Bytes) {
        self.staged.chunks.insert((blob, index), chunk);
    }

    fn chunk(&self, blob: BlobAddress, index: u32) -> Result<Option<Bytes>, StoreError> {
        Ok(self.staged.chunks.get(&(blob, index)).cloned())
    }

    fn chunks_held(&self, blob: BlobAddress, count: u32) -> Result<Vec<bool>, StoreError> {
        Ok((0..count).map(|index| self.staged.chunks.contains_key(&(blob, index))).collect())
    }

    fn remove_blob(&mut self, blob: BlobAddress) -> Result<(), StoreError> {
        let rows: Vec<_> = self.staged.chunks.range((blob, 0)..=(blob, u32::MAX)).map(|(row, _)| *row).collect();
        for row in rows {
            self.staged.chunks.remove(&row);
        }
        self.staged.open_blobs.remove(&blob);
        Ok(())
    }

    fn put_pending(&mut self, dot: Dot, record: &Record) {
        self.staged.pending.insert(dot, record.clone());
    }

    fn remove_pending(&mut self, dot: Dot) {
        self.staged.pending.remove(&dot);
    }

    fn commit(&mut self, sync: bool) -> Result<u64, StoreError> {
        if self.failing {
            self.staged = self.committed.clone();
            self.take_edits();
            return Err(StoreError("no space left on device".into()));
        }
        self.commit += 1;
        self.committed = self.staged.clone();
        self.unsynced.push_back((self.commit, self.committed.clone()));
        match sync && self.slow {
            true => self.sync_wanted = true,
            false if sync => self.sync_up_to(self.commit),
            false => {}
        }
        Ok(self.commit)
    }

    fn snapshot(&self) -> Image {
        self.committed.clone()
    }
}

impl Snapshot for Image {
    fn written_by(
        &self,
        origin: Origin,
        first: u64,
        last: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Key, Entry)>, StoreError> {
        Ok(self
            .seq
            .range(origin.dot(first)..=origin.dot(last))
            .filter_map(|(dot, key)| self.data.get(key).map(|entry| (dot.seq, key.clone(), entry.clone())))
            .take(limit)
            .collect())
    }

    fn folded_origins(&self) -> Result<Vec<(Origin, u64)>, StoreError> {
        Ok(self.folded.iter().map(|(origin, last)| (*origin, *last)).collect())
    }
}
