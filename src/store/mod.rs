//! The storage of a node: the replica's [`Store`] over an LSM tree, four keyspaces in one directory, one atomic batch
//! per commit. How rows look is in `rows`.
//!
//! Knows nothing of what the rows mean to the protocol, nor when to commit.
mod dump;
mod index;
mod journal;
mod manifest;
mod open;
mod reader;
mod recent;
mod rows;
mod staged;
mod tables;
#[cfg(test)]
mod tests;
mod tidy;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fjall::PersistMode;
use serde::de::DeserializeOwned;

pub use dump::{Dump, Filling, Place, Rows};
pub use open::OpenError;
pub use reader::{Reader, View};
use rows::Tag;
use staged::Staged;
pub use tables::Held;
use tables::{Tables, failed, prefix_bounds, visit_entries};
use tidy::Tidying;

use crate::metrics::Stopwatch;
use crate::replica::{
    BlobAddress, Dot, Entry, Key, NamespaceId, NodeId, Origin, Record, RecordHash, Recovered, Seen, Store, StoreError,
    Timestamp, VersionHash,
};

/// The store. Owned by the driver; others read through [`FjallStore::reader`].
pub struct FjallStore {
    tables: Arc<Tables>,
    staged: Staged,
    tidying: Tidying,
    /// Number of the last commit of this process.
    commit: u64,
    written: u64,
    #[cfg(test)]
    fail_next_commit: bool,
}

/// Makes commits durable from another thread, so that the driver need not wait.
#[derive(Clone)]
pub struct Syncer {
    tables: Arc<Tables>,
}

impl Syncer {
    /// Returns when every commit that returned before this call is durable. A failure stops all later commits.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.tables.check()?;
        let stopwatch = Stopwatch::start();
        self.tables.db.persist(PersistMode::SyncData).map_err(|error| self.tables.fail(failed(error)))?;
        self.tables.fsyncs.observe(stopwatch.elapsed());
        Ok(())
    }
}

impl FjallStore {
    /// Opens a directory, or makes a new store in an empty or missing one.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let tables = Arc::new(open::open(path)?);
        let tidying = Tidying::start(tables.clone()).map_err(|error| OpenError::Io { path: path.into(), error })?;
        Ok(Self {
            tables,
            staged: Staged::default(),
            tidying,
            commit: 0,
            written: 0,
            #[cfg(test)]
            fail_next_commit: false,
        })
    }

    /// For reading from other threads.
    pub fn reader(&self) -> Reader {
        Reader { tables: self.tables.clone() }
    }

    /// For making commits durable from another thread.
    pub fn syncer(&self) -> Syncer {
        Syncer { tables: self.tables.clone() }
    }

    /// Makes the next commit fail as a full disk would.
    #[cfg(test)]
    pub(crate) fn fail_next_commit(&mut self) {
        self.fail_next_commit = true;
    }

    fn stage_meta(&mut self, tag: Tag, about: &[u8], row: Option<Bytes>) {
        self.staged.meta.insert(tag.key(about), row);
    }

    /// Committed rows of `meta` under `tag`. One that can't be read is left out: losing it forgets bookkeeping, which
    /// costs a repeated transfer, and never data.
    fn meta_rows<T: DeserializeOwned>(
        &self,
        tag: Tag,
        mut visit: impl FnMut(&[u8], T) -> Option<()>,
    ) -> Result<(), StoreError> {
        for row in self.tables.meta.prefix(tag.key(b"")) {
            let (key, row) = row.into_inner().map_err(failed)?;
            let read = rows::decode_meta(&row).and_then(|row| visit(&key[1..], row).ok_or("key of another shape"));
            if let Err(why) = read {
                self.tables.corrupt("meta", &key, why);
            }
        }
        Ok(())
    }

    /// Goes through what is staged over what is committed, in key order, until `visit` breaks.
    fn visit(
        &self,
        bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>),
        visit: &mut dyn FnMut(Key, Entry) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let range = (bounds.0.as_ref().map(Vec::as_slice), bounds.1.as_ref().map(Vec::as_slice));
        let mut staged = self.staged.data.range::<[u8], _>(range).peekable();
        let visit_staged = |key: &Bytes, entry: &Option<Entry>, visit: &mut dyn FnMut(Key, Entry) -> _| match (
            Key::from_bytes(key.clone()),
            entry,
        ) {
            (Some(key), Some(entry)) => visit(key, entry.clone()),
            _ => ControlFlow::Continue(()),
        };
        let mut merged = |key: Key, entry| {
            while let Some((earlier, entry)) = staged.next_if(|(staged, _)| *staged < key.as_bytes()) {
                visit_staged(earlier, entry, visit)?;
            }
            match staged.next_if(|(staged, _)| *staged == key.as_bytes()) {
                Some((key, entry)) => visit_staged(key, entry, visit),
                None => visit(key, entry),
            }
        };
        let flow = visit_entries(&self.tables, bounds.clone(), &mut merged, &mut |_| ControlFlow::Continue(()))?;
        if flow.is_continue() {
            for (key, entry) in staged {
                if visit_staged(key, entry, visit).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, mut staged: Staged, sync: bool) -> Result<(), StoreError> {
        #[cfg(test)]
        if std::mem::take(&mut self.fail_next_commit) {
            return Err(StoreError("no space left on device".into()));
        }
        if let Some(error) = staged.failure.take() {
            return Err(error);
        }
        // Buffer hands the batch to the kernel: the end of the process loses nothing, the end of power may.
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        if staged.is_empty() {
            return if sync { self.tables.db.persist(mode).map_err(failed) } else { Ok(()) };
        }
        self.tables.wait_for_flushes().map_err(failed)?;
        let outlived = std::mem::take(&mut staged.outlived);
        let disturbed = self.tables.recent.disturb(staged.data.keys());
        let (batch, bytes) = staged.into_batch(&self.tables);
        self.written += bytes;
        batch.durability(Some(mode)).commit().map_err(failed)?;
        self.tables.recent.settle(disturbed);
        self.tidying.outlived(outlived);
        Ok(())
    }
}

