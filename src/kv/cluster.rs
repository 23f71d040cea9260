//! Facts about the cluster that every node needs: entries in [`NamespaceId::CLUSTER`]. None of them is secret.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{Kv, KvError, done};
use crate::keyring::KeyId;
use crate::replica::{Key, NamespaceId, NodeId, Request, SharedSecret};

/// Version of the rows here.
const ROW_VERSION: u8 = 1;
/// Then a node id: what that node's keyring is sealed with.
const LOCK: &[u8] = b"lock/";
/// Certificates made before this moment are to be renewed.
const CERTIFICATES: &[u8] = b"certificates";

#[derive(Serialize, Deserialize)]
struct LockRow {
    version: u8,
    key: [u8; 8],
}

#[derive(Serialize, Deserialize)]
struct CertificatesRow {
    version: u8,
    since_secs: u64,
}

impl Kv {
    /// Has a secret on its way to every member.
    pub(crate) async fn share_secret(&self, secret: SharedSecret) -> Result<(), KvError> {
        done(self.call(Request::ShareSecret(secret)).await?)
    }

    /// Tells everyone which cluster key a node's keyring is sealed with.
    pub(crate) async fn tell_lock(&self, node: NodeId, id: KeyId) -> Result<(), KvError> {
        let key = cluster_key(&[LOCK, &node.0.to_be_bytes()].concat());
        let content = self.encode_system(&key, &LockRow { version: ROW_VERSION, key: id.0 })?;
        self.write(key, content).await
    }

    /// Which cluster key each node's keyring is sealed with, as far as it has told.
    pub(crate) fn locks(&self) -> Result<BTreeMap<NodeId, KeyId>, KvError> {
        let mut locks = BTreeMap::new();
        self.handle().reader().visit(NamespaceId::CLUSTER, LOCK, None, &mut |key, entry| {
            let node = key.name().get(LOCK.len()..).and_then(|node| node.try_into().ok()).map(u64::from_be_bytes);
            let row: Option<LockRow> = self.decode_system(&key, &entry, ROW_VERSION);
            if let (Some(node), Some(row)) = (node, row) {
                locks.insert(NodeId(node), KeyId(row.key));
            }
            ControlFlow::Continue(())
        })?;
        Ok(locks)
    }

    /// Has every node renew its certificate, unless it was made since then.
    pub(crate) async fn want_certificates_since(&self, since_secs: u64) -> Result<(), KvError> {
        let key = cluster_key(CERTIFICATES);
        let content = self.encode_system(&key, &CertificatesRow { version: ROW_VERSION, since_secs })?;
        self.write(key, content).await
    }

    /// Certificates made before this moment are to be renewed; zero if none are.
    pub(crate) fn certificates_wanted_since(&self) -> Result<u64, KvError> {
        let key = cluster_key(CERTIFICATES);
        let row = self.handle().reader().get(&key)?;
        let row: Option<CertificatesRow> = row.and_then(|entry| self.decode_system(&key, &entry, ROW_VERSION));
        Ok(row.map_or(0, |row| row.since_secs))
    }
}

fn cluster_key(name: &[u8]) -> Key {
    Key::new(NamespaceId::CLUSTER, name).expect("a short key")
}
