//! What the catalog keeps, and under which keys of the namespace `NamespaceId::WORKERS`.
//!
//! A script has a *life*, minted by its first upload: all that belongs to it is kept under that life and not under its
//! name. To delete a script is to end its life, an entry that is only ever added: it dominates whatever else is
//! written for that life, so an upload at another PoP that did not know of the deletion comes to nothing, and an upload
//! after it begins a new life. Two first uploads of one name at two PoPs are two lives; the later one has the name.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::id::{Life, Uuid};
use crate::kv::AccountId;
use crate::worker::{ModuleKind, Syntax};

/// Version of every row here: its first byte.
pub(super) const ROW_VERSION: u8 = 1;

/// What begins a key.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Tag {
    /// Account, then name → [`Head`].
    Head = b's',
    /// Life → [`Ended`].
    Ended = b'x',
    /// Life → [`DeploymentRow`], the one in force.
    Active = b'a',
    /// Life, then id → [`DeploymentRow`].
    Deployment = b'd',
    /// Life, then id → [`VersionRow`].
    Version = b'v',
    /// Life → [`PlaceRow`].
    Place = b'p',
    /// Life → [`CronsRow`].
    Crons = b'c',
    /// Life → [`SettingsRow`].
    Settings = b'g',
    /// Hash of the pattern → [`RouteRow`].
    Route = b'r',
    /// Account → [`SubdomainRow`].
    Subdomain = b'u',
    /// Id → [`SessionRow`](super::sessions::SessionRow).
    Session = b'h',
    /// Life, kind and hash of a file → [`UseRow`].
    Use = b't',
}

impl Tag {
    /// A key, or the beginning of some.
    pub(super) fn key(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = vec![self as u8];
        parts.iter().for_each(|part| key.extend_from_slice(part));
        key
    }
}

/// A script's name stands for this life.
#[derive(Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) version: u8,
    pub(super) life: Life,
    pub(super) created_ms: u64,
}

/// A life is over.
#[derive(Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) version: u8,
    pub(super) ended_ms: u64,
}

/// Which versions requests go to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DeploymentRow {
    pub(super) version: u8,
    pub(super) id: Uuid,
    pub(super) created_ms: u64,
    pub(super) author: String,
    pub(super) source: String,
    /// JSON text of an object.
    pub(super) annotations: String,
    /// Shares in percent.
    pub(super) versions: Vec<(Uuid, f64)>,
}

/// One version. Never changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct VersionRow {
    pub(super) version: u8,
    /// Counts a script's versions.
    pub(super) number: u64,
    pub(super) created_ms: u64,
    pub(super) author: String,
    pub(super) source: String,
    /// JSON text of an object.
    pub(super) annotations: String,
    pub(super) is_module_syntax: bool,
    /// The main one first.
    pub(super) modules: Vec<ModuleRow>,
    pub(super) bindings: Vec<(String, BindingRow)>,
    pub(super) compatibility_date: String,
    pub(super) compatibility_flags: Vec<String>,
    pub(super) cpu_ms: Option<u32>,
    /// Hash of the file that lists the static assets.
    pub(super) assets: Option<[u8; 32]>,
    /// What else clients say about a version and want to hear again, as JSON text of an object.
    pub(super) remarks: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ModuleRow {
    pub(super) name: String,
    pub(super) kind: ModuleKind,
    pub(super) hash: [u8; 32],
    pub(super) len: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum BindingRow {
    Kv([u8; 16]),
    Text(String),
    Json(String),
    /// The file that holds it.
    Secret([u8; 32]),
    Assets,
}

/// Where a script is served beside its routes.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct PlaceRow {
    pub(super) version: u8,
    pub(super) workers_dev: bool,
    pub(super) previews: bool,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct CronsRow {
    pub(super) version: u8,
    pub(super) crons: Vec<CronRow>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct CronRow {
    pub(super) cron: String,
    pub(super) created_ms: u64,
}

/// What clients set for a script as a whole, as JSON text of an object.
#[derive(Serialize, Deserialize)]
pub(super) struct SettingsRow {
    pub(super) version: u8,
    pub(super) settings: String,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct RouteRow {
    pub(super) version: u8,
    pub(super) account: [u8; 16],
    pub(super) zone: String,
    pub(super) pattern: String,
    /// `None`: requests there reach no script, although a wider pattern might say so.
    pub(super) script: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SubdomainRow {
    pub(super) version: u8,
    pub(super) subdomain: String,
}

/// When a file was last wanted: it may be in use by a version that has not arrived here.
#[derive(Serialize, Deserialize)]
pub(super) struct UseRow {
    pub(super) version: u8,
    pub(super) used_ms: u64,
    /// Of a static asset, as its uploader said.
    pub(super) content_type: Option<String>,
}

/// Writes a row.
pub(super) fn encode(row: &impl Serialize) -> Bytes {
    postcard::to_stdvec(row).expect("plain data always serializes").into()
}

/// Reads a row; `None` for those of later releases.
pub(super) fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    if bytes.first() != Some(&ROW_VERSION) {
        return None;
    }
    postcard::from_bytes(bytes).ok()
}

/// The key of a script's name.
pub(super) fn head_key(account: AccountId, name: &str) -> Vec<u8> {
    Tag::Head.key(&[&account.0, name.as_bytes()])
}

impl VersionRow {
    pub(super) fn syntax(&self) -> Syntax {
        if self.is_module_syntax { Syntax::Modules } else { Syntax::ServiceWorker }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a member writes there: a row, or none.
        #[test]
        fn any_bytes_are_a_row_or_none(mut bytes in prop::collection::vec(any::<u8>(), 0..300), is_ours in any::<bool>()) {
            if let Some(version) = bytes.first_mut().filter(|_| is_ours) {
                *version = ROW_VERSION;
            }
            let read = [
                decode::<Head>(&bytes).is_some(),
                decode::<Ended>(&bytes).is_some(),
                decode::<DeploymentRow>(&bytes).is_some(),
                decode::<VersionRow>(&bytes).is_some(),
                decode::<PlaceRow>(&bytes).is_some(),
                decode::<CronsRow>(&bytes).is_some(),
                decode::<SettingsRow>(&bytes).is_some(),
                decode::<RouteRow>(&bytes).is_some(),
                decode::<SubdomainRow>(&bytes).is_some(),
                decode::<UseRow>(&bytes).is_some(),
            ];
            prop_assert!(bytes.first() == Some(&ROW_VERSION) || !read.contains(&true));
        }
    }
}
