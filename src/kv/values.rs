//! Reading, writing and deleting values, one or many.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{BlobReader, Kv, KvError, NamespaceId, Part, SealError, tombstone, user_key};
use crate::replica::limits::{INLINE_LEN_MAX, METADATA_LEN_MAX, VALUE_LEN_MAX};
use crate::replica::{Content, Damage, Entry, Key, Reply, Request, Value as Stored};
use crate::store::Held;

/// Writes of one bulk request that may wait for their replies at once.
const BULK_IN_FLIGHT_MAX: usize = 256;

/// How long a read waits for a namespace's key that has not arrived, and how often it looks.
const KEY_PATIENCE: Duration = Duration::from_secs(2);
const KEY_POLL: Duration = Duration::from_millis(10);

/// What to write.
#[derive(Debug, Clone, Default)]
pub struct Put {
    /// The value.
    pub value: Bytes,
    /// JSON text.
    pub metadata: Option<Bytes>,
    /// Unix seconds from which it is gone.
    pub expiration: Option<u64>,
}

/// What was read.
#[derive(Debug)]
pub struct Found {
    /// The value.
    pub value: Value,
    /// JSON text.
    pub metadata: Option<Bytes>,
    /// Unix seconds from which it is gone.
    pub expiration: Option<u64>,
    /// Milliseconds since its writer committed it, by this node's clock.
    pub age_ms: u64,
}

/// A value, or the way to it.
#[derive(Debug)]
pub enum Value {
    /// A small one.
    Inline(Bytes),
    /// A large one, to be read chunk by chunk.
    Blob(BlobReader),
}

impl Kv {
    /// The value of a key; `None` if it is missing, deleted or expired. Whether the namespace exists is for the
    /// caller to check (see [`Kv::namespace`]).
    pub async fn get(&self, namespace: NamespaceId, key: &[u8]) -> Result<Option<Found>, KvError> {
        self.find(&user_key(namespace, key)?).await
    }

    /// The same, if it need not wait for anything; `None` if it must.
    pub(crate) fn get_at_once(&self, namespace: NamespaceId, key: &[u8]) -> Option<Result<Option<Found>, KvError>> {
        match user_key(namespace, key).and_then(|key| self.read(&key)) {
            Err(KvError::Damaged(_) | KvError::NoKey) => None,
            read => Some(read),
        }
    }

    /// What a key holds, asked for elsewhere if it is damaged here.
    pub(super) async fn find(&self, key: &Key) -> Result<Option<Found>, KvError> {
        // A namespace's key and its first values come on different streams.
        let mut waited = Duration::ZERO;
        let mut is_repaired = false;
        loop {
            match self.read(key) {
                Err(KvError::Damaged(why)) if !is_repaired => {
                    tracing::error!(?key, %why, "a stored value is damaged: asking other nodes for it");
                    is_repaired = true;
                    self.repair(Damage::Entry(key.clone())).await?;
                }
                Err(KvError::NoKey) if waited < KEY_PATIENCE => {
                    waited += KEY_POLL;
                    tokio::time::sleep(KEY_POLL).await;
                }
                read => return read,
            }
        }
    }

    fn read(&self, key: &Key) -> Result<Option<Found>, KvError> {
        let reader = self.handle().reader();
        let now = self.now_ms();
        let held = reader.held(key)?;
        if let Held::Damaged = held {
            return Err(KvError::Damaged(SealError::Damaged));
        }
        let entry = held.entry();
        self.note_entry(entry.as_ref());
        let Some(mut entry) = entry.filter(|entry| entry.is_visible(now)) else { return Ok(None) };
        let mut value = None;
        if entry.blob().is_some() {
            // Once more, from a view in which its chunks can't be removed.
            let view = reader.view();
            let fixed = view.get(key)?;
            self.note_entry(fixed.as_ref());
            let Some(fixed) = fixed.filter(|entry| entry.is_visible(now)) else { return Ok(None) };
            entry = fixed;
            if let Some(blob) = entry.blob() {
                value = Some(Value::Blob(BlobReader::new(self.clone(), view, key.clone(), blob.clone())));
            }
        }
        let value = match (value, &entry.content().value) {
            (Some(blob), _) => blob,
            (None, Stored::Inline(sealed)) => Value::Inline(self.seal().open(key, Part::Value, sealed)?),
            (None, _) => return Ok(None),
        };
        let (metadata, age_ms) = (self.open_metadata(key, &entry)?, now.saturating_sub(entry.stamp.ms()));
        Ok(Some(Found { value, metadata, expiration: expiration(&entry), age_ms }))
    }

    /// Sets a key. Returns when the write is as durable here as the node's configuration asks for.
    pub async fn put(&self, namespace: NamespaceId, key: &[u8], put: Put) -> Result<(), KvError> {
        let key = user_key(namespace, key)?;
        self.check_namespace(namespace)?;
        if put.value.len() > INLINE_LEN_MAX {
            return self.put_large(key, put).await;
        }
        let content = self.inline_content(&key, put)?;
        self.write(key, content).await
    }

    /// Deletes a key. Also fine for one that is missing here: it may be on its way from elsewhere.
    pub async fn delete(&self, namespace: NamespaceId, key: &[u8]) -> Result<(), KvError> {
        let key = user_key(namespace, key)?;
        self.write(key, tombstone()).await
    }

