//! A digest of everything held: 65,536 buckets of summed record hashes, kept current with two additions a write.
//!
//! Sees what version vectors can't: a bug, a flipped bit. Knows nothing of why two digests differ.

use serde::{Deserialize, Serialize};

use super::key::Key;

/// Number of buckets; a key's bucket is fixed.
pub const BUCKETS: usize = 1 << 16;

/// Sixteen bytes of BLAKE3 over a record: key, dot, marker and content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct RecordHash(pub [u8; 16]);

impl RecordHash {
    /// Hashes a key and an encoded body.
    pub fn of(key: &Key, body: &[u8]) -> Self {
        let key = key.as_bytes();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(key.len() as u32).to_be_bytes());
        hasher.update(key);
        hasher.update(body);
        let mut hash = [0; 16];
        hasher.finalize_xof().fill(&mut hash);
        Self(hash)
    }
}

/// Sixteen bytes that compare all that two nodes hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DigestSum(pub u128);

/// The digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digest {
    buckets: Vec<u64>,
    sum: u128,
    entries: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], sum: 0, entries: 0 }
    }
}

impl Digest {
    /// An entry is held from now on.
    pub fn add(&mut self, key: &Key, hash: RecordHash) {
        let (bucket, low, all) = parts(key, hash);
        self.buckets[bucket] = self.buckets[bucket].wrapping_add(low);
        self.sum = self.sum.wrapping_add(all);
        self.entries += 1;
    }

    /// An entry is held no more.
    pub fn remove(&mut self, key: &Key, hash: RecordHash) {
        let (bucket, low, all) = parts(key, hash);
        self.buckets[bucket] = self.buckets[bucket].wrapping_sub(low);
        self.sum = self.sum.wrapping_sub(all);
        self.entries = self.entries.saturating_sub(1);
    }

    /// All buckets in one.
    pub fn sum(&self) -> DigestSum {
        DigestSum(self.sum)
    }

    /// Entries held, tombstones included.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The buckets.
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }
}

fn parts(key: &Key, hash: RecordHash) -> (usize, u64, u128) {
    let all = u128::from_be_bytes(hash.0);
    let bucket = blake3::hash(key.as_bytes());
    let bucket = usize::from(u16::from_be_bytes([bucket.as_bytes()[0], bucket.as_bytes()[1]]));
    (bucket, all as u64, all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::NamespaceId;

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let key = |name: &[u8]| Key::new(NamespaceId([9; 16]), name).expect("a short key");
        let (a, b) = (key(b"a"), key(b"b"));
        let (hash_a, hash_b) = (RecordHash::of(&a, b"1"), RecordHash::of(&b, b"1"));
        assert_ne!(hash_a, hash_b);
        let (mut left, mut right) = (Digest::default(), Digest::default());
        left.add(&a, hash_a);
        left.add(&b, hash_b);
        right.add(&b, hash_b);
        right.add(&a, hash_a);
        assert_eq!(left, right);
        right.remove(&b, hash_b);
        assert_ne!(left.sum(), right.sum());
        right.remove(&a, hash_a);
        assert_eq!(right, Digest::default());
    }
}
