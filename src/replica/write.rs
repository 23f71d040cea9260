//! Local writes: dots, stamps and markers are made here and nowhere else.

use rand::Rng;

use super::bookmark::NodeTag;
use super::dot::{Dot, Incarnation, NodeId, Origin};
use super::entry::{Blob, BlobId, Content, Entry, Marker, Value};
use super::input::{Refusal, Reply, Request, Ticket};
use super::key::{Key, NamespaceId};
use super::limits::{ADMIT_MS_AHEAD_MAX, CHUNK_LEN, CHUNKS_MAX, INLINE_LEN_MAX, METADATA_LEN_MAX, SEAL_OVERHEAD_MAX};
use super::roster::Roster;
use super::store::{BlobAddress, Store, StoreError};
use super::{Now, Replica, Sabotage, Timestamp};

/// The current life of this node: minted at its first write, so a start that writes nothing costs nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) origin: Origin,
    pub(super) last: u64,
}

impl<S: Store> Replica<S> {
    pub(super) fn on_request(&mut self, ticket: Ticket, request: Request, now: Now) -> Result<(), StoreError> {
        let reply = match request {
            Request::Write { key, content } => match self.write(&key, content, now)? {
                Ok(written) => written,
                Err(refusal) => {
                    self.count("refused_writes");
                    Reply::Refused(refusal)
                }
            },
            Request::Reissue { key, content, marker } => self.reissue(&key, content, marker, now)?,
            Request::PutChunk { key, id, index, chunk } => {
                if chunk.len() > CHUNK_LEN + SEAL_OVERHEAD_MAX || index as usize >= CHUNKS_MAX {
                    Reply::Refused(Refusal::TooLarge)
                } else if self.holds_blob(&key, id)? {
                    // A write that is issued again has come by itself meanwhile. What is open is removed at the next start.
                    Reply::Done
                } else {
                    let address = BlobAddress::of(&key, id);
                    self.store.open_blob(address);
                    self.store.put_chunk(address, index, chunk);
                    self.staged = true;
                    Reply::Done
                }
            }
            Request::AbandonBlob { key, id } => {
                self.abandon_blob(&key, id)?;
                Reply::Done
            }
            Request::AwaitAcks { dot, level, patience_ms } => {
                return self.await_acks(ticket, dot, level, patience_ms, now);
            }
            Request::AwaitCovered { bookmark, patience_ms } => {
                return self.await_covered(ticket, bookmark, patience_ms, now);
            }
            Request::Watch => {
                let departed = self.roster.departed().map(NodeTag::of).collect();
                Reply::Watching { position: self.watch(), departed }
            }
            Request::Shorten(bookmark) => Reply::Bookmark(self.shorten(bookmark)),
            Request::Repair(damage) => {
                self.begin_repair(damage, Some(ticket), None, now);
                return Ok(());
            }
            Request::Verify { peer, repair } => return self.begin_verification(ticket, peer, repair, now),
            Request::ShareSecret(secret) => self.share_secret(secret),
            Request::Leave => self.evict(self.config.node, now)?,
            Request::Evict(node) => self.evict(node, now)?,
            Request::Status => {
                self.settle_lives();
                Reply::Status(Box::new(self.status(now)))
            }
        };
        self.reply(ticket, reply);
        Ok(())
    }

    /// Sets a register. The marker is above the clock and above what the key holds: so a node reads its own writes,
    /// and a write from a far future can be overwritten, without moving this node's clock.
    pub(super) fn write(
        &mut self,
        key: &Key,
        content: Content,
        now: Now,
    ) -> Result<Result<Reply, Refusal>, StoreError> {
        if let Some(refusal) = self.refusal_of(key) {
            return Ok(Err(refusal));
        }
        if !is_in_bounds(&content) || !self.holds_chunks(key, &content.value)? {
            return Ok(Err(Refusal::TooLarge));
        }
        let held = self.store.get(key)?;
        if let Some(refusal) = self.refusal_to_admit(key, held.as_ref(), now) {
            return Ok(Err(refusal));
        }
        let stamp = self.clock.tick(self.skew.corrected(now.wall_ms));
        let time = match &held {
            Some(held) if self.config.sabotage != Sabotage::MarkByClock => stamp.max(held.marker().time.next()),
            _ => stamp,
        };
        if time > Timestamp::CEILING {
            return Ok(Err(Refusal::Frozen));
        }
        let dot = self.next_dot();
        self.issue(key, held, dot, stamp, Marker { time, origin: dot.origin }, content, now).map(Ok)
    }

