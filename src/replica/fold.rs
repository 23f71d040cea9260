//! The version vector of a replica, with the lives that are over folded away.
//!
//! Folding changes where an origin is kept, never what was seen of it: hashes and answers stay the same, so nodes
//! need not fold at the same moment, and a folded origin that turns out to have more writes is simply unfolded.

use std::collections::{BTreeMap, BTreeSet};

use super::bookmark::{Mark, NodeTag, OriginTag};
use super::dot::{Dot, Incarnation, NodeId, Origin};
use super::limits::{ORIGINS_MAX, ROSTER_MAX};
use super::message::Head;
use super::store::{Store, StoreError};
use super::version::{Seen, VersionHash, VersionVector};

/// What a replica has seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions {
    active: VersionVector,
    folded: VersionHash,
    /// What each active origin adds to the hash, and their sum.
    hashes: BTreeMap<Origin, VersionHash>,
    active_hash: VersionHash,
    /// Active origins that are over, and what they add to the hash.
    former: BTreeSet<Origin>,
    former_hash: VersionHash,
    /// Nodes of whose origins others may be over since someone last looked.
    unsettled: BTreeSet<NodeId>,
    /// Active origins with gaps.
    gappy: BTreeSet<Origin>,
    /// Hashes over the folded lives of nodes, where they were asked for.
    folded_of: BTreeMap<NodeId, VersionHash>,
    /// Changed since the last commit.
    dirty: BTreeSet<Origin>,
    intervals_max: usize,
}

impl Versions {
    pub(super) fn new(active: VersionVector, folded: VersionHash, intervals_max: usize) -> Self {
        let mut versions = Self { folded, intervals_max, ..Self::default() };
        for (origin, seen) in active.iter() {
            versions.set(origin, seen.clone());
        }
        versions.dirty.clear();
        versions
    }

    /// Origins that are not folded.
    pub(super) fn active(&self) -> &VersionVector {
        &self.active
    }

    /// Hash over the folded origins.
    pub(super) fn folded(&self) -> VersionHash {
        self.folded
    }

    /// Hash over the folded lives of one node.
    pub(super) fn folded_of(&mut self, store: &impl Store, node: NodeId) -> Result<VersionHash, StoreError> {
        if let Some(known) = self.folded_of.get(&node) {
            return Ok(*known);
        }
        let folded = store.folded_of(node)?.into_iter().filter(|(origin, _)| self.active.get(*origin).is_none());
        let of = |(origin, last)| VersionHash::of(origin, &Seen::prefix_of(last));
        let hash = folded.map(of).fold(VersionHash::default(), VersionHash::plus);
        if self.folded_of.len() < ROSTER_MAX {
            self.folded_of.insert(node, hash);
        }
        Ok(hash)
    }

    /// Whether the lives that a head leaves out, because its node has folded them, are those that are here.
    pub(super) fn has_folded(&mut self, store: &impl Store, head: &Head) -> Result<bool, StoreError> {
        let mut left_out = self.folded_of(store, head.node)?;
        let named: BTreeSet<Origin> = head.former.iter().chain(&head.life).map(|(origin, _)| *origin).collect();
        for origin in named.iter().filter(|origin| self.active.get(**origin).is_none()) {
            if let Some(last) = store.folded(*origin)? {
                left_out = left_out.minus(VersionHash::of(*origin, &Seen::prefix_of(last)));
            }
        }
        for (origin, _) in self.lives_of(head.node).filter(|(origin, _)| !named.contains(origin)) {
            left_out = left_out.plus(self.hashes.get(&origin).copied().unwrap_or_default());
        }
        Ok(left_out.short() == head.folded)
    }

    /// Hash over all origins.
    pub(super) fn hash(&self) -> VersionHash {
        self.folded.plus(self.active_hash)
    }

    /// Hash over the lives that are over, folded or not, as of the last [`Versions::settle`].
    pub(super) fn former_hash(&self) -> VersionHash {
        self.folded.plus(self.former_hash)
    }

    /// Lives that are over and not folded, as of the last [`Versions::settle`].
    pub(super) fn former_lives(&self) -> impl Iterator<Item = Origin> {
        self.former.iter().copied()
    }

    /// A node may have begun another life.
    pub(super) fn unsettle(&mut self, node: NodeId) {
        self.unsettled.insert(node);
    }

    /// Every node may have.
    pub(super) fn unsettle_all(&mut self) {
        self.unsettled.extend(self.hashes.keys().map(|origin| origin.node));
    }

