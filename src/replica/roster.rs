//! Who belongs to the flock: the entries of two system namespaces, read into memory.
//!
//! A node's own entry is a register that the node writes; its eviction is a separate entry that is only ever added,
//! because last-writer-wins would let a returning node undo it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::clock::Timestamp;
use super::dot::NodeId;
use super::entry::{Content, Entry, Value};
use super::key::{Key, NamespaceId};
use super::limits::ROSTER_MAX;

/// First byte of a roster value: plain postcard. (The replica must read it, so it is never sealed.)
const ROSTER_FORMAT: u8 = 0;

/// What a node tells the others about itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeInfo {
    /// For people; unique if they keep it so.
    pub name: String,
    /// IATA code of its place; empty if unknown.
    pub pop: String,
    /// Where to dial it, as `address:port`, most useful first.
    pub addresses: Vec<String>,
    /// Protocol version it speaks.
    pub protocol: u8,
    /// When it joined.
    pub joined: Timestamp,
}

impl NodeInfo {
    /// As the value of its entry.
    pub fn to_content(&self) -> Content {
        let bytes = postcard::to_extend(self, vec![ROSTER_FORMAT]).expect("node info always serializes");
        Content { expire_ms: 0, metadata: Bytes::new(), value: Value::Inline(bytes.into()) }
    }

    /// From the value of an entry, if it can be read.
    pub fn from_content(content: &Content) -> Option<Self> {
        match &content.value {
            Value::Inline(bytes) => match bytes.split_first() {
                Some((&ROSTER_FORMAT, rest)) => postcard::from_bytes(rest).ok(),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The roster.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    nodes: BTreeMap<NodeId, NodeInfo>,
    evicted: BTreeSet<NodeId>,
    /// Taken off the roster, by eviction or by the deletion of their entries.
    departed: BTreeSet<NodeId>,
    /// Those of which this node was told when it joined, and has not heard since.
    unheard: BTreeSet<NodeId>,
}

impl Roster {
    /// The key under which a node's entry stands in [`NamespaceId::NODES`] or [`NamespaceId::EVICTED`].
    pub fn key(namespace: NamespaceId, node: NodeId) -> Key {
        Key::new(namespace, &node.0.to_be_bytes()).expect("eight bytes are a key")
    }

    /// Takes notice of an entry; true if the roster changed.
    pub(super) fn observe(&mut self, key: &Key, entry: &Entry) -> bool {
        let Ok(node) = <[u8; 8]>::try_from(&key.name()[..]) else { return false };
        let node = NodeId(u64::from_be_bytes(node));
        if key.namespace() == NamespaceId::EVICTED {
            return self.evict(node);
        }
        match NodeInfo::from_content(entry.content()) {
            Some(info) if self.nodes.len() < ROSTER_MAX || self.nodes.contains_key(&node) => {
                if !self.evicted.contains(&node) {
                    self.departed.remove(&node);
                }
                let is_news = self.unheard.remove(&node);
                self.nodes.insert(node, info.clone()) != Some(info) || is_news
            }
            Some(_) => false,
            None => {
                self.departed.insert(node);
                let is_news = self.unheard.remove(&node);
                self.nodes.remove(&node).is_some() || is_news
            }
        }
    }

    pub(super) fn evict(&mut self, node: NodeId) -> bool {
        self.departed.insert(node);
        self.unheard.remove(&node);
        self.evicted.insert(node)
    }

    /// This node was told of these when it joined. A roster that lacks one is not all there is.
    pub(super) fn expect(&mut self, seeds: &[NodeId]) {
        let is_unheard = |node: &NodeId| !self.nodes.contains_key(node) && !self.departed.contains(node);
        self.unheard = seeds.iter().copied().filter(is_unheard).collect();
    }

    #[cfg(test)]
    pub(super) fn admit(&mut self, node: NodeId) {
        self.nodes.insert(node, NodeInfo::default());
    }

    /// Members: on the roster and not evicted.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &NodeInfo)> {
        self.nodes.iter().filter(|(node, _)| !self.evicted.contains(node)).map(|(node, info)| (*node, info))
    }

    /// Whether a node is a member.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node) && !self.evicted.contains(&node)
    }

    /// What a node says of itself, member or not.
    pub fn info(&self, node: NodeId) -> Option<&NodeInfo> {
        self.nodes.get(&node)
    }

    /// Nodes that were evicted.
    pub fn evicted(&self) -> impl Iterator<Item = NodeId> {
        self.evicted.iter().copied()
    }

    /// Nodes that were evicted, or whose entries were deleted.
    pub fn departed(&self) -> impl Iterator<Item = NodeId> {
        self.departed.iter().copied()
    }

    /// How many nodes this one was told of when it joined and has not heard of since.
    pub fn unheard(&self) -> usize {
        self.unheard.len()
    }

    /// The members but for one, and those that were members when this node joined and of which it has not heard yet,
    /// ascending.
    pub fn others(&self, than: NodeId) -> impl Iterator<Item = NodeId> {
        let mut members = self.members().map(|(node, _)| node).peekable();
        let mut unheard = self.unheard.iter().copied().peekable();
        let all = std::iter::from_fn(move || match (members.peek(), unheard.peek()) {
            (Some(member), Some(node)) if node < member => unheard.next(),
            (Some(_), _) => members.next(),
            (None, _) => unheard.next(),
        });
        all.filter(move |node| *node != than)
    }

    /// Whether the node was evicted: terminal.
    pub fn is_evicted(&self, node: NodeId) -> bool {
        self.evicted.contains(&node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{Dot, Incarnation, Marker, Origin};

    fn others(roster: &Roster) -> Vec<u64> {
        roster.others(NodeId(5)).map(|node| node.0).collect()
    }

    fn observe(roster: &mut Roster, node: u64, content: Content) -> bool {
        let key = Roster::key(NamespaceId::NODES, NodeId(node));
        let origin = Origin { node: NodeId(node), incarnation: Incarnation(1) };
        let (time, dot) = (Timestamp::from_ms(1), Dot { origin, seq: 1 });
        roster.observe(&key, &Entry::new(&key, dot, time, Marker { time, origin }, content))
    }

    #[test]
    fn who_was_told_of_is_among_the_others_until_it_is_heard_of_or_gone() {
        let mut roster = Roster::default();
        [5, 3, 9].into_iter().for_each(|node| roster.admit(NodeId(node)));
        roster.evict(NodeId(4));
        roster.expect(&[9, 8, 1, 4, 12].map(NodeId));
        assert_eq!((others(&roster), roster.unheard()), (vec![1, 3, 8, 9, 12], 3), "members are heard of, 4 is gone");
        assert!(observe(&mut roster, 8, NodeInfo::default().to_content()));
        assert_eq!((others(&roster), roster.unheard()), (vec![1, 3, 8, 9, 12], 2));
        let tombstone = Content { expire_ms: 0, metadata: Bytes::new(), value: Value::Tombstone };
        assert!(observe(&mut roster, 1, tombstone), "others than before");
        assert!(roster.evict(NodeId(12)));
        assert_eq!((others(&roster), roster.unheard()), (vec![3, 8, 9], 0));
    }
}
