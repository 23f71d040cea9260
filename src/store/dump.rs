//! All rows of a store as of one moment, and a store made of such rows: for backups.
//!
//! Knows nothing of what the rows mean, but that an entry must be what its hash says: what is damaged is refused, or a
//! backup would keep the damage and nobody would know.

use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use fjall::{PersistMode, Readable};
use serde::{Deserialize, Serialize};

use super::reader::Reader;
use super::rows;
use super::tables::{Tables, failed, is_damage};
use super::{FjallStore, OpenError};
use crate::replica::{RecordHash, StoreError, Value};

/// Rows that are written in one batch while a store is filled, in bytes.
const BATCH_BYTES: usize = 4 << 20;

/// Committed rows of one moment. What it sees can't be reclaimed while it lives.
pub struct Dump {
    tables: std::sync::Arc<Tables>,
    snapshot: fjall::Snapshot,
}

/// How far a dump has come: which keyspace, and after which of its keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    keyspace: u8,
    after: Option<Bytes>,
}

/// Rows of one keyspace, in the order of their keys.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rows {
    /// As [`Tables::keyspaces`] counts them.
    keyspace: u8,
    rows: Vec<(Bytes, Bytes)>,
}

impl Rows {
    /// How many.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl Reader {
    /// All rows as they are now.
    pub fn dump(&self) -> Dump {
        Dump { tables: self.tables.clone(), snapshot: self.tables.db.snapshot() }
    }
}

impl Dump {
    /// The rows that follow, as many as it takes to have `bytes` of them; `None` after the last ones. The same place
    /// gives the same rows, always.
    pub fn next(&self, place: &mut Place, bytes: usize) -> Result<Option<Rows>, StoreError> {
        while let Some(keyspace) = self.tables.keyspaces().get(usize::from(place.keyspace)) {
            let first = place.after.as_ref().map_or(Bound::Unbounded, |after| Bound::Excluded(after.to_vec()));
            let (mut found, mut len) = (Vec::new(), 0);
            for row in self.snapshot.range::<Vec<u8>, _>(keyspace, (first, Bound::Unbounded)) {
                let (key, row) = row.into_inner().map_err(|error| match is_damage(&error) {
                    true => damaged("a block can't be read"),
                    false => failed(error),
                })?;
                let (key, row) = (Bytes::from(key), Bytes::from(row));
                if place.keyspace == 0 && !is_whole(&key, &row) {
                    return Err(damaged("an entry is not what was written"));
                }
                len += key.len() + row.len();
                found.push((key, row));
                if len >= bytes {
                    break;
                }
            }
            match found.last() {
                Some((last, _)) => {
                    place.after = Some(last.clone());
                    return Ok(Some(Rows { keyspace: place.keyspace, rows: found }));
                }
                None => *place = Place { keyspace: place.keyspace + 1, after: None },
            }
        }
        Ok(None)
    }
}

/// Whether an entry is what its hash says.
pub(super) fn is_whole(key: &Bytes, row: &Bytes) -> bool {
    let (Ok(key), Ok(entry)) = (rows::decode_key(key.clone()), rows::decode_entry(row)) else { return false };
    matches!(entry.content().value, Value::Dropped(_)) || RecordHash::of(&key, &entry.encode()) == entry.hash
}

fn damaged(why: &str) -> StoreError {
    StoreError(format!("the store is damaged ({why}): run `starling verify --repair` here, or take another node"))
}

/// A new store that is being filled. Of no use before [`Filling::finish`].
pub struct Filling {
    store: FjallStore,
    batch: fjall::OwnedWriteBatch,
    batch_bytes: usize,
}

impl Filling {
    /// Begins in an empty or missing directory.
    pub fn begin(path: &Path) -> Result<Self, OpenError> {
        let store = FjallStore::open(path)?;
        let batch = store.tables.db.batch();
        Ok(Self { store, batch, batch_bytes: 0 })
    }

    /// Adds rows.
    pub fn put(&mut self, rows: Rows) -> Result<(), StoreError> {
        let keyspaces = self.store.tables.keyspaces();
        let keyspace = keyspaces.get(usize::from(rows.keyspace)).ok_or_else(|| {
            StoreError("it has rows of a kind that this version of starling does not know: take a newer one".into())
        })?;
        let keyspace = (*keyspace).clone();
        for (key, row) in rows.rows {
            self.batch_bytes += key.len() + row.len();
            self.batch.insert(&keyspace, key, row);
        }
        if self.batch_bytes >= BATCH_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.store.tables.wait_for_flushes().map_err(failed)?;
        let batch = std::mem::replace(&mut self.batch, self.store.tables.db.batch());
        self.batch_bytes = 0;
        batch.durability(Some(PersistMode::Buffer)).commit().map_err(failed)
    }

    /// Makes all of it durable.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.write()?;
        self.store.tables.db.persist(PersistMode::SyncAll).map_err(failed)
    }
}
