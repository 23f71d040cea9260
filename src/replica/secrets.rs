//! Secrets that all members share: the keys that values are sealed with, and the cluster key that locks those up.
//!
//! They go from member to member over links only, are kept by the driver outside the store, and so can be destroyed:
//! whatever the store's files remember, it is never a key. A grow-only set, but for two rules: the keys of a deleted
//! namespace are gone for good, and of the cluster key only the latest is kept.
//!
//! Knows nothing of ciphers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::dot::NodeId;
use super::input::{Alarm, Output, Refusal, Reply};
use super::key::NamespaceId;
use super::limits::{AHEAD_MS_MAX, SECRETS_MAX, SECRETS_PER_MESSAGE_MAX, SECRETS_PERIOD};
use super::message::Message;
use super::store::Store;
use super::{Now, Replica};

/// Bytes that are wiped when dropped and never shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretBytes(pub Vec<u8>);

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

/// A secret of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SharedSecret {
    /// What it is for: a namespace's values, [`NamespaceId::SYSTEM`] for the system's own, or [`NamespaceId::CLUSTER`].
    pub owner: NamespaceId,
    /// Random: tells the secrets of one owner apart.
    pub number: u64,
    /// When it was made, Unix milliseconds, and above every earlier one of its owner that its maker knew.
    pub rank: u64,
    /// The secret.
    pub bytes: SecretBytes,
}

/// Compares two members' secrets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SecretsHash(pub u128);

/// What this member holds.
#[derive(Clone, Default)]
pub(super) struct Secrets {
    held: BTreeMap<(NamespaceId, u64), SharedSecret>,
    hash: SecretsHash,
}

impl Secrets {
    pub(super) fn recover(secrets: Vec<SharedSecret>, deleted: &BTreeSet<NamespaceId>) -> Self {
        let mut this = Self::default();
        for secret in secrets.into_iter().filter(|secret| !deleted.contains(&secret.owner)) {
            this.add(secret);
        }
        this
    }

    /// True if it is news.
    fn add(&mut self, secret: SharedSecret) -> bool {
        let place = (secret.owner, secret.number);
        if self.held.contains_key(&place) {
            // Numbers are random, so another secret under this one is a lie of somebody who wants values to be sealed, or
            // lost, with it.
            return false;
        }
        if secret.owner == NamespaceId::CLUSTER {
            let newest = self.of(secret.owner).map(|held| (held.rank, held.number)).max();
            if newest.is_some_and(|newest| newest > (secret.rank, secret.number)) {
                return false;
            }
            self.destroy(NamespaceId::CLUSTER);
        }
        self.hash.0 = self.hash.0.wrapping_add(hash_of(&secret));
        self.held.insert(place, secret);
        true
    }

    fn of(&self, owner: NamespaceId) -> impl Iterator<Item = &SharedSecret> {
        self.held.range((owner, 0)..=(owner, u64::MAX)).map(|(_, secret)| secret)
    }

    fn destroy(&mut self, owner: NamespaceId) -> bool {
        let numbers: Vec<u64> = self.of(owner).map(|secret| secret.number).collect();
        for number in &numbers {
            if let Some(secret) = self.held.remove(&(owner, *number)) {
                self.hash.0 = self.hash.0.wrapping_sub(hash_of(&secret));
            }
        }
        !numbers.is_empty()
    }

