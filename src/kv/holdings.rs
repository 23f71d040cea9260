//! How much an account holds.

use std::ops::ControlFlow;

use super::{AccountId, Kv, KvError, Stored};

impl Kv {
    /// Keys of an account that can be read at this node, and the bytes that their values take, sealed, without their
    /// keys and metadata. Reads every entry of the account's namespaces.
    pub async fn holdings(&self, account: AccountId) -> Result<(u64, u64), KvError> {
        let kv = self.clone();
        let counting = tokio::task::spawn_blocking(move || {
            let (now_ms, mut keys, mut bytes) = (kv.now_ms(), 0, 0);
            for namespace in kv.namespaces(account)? {
                kv.handle().reader().visit(namespace.id, b"", None, &mut |_, entry| {
                    let content = entry.content();
                    let len = match &content.value {
                        Stored::Inline(sealed) => Some(sealed.len() as u64),
                        Stored::Blob(blob) => Some(blob.len),
                        Stored::Tombstone | Stored::Dropped(_) => None,
                    };
                    if let Some(len) = len.filter(|_| content.expire_ms == 0 || content.expire_ms > now_ms) {
                        (keys, bytes) = (keys + 1, bytes + len);
                    }
                    ControlFlow::Continue(())
                })?;
            }
            Ok((keys, bytes))
        });
        counting.await.map_err(|_| KvError::ShuttingDown)?
    }
}
