//! Reading committed state from any thread, without the driver: point reads, ranges, and views that stand still.

use std::collections::BTreeMap;
use std::mem;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fjall::Readable;

use super::index::{self, Block};
use super::rows;
use super::tables::{Held, Tables, failed, prefix_bounds, visit_entries};
use crate::metrics::Histogram;
use crate::replica::{BlobAddress, Dot, Entry, Key, NamespaceId, Origin, Snapshot, StoreError, Written};

/// Reads the latest committed state. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(super) tables: Arc<Tables>,
}

impl Reader {
    /// Rises with every commit that touches an entry of a system namespace, after it is visible: what was read of
    /// those under an older number may have changed.
    pub fn system_generation(&self) -> u64 {
        self.tables.system_generation.load(Ordering::Acquire)
    }

    /// Rises with every commit that touches what Workers are made of, after it is visible.
    pub fn worker_generation(&self) -> u64 {
        self.tables.worker_generation.load(Ordering::Acquire)
    }

    /// The entry of a key, tombstones included. One that can't be read counts as absent.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.held(key).map(Held::entry)
    }

    /// What lies under a key.
    pub fn held(&self, key: &Key) -> Result<Held, StoreError> {
        let read = || Ok(self.tables.data.get(key.as_bytes())?.map(Bytes::from));
        self.tables.held(key.as_bytes(), self.tables.recent.row(key.as_bytes(), read))
    }

    /// Entries whose names start with `prefix` and lie after `after`, in byte order, at most `limit`.
    pub fn scan(
        &self,
        namespace: NamespaceId,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Key, Entry)>, StoreError> {
        let mut found = Vec::new();
        if limit > 0 {
            self.visit(namespace, prefix, after, &mut |key, entry| {
                found.push((key, entry));
                if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        Ok(found)
    }

    /// Like [`Reader::scan`], one by one until `visit` breaks, all as of one moment. Nothing is kept in memory that
    /// `visit` doesn't keep; slices of an entry keep its whole row.
    pub fn visit(
        &self,
        namespace: NamespaceId,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(Key, Entry) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let prefix = [&namespace.0, prefix].concat();
        let after = after.map(|after| [&namespace.0, after].concat());
        let bounds = prefix_bounds(&prefix, after.as_deref());
        visit_entries(&self.tables, bounds, visit, &mut |_| ControlFlow::Continue(())).map(|_| ())
    }

    /// [`Reader::visit`], with `damaged` told of each key whose entry can't be read.
    pub fn visit_all(
        &self,
        namespace: NamespaceId,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(Key, Entry) -> ControlFlow<()>,
        damaged: &mut dyn FnMut(Key) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let prefix = [&namespace.0, prefix].concat();
        let after = after.map(|after| [&namespace.0, after].concat());
        let bounds = prefix_bounds(&prefix, after.as_deref());
        visit_entries(&self.tables, bounds, visit, damaged).map(|_| ())
    }

    /// Every entry there is, one by one until `visit` breaks, with `damaged` told of each key whose entry can't be read.
    pub fn visit_everything(
        &self,
        visit: &mut dyn FnMut(Key, Entry) -> ControlFlow<()>,
        damaged: &mut dyn FnMut(Key) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        visit_entries(&self.tables, (Bound::Unbounded, Bound::Unbounded), visit, damaged).map(|_| ())
    }

    /// One sealed chunk.
    pub fn chunk(&self, blob: BlobAddress, index: u32) -> Result<Option<Bytes>, StoreError> {
        let chunk = self.tables.blob.get(rows::chunk_key(blob, index)).map_err(failed)?;
        Ok(chunk.map(Bytes::from))
    }

    /// Committed state as it is now, whatever is written later. Hold it only as long as needed: what it sees can't be
    /// reclaimed.
    pub fn view(&self) -> View {
        View { tables: self.tables.clone(), snapshot: self.tables.db.snapshot() }
    }

    /// Bytes that the store takes on its disk. Walks the directory.
    pub fn disk_bytes(&self) -> u64 {
        self.tables.disk_bytes()
    }

    /// How long commits took that waited for the disk.
    pub fn fsyncs(&self) -> &Histogram {
        &self.tables.fsyncs
    }

    /// Keys whose entries were met so far and couldn't be read, as far as they are told apart. They may have been put
    /// anew since.
    pub fn damaged_keys(&self) -> Vec<Key> {
        self.tables.damaged_keys()
    }

    /// Rows met so far that couldn't be read.
    pub fn corrupt_rows(&self) -> u64 {
        self.tables.corrupt_rows()
    }
}

/// Committed state of one moment: what a large value is streamed from while it may be overwritten, and what a sync
/// session sends from.
pub struct View {
    tables: Arc<Tables>,
    snapshot: fjall::Snapshot,
}

impl View {
    /// The entry of a key, tombstones included.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let row = self.snapshot.get(&self.tables.data, key.as_bytes());
        self.tables.held(key.as_bytes(), row).map(Held::entry)
    }

    /// Adds those of `writes` that are held. Says before which write it has stopped, if it has: there were too many.
    fn add_held(
        &self,
        writes: BTreeMap<Dot, Key>,
        limit: usize,
        found: &mut Written,
    ) -> Result<ControlFlow<Dot>, StoreError> {
        for (dot, key) in writes {
            if found.examined >= limit {
                return Ok(ControlFlow::Break(dot));
            }
            found.examined += 1;
            // The index goes on telling of what has been overwritten.
            if let Some(entry) = self.get(&key)?.filter(|entry| entry.dot == dot) {
                found.writes.push((dot.seq, key, entry));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// One sealed chunk.
    pub fn chunk(&self, blob: BlobAddress, index: u32) -> Result<Option<Bytes>, StoreError> {
        let chunk = self.snapshot.get(&self.tables.blob, rows::chunk_key(blob, index)).map_err(failed)?;
        Ok(chunk.map(Bytes::from))
    }
}

impl Snapshot for View {
    fn written_by(&self, origin: Origin, first: u64, last: u64, limit: usize) -> Result<Written, StoreError> {
        let mut found = Written { upto: last, ..Written::default() };
        if first > last {
            return Ok(found);
        }
        let range = Block::of(origin.dot(first)).first()..=index::last_of(origin.dot(last));
        // Rows may overlap: of those that were read, the writes after the beginning of the next one.
        let mut ahead = BTreeMap::new();
        for row in self.snapshot.range(&self.tables.seq, range) {
            let (row, value) = row.into_inner().map_err(failed)?;
            let writes = match index::decode(&row, &value.into()) {
                Ok(writes) => writes,
                Err(why) => {
                    self.tables.corrupt("seq", &row, why);
                    continue;
                }
            };
            let Some((begins, _)) = writes.first() else { continue };
            let later = ahead.split_off(begins);
            let earlier = mem::replace(&mut ahead, later);
            if let ControlFlow::Break(dot) = self.add_held(earlier, limit, &mut found)? {
                found.upto = dot.seq - 1;
                return Ok(found);
            }
            ahead.extend(writes.into_iter().filter(|(dot, _)| (first..=last).contains(&dot.seq)));
        }
        if let ControlFlow::Break(dot) = self.add_held(ahead, limit, &mut found)? {
            found.upto = dot.seq - 1;
        }
        Ok(found)
    }

    fn folded_origins(&self) -> Result<Vec<(Origin, u64)>, StoreError> {
        let mut folded = Vec::new();
        for row in self.snapshot.prefix(&self.tables.meta, rows::Tag::Folded.key(b"")) {
            let (key, last) = row.into_inner().map_err(failed)?;
            match (Origin::from_bytes(&key[1..]), rows::decode_meta(&last)) {
                (Some(origin), Ok(last)) => folded.push((origin, last)),
                _ => self.tables.corrupt("meta", &key, "not a folded origin"),
            }
        }
        Ok(folded)
    }
}