    pub(super) fn hash(&self) -> SecretsHash {
        self.hash
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    fn all(&self) -> Vec<SharedSecret> {
        self.held.values().cloned().collect()
    }
}

fn hash_of(secret: &SharedSecret) -> u128 {
    let mut hasher = blake3::Hasher::new_derive_key("starling 1 hash of a shared secret");
    hasher.update(&secret.owner.0);
    hasher.update(&secret.number.to_be_bytes());
    hasher.update(&secret.rank.to_be_bytes());
    hasher.update(&secret.bytes.0);
    let mut hash = [0; 16];
    hasher.finalize_xof().fill(&mut hash);
    u128::from_be_bytes(hash)
}

impl<S: Store> Replica<S> {
    /// A local client shares a secret. It is kept here before the reply, and on its way to everyone connected.
    pub(super) fn share_secret(&mut self, secret: SharedSecret) -> Reply {
        if self.deleted.contains(&secret.owner) {
            return Reply::Refused(Refusal::NamespaceDeleted);
        }
        if self.secrets.len() >= SECRETS_MAX {
            return Reply::Refused(Refusal::Overloaded);
        }
        if self.secrets.add(secret.clone()) {
            self.keep_secrets();
            let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
            let message = Message::Secrets(vec![secret]);
            for node in nodes {
                self.send(node, &message);
            }
        }
        Reply::Done
    }

    pub(super) fn on_secrets(&mut self, secrets: Vec<SharedSecret>, now: Now) {
        let mut news = false;
        for secret in secrets {
            // After one that was made at the end of time there would be no newer one.
            let is_far_ahead = secret.rank > now.wall_ms.saturating_add(AHEAD_MS_MAX);
            if is_far_ahead || self.deleted.contains(&secret.owner) {
                continue;
            }
            if self.secrets.len() >= SECRETS_MAX {
                self.alarm(Alarm::TooManySecrets);
                break;
            }
            news |= self.secrets.add(secret);
        }
        if news {
            self.keep_secrets();
        }
    }

    /// A peer holds other secrets: it gets all of ours, and finds by itself that it should send its own.
    pub(super) fn compare_secrets(&mut self, node: NodeId, theirs: SecretsHash, now: Now) {
        if theirs == self.secrets.hash() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.secrets_sent.is_some_and(|sent| now.mono < sent + SECRETS_PERIOD) {
            return;
        }
        peer.secrets_sent = Some(now.mono);
        for part in self.secrets.all().chunks(SECRETS_PER_MESSAGE_MAX) {
            self.send(node, &Message::Secrets(part.to_vec()));
        }
    }

    /// A namespace is gone, and its keys with it.
    pub(super) fn destroy_secrets(&mut self, namespace: NamespaceId) {
        if self.secrets.destroy(namespace) {
            self.count("destroyed_secrets");
            self.keep_secrets();
        }
    }

    fn keep_secrets(&mut self) {
        self.outputs.push_back(Output::KeepSecrets(self.secrets.all()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(owner: NamespaceId, number: u64, rank: u64) -> SharedSecret {
        SharedSecret { owner, number, rank, bytes: SecretBytes(vec![number as u8; 32]) }
    }

    #[test]
    fn the_order_of_arrival_does_not_matter() {
        let user = NamespaceId([7; 16]);
        let all = [
            secret(user, 1, 10),
            secret(user, 2, 20),
            secret(NamespaceId::CLUSTER, 3, 1),
            secret(NamespaceId::CLUSTER, 4, 2),
            secret(NamespaceId::CLUSTER, 5, 2),
        ];
        let of = |order: &[usize]| {
            let mut secrets = Secrets::default();
            order.iter().for_each(|index| _ = secrets.add(all[*index].clone()));
            (secrets.all(), secrets.hash())
        };
        let expected = of(&[0, 1, 2, 3, 4]);
        assert_eq!(expected.0.len(), 3, "two keys of the namespace, one of the cluster");
        assert_eq!(of(&[4, 3, 2, 1, 0]), expected);
        assert_eq!(of(&[2, 4, 4, 0, 3, 1, 0]), expected);
        let mut secrets = Secrets::recover(expected.0.clone(), &BTreeSet::from([user]));
        assert_eq!(secrets.len(), 1);
        assert!(secrets.destroy(NamespaceId::CLUSTER));
        assert_eq!(secrets.hash(), SecretsHash::default());
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", secret(NamespaceId::SYSTEM, 171, 1));
        assert!(!text.contains("171, 171") && text.contains('…'), "{text}");
    }
}
