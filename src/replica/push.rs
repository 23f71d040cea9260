//! Pushing fresh writes: at once, to everyone connected, encoded once.
//!
//! A peer with room gets the turn's writes directly; for others they wait, coalesced by key, in a bounded queue. A
//! peer over its bound is lagging: its queue is dropped, it is told so, and sync repairs. Nothing here is needed for
//! correctness. (A latency tree would choose other receivers here, and make forwarders push what they receive.)

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::dot::{Dot, NodeId, Origin};
use super::entry::Entry;
use super::key::Key;
use super::message::{Class, Message, Push, Records};
use super::store::{Store, StoreError};
use super::{Mono, Now, Replica, Sabotage};

/// A dot as it travels, at most: origin and a varint.
const DOT_LEN_MAX: usize = Origin::LEN + 10;

/// Writes of this turn, for all peers.
#[derive(Clone, Debug, Default)]
pub(super) struct Pushes {
    fresh: Vec<Push>,
    /// Where in `fresh` a key stands, and its dot.
    places: BTreeMap<Key, (usize, Dot)>,
    /// Peers for whom something waits in their queue.
    waiting: BTreeSet<NodeId>,
}

impl<S: Store> Replica<S> {
    /// A local write goes out when this turn is committed.
    pub(super) fn push_soon(&mut self, key: &Key, entry: &Entry) {
        let Pushes { fresh, places, .. } = &mut self.pushes;
        let record = entry.to_record(key);
        match places.get_mut(key) {
            Some((place, dot)) if fresh[*place].covers.len() < self.config.bounds.covers => {
                let push = &mut fresh[*place];
                push.covers.push(std::mem::replace(dot, entry.dot));
                push.record = record;
            }
            _ => {
                places.insert(key.clone(), (fresh.len(), entry.dot));
                fresh.push(Push { record, covers: Vec::new() });
            }
        }
    }

    /// Pushes what this turn wrote, and what has waited for room.
    pub(super) fn push_fresh(&mut self, now: Now) -> Result<(), StoreError> {
        if !self.pushes.fresh.is_empty() {
            let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
            let fresh = std::mem::take(&mut self.pushes.fresh);
            let places = std::mem::take(&mut self.pushes.places);
            let dots: Vec<(Key, Dot)> = places.into_iter().map(|(key, (_, dot))| (key, dot)).collect();
            let (ready, waiting): (Vec<_>, Vec<_>) =
                nodes.iter().partition(|node| self.peers.get(node).is_some_and(|peer| peer.queue.is_empty()));
            self.broadcast(&ready, fresh.clone(), now.mono);
            for node in waiting {
                self.enqueue(node, &dots, &fresh, now.mono);
            }
        }
        for node in std::mem::take(&mut self.pushes.waiting) {
            self.drain_queue(node, now.mono)?;
            if self.peers.get(&node).is_some_and(|peer| !peer.queue.is_empty()) {
                self.pushes.waiting.insert(node);
            }
        }
        Ok(())
    }

    /// Keys that wait for peers: all together, for one at most.
    pub(super) fn queued(&self) -> (usize, usize) {
        let queues = self.pushes.waiting.iter().filter_map(|node| self.peers.get(node)).map(|peer| peer.queue.len());
        queues.fold((0, 0), |(sum, longest), len| (sum + len, longest.max(len)))
    }

    fn broadcast(&mut self, nodes: &[NodeId], fresh: Vec<Push>, now: Mono) {
        if nodes.is_empty() {
            return;
        }
        for batch in batches(fresh, self.config.bounds.batch_len) {
            let bytes = encode_records(batch.clone());
            for node in nodes {
                let has_room = self.peers.get(node).is_some_and(|peer| {
                    peer.queue.is_empty() && peer.in_flight(Class::Records) < self.config.bounds.records_in_flight
                });
                if has_room {
                    self.count_many("records_pushed", batch.len() as u64);
                    self.send_encoded(*node, Class::Records, bytes.clone());
                } else {
                    let dots: Vec<_> = batch.iter().filter_map(dot_of).collect();
                    self.enqueue(*node, &dots, &batch, now);
                }
            }
        }
    }

