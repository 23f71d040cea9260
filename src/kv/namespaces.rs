//! Namespaces: entries in [`NamespaceId::NAMESPACES`], id → account and title. A deletion is an entry in
//! [`NamespaceId::DELETED`] and can't be undone.
//!
//! Titles are unique per account among what this node knows: two nodes that create one title at the same moment get
//! two namespaces, told apart by their ids. Renaming or deleting one of them is up to the user.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{AccountId, Kv, KvError, Part, tombstone};
use crate::replica::limits::TITLE_LEN_MAX;
use crate::replica::{Content, Dot, Entry, Key, NamespaceId, Timestamp, Value as Stored};

/// Most namespaces of one account, as far as the creating node knows.
pub const NAMESPACES_PER_ACCOUNT_MAX: usize = 10_000;
/// Version of [`Row`].
const ROW_VERSION: u8 = 1;

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its id.
    pub id: NamespaceId,
    /// Its owner.
    pub account: AccountId,
    /// Its name.
    pub title: String,
}

#[derive(Serialize, Deserialize)]
struct Row {
    version: u8,
    account: [u8; 16],
    title: String,
    created_ms: u64,
}

impl Kv {
    /// An account's namespaces, by id.
    pub fn namespaces(&self, account: AccountId) -> Result<Vec<Namespace>, KvError> {
        self.all_namespaces(account, &mut |entry| self.note_entry(Some(entry)))
    }

    fn all_namespaces(&self, account: AccountId, seen: &mut dyn FnMut(&Entry)) -> Result<Vec<Namespace>, KvError> {
        let now = self.now_ms();
        let mut found = Vec::new();
        self.handle().reader().visit(NamespaceId::NAMESPACES, b"", None, &mut |key, entry| {
            seen(&entry);
            if let Some((id, row)) = self.decode_namespace(&key, &entry, now)
                && row.account == account.0
            {
                found.push(Namespace { id, account, title: row.title });
            }
            ControlFlow::Continue(())
        })?;
        let mut namespaces = Vec::with_capacity(found.len());
        for namespace in found {
            match self.deletion(namespace.id)? {
                Some(deletion) => seen(&deletion),
                None => namespaces.push(namespace),
            }
        }
        Ok(namespaces)
    }

    /// One of an account's namespaces.
    pub fn namespace(&self, account: AccountId, id: NamespaceId) -> Result<Namespace, KvError> {
        self.cached_namespace(id, Some(account), Namespace::clone)
    }

    /// Fails unless the namespace exists and is this account's.
    pub fn check_owner(&self, account: AccountId, id: NamespaceId) -> Result<(), KvError> {
        self.cached_namespace(id, Some(account), |_| ())
    }

    /// Fails unless the namespace exists, whoever owns it.
    pub(crate) fn check_namespace(&self, id: NamespaceId) -> Result<(), KvError> {
        self.cached_namespace(id, None, |_| ())
    }

    fn cached_namespace<T>(
        &self,
        id: NamespaceId,
        owner: Option<AccountId>,
        show: impl FnOnce(&Namespace) -> T,
    ) -> Result<T, KvError> {
        let generation = self.handle().reader().system_generation();
        let load = |id: &NamespaceId| {
            let (row, dot, stamp) = self.namespace_row(*id)?;
            let namespace = Namespace { id: *id, account: AccountId(row.account), title: row.title };
            Ok::<_, KvError>(Some((Arc::new(namespace), dot, stamp)))
        };
        let found = self.0.namespace_cache.get_or(generation, id, load, |(namespace, dot, stamp)| {
            let is_theirs = owner.is_none_or(|owner| namespace.account == owner);
            is_theirs.then(|| (show(namespace), *dot, *stamp))
        })?;
        let (shown, dot, stamp) = found.flatten().ok_or(KvError::NamespaceNotFound)?;
        // What is read in a namespace must not be followed by "no such namespace" elsewhere.
        self.note(dot, stamp);
        Ok(shown)
    }

    /// Creates a namespace.
    pub async fn create_namespace(&self, account: AccountId, title: &str) -> Result<Namespace, KvError> {
        check_title(title)?;
        let _titles = self.0.titles.lock().await;
        let others = self.all_namespaces(account, &mut |_| {})?;
        if others.iter().any(|other| other.title == title) {
            return Err(KvError::TitleTaken);
        }
        if others.len() >= NAMESPACES_PER_ACCOUNT_MAX {
            return Err(KvError::TooManyNamespaces);
        }
        let mut id = NamespaceId(self.random_id());
        while id.is_system() {
            id = NamespaceId(self.random_id());
        }
        let namespace = Namespace { id, account, title: title.into() };
        self.share_fresh_key(id).await?;
        self.write_namespace(&namespace, self.now_ms()).await?;
        Ok(namespace)
    }

