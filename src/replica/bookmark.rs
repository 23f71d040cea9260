//! Bookmarks: what a client has read and written, small enough for a header, so that any node can tell whether it has
//! all of that too.
//!
//! A bookmark only ever asks for more than the client has seen, never for less. Origins are shortened to tags: if a tag
//! fits several, all of them must be covered. Writes that no longer fit become a moment that the watermark has to pass.
//! How a bookmark is waited for stands in `wait`.

use std::collections::BTreeSet;

use super::clock::Timestamp;
use super::dot::{Dot, NodeId, Origin};
use super::limits::BOOKMARK_LEN_MAX;
use super::roster::Roster;

/// Version of the encoding.
const FORMAT: u8 = 1;
/// No set of departed nodes has this fence: nothing covers a moment under it.
const NEVER: u32 = 0xff_ffff;
const NODE_TAG_LEN: usize = 3;
const TAG_LEN: usize = 7;

/// Seven bytes that stand for an origin: three of its node, four of its incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OriginTag([u8; TAG_LEN]);

/// Three bytes that stand for a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeTag([u8; NODE_TAG_LEN]);

impl OriginTag {
    /// The tag of an origin. Ids are random, so their low bytes are as good as any.
    pub fn of(origin: Origin) -> Self {
        let mut tag = [0; TAG_LEN];
        tag[..NODE_TAG_LEN].copy_from_slice(&NodeTag::of(origin.node).0);
        tag[NODE_TAG_LEN..].copy_from_slice(&origin.incarnation.0.to_be_bytes()[4..]);
        Self(tag)
    }

    /// As it is encoded.
    pub(super) fn to_bytes(self) -> [u8; TAG_LEN] {
        self.0
    }

    /// Takes one off the front.
    pub(super) fn pull(bytes: &mut &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(Self(*tag))
    }

    /// The part that stands for the node.
    pub fn node(self) -> NodeTag {
        let mut node = [0; NODE_TAG_LEN];
        node.copy_from_slice(&self.0[..NODE_TAG_LEN]);
        NodeTag(node)
    }
}

impl NodeTag {
    /// The tag of a node.
    pub fn of(node: NodeId) -> Self {
        let mut tag = [0; NODE_TAG_LEN];
        tag.copy_from_slice(&node.0.to_be_bytes()[8 - NODE_TAG_LEN..]);
        Self(tag)
    }
}

/// Writes of one origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The write, or the last of them.
    pub seq: u64,
    /// Every write up to it, not only it.
    pub whole: bool,
    /// A millisecond by whose end its origin had committed it.
    pub ms: u64,
}

/// Everything that anyone had committed by the end of a millisecond.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct After {
    /// Unix milliseconds.
    pub ms: u64,
    /// The nodes that had departed when this was noted: watermarks speak of members only.
    pub fence: u32,
}

/// What a client has seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bookmark {
    /// In the order of tags: few, and one is made for every request.
    marks: Vec<(OriginTag, Mark)>,
    after: Option<After>,
}

/// The bytes are not a bookmark of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedBookmark;

