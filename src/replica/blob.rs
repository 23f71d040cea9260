//! Large values: a record that refers to a blob waits until all chunks are here and verified, then it is applied.
//!
//! Until then the old value stays readable and the record's dot does not count as seen. A record that waits is
//! durable; if a later write dominates it, its dot counts and its chunks go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::RngExt;

use super::apply::Applied;
use super::dot::{Dot, NodeId};
use super::entry::{Blob, Entry, Record};
use super::key::{Key, NamespaceId};
use super::limits::{
    CHUNK_LEN, CHUNK_PATIENCE, CHUNK_REQUESTS_MAX, CHUNK_REQUESTS_PER_PEER_MAX, CHUNK_RETRY, CHUNK_TIMEOUT,
};
use super::message::{ChunkRequest, Class, Message};
use super::store::{BlobAddress, Recovered, Store, StoreError};
use super::version::VersionVector;
use super::{Mono, Now, Replica, Sabotage};

/// Records that wait for their blobs.
#[derive(Clone, Debug, Default)]
pub(super) struct Blobs {
    pending: BTreeMap<Dot, Pending>,
    by_key: BTreeMap<Key, BTreeSet<Dot>>,
    asked: BTreeMap<NodeId, usize>,
    /// Chunks that no connected peer could give are asked for again at this time.
    retry_at: Option<Mono>,
    /// When a chunk last came.
    came_at: Mono,
}

#[derive(Clone, Debug)]
struct Pending {
    record: Record,
    entry: Entry,
    missing: BTreeSet<u32>,
    asked: BTreeMap<u32, (NodeId, Mono)>,
    /// Peers that sent the record: they have the blob, or will.
    sources: BTreeSet<NodeId>,
    /// Peers that did not have a chunk when asked.
    lacking: BTreeSet<NodeId>,
    /// How often one had not, or did not answer in time.
    refusals: u32,
}

impl Pending {
    fn new(record: &Record, entry: Entry, held: &[bool]) -> Self {
        // All of them here and not the record: a client puts them there for a write that is issued again, and may give
        // them up. Or that client is gone.
        let is_whole = held.iter().all(|held| *held);
        let missing = held.iter().zip(0..).filter(|(held, _)| is_whole || !**held).map(|(_, index)| index).collect();
        Self {
            record: record.clone(),
            entry,
            missing,
            asked: BTreeMap::new(),
            sources: BTreeSet::new(),
            lacking: BTreeSet::new(),
            refusals: 0,
        }
    }

    fn blob(&self) -> Option<&Blob> {
        self.entry.blob()
    }
}

impl Blobs {
    /// Takes up what a former process was waiting for, and removes what it had begun and nobody will finish.
    pub(super) fn recover(store: &mut impl Store, recovered: &Recovered) -> Result<Self, StoreError> {
        let mut blobs = Self::default();
        let mut orphans: BTreeSet<BlobAddress> = recovered.open_blobs.iter().copied().collect();
        for record in &recovered.pending {
            let Ok(entry) = Entry::decode(&record.key, &record.body) else { continue };
            let Some(blob) = entry.blob() else { continue };
            let address = BlobAddress::of(&record.key, blob.id);
            orphans.remove(&address);
            let held = store.chunks_held(address, blob.chunks.len() as u32)?;
            blobs.insert(Pending::new(record, entry, &held));
        }
        for orphan in orphans {
            store.remove_blob(orphan)?;
        }
        Ok(blobs)
    }

    fn insert(&mut self, pending: Pending) {
        let dot = pending.entry.dot;
        self.by_key.entry(pending.record.key.clone()).or_default().insert(dot);
        self.pending.insert(dot, pending);
    }

    fn remove(&mut self, dot: Dot) -> Option<Pending> {
        let pending = self.pending.remove(&dot)?;
        for (node, _) in pending.asked.values() {
            self.answered(*node);
        }
        if let Some(dots) = self.by_key.get_mut(&pending.record.key) {
            dots.remove(&dot);
            if dots.is_empty() {
                self.by_key.remove(&pending.record.key);
            }
        }
        Some(pending)
    }

    fn answered(&mut self, node: NodeId) {
        if let Some(asked) = self.asked.get_mut(&node) {
            *asked = asked.saturating_sub(1);
        }
    }

    /// Which of the records that wait `is_meant`.
    pub(super) fn waiting_dots(&self, is_meant: impl Fn(&Entry) -> bool) -> Vec<Dot> {
        self.pending.iter().filter(|(_, pending)| is_meant(&pending.entry)).map(|(dot, _)| *dot).collect()
    }