    /// Gives a namespace another title.
    pub async fn rename_namespace(
        &self,
        account: AccountId,
        id: NamespaceId,
        title: &str,
    ) -> Result<Namespace, KvError> {
        check_title(title)?;
        let _titles = self.0.titles.lock().await;
        self.namespace(account, id)?;
        if self.all_namespaces(account, &mut |_| {})?.iter().any(|other| other.title == title && other.id != id) {
            return Err(KvError::TitleTaken);
        }
        let namespace = Namespace { id, account, title: title.into() };
        self.write_namespace(&namespace, self.namespace_row(id)?.0.created_ms).await?;
        Ok(namespace)
    }

    /// Deletes a namespace with all its keys, for ever: what they were sealed with is destroyed at once here, and at
    /// every other node as the deletion arrives. Disk space comes back little by little.
    pub async fn delete_namespace(&self, account: AccountId, id: NamespaceId) -> Result<(), KvError> {
        self.namespace(account, id)?;
        let deleted = system_key(NamespaceId::DELETED, id);
        let content = self.inline(&deleted, b"")?;
        self.write(deleted, content).await?;
        self.0.shreds.notify_one();
        // It is gone now. This only keeps listings short, so its failure is none of the caller's business.
        if let Err(error) = self.write(system_key(NamespaceId::NAMESPACES, id), tombstone()).await {
            tracing::warn!(namespace = %id, %error, "the row of a deleted namespace stays");
        }
        Ok(())
    }

    /// Two point reads, the second of a row that is hardly ever there.
    fn namespace_row(&self, id: NamespaceId) -> Result<(Row, Dot, Timestamp), KvError> {
        if id.is_system() {
            return Err(KvError::NamespaceNotFound);
        }
        let key = system_key(NamespaceId::NAMESPACES, id);
        let entry = self.handle().reader().get(&key)?.ok_or(KvError::NamespaceNotFound)?;
        if let Some(deletion) = self.deletion(id)? {
            self.note_entry(Some(&deletion));
            return Err(KvError::NamespaceNotFound);
        }
        let (_, row) = self.decode_namespace(&key, &entry, self.now_ms()).ok_or(KvError::NamespaceNotFound)?;
        Ok((row, entry.dot, entry.stamp))
    }

    fn deletion(&self, id: NamespaceId) -> Result<Option<Entry>, KvError> {
        Ok(self.handle().reader().get(&system_key(NamespaceId::DELETED, id))?)
    }

    /// `None` for what is not there any more, and for rows of later releases.
    fn decode_namespace(&self, key: &Key, entry: &Entry, now: u64) -> Option<(NamespaceId, Row)> {
        if !entry.is_visible(now) {
            return None;
        }
        let id = NamespaceId(key.name()[..].try_into().ok()?);
        let row: Row = self.decode_system(key, entry, ROW_VERSION)?;
        Some((id, row))
    }

    pub(super) async fn write_namespace(&self, namespace: &Namespace, created_ms: u64) -> Result<(), KvError> {
        let key = system_key(NamespaceId::NAMESPACES, namespace.id);
        let (account, title) = (namespace.account.0, namespace.title.clone());
        let content = self.encode_system(&key, &Row { version: ROW_VERSION, account, title, created_ms })?;
        self.write(key, content).await
    }

    pub(super) fn encode_system(&self, key: &Key, row: &impl Serialize) -> Result<Content, KvError> {
        let plain = postcard::to_stdvec(row).expect("plain data always serializes");
        self.inline(key, &plain)
    }

    /// A row of the system's own, whose first byte is its version.
    pub(super) fn decode_system<T: for<'de> Deserialize<'de>>(
        &self,
        key: &Key,
        entry: &Entry,
        version: u8,
    ) -> Option<T> {
        let Stored::Inline(sealed) = &entry.content().value else { return None };
        let plain = self.seal().open(key, Part::Value, sealed);
        let row = plain.ok().filter(|plain: &Bytes| plain.first() == Some(&version));
        let row = row.and_then(|plain| postcard::from_bytes(&plain).ok());
        if row.is_none() {
            tracing::warn!(?key, "a system entry of a later release, or of a node with another key, is left out");
        }
        row
    }
}

fn system_key(namespace: NamespaceId, id: NamespaceId) -> Key {
    Key::new(namespace, &id.0).expect("16 bytes are a key")
}

fn check_title(title: &str) -> Result<(), KvError> {
    match title.len() {
        1..=TITLE_LEN_MAX => Ok(()),
        len => Err(KvError::InvalidTitle { len }),
    }
}
