//! The open database: its four keyspaces, and what the store, its readers and its syncer share.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fjall::{Database, Keyspace, LsmError, PersistMode};

use super::index::{self, RowNumbers};
use super::recent::Recent;
use super::rows;
use crate::metrics::Histogram;
use crate::replica::{Entry, Key, StoreError};

/// Memtables of one keyspace that may wait to be flushed before a commit waits too. The database itself waits at
/// four, and for ever if its workers have died of a full disk.
const SEALED_MEMTABLES_MAX: usize = 2;
/// Tables that may wait for compaction before a commit waits too; the database itself waits at thirty.
const UNCOMPACTED_TABLES_MAX: usize = 24;
/// How long a commit that waits sleeps before it looks again.
const FLUSH_PAUSE: Duration = Duration::from_millis(2);
/// Unreadable rows that are told apart, for logging each once. Beyond it they are only counted.
const CORRUPT_ROWS_LOGGED_MAX: usize = 1024;

/// What lies under a key.
#[derive(Debug)]
pub enum Held {
    /// An entry, tombstones included.
    Entry(Entry),
    /// Nothing, as far as it can be told.
    Nothing,
    /// Something that can't be read.
    Damaged,
}

impl Held {
    /// The entry, if there is one that can be read.
    pub fn entry(self) -> Option<Entry> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::Nothing | Self::Damaged => None,
        }
    }
}

pub(super) struct Tables {
    pub(super) db: Database,
    pub(super) data: Keyspace,
    pub(super) seq: Keyspace,
    pub(super) blob: Keyspace,
    pub(super) meta: Keyspace,
    pub(super) path: PathBuf,
    /// In front of `data`.
    pub(super) recent: Recent,
    /// Of `seq`.
    pub(super) row_numbers: RowNumbers,
    /// Commits that touched system entries.
    pub(super) system_generation: AtomicU64,
    /// Commits that touched entries of Workers.
    pub(super) worker_generation: AtomicU64,
    /// How long the disk took.
    pub(super) fsyncs: Histogram,
    /// Why writes have stopped.
    failure: OnceLock<String>,
    /// Whether it was said that reads go around damaged blocks.
    has_detours: AtomicBool,
    corrupt: AtomicU64,
    corrupt_logged: Mutex<BTreeSet<Bytes>>,
}

impl Tables {
    pub(super) fn new(path: PathBuf, db: Database, [data, seq, blob, meta]: [Keyspace; 4]) -> Self {
        let (system_generation, worker_generation) = Default::default();
        let (fsyncs, failure, has_detours, corrupt, corrupt_logged) = Default::default();
        Self {
            db,
            data,
            seq,
            blob,
            meta,
            path,
            recent: Recent::new(),
            row_numbers: RowNumbers::new(),
            system_generation,
            worker_generation,
            fsyncs,
            failure,
            has_detours,
            corrupt,
            corrupt_logged,
        }
    }

    pub(super) fn keyspaces(&self) -> [&Keyspace; 4] {
        [&self.data, &self.seq, &self.blob, &self.meta]
    }

    /// Waits until flushes have caught up, unless they never will.
    pub(super) fn wait_for_flushes(&self) -> Result<(), fjall::Error> {
        let behind = || {
            self.keyspaces().iter().any(|keyspace| {
                keyspace.sealed_memtable_count() >= SEALED_MEMTABLES_MAX
                    || keyspace.l0_table_count() >= UNCOMPACTED_TABLES_MAX
            })
        };
        while behind() {
            // Costs a lock, and tells whether the workers still live.
            self.db.persist(PersistMode::Buffer)?;
            std::thread::sleep(FLUSH_PAUSE);
        }
        Ok(())
    }