    /// Which origins are over can't be seen from here, so it is asked, where something has happened.
    pub(super) fn settle(&mut self, is_former: impl Fn(Origin) -> bool) {
        for node in std::mem::take(&mut self.unsettled) {
            let lives: Vec<Origin> = self.lives_of(node).map(|(origin, _)| origin).collect();
            for origin in lives {
                let hash = self.hashes.get(&origin).copied().unwrap_or_default();
                if is_former(origin) {
                    if self.former.insert(origin) {
                        self.former_hash = self.former_hash.plus(hash);
                    }
                } else if self.former.remove(&origin) {
                    self.former_hash = self.former_hash.minus(hash);
                }
            }
        }
        debug_assert!(self.former.iter().eq(self.hashes.keys().filter(|origin| is_former(**origin))));
    }

    /// Active origins of one node.
    pub(super) fn lives_of(&self, node: NodeId) -> impl Iterator<Item = (Origin, &Seen)> {
        let [first, last] = [0, u64::MAX].map(|number| Origin { node, incarnation: Incarnation(number) });
        self.active.range(first, last)
    }

    /// Intervals of the active origin that has most of them.
    pub(super) fn intervals_max(&self) -> usize {
        let intervals = |origin: &Origin| self.active.get(*origin).map_or(0, Seen::intervals);
        self.gappy.iter().map(intervals).max().unwrap_or(0)
    }

    /// Origins of which something was seen since the last commit.
    pub(super) fn changed(&self) -> impl Iterator<Item = Origin> {
        self.dirty.iter().copied()
    }

    fn set(&mut self, origin: Origin, mut seen: Seen) {
        seen.forget_intervals_over(self.intervals_max);
        let hash = VersionHash::of(origin, &seen);
        let before = self.hashes.insert(origin, hash);
        self.active_hash = self.active_hash.minus(before.unwrap_or_default()).plus(hash);
        if before.is_none() {
            self.unsettled.insert(origin.node);
        } else if self.former.contains(&origin) {
            self.former_hash = self.former_hash.minus(before.unwrap_or_default()).plus(hash);
        }
        match seen.is_gapless() {
            true => self.gappy.remove(&origin),
            false => self.gappy.insert(origin),
        };
        self.active.set(origin, seen);
        self.dirty.insert(origin);
    }

    fn forget(&mut self, origin: Origin) {
        self.active.remove(origin);
        let hash = self.hashes.remove(&origin).unwrap_or_default();
        self.active_hash = self.active_hash.minus(hash);
        if self.former.remove(&origin) {
            self.former_hash = self.former_hash.minus(hash);
        }
        self.gappy.remove(&origin);
        self.dirty.remove(&origin);
    }

    pub(super) fn contains(&self, store: &impl Store, dot: Dot) -> Result<bool, StoreError> {
        match self.active.get(dot.origin) {
            Some(seen) => Ok(seen.contains(dot.seq)),
            None => Ok(store.folded(dot.origin)?.is_some_and(|last| dot.seq <= last)),
        }
    }

    /// Last write of the gapless prefix of an origin.
    pub(super) fn prefix(&self, store: &impl Store, origin: Origin) -> Result<u64, StoreError> {
        match self.active.get(origin) {
            Some(seen) => Ok(seen.prefix()),
            None => Ok(store.folded(origin)?.unwrap_or(0)),
        }
    }

    /// Whether all that a mark asks for was seen, whichever of the origins with its tag is meant. Folded lives are
    /// looked up for `nodes`, those that the tag may name.
    pub(super) fn covers(
        &self,
        store: &impl Store,
        tag: OriginTag,
        mark: Mark,
        nodes: impl Iterator<Item = NodeId>,
    ) -> Result<bool, StoreError> {
        let covers = |seen: &Seen| if mark.whole { seen.prefix() >= mark.seq } else { seen.contains(mark.seq) };
        let mut is_known = false;
        for (_, seen) in self.active.iter().filter(|(origin, _)| OriginTag::of(*origin) == tag) {
            if !covers(seen) {
                return Ok(false);
            }
            is_known = true;
        }
        for node in nodes.filter(|node| NodeTag::of(*node) == tag.node()) {
            for (origin, last) in store.folded_of(node)? {
                if OriginTag::of(origin) == tag && self.active.get(origin).is_none() {
                    if last < mark.seq {
                        return Ok(false);
                    }
                    is_known = true;
                }
            }
        }
        Ok(is_known)
    }

    pub(super) fn insert(&mut self, store: &mut impl Store, dot: Dot) -> Result<(), StoreError> {
        if self.contains(store, dot)? || self.is_full_for(dot.origin) {
            return Ok(());
        }
        self.unfold(store, dot.origin)?;
        let mut seen = self.active.get(dot.origin).cloned().unwrap_or_default();
        seen.insert(dot.seq);
        self.set(dot.origin, seen);
        Ok(())
    }

    /// Whether another origin would be one too many.
    pub(super) fn is_full_for(&self, origin: Origin) -> bool {
        self.active.len() >= ORIGINS_MAX && self.active.get(origin).is_none()
    }

