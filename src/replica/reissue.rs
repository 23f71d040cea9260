//! Writes of a former node issued again. Who returns after an eviction is another node over an empty store; what the
//! former one wrote and nobody else has comes back as writes of the new one, under new dots and with the markers that
//! they had: so each wins and loses as if it had come late, and no sooner.
//!
//! Nothing tells which writes had reached someone, and nothing need: this node first catches up, and what the others
//! have of them then dominates. Where that is wrong, because whoever has such a write was away, there are two dots of
//! one write. They have one marker and one content, and merge into either. So issuing again may be cut short and begun
//! anew at any time.
//!
//! Knows nothing of where the former node's store lies, nor who calls it done.

use super::clock::Timestamp;
use super::dot::NodeId;
use super::entry::{Blob, Content, Entry, Marker, Value};
use super::input::{Refusal, Reply};
use super::key::{Key, NamespaceId};
use super::repair::is_sound;
use super::store::{BlobAddress, Store, StoreError};
use super::write::is_in_bounds;
use super::{Now, Replica, Sabotage};

/// What became of a write that was to be issued again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    /// It is a write of this node now.
    Reissued,
    /// The key holds it, or a later one.
    Dominated,
    /// Its namespace is deleted.
    Deleted,
    /// It is not what was written, or not all of it is there.
    Damaged,
}

/// What to do after an answer to [`Request::Reissue`](super::Request::Reissue).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing more.
    Settled(Fate),
    /// Store the chunks of its blob, and ask again.
    Chunks,
    /// Ask again later.
    Later,
}

impl Step {
    /// After this answer.
    pub fn after(reply: &Reply) -> Self {
        match reply {
            Reply::Written { .. } => Self::Settled(Fate::Reissued),
            Reply::Dominated => Self::Settled(Fate::Dominated),
            Reply::Refused(Refusal::NamespaceDeleted) => Self::Settled(Fate::Deleted),
            Reply::Refused(Refusal::TooLarge) => Self::Settled(Fate::Damaged),
            Reply::Refused(Refusal::ChunksMissing) => Self::Chunks,
            _ => Self::Later,
        }
    }
}

/// Some of what a node wrote itself, as a store holds it.
#[derive(Clone, Debug, Default)]
pub struct OwnWrites {
    /// In byte order of their keys.
    pub writes: Vec<(Key, Entry)>,
    /// How many more there were that are not what was written.
    pub damaged: usize,
    /// Where to go on; `None` if that was all.
    pub after: Option<Key>,
}

/// What `node` wrote itself, of the `limit` entries after `after` in its store. Not what it said of the cluster: who the
/// members are, who was evicted and which keys they use is for those to say who stayed.
pub fn own_writes<S: Store>(
    store: &S,
    node: NodeId,
    after: Option<&Key>,
    limit: usize,
) -> Result<OwnWrites, StoreError> {
    let rows = store.rows(after, limit)?;
    let after = (rows.len() >= limit).then(|| rows.last().map(|(key, _)| key.clone())).flatten();
    let is_own = |key: &Key, entry: &Entry| {
        let is_of_the_cluster =
            matches!(key.namespace(), NamespaceId::NODES | NamespaceId::EVICTED | NamespaceId::CLUSTER);
        entry.dot.origin.node == node && !is_of_the_cluster
    };
    let own = rows.into_iter().filter(|(key, entry)| is_own(key, entry));
    let (writes, damaged): (Vec<_>, Vec<_>) = own.partition(|(key, entry)| is_sound(key, entry));
    Ok(OwnWrites { writes, damaged: damaged.len(), after })
}

/// A chunk of a blob as a store holds it; `None` if it is not there, or is not what was written.
pub fn sound_chunk<S: Store>(
    store: &S,
    key: &Key,
    blob: &Blob,
    index: usize,
) -> Result<Option<bytes::Bytes>, StoreError> {
    let chunk = store.chunk(BlobAddress::of(key, blob.id), index as u32)?;
    Ok(chunk.filter(|chunk| blob.chunks.get(index) == Some(blake3::hash(chunk).as_bytes())))
}

impl<S: Store> Replica<S> {
    /// Issues a write of a former node again. Nothing that the others have or have deleted is issued as long as they
    /// can tell.
    pub(super) fn reissue(
        &mut self,
        key: &Key,
        content: Content,
        marker: Marker,
        now: Now,
    ) -> Result<Reply, StoreError> {
        if !self.has_caught_up() {
            return Ok(Reply::Refused(Refusal::Behind));
        }
        if let Some(refusal) = self.refusal_of(key) {
            return Ok(Reply::Refused(refusal));
        }
        let held = self.store.get(key)?;
        let is_dominated = held.as_ref().is_some_and(|held| held.marker() >= marker);
        let may_dominate = match self.config.sabotage {
            Sabotage::ReissueBlindly | Sabotage::ReissueAnew => false,
            Sabotage::ReissueNothing => return Ok(Reply::Dominated),
            _ => true,
        };
        if (is_dominated && may_dominate) || marker.time > Timestamp::CEILING {
            return Ok(Reply::Dominated);
        }
        let content = self.without_spent_bytes(content, now);
        if !is_in_bounds(&content) {
            return Ok(Reply::Refused(Refusal::TooLarge));
        }
        if !self.holds_chunks(key, &content.value)? {
            return Ok(Reply::Refused(Refusal::ChunksMissing));
        }
        let stamp = self.clock.tick(self.skew.corrected(now.wall_ms));
        let dot = self.next_dot();
        let marker = match self.config.sabotage {
            Sabotage::ReissueAnew => {
                let above = held.as_ref().map_or(stamp, |held| held.marker().time.next());
                Marker { time: stamp.max(above), origin: dot.origin }
            }
            _ => marker,
        };
        self.count("reissued_writes");
        self.issue(key, held, dot, stamp, marker, content, now)
    }

    /// Whether what is not here may be taken for what nobody has.
    fn has_caught_up(&self) -> bool {
        self.caught_up || self.roster.others(self.config.node).next().is_none()
    }

    /// A value that has expired still hides what it had overwritten, and nobody need have its bytes any more.
    fn without_spent_bytes(&self, content: Content, now: Now) -> Content {
        match matches!(content.value, Value::Dropped(_)) || self.has_long_expired(&content, now) {
            true => Content { value: Value::Tombstone, metadata: bytes::Bytes::new(), ..content },
            false => content,
        }
    }
}
