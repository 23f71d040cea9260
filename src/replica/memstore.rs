//! A store in memory, with the failures of a disk: a crash forgets what was not synced, a copy can be put back.
//!
//! For the simulator and for tests. It keeps the rows twice, as they are and as they are on disk, and between the two a
//! journal of what was committed since: nothing is copied for a commit. Persistent maps make snapshots cheap.

mod image;

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;

use super::clock::Timestamp;
use super::digest::RecordHash;
use super::dot::{Dot, Incarnation, NodeId, Origin};
use super::entry::{Entry, Record};
use super::key::{Key, NamespaceId};
use super::store::{BlobAddress, Recovered, Store, StoreError};
use super::version::{Seen, VersionHash};
use image::Change;

pub use image::{Image, Tampered};

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
    /// With what is staged.
    rows: Image,
    durable: Image,
    staged: Vec<Change>,
    /// Committed but not yet durable, oldest first, by number of the commit.
    journal: VecDeque<(u64, Vec<Change>)>,
    /// Number of the last commit.
    commit: u64,
    /// Bytes committed.
    written: u64,
    failing: bool,
    /// An fsync takes time: whoever owns the disk does it.
    slow: bool,
    sync_wanted: bool,
    edits: Option<Edits>,
}

impl MemStore {
    /// A store that holds `image`, durably.
    pub fn restored(image: Image) -> Self {
        Self { rows: image.clone(), durable: image, ..Self::default() }
    }

