//! Uploads of static assets: a client says which files it has, is told which are missing here, and sends them; the
//! version that it uploads then names them by the token of the session.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::files::{Kind, asset_id, id_of};
use super::limits::{
    ASSET_LEN_MAX, ASSET_PATH_LEN_MAX, ASSET_PATHS_LEN_MAX, ASSETS_MAX, BUCKET_FILES_MAX, BUCKET_LEN_MAX, SESSION_SECS,
};
use super::rows::{ROW_VERSION, Tag, encode};
use super::{Life, Version, WorkerError, Workers, decode};
use crate::kv::{AccountId, NamespaceId};
use crate::worker::{Asset, Assets, HtmlHandling, NotFoundHandling, ScriptFirst};

/// The static assets of a new version.
#[derive(Debug, Clone)]
pub enum NewAssets {
    /// None.
    None,
    /// Those of the latest version.
    Keep,
    /// Those of an upload session.
    Uploaded {
        /// Of the session.
        token: String,
        /// How they are served.
        config: AssetConfig,
    },
}

/// How static assets are served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssetConfig {
    /// How pages are found.
    pub html: HtmlHandling,
    /// What stands in for what is not found.
    pub missing: NotFoundHandling,
    /// Which requests go to the script although a file matches.
    pub script_first: ScriptFirst,
}

/// What a client is to send.
#[derive(Debug)]
pub struct Wanted {
    /// Lets it send, and names the files in the upload of a version.
    pub token: String,
    /// Hashes of the files that are missing, in the portions to send them in.
    pub buckets: Vec<Vec<[u8; 16]>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SessionRow {
    version: u8,
    account: [u8; 16],
    pub(super) life: Life,
    /// BLAKE3 of the secret in the token.
    secret: [u8; 32],
    ends_ms: u64,
    /// Path, hash and length.
    files: Vec<(String, [u8; 16], u64)>,
}

/// The assets of a version, in a file of their own.
#[derive(Serialize, Deserialize)]
pub(super) struct AssetList {
    version: u8,
    pub(super) files: Vec<AssetRow>,
    html: u8,
    missing: u8,
    script_first: Option<Vec<String>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct AssetRow {
    path: String,
    pub(super) hash: [u8; 16],
    len: u64,
    content_type: Option<String>,
}

/// What a token says. It is one of the kind that clients look into for its end; that it is genuine is known by the
/// random secret that takes the place of a signature.
#[derive(Serialize, Deserialize)]
struct Claims {
    session: String,
    exp: u64,
    iat: u64,
}

impl AssetList {
    pub(super) fn into_assets(self) -> Assets {
        let files = self
            .files
            .into_iter()
            .map(|row| (row.path, Asset { hash: row.hash, len: row.len, content_type: row.content_type }));
        Assets {
            files: files.collect(),
            html: match self.html {
                1 => HtmlHandling::ForceTrailingSlash,
                2 => HtmlHandling::DropTrailingSlash,
                3 => HtmlHandling::None,
                _ => HtmlHandling::AutoTrailingSlash,
            },
            missing: match self.missing {
                1 => NotFoundHandling::NotFoundPage,
                2 => NotFoundHandling::SinglePage,
                _ => NotFoundHandling::None,
            },
            script_first: match self.script_first {
                None => ScriptFirst::Never,
                Some(paths) if paths.is_empty() => ScriptFirst::Always,
                Some(paths) => ScriptFirst::Paths(paths),
            },
        }
    }

