//! Listing keys in byte order.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::values::expiration;
use super::{Bookmark, Kv, KvError, NamespaceId, SealError};
use crate::replica::{Damage, Entry, Key};

/// Most keys of one page.
pub const LIST_LIMIT_MAX: usize = 1000;
/// Most entries looked at for one page, deleted and expired ones included: a page may end early, with more to come.
pub const LIST_EXAMINED_MAX: usize = 100_000;

/// One key of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key, valid UTF-8.
    pub name: Bytes,
    /// JSON text.
    pub metadata: Option<Bytes>,
    /// Unix seconds from which it is gone.
    pub expiration: Option<u64>,
}

/// Part of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys in byte order. May be fewer than asked for, even none, and still not the last.
    pub keys: Vec<Listed>,
    /// The last key looked at, to go on after; `None` at the end.
    pub next: Option<Bytes>,
}

impl Kv {
    /// Keys that start with `prefix` and lie after `after`, at most `limit` (from 1 to [`LIST_LIMIT_MAX`]; what lies
    /// outside is taken as the nearest). Whether the namespace exists is for the caller to check.
    pub async fn list(
        &self,
        namespace: NamespaceId,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, KvError> {
        if namespace.is_system() {
            return Err(KvError::NamespaceNotFound);
        }
        let (kv, prefix, after) = (self.clone(), prefix.to_vec(), after.map(<[u8]>::to_vec));
        let limit = limit.clamp(1, LIST_LIMIT_MAX);
        let page = Arc::new(move || kv.page(namespace, &prefix, after.as_deref(), limit));
        let mut damaged: Option<Key> = None;
        loop {
            let page = Arc::clone(&page);
            let page = tokio::task::spawn_blocking(move || page()).await.map_err(|_| KvError::ShuttingDown)?;
            match page {
                // Metadata that can't be opened; each time another key, or it could not be mended.
                Err((Some(key), KvError::Damaged(_))) if damaged.as_ref() != Some(&key) => {
                    self.repair(Damage::Entry(key.clone())).await?;
                    damaged = Some(key);
                }
                page => return page.map_err(|(_, error)| error),
            }
        }
    }

    fn page(
        &self,
        namespace: NamespaceId,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, (Option<Key>, KvError)> {
        let now = self.now_ms();
        let mut page = Page::default();
        let mut examined = 0;
        let mut last = None;
        let mut failure = None;
        // Also what is not shown any more: a later page elsewhere must not show it again.
        let (mut seen, notes) = (Bookmark::default(), self.is_session());
        let mut visit = |key: Key, entry: Entry| {
            if examined == LIST_EXAMINED_MAX {
                page.next = last.take();
                return ControlFlow::Break(());
            }
            examined += 1;
            if notes {
                seen.note(entry.dot, entry.stamp);
            }
            if entry.is_visible(now) {
                if page.keys.len() == limit {
                    page.next = last.take();
                    return ControlFlow::Break(());
                }
                match self.open_metadata(&key, &entry) {
                    // A copy, or each listed key would keep its whole value in memory.
                    Ok(metadata) => page.keys.push(Listed {
                        name: key.name(),
                        metadata: metadata.map(|metadata| Bytes::copy_from_slice(&metadata)),
                        expiration: expiration(&entry),
                    }),
                    Err(error) => {
                        failure = Some((Some(key), error));
                        return ControlFlow::Break(());
                    }
                }
            }
            last = Some(key.name());
            ControlFlow::Continue(())
        };
        let mut damaged = None;
        let visited = self.handle().reader().visit_all(namespace, prefix, after, &mut visit, &mut |key| {
            damaged = Some(key);
            ControlFlow::Break(())
        });
        if let Some(key) = damaged {
            failure = Some((Some(key), KvError::Damaged(SealError::Damaged)));
        }
        self.note_all(&seen);
        match (visited, failure) {
            (_, Some(failure)) => Err(failure),
            (Err(error), None) => Err((None, error.into())),
            (Ok(()), None) => Ok(page),
        }
    }
}