    /// Puts an entry and a chunk in place behind the replica's back, as a rotting disk would.
    pub fn tamper(&mut self, change: impl Fn(&mut Tampered<'_>)) {
        for image in [&mut self.rows, &mut self.durable] {
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

    /// What it holds. Between turns of its replica that is what is committed.
    pub fn image(&self) -> &Image {
        &self.rows
    }

    /// What would survive a loss of power.
    pub fn durable_image(&self) -> &Image {
        &self.durable
    }

    /// Makes everything up to a commit durable, as a disk does in its own time.
    pub fn sync_up_to(&mut self, commit: u64) {
        let count = self.journal.partition_point(|(number, _)| *number <= commit);
        for (_, changes) in self.journal.drain(..count) {
            changes.into_iter().for_each(|change| self.durable.apply(change));
        }
    }

    /// Number of the last commit.
    pub fn last_commit(&self) -> u64 {
        self.commit
    }

    /// What a start after a loss of power finds, if the disk had kept `extra` of the unsynced commits.
    pub fn crashed(&self, extra: usize) -> Self {
        Self::restored(self.durable_and(extra))
    }

    /// From now on every commit fails, as on a full disk.
    pub fn fail(&mut self) {
        self.failing = true;
    }

    /// What is durable, and so many commits more.
    fn durable_and(&self, commits: usize) -> Image {
        let mut image = self.durable.clone();
        let kept = self.journal.iter().take(commits).flat_map(|(_, changes)| changes);
        kept.for_each(|change| image.apply(change.clone()));
        image
    }

    fn stage(&mut self, change: Change) {
        if let Some(edits) = &mut self.edits {
            match &change {
                Change::Put { key, entry, .. } => edits.puts.push((key.clone(), entry.clone())),
                Change::Remove { key, .. } => edits.removed.push(key.clone()),
                Change::Seen(origin, _) | Change::Fold(origin, _) | Change::Unfold(origin) => edits.seen.push(*origin),
                _ => {}
            }
        }
        self.rows.apply(change.clone());
        self.staged.push(change);
    }
}

impl Store for MemStore {
    type Snapshot = Image;

    fn recover(&self) -> Result<Recovered, StoreError> {
        let image = &self.rows;
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

    fn origins(&self) -> Result<Vec<Origin>, StoreError> {
        let mut origins = Vec::new();
        let mut after = Bound::Unbounded;
        loop {
            let held = self.rows.seq.range((after, Bound::Unbounded)).next().map(|(dot, _)| dot.origin);
            let outlived = self.rows.outlived.range((after, Bound::Unbounded)).next().map(|dot| dot.origin);
            let Some(origin) = held.into_iter().chain(outlived).min() else { return Ok(origins) };
            origins.push(origin);
            after = Bound::Excluded(origin.dot(u64::MAX));
        }
    }

    fn for_each_hash(&self, visit: &mut dyn FnMut(&Key, RecordHash)) -> Result<(), StoreError> {
        self.rows.data.iter().for_each(|(key, entry)| visit(key, entry.hash));
        Ok(())
    }

    fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.rows.data.get(key).cloned())
    }

    fn scan(&self, namespace: NamespaceId, after: Option<&Key>, limit: usize) -> Result<Vec<(Key, Entry)>, StoreError> {
        let Some(first) = after.cloned().or_else(|| Key::new(namespace, &[0])) else { return Ok(Vec::new()) };
        Ok(self
            .rows
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
            Some(after) => self.rows.data.range::<_, Key>(after..),
            None => self.rows.data.range::<_, Key>(..),
        };
        let rows = rows.filter(|(key, _)| after != Some(*key)).take(limit);
        Ok(rows.map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    fn put(&mut self, key: &Key, entry: &Entry, replaces: Option<Dot>) {
        self.stage(Change::Put { key: key.clone(), entry: entry.clone(), replaces });
    }

    fn remove(&mut self, key: &Key, dot: Dot) {
        self.stage(Change::Remove { key: key.clone(), dot });
    }

    fn schedule(&mut self, key: &Key, at_ms: u64) {
        self.stage(Change::Schedule(at_ms, key.clone()));
    }

    fn unschedule(&mut self, key: &Key, at_ms: u64) {
        self.stage(Change::Unschedule(at_ms, key.clone()));
    }

    fn scheduled(&self, from_ms: u64, before_ms: u64, limit: usize) -> Result<Vec<(u64, Key)>, StoreError> {
        let due = self.rows.scheduled.iter().skip_while(|(at_ms, _)| *at_ms < from_ms);
        Ok(due.take_while(|(at_ms, _)| *at_ms < before_ms).take(limit).cloned().collect())
    }

    fn set_seen(&mut self, origin: Origin, seen: &Seen) {
        self.stage(Change::Seen(origin, seen.clone()));
    }

    fn folded(&self, origin: Origin) -> Result<Option<u64>, StoreError> {
        Ok(self.rows.folded.get(&origin).copied())
    }

    fn folded_of(&self, node: NodeId) -> Result<Vec<(Origin, u64)>, StoreError> {
        let (first, last) = (Incarnation(0), Incarnation(u64::MAX));
        let lives = Origin { node, incarnation: first }..=Origin { node, incarnation: last };
        Ok(self.rows.folded.range(lives).map(|(origin, last)| (*origin, *last)).collect())
    }

    fn fold(&mut self, origin: Origin, last: u64) {
        self.stage(Change::Fold(origin, last));
    }

    fn unfold(&mut self, origin: Origin) {
        self.stage(Change::Unfold(origin));
    }

    fn set_clock(&mut self, minted: Timestamp) {
        self.stage(Change::Clock(minted));
    }

    fn open_blob(&mut self, blob: BlobAddress) {
        self.stage(Change::OpenBlob(blob));
    }

    fn close_blob(&mut self, blob: BlobAddress) {
        self.stage(Change::CloseBlob(blob));
    }

    fn put_chunk(&mut self, blob: BlobAddress, index: u32, chunk: Bytes) {
        self.stage(Change::PutChunk(blob, index, chunk));
    }

    fn chunk(&self, blob: BlobAddress, index: u32) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows.chunks.get(&(blob, index)).cloned())
    }

    fn chunks_held(&self, blob: BlobAddress, count: u32) -> Result<Vec<bool>, StoreError> {
        Ok((0..count).map(|index| self.rows.chunks.contains_key(&(blob, index))).collect())
    }

    fn remove_blob(&mut self, blob: BlobAddress) -> Result<(), StoreError> {
        self.stage(Change::RemoveBlob(blob));
        Ok(())
    }

    fn put_pending(&mut self, dot: Dot, record: &Record) {
        self.stage(Change::PutPending(dot, record.clone()));
    }

    fn remove_pending(&mut self, dot: Dot) {
        self.stage(Change::RemovePending(dot));
    }

    fn commit(&mut self, sync: bool) -> Result<u64, StoreError> {
        if self.failing {
            self.staged.clear();
            self.rows = self.durable_and(usize::MAX);
            self.take_edits();
            return Err(StoreError("no space left on device".into()));
        }
        self.commit += 1;
        self.written += self.staged.iter().map(Change::len).sum::<u64>();
        self.journal.push_back((self.commit, std::mem::take(&mut self.staged)));
        match sync && self.slow {
            true => self.sync_wanted = true,
            false if sync => self.sync_up_to(self.commit),
            false => {}
        }
        Ok(self.commit)
    }

    /// Taken after a commit, before anything is staged again.
    fn snapshot(&self) -> Image {
        self.rows.clone()
    }

    fn written(&self) -> u64 {
        self.written
    }
}
