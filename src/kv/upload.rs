//! Writing values of unknown or large size with bounded memory: chunks are sealed, hashed and stored as they come; the
//! write that refers to them goes last.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use super::{Kv, KvError, NamespaceId, Part, done, user_key};
use crate::replica::limits::{CHUNK_LEN, INLINE_LEN_MAX, VALUE_LEN_MAX};
use crate::replica::{Blob, BlobId, Key, Reply, Request, Value as Stored};

/// Chunks of one upload that may wait to be stored.
const CHUNKS_IN_FLIGHT_MAX: usize = 4;

/// A value on its way in. Dropping it discards what was stored; then, and until [`Upload::finish`] returns, the key
/// keeps its old value.
pub struct Upload {
    kv: Kv,
    key: Key,
    id: BlobId,
    /// Bytes taken so far.
    len: u64,
    /// Not yet a whole chunk.
    tail: BytesMut,
    /// Hashes of the chunks sent.
    chunks: Vec<[u8; 32]>,
    in_flight: VecDeque<oneshot::Receiver<Reply>>,
    /// Every byte taken is in `tail` or was sent. False while a call runs, and for good if it fails or is dropped.
    is_whole: bool,
    /// Chunks were sent that nothing refers to.
    is_open: bool,
}

impl Kv {
    /// Begins a value of unknown or large size.
    pub async fn upload(&self, namespace: NamespaceId, key: &[u8]) -> Result<Upload, KvError> {
        let key = user_key(namespace, key)?;
        self.check_namespace(namespace)?;
        Ok(self.begin_upload(key))
    }

    pub(super) fn begin_upload(&self, key: Key) -> Upload {
        Upload {
            kv: self.clone(),
            key,
            id: BlobId(self.random_id()),
            len: 0,
            tail: BytesMut::new(),
            chunks: Vec::new(),
            in_flight: VecDeque::new(),
            is_whole: true,
            is_open: false,
        }
    }
}

impl Upload {
    /// Appends. After an error, or if the future is dropped before it is ready, the upload can't go on.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), KvError> {
        self.begin_call()?;
        self.len += bytes.len() as u64;
        if self.len > VALUE_LEN_MAX as u64 {
            return Err(KvError::ValueTooLarge { len: self.len });
        }
        while !bytes.is_empty() {
            if self.tail.is_empty() && bytes.len() >= CHUNK_LEN {
                self.send_chunk(&bytes.split_to(CHUNK_LEN)).await?;
                continue;
            }
            let wanted = (CHUNK_LEN - self.tail.len()).min(bytes.len());
            self.tail.extend_from_slice(&bytes.split_to(wanted));
            if self.tail.len() == CHUNK_LEN {
                self.send_tail().await?;
            }
        }
        self.is_whole = true;
        Ok(())
    }

    /// Sets the key to what was written. Returns when the write is as durable here as the configuration asks for.
    pub async fn finish(mut self, metadata: Option<Bytes>, expiration: Option<u64>) -> Result<(), KvError> {
        self.begin_call()?;
        let value = if self.chunks.is_empty() && self.tail.len() <= INLINE_LEN_MAX {
            Stored::Inline(self.kv.seal().seal(&self.key, Part::Value, &self.tail)?)
        } else {
            if !self.tail.is_empty() {
                self.send_tail().await?;
            }
            while !self.in_flight.is_empty() {
                self.settle_chunk().await?;
            }
            Stored::Blob(Blob { id: self.id, len: self.len, chunks: std::mem::take(&mut self.chunks) })
        };
        let content = self.kv.content(&self.key, value, metadata, expiration)?;
        let write = Request::Write { key: self.key.clone(), content };
        // From here on the write may happen whatever becomes of its reply, so its chunks may be given up only when it
        // is known not to have happened. What is given up in vain is swept at the next start.
        let was_open = std::mem::take(&mut self.is_open);
        let reply = self.kv.call(write).await?;
        self.is_open = was_open && matches!(reply, Reply::Refused(_));
        self.kv.noted(reply)
    }

    #[cfg(test)]
    pub(super) fn address(&self) -> crate::replica::BlobAddress {
        crate::replica::BlobAddress::of(&self.key, self.id)
    }

    fn begin_call(&mut self) -> Result<(), KvError> {
        if std::mem::take(&mut self.is_whole) { Ok(()) } else { Err(KvError::UploadBroken) }
    }

    async fn send_tail(&mut self) -> Result<(), KvError> {
        let mut tail = std::mem::take(&mut self.tail);
        self.send_chunk(&tail).await?;
        tail.clear();
        self.tail = tail;
        Ok(())
    }

    /// Requests are sent from here and not from tasks, so that they, and giving up after them, arrive in order.
    async fn send_chunk(&mut self, plain: &[u8]) -> Result<(), KvError> {
        if self.in_flight.len() >= CHUNKS_IN_FLIGHT_MAX {
            self.settle_chunk().await?;
        }
        // At most CHUNKS_MAX, so it fits.
        let index = self.chunks.len() as u32;
        let chunk = self.kv.seal().seal(&self.key, Part::Chunk(self.id, index), plain)?;
        self.chunks.push(*blake3::hash(&chunk).as_bytes());
        let request = Request::PutChunk { key: self.key.clone(), id: self.id, index, chunk };
        self.is_open = true;
        let reply = self.kv.in_time(self.kv.handle().send(request)).await?;
        self.in_flight.push_back(reply);
        Ok(())
    }

    async fn settle_chunk(&mut self) -> Result<(), KvError> {
        match self.in_flight.pop_front() {
            Some(reply) => done(self.kv.in_time(reply).await?),
            None => Ok(()),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.is_open {
            self.kv.handle().post(Request::AbandonBlob { key: self.key.clone(), id: self.id });
        }
    }
}
