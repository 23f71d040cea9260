//! The index of dots: which key a write was for. It is how a sync session finds what one life of a node has written.
//!
//! A row tells of writes of one origin that were committed together: key, origin (16) ‖ seq of the first (8, big-endian) ‖
//! a number that no other row has (8); value, the writes one after another, each as postcard: how far its seq is from the
//! one before, how many bytes its key shares with the one before, and the rest of its key. All writes of a row are of
//! one block of [`BLOCK`] seqs. Rows of format 1 tell of one write: key, origin ‖ seq; value, namespace ‖ key.
//!
//! **Every write that is held is in a row.** The opposite does not hold: a row goes on telling of writes that have been
//! overwritten, until `tidy` comes by. Were each to be removed at once, that would cost as much as writing it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::rows;
use crate::replica::{Dot, Key, Origin};

/// Seqs that one row may tell of: whoever looks for one finds it behind the beginning of its block.
const BLOCK: u64 = 256;
/// Bytes of a row from which on another one is begun.
const ROW_BYTES: usize = 16 * 1024;

/// A write in a row.
#[derive(Serialize, Deserialize)]
struct Step<'a> {
    /// Seqs after the one before.
    ahead: u64,
    /// Bytes that its key begins with as the key before does.
    shared: u16,
    /// The bytes of its key after those.
    rest: &'a [u8],
}

/// Seqs of one origin that may share rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Block {
    origin: Origin,
    number: u64,
}

impl Block {
    pub(super) fn of(dot: Dot) -> Self {
        Self { origin: dot.origin, number: dot.seq / BLOCK }
    }

    /// Where its rows begin.
    pub(super) fn first(self) -> Vec<u8> {
        rows::dot_key(self.origin.dot(self.number * BLOCK)).to_vec()
    }

    /// Where they end, at the latest.
    pub(super) fn last(self) -> Vec<u8> {
        last_of(self.origin.dot(self.number * BLOCK + (BLOCK - 1)))
    }
}

/// The highest key of a row that begins with this dot.
pub(super) fn last_of(dot: Dot) -> Vec<u8> {
    [&rows::dot_key(dot)[..], &[u8::MAX; 8]].concat()
}

/// Numbers that tell rows apart, counted from a random one on in each process: two rows that begin with the same dot never
/// have the same. So a row can be removed whatever is written meanwhile.
pub(super) struct RowNumbers(AtomicU64);

impl RowNumbers {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(RandomState::new().hash_one(())))
    }

    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The rows that tell of `writes`: handed to `emit` as key and value.
pub(super) fn encode(writes: &BTreeMap<Dot, Bytes>, numbers: &RowNumbers, mut emit: impl FnMut([u8; 32], Bytes)) {
    let mut row: Option<Row> = None;
    for (dot, key) in writes {
        if row.as_ref().is_some_and(|row| row.block != Block::of(*dot) || row.steps.len() >= ROW_BYTES)
            && let Some(full) = row.take()
        {
            full.end(numbers, &mut emit);
        }
        row = Some(match row {
            None => Row::begin(*dot, key),
            Some(row) => row.then(dot.seq, key),
        });
    }
    if let Some(last) = row {
        last.end(numbers, &mut emit);
    }
}

struct Row<'a> {
    block: Block,
    first: Dot,
    last: u64,
    before: &'a Bytes,
    steps: BytesMut,
}

impl<'a> Row<'a> {
    fn begin(first: Dot, key: &'a Bytes) -> Self {
        let steps = BytesMut::with_capacity(4 + key.len());
        let steps = add(steps, &Step { ahead: 0, shared: 0, rest: key });
        Self { block: Block::of(first), first, last: first.seq, before: key, steps }
    }

    fn then(self, seq: u64, key: &'a Bytes) -> Self {
        let shared = self.before.iter().zip(key).take_while(|(before, now)| before == now).count();
        let rest = key.get(shared..).unwrap_or_default();
        let steps = add(self.steps, &Step { ahead: seq - self.last, shared: shared as u16, rest });
        Self { last: seq, before: key, steps, ..self }
    }

    fn end(self, numbers: &RowNumbers, emit: &mut impl FnMut([u8; 32], Bytes)) {
        let mut key = [0; 32];
        key[..24].copy_from_slice(&rows::dot_key(self.first));
        key[24..].copy_from_slice(&numbers.next().to_be_bytes());
        emit(key, self.steps.freeze());
    }
}

fn add(steps: BytesMut, step: &Step<'_>) -> BytesMut {
    postcard::to_extend(step, steps).expect("plain data always serializes")
}

