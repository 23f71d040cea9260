//! Writes on their way to one peer, until the transport takes them: one record a key, however often it was written.
//!
//! Holds dots, not data; what is pushed is read when it is pushed.

use std::collections::{BTreeMap, VecDeque};

use super::clock::Mono;
use super::dot::Dot;
use super::key::Key;
use super::limits::{Bounds, RUMOR_AGE_MAX};

/// What waits for a peer under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rumor {
    /// The latest write.
    pub dot: Dot,
    /// Earlier ones that it stands for.
    pub covers: Vec<Dot>,
    since: Mono,
}

/// The queue of one peer, oldest key first.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    rumors: BTreeMap<Key, Rumor>,
    order: VecDeque<Key>,
}

impl Queue {
    /// Adds a write. A key that waits already is coalesced.
    pub fn push(&mut self, key: &Key, dot: Dot, covers: Vec<Dot>, now: Mono, bounds: &Bounds) {
        match self.rumors.get_mut(key) {
            Some(rumor) => {
                let earlier = std::mem::replace(&mut rumor.dot, dot);
                rumor.covers.push(earlier);
                rumor.covers.extend(covers);
            }
            None => {
                self.rumors.insert(key.clone(), Rumor { dot, covers, since: now });
                self.order.push_back(key.clone());
            }
        }
        // One place is kept for `dot` itself: the key may hold a later write when it is sent. What is left out here is
        // a gap at the receiver, which sync closes.
        if let Some(rumor) = self.rumors.get_mut(key) {
            let excess = rumor.covers.len().saturating_sub(bounds.covers - 1);
            rumor.covers.drain(..excess);
        }
    }

    /// Takes the oldest key out.
    pub fn pop(&mut self) -> Option<(Key, Rumor)> {
        let key = self.order.pop_front()?;
        let rumor = self.rumors.remove(&key)?;
        Some((key, rumor))
    }

    /// How many keys wait.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether it holds more, or older, than it may: the peer is lagging.
    pub fn is_over_bound(&self, now: Mono, bounds: &Bounds) -> bool {
        let oldest = self.order.front().and_then(|key| self.rumors.get(key));
        self.len() > bounds.rumor_keys || oldest.is_some_and(|rumor| now > rumor.since + RUMOR_AGE_MAX)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::limits::{COVERS_MAX, RUMOR_KEYS_MAX};
    use crate::replica::{NamespaceId, Origin};

    fn key(name: &[u8]) -> Key {
        Key::new(NamespaceId([1; 16]), name).expect("a short key")
    }

    fn dot(seq: u64) -> Dot {
        Origin::default().dot(seq)
    }

    #[test]
    fn a_hot_key_waits_once_and_covers_what_it_stands_for() {
        let mut queue = Queue::default();
        for seq in 1..=3 {
            queue.push(&key(b"hot"), dot(seq), Vec::new(), Mono(0), &Bounds::default());
        }
        queue.push(&key(b"cold"), dot(4), Vec::new(), Mono(0), &Bounds::default());
        assert_eq!(queue.len(), 2);
        let (first, rumor) = queue.pop().expect("two keys wait");
        assert_eq!((first, rumor.dot, rumor.covers), (key(b"hot"), dot(3), vec![dot(1), dot(2)]));
        assert_eq!(queue.pop().map(|(key, _)| key), Some(key(b"cold")));
        assert!(queue.pop().is_none());
    }

    #[test]
    fn covers_age_and_number_are_bounded() {
        let mut queue = Queue::default();
        for seq in 1..=2 * COVERS_MAX as u64 {
            queue.push(&key(b"hot"), dot(seq), Vec::new(), Mono(0), &Bounds::default());
        }
        assert!(!queue.is_over_bound(RUMOR_AGE_MAX, &Bounds::default()));
        assert!(queue.is_over_bound(RUMOR_AGE_MAX + Mono(1), &Bounds::default()));
        let (_, rumor) = queue.pop().expect("one key waits");
        assert!(rumor.covers.len() < COVERS_MAX);
        queue.push(&key(b"hot"), dot(1_000), (1..=COVERS_MAX as u64).map(dot).collect(), Mono(0), &Bounds::default());
        let (_, rumor) = queue.pop().expect("one key waits");
        assert!(rumor.covers.len() < COVERS_MAX, "room for the dot itself");
        for number in 0..=RUMOR_KEYS_MAX as u64 {
            queue.push(&key(&number.to_be_bytes()), dot(number + 1), Vec::new(), Mono(0), &Bounds::default());
        }
        assert!(queue.is_over_bound(Mono(0), &Bounds::default()));
    }
}
