//! The keyring: every secret that a node holds, in one small file that is sealed with the cluster key and rewritten
//! whole, so that a key that is destroyed is in no file any more.
//!
//! Owns which key seals what, and how (`cipher`); where the cluster key comes from is in `source`, how the file looks
//! in `file`. Knows nothing of entries, nor how secrets reach other members.

mod cipher;
mod cluster_key;
mod file;
mod pieces;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use imbl::OrdMap;
use tokio::sync::watch;

pub use cipher::SEALED_OVERHEAD;
use cipher::{Cipher, Header};
pub use cluster_key::{ClusterKey, KeyId};
use file::Contents;
pub use pieces::{PieceKey, PieceName};
pub use source::{KeyError, KeySource};

use crate::node::{MachineClock, entropy};
use crate::replica::{NamespaceId, SecretBytes, SharedSecret};

/// A new key of an owner that has one already is used this long after it was made: by then the other members hold it.
pub const SETTLE_MS: u64 = 5_000;
/// Subkeys kept ready for opening; over it they are derived anew.
const OPENING_MAX: usize = 4096;

/// The bytes can't be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// The key is not here: on its way, or destroyed with its namespace.
    #[error("its key is not on this node: it is still on its way here, or was destroyed with its namespace")]
    NoKey,
    /// They are not what was sealed, or not what was sealed for this place.
    #[error("it was changed, or moved here from another place, since it was sealed")]
    Damaged,
}

/// What a node's keys are, for people and for metrics. No secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The cluster key that everyone should use.
    pub cluster_key: KeyId,
    /// The one that this node's keyring is sealed with.
    pub sealed_with: KeyId,
    /// Keys of namespaces and of the system's entries.
    pub data_keys: usize,
    /// Where the cluster key comes from.
    pub source: String,
}

/// A node's secrets.
pub struct Keyring {
    path: PathBuf,
    source: KeySource,
    clock: MachineClock,
    /// Random for each process: with the count it makes every nonce unique, whoever else seals with the same key.
    life: [u8; 16],
    count: AtomicU64,
    state: RwLock<State>,
    opening: ArcSwap<Opening>,
    /// Held while the file is written.
    file: Mutex<()>,
    changes: watch::Sender<u64>,
}

/// Subkeys by the number of the key and the process that sealed.
type Opening = OrdMap<(u64, [u8; 16]), Arc<Cipher>>;

struct State {
    contents: Contents,
    /// What the file is sealed with.
    lock: ClusterKey,
    owners: BTreeMap<NamespaceId, OwnerKeys>,
}

/// The keys of one owner that this process seals with.
struct OwnerKeys {
    newest: (u64, Cipher),
    /// Until then the one before is used.
    settled_ms: u64,
    before: Option<(u64, Cipher)>,
}

impl Keyring {
    /// The keyring of a node that founds a cluster or joins one. Writes its file.
    pub fn create(
        path: PathBuf,
        source: KeySource,
        lock: ClusterKey,
        secrets: Vec<SharedSecret>,
        node_key: SecretBytes,
        authority_key: SecretBytes,
        clock: MachineClock,
    ) -> Result<Self, KeyError> {
        let contents = Contents { secrets, node_key, authority_key, shred_below: 0 };
        let keyring = Self::new(path, source, lock, contents, clock)?;
        keyring.save()?;
        Ok(keyring)
    }

    /// The keyring of a node that is made of a backup: what [`Keyring::export`] gave, with keys of its own for a new
    /// node. Writes its file.
    pub fn import(
        path: PathBuf,
        source: KeySource,
        lock: ClusterKey,
        exported: &SecretBytes,
        new: Option<(SecretBytes, SecretBytes)>,
        clock: MachineClock,
    ) -> Result<Self, KeyError> {
        let mut contents: Contents = postcard::from_bytes(&exported.0).map_err(|_| KeyError::Damaged(path.clone()))?;
        if let Some((node_key, authority_key)) = new {
            (contents.node_key, contents.authority_key) = (node_key, authority_key);
        }
        let keyring = Self::new(path, source, lock, contents, clock)?;
        keyring.save()?;
        Ok(keyring)
    }