    /// A record waits no longer.
    pub(super) fn take(&mut self, dot: Dot) -> Option<(Key, Entry)> {
        self.remove(dot).map(|pending| (pending.record.key, pending.entry))
    }

    /// The records that wait.
    pub(super) fn records(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.pending.values().map(|pending| (&pending.record.key, &pending.entry))
    }

    /// How many records wait.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Whether this record waits.
    pub(super) fn awaits(&self, dot: Dot) -> bool {
        self.pending.contains_key(&dot)
    }

    /// Whether chunks have come lately.
    pub(super) fn are_coming(&self, now: Mono) -> bool {
        now < self.came_at + CHUNK_PATIENCE
    }

    /// Whether a record waits whose dot is in `versions`.
    pub(super) fn any_waiting_in(&self, versions: &VersionVector) -> bool {
        self.pending.keys().any(|dot| versions.contains(*dot))
    }

    pub(super) fn disconnected(&mut self, node: NodeId) {
        self.asked.remove(&node);
        for pending in self.pending.values_mut() {
            pending.asked.retain(|_, (asked, _)| *asked != node);
            pending.sources.remove(&node);
            pending.lacking.remove(&node);
        }
    }

    pub(super) fn next_due(&self) -> Option<Mono> {
        let timeouts = self.pending.values().flat_map(|pending| pending.asked.values());
        timeouts.map(|(_, at)| *at + CHUNK_TIMEOUT).chain(self.retry_at).min()
    }
}

impl<S: Store> Replica<S> {
    /// A record would win but for its blob, which is not here.
    pub(super) fn await_blob(
        &mut self,
        record: &Record,
        entry: Entry,
        source: NodeId,
        now: Now,
    ) -> Result<Applied, StoreError> {
        if let Some(pending) = self.blobs.pending.get_mut(&entry.dot) {
            pending.sources.insert(source);
            return Ok(Applied::Pending);
        }
        let is_full = self.blobs.pending.len() >= self.config.bounds.pending;
        if is_full && !self.make_room(&record.key, &entry, now)? {
            self.count("pending_dropped");
            return Ok(Applied::Dropped);
        }
        let Some(blob) = entry.blob() else { return Ok(Applied::Dropped) };
        let address = BlobAddress::of(&record.key, blob.id);
        let held = self.store.chunks_held(address, blob.chunks.len() as u32)?;
        self.store.open_blob(address);
        self.store.put_pending(entry.dot, record);
        let mut pending = Pending::new(record, entry, &held);
        pending.sources.insert(source);
        self.blobs.insert(pending);
        Ok(Applied::Pending)
    }

    /// Forgets a record that waits, in favour of `entry`: one that `entry` dominates, or, while no chunks come at all, one
    /// whose blob was asked for in vain. What is overwritten faster than it can be pulled, or was lost with its writer, would else
    /// take all room for ever, and keep out the very writes that dominate it. Its dot was not seen: if it still matters,
    /// it comes again.
    fn make_room(&mut self, key: &Key, entry: &Entry, now: Now) -> Result<bool, StoreError> {
        let of_key = self.blobs.by_key.get(key).into_iter().flatten();
        let is_dominated = |dot: &&Dot| self.blobs.pending.get(dot).is_some_and(|other| other.entry.loses_to(entry));
        let mut victims: Vec<Dot> = of_key.filter(is_dominated).copied().collect();
        if victims.is_empty() && !self.blobs.are_coming(now.mono) {
            victims = self.unavailable();
        }
        let mut victim = None;
        for dot in victims {
            // One whose dot is seen waits in place of what is damaged, and nobody would send it again.
            if victim.is_none() && !self.versions.contains(&self.store, dot)? {
                victim = self.blobs.remove(dot).map(|pending| (dot, pending));
            }
        }
        let Some((dot, pending)) = victim else { return Ok(false) };
        let key = &pending.record.key;
        self.store.remove_pending(dot);
        self.syncs.forgotten(dot);
        self.staged = true;
        self.count("pending_forgotten");
        let held = self.store.get(key)?;
        let waiting = self.blobs.by_key.get(key).into_iter().flatten();
        let mut in_use = waiting.filter_map(|dot| self.blobs.pending.get(dot)).map(|other| &other.entry).chain(&held);
        if let Some(blob) =
            pending.blob().filter(|blob| !in_use.any(|other| other.blob().map(|b| b.id) == Some(blob.id)))
        {
            self.store.remove_blob(BlobAddress::of(key, blob.id))?;
        }
        Ok(true)
    }

