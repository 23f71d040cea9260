//! What is staged between two commits: an overlay over the committed rows, one final state for each row touched.
//!
//! Bounded by what the driver puts into one turn.

use std::collections::BTreeMap;

use bytes::Bytes;
use fjall::OwnedWriteBatch;

use super::index;
use super::rows;
use super::tables::Tables;
use crate::replica::{Dot, Entry, Key, NamespaceId, StoreError};

/// What a row takes in memory beside its value: its key, and a node of an ordered list.
const ROW_COST: usize = 128;

/// `None` stands for a row that goes.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) data: BTreeMap<Bytes, Option<Entry>>,
    /// Writes that the index does not tell of yet, with their keys.
    index: BTreeMap<Dot, Bytes>,
    /// Committed writes that are held no more.
    pub(super) outlived: Vec<Dot>,
    pub(super) chunks: BTreeMap<[u8; 36], Option<Bytes>>,
    pub(super) meta: BTreeMap<Bytes, Option<Bytes>>,
    /// A read that staging needed has failed; the commit says so.
    pub(super) failure: Option<StoreError>,
}

impl Staged {
    pub(super) fn put(&mut self, key: &Key, entry: &Entry, replaces: Option<Dot>) {
        if let Some(dot) = replaces.filter(|dot| *dot != entry.dot) {
            self.outlive(dot);
        }
        if replaces != Some(entry.dot) {
            self.index.insert(entry.dot, key.as_bytes().clone());
        }
        self.data.insert(key.as_bytes().clone(), Some(entry.clone()));
    }

    pub(super) fn remove(&mut self, key: &Key, dot: Dot) {
        self.outlive(dot);
        self.data.insert(key.as_bytes().clone(), None);
    }

    /// A key that is written a thousand times between two commits is in the index once.
    fn outlive(&mut self, dot: Dot) {
        if self.index.remove(&dot).is_none() {
            self.outlived.push(dot);
        }
    }

    /// Whether an entry of a system namespace is among what is staged: they sort first.
    pub(super) fn touches_system(&self) -> bool {
        let first = self.data.first_key_value().and_then(|(key, _)| Key::from_bytes(key.clone()));
        first.is_some_and(|key| key.namespace().is_system())
    }

    /// Whether an entry that Workers are made of is among what is staged.
    pub(super) fn touches_workers(&self) -> bool {
        let is_among = |namespace: NamespaceId| {
            let first = self.data.range(Bytes::copy_from_slice(&namespace.0)..).next();
            first.is_some_and(|(key, _)| key.starts_with(&namespace.0))
        };
        is_among(NamespaceId::WORKERS) || is_among(NamespaceId::WORKER_FILES)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data.is_empty() && self.index.is_empty() && self.chunks.is_empty() && self.meta.is_empty()
    }

    /// The database applies a batch row by row, and point reads don't wait for its end: entries come last, so that
    /// whoever sees one finds its chunks. Beside the batch, about how many bytes it takes in memory.
    pub(super) fn into_batch(self, tables: &Tables) -> (OwnedWriteBatch, u64) {
        let rows = self.data.len() + self.chunks.len() + self.meta.len();
        let mut batch = OwnedWriteBatch::with_capacity(tables.db.clone(), rows);
        let mut bytes = rows * ROW_COST;
        for (key, chunk) in self.chunks {
            match chunk {
                Some(chunk) => {
                    bytes += chunk.len();
                    batch.insert(&tables.blob, key, chunk);
                }
                None => batch.remove(&tables.blob, key),
            }
        }
        for (key, row) in self.meta {
            match row {
                Some(row) => {
                    bytes += row.len();
                    batch.insert(&tables.meta, key, row);
                }
                None => batch.remove(&tables.meta, key),
            }
        }
        index::encode(&self.index, &tables.row_numbers, |row, value| {
            bytes += ROW_COST + value.len();
            batch.insert(&tables.seq, row, value);
        });
        for (key, entry) in self.data {
            match entry {
                Some(entry) => {
                    let row = rows::encode_entry(&entry);
                    bytes += row.len();
                    batch.insert(&tables.data, key, row);
                }
                None => batch.remove(&tables.data, key),
            }
        }
        (batch, bytes as u64)
    }
}
