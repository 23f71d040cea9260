//! The keyring's file: `starkey1` ‖ id of the cluster key (8) ‖ salt (16) ‖ AES-256-GCM of its contents under a key
//! derived from cluster key and salt, which are used together once. The former file is overwritten before it is
//! given back to the file system.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{ClusterKey, KeyError, KeyId, KeySource};
use crate::datadir::write_private;
use crate::node::entropy;
use crate::replica::{NamespaceId, SecretBytes, SharedSecret};

const MAGIC: &[u8; 8] = b"starkey1";
const SALT_LEN: usize = 16;
const HEADER_LEN: usize = MAGIC.len() + 8 + SALT_LEN;
/// Far above what all secrets take.
const FILE_LEN_MAX: u64 = 64 << 20;

/// What the file keeps.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Contents {
    pub(super) secrets: Vec<SharedSecret>,
    pub(super) node_key: SecretBytes,
    pub(super) authority_key: SecretBytes,
    /// A cluster key of a lower rank was in use when keys were destroyed.
    pub(super) shred_below: u64,
}

impl Contents {
    pub(super) fn of(&self, owner: NamespaceId) -> impl Iterator<Item = &SharedSecret> {
        self.secrets.iter().filter(move |secret| secret.owner == owner)
    }
}

pub(super) fn open(path: &Path, keys: &[ClusterKey], source: &KeySource) -> Result<(ClusterKey, Contents), KeyError> {
    let io = |cause| KeyError::Io { path: path.to_owned(), cause };
    let damaged = || KeyError::Damaged(path.to_owned());
    if fs::metadata(path).map_err(io)?.len() > FILE_LEN_MAX {
        return Err(damaged());
    }
    let sealed = fs::read(path).map_err(io)?;
    let (header, body) = sealed.split_at_checked(HEADER_LEN).ok_or_else(damaged)?;
    let (magic, rest) = header.split_at(MAGIC.len());
    let (id, salt) = rest.split_first_chunk().ok_or_else(damaged)?;
    if magic != MAGIC {
        return Err(damaged());
    }
    let id = KeyId(*id);
    let Some(key) = keys.iter().find(|key| key.id() == id) else {
        let given = keys.iter().map(|key| key.id().to_string()).collect::<Vec<_>>().join(", ");
        return Err(KeyError::Wrong { path: path.to_owned(), wanted: id, given, origin: source.to_string() });
    };
    let mut body = Zeroizing::new(body.to_vec());
    let plain = cipher(key, salt)
        .open_in_place(Nonce::assume_unique_for_key([0; NONCE_LEN]), Aad::from(header), &mut body)
        .map_err(|_| damaged())?;
    let contents = postcard::from_bytes(plain).map_err(|_| damaged())?;
    Ok((key.clone(), contents))
}

pub(super) fn write(path: &Path, lock: &ClusterKey, contents: &Contents) -> Result<(), KeyError> {
    let salt: [u8; SALT_LEN] = entropy().map_err(KeyError::Entropy)?;
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&lock.id().0);
    header.extend_from_slice(&salt);
    let mut body = postcard::to_stdvec(contents).expect("plain data always serializes");
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    let tag = cipher(lock, &salt).seal_in_place_separate_tag(nonce, Aad::from(&header), &mut body);
    let tag = tag.map_err(|_| KeyError::Damaged(path.to_owned()))?;
    let file = [&header, &body[..], tag.as_ref()].concat();
    let former = OpenOptions::new().write(true).open(path).ok();
    write_private(path, &file).map_err(|error| KeyError::Write(error.to_string()))?;
    if let Some(mut former) = former
        && let Err(error) = wipe(&mut former)
    {
        tracing::warn!(%error, path = %path.display(), "the former keyring file could not be overwritten");
    }
    Ok(())
}

/// Overwrites a file with zeros. What the medium keeps of it is beyond us.
pub(super) fn wipe(file: &mut fs::File) -> io::Result<()> {
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    file.write_all(&vec![0; len])?;
    file.sync_all()
}

fn cipher(key: &ClusterKey, salt: &[u8]) -> LessSafeKey {
    let material = Zeroizing::new([key.bytes(), salt].concat());
    let mut derived = blake3::derive_key("starling 1 keyring file", &material);
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &derived).expect("32 bytes are a key"));
    derived.zeroize();
    cipher
}