    /// Records whose blob was asked for in vain, first those for which it was most often.
    fn unavailable(&self) -> Vec<Dot> {
        let refused = self.blobs.pending.iter().filter(|(_, pending)| pending.refusals > 0);
        let mut refused: Vec<_> = refused.map(|(dot, pending)| (Reverse(pending.refusals), *dot)).collect();
        refused.sort_unstable();
        refused.into_iter().map(|(_, dot)| dot).collect()
    }

    /// `key` holds `entry` now: records of that key that wait and are dominated need wait no longer.
    pub(super) fn settle_pending(&mut self, key: &Key, entry: &Entry) -> Result<(), StoreError> {
        let Some(dots) = self.blobs.by_key.get(key) else { return Ok(()) };
        // The same write under another dot has the same bytes, which are here now.
        let is_same = |pending: &Pending| pending.blob().is_some() && pending.blob() == entry.blob();
        let (mut dominated, mut same) = (Vec::new(), None);
        for dot in dots {
            let Some(pending) = self.blobs.pending.get(dot) else { continue };
            match entry.loses_to(&pending.entry) {
                false => dominated.push(*dot),
                true if is_same(pending) => same = Some(*dot),
                true => {}
            }
        }
        for dot in dominated {
            let Some(pending) = self.blobs.remove(dot) else { continue };
            self.store.remove_pending(dot);
            self.see(dot)?;
            let in_use = entry.blob().map(|blob| blob.id);
            if let Some(blob) = pending.blob().filter(|blob| Some(blob.id) != in_use) {
                self.store.remove_blob(BlobAddress::of(key, blob.id))?;
            }
        }
        match (same, entry.blob()) {
            (Some(dot), Some(blob)) => self.finish_pending(dot, BlobAddress::of(key, blob.id)),
            _ => Ok(()),
        }
    }

    /// The namespace is gone, and what waited in it.
    pub(super) fn forget_pending_of(&mut self, namespace: NamespaceId) -> Result<(), StoreError> {
        let dots: Vec<Dot> = self
            .blobs
            .pending
            .iter()
            .filter(|(_, pending)| pending.record.key.namespace() == namespace)
            .map(|(dot, _)| *dot)
            .collect();
        for dot in dots {
            let Some(pending) = self.blobs.remove(dot) else { continue };
            if let Some(blob) = pending.blob() {
                self.store.remove_blob(BlobAddress::of(&pending.record.key, blob.id))?;
            }
            self.store.remove_pending(dot);
            self.see(dot)?;
            self.staged = true;
        }
        Ok(())
    }

    /// Asks for missing chunks, as far as bounds allow; takes back what was asked for too long ago.
    pub(super) fn request_chunks(&mut self, now: Now) {
        self.give_up_on_late_chunks(now.mono);
        if self.blobs.retry_at.is_some_and(|at| at <= now.mono) {
            self.blobs.retry_at = None;
            self.blobs.pending.values_mut().for_each(|pending| pending.lacking.clear());
        }
        // Those that were asked for in vain come last: however many they are, they keep nobody else from being asked for.
        let mut dots: Vec<Dot> = self.blobs.pending.keys().copied().collect();
        dots.sort_by_cached_key(|dot| self.blobs.pending.get(dot).map(|pending| pending.refusals));
        for dot in dots {
            while self.blobs.asked.values().sum::<usize>() < CHUNK_REQUESTS_MAX {
                let Some(pending) = self.blobs.pending.get(&dot) else { break };
                let Some(index) = pending.missing.iter().find(|index| !pending.asked.contains_key(index)).copied()
                else {
                    break;
                };
                let Some(node) = self.holder_of(dot) else {
                    self.blobs.retry_at.get_or_insert(now.mono + CHUNK_RETRY);
                    break;
                };
                let Some(pending) = self.blobs.pending.get_mut(&dot) else { break };
                let Some(id) = pending.blob().map(|blob| blob.id) else { break };
                pending.asked.insert(index, (node, now.mono));
                let key = pending.record.key.clone();
                *self.blobs.asked.entry(node).or_default() += 1;
                self.send(node, &Message::ChunkRequest(ChunkRequest { key, id, index }));
            }
        }
    }

