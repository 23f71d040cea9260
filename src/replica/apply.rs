//! Applying records: what peers wrote, merged into the registers held here.
//!
//! The one place where entries change, and where the version-vector invariant is kept: a dot counts as seen only once
//! its write, or one that dominates it, is held.

use super::dot::{Dot, NodeId};
use super::entry::{Entry, Merge, Record, Value};
use super::input::{Alarm, Output};
use super::key::{Key, NamespaceId};
use super::message::Records;
use super::store::{BlobAddress, Snapshot, Store, StoreError};
use super::{Now, Replica, Sabotage, Timestamp, sweep};

/// What became of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Applied {
    /// Its dot is seen.
    Seen,
    /// It waits for its blob; its dot is not seen.
    Pending,
    /// There was no room for it to wait; it must come again.
    Dropped,
}

impl<S: Store> Replica<S> {
    pub(super) fn on_records(&mut self, node: NodeId, records: Records, now: Now) -> Result<(), StoreError> {
        self.beats.active(now.mono);
        for push in &records.pushes {
            let Some(entry) = self.decode(&push.record, node) else { return Ok(()) };
            if push.covers.iter().any(|dot| dot.origin.node != node) {
                // A node coalesces its own writes only.
                self.bad_peer(node, "a record that stands for writes of another node");
                return Ok(());
            }
            self.told(node, push.covers.iter().copied().chain([entry.dot]));
            match self.apply(&push.record, entry, node, now)? {
                Applied::Seen => {
                    for dot in &push.covers {
                        if dot.seq > 0 {
                            self.versions.insert(&mut self.store, *dot)?;
                            self.staged = true;
                        }
                    }
                }
                Applied::Pending if self.config.sabotage == Sabotage::HastyCovers => {
                    for dot in &push.covers {
                        self.versions.insert(&mut self.store, *dot)?;
                    }
                }
                Applied::Pending => {}
                Applied::Dropped => self.syncs.want(node, now.mono + super::limits::SYNC_PERIOD),
            }
        }
        self.watch_for_gaps(node, now);
        Ok(())
    }

    /// Reads a record; a peer that sends what can't be read is dropped.
    pub(super) fn decode(&mut self, record: &Record, source: NodeId) -> Option<Entry> {
        match Entry::decode(&record.key, &record.body) {
            Ok(entry) => Some(entry),
            Err(malformed) => {
                self.bad_peer(source, malformed.0);
                None
            }
        }
    }

    /// Takes in a record that `source` sent.
    pub(super) fn apply(
        &mut self,
        record: &Record,
        entry: Entry,
        source: NodeId,
        now: Now,
    ) -> Result<Applied, StoreError> {
        let key = &record.key;
        let is_seen = self.versions.contains(&self.store, entry.dot)?;
        if is_seen && self.is_accounted_for(key, &entry, source)? {
            self.count("duplicate_records");
            return Ok(Applied::Seen);
        }
        self.staged = true;
        if entry.marker().time > Timestamp::CEILING || entry.stamp > Timestamp::CEILING {
            // Everyone drops it alike, whatever their clocks, so its dot counts as seen.
            self.count("records_beyond_ceiling");
            self.see(entry.dot)?;
            return Ok(Applied::Seen);
        }
        if self.has_no_room_for(entry.dot) {
            self.count("untold_writes_dropped");
            return Ok(Applied::Dropped);
        }
        if self.is_far_ahead(&entry, now) {
            // Not dropped, or replicas would differ: it may come again.
            self.count("records_far_ahead");
            return Ok(Applied::Dropped);
        }
        if is_seen {
            self.count("seen_and_not_held");
        }
        self.clock.observe(entry.stamp, self.skew.corrected(now.wall_ms));
        self.acquaintances.heard(entry.dot.origin.node, entry.stamp);
        if self.deleted.contains(&key.namespace()) {
            self.see(entry.dot)?;
            return Ok(Applied::Seen);
        }
        let ahead_ms = entry.marker().time.ms().saturating_sub(now.wall_ms);
        if self.config.sabotage == Sabotage::MergeByClock && ahead_ms > super::limits::ABSORB_MS_MAX {
            self.see(entry.dot)?;
            return Ok(Applied::Seen);
        }
        let held = self.store.get(key)?;
        let has_bytes = |held: &Entry| entry.blob().is_some() && held.blob() == entry.blob();
        if held.as_ref().is_some_and(has_bytes) {
            // The same write under another dot: a node that had been evicted issued it again.
            self.merge(key, held, entry)?;
            return Ok(Applied::Seen);
        }
        if entry.blob().is_some() && held.as_ref().is_none_or(|held| held.loses_to(&entry)) {
            if self.has_long_expired(entry.content(), now) {
                // Nobody need have its bytes any more.
                self.merge(key, held, entry.dropped())?;
                return Ok(Applied::Seen);
            }
            return self.await_blob(record, entry, source, now);
        }
        self.merge(key, held, entry)?;
        Ok(Applied::Seen)
    }