    fn new(files: Vec<AssetRow>, config: AssetConfig) -> Self {
        Self {
            version: ROW_VERSION,
            files,
            html: match config.html {
                HtmlHandling::AutoTrailingSlash => 0,
                HtmlHandling::ForceTrailingSlash => 1,
                HtmlHandling::DropTrailingSlash => 2,
                HtmlHandling::None => 3,
            },
            missing: match config.missing {
                NotFoundHandling::None => 0,
                NotFoundHandling::NotFoundPage => 1,
                NotFoundHandling::SinglePage => 2,
            },
            script_first: match config.script_first {
                ScriptFirst::Never => None,
                ScriptFirst::Always => Some(Vec::new()),
                ScriptFirst::Paths(paths) => Some(paths),
            },
        }
    }
}

impl Workers {
    /// Begins an upload of the static assets of a script: path → hash and length.
    pub async fn begin_assets(
        &self,
        account: AccountId,
        name: &str,
        manifest: BTreeMap<String, ([u8; 16], u64)>,
    ) -> Result<Wanted, WorkerError> {
        check(&manifest)?;
        let (script, _) = self.script_or_new(account, name, None).await?;
        let mut missing = BTreeMap::new();
        for (hash, len) in manifest.values() {
            match self.has_file(script.life, asset_id(*hash))? {
                true => self.use_file(script.life, asset_id(*hash), None).await?,
                false => {
                    missing.insert(*hash, *len);
                }
            }
        }
        let now = self.kv.now_ms();
        let ends_ms = now + SESSION_SECS * 1000;
        let id = self.kv.random_id();
        let secret: Zeroizing<[u8; 32]> = Zeroizing::new(concat(self.kv.random_id(), self.kv.random_id()));
        let row = SessionRow {
            version: ROW_VERSION,
            account: account.0,
            life: script.life,
            secret: *blake3::hash(&*secret).as_bytes(),
            ends_ms,
            files: manifest.into_iter().map(|(path, (hash, len))| (path, hash, len)).collect(),
        };
        let key = Tag::Session.key(&[&id]);
        self.kv.set_system_row(NamespaceId::WORKERS, &key, encode(&row), Some(ends_ms / 1000)).await?;
        let claims = Claims { session: Life(id).hex(), exp: ends_ms / 1000, iat: now / 1000 };
        let claims = serde_json::to_vec(&claims).expect("plain data always serializes");
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let token = format!("{}.{}.{}", part(br#"{"alg":"none","typ":"JWT"}"#), part(&claims), part(&*secret));
        Ok(Wanted { token, buckets: buckets(missing) })
    }

    /// Takes in one file of an upload.
    pub async fn add_asset(
        &self,
        account: AccountId,
        token: &str,
        hash: [u8; 16],
        content: Bytes,
        content_type: Option<String>,
    ) -> Result<(), WorkerError> {
        let session = self.session(account, token).await?;
        let name = || Life(hash).hex();
        if content.len() > ASSET_LEN_MAX {
            return Err(WorkerError::AssetTooLarge(name()));
        }
        match session.files.iter().find(|(_, other, _)| *other == hash) {
            None => return Err(WorkerError::StrangeAsset(name())),
            Some((path, _, len)) if *len != content.len() as u64 => {
                let (path, sent) = (path.clone(), content.len());
                return Err(WorkerError::Manifest(format!(
                    "{path} has {len} bytes there and {sent} where it was sent"
                )));
            }
            Some(_) => {}
        }
        let content_type =
            content_type.filter(|text| text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
        Ok(self.keep_file(session.life, asset_id(hash), content, content_type).await?)
    }

    /// How many files of an upload are still missing here.
    pub async fn missing_assets(&self, account: AccountId, token: &str) -> Result<usize, WorkerError> {
        let session = self.session(account, token).await?;
        let hashes: BTreeSet<[u8; 16]> = session.files.iter().map(|(_, hash, _)| *hash).collect();
        let mut missing = 0;
        for hash in hashes {
            missing += usize::from(!self.has_file(session.life, asset_id(hash))?);
        }
        Ok(missing)
    }

    /// The session that a token stands for.
    pub(super) async fn session(&self, account: AccountId, token: &str) -> Result<SessionRow, WorkerError> {
        let read = || {
            let mut parts = token.split('.').skip(1);
            let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok()?;
            let id: NamespaceId = claims.session.parse().ok()?;
            Some((id.0, Zeroizing::new(URL_SAFE_NO_PAD.decode(parts.next()?).ok()?)))
        };
        let (id, secret) = read().ok_or(WorkerError::NoSession)?;
        let row: Option<SessionRow> = self.row(&Tag::Session.key(&[&id])).await?;
        let hash = *blake3::hash(&secret).as_bytes();
        let is_good = |row: &SessionRow| {
            row.account == account.0 && bool::from(row.secret.ct_eq(&hash)) && self.kv.now_ms() < row.ends_ms
        };
        row.filter(is_good).ok_or(WorkerError::NoSession)
    }

    /// Writes the list of a version's assets, all of which must be here.
    pub(super) async fn list_assets(
        &self,
        life: Life,
        assets: NewAssets,
        session: Option<SessionRow>,
        base: Option<&Version>,
    ) -> Result<Option<[u8; 32]>, WorkerError> {
        let (config, session) = match (assets, session) {
            (NewAssets::Uploaded { config, .. }, Some(session)) => (config, session),
            (NewAssets::Keep, _) => return Ok(base.and_then(|base| base.row.assets)),
            _ => return Ok(None),
        };
        let (mut files, mut missing) = (Vec::with_capacity(session.files.len()), 0);
        for (path, hash, len) in session.files {
            let id = asset_id(hash);
            missing += usize::from(!self.has_file(life, id)?);
            let content_type = self.content_type(life, id).await?;
            files.push(AssetRow { path, hash, len, content_type });
        }
        if missing > 0 {
            return Err(WorkerError::AssetsMissing(missing));
        }
        let list = encode(&AssetList::new(files, config));
        let id = id_of(Kind::List, &list);
        self.keep_file(life, id, list, None).await?;
        Ok(Some(id.1))
    }

    /// How the assets of a version are served, and how many there are.
    pub async fn asset_config(
        &self,
        script: &super::Script,
        version: &Version,
    ) -> Result<Option<(AssetConfig, usize)>, WorkerError> {
        let Some(list) = version.row.assets else { return Ok(None) };
        let list = self.file(script.life, (Kind::List, list)).await?.and_then(|list| decode::<AssetList>(&list));
        Ok(list.map(|list| {
            let Assets { files, html, missing, script_first } = list.into_assets();
            (AssetConfig { html, missing, script_first }, files.len())
        }))
    }
}

fn concat(first: [u8; 16], second: [u8; 16]) -> [u8; 32] {
    let mut both = [0; 32];
    both[..16].copy_from_slice(&first);
    both[16..].copy_from_slice(&second);
    both
}

fn check(manifest: &BTreeMap<String, ([u8; 16], u64)>) -> Result<(), WorkerError> {
    if manifest.len() > ASSETS_MAX {
        return Err(WorkerError::TooManyAssets);
    }
    if manifest.keys().map(String::len).sum::<usize>() > ASSET_PATHS_LEN_MAX {
        return Err(WorkerError::Manifest(format!("its paths have more than {ASSET_PATHS_LEN_MAX} bytes in all")));
    }
    for (path, (_, len)) in manifest {
        if !path.starts_with('/') || path.len() > ASSET_PATH_LEN_MAX || path.chars().any(char::is_control) {
            let shown: String = path.chars().take(64).collect();
            return Err(WorkerError::Manifest(format!(
                "{shown:?} does not begin with a slash, has control characters or over {ASSET_PATH_LEN_MAX} bytes"
            )));
        }
        if *len > ASSET_LEN_MAX as u64 {
            return Err(WorkerError::AssetTooLarge(path.clone()));
        }
    }
    Ok(())
}

/// In portions of which each makes one request of sensible size.
fn buckets(missing: BTreeMap<[u8; 16], u64>) -> Vec<Vec<[u8; 16]>> {
    let (mut buckets, mut bucket, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (hash, len) in missing {
        if !bucket.is_empty() && (bytes + len > BUCKET_LEN_MAX || bucket.len() == BUCKET_FILES_MAX) {
            buckets.push(std::mem::take(&mut bucket));
            bytes = 0;
        }
        bucket.push(hash);
        bytes += len;
    }
    if !bucket.is_empty() {
        buckets.push(bucket);
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_a_bounded_number_of_files_and_bytes() {
        let files = |count: usize, len| (0..count).map(|n| (concat_number(n), len)).collect::<BTreeMap<_, _>>();
        assert!(buckets(files(0, 1)).is_empty());
        let sizes = |count, len| buckets(files(count, len)).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(BUCKET_FILES_MAX + 1, 1), [BUCKET_FILES_MAX, 1]);
        assert_eq!(sizes(3, BUCKET_LEN_MAX / 2), [2, 1]);
        assert_eq!(sizes(2, BUCKET_LEN_MAX), [1, 1]);
    }

    fn concat_number(n: usize) -> [u8; 16] {
        (n as u128).to_be_bytes()
    }
}
