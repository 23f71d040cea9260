//! Reading large values, chunk by chunk, from a view of the store that stands still meanwhile.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::{Kv, KvError, Part, SealError};
use crate::replica::{Blob, BlobAddress, Damage, Key};
use crate::store::View;

/// Reads one large value. Holds back the reclaiming of disk space until it is dropped, so it must not outlive its
/// request.
pub struct BlobReader {
    source: Arc<Source>,
    next: u32,
    failed: bool,
}

struct Source {
    kv: Kv,
    view: View,
    key: Key,
    blob: Blob,
}

impl BlobReader {
    pub(super) fn new(kv: Kv, view: View, key: Key, blob: Blob) -> Self {
        Self { source: Arc::new(Source { kv, view, key, blob }), next: 0, failed: false }
    }

    /// Length of the value in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a large value is never empty")]
    pub fn len(&self) -> u64 {
        self.source.blob.len
    }

    /// The next piece, at most 256 KiB; `None` after the last one and after an error.
    pub async fn next(&mut self) -> Option<Result<Bytes, KvError>> {
        if self.failed || self.next as usize >= self.source.blob.chunks.len() {
            return None;
        }
        let (source, index) = (self.source.clone(), self.next);
        let chunk = match tokio::task::spawn_blocking(move || source.read(index)).await {
            Ok(Err(KvError::Damaged(_) | KvError::Storage(_))) => self.source.repair(index).await,
            Ok(chunk) => chunk,
            Err(_) => Err(KvError::ShuttingDown),
        };
        self.next += 1;
        self.failed = chunk.is_err();
        Some(chunk)
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader").field("len", &self.len()).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Source {
    fn read(&self, index: u32) -> Result<Bytes, KvError> {
        let address = BlobAddress::of(&self.key, self.blob.id);
        self.open(index, self.view.chunk(address, index)?)
    }

    fn open(&self, index: u32, sealed: Option<Bytes>) -> Result<Bytes, KvError> {
        let expected = self.blob.chunks.get(index as usize);
        match sealed {
            Some(sealed) if expected == Some(blake3::hash(&sealed).as_bytes()) => {
                Ok(self.kv.seal().open(&self.key, Part::Chunk(self.blob.id, index), &sealed)?)
            }
            _ => Err(KvError::Damaged(SealError::Damaged)),
        }
    }

    /// The chunk as another node has it. It is not in the view, which stands still.
    async fn repair(&self, index: u32) -> Result<Bytes, KvError> {
        tracing::error!(key = ?self.key, index, "a chunk of a large value is damaged: asking other nodes for it");
        self.kv.repair(Damage::Chunk(self.key.clone(), self.blob.id, index)).await?;
        let address = BlobAddress::of(&self.key, self.blob.id);
        self.open(index, self.kv.handle().reader().chunk(address, index)?)
    }
}
