//! Repair: what is damaged here is asked for anew, from one peer after another, and taken only if it is what this node
//! once held, or something newer.
//!
//! Knows nothing of how damage is noticed: a reader says so, or a verification.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::RngExt;

use super::digest::{Digest, RecordHash};
use super::dot::NodeId;
use super::entry::{BlobId, Entry, Record};
use super::input::{Alarm, Refusal, Reply, Ticket};
use super::key::Key;
use super::limits::{REPAIR_TIMEOUT, REPAIRS_MAX};
use super::message::{ChunkRequest, Message};
use super::store::{BlobAddress, Store, StoreError};
use super::{Mono, Now, Replica, Timestamp};

/// What is damaged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Damage {
    /// The entry of a key: its value, its metadata or its header.
    Entry(Key),
    /// One chunk of the large value of a key.
    Chunk(Key, BlobId, u32),
}

impl Damage {
    fn key(&self) -> &Key {
        match self {
            Self::Entry(key) | Self::Chunk(key, ..) => key,
        }
    }
}

/// Repairs under way.
#[derive(Default)]
pub(super) struct Repairs {
    open: BTreeMap<Damage, Repair>,
    /// An entry was put where one could not be read: whether the digest still has that one's hash is not known.
    is_digest_stale: bool,
}

struct Repair {
    tickets: Vec<Ticket>,
    /// Whom to ask alone, if a verification with it found the damage.
    only: Option<NodeId>,
    asked: BTreeSet<NodeId>,
    waiting_for: Option<(NodeId, Mono)>,
}

impl Repairs {
    pub(super) fn next_due(&self) -> Option<Mono> {
        self.open.values().filter_map(|repair| repair.waiting_for).map(|(_, at)| at + REPAIR_TIMEOUT).min()
    }
}

impl<S: Store> Replica<S> {
    /// Asks for `damage` anew. The reply, if one is wanted, says whether it was mended.
    pub(super) fn begin_repair(&mut self, damage: Damage, ticket: Option<Ticket>, only: Option<NodeId>, now: Now) {
        if let Some(repair) = self.repairs.open.get_mut(&damage) {
            repair.tickets.extend(ticket);
            return;
        }
        self.count("damaged");
        self.alarm(Alarm::Damaged(damage.key().clone()));
        if self.repairs.open.len() >= REPAIRS_MAX {
            if let Some(ticket) = ticket {
                self.reply(ticket, Reply::Refused(Refusal::Overloaded));
            }
            return;
        }
        let tickets = ticket.into_iter().collect();
        let repair = Repair { tickets, only, asked: BTreeSet::new(), waiting_for: None };
        self.repairs.open.insert(damage.clone(), repair);
        self.ask_for_repair(damage, now.mono);
    }

    /// Asks the next peer, or gives up.
    fn ask_for_repair(&mut self, damage: Damage, now: Mono) {
        let Some(repair) = self.repairs.open.get_mut(&damage) else { return };
        let can_ask = |node: &NodeId| !repair.asked.contains(node) && repair.only.is_none_or(|only| only == *node);
        let ready = self.peers.iter().filter(|(_, peer)| peer.hello.is_some()).map(|(node, _)| *node);
        let choices: Vec<NodeId> = ready.filter(can_ask).collect();
        if choices.is_empty() {
            self.count("repairs_failed");
            return self.end_repair(&damage, Reply::Refused(Refusal::NotElsewhere));
        }
        let node = choices[self.rng.random_range(0..choices.len())];
        repair.asked.insert(node);
        repair.waiting_for = Some((node, now));
        let message = match damage {
            Damage::Entry(key) => Message::RecordRequest { key },
            Damage::Chunk(key, id, index) => Message::ChunkRequest(ChunkRequest { key, id, index }),
        };
        self.send(node, &message);
    }

    fn end_repair(&mut self, damage: &Damage, reply: Reply) {
        let Some(repair) = self.repairs.open.remove(damage) else { return };
        for ticket in repair.tickets {
            self.reply(ticket, reply.clone());
        }
        self.verified_repair(damage.key(), matches!(reply, Reply::Done));
    }

    fn mended(&mut self, damage: &Damage) {
        self.count("repaired");
        self.wants_sync = true;
        self.end_repair(damage, Reply::Done);
    }

    /// Peers that did not answer in time are passed over.
    pub(super) fn repairs_on_time(&mut self, now: Mono) -> Result<(), StoreError> {
        let is_late = |repair: &Repair| repair.waiting_for.is_some_and(|(_, at)| at + REPAIR_TIMEOUT <= now);
        let late: Vec<Damage> =
            self.repairs.open.iter().filter(|(_, repair)| is_late(repair)).map(|(damage, _)| damage.clone()).collect();
        for damage in late {
            self.ask_for_repair(damage, now);
        }
        if self.repairs.is_digest_stale && self.repairs.open.is_empty() {
            // Goes through all keys, once for many repairs; a disk that rots is rare.
            let mut digest = Digest::default();
            self.store.for_each_hash(&mut |key, hash| digest.add(key, hash))?;
            (self.digest, self.repairs.is_digest_stale) = (digest, false);
        }
        Ok(())
    }

