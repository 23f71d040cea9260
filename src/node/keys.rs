//! Changing keys while the node serves: the cluster key, the keys of namespaces, node certificates.
//!
//! A rotation is begun at one node, by command; every node, also one that was away, then does its own part here:
//! seals its keyring with the new cluster key, tells the others, and forgets the old key once all have.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};

use super::belongings::Belongings;
use super::driver::{Alarms, Members};
use super::membership::Membership;
use crate::keyring::{ClusterKey, KeyError, KeyId, Keyring};
use crate::kv::{Kv, KvError};
use crate::net::{Net, NetError};
use crate::replica::{NamespaceId, NodeId};

/// How often a node looks whether there is something to do, beside when secrets change.
const TEND_PERIOD: Duration = Duration::from_secs(3);
/// After keys were destroyed the node that did it rotates the cluster key this much later, for all it destroyed at
/// once; if it does not, any other node does it later.
const SHRED_DELAY_MS: u64 = 1_000;
const SHRED_DELAY_OTHERS_MS: u64 = 30_000;

/// Why keys were not changed.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The operator keeps the key.
    #[error(
        "{0} still gives the cluster key in use. Make it give a new one (`starling key generate`) followed by the present \
         one, on every node, restart nodes that read it from a variable, and try again"
    )]
    NoNewKey(String),
    /// The key can't be had or kept.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The change can't be shared.
    #[error(transparent)]
    Kv(#[from] KvError),
}

/// One node's part in changing keys.
pub struct Keys {
    keyring: Arc<Keyring>,
    kv: Kv,
    net: Net,
    node: NodeId,
    membership: Mutex<Membership>,
    directory: std::path::PathBuf,
    members: watch::Receiver<Members>,
    alarms: Alarms,
    /// Keys were destroyed by a client of this node.
    shred: Arc<Notify>,
    shred_asked_ms: AtomicU64,
    /// Held while the source of the cluster key is read and written, by a command or by what tends keys: neither may
    /// undo what the other does, or the key that the keyring is sealed with would be in no file.
    source: Arc<std::sync::Mutex<()>>,
}

/// What a node's keys are, for people.
#[derive(Debug, Clone)]
pub struct KeyStatus {
    /// This node's.
    pub summary: crate::keyring::Summary,
    /// What each member's keyring is sealed with, as far as it has said.
    pub members: BTreeMap<NodeId, Option<KeyId>>,
    /// Whether an old copy of the data directory could give keys that were destroyed since.
    pub must_shred: bool,
    /// When this node's certificate ends, Unix seconds.
    pub certificate_until_secs: u64,
}

impl Keys {
    #[allow(clippy::too_many_arguments, reason = "called once, where a node is put together")]
    pub(super) fn new(
        kv: Kv,
        net: Net,
        node: NodeId,
        membership: Membership,
        directory: std::path::PathBuf,
        members: watch::Receiver<Members>,
        alarms: Alarms,
        shred: Arc<Notify>,
    ) -> Arc<Self> {
        let keyring = Arc::clone(&membership.keyring);
        let (membership, shred_asked_ms, source) = (Mutex::new(membership), AtomicU64::new(0), Arc::default());
        Arc::new(Self { keyring, kv, net, node, membership, directory, members, alarms, shred, shred_asked_ms, source })
    }

    /// Goes on for the life of the node.
    pub(super) async fn tend(self: Arc<Self>) {
        let mut changes = self.keyring.changes();
        let mut members = self.members.clone();
        let mut last = String::new();
        loop {
            if let Err(error) = self.tend_once().await {
                let text = error.to_string();
                if text != last {
                    tracing::warn!(error = text, "keys can't be kept as they should be; trying again");
                    if let Ok(mut alarms) = self.alarms.write() {
                        alarms.retain(|known| *known != text);
                        alarms.push(text.clone());
                    }
                }
                last = text;
            }
            tokio::select! {
                changed = members.changed() => if changed.is_err() { return },
                changed = changes.changed() => if changed.is_err() { return },
                () = self.shred.notified() => self.shred_asked_ms.store(self.kv.now_ms().max(1), Ordering::Relaxed),
                () = tokio::time::sleep(TEND_PERIOD) => {}
                () = tokio::time::sleep(Duration::from_millis(SHRED_DELAY_MS)), if self.keyring.must_shred() => {}
            }
        }
    }

    async fn tend_once(&self) -> Result<(), RotateError> {
        self.renew_certificate().await?;
        if self.keyring.must_shred() {
            self.shred_if_due().await?;
        }
        let (wanted, lock) = self.keyring.cluster_keys();
        if wanted != lock {
            self.relock(&wanted).await?;
        }
        let told = self.kv.locks()?;
        let (_, lock) = self.keyring.cluster_keys();
        if told.get(&self.node) != Some(&lock.id()) {
            self.kv.tell_lock(self.node, lock.id()).await?;
        }
        let all_have = self.members.borrow().keys().all(|node| told.get(node) == Some(&wanted.id()));
        if all_have && lock == wanted && self.keyring.source().is_writable() {
            self.forget_others(&wanted).await?;
        }
        Ok(())
    }

    /// Seals the keyring with the key that everyone should use, once the source gives it.
    async fn relock(&self, wanted: &ClusterKey) -> Result<(), RotateError> {
        let (keyring, wanted) = (Arc::clone(&self.keyring), wanted.clone());
        self.at_source(move || {
            let source = keyring.source();
            let mut given = source.read()?.unwrap_or_default();
            if !given.contains(&wanted) {
                if !source.is_writable() {
                    return Err(KeyError::Behind { origin: source.to_string(), wanted: wanted.id() });
                }
                // The old one stays until everyone, and whoever shares this file, needs it no more.
                given.insert(0, wanted.clone());
                source.write(&given)?;
            }
            keyring.relock(wanted)?;
            tracing::info!(key = %keyring.summary().sealed_with, "the keyring is sealed with a new cluster key");
            Ok(())
        })
        .await
    }