    /// The error of every commit after the first that failed.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.failure.get() {
            None => Ok(()),
            Some(why) => Err(StoreError(format!("writes stopped after an earlier failure ({why}); restart the node"))),
        }
    }

    /// Stops writes.
    pub(super) fn fail(&self, error: StoreError) -> StoreError {
        self.failure.get_or_init(|| error.0.clone());
        error
    }

    /// What an entry's row holds. A row that can't be read counts as absent, so that one bad row stops nothing: the
    /// digest then lacks it after the next start, and differs from its peers'.
    pub(super) fn decode(&self, key: &[u8], row: &Bytes) -> Option<Entry> {
        rows::decode_entry(row).map_err(|why| self.corrupt("data", key, why)).ok()
    }

    /// What a point read came to. A block whose checksum is wrong costs the rows in it, not the node.
    pub(super) fn held<R: Into<Bytes>>(
        &self,
        key: &[u8],
        row: Result<Option<R>, fjall::Error>,
    ) -> Result<Held, StoreError> {
        match row {
            Ok(None) => Ok(Held::Nothing),
            Ok(Some(row)) => Ok(self.decode(key, &row.into()).map_or(Held::Damaged, Held::Entry)),
            Err(error) if is_damage(&error) => {
                self.corrupt("data", key, "its block is damaged");
                Ok(Held::Damaged)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Notes a row that can't be read.
    pub(super) fn corrupt(&self, keyspace: &'static str, key: &[u8], why: &'static str) {
        let mut logged = self.corrupt_logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new =
            logged.len() >= CORRUPT_ROWS_LOGGED_MAX || logged.insert([keyspace.as_bytes(), b":", key].concat().into());
        if is_new {
            self.corrupt.fetch_add(1, Ordering::Relaxed);
        }
        if is_new && logged.len() < CORRUPT_ROWS_LOGGED_MAX {
            tracing::error!(keyspace, key = %key.escape_ascii(), why, "a row can't be read and is treated as absent");
        }
    }

    /// Keys of entries that can't be read, of those that are told apart.
    pub(super) fn damaged_keys(&self) -> Vec<Key> {
        let logged = self.corrupt_logged.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = logged.iter().filter_map(|row| row.strip_prefix(b"data:"));
        keys.filter_map(|key| rows::decode_key(Bytes::copy_from_slice(key)).ok()).collect()
    }

    pub(super) fn corrupt_rows(&self) -> u64 {
        self.corrupt.load(Ordering::Relaxed)
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        allocated(&self.path)
    }
}

/// Goes through entries in key order until `visit` breaks. `damaged` is told of those that can't be read.
///
/// A block whose checksum is wrong ends the database's own way through the keys. What lies behind it is then found
/// through the index of dots: slower, with all those keys in memory, but each entry is met or told of.
pub(super) fn visit_entries(
    tables: &Tables,
    bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    visit: &mut dyn FnMut(Key, Entry) -> ControlFlow<()>,
    damaged: &mut dyn FnMut(Key) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let (mut first, end) = bounds.clone();
    for row in tables.data.range(bounds) {
        let (key, row) = match row.into_inner() {
            Err(error) if is_damage(&error) => {
                if !tables.has_detours.swap(true, Ordering::Relaxed) {
                    tracing::error!("a block is damaged: going around it, from now on without saying so");
                }
                return visit_around(tables, (first, end), visit, damaged);
            }
            row => row.map_err(failed)?,
        };
        first = Bound::Excluded(key.to_vec());
        let entry = tables.decode(&key, &row.into());
        let flow = match (rows::decode_key(key.clone()), entry) {
            (Ok(key), Some(entry)) => visit(key, entry),
            (Ok(key), None) => damaged(key),
            (Err(why), _) => {
                tables.corrupt("data", &key, why);
                ControlFlow::Continue(())
            }
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn visit_around(
    tables: &Tables,
    bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    visit: &mut dyn FnMut(Key, Entry) -> ControlFlow<()>,
    damaged: &mut dyn FnMut(Key) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let mut keys = BTreeSet::new();
    for row in tables.seq.iter() {
        let (row, value) = row.into_inner().map_err(failed)?;
        match index::decode(&row, &value.into()) {
            Ok(writes) => {
                let keys_within = writes.into_iter().map(|(_, key)| key);
                keys.extend(keys_within.filter(|key| bounds.contains(&key.as_bytes().to_vec())));
            }
            Err(why) => tables.corrupt("seq", &row, why),
        }
    }
    for key in keys {
        let flow = match tables.held(key.as_bytes(), tables.data.get(key.as_bytes()))? {
            Held::Entry(entry) => visit(key, entry),
            Held::Damaged => damaged(key),
            Held::Nothing => ControlFlow::Continue(()),
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Whether it is the block that can't be read, not the disk that fails.
pub(super) fn is_damage(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Storage(LsmError::Io(error)) => {
            matches!(error.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidInput)
        }
        fjall::Error::Storage(error) => matches!(
            error,
            LsmError::ChecksumMismatch { .. }
                | LsmError::InvalidHeader(_)
                | LsmError::InvalidTag(_)
                | LsmError::InvalidTrailer
                | LsmError::Decompress(_)
        ),
        _ => false,
    }
}

/// Keys that start with `prefix` and lie after `after`.
pub(super) fn prefix_bounds(prefix: &[u8], after: Option<&[u8]>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let first = match after {
        Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
        _ => Bound::Included(prefix.to_vec()),
    };
    let end = rows::prefix_end(prefix);
    match end {
        // A range that ends before it starts is a panic in ordered maps, so make it an empty one.
        Some(end) if matches!(&first, Bound::Excluded(after) if *after >= end) => {
            (Bound::Included(end.clone()), Bound::Excluded(end))
        }
        Some(end) => (first, Bound::Excluded(end)),
        None => (first, Bound::Unbounded),
    }
}

pub(super) fn failed(error: fjall::Error) -> StoreError {
    StoreError(match error {
        error if is_damage(&error) => {
            "a block is damaged: move the data directory away and join anew with an empty one, or restore a backup"
                .into()
        }
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => error.to_string(),
        fjall::Error::Poisoned => {
            "a write in the background failed, the log says which: look after the disk; if a file is \
                                   damaged, move the data directory away and join again"
                .into()
        }
        other => format!("{other:?}"),
    })
}

/// Bytes that a directory takes on its disk. Files that vanish meanwhile don't count.
fn allocated(directory: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(directory) else { return 0 };
    let bytes_of = |file: std::fs::DirEntry| match file.metadata() {
        Ok(metadata) if metadata.is_dir() => allocated(&file.path()),
        Ok(metadata) => file_bytes(&metadata),
        Err(_) => 0,
    };
    files.filter_map(Result::ok).map(bytes_of).sum()
}

/// Journals are laid out ahead as sparse files: their length says little.
#[cfg(unix)]
fn file_bytes(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn file_bytes(metadata: &std::fs::Metadata) -> u64 {
    metadata.len()
}
