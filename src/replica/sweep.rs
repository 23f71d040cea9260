//! Removing what a deleted namespace held, a few rows a turn.
//!
//! The deletion itself is an entry that dominates all of them, so it makes no difference when each row goes.

use std::collections::{BTreeSet, VecDeque};

use super::Replica;
use super::key::{Key, NamespaceId};
use super::limits::SWEEP_ROWS_PER_TURN;
use super::store::{BlobAddress, Store, StoreError};

/// Namespaces that still have to be emptied.
#[derive(Clone, Debug, Default)]
pub(super) struct Sweep {
    queue: VecDeque<NamespaceId>,
}

impl Sweep {
    /// After a start: any of them may have been left half done.
    pub(super) fn of(deleted: &BTreeSet<NamespaceId>) -> Self {
        Self { queue: deleted.iter().copied().collect() }
    }

    pub(super) fn begin(&mut self, namespace: NamespaceId) {
        self.queue.push_back(namespace);
    }

    pub(super) fn is_due(&self) -> bool {
        !self.queue.is_empty()
    }
}

/// The namespace that an entry of [`NamespaceId::DELETED`] speaks of. The system's own can't be deleted.
pub(super) fn deleted_id(key: &Key) -> Option<NamespaceId> {
    let id = NamespaceId(key.name()[..].try_into().ok()?);
    (!id.is_system()).then_some(id)
}

impl<S: Store> Replica<S> {
    pub(super) fn sweep_deleted(&mut self) -> Result<(), StoreError> {
        let Some(namespace) = self.sweep.queue.front().copied() else { return Ok(()) };
        let rows = self.store.scan(namespace, None, SWEEP_ROWS_PER_TURN)?;
        if rows.len() < SWEEP_ROWS_PER_TURN {
            self.sweep.queue.pop_front();
            self.forget_pending_of(namespace)?;
        }
        for (key, entry) in rows {
            self.digest.remove(&key, entry.hash);
            if let Some(blob) = entry.blob() {
                self.store.remove_blob(BlobAddress::of(&key, blob.id))?;
            }
            self.store.remove(&key, entry.dot);
            self.staged = true;
            self.count("swept_entries");
        }
        Ok(())
    }
}
