//! How rows look on disk: keys and values of each keyspace, byte by byte.
//!
//! - `data`: namespace ‖ key → 16 bytes of record hash ‖ the record's body (which starts with its own version).
//! - `seq`: which key each write was for, see `index`.
//! - `blob`: blob address (32) ‖ chunk index (4, big-endian) → sealed bytes.
//! - `meta`: a tag, then what it is about → [`META_VERSION`] ‖ postcard.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::replica::{BlobAddress, Dot, Entry, Key, Origin, RecordHash};

/// Version of a directory's layout. A directory that says a higher one is left alone; 1 had another kind of `seq` rows,
/// which are still read.
pub(super) const FORMAT: u32 = 2;
/// Bytes of a dot.
pub(super) const DOT_LEN: usize = Origin::LEN + 8;
/// First byte of every value in `meta`.
const META_VERSION: u8 = 1;
const HASH_LEN: usize = 16;

/// Keys of `meta`: first byte.
#[derive(Clone, Copy)]
pub(super) enum Tag {
    /// → [`FORMAT`].
    Format = 0,
    /// Origin → what was seen of it.
    Seen = 1,
    /// Origin → its last write.
    Folded = 2,
    /// → the highest timestamp minted.
    Clock = 3,
    /// Blob address → nothing.
    OpenBlob = 4,
    /// Dot → a record that waits for its blob.
    Pending = 5,
    /// A millisecond (8, big-endian) ‖ namespace ‖ key whose value expires then → nothing.
    Scheduled = 6,
}

impl Tag {
    /// The key of what `about` names.
    pub(super) fn key(self, about: &[u8]) -> Bytes {
        let mut key = BytesMut::with_capacity(1 + about.len());
        key.put_u8(self as u8);
        key.put_slice(about);
        key.freeze()
    }
}

/// The value of an entry's row.
pub(super) fn encode_entry(entry: &Entry) -> Bytes {
    let body = entry.encode();
    let mut row = BytesMut::with_capacity(HASH_LEN + body.len());
    row.put_slice(&entry.hash.0);
    row.put_slice(&body);
    row.freeze()
}

/// The inverse of [`encode_entry`]; shares the row's memory.
pub(super) fn decode_entry(row: &Bytes) -> Result<Entry, &'static str> {
    let Some(hash) = row.first_chunk::<HASH_LEN>() else { return Err("row cut short") };
    Entry::decode_hashed(&row.slice(HASH_LEN..), RecordHash(*hash)).map_err(|malformed| malformed.0)
}

/// A key as it lies in `data`.
pub(super) fn decode_key(bytes: impl Into<Bytes>) -> Result<Key, &'static str> {
    Key::from_bytes(bytes.into()).ok_or("key out of bounds")
}

/// Origin (16) ‖ seq (8, big-endian).
pub(super) fn dot_key(dot: Dot) -> [u8; DOT_LEN] {
    let mut key = [0; DOT_LEN];
    key[..16].copy_from_slice(&dot.origin.to_bytes());
    key[16..].copy_from_slice(&dot.seq.to_be_bytes());
    key
}

/// The key of a chunk.
pub(super) fn chunk_key(blob: BlobAddress, index: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&blob.0);
    key[32..].copy_from_slice(&index.to_be_bytes());
    key
}

/// What a schedule row is about.
pub(super) fn schedule_key(at_ms: u64, key: &Key) -> Vec<u8> {
    [&at_ms.to_be_bytes()[..], key.as_bytes()].concat()
}

/// The inverse of [`schedule_key`].
pub(super) fn read_schedule_key(about: &[u8]) -> Result<(u64, Key), &'static str> {
    let Some((at_ms, key)) = about.split_first_chunk() else { return Err("schedule row's key cut short") };
    Ok((u64::from_be_bytes(*at_ms), decode_key(Bytes::copy_from_slice(key))?))
}

/// A value of `meta`.
pub(super) fn encode_meta<T: Serialize>(value: &T) -> Bytes {
    let row = BytesMut::from(&[META_VERSION][..]);
    postcard::to_extend(value, row).expect("plain data always serializes").freeze()
}

/// The inverse of [`encode_meta`].
pub(super) fn decode_meta<T: DeserializeOwned>(row: &[u8]) -> Result<T, &'static str> {
    match row.split_first() {
        Some((&META_VERSION, value)) => postcard::from_bytes(value).map_err(|_| "row of another shape"),
        Some(_) => Err("row of a version that this node can't read"),
        None => Err("empty row"),
    }
}

/// The first key after all that start with `prefix`; `None` if there can't be one.
pub(super) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_above_all_it_starts() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(&[1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(prefix_end(&[0xff]), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn short_and_foreign_rows_are_errors() {
        assert!(decode_entry(&Bytes::from_static(&[0; 15])).is_err());
        assert!(decode_entry(&Bytes::from_static(&[0; 16])).is_err());
        assert!(decode_meta::<u64>(&[]).is_err());
        assert!(decode_meta::<u64>(&[9, 1]).is_err());
        assert_eq!(decode_meta::<u64>(&encode_meta(&77_u64)), Ok(77));
    }

    proptest! {
        /// Whatever lies on a disk: an error at worst, never a panic, and nothing that would be written otherwise.
        #[test]
        fn rows_of_any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let row = Bytes::from(bytes.clone());
            if let Ok(entry) = decode_entry(&row) {
                prop_assert_eq!(encode_entry(&entry), row.clone());
            }
            if let Ok(key) = decode_key(row.clone()) {
                prop_assert_eq!(key.as_bytes(), &row[..]);
            }
            if let Ok((at_ms, key)) = read_schedule_key(&bytes) {
                prop_assert_eq!(schedule_key(at_ms, &key), bytes.clone());
            }
            let _ = decode_meta::<u64>(&bytes);
            let _ = decode_meta::<(u64, Vec<(u64, u64)>)>(&bytes);
            let _ = decode_meta::<String>(&bytes);
        }
    }
}
