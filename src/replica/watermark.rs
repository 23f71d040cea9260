//! Watermarks: up to which moment a node holds everything that anyone committed, on disk.
//!
//! Every node promises through its head that later writes will be stamped later. Once all writes that a head speaks of
//! are here and durable, everything up to its stamp is. A watermark never overstates; it may lag.

use std::collections::{BTreeMap, BTreeSet};

use super::clock::{Mono, Timestamp};
use super::dot::{NodeId, Origin};
use super::limits::ROSTER_MAX;
use super::message::Head;

/// What is known of each node's own writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Heads {
    nodes: BTreeMap<NodeId, Known>,
    /// Nodes whose awaited head must be compared with what is here: it is new, or more of their writes came.
    unchecked: BTreeSet<NodeId>,
    /// Nodes with something covered that is not known to be durable.
    unsynced: BTreeSet<NodeId>,
    /// The member that held the watermark up when it was last looked for, and the watermark.
    slowest: Option<(NodeId, Timestamp)>,
    /// Where the next beat begins to relay.
    relayed: NodeId,
}

#[derive(Clone, Debug)]
struct Known {
    latest: Head,
    /// A head whose writes are not all here yet. It is kept until they are, or steady writes would starve it.
    awaited: Option<Box<(Head, Mono)>>,
    /// What is here is of other lives than those that the awaited head speaks of: a later one may do.
    is_odd: bool,
    /// Covered as of these commits, which may not be durable yet: commit → stamp.
    covered: BTreeMap<u64, Timestamp>,
    durable: Timestamp,
}

/// What a head has told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum News {
    /// Nothing: the node had said later things.
    Old,
    /// Something of a life that was known.
    SameLife,
    /// That the node is known at all, or lives anew.
    NewLife,
}

/// How what is here compares with what a head speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holds {
    /// All of it is here.
    All,
    /// Some writes are not.
    Less,
    /// Its node has folded lives that are not here, or not all that are here: it may be older than what is here.
    OtherLives,
}

impl Heads {
    /// Takes notice of a head, first-hand or relayed.
    pub(super) fn observe(&mut self, head: Head, now: Mono) -> News {
        let is_full = self.nodes.len() >= ROSTER_MAX;
        match self.nodes.get_mut(&head.node) {
            Some(known) if known.latest.stamp > head.stamp => News::Old,
            // A node whose clock stands may still learn of lives, and fold them.
            Some(known) if known.latest.stamp == head.stamp && !known.is_odd => News::Old,
            Some(known) => {
                let former = std::mem::replace(&mut known.latest, head);
                let lives = |head: &Head| (head.life, head.folded);
                let is_still = lives(&former) == lives(&known.latest) && former.former == known.latest.former;
                match (&mut known.awaited, is_still && known.covered.is_empty()) {
                    (Some(awaited), _) if known.is_odd => {
                        awaited.0 = known.latest.clone();
                        self.unchecked.insert(known.latest.node);
                    }
                    (Some(_), _) => {}
                    // It has written nothing since, and all that it had written is on disk here.
                    (None, true) => known.durable = known.latest.stamp.max(known.durable),
                    (None, false) => {
                        known.awaited = Some(Box::new((known.latest.clone(), now)));
                        self.unchecked.insert(known.latest.node);
                    }
                }
                let life = |head: &Head| head.life.map(|(origin, _)| origin);
                match life(&former) == life(&known.latest) {
                    true => News::SameLife,
                    false => News::NewLife,
                }
            }
            // A lying peer may name any number of nodes.
            None if is_full => News::Old,
            None => {
                self.unchecked.insert(head.node);
                let known = Known {
                    latest: head.clone(),
                    awaited: Some(Box::new((head.clone(), now))),
                    is_odd: false,
                    covered: BTreeMap::new(),
                    durable: Timestamp::default(),
                };
                self.nodes.insert(head.node, known);
                News::NewLife
            }
        }
    }

    /// More writes of these nodes have come.
    pub(super) fn recheck(&mut self, nodes: impl Iterator<Item = NodeId>) {
        self.unchecked.extend(nodes);
    }

    /// The lives that heads speak of which are not covered yet.
    pub(super) fn awaited_lives(&self) -> impl Iterator<Item = Origin> {
        let awaited = self.nodes.values().filter_map(|known| known.awaited.as_deref());
        awaited.flat_map(|(head, _)| head.former.iter().chain(&head.life)).map(|(life, _)| *life)
    }