    /// A peer is gone, and its answers with it.
    pub(super) fn repairs_disconnected(&mut self, node: NodeId) {
        for repair in self.repairs.open.values_mut() {
            // Due at once.
            repair.waiting_for =
                repair.waiting_for.map(|(asked, at)| (asked, if asked == node { Mono(0) } else { at }));
        }
    }

    /// A peer's copy is damaged. What is given out is checked: rot must not spread.
    pub(super) fn on_record_request(&mut self, node: NodeId, key: Key) -> Result<(), StoreError> {
        let held = self.store.get(&key)?.filter(|entry| is_sound(&key, entry));
        let record = held.map(|entry| entry.to_record(&key));
        self.send(node, &Message::Record { key, record });
        Ok(())
    }

    pub(super) fn on_record(
        &mut self,
        node: NodeId,
        key: Key,
        record: Option<Record>,
        now: Now,
    ) -> Result<(), StoreError> {
        let damage = Damage::Entry(key);
        let is_asked = |repair: &Repair| repair.waiting_for.is_some_and(|(asked, _)| asked == node);
        if !self.repairs.open.get(&damage).is_some_and(is_asked) {
            return Ok(());
        }
        let record = record.filter(|record| record.key == *damage.key());
        let is_mended = match record {
            Some(record) => match self.decode(&record, node) {
                Some(entry) => self.mend(&record, entry, node, now)?,
                None => false,
            },
            None => false,
        };
        if is_mended {
            self.mended(&damage);
        } else {
            self.ask_for_repair(damage, now.mono);
        }
        Ok(())
    }

    /// Takes a record in place of what is held, if it is the same write or a later one. The version vector says of
    /// both that they were seen, so it has no say here.
    fn mend(&mut self, record: &Record, entry: Entry, source: NodeId, now: Now) -> Result<bool, StoreError> {
        let key = &record.key;
        let is_beyond = entry.marker().time > Timestamp::CEILING || entry.stamp > Timestamp::CEILING;
        if is_beyond || self.is_far_ahead(&entry, now) || self.deleted.contains(&key.namespace()) {
            return Ok(false);
        }
        let held = self.store.get(key)?;
        if held.as_ref().is_some_and(|held| held.hash == entry.hash) {
            self.store.put(key, &entry, Some(entry.dot));
            self.staged = true;
            return Ok(true);
        }
        if held.as_ref().is_some_and(|held| !held.loses_to(&entry)) {
            return Ok(false);
        }
        self.staged = true;
        self.repairs.is_digest_stale |= held.is_none();
        if let Some(blob) = entry.blob() {
            let address = BlobAddress::of(key, blob.id);
            if self.store.chunks_held(address, blob.chunks.len() as u32)?.contains(&false) {
                self.await_blob(record, entry, source, now)?;
                return Ok(true);
            }
        }
        self.merge(key, held, entry)?;
        Ok(true)
    }

    /// Takes a chunk that a repair asked for; false if none did.
    pub(super) fn repair_chunk(
        &mut self,
        node: NodeId,
        request: &ChunkRequest,
        chunk: Option<&Bytes>,
        now: Now,
    ) -> Result<bool, StoreError> {
        let damage = Damage::Chunk(request.key.clone(), request.id, request.index);
        let is_asked = |repair: &Repair| repair.waiting_for.is_some_and(|(asked, _)| asked == node);
        if !self.repairs.open.get(&damage).is_some_and(is_asked) {
            return Ok(false);
        }
        let held = self.store.get(&request.key)?;
        let blob = held.as_ref().and_then(Entry::blob).filter(|blob| blob.id == request.id);
        let expected = blob.and_then(|blob| blob.chunks.get(request.index as usize));
        match chunk.filter(|chunk| expected == Some(blake3::hash(chunk).as_bytes())) {
            Some(chunk) => {
                self.store.put_chunk(BlobAddress::of(&request.key, request.id), request.index, chunk.clone());
                self.staged = true;
                self.mended(&damage);
            }
            // Its copy may be damaged too: no reason to break with it.
            None => self.ask_for_repair(damage, now.mono),
        }
        Ok(true)
    }
}

/// Whether an entry is what its hash says; an entry without its bytes can't tell.
pub(super) fn is_sound(key: &Key, entry: &Entry) -> bool {
    matches!(entry.content().value, super::Value::Dropped(_)) || RecordHash::of(key, &entry.encode()) == entry.hash
}