/// The dot that a row begins with.
pub(super) fn first_of(row: &[u8]) -> Result<Dot, &'static str> {
    let Some((origin, rest)) = row.split_at_checked(Origin::LEN) else { return Err("index row's key cut short") };
    let Some(origin) = Origin::from_bytes(origin) else { return Err("index row's key cut short") };
    match rest.split_first_chunk() {
        Some((seq, [] | [_, _, _, _, _, _, _, _])) => Ok(origin.dot(u64::from_be_bytes(*seq))),
        _ => Err("index row's key of a wrong length"),
    }
}

/// What a row tells of, in the order of the seqs.
pub(super) fn decode(row: &[u8], value: &Bytes) -> Result<Vec<(Dot, Key)>, &'static str> {
    let first = first_of(row)?;
    if row.len() == rows::DOT_LEN {
        return Ok(vec![(first, rows::decode_key(value.clone())?)]);
    }
    let (mut found, mut seq, mut key, mut left) = (Vec::new(), first.seq, Vec::new(), &value[..]);
    while !left.is_empty() {
        let (step, rest) = postcard::take_from_bytes::<Step<'_>>(left).map_err(|_| "index row of another shape")?;
        if usize::from(step.shared) > key.len() {
            return Err("index row with more of a key than there is");
        }
        seq = seq.checked_add(step.ahead).ok_or("index row beyond the last seq")?;
        if (step.ahead == 0) != found.is_empty() || seq / BLOCK != first.seq / BLOCK {
            return Err("index row that leaves its block");
        }
        key.truncate(usize::from(step.shared));
        key.extend_from_slice(step.rest);
        found.push((first.origin.dot(seq), rows::decode_key(key.clone())?));
        left = rest;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replica::{Incarnation, NamespaceId, NodeId};

    fn origin(node: u64) -> Origin {
        Origin { node: NodeId(node), incarnation: Incarnation(3) }
    }

    fn key(name: &[u8]) -> Key {
        Key::new(NamespaceId([1; 16]), name).expect("a key")
    }

    fn encoded(writes: &BTreeMap<Dot, Bytes>) -> Vec<([u8; 32], Bytes)> {
        let mut found = Vec::new();
        encode(writes, &RowNumbers::new(), |row, value| found.push((row, value)));
        found
    }

    #[test]
    fn writes_in_a_row_cost_few_bytes() {
        let name = |seq: u64| key(format!("cart:{seq:012}").as_bytes()).as_bytes().clone();
        let writes: BTreeMap<_, _> = (10_000..10_023).map(|seq| (origin(1).dot(seq), name(seq))).collect();
        let rows = encoded(&writes);
        assert_eq!(rows.len(), 1);
        assert!(rows[0].1.len() < 40 + 23 * 6, "{}", rows[0].1.len());
    }

    #[test]
    fn no_two_rows_have_the_same_key() {
        let writes = BTreeMap::from([(origin(1).dot(5), key(b"a").as_bytes().clone())]);
        let numbers = RowNumbers::new();
        let mut keys = std::collections::BTreeSet::new();
        for _ in 0..3 {
            encode(&writes, &numbers, |row, _| assert!(keys.insert(row)));
        }
    }

    #[test]
    fn rows_of_the_first_format_are_read() {
        let dot = origin(1).dot(9);
        let row = rows::dot_key(dot);
        assert_eq!(decode(&row, key(b"old").as_bytes()), Ok(vec![(dot, key(b"old"))]));
        assert!(decode(&row[..23], key(b"old").as_bytes()).is_err());
        assert!(decode(&[&row[..], b"x"].concat(), key(b"old").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_indexed_is_found_in_blocks(
            writes in prop::collection::btree_map(
                (0..3u64, prop_oneof![1..600u64, u64::MAX - 300..=u64::MAX]),
                prop::collection::vec(any::<u8>(), 1..=512),
                0..300,
            ),
        ) {
            let writes: BTreeMap<Dot, Bytes> = writes
                .into_iter()
                .map(|((node, seq), name)| (origin(node).dot(seq), key(&name).as_bytes().clone()))
                .collect();
            let mut found = BTreeMap::new();
            for (row, value) in encoded(&writes) {
                prop_assert!(value.len() < ROW_BYTES + 600);
                let told = decode(&row, &value).expect("it reads what it wrote");
                let block = Block::of(told[0].0);
                prop_assert!(block.first() <= row.to_vec() && row.to_vec() <= block.last());
                for (dot, key) in told {
                    prop_assert_eq!(Block::of(dot), block);
                    prop_assert!(found.insert(dot, key.as_bytes().clone()).is_none());
                }
            }
            prop_assert_eq!(found, writes);
        }

        /// Whatever lies on a disk.
        #[test]
        fn rows_of_any_bytes_are_read_or_refused(
            row in prop::collection::vec(any::<u8>(), 0..40),
            value in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let value = Bytes::from(value);
            let _ = decode(&row, &value);
            if let Some(row) = row.first_chunk::<32>() {
                let _ = decode(row, &value);
            }
        }
    }
}
