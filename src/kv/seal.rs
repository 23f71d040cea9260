//! The seam between users' bytes and stored bytes. Everything below it sees sealed bytes only, so that encryption at
//! rest changes no format: the first byte of every sealed string says how it is sealed.

use bytes::{BufMut, Bytes, BytesMut};

use crate::replica::{BlobId, Key};

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

/// The bytes can't be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SealError(pub &'static str);

/// Seals and opens. May add at most [`SEAL_OVERHEAD_MAX`](crate::replica::limits::SEAL_OVERHEAD_MAX) bytes.
pub trait Seal: Send + Sync {
    /// Seals one part of the entry of `key`. Never empty.
    fn seal(&self, key: &Key, part: Part, plain: &[u8]) -> Bytes;
    /// The inverse of [`Seal::seal`].
    fn open(&self, key: &Key, part: Part, sealed: &Bytes) -> Result<Bytes, SealError>;
}

/// Format 0: the bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlainSeal;

impl PlainSeal {
    /// First byte of what it seals.
    pub const FORMAT: u8 = 0;
}

impl Seal for PlainSeal {
    fn seal(&self, _: &Key, _: Part, plain: &[u8]) -> Bytes {
        let mut sealed = BytesMut::with_capacity(1 + plain.len());
        sealed.put_u8(Self::FORMAT);
        sealed.put_slice(plain);
        sealed.freeze()
    }

    fn open(&self, _: &Key, _: Part, sealed: &Bytes) -> Result<Bytes, SealError> {
        match sealed.first() {
            Some(&Self::FORMAT) => Ok(sealed.slice(1..)),
            Some(_) => Err(SealError("it is sealed in a way that this node is not set up for")),
            None => Err(SealError("sealed bytes are missing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::NamespaceId;

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let key = Key::new(NamespaceId([1; 16]), b"k").expect("a short key");
        let sealed = PlainSeal.seal(&key, Part::Value, b"hello");
        assert_eq!(PlainSeal.open(&key, Part::Value, &sealed), Ok(Bytes::from_static(b"hello")));
        assert_eq!(PlainSeal.open(&key, Part::Value, &PlainSeal.seal(&key, Part::Value, b"")), Ok(Bytes::new()));
        assert!(PlainSeal.open(&key, Part::Value, &Bytes::from_static(&[7, 1])).is_err());
        assert!(PlainSeal.open(&key, Part::Value, &Bytes::new()).is_err());
    }
}
