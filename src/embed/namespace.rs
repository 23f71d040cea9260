//! Reading and writing one namespace.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::de::IgnoredAny;

use super::{AckLevel, Bookmark, Error};
use crate::kv::{self, Kv, KvError, Put, Value};

/// A namespace, through one node. It notes what is read and written through it, for its [`Bookmark`].
pub struct Namespace {
    kv: Kv,
    namespace: kv::Namespace,
}

/// What stands under a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// JSON text.
    pub metadata: Option<String>,
    /// Unix seconds from which it is gone.
    pub expiration: Option<u64>,
    /// How long ago it was written, wherever that was, by the clocks of both machines; in milliseconds.
    pub age_ms: u64,
}

/// What may go with a value.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct PutOptions {
    /// JSON text, at most 1024 bytes.
    pub metadata: Option<String>,
    /// How long it stays; whole seconds count. For ever, if this is not said.
    pub ttl: Option<Duration>,
}

/// One key of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The key.
    pub name: String,
    /// JSON text.
    pub metadata: Option<String>,
    /// Unix seconds from which it is gone.
    pub expiration: Option<u64>,
}

/// Part of a list.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Page {
    /// At most 1000 keys, in byte order. May be empty and still not the last.
    pub keys: Vec<Listed>,
    /// To be handed in for the next page; `None` at the end.
    pub next: Option<String>,
}

impl Namespace {
    pub(super) fn new(kv: Kv, namespace: kv::Namespace) -> Self {
        Self { kv, namespace }
    }

    /// Its title when it was opened.
    pub fn title(&self) -> &str {
        &self.namespace.title
    }

    /// Its id: 32 hexadecimal digits, the same at every node.
    pub fn id(&self) -> String {
        self.namespace.id.to_string()
    }

    /// What stands under a key here; `None` if it is missing, deleted or expired. Never waits for another node.
    ///
    /// # Errors
    /// [`KvError::NamespaceNotFound`] once the namespace is deleted, or if storage can't be read.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        self.exists()?;
        let Some(found) = self.kv.get(self.namespace.id, key.as_bytes()).await? else { return Ok(None) };
        let value = whole(found.value).await?;
        let (metadata, expiration, age_ms) = (found.metadata.as_ref().map(text), found.expiration, found.age_ms);
        Ok(Some(Entry { value, metadata, expiration, age_ms }))
    }

    /// Sets a key. Returns when the write is durable here.
    ///
    /// # Errors
    /// [`Error::Kv`]; after [`KvError::Timeout`] and [`KvError::ShuttingDown`] the write may have happened, and to
    /// repeat it is safe.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<(), Error> {
        self.put_with(key, value, PutOptions::default()).await
    }

    /// Sets a key, with metadata or a time to live.
    ///
    /// # Errors
    /// As [`Namespace::put`], and [`Error::Metadata`].
    pub async fn put_with(&self, key: &str, value: impl Into<Bytes>, options: PutOptions) -> Result<(), Error> {
        if let Some(metadata) = &options.metadata {
            serde_json::from_str::<IgnoredAny>(metadata).map_err(|error| Error::Metadata(error.to_string()))?;
        }
        let expiration = options.ttl.map(|ttl| self.kv.now_ms() / 1000 + ttl.as_secs());
        let put = Put { value: value.into(), metadata: options.metadata.map(Bytes::from), expiration };
        Ok(self.kv.put(self.namespace.id, key.as_bytes(), put).await?)
    }

    /// Deletes a key. Also fine for one that is missing here: it may be on its way from elsewhere.
    ///
    /// # Errors
    /// As [`Namespace::put`].
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        self.exists()?;
        Ok(self.kv.delete(self.namespace.id, key.as_bytes()).await?)
    }

    /// Keys that start with `prefix`, from after [`Page::next`] of the page before.
    ///
    /// # Errors
    /// As [`Namespace::get`].
    pub async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, Error> {
        self.exists()?;
        let after = after.map(str::as_bytes);
        let page = self.kv.list(self.namespace.id, prefix.as_bytes(), after, kv::LIST_LIMIT_MAX).await?;
        let keys = page.keys.into_iter().map(|key| Listed {
            name: text(&key.name),
            metadata: key.metadata.as_ref().map(text),
            expiration: key.expiration,
        });
        Ok(Page { keys: keys.collect(), next: page.next.as_ref().map(text) })
    }

    /// What was read and written through this namespace so far. Where a [`Node`](super::Node) has caught up with it,
    /// reads show the same or something newer.
    ///
    /// # Errors
    /// [`Error::Kv`] if the node has stopped.
    pub async fn bookmark(&self) -> Result<Bookmark, Error> {
        Ok(Bookmark::new(self.kv.bookmark().await?))
    }

    /// Waits until that many nodes have everything that was written through this namespace on disk; says how many do.
    ///
    /// # Errors
    /// [`KvError::NotAcknowledged`] when `patience` runs out: the writes stay, and go on spreading.
    pub async fn acknowledged(&self, level: AckLevel, patience: Duration) -> Result<usize, Error> {
        Ok(self.kv.acknowledged(level, patience).await?.len())
    }

    pub(super) fn open(&self) -> Result<(&Kv, kv::NamespaceId), KvError> {
        self.exists()?;
        Ok((&self.kv, self.namespace.id))
    }

    fn exists(&self) -> Result<(), KvError> {
        self.kv.namespace(self.namespace.account, self.namespace.id).map(drop)
    }
}

/// At most 25 MiB.
pub(super) async fn whole(value: Value) -> Result<Bytes, KvError> {
    match value {
        Value::Inline(bytes) => Ok(bytes),
        Value::Blob(mut reader) => {
            let mut value = BytesMut::with_capacity(usize::try_from(reader.len()).unwrap_or(0));
            while let Some(piece) = reader.next().await {
                value.extend_from_slice(&piece?);
            }
            Ok(value.freeze())
        }
    }
}

/// Keys and metadata are checked to be UTF-8 before they are stored.
pub(super) fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
