//! The change feed's half of the replica: which entries changed in a turn, and how far a reader of the feed is.
//!
//! Notes keys, not contents, and only while somebody watches. A position never claims more than was given out: a reader
//! that goes on from one, at any node, may be given a change again and never misses one.

use std::collections::BTreeMap;

use super::bookmark::{Bookmark, NodeTag, OriginTag, pull_varint, push_varint};
use super::dot::{Dot, Origin};
use super::entry::{Entry, Marker};
use super::input::Output;
use super::key::Key;
use super::limits::{BOOKMARK_LEN_MAX, CHANGES_PER_BATCH_MAX};
use super::store::{Store, StoreError};
use super::{Replica, Sabotage};

/// Version of the encoding; a bookmark's differs, so that neither is taken for the other.
const FORMAT: u8 = 2;
/// Origins that a position tells apart.
const ORIGINS_MAX: usize = 3;

/// An entry changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub key: Key,
    /// The write.
    pub dot: Dot,
    /// Its place in the order of the key's writes.
    pub marker: Marker,
    /// Whoever was given this change, and those before it, was given all of its origin up to it.
    pub whole: bool,
}

/// Changes of one commit, or a part of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// In the order in which they were made here.
    pub changes: Vec<Change>,
    /// Who has been given these too has all that was committed before this millisecond; 0 = as before.
    pub held_ms: u64,
}

/// How far a reader is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Position {
    /// It has all that members committed before this millisecond.
    held_ms: u64,
    /// Of these origins, it has every write up to a seq. The most recent last.
    origins: Vec<(OriginTag, u64)>,
}

/// What was noted in this turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    is_watched: bool,
    changes: Vec<Change>,
}

impl Position {
    /// With everything before a millisecond.
    pub fn held(held_ms: u64) -> Self {
        Self { held_ms, origins: Vec::new() }
    }

    /// The moment of a bookmark: what it names, and what anyone had committed before the oldest of that, counts as
    /// given.
    pub fn of_bookmark(bookmark: &Bookmark) -> Self {
        let moments = bookmark.marks().map(|(_, mark)| mark.ms).chain(bookmark.after().map(|after| after.ms));
        let mut position = Self::held(moments.min().unwrap_or(0));
        for (tag, mark) in bookmark.marks() {
            position.reach(tag, mark.seq);
        }
        position
    }

    /// A change was given.
    pub fn gave(&mut self, change: &Change) {
        if change.whole {
            self.reach(OriginTag::of(change.dot.origin), change.dot.seq);
        }
    }

    /// All of a batch was given.
    pub fn gave_all(&mut self, changes: &Changes) {
        self.held_ms = self.held_ms.max(changes.held_ms);
    }

    fn reach(&mut self, tag: OriginTag, seq: u64) {
        let before = self.origins.iter().position(|(known, _)| *known == tag).map(|at| self.origins.remove(at).1);
        self.origins.push((tag, before.unwrap_or(0).max(seq)));
        if self.origins.len() > ORIGINS_MAX {
            // What is forgotten is given again.
            self.origins.remove(0);
        }
    }

    /// Whether a reader at this position has been given an entry. Watermarks speak of members only, so what
    /// `departed` nodes wrote counts as given only where it is named.
    pub fn has(&self, entry: &Entry, departed: impl Fn(NodeTag) -> bool) -> bool {
        let tag = OriginTag::of(entry.dot.origin);
        let is_named = self.origins.iter().any(|(known, seq)| *known == tag && entry.dot.seq <= *seq);
        is_named || entry.stamp.ms() < self.held_ms && !departed(tag.node())
    }

    /// At most [`BOOKMARK_LEN_MAX`] bytes: format, millisecond, then tag and seq of each origin.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.held_ms.to_be_bytes()[2..]);
        for (tag, seq) in self.origins.iter().rev() {
            let before = bytes.len();
            bytes.extend_from_slice(&tag.to_bytes());
            push_varint(&mut bytes, *seq);
            if bytes.len() > BOOKMARK_LEN_MAX {
                bytes.truncate(before);
                break;
            }
        }
        bytes
    }

    /// The inverse of [`Position::encode`]; also takes a bookmark for its moment.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > BOOKMARK_LEN_MAX {
            return None;
        }
        if let Ok(bookmark) = Bookmark::decode(bytes) {
            return Some(Self::of_bookmark(&bookmark));
        }
        let (held_ms, mut bytes) = bytes.strip_prefix(&[FORMAT])?.split_first_chunk::<6>()?;
        let mut position = Self::held(held_ms.iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte)));
        while !bytes.is_empty() {
            let tag = OriginTag::pull(&mut bytes)?;
            position.origins.insert(0, (tag, pull_varint(&mut bytes)?));
        }
        (position.origins.len() <= ORIGINS_MAX).then_some(position)
    }
}

