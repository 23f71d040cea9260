//! The seam between users' bytes and stored bytes. Everything below it sees sealed bytes only, so that encryption at
//! rest changes no format: the first byte of every sealed string says how it is sealed.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::keyring::{CipherError, Keyring};
use crate::replica::limits::KEY_LEN_MAX;
use crate::replica::{BlobId, Key, NamespaceId, SharedSecret};

/// Which part of an entry is sealed. With the key it tells every sealed string from every other, so that none can be
/// passed off as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The metadata.
    Metadata,
    /// A value that travels in its record.
    Value,
    /// One chunk of a large value, by its index.
    Chunk(BlobId, u32),
}

/// The bytes can't be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The namespace's key is not here: on its way, or destroyed.
    #[error("its key is not on this node: it is still on its way here, or was destroyed with its namespace")]
    NoKey,
    /// They are not what was sealed, or not for this key.
    #[error("it was changed, or moved here from another key, since it was sealed")]
    Damaged,
    /// They are sealed in a way that this node is not set up for.
    #[error("it is sealed in a way that this node is not set up for")]
    Foreign,
    /// The operating system gives no randomness for a new key.
    #[error("the operating system gives no randomness")]
    Entropy,
}

impl From<CipherError> for SealError {
    fn from(error: CipherError) -> Self {
        match error {
            CipherError::NoKey => Self::NoKey,
            CipherError::Damaged => Self::Damaged,
        }
    }
}

/// Seals and opens. May add at most [`SEAL_OVERHEAD_MAX`](crate::replica::limits::SEAL_OVERHEAD_MAX) bytes.
pub trait Seal: Send + Sync {
    /// Seals one part of the entry of `key`. Never empty.
    fn seal(&self, key: &Key, part: Part, plain: &[u8]) -> Result<Bytes, SealError>;
    /// The inverse of [`Seal::seal`].
    fn open(&self, key: &Key, part: Part, sealed: &Bytes) -> Result<Bytes, SealError>;
    /// A fresh key for the values of a namespace, to be shared with all members; `None` where none is needed.
    fn fresh_key(&self, namespace: NamespaceId) -> Result<Option<SharedSecret>, SealError>;
}

/// Format 0: the bytes as they are. For measuring what sealing costs, for tests, and for what the replica itself reads.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlainSeal;

impl PlainSeal {
    /// First byte of what it seals.
    pub const FORMAT: u8 = 0;
}

impl Seal for PlainSeal {
    fn seal(&self, _: &Key, _: Part, plain: &[u8]) -> Result<Bytes, SealError> {
        let mut sealed = BytesMut::with_capacity(1 + plain.len());
        sealed.put_u8(Self::FORMAT);
        sealed.put_slice(plain);
        Ok(sealed.freeze())
    }

    fn open(&self, _: &Key, _: Part, sealed: &Bytes) -> Result<Bytes, SealError> {
        match sealed.first() {
            Some(&Self::FORMAT) => Ok(sealed.slice(1..)),
            Some(_) => Err(SealError::Foreign),
            None => Err(SealError::Damaged),
        }
    }

    fn fresh_key(&self, _: NamespaceId) -> Result<Option<SharedSecret>, SealError> {
        Ok(None)
    }
}

/// Format 1: AES-256-GCM with the keys of the keyring. Format 0 is refused, or whoever can write to the disk could
/// pass anything off as a value; only what the replica itself must read lies open.
#[derive(Clone)]
pub struct AeadSeal(Arc<Keyring>);

impl AeadSeal {
    /// First byte of what it seals.
    pub const FORMAT: u8 = 1;

    /// Seals with the keys of `keyring`.
    pub fn new(keyring: Arc<Keyring>) -> Self {
        Self(keyring)
    }
}

impl Seal for AeadSeal {
    fn seal(&self, key: &Key, part: Part, plain: &[u8]) -> Result<Bytes, SealError> {
        if lies_open(key) {
            return PlainSeal.seal(key, part, plain);
        }
        Ok(self.0.seal(Self::FORMAT, owner(key), &about(key, part), plain)?)
    }

    fn open(&self, key: &Key, part: Part, sealed: &Bytes) -> Result<Bytes, SealError> {
        if lies_open(key) {
            return PlainSeal.open(key, part, sealed);
        }
        match sealed.first() {
            Some(&Self::FORMAT) => Ok(self.0.open_sealed(owner(key), &about(key, part), sealed)?),
            Some(&PlainSeal::FORMAT) => Err(SealError::Foreign),
            _ => Err(SealError::Damaged),
        }
    }

    fn fresh_key(&self, namespace: NamespaceId) -> Result<Option<SharedSecret>, SealError> {
        self.0.fresh(namespace).map(Some).map_err(|_| SealError::Entropy)
    }
}

/// What the replica reads itself: who the members are, who was evicted, which namespaces are deleted.
fn lies_open(key: &Key) -> bool {
    matches!(key.namespace(), NamespaceId::NODES | NamespaceId::EVICTED | NamespaceId::DELETED)
}

/// Whose key seals an entry.
fn owner(key: &Key) -> NamespaceId {
    if key.namespace().is_system() { NamespaceId::SYSTEM } else { key.namespace() }
}

/// What sealed bytes are bound to: namespace and key, the part, and within a blob the place of the chunk.
fn about(key: &Key, part: Part) -> About {
    let mut about = About { bytes: [0; ABOUT_LEN_MAX], len: 0 };
    match part {
        Part::Metadata => about.push(&[1]),
        Part::Value => about.push(&[2]),
        Part::Chunk(blob, index) => {
            about.push(&[3]);
            about.push(&blob.0);
            about.push(&index.to_be_bytes());
        }
    }
    about.push(key.as_bytes());
    about
}

const ABOUT_LEN_MAX: usize = 1 + 16 + 4 + 16 + KEY_LEN_MAX;

/// On the stack: it is made for every read and write.
struct About {
    bytes: [u8; ABOUT_LEN_MAX],
    len: usize,
}

impl About {
    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }
}

impl std::ops::Deref for About {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: NamespaceId, name: &[u8]) -> Key {
        Key::new(namespace, name).expect("a short key")
    }

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let key = key(NamespaceId([1; 16]), b"k");
        let sealed = PlainSeal.seal(&key, Part::Value, b"hello").expect("seals");
        assert_eq!(PlainSeal.open(&key, Part::Value, &sealed), Ok(Bytes::from_static(b"hello")));
        assert!(PlainSeal.open(&key, Part::Value, &Bytes::from_static(&[7, 1])).is_err());
        assert!(PlainSeal.open(&key, Part::Value, &Bytes::new()).is_err());
    }

    #[test]
    fn no_two_places_share_what_they_are_bound_to() {
        let (namespace, blob) = (NamespaceId([1; 16]), BlobId([2; 16]));
        let keys = [key(namespace, b"a"), key(namespace, b"ab"), key(NamespaceId([2; 16]), b"a")];
        let parts = [Part::Metadata, Part::Value, Part::Chunk(blob, 0), Part::Chunk(blob, 1)];
        let all: std::collections::BTreeSet<_> =
            keys.iter().flat_map(|key| parts.iter().map(move |part| about(key, *part).to_vec())).collect();
        assert_eq!(all.len(), keys.len() * parts.len());
    }
}