    /// Sets many keys, in order; results in the same order. Some may fail while others succeed.
    pub async fn put_many(&self, namespace: NamespaceId, pairs: Vec<(Bytes, Put)>) -> Vec<Result<(), KvError>> {
        if let Err(error) = self.check_namespace(namespace) {
            return vec![Err(error); pairs.len()];
        }
        let mut bulk = Bulk::new(self, pairs.len());
        for (name, put) in pairs {
            match user_key(namespace, &name) {
                Ok(key) if put.value.len() > INLINE_LEN_MAX => {
                    let result = self.put_large(key, put).await;
                    bulk.push(result.map(|()| None)).await;
                }
                Ok(key) => match self.inline_content(&key, put) {
                    Ok(content) => bulk.send(Request::Write { key, content }).await,
                    Err(error) => bulk.push(Err(error)).await,
                },
                Err(error) => bulk.push(Err(error)).await,
            }
        }
        bulk.finish().await
    }

    /// Deletes many keys, in order; results in the same order.
    pub async fn delete_many(&self, namespace: NamespaceId, keys: Vec<Bytes>) -> Vec<Result<(), KvError>> {
        let mut bulk = Bulk::new(self, keys.len());
        for name in keys {
            match user_key(namespace, &name) {
                Ok(key) => bulk.send(Request::Write { key, content: tombstone() }).await,
                Err(error) => bulk.push(Err(error)).await,
            }
        }
        bulk.finish().await
    }

    async fn put_large(&self, key: Key, put: Put) -> Result<(), KvError> {
        if put.value.len() > VALUE_LEN_MAX {
            return Err(KvError::ValueTooLarge { len: put.value.len() as u64 });
        }
        check_metadata(put.metadata.as_ref())?;
        let mut upload = self.begin_upload(key);
        upload.write(put.value).await?;
        upload.finish(put.metadata, put.expiration).await
    }

    fn inline_content(&self, key: &Key, put: Put) -> Result<Content, KvError> {
        let value = Stored::Inline(self.seal().seal(key, Part::Value, &put.value)?);
        self.content(key, value, put.metadata, put.expiration)
    }

    /// A register's content around a value that is sealed already.
    pub(super) fn content(
        &self,
        key: &Key,
        value: Stored,
        metadata: Option<Bytes>,
        expiration: Option<u64>,
    ) -> Result<Content, KvError> {
        check_metadata(metadata.as_ref())?;
        let metadata = metadata.filter(|plain| !plain.is_empty());
        let metadata = metadata.map(|plain| self.seal().seal(key, Part::Metadata, &plain)).transpose()?;
        let metadata = metadata.unwrap_or_default();
        // Zero stands for never, so the first second of 1970 becomes its first millisecond.
        let expire_ms = expiration.map_or(0, |seconds| seconds.saturating_mul(1000).max(1));
        Ok(Content { expire_ms, metadata, value })
    }

    pub(super) fn open_metadata(&self, key: &Key, entry: &Entry) -> Result<Option<Bytes>, KvError> {
        let sealed = &entry.content().metadata;
        if sealed.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.seal().open(key, Part::Metadata, sealed)?))
    }
}

fn check_metadata(metadata: Option<&Bytes>) -> Result<(), KvError> {
    match metadata {
        Some(metadata) if metadata.len() > METADATA_LEN_MAX => Err(KvError::MetadataTooLarge { len: metadata.len() }),
        _ => Ok(()),
    }
}

/// Unix seconds.
pub(super) fn expiration(entry: &Entry) -> Option<u64> {
    let expire_ms = entry.content().expire_ms;
    (expire_ms != 0).then_some(expire_ms / 1000)
}

/// Many writes in a row: sent in order, at most [`BULK_IN_FLIGHT_MAX`] unanswered.
struct Bulk<'a> {
    kv: &'a Kv,
    results: Vec<Result<(), KvError>>,
    /// Of those after `results`.
    waiting: VecDeque<Result<Option<oneshot::Receiver<Reply>>, KvError>>,
}

impl<'a> Bulk<'a> {
    fn new(kv: &'a Kv, len: usize) -> Self {
        Self { kv, results: Vec::with_capacity(len), waiting: VecDeque::new() }
    }

    async fn send(&mut self, request: Request) {
        let reply = self.kv.in_time(self.kv.handle().send(request)).await;
        self.push(reply.map(Some)).await;
    }

    /// Adds a result, or the place where it will arrive.
    async fn push(&mut self, result: Result<Option<oneshot::Receiver<Reply>>, KvError>) {
        self.waiting.push_back(result);
        if self.waiting.len() >= BULK_IN_FLIGHT_MAX {
            self.settle().await;
        }
    }

    async fn settle(&mut self) {
        let result = match self.waiting.pop_front() {
            None => return,
            Some(Ok(None)) => Ok(()),
            Some(Ok(Some(reply))) => self.kv.in_time(reply).await.and_then(|reply| self.kv.noted(reply)),
            Some(Err(error)) => Err(error),
        };
        self.results.push(result);
    }

    async fn finish(mut self) -> Vec<Result<(), KvError>> {
        while !self.waiting.is_empty() {
            self.settle().await;
        }
        self.results
    }
}
