//! Giving back the bytes of values that have expired, a few a turn.
//!
//! Decides nothing: reads hide an expired entry anyway, and its header and hash stay, so that it wins and loses as
//! before, here and wherever it is sent.

use super::clock::Mono;
use super::entry::{Content, Entry, Value};
use super::key::Key;
use super::limits::{EXPIRED_GRACE_MS, EXPIRY_PERIOD, SWEEP_ROWS_PER_TURN};
use super::store::{BlobAddress, Store, StoreError};
use super::{Now, Replica};

/// When to look next, and from where.
#[derive(Clone, Debug, Default)]
pub(super) struct Expiry {
    due: Mono,
    /// Nothing is scheduled before this millisecond.
    from_ms: u64,
}

impl Expiry {
    pub(super) fn next_due(&self) -> Mono {
        self.due
    }
}

/// When an entry's bytes are to go, if ever.
fn goes_at(entry: &Entry) -> Option<u64> {
    content_goes_at(entry.content())
}

fn content_goes_at(content: &Content) -> Option<u64> {
    let has_bytes = matches!(content.value, Value::Inline(_) | Value::Blob(_));
    (has_bytes && content.expire_ms != 0).then_some(content.expire_ms)
}

impl<S: Store> Replica<S> {
    /// `key` holds `entry` in place of `held`.
    pub(super) fn reschedule(&mut self, key: &Key, held: Option<&Entry>, entry: Option<&Entry>) {
        let (old, new) = (held.and_then(goes_at), entry.and_then(goes_at));
        if old == new {
            return;
        }
        if let Some(at_ms) = old {
            self.store.unschedule(key, at_ms);
        }
        if let Some(at_ms) = new {
            self.expiry.from_ms = self.expiry.from_ms.min(at_ms);
            self.store.schedule(key, at_ms);
        }
    }

    /// What had expired by then is dropped: long enough ago for everyone's clock to say so.
    fn expired_before_ms(&self, now: Now) -> u64 {
        match self.skew.refuses_writes() {
            true => 0,
            false => self.skew.corrected(now.wall_ms).saturating_sub(EXPIRED_GRACE_MS),
        }
    }

    /// Whether nobody need have an entry's bytes any more.
    pub(super) fn has_long_expired(&self, content: &Content, now: Now) -> bool {
        content_goes_at(content).is_some_and(|at_ms| at_ms < self.expired_before_ms(now))
    }

    pub(super) fn drop_expired(&mut self, now: Now) -> Result<(), StoreError> {
        if now.mono < self.expiry.due {
            return Ok(());
        }
        self.expiry.due = now.mono + EXPIRY_PERIOD;
        let before_ms = self.expired_before_ms(now);
        let rows = self.store.scheduled(self.expiry.from_ms, before_ms, SWEEP_ROWS_PER_TURN)?;
        if rows.len() == SWEEP_ROWS_PER_TURN {
            self.expiry.due = now.mono;
        }
        // Looking at what is gone takes time, too.
        self.expiry.from_ms = rows.last().map_or(before_ms.max(self.expiry.from_ms), |(at_ms, _)| *at_ms);
        for (at_ms, key) in rows {
            match self.store.get(&key)?.filter(|held| goes_at(held) == Some(at_ms)) {
                Some(held) => {
                    let dropped = held.dropped();
                    self.hold(&key, Some(held), dropped)?;
                    self.count("dropped_values");
                }
                None => self.store.unschedule(&key, at_ms),
            }
            self.staged = true;
        }
        self.drop_expired_pending(now)
    }

    /// What waits for a blob that has expired waits for what nobody need have any more.
    fn drop_expired_pending(&mut self, now: Now) -> Result<(), StoreError> {
        for dot in self.blobs.waiting_dots(|entry| self.has_long_expired(entry.content(), now)) {
            let Some((key, entry)) = self.blobs.take(dot) else { continue };
            self.store.remove_pending(dot);
            if let Some(blob) = entry.blob() {
                self.store.remove_blob(BlobAddress::of(&key, blob.id))?;
            }
            self.staged = true;
            let held = self.store.get(&key)?;
            self.merge(&key, held, entry.dropped())?;
        }
        Ok(())
    }
}