impl Bookmark {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.after.is_none()
    }

    /// The client has seen this write, committed at `stamp`.
    pub fn note(&mut self, dot: Dot, stamp: Timestamp) {
        self.add(OriginTag::of(dot.origin), Mark { seq: dot.seq, whole: false, ms: stamp.ms() });
    }

    /// The client has seen all that `other` speaks of.
    pub fn join(&mut self, other: &Self) {
        for (tag, mark) in &other.marks {
            self.add(*tag, *mark);
        }
        if let Some(after) = other.after {
            self.add_after(after);
        }
    }

    fn add(&mut self, tag: OriginTag, mark: Mark) {
        let at = match self.marks.binary_search_by_key(&tag, |(tag, _)| *tag) {
            Ok(at) => at,
            Err(at) => {
                self.marks.insert(at, (tag, mark));
                at
            }
        };
        let Some((_, held)) = self.marks.get_mut(at) else { return };
        if (held.seq, held.whole) != (mark.seq, mark.whole) {
            // Two writes of one origin: all up to the later one stands for both.
            *held = Mark { seq: held.seq.max(mark.seq), whole: true, ms: held.ms };
        }
        held.ms = held.ms.max(mark.ms);
    }

    fn add_after(&mut self, after: After) {
        let held = self.after.get_or_insert(after);
        held.ms = held.ms.max(after.ms);
        if held.fence != after.fence {
            held.fence = NEVER;
        }
    }

    /// What it asks for, origin by origin.
    pub fn marks(&self) -> impl Iterator<Item = (OriginTag, Mark)> {
        self.marks.iter().copied()
    }

    /// What it asks for besides.
    pub fn after(&self) -> Option<After> {
        self.after
    }

    /// What is left of it when what has passed, and what is here, is taken away.
    pub(super) fn without<E>(
        &self,
        passed: impl Fn(After) -> bool,
        is_here: impl Fn(OriginTag, Mark) -> Result<bool, E>,
    ) -> Result<Self, E> {
        let mut left = Self { marks: Vec::new(), after: self.after.filter(|after| !passed(*after)) };
        for (tag, mark) in self.marks() {
            if !is_here(tag, mark)? {
                left.marks.push((tag, mark));
            }
        }
        Ok(left)
    }

    /// Makes it short enough to be encoded. What every member has (it was stamped before `everywhere_ms`) goes first;
    /// then the oldest becomes part of the moment to wait for.
    pub fn shorten(&mut self, roster: &Roster, everywhere_ms: u64) {
        if self.fits() {
            return;
        }
        let fence = fence(roster);
        if self.after.is_some_and(|after| after.fence == fence && after.ms < everywhere_ms) {
            self.after = None;
        }
        // Nobody promises anything for nodes that are not members.
        let members: BTreeSet<NodeTag> = roster.members().map(|(node, _)| NodeTag::of(node)).collect();
        let departed: BTreeSet<NodeTag> = roster.departed().map(NodeTag::of).collect();
        let is_member = |tag: OriginTag| members.contains(&tag.node()) && !departed.contains(&tag.node());
        self.marks.retain(|(tag, mark)| mark.ms >= everywhere_ms || !is_member(*tag));
        while !self.fits() {
            let oldest = self.marks.iter().map(|(tag, mark)| (!is_member(*tag), mark.ms, *tag)).min();
            let Some((is_stranger, ms, tag)) = oldest else { return };
            self.marks.retain(|(marked, _)| *marked != tag);
            self.add_after(After { ms, fence: if is_stranger { NEVER } else { fence } });
        }
    }

    fn fits(&self) -> bool {
        self.bytes().len() <= BOOKMARK_LEN_MAX
    }

    /// At most [`BOOKMARK_LEN_MAX`] bytes; `None` if it has to be shortened first.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let bytes = self.bytes();
        (bytes.len() <= BOOKMARK_LEN_MAX).then_some(bytes)
    }

    /// Format, the latest millisecond, how much earlier `after` is (0 = there is none) with its fence, then marks: tag,
    /// seq with a bit for `whole`, how much earlier it is.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BOOKMARK_LEN_MAX);
        bytes.push(FORMAT);
        let times = self.marks.iter().map(|(_, mark)| mark.ms).chain(self.after.map(|after| after.ms));
        let Some(latest) = times.max() else { return bytes };
        bytes.extend_from_slice(&latest.to_be_bytes()[2..]);
        push_varint(&mut bytes, self.after.map_or(0, |after| latest - after.ms + 1));
        if let Some(after) = self.after {
            bytes.extend_from_slice(&after.fence.to_be_bytes()[1..]);
        }
        for (tag, mark) in &self.marks {
            bytes.extend_from_slice(&tag.0);
            push_varint(&mut bytes, mark.seq << 1 | u64::from(mark.whole));
            push_varint(&mut bytes, latest - mark.ms);
        }
        bytes
    }

    /// The inverse of [`Bookmark::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedBookmark> {
        Self::read(bytes).ok_or(MalformedBookmark)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > BOOKMARK_LEN_MAX {
            return None;
        }
        let mut bytes = bytes.strip_prefix(&[FORMAT])?;
        let mut bookmark = Self::default();
        if bytes.is_empty() {
            return Some(bookmark);
        }
        let (latest, rest) = bytes.split_first_chunk::<6>()?;
        bytes = rest;
        let latest = latest.iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte));
        let earlier = |age: u64| latest.checked_sub(age);
        if let Some(age) = pull_varint(&mut bytes)?.checked_sub(1) {
            let ([a, b, c], rest) = bytes.split_first_chunk::<3>()?;
            bytes = rest;
            bookmark.after = Some(After { ms: earlier(age)?, fence: u32::from_be_bytes([0, *a, *b, *c]) });
        }
        while !bytes.is_empty() {
            let (tag, rest) = bytes.split_first_chunk::<TAG_LEN>()?;
            bytes = rest;
            let seq = pull_varint(&mut bytes)?;
            let mark = Mark { seq: seq >> 1, whole: seq & 1 == 1, ms: earlier(pull_varint(&mut bytes)?)? };
            let tag = OriginTag(*tag);
            let Err(at) = bookmark.marks.binary_search_by_key(&tag, |(tag, _)| *tag) else { return None };
            if mark.seq == 0 {
                return None;
            }
            bookmark.marks.insert(at, (tag, mark));
        }
        Some(bookmark)
    }
}