    fn enqueue(&mut self, node: NodeId, dots: &[(Key, Dot)], pushes: &[Push], now: Mono) {
        self.pushes.waiting.insert(node);
        let (waiting, _) = self.queued();
        let bounds = &self.config.bounds;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let covers: BTreeMap<&Key, &Vec<Dot>> = pushes.iter().map(|push| (&push.record.key, &push.covers)).collect();
        for (key, dot) in dots {
            let covers = covers.get(key).map(|covers| covers.to_vec()).unwrap_or_default();
            peer.queue.push(key, *dot, covers, now, bounds);
        }
        if self.config.sabotage != Sabotage::EndlessQueue
            && (peer.queue.is_over_bound(now, bounds) || waiting + dots.len() > bounds.rumor_keys_total)
        {
            peer.queue.clear();
            self.count("lagging_peers");
            self.send(node, &Message::Lagging);
        }
    }

    /// Sends what waits for a peer, as far as it has room.
    fn drain_queue(&mut self, node: NodeId, now: Mono) -> Result<(), StoreError> {
        loop {
            let bounds = &self.config.bounds;
            let Some(peer) = self.peers.get_mut(&node) else { return Ok(()) };
            if peer.queue.is_empty() {
                return Ok(());
            }
            if peer.in_flight(Class::Records) >= bounds.records_in_flight {
                if self.config.sabotage != Sabotage::EndlessQueue && peer.queue.is_over_bound(now, bounds) {
                    peer.queue.clear();
                    self.count("lagging_peers");
                    self.send(node, &Message::Lagging);
                }
                return Ok(());
            }
            let mut pushes = Vec::new();
            let mut bytes = 0;
            while bytes < bounds.batch_len
                && let Some((key, rumor)) = peer.queue.pop()
            {
                // Gone with its namespace: the deletion of that dominates it, and reaches the peer by itself.
                let Some(entry) = self.store.get(&key)? else { continue };
                let mut covers = rumor.covers;
                if entry.dot != rumor.dot {
                    covers.push(rumor.dot);
                }
                let push = Push { record: entry.to_record(&key), covers };
                bytes += len_of(&push);
                pushes.push(push);
            }
            if !pushes.is_empty() {
                self.count_many("records_pushed", pushes.len() as u64);
                let bytes = encode_records(pushes);
                self.send_encoded(node, Class::Records, bytes);
            }
        }
    }
}

fn encode_records(pushes: Vec<Push>) -> Bytes {
    Message::Records(Records { pushes }).encode()
}

/// About how long it is as it travels. Hot keys cover much: left out of the count, a batch of them outgrew a message.
fn len_of(push: &Push) -> usize {
    push.record.body.len() + push.record.key.as_bytes().len() + push.covers.len() * DOT_LEN_MAX
}

fn dot_of(push: &Push) -> Option<(Key, Dot)> {
    let key = &push.record.key;
    Entry::decode(key, &push.record.body).ok().map(|entry| (key.clone(), entry.dot))
}

fn batches(pushes: Vec<Push>, batch_len: usize) -> Vec<Vec<Push>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for push in pushes {
        bytes += len_of(&push);
        batch.push(push);
        if bytes >= batch_len {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{Content, Marker, NamespaceId, Timestamp, Value};

    #[test]
    fn a_batch_weighs_no_more_than_was_counted() {
        let origin = Origin::default();
        let key = Key::new(NamespaceId([9; 16]), b"hot").expect("a short key");
        let content = Content { expire_ms: 0, metadata: Bytes::new(), value: Value::Inline(Bytes::from_static(b"x")) };
        let marker = Marker { time: Timestamp::from_ms(1), origin };
        let entry = Entry::new(&key, origin.dot(u64::MAX), Timestamp::from_ms(1), marker, content);
        for covers in [0, 1, crate::replica::limits::COVERS_MAX] {
            let push = Push { record: entry.to_record(&key), covers: vec![origin.dot(u64::MAX); covers] };
            // Beside what is counted stand a few lengths, and once the header of the message.
            let (counted, weighed) = (len_of(&push), encode_records(vec![push]).len());
            assert!(
                (counted..counted + 16).contains(&weighed),
                "{covers} covers: {counted} counted, {weighed} weighed"
            );
        }
    }
}