    /// A peer to ask: one that sent the record, or the writer, or else anyone.
    fn holder_of(&mut self, dot: Dot) -> Option<NodeId> {
        let pending = self.blobs.pending.get(&dot)?;
        let can_ask = |node: &NodeId| {
            let asked = self.blobs.asked.get(node).copied().unwrap_or(0);
            self.peers.get(node).is_some_and(|peer| peer.hello.is_some())
                && !pending.lacking.contains(node)
                && asked < CHUNK_REQUESTS_PER_PEER_MAX
        };
        let likely: Vec<NodeId> =
            pending.sources.iter().chain([&dot.origin.node]).filter(|node| can_ask(node)).copied().collect();
        let choices = match likely.is_empty() {
            true => self.peers.keys().filter(|node| can_ask(node)).copied().collect(),
            false => likely,
        };
        (!choices.is_empty()).then(|| choices[self.rng.random_range(0..choices.len())])
    }

    fn give_up_on_late_chunks(&mut self, now: Mono) {
        let mut late = Vec::new();
        for pending in self.blobs.pending.values_mut() {
            let (lacking, refusals) = (&mut pending.lacking, &mut pending.refusals);
            pending.asked.retain(|_, (node, at)| {
                let in_time = now < *at + CHUNK_TIMEOUT;
                if !in_time {
                    lacking.insert(*node);
                    *refusals = refusals.saturating_add(1);
                    late.push(*node);
                }
                in_time
            });
        }
        for node in late {
            self.blobs.answered(node);
            self.count("late_chunks");
            self.blobs.retry_at.get_or_insert(now + CHUNK_RETRY);
        }
    }

    pub(super) fn on_chunk_request(&mut self, node: NodeId, request: ChunkRequest) -> Result<(), StoreError> {
        let in_flight = self.peers.get(&node).map_or(0, |peer| peer.in_flight(Class::Blobs));
        let chunk = match in_flight < CHUNK_REQUESTS_PER_PEER_MAX * CHUNK_LEN {
            true => self.store.chunk(BlobAddress::of(&request.key, request.id), request.index)?,
            false => None,
        };
        if chunk.is_some() {
            self.count("chunks_served");
        }
        self.send(node, &Message::Chunk { request, chunk });
        Ok(())
    }

    pub(super) fn on_chunk(
        &mut self,
        node: NodeId,
        request: ChunkRequest,
        chunk: Option<Bytes>,
        now: Now,
    ) -> Result<(), StoreError> {
        if self.repair_chunk(node, &request, chunk.as_ref(), now)? {
            return Ok(());
        }
        let dots: Vec<Dot> = self.blobs.by_key.get(&request.key).into_iter().flatten().copied().collect();
        for dot in dots {
            let Some(pending) = self.blobs.pending.get_mut(&dot) else { continue };
            let Some(blob) = pending.entry.blob().filter(|blob| blob.id == request.id) else { continue };
            let asked = pending.asked.get(&request.index).is_some_and(|(asked, _)| *asked == node);
            let expected = blob.chunks.get(request.index as usize).copied();
            let address = BlobAddress::of(&request.key, blob.id);
            if asked {
                pending.asked.remove(&request.index);
                self.blobs.answered(node);
            }
            let Some(pending) = self.blobs.pending.get_mut(&dot) else { continue };
            let fits = chunk.as_ref().is_some_and(|chunk| expected == Some(*blake3::hash(chunk).as_bytes()));
            let is_welcome = fits && pending.missing.contains(&request.index);
            if !asked && !is_welcome {
                // Unasked for. A late one is welcome: on a slow way all of them are.
                continue;
            }
            match &chunk {
                None => {
                    pending.lacking.insert(node);
                    pending.refusals = pending.refusals.saturating_add(1);
                    self.blobs.retry_at.get_or_insert(now.mono + CHUNK_RETRY);
                }
                Some(_) if !fits => {
                    self.bad_peer(node, "a chunk that is not what its record says");
                    return Ok(());
                }
                Some(chunk) => {
                    pending.missing.remove(&request.index);
                    let is_complete = pending.missing.is_empty() || self.config.sabotage == Sabotage::PartialBlobs;
                    self.store.put_chunk(address, request.index, chunk.clone());
                    self.staged = true;
                    self.blobs.came_at = now.mono;
                    self.sessions_progressed(now.mono);
                    if is_complete {
                        self.finish_pending(dot, address)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn finish_pending(&mut self, dot: Dot, address: BlobAddress) -> Result<(), StoreError> {
        let Some(pending) = self.blobs.remove(dot) else { return Ok(()) };
        self.store.remove_pending(dot);
        self.store.close_blob(address);
        let key = pending.record.key;
        self.count("blobs_completed");
        if self.deleted.contains(&key.namespace()) {
            self.store.remove_blob(address)?;
            return self.see(dot);
        }
        let held = self.store.get(&key)?;
        self.merge(&key, held, pending.entry)
    }
}