    /// Forgets that more than `last` writes of an active origin were seen; whether it was so.
    pub(super) fn cut(&mut self, origin: Origin, last: u64) -> bool {
        let Some(seen) = self.active.get(origin).filter(|seen| seen.last() > last) else { return false };
        let seen = seen.up_to(last);
        self.set(origin, seen);
        true
    }

    /// Joins what a complete session has brought.
    pub(super) fn join(&mut self, store: &mut impl Store, versions: &VersionVector) -> Result<(), StoreError> {
        for (origin, seen) in versions.iter() {
            let known = match self.active.get(origin) {
                Some(mine) => mine.covers(seen),
                None => store.folded(origin)?.is_some_and(|last| Seen::prefix_of(last).covers(seen)),
            };
            if known || *seen == Seen::default() || self.is_full_for(origin) {
                continue;
            }
            self.unfold(store, origin)?;
            let mut joined = self.active.get(origin).cloned().unwrap_or_default();
            joined.join(seen);
            self.set(origin, joined);
        }
        Ok(())
    }

    fn unfold(&mut self, store: &mut impl Store, origin: Origin) -> Result<(), StoreError> {
        if self.active.get(origin).is_none()
            && let Some(last) = store.folded(origin)?
        {
            let seen = Seen::prefix_of(last);
            self.folded = self.folded.minus(VersionHash::of(origin, &seen));
            self.folded_of.remove(&origin.node);
            self.set(origin, seen);
            store.unfold(origin);
        }
        Ok(())
    }

    /// Folds an origin that has no gaps.
    pub(super) fn fold(&mut self, store: &mut impl Store, origin: Origin) {
        if let Some(seen) = self.active.get(origin).filter(|seen| seen.is_gapless()).cloned() {
            self.forget(origin);
            self.folded = self.folded.plus(VersionHash::of(origin, &seen));
            self.folded_of.remove(&origin.node);
            store.fold(origin, seen.last());
        }
    }

    /// Stages what has changed since the last commit.
    pub(super) fn stage(&mut self, store: &mut impl Store) {
        for origin in std::mem::take(&mut self.dirty) {
            if let Some(seen) = self.active.get(origin) {
                store.set_seen(origin, seen);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{MemStore, Timestamp};

    const NODE: NodeId = NodeId(1);

    fn life(number: u64) -> Origin {
        Origin { node: NODE, incarnation: Incarnation(number) }
    }

    fn head(versions: &mut Versions, store: &MemStore, current: Origin) -> Head {
        let seen = versions.lives_of(NODE).map(|(origin, seen)| (origin, seen.last()));
        let (life, former): (Vec<_>, Vec<_>) = seen.partition(|(origin, _)| *origin == current);
        let folded = versions.folded_of(store, NODE).expect("memory does not fail").short();
        let (stamp, watermark) = (Timestamp::from_ms(9), Timestamp::default());
        Head { node: NODE, former, folded, life: life.first().copied(), stamp, watermark }
    }

    #[test]
    fn a_head_leaves_out_what_is_folded_and_who_lacks_that_can_tell() {
        let write =
            |versions: &mut Versions, store: &mut MemStore, origin: Origin, seqs: std::ops::RangeInclusive<u64>| {
                seqs.for_each(|seq| versions.insert(store, origin.dot(seq)).expect("memory does not fail"));
            };
        let (mut writer, mut at_writer) = (Versions { intervals_max: 9, ..Versions::default() }, MemStore::default());
        let (mut joiner, mut at_joiner) = (Versions { intervals_max: 9, ..Versions::default() }, MemStore::default());
        write(&mut writer, &mut at_writer, life(1), 1..=5);
        write(&mut writer, &mut at_writer, life(2), 1..=2);
        let before = head(&mut writer, &at_writer, life(2));
        writer.fold(&mut at_writer, life(1));
        let after = head(&mut writer, &at_writer, life(2));
        assert!(before.folded == 0 && after.folded != 0 && after.former.is_empty());
        let knows = |joiner: &mut Versions, store: &MemStore| {
            [&before, &after].map(|head| joiner.has_folded(store, head).expect("memory does not fail"))
        };
        write(&mut joiner, &mut at_joiner, life(2), 1..=2);
        assert_eq!(knows(&mut joiner, &at_joiner), [true, false], "all that is named is here, and not all there is");
        write(&mut joiner, &mut at_joiner, life(1), 1..=4);
        assert_eq!(knows(&mut joiner, &at_joiner), [true, false]);
        write(&mut joiner, &mut at_joiner, life(1), 5..=5);
        assert_eq!(knows(&mut joiner, &at_joiner), [true, true], "not folded here yet");
        joiner.fold(&mut at_joiner, life(1));
        assert_eq!(knows(&mut joiner, &at_joiner), [true, true], "folded here, too");
        write(&mut joiner, &mut at_joiner, life(1), 6..=6);
        assert_eq!(knows(&mut joiner, &at_joiner), [true, false], "the writer has lost one");
    }
}