/// Three bytes over the nodes that have departed from a roster; never [`NEVER`].
pub fn fence(roster: &Roster) -> u32 {
    let mut hasher = blake3::Hasher::new();
    for node in roster.departed() {
        hasher.update(&node.0.to_be_bytes());
    }
    let [a, b, c, ..] = *hasher.finalize().as_bytes();
    u32::from_be_bytes([0, a, b, c]).min(NEVER - 1)
}

pub(super) fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

pub(super) fn pull_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replica::Incarnation;

    fn dots() -> impl Strategy<Value = Vec<(Dot, Timestamp)>> {
        let dot = (1..9u64, 0..3u64, 1..1u64 << 34, 1_700_000_000_000..1_700_900_000_000u64);
        prop::collection::vec(dot, 0..30).prop_map(|dots| {
            let dot = |(node, incarnation, seq, ms)| {
                let origin = Origin { node: NodeId(node), incarnation: Incarnation(incarnation) };
                (origin.dot(seq), Timestamp::from_ms(ms))
            };
            dots.into_iter().map(dot).collect()
        })
    }

    fn roster(members: std::ops::Range<u64>, departed: std::ops::Range<u64>) -> Roster {
        let mut roster = Roster::default();
        for node in members {
            roster.admit(NodeId(node));
        }
        for node in departed {
            roster.evict(NodeId(node));
        }
        roster
    }

    proptest! {
        /// Whatever was noted is asked for: by a mark, by the moment to wait for, or everyone has it.
        #[test]
        fn nothing_noted_is_forgotten(dots in dots(), split in 0..30usize, everywhere in 0..900_000_000u64, gone in 1..9u64) {
            let roster = roster(1..9, gone..9);
            let everywhere_ms = 1_700_000_000_000 + everywhere;
            let mut halves = [Bookmark::default(), Bookmark::default()];
            for (index, (dot, stamp)) in dots.iter().enumerate() {
                halves[usize::from(index < split)].note(*dot, *stamp);
            }
            let [mut bookmark, mut other] = halves;
            other.shorten(&roster, 0);
            bookmark.join(&other);
            bookmark.shorten(&roster, everywhere_ms);
            let bytes = bookmark.encode().expect("it was shortened");
            prop_assert!(bytes.len() <= BOOKMARK_LEN_MAX);
            let read = Bookmark::decode(&bytes).expect("what was written can be read");
            prop_assert_eq!(&read, &bookmark);
            for (dot, stamp) in dots {
                let marked = read.marks().any(|(tag, mark)| {
                    tag == OriginTag::of(dot.origin) && mark.ms >= stamp.ms()
                        && (mark.seq == dot.seq || mark.whole && mark.seq >= dot.seq)
                });
                let is_member = dot.origin.node.0 < gone;
                let awaited = read.after().is_some_and(|after| {
                    after.ms >= stamp.ms() && (is_member || after.fence == NEVER)
                });
                let everywhere = is_member && stamp.ms() < everywhere_ms;
                prop_assert!(marked || awaited || everywhere, "{dot} at {stamp:?} is missing in {read:?}");
            }
        }

        #[test]
        fn hostile_bytes_are_refused_or_read_back(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(bookmark) = Bookmark::decode(&bytes) {
                prop_assert!(bytes.len() <= BOOKMARK_LEN_MAX);
                let again = Bookmark::decode(&bookmark.bytes());
                prop_assert_eq!(again, Ok(bookmark));
            }
        }
    }

    #[test]
    fn a_moment_is_fenced_by_the_nodes_that_have_departed() {
        let (before, after) = (roster(1..6, 5..5), roster(1..6, 5..6));
        assert_ne!(fence(&before), fence(&after));
        let mut bookmark = Bookmark::default();
        bookmark.add_after(After { ms: 5, fence: fence(&before) });
        bookmark.add_after(After { ms: 7, fence: fence(&after) });
        assert_eq!(bookmark.after(), Some(After { ms: 7, fence: NEVER }));
    }
}