    /// A write of this node that nothing speaks against any more.
    #[allow(clippy::too_many_arguments, reason = "all that makes up an entry")]
    pub(super) fn issue(
        &mut self,
        key: &Key,
        held: Option<Entry>,
        dot: Dot,
        stamp: Timestamp,
        marker: Marker,
        content: Content,
        now: Now,
    ) -> Result<Reply, StoreError> {
        let entry = Entry::new(key, dot, stamp, marker, content);
        if let Some(blob) = entry.blob() {
            self.store.close_blob(BlobAddress::of(key, blob.id));
        }
        self.push_soon(key, &entry);
        self.hold(key, held, entry)?;
        self.versions.insert(&mut self.store, dot)?;
        self.wants_sync = self.config.sabotage != Sabotage::SkipFsync;
        self.beats.active(now.mono);
        self.count("local_writes");
        Ok(Reply::Written { dot, marker, stamp })
    }

    pub(super) fn refusal_of(&self, key: &Key) -> Option<Refusal> {
        match () {
            _ if self.superseded => Some(Refusal::Superseded),
            _ if self.is_evicted() => Some(Refusal::Evicted),
            _ if self.skew.refuses_writes() => Some(Refusal::ClockFenced(self.skew.ahead_ms())),
            _ if self.deleted.contains(&key.namespace()) => Some(Refusal::NamespaceDeleted),
            _ => None,
        }
    }

    /// A newcomer's clock starts above the stamp of its first entry on the roster. A clock that has run ahead, be it
    /// right again, would pass its error on.
    fn refusal_to_admit(&mut self, key: &Key, held: Option<&Entry>, now: Now) -> Option<Refusal> {
        let is_new = held.is_none_or(|held| held.content().value == Value::Tombstone);
        if key.namespace() != NamespaceId::NODES || *key == Roster::key(NamespaceId::NODES, self.config.node) || !is_new
        {
            return None;
        }
        let wall_ms = self.skew.corrected(now.wall_ms);
        let ahead_ms = self.clock.promise(wall_ms).ms().saturating_sub(wall_ms);
        (ahead_ms > ADMIT_MS_AHEAD_MAX).then_some(Refusal::ClockAhead(ahead_ms))
    }

    pub(super) fn next_dot(&mut self) -> Dot {
        let node = self.config.node;
        if self.life.is_none() {
            self.versions.unsettle(node);
        }
        let rng = &mut self.rng;
        let reused = (self.config.sabotage == Sabotage::ReuseOrigin).then(|| self.versions.active());
        let life = self.life.get_or_insert_with(|| {
            let incarnation = Incarnation(rng.next_u64());
            let origin = match reused {
                Some(_) => Origin { node, incarnation: Incarnation(0) },
                None => Origin { node, incarnation },
            };
            let last = reused.and_then(|versions| versions.get(origin)).map_or(0, |seen| seen.last());
            Life { origin, last }
        });
        life.last += 1;
        life.origin.dot(life.last)
    }

    /// A blob that is written must be here, whole.
    pub(super) fn holds_chunks(&self, key: &Key, value: &Value) -> Result<bool, StoreError> {
        let Value::Blob(Blob { id, chunks, .. }) = value else { return Ok(true) };
        let held = self.store.chunks_held(BlobAddress::of(key, *id), chunks.len() as u32)?;
        Ok(held.len() == chunks.len() && held.iter().all(|held| *held))
    }

    fn abandon_blob(&mut self, key: &Key, id: BlobId) -> Result<(), StoreError> {
        if !self.holds_blob(key, id)? {
            self.store.remove_blob(BlobAddress::of(key, id))?;
            self.staged = true;
        }
        Ok(())
    }

    /// Whether the key's entry refers to this blob.
    fn holds_blob(&self, key: &Key, id: BlobId) -> Result<bool, StoreError> {
        Ok(self.store.get(key)?.is_some_and(|entry| entry.blob().is_some_and(|blob| blob.id == id)))
    }

    /// Off the roster, for good: the entry goes, and the eviction that nobody can undo comes.
    fn evict(&mut self, node: NodeId, now: Now) -> Result<Reply, StoreError> {
        let tombstone = Content { expire_ms: 0, metadata: bytes::Bytes::new(), value: Value::Tombstone };
        let evicted = Content { value: Value::Inline(bytes::Bytes::from_static(&[0])), ..tombstone.clone() };
        if let Err(refusal) = self.write(&Roster::key(NamespaceId::NODES, node), tombstone, now)? {
            return Ok(Reply::Refused(refusal));
        }
        match self.write(&Roster::key(NamespaceId::EVICTED, node), evicted, now)? {
            Ok(written) => Ok(written),
            Err(refusal) => Ok(Reply::Refused(refusal)),
        }
    }
}

pub(super) fn is_in_bounds(content: &Content) -> bool {
    let value_fits = match &content.value {
        Value::Inline(bytes) => bytes.len() <= INLINE_LEN_MAX + SEAL_OVERHEAD_MAX,
        Value::Blob(blob) => {
            (1..=CHUNKS_MAX).contains(&blob.chunks.len())
                && blob.len.div_ceil(CHUNK_LEN as u64) == blob.chunks.len() as u64
        }
        Value::Tombstone => true,
        Value::Dropped(_) => false,
    };
    value_fits && content.metadata.len() <= METADATA_LEN_MAX + SEAL_OVERHEAD_MAX
}