    /// Whether the version vector is right to say that a write was seen: it, or one that dominates it, is held. Always,
    /// unless a member has claimed for another what that one had not told yet.
    fn is_accounted_for(&self, key: &Key, entry: &Entry, source: NodeId) -> Result<bool, StoreError> {
        let is_beyond = entry.marker().time > Timestamp::CEILING || entry.stamp > Timestamp::CEILING;
        if self.config.sabotage == Sabotage::TrustClaims || is_beyond || self.deleted.contains(&key.namespace()) {
            return Ok(true);
        }
        if self.blobs.awaits(entry.dot) {
            return Ok(true);
        }
        if self.store.get(key)?.is_some_and(|held| held.hash == entry.hash || !held.loses_to(entry)) {
            return Ok(true);
        }
        // A dot has one place: that where it came first, or where its writer says.
        let Dot { origin, seq } = entry.dot;
        Ok(source != origin.node && !self.store.snapshot().written_by(origin, seq, seq, 1)?.writes.is_empty())
    }

    /// Whether an entry lies so far ahead that no clock explains it. The one place where the receiver's clock has a say,
    /// and it says "not yet": see [`super::limits::AHEAD_MS_MAX`].
    pub(super) fn is_far_ahead(&self, entry: &Entry, now: Now) -> bool {
        let reach_ms = self.skew.corrected(now.wall_ms).saturating_add(super::limits::AHEAD_MS_MAX);
        let is_far = entry.marker().time.ms().max(entry.stamp.ms()) > reach_ms;
        is_far && self.config.sabotage != Sabotage::TrustMarkers
    }

    /// Merges an entry whose bytes are all here.
    pub(super) fn merge(&mut self, key: &Key, held: Option<Entry>, entry: Entry) -> Result<(), StoreError> {
        let dot = entry.dot;
        self.count("applied_records");
        self.note_arrival(&entry);
        match held {
            None => self.hold(key, None, entry)?,
            Some(held) => {
                let writer = entry.marker().origin.node;
                let mut merged = held.clone();
                let outcome = merged.merge(entry);
                if let Merge::Conflict { .. } = outcome {
                    self.count("marker_conflicts");
                    self.alarm(Alarm::MarkerConflict { key: key.clone(), node: writer });
                }
                if matches!(outcome, Merge::Won | Merge::Conflict { won: true }) {
                    self.hold(key, Some(held), merged)?;
                }
            }
        }
        self.see(dot)
    }

    /// From now on `key` holds `entry` in place of `held`.
    pub(super) fn hold(&mut self, key: &Key, held: Option<Entry>, entry: Entry) -> Result<(), StoreError> {
        if let Some(held) = &held {
            if self.config.sabotage != Sabotage::StaleDigest {
                self.digest.remove(key, held.hash);
            }
            if let Some(blob) = held.blob().filter(|old| entry.blob().is_none_or(|new| new.id != old.id)) {
                self.store.remove_blob(BlobAddress::of(key, blob.id))?;
            }
        }
        self.digest.add(key, entry.hash);
        self.reschedule(key, held.as_ref(), Some(&entry));
        self.store.put(key, &entry, held.map(|held| held.dot));
        self.staged = true;
        self.changed(key, &entry);
        self.settle_pending(key, &entry)?;
        if key.namespace().is_system() {
            self.notice(key, &entry);
        } else if self.config.sabotage == Sabotage::ForgetTombstones && entry.content().value == Value::Tombstone {
            self.digest.remove(key, entry.hash);
            self.store.remove(key, entry.dot);
        }
        Ok(())
    }

    /// System entries mean something to the replica itself.
    fn notice(&mut self, key: &Key, entry: &Entry) {
        match key.namespace() {
            NamespaceId::NODES | NamespaceId::EVICTED if self.roster.observe(key, entry) => {
                self.outputs.push_back(Output::RosterChanged);
                self.fence_evicted();
            }
            NamespaceId::DELETED => {
                if let Some(id) = sweep::deleted_id(key)
                    && self.deleted.insert(id)
                {
                    self.sweep.begin(id);
                    self.destroy_secrets(id);
                }
            }
            _ => {}
        }
    }

    fn fence_evicted(&mut self) {
        self.versions.unsettle_all();
        self.heads.members_changed();
        if self.roster.is_evicted(self.config.node) {
            self.alarm(Alarm::Evicted);
        }
        let evicted = self.peers.iter().filter(|(node, _)| self.roster.is_evicted(**node));
        let evicted: Vec<_> = evicted.map(|(node, peer)| (*node, peer.link)).collect();
        for (node, link) in evicted {
            self.outputs.push_back(Output::TurnAway { link, node });
            self.forget_link(node);
        }
    }
}