    /// All that it keeps, for a backup.
    pub fn export(&self) -> SecretBytes {
        self.read(|state| SecretBytes(postcard::to_stdvec(&state.contents).expect("plain data always serializes")))
    }

    /// Opens the file with one of the keys that its source gives.
    pub fn open(path: PathBuf, source: KeySource, clock: MachineClock) -> Result<Self, KeyError> {
        let keys = source.read()?.ok_or_else(|| KeyError::Absent(source.to_string()))?;
        let (lock, contents) = file::open(&path, &keys, &source)?;
        Self::new(path, source, lock, contents, clock)
    }

    fn new(
        path: PathBuf,
        source: KeySource,
        lock: ClusterKey,
        contents: Contents,
        clock: MachineClock,
    ) -> Result<Self, KeyError> {
        let life: [u8; 16] = entropy().map_err(KeyError::Entropy)?;
        let owners = owners(&contents.secrets, &life);
        let (count, opening, file) = Default::default();
        let (changes, _) = watch::channel(0);
        Ok(Self {
            path,
            source,
            clock,
            life,
            count,
            state: RwLock::new(State { contents, lock, owners }),
            opening,
            file,
            changes,
        })
    }

    /// All that members share.
    pub fn secrets(&self) -> Vec<SharedSecret> {
        self.read(|state| state.contents.secrets.clone())
    }

    /// The private key of this node.
    pub fn node_key(&self) -> SecretBytes {
        self.read(|state| state.contents.node_key.clone())
    }

    /// The private key of the cluster's authority.
    pub fn authority_key(&self) -> SecretBytes {
        self.read(|state| state.contents.authority_key.clone())
    }

    /// Where the cluster key comes from.
    pub fn source(&self) -> &KeySource {
        &self.source
    }

    /// Marked changed whenever secrets were.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// For people.
    pub fn summary(&self) -> Summary {
        self.read(|state| Summary {
            cluster_key: state.cluster_key().map_or(state.lock.id(), |key| key.id()),
            sealed_with: state.lock.id(),
            data_keys: state.contents.secrets.iter().filter(|s| s.owner != NamespaceId::CLUSTER).count(),
            source: self.source.to_string(),
        })
    }

    /// The cluster key that all members should use, and the one that this node's file is sealed with.
    pub fn cluster_keys(&self) -> (ClusterKey, ClusterKey) {
        self.read(|state| (state.cluster_key().unwrap_or_else(|| state.lock.clone()), state.lock.clone()))
    }

    /// Whether keys were destroyed since the cluster key was made: an old copy of the file, opened with that cluster
    /// key, would still give them.
    pub fn must_shred(&self) -> bool {
        self.read(|state| state.cluster_rank() < state.contents.shred_below)
    }

    /// When keys were last destroyed, Unix milliseconds.
    pub fn shred_since_ms(&self) -> u64 {
        self.read(|state| state.contents.shred_below)
    }

    /// Replaces all shared secrets, durably.
    pub fn keep(&self, secrets: Vec<SharedSecret>) -> Result<(), KeyError> {
        let destroyed = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let is_kept = |old: &SharedSecret| secrets.iter().any(|new| new.owner == old.owner);
            let destroyed = !state.contents.secrets.iter().all(is_kept);
            state.owners = owners(&secrets, &self.life);
            state.contents.secrets = secrets;
            if destroyed {
                state.contents.shred_below = self.clock.wall_ms().max(state.cluster_rank().saturating_add(1));
            }
            destroyed
        };
        if destroyed {
            self.opening.store(Arc::default());
        }
        self.save()?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Seals the file with another cluster key.
    pub fn relock(&self, lock: ClusterKey) -> Result<(), KeyError> {
        self.state.write().unwrap_or_else(PoisonError::into_inner).lock = lock;
        self.save()
    }

