//! Entries of the system's own for the other parts of the node, which know what they mean. Sealed and replicated like
//! all others, and large ones are blobs like users' values.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

use super::{Kv, KvError, NamespaceId, Value, tombstone};
use crate::replica::Key;

/// What one key of a system namespace holds.
#[derive(Debug, Clone)]
pub(crate) struct SystemRow {
    /// The key.
    pub(crate) name: Bytes,
    /// Its value, whole.
    pub(crate) value: Bytes,
}

impl Kv {
    /// Ticks within moments of a change of what Workers are made of, made here or arrived from elsewhere.
    pub(crate) fn worker_changes(&self) -> watch::Receiver<u64> {
        self.handle().worker_changes()
    }

    /// Which state of that this node has.
    pub(crate) fn worker_generation(&self) -> u64 {
        self.handle().reader().worker_generation()
    }

    /// What a key holds; `None` if nothing, or nothing any more.
    pub(crate) async fn system_row(&self, namespace: NamespaceId, name: &[u8]) -> Result<Option<Bytes>, KvError> {
        let Some(found) = self.find(&row_key(namespace, name)?).await? else { return Ok(None) };
        match found.value {
            Value::Inline(bytes) => Ok(Some(bytes)),
            Value::Blob(mut blob) => {
                // A value is bounded, so its length is.
                let mut whole = BytesMut::with_capacity(blob.len() as usize);
                while let Some(chunk) = blob.next().await {
                    whole.extend_from_slice(&chunk?);
                }
                Ok(Some(whole.freeze()))
            }
        }
    }

    /// What the keys that start with `prefix` hold, in byte order.
    pub(crate) async fn system_rows(&self, namespace: NamespaceId, prefix: &[u8]) -> Result<Vec<SystemRow>, KvError> {
        let mut rows = Vec::new();
        for name in self.system_names(namespace, prefix)? {
            if let Some(value) = self.system_row(namespace, &name).await? {
                rows.push(SystemRow { name, value });
            }
        }
        Ok(rows)
    }

    /// The keys that start with `prefix` and hold something, in byte order.
    pub(crate) fn system_names(&self, namespace: NamespaceId, prefix: &[u8]) -> Result<Vec<Bytes>, KvError> {
        let now = self.now_ms();
        let mut names = Vec::new();
        self.handle().reader().visit(namespace, prefix, None, &mut |key, entry| {
            if entry.is_visible(now) {
                self.note_entry(Some(&entry));
                names.push(Bytes::copy_from_slice(&key.name()));
            }
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    /// Whether a key holds something, all of it here.
    pub(crate) fn has_system_row(&self, namespace: NamespaceId, name: &[u8]) -> Result<bool, KvError> {
        let entry = self.handle().reader().get(&row_key(namespace, name)?)?;
        self.note_entry(entry.as_ref());
        Ok(entry.is_some_and(|entry| entry.is_visible(self.now_ms())))
    }

    /// Sets a key, until `expiration` in Unix seconds if there is one.
    pub(crate) async fn set_system_row(
        &self,
        namespace: NamespaceId,
        name: &[u8],
        value: Bytes,
        expiration: Option<u64>,
    ) -> Result<(), KvError> {
        let mut upload = self.begin_upload(row_key(namespace, name)?);
        upload.write(value).await?;
        upload.finish(None, expiration).await
    }

    /// Deletes a key.
    pub(crate) async fn remove_system_row(&self, namespace: NamespaceId, name: &[u8]) -> Result<(), KvError> {
        self.write(row_key(namespace, name)?, tombstone()).await
    }
}

fn row_key(namespace: NamespaceId, name: &[u8]) -> Result<Key, KvError> {
    Key::new(namespace, name).ok_or(KvError::KeyTooLong { len: name.len() })
}