impl<S: Store> Replica<S> {
    /// From the end of this turn on every change is an [`Output::Changed`], until [`Replica::unwatch`]. All that
    /// the position speaks of is in the store by then.
    pub(super) fn watch(&mut self) -> Position {
        self.watch.is_watched = true;
        Position::held(self.given_ms())
    }

    /// Nobody watches any more.
    pub fn unwatch(&mut self) {
        self.watch = Watch::default();
    }

    /// `key` holds another entry.
    pub(super) fn changed(&mut self, key: &Key, entry: &Entry) {
        if self.watch.is_watched && !key.namespace().is_system() {
            let change = Change { key: key.clone(), dot: entry.dot, marker: entry.marker(), whole: false };
            self.watch.changes.push(change);
        }
    }

    /// Everything that members committed before this millisecond is here.
    fn given_ms(&mut self) -> u64 {
        match self.config.sabotage == Sabotage::BoastfulPositions {
            true => self.clock.promise(0).ms(),
            false => self.held_upto().min(self.clock.promise(0)).ms(),
        }
    }

    /// Gives out what has changed in the turn that was just committed.
    pub(super) fn tell_changes(&mut self) -> Result<(), StoreError> {
        let mut changes = std::mem::take(&mut self.watch.changes);
        if changes.is_empty() {
            return Ok(());
        }
        // A later write that is told before an earlier one does not stand for it.
        let mut reached: BTreeMap<Origin, (u64, bool)> = BTreeMap::new();
        for Change { dot, .. } in &changes {
            let (last, in_order) = reached.entry(dot.origin).or_insert((0, true));
            *in_order &= dot.seq > *last;
            *last = dot.seq;
        }
        for change in &mut changes {
            let Dot { origin, seq } = change.dot;
            let in_order = reached.get(&origin).is_some_and(|(_, in_order)| *in_order);
            change.whole = in_order && self.versions.prefix(&self.store, origin)? >= seq;
        }
        let held_ms = self.given_ms();
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(CHANGES_PER_BATCH_MAX));
            let held_ms = if rest.is_empty() { held_ms } else { 0 };
            self.outputs.push_back(Output::Changed(Changes { changes, held_ms }));
            changes = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{Content, Incarnation, NamespaceId, NodeId, Timestamp, Value};

    fn entry(node: u64, seq: u64, ms: u64) -> Entry {
        let key = Key::new(NamespaceId([7; 16]), b"k").expect("a short key");
        let (origin, time) = (Origin { node: NodeId(node), incarnation: Incarnation(5) }, Timestamp::from_ms(ms));
        let content = Content { expire_ms: 0, metadata: Default::default(), value: Value::Tombstone };
        Entry::new(&key, origin.dot(seq), time, Marker { time, origin }, content)
    }

    fn change(node: u64, seq: u64) -> Change {
        let entry = entry(node, seq, 1);
        let key = Key::new(NamespaceId([7; 16]), b"k").expect("a short key");
        Change { key, dot: entry.dot, marker: entry.marker(), whole: true }
    }

    #[test]
    fn a_position_reads_back_and_forgets_the_oldest_origin() {
        let mut position = Position::held(1_000);
        for node in 1..=4 {
            position.gave(&change(node, 10 * node));
        }
        let read = Position::decode(&position.encode()).expect("what was written can be read");
        assert_eq!(read, position);
        let nobody = |_| false;
        assert!(read.has(&entry(9, 1, 999), nobody) && !read.has(&entry(9, 1, 1_000), nobody));
        assert!(!read.has(&entry(1, 10, 2_000), nobody), "forgotten, so it is given again");
        assert!(read.has(&entry(4, 40, 2_000), nobody) && !read.has(&entry(4, 41, 2_000), nobody));
        let four_departed = |node| node == NodeTag::of(NodeId(9));
        assert!(!read.has(&entry(9, 1, 999), four_departed), "a watermark does not speak of it");
        let mut large = Position::held(u64::MAX >> 16);
        (1..=3).for_each(|node| large.gave(&change(node, u64::MAX >> 1)));
        assert!(large.encode().len() <= BOOKMARK_LEN_MAX);
        assert!(Position::decode(&large.encode()).is_some());
    }

    #[test]
    fn a_bookmark_stands_for_its_moment() {
        let mut bookmark = Bookmark::default();
        let written = entry(1, 5, 2_000);
        bookmark.note(written.dot, written.stamp);
        let position = Position::decode(&bookmark.encode().expect("short")).expect("a bookmark");
        let nobody = |_| false;
        assert!(position.has(&written, nobody) && position.has(&entry(2, 9, 1_999), nobody));
        assert!(!position.has(&entry(1, 6, 2_000), nobody) && !position.has(&entry(2, 9, 2_000), nobody));
    }
}