impl Store for FjallStore {
    type Snapshot = View;

    fn recover(&self) -> Result<Recovered, StoreError> {
        let mut recovered = Recovered::default();
        self.meta_rows(Tag::Seen, |origin, seen: Seen| {
            recovered.versions.set(Origin::from_bytes(origin)?, seen);
            Some(())
        })?;
        // The sum is not kept: this way it can't disagree with the rows.
        self.meta_rows(Tag::Folded, |origin, last: u64| {
            let folded = VersionHash::of(Origin::from_bytes(origin)?, &Seen::prefix_of(last));
            recovered.folded = recovered.folded.plus(folded);
            Some(())
        })?;
        self.meta_rows(Tag::Clock, |_, minted: Timestamp| {
            recovered.clock_floor = minted;
            Some(())
        })?;
        self.meta_rows(Tag::Pending, |_, record: Record| {
            recovered.pending.push(record);
            Some(())
        })?;
        self.meta_rows(Tag::OpenBlob, |blob, ()| {
            recovered.open_blobs.push(BlobAddress(blob.try_into().ok()?));
            Some(())
        })?;
        Ok(recovered)
    }

    fn origins(&self) -> Result<Vec<Origin>, StoreError> {
        let mut origins = Vec::new();
        let mut after = Bound::Unbounded;
        // From one origin's rows to the next one's, however many there are of each.
        while let Some(row) = self.tables.seq.range::<Vec<u8>, _>((after, Bound::Unbounded)).next() {
            let key = row.key().map_err(failed)?;
            let origin = key.split_at_checked(Origin::LEN).and_then(|(origin, _)| Origin::from_bytes(origin));
            after = Bound::Excluded(match origin {
                Some(origin) => index::last_of(origin.dot(u64::MAX)),
                None => {
                    self.tables.corrupt("seq", &key, "not a dot");
                    key.to_vec()
                }
            });
            origins.extend(origin);
        }
        Ok(origins)
    }

    fn for_each_hash(&self, visit: &mut dyn FnMut(&Key, RecordHash)) -> Result<(), StoreError> {
        // Whole rows are decoded: what `get` calls absent must not be in a digest.
        self.visit((Bound::Unbounded, Bound::Unbounded), &mut |key, entry| {
            visit(&key, entry.hash);
            ControlFlow::Continue(())
        })
    }

    fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        if let Some(staged) = self.staged.data.get(key.as_bytes()) {
            return Ok(staged.clone());
        }
        // What is about to be overwritten is not kept for readers.
        self.tables.held(key.as_bytes(), self.tables.data.get(key.as_bytes())).map(Held::entry)
    }

    fn scan(&self, namespace: NamespaceId, after: Option<&Key>, limit: usize) -> Result<Vec<(Key, Entry)>, StoreError> {
        let mut found = Vec::new();
        if limit > 0 {
            let bounds = prefix_bounds(&namespace.0, after.map(|after| &after.as_bytes()[..]));
            self.visit(bounds, &mut |key, entry| {
                found.push((key, entry));
                if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        Ok(found)
    }

    fn rows(&self, after: Option<&Key>, limit: usize) -> Result<Vec<(Key, Entry)>, StoreError> {
        let mut found = Vec::new();
        if limit > 0 {
            let first = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_bytes().to_vec()));
            self.visit((first, Bound::Unbounded), &mut |key, entry| {
                found.push((key, entry));
                if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        Ok(found)
    }

    fn put(&mut self, key: &Key, entry: &Entry, replaces: Option<Dot>) {
        self.staged.put(key, entry, replaces);
    }

    fn remove(&mut self, key: &Key, dot: Dot) {
        self.staged.remove(key, dot);
    }

    fn schedule(&mut self, key: &Key, at_ms: u64) {
        self.stage_meta(Tag::Scheduled, &rows::schedule_key(at_ms, key), Some(rows::encode_meta(&())));
    }

    fn unschedule(&mut self, key: &Key, at_ms: u64) {
        self.stage_meta(Tag::Scheduled, &rows::schedule_key(at_ms, key), None);
    }

    fn scheduled(&self, from_ms: u64, before_ms: u64, limit: usize) -> Result<Vec<(u64, Key)>, StoreError> {
        let mut found = Vec::new();
        if from_ms >= before_ms {
            return Ok(found);
        }
        let at = |ms: u64| Tag::Scheduled.key(&ms.to_be_bytes());
        for row in self.tables.meta.range(at(from_ms)..at(before_ms)) {
            if found.len() >= limit {
                break;
            }
            let row = row.key().map_err(failed)?;
            match rows::read_schedule_key(&row[1..]) {
                Ok(due) => found.push(due),
                Err(why) => self.tables.corrupt("meta", &row, why),
            }
        }
        Ok(found)
    }

    fn set_seen(&mut self, origin: Origin, seen: &Seen) {
        self.stage_meta(Tag::Seen, &origin.to_bytes(), Some(rows::encode_meta(seen)));
    }

    fn folded(&self, origin: Origin) -> Result<Option<u64>, StoreError> {
        let key = Tag::Folded.key(&origin.to_bytes());
        let row = match self.staged.meta.get(&key) {
            Some(staged) => staged.clone(),
            None => self.tables.meta.get(&key).map_err(failed)?.map(Bytes::from),
        };
        let last = row.map(|row| rows::decode_meta(&row).map_err(|why| self.tables.corrupt("meta", &key, why)));
        Ok(last.and_then(Result::ok))
    }

    fn folded_of(&self, node: NodeId) -> Result<Vec<(Origin, u64)>, StoreError> {
        let mut folded = BTreeMap::new();
        for row in self.tables.meta.prefix(Tag::Folded.key(&node.0.to_be_bytes())) {
            let (key, last) = row.into_inner().map_err(failed)?;
            match (Origin::from_bytes(&key[1..]), rows::decode_meta(&last)) {
                (Some(origin), Ok(last)) => _ = folded.insert(origin, last),
                _ => self.tables.corrupt("meta", &key, "not a folded origin"),
            }
        }
        // Folding and unfolding are rare: nearly always nothing of the kind is staged.
        let prefix = Tag::Folded.key(&node.0.to_be_bytes());
        for (key, row) in self.staged.meta.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix)) {
            let Some(origin) = Origin::from_bytes(&key[1..]) else { continue };
            match row.as_ref().and_then(|row| rows::decode_meta(row).ok()) {
                Some(last) => _ = folded.insert(origin, last),
                None => _ = folded.remove(&origin),
            }
        }
        Ok(folded.into_iter().collect())
    }

    fn fold(&mut self, origin: Origin, last: u64) {
        self.stage_meta(Tag::Seen, &origin.to_bytes(), None);
        self.stage_meta(Tag::Folded, &origin.to_bytes(), Some(rows::encode_meta(&last)));
    }

    fn unfold(&mut self, origin: Origin) {
        match self.folded(origin) {
            Ok(Some(last)) => {
                self.stage_meta(Tag::Folded, &origin.to_bytes(), None);
                self.set_seen(origin, &Seen::prefix_of(last));
            }
            Ok(None) => {}
            Err(error) => self.staged.failure = Some(error),
        }
    }

    fn set_clock(&mut self, minted: Timestamp) {
        self.stage_meta(Tag::Clock, b"", Some(rows::encode_meta(&minted)));
    }

    fn open_blob(&mut self, blob: BlobAddress) {
        self.stage_meta(Tag::OpenBlob, &blob.0, Some(rows::encode_meta(&())));
    }

    fn close_blob(&mut self, blob: BlobAddress) {
        self.stage_meta(Tag::OpenBlob, &blob.0, None);
    }

    fn put_chunk(&mut self, blob: BlobAddress, index: u32, chunk: Bytes) {
        self.staged.chunks.insert(rows::chunk_key(blob, index), Some(chunk));
    }

    fn chunk(&self, blob: BlobAddress, index: u32) -> Result<Option<Bytes>, StoreError> {
        match self.staged.chunks.get(&rows::chunk_key(blob, index)) {
            Some(staged) => Ok(staged.clone()),
            None => self.reader().chunk(blob, index),
        }
    }

    fn chunks_held(&self, blob: BlobAddress, count: u32) -> Result<Vec<bool>, StoreError> {
        let held = |index| match self.staged.chunks.get(&rows::chunk_key(blob, index)) {
            Some(staged) => Ok(staged.is_some()),
            None => self.tables.blob.contains_key(rows::chunk_key(blob, index)).map_err(failed),
        };
        (0..count).map(held).collect()
    }

    fn remove_blob(&mut self, blob: BlobAddress) -> Result<(), StoreError> {
        let range = rows::chunk_key(blob, 0)..=rows::chunk_key(blob, u32::MAX);
        let staged: Vec<_> = self.staged.chunks.range(range.clone()).map(|(key, _)| *key).collect();
        for key in staged {
            self.staged.chunks.remove(&key);
        }
        for row in self.tables.blob.range(range) {
            let key = row.key().map_err(failed)?;
            // Whatever else has such a key is no chunk that this store wrote.
            if let Ok(key) = key[..].try_into() {
                self.staged.chunks.insert(key, None);
            }
        }
        self.close_blob(blob);
        Ok(())
    }

    fn put_pending(&mut self, dot: Dot, record: &Record) {
        self.stage_meta(Tag::Pending, &rows::dot_key(dot), Some(rows::encode_meta(record)));
    }

    fn remove_pending(&mut self, dot: Dot) {
        self.stage_meta(Tag::Pending, &rows::dot_key(dot), None);
    }

    fn commit(&mut self, sync: bool) -> Result<u64, StoreError> {
        let staged = std::mem::take(&mut self.staged);
        let is_system = staged.touches_system();
        let is_worker = is_system && staged.touches_workers();
        self.tables.check()?;
        let stopwatch = Stopwatch::start();
        self.write(staged, sync).map_err(|error| self.tables.fail(error))?;
        if sync {
            self.tables.fsyncs.observe(stopwatch.elapsed());
        }
        if is_system {
            self.tables.system_generation.fetch_add(1, Ordering::Release);
        }
        if is_worker {
            self.tables.worker_generation.fetch_add(1, Ordering::Release);
        }
        self.commit += 1;
        Ok(self.commit)
    }

    fn snapshot(&self) -> View {
        self.reader().view()
    }

    fn written(&self) -> u64 {
        self.written
    }
}