    /// Nothing more will come of these lives.
    pub(super) fn release(&mut self, lives: &[Origin]) {
        for (node, known) in &mut self.nodes {
            let Some((head, _)) = known.awaited.as_deref_mut() else { continue };
            for (life, last) in head.former.iter_mut().chain(&mut head.life) {
                if lives.contains(life) {
                    *last = 0;
                }
            }
            self.unchecked.insert(*node);
        }
    }

    /// Up to `count` heads to relay, none of them of `to`: others each time.
    pub(super) fn relay(&mut self, to: NodeId, count: usize) -> Vec<Head> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.nodes.range((Excluded(self.relayed), Unbounded));
        let heads = after.chain(self.nodes.range(..=self.relayed)).map(|(_, known)| &known.latest);
        let heads: Vec<Head> = heads.filter(|head| head.node != to).take(count).cloned().collect();
        if let Some(last) = heads.last() {
            self.relayed = last.node;
        }
        heads
    }

    /// Of how many nodes something is known.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The latest head of a node.
    pub(super) fn get(&self, node: NodeId) -> Option<&Head> {
        self.nodes.get(&node).map(|known| &known.latest)
    }

    /// Since when this node has waited for writes of `node`; `None` if it has all it has heard of.
    pub(super) fn behind_since(&self, node: NodeId) -> Option<Mono> {
        self.nodes.get(&node)?.awaited.as_ref().map(|awaited| awaited.1)
    }

    /// Whether writes of anyone have been waited for since before `moment`.
    pub(super) fn is_behind_since(&self, moment: Mono) -> bool {
        self.nodes.values().any(|known| known.awaited.as_ref().is_some_and(|awaited| awaited.1 < moment))
    }

    /// Checks awaited heads against what commit number `commit` will have made visible.
    pub(super) fn cover<E>(
        &mut self,
        commit: u64,
        now: Mono,
        mut holds: impl FnMut(&Head) -> Result<Holds, E>,
    ) -> Result<(), E> {
        for node in std::mem::take(&mut self.unchecked) {
            let Some(known) = self.nodes.get_mut(&node) else { continue };
            let Some(awaited) = known.awaited.as_deref_mut() else { continue };
            let held = holds(&awaited.0)?;
            known.is_odd = held == Holds::OtherLives;
            if known.is_odd && awaited.0.stamp < known.latest.stamp {
                awaited.0 = known.latest.clone();
                known.is_odd = holds(&awaited.0)? != Holds::All;
                if known.is_odd {
                    continue;
                }
            } else if held != Holds::All {
                continue;
            }
            let head = &awaited.0;
            known.covered.insert(commit, head.stamp);
            self.unsynced.insert(node);
            // The bound: only the latest of what waits for the disk is of use.
            while known.covered.len() > 2 {
                let middle = known.covered.keys().nth(1).copied();
                middle.and_then(|commit| known.covered.remove(&commit));
            }
            known.awaited = (known.latest.stamp > head.stamp).then(|| Box::new((known.latest.clone(), now)));
            if known.awaited.is_some() {
                self.unchecked.insert(node);
            }
        }
        Ok(())
    }

    /// Everything up to `commit` is on disk.
    pub(super) fn synced(&mut self, commit: u64) {
        let nodes = &mut self.nodes;
        self.unsynced.retain(|node| {
            let Some(known) = nodes.get_mut(node) else { return false };
            let later = known.covered.split_off(&(commit + 1));
            if let Some((_, stamp)) = std::mem::replace(&mut known.covered, later).pop_last() {
                known.durable = known.durable.max(stamp);
            }
            !known.covered.is_empty()
        });
    }

    /// All writes of all `members`, who come in order, stamped up to this are here, on disk.
    pub(super) fn watermark(&self, members: impl Iterator<Item = NodeId>) -> Timestamp {
        self.find_slowest(members).map_or(Timestamp::default(), |(_, durable)| durable)
    }

    /// The same. What nodes have on disk here only grows, so it stands until the slowest member has more.
    pub(super) fn watermark_of(&mut self, members: impl Iterator<Item = NodeId>) -> Timestamp {
        if self.slowest.is_none_or(|(node, durable)| self.durable(node) != durable) {
            self.slowest = self.find_slowest(members);
        } else {
            debug_assert_eq!(self.slowest.map(|(_, durable)| durable), Some(self.watermark(members)));
        }
        self.slowest.map_or(Timestamp::default(), |(_, durable)| durable)
    }

    /// The roster is another one.
    pub(super) fn members_changed(&mut self) {
        self.slowest = None;
    }

    fn durable(&self, node: NodeId) -> Timestamp {
        self.nodes.get(&node).map_or(Timestamp::default(), |known| known.durable)
    }

    /// Of members in ascending order: both lists are walked once.
    fn find_slowest(&self, members: impl Iterator<Item = NodeId>) -> Option<(NodeId, Timestamp)> {
        let mut heads = self.nodes.iter().peekable();
        let durable = |member| {
            while heads.next_if(|(node, _)| **node < member).is_some() {}
            let durable = heads.next_if(|(node, _)| **node == member).map(|(_, known)| known.durable);
            (member, durable.unwrap_or_default())
        };
        members.map(durable).min_by_key(|(_, durable)| *durable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(stamp: u64) -> Head {
        Head {
            node: NodeId(1),
            former: Vec::new(),
            folded: 0,
            life: None,
            stamp: Timestamp(stamp),
            watermark: Timestamp::default(),
        }
    }

    #[test]
    fn a_watermark_rises_only_when_covered_and_on_disk() {
        let mut heads = Heads::default();
        let members = || [NodeId(1)].into_iter();
        heads.observe(head(10), Mono(1));
        heads.cover(1, Mono(1), |_| Ok::<_, ()>(Holds::Less)).unwrap();
        heads.synced(1);
        assert_eq!(heads.watermark(members()), Timestamp(0));
        heads.observe(head(20), Mono(2));
        assert_eq!(heads.behind_since(NodeId(1)), Some(Mono(1)));
        heads.recheck([NodeId(1)].into_iter());
        heads
            .cover(2, Mono(3), |head| Ok::<_, ()>(if head.stamp == Timestamp(10) { Holds::All } else { Holds::Less }))
            .unwrap();
        assert_eq!(heads.watermark(members()), Timestamp(0), "not on disk yet");
        heads.synced(2);
        assert_eq!(heads.watermark(members()), Timestamp(10));
        heads.cover(3, Mono(4), |_| Ok::<_, ()>(Holds::All)).unwrap();
        heads.synced(3);
        assert_eq!(heads.watermark(members()), Timestamp(20));
        assert_eq!(heads.behind_since(NodeId(1)), None);
        assert_eq!(heads.watermark([NodeId(1), NodeId(2)].into_iter()), Timestamp(0), "an unheard member holds it");
    }

    #[test]
    fn what_waits_for_the_disk_is_bounded_and_nothing_is_overstated() {
        let mut heads = Heads::default();
        for stamp in 1..=10 {
            heads.observe(head(stamp), Mono(stamp));
            heads.cover(stamp, Mono(stamp), |_| Ok::<_, ()>(Holds::All)).unwrap();
        }
        heads.synced(5);
        let watermark = heads.watermark([NodeId(1)].into_iter());
        assert!(watermark <= Timestamp(5), "{watermark:?}");
        heads.synced(10);
        assert_eq!(heads.watermark([NodeId(1)].into_iter()), Timestamp(10));
    }

    #[test]
    fn a_head_of_other_lives_gives_way_to_a_later_one() {
        let mut heads = Heads::default();
        let members = || [NodeId(1)].into_iter();
        heads.observe(Head { folded: 7, ..head(10) }, Mono(1));
        heads.cover(1, Mono(1), |_| Ok::<_, ()>(Holds::OtherLives)).unwrap();
        heads.synced(1);
        assert_eq!(heads.watermark(members()), Timestamp(0));
        heads.observe(Head { folded: 8, ..head(20) }, Mono(2));
        let holds = |head: &Head| if head.folded == 8 { Holds::All } else { Holds::OtherLives };
        heads.cover(2, Mono(2), |head| Ok::<_, ()>(holds(head))).unwrap();
        heads.synced(2);
        assert_eq!(heads.watermark(members()), Timestamp(20));
    }
}