    /// A fresh key for `owner`, to be shared with all members.
    pub fn fresh(&self, owner: NamespaceId) -> Result<SharedSecret, KeyError> {
        let bytes: [u8; 32] = entropy().map_err(KeyError::Entropy)?;
        self.secret(owner, &bytes)
    }

    /// These bytes as the newest secret of `owner`.
    pub fn secret(&self, owner: NamespaceId, bytes: &[u8; 32]) -> Result<SharedSecret, KeyError> {
        let number = u64::from_be_bytes(entropy().map_err(KeyError::Entropy)?);
        let newest = self.read(|state| state.contents.of(owner).map(|secret| secret.rank).max());
        let rank = self.clock.wall_ms().max(newest.map_or(0, |rank| rank.saturating_add(1)));
        Ok(SharedSecret { owner, number, rank, bytes: SecretBytes(bytes.to_vec()) })
    }

    /// Whether there is a key for `owner`.
    pub fn has_key(&self, owner: NamespaceId) -> bool {
        self.read(|state| state.owners.contains_key(&owner))
    }

    /// Seals `plain` with the key of `owner`, bound to `about`. Begins with `format`.
    pub fn seal(&self, format: u8, owner: NamespaceId, about: &[u8], plain: &[u8]) -> Result<Bytes, CipherError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let keys = state.owners.get(&owner).ok_or(CipherError::NoKey)?;
        let (number, cipher) = match &keys.before {
            Some(before) if self.clock.wall_ms() < keys.settled_ms => before,
            _ => &keys.newest,
        };
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        cipher.seal(Header { format, number: *number, life: self.life, count }, about, plain)
    }

    /// The inverse of [`Keyring::seal`].
    pub fn open_sealed(&self, owner: NamespaceId, about: &[u8], sealed: &[u8]) -> Result<Bytes, CipherError> {
        let header = Header::read(sealed).ok_or(CipherError::Damaged)?;
        let place = (header.number, header.life);
        if let Some(cipher) = self.opening.load().get(&place) {
            return cipher.open(about, sealed);
        }
        let key = self.read(|state| state.contents.of(owner).find(|s| s.number == header.number).cloned());
        let cipher = Arc::new(Cipher::derive(&key.ok_or(CipherError::NoKey)?.bytes.0, &header.life));
        self.opening.rcu(|opening| {
            let mut opening = if opening.len() < OPENING_MAX { Opening::clone(opening) } else { Opening::new() };
            opening.insert(place, Arc::clone(&cipher));
            opening
        });
        cipher.open(about, sealed)
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn save(&self) -> Result<(), KeyError> {
        let _file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (lock, contents) = self.read(|state| (state.lock.clone(), state.contents.clone()));
        file::write(&self.path, &lock, &contents)
    }
}

impl State {
    fn cluster_key(&self) -> Option<ClusterKey> {
        ClusterKey::from_secret(self.contents.of(NamespaceId::CLUSTER).next()?)
    }

    fn cluster_rank(&self) -> u64 {
        self.contents.of(NamespaceId::CLUSTER).map(|secret| secret.rank).max().unwrap_or(0)
    }
}

fn owners(secrets: &[SharedSecret], life: &[u8; 16]) -> BTreeMap<NamespaceId, OwnerKeys> {
    let mut by_owner: BTreeMap<NamespaceId, Vec<&SharedSecret>> = BTreeMap::new();
    for secret in secrets.iter().filter(|secret| secret.owner != NamespaceId::CLUSTER) {
        by_owner.entry(secret.owner).or_default().push(secret);
    }
    let cipher = |secret: &SharedSecret| (secret.number, Cipher::derive(&secret.bytes.0, life));
    by_owner
        .into_iter()
        .filter_map(|(owner, mut secrets)| {
            secrets.sort_by_key(|secret| (secret.rank, secret.number));
            let newest = secrets.pop()?;
            let before = secrets.pop().map(cipher);
            let settled_ms = newest.rank.saturating_add(SETTLE_MS);
            Some((owner, OwnerKeys { newest: cipher(newest), settled_ms, before }))
        })
        .collect()
}
