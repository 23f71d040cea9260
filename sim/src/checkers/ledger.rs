//! Every write there has been, as its origin made it.

use std::collections::{BTreeMap, BTreeSet};

use starling::replica::{
    Dot, Edits, Entry, Image, Key, Marker, NamespaceId, NodeId, Origin, RecordHash, Timestamp, Value,
};

use crate::host::Host;

/// One write.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its address.
    pub dot: Dot,
    /// Of what.
    pub key: Key,
    /// Its place in the order of the key's writes.
    pub marker: Marker,
    /// When its origin committed it.
    pub stamp: Timestamp,
    /// Over the record.
    pub hash: RecordHash,
    /// A deletion.
    pub is_tombstone: bool,
    /// When it expires; 0 = never.
    pub expire_ms: u64,
}

impl Written {
    fn of(key: &Key, entry: &Entry) -> Self {
        Self {
            dot: entry.dot,
            key: key.clone(),
            marker: entry.marker(),
            stamp: entry.stamp,
            hash: entry.hash,
            is_tombstone: entry.content().value == Value::Tombstone,
            expire_ms: entry.content().expire_ms,
        }
    }
}

/// All of them.
#[derive(Default)]
pub struct Ledger {
    writes: BTreeMap<Origin, BTreeMap<u64, Written>>,
    /// Made in a turn whose fsync never ended: nobody was told, and the directory does not have them.
    pub lost: BTreeSet<Dot>,
    /// Nodes whose directory was put back, cloned or destroyed.
    pub forgetful: BTreeSet<NodeId>,
    /// Who let whom in.
    introducers: BTreeMap<NodeId, NodeId>,
}

impl Ledger {
    /// With what the world begins with.
    pub fn of(image: &Image) -> Self {
        let mut ledger = Self::default();
        for (key, entry) in image.entries() {
            ledger.insert(Written::of(key, entry));
        }
        ledger
    }

    fn insert(&mut self, written: Written) {
        let node = <[u8; 8]>::try_from(&written.key.name()[..]).map(|id| NodeId(u64::from_be_bytes(id)));
        let writer = written.dot.origin.node;
        if let Ok(node) = node
            && written.key.namespace() == NamespaceId::NODES
            && node != writer
        {
            self.introducers.entry(node).or_insert(writer);
        }
        self.writes.entry(written.dot.origin).or_default().entry(written.dot.seq).or_insert(written);
    }

    /// Takes notice of the writes that a host's turn has made.
    pub(super) fn note(&mut self, host: usize, changes: &Edits, hosts: &[Host], _now_us: u64) {
        for (key, entry) in &changes.puts {
            if entry.dot.origin.node == hosts[host].node {
                self.insert(Written::of(key, entry));
            }
        }
    }

    /// A process has ended: what it had made and not made durable has never been.
    pub(super) fn note_stop(&mut self, host: &Host) {
        let image = host.image();
        for writes in self.writes.values() {
            let own = writes.values().rev().take_while(|write| write.dot.origin.node == host.node);
            self.lost.extend(own.map(|write| write.dot).take_while(|dot| !image.has_seen(*dot)));
        }
    }

    /// Whether a node, whoever let it in, and whoever let that one in, still know what they have said, and are none of
    /// those who have `departed`.
    pub fn is_vouched_for(&self, node: NodeId, departed: &BTreeSet<NodeId>) -> bool {
        let chain = std::iter::successors(Some(node), |node| self.introducers.get(node).copied());
        let is_gone = |node| self.forgetful.contains(&node) || departed.contains(&node);
        !chain.take(self.introducers.len() + 1).any(is_gone)
    }

    /// A write by its dot.
    pub fn get(&self, dot: Dot) -> Option<&Written> {
        self.writes.get(&dot.origin)?.get(&dot.seq)
    }

    /// Writes of one origin from `first` to `last`, ascending.
    pub fn of_origin(&self, origin: Origin, first: u64, last: u64) -> impl Iterator<Item = &Written> {
        let range = (first <= last).then_some(first..=last);
        range
            .and_then(|range| self.writes.get(&origin).map(|writes| writes.range(range)))
            .into_iter()
            .flatten()
            .map(|(_, written)| written)
    }

    /// Origins.
    pub fn origins(&self) -> impl Iterator<Item = Origin> {
        self.writes.keys().copied()
    }

    /// All writes.
    pub fn writes(&self) -> impl Iterator<Item = &Written> {
        self.writes.values().flat_map(BTreeMap::values)
    }
}
