//! Removing what a deleted namespace held, a few rows a turn.
//!
//! The deletion itself is an entry that dominates all of them, so it makes no difference when each row goes.

use std::collections::{BTreeSet, VecDeque};

use super::key::{Key, NamespaceId};
use super::limits::{SWEEP_PERIOD, SWEEP_ROWS_PER_TURN};
use super::store::{BlobAddress, Store, StoreError};
use super::{Mono, Now, Replica};

/// Namespaces that still have to be emptied.
#[derive(Clone, Debug, Default)]
pub(super) struct Sweep {
    /// With the last key that went: rows that went cost time to skip.
    queue: VecDeque<(NamespaceId, Option<Key>)>,
    due: Mono,
}

impl Sweep {
    /// After a start: any of them may have been left half done.
    pub(super) fn of(deleted: &BTreeSet<NamespaceId>) -> Self {
        Self { queue: deleted.iter().map(|id| (*id, None)).collect(), due: Mono(0) }
    }

    pub(super) fn begin(&mut self, namespace: NamespaceId) {
        self.queue.push_back((namespace, None));
    }

    pub(super) fn next_due(&self) -> Option<Mono> {
        (!self.queue.is_empty()).then_some(self.due)
    }
}

/// The namespace that an entry of [`NamespaceId::DELETED`] speaks of. The system's own can't be deleted.
pub(super) fn deleted_id(key: &Key) -> Option<NamespaceId> {
    let id = NamespaceId(key.name()[..].try_into().ok()?);
    (!id.is_system()).then_some(id)
}

impl<S: Store> Replica<S> {
    pub(super) fn sweep_deleted(&mut self, now: Now) -> Result<(), StoreError> {
        if now.mono < self.sweep.due {
            return Ok(());
        }
        let Some((namespace, after)) = self.sweep.queue.front().cloned() else { return Ok(()) };
        self.sweep.due = now.mono + SWEEP_PERIOD;
        let rows = self.store.scan(namespace, after.as_ref(), SWEEP_ROWS_PER_TURN)?;
        if rows.len() < SWEEP_ROWS_PER_TURN {
            self.sweep.queue.pop_front();
            self.forget_pending_of(namespace)?;
        } else if let (Some((_, swept)), Some((last, _))) = (self.sweep.queue.front_mut(), rows.last()) {
            *swept = Some(last.clone());
        }
        for (key, entry) in rows {
            self.digest.remove(&key, entry.hash);
            if let Some(blob) = entry.blob() {
                self.store.remove_blob(BlobAddress::of(&key, blob.id))?;
            }
            self.reschedule(&key, Some(&entry), None);
            self.store.remove(&key, entry.dot);
            self.staged = true;
            self.count("swept_entries");
        }
        Ok(())
    }
}