    async fn forget_others(&self, wanted: &ClusterKey) -> Result<(), RotateError> {
        let (keyring, wanted) = (Arc::clone(&self.keyring), wanted.clone());
        self.at_source(move || {
            let given = keyring.source().read()?.unwrap_or_default();
            let is_used = keyring.cluster_keys() == (wanted.clone(), wanted.clone());
            if is_used && given.len() > 1 && given.contains(&wanted) {
                keyring.source().write(std::slice::from_ref(&wanted))?;
                tracing::info!("former cluster keys are forgotten");
            }
            Ok(())
        })
        .await
    }

    /// Destroyed keys would still open with an old copy of the keyring and the cluster key of that time, so that one
    /// goes too.
    async fn shred_if_due(&self) -> Result<(), RotateError> {
        let since_ms = self.kv.now_ms().saturating_sub(self.keyring.shred_since_ms());
        let is_ours = self.shred_asked_ms.load(Ordering::Relaxed) != 0;
        let delay_ms = if is_ours { SHRED_DELAY_MS } else { SHRED_DELAY_OTHERS_MS };
        if since_ms < delay_ms {
            return Ok(());
        }
        self.rotate_cluster().await?;
        self.shred_asked_ms.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Makes another cluster key, or takes the one that the operator has put in front, and has every member use it.
    pub async fn rotate_cluster(&self) -> Result<KeyId, RotateError> {
        let keyring = Arc::clone(&self.keyring);
        let rotated = self.at_source(move || {
            let source = keyring.source();
            let (current, _) = keyring.cluster_keys();
            let mut given = source.read()?.unwrap_or_default();
            let new = match given.first() {
                Some(first) if *first != current => first.clone(),
                _ if source.is_writable() => {
                    let new = ClusterKey::generate()?;
                    given.insert(0, new.clone());
                    source.write(&given)?;
                    new
                }
                _ => return Ok(Err(source.to_string())),
            };
            keyring.secret(NamespaceId::CLUSTER, new.bytes()).map(Ok)
        });
        let secret = rotated.await?.map_err(RotateError::NoNewKey)?;
        let id = ClusterKey::from_secret(&secret).map(|key| key.id());
        self.kv.share_secret(secret).await?;
        let (wanted, lock) = self.keyring.cluster_keys();
        if wanted != lock {
            self.relock(&wanted).await?;
        }
        Ok(id.unwrap_or(wanted.id()))
    }

    /// Makes another key for the values of a namespace, or for the system's entries. What was written before stays
    /// readable with the former one.
    pub async fn rotate_data(&self, owner: NamespaceId) -> Result<(), RotateError> {
        if !self.keyring.has_key(owner) {
            return Err(KvError::NamespaceNotFound.into());
        }
        let secret = self.keyring.fresh(owner)?;
        Ok(self.kv.share_secret(secret).await?)
    }

    /// Has every member renew its certificate.
    pub async fn rotate_certificates(&self) -> Result<(), RotateError> {
        self.kv.want_certificates_since(self.kv.now_ms() / 1000).await?;
        self.renew_certificate().await
    }

    /// Renews this node's certificate if its time, or a command, says so.
    async fn renew_certificate(&self) -> Result<(), RotateError> {
        let wanted_secs = self.kv.certificates_wanted_since()?;
        let now_secs = self.kv.now_ms() / 1000;
        let mut membership = self.membership.lock().await;
        let is_due = membership.identity.needs_renewal(now_secs) || membership.identity.issued_secs() < wanted_secs;
        if !is_due {
            return Ok(());
        }
        // A command from a node whose clock is ahead must not be carried out again and again.
        let renewed = membership.authority.renew(&membership.identity, now_secs.max(wanted_secs.min(now_secs + 3600)));
        let renewed = renewed.map_err(|error| KeyError::Write(error.to_string()))?;
        renewed.save(&self.directory).map_err(|error| KeyError::Write(error.to_string()))?;
        self.net.set_identity(&renewed).map_err(|error: NetError| KeyError::Write(error.to_string()))?;
        membership.identity = renewed;
        tracing::info!("renewed this node's certificate");
        Ok(())
    }

    /// Does what waits for files, alone.
    async fn at_source<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
    ) -> Result<T, RotateError> {
        let source = Arc::clone(&self.source);
        let done = tokio::task::spawn_blocking(move || {
            let _alone = source.lock().unwrap_or_else(PoisonError::into_inner);
            work()
        });
        Ok(done.await.map_err(|error| KeyError::Write(error.to_string()))??)
    }

    /// What this node has beside its store, and the cluster key that a backup is sealed with.
    pub async fn belongings(&self, name: &str) -> (Belongings, ClusterKey) {
        let (_, lock) = self.keyring.cluster_keys();
        let membership = self.membership.lock().await;
        (Belongings::of(&membership, name.to_owned(), self.kv.clock()), lock)
    }

    /// How keys stand.
    pub async fn status(&self) -> Result<KeyStatus, RotateError> {
        let told = self.kv.locks()?;
        let members = self.members.borrow().keys().map(|node| (*node, told.get(node).copied())).collect();
        let certificate_until_secs = self.membership.lock().await.identity.not_after_secs();
        let (summary, must_shred) = (self.keyring.summary(), self.keyring.must_shred());
        Ok(KeyStatus { summary, members, must_shred, certificate_until_secs })
    }
}
