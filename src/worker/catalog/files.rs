//! Files: modules, secrets, static assets and their lists, each kept once for the life of its script however many
//! versions use it.
//!
//! A version that uses a file may be on its way from another PoP, so a file that no version here uses is given up only
//! once nobody has wanted it for [`FILE_GRACE_MS`].

use std::collections::BTreeSet;

use bytes::Bytes;

use super::limits::{FILE_GRACE_MS, FILE_USE_NOTED_EVERY_MS};
use super::rows::{ROW_VERSION, Tag, UseRow};
use super::{Life, Workers};
use crate::kv::{KvError, NamespaceId};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    /// Of code; by the hash of its content.
    Module = b'm',
    /// By a random number, so that equal secrets don't look equal.
    Secret = b's',
    /// By the hash that its uploader gave it.
    Asset = b'a',
    /// Of assets; by the hash of its content.
    List = b'l',
}

/// Names a file within a life.
pub(super) type FileId = (Kind, [u8; 32]);

/// A file of that content.
pub(super) fn id_of(kind: Kind, content: &[u8]) -> FileId {
    (kind, *blake3::hash(content).as_bytes())
}

/// A static asset, by its uploader's hash.
pub(super) fn asset_id(hash: [u8; 16]) -> FileId {
    let mut id = [0; 32];
    id[..16].copy_from_slice(&hash);
    (Kind::Asset, id)
}

fn name((kind, id): FileId) -> Vec<u8> {
    [&[kind as u8], &id[..]].concat()
}

impl Workers {
    /// Keeps a file, unless it is here already.
    pub(super) async fn keep_file(
        &self,
        life: Life,
        id: FileId,
        content: Bytes,
        content_type: Option<String>,
    ) -> Result<(), KvError> {
        self.use_file(life, id, content_type).await?;
        if !self.has_file(life, id)? {
            self.kv.set_system_row(NamespaceId::WORKER_FILES, &file_key(life, id), content, None).await?;
        }
        Ok(())
    }

    pub(super) fn has_file(&self, life: Life, id: FileId) -> Result<bool, KvError> {
        self.kv.has_system_row(NamespaceId::WORKER_FILES, &file_key(life, id))
    }

    /// The content of a file, if all of it is here.
    pub(super) async fn file(&self, life: Life, id: FileId) -> Result<Option<Bytes>, KvError> {
        self.kv.system_row(NamespaceId::WORKER_FILES, &file_key(life, id)).await
    }

    /// What is known of a file beside its content.
    pub(super) async fn content_type(&self, life: Life, id: FileId) -> Result<Option<String>, KvError> {
        Ok(self.row::<UseRow>(&use_key(life, id)).await?.and_then(|row| row.content_type))
    }

    /// Notes that a file is wanted.
    pub(super) async fn use_file(&self, life: Life, id: FileId, content_type: Option<String>) -> Result<(), KvError> {
        let (key, now) = (use_key(life, id), self.kv.now_ms());
        let known: Option<UseRow> = self.row(&key).await?;
        if known.as_ref().is_some_and(|known| {
            now < known.used_ms + FILE_USE_NOTED_EVERY_MS
                && (content_type.is_none() || known.content_type == content_type)
        }) {
            return Ok(());
        }
        let content_type = content_type.or(known.and_then(|known| known.content_type));
        self.set(&key, &UseRow { version: ROW_VERSION, used_ms: now, content_type }).await
    }

    /// Files that nobody has wanted for long. Some version may use them all the same.
    pub(super) async fn unwanted_files(&self, life: Life) -> Result<BTreeSet<FileId>, KvError> {
        let now = self.kv.now_ms();
        let used = self.rows::<UseRow>(&Tag::Use.key(&[&life.0])).await?;
        let unwanted = used.into_iter().filter(|(_, used)| used.used_ms + FILE_GRACE_MS < now);
        Ok(unwanted.filter_map(|(name, _)| id_named(&name)).collect())
    }

    /// Gives a file up.
    pub(super) async fn drop_file(&self, life: Life, id: FileId) -> Result<(), KvError> {
        self.kv.remove_system_row(NamespaceId::WORKER_FILES, &file_key(life, id)).await?;
        self.remove(&use_key(life, id)).await
    }
}

/// The inverse of [`name`].
fn id_named(name: &[u8]) -> Option<FileId> {
    let (kind, id) = name.split_first()?;
    let kind = match kind {
        b'm' => Kind::Module,
        b's' => Kind::Secret,
        b'a' => Kind::Asset,
        b'l' => Kind::List,
        _ => return None,
    };
    Some((kind, id.try_into().ok()?))
}

fn file_key(life: Life, id: FileId) -> Vec<u8> {
    [&life.0[..], &name(id)].concat()
}

fn use_key(life: Life, id: FileId) -> Vec<u8> {
    Tag::Use.key(&[&life.0, &name(id)])
}
