//! What a node has beside its store, as a backup takes it along, and a data directory that is laid out from it: for the
//! founder of a new cluster, or for the same node again.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::clock::{MachineClock, entropy};
use super::membership::{Cluster, IDENTITY, KEYRING, Membership};
use super::start::{STORE, StartError};
use crate::datadir::DataDir;
use crate::keyring::{ClusterKey, KeySource, Keyring};
use crate::net::{Authority, NodeKey};
use crate::replica::{self, Durability, Input, NodeId, Output, Replica, Reply, Request, SecretBytes, Timestamp};
use crate::store::FjallStore;

/// What a node has beside its store. Secret.
#[derive(Serialize, Deserialize)]
pub struct Belongings {
    /// Its id.
    pub node: NodeId,
    /// What it is called.
    pub name: String,
    /// When this was put together, Unix milliseconds.
    pub taken_ms: u64,
    cluster: Cluster,
    /// DER.
    authority: Vec<u8>,
    keyring: SecretBytes,
}

/// As whom a data directory that was made of a backup starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// As a new node, the first of a new cluster: with all data, keys, accounts and tokens of the former one, under
    /// another authority, so that neither cluster lets the other's nodes in. All former members are off its roster.
    Founder,
    /// As the node that it was, in the cluster that it was in. That node must not run any more.
    SameNode,
}

impl Belongings {
    pub(super) fn of(membership: &Membership, name: String, clock: MachineClock) -> Self {
        let seeds = membership.seeds.iter().map(|(node, addresses)| (node.to_string(), addresses.clone())).collect();
        let account = membership.account.to_string();
        Self {
            node: membership.identity.node_id(),
            name,
            taken_ms: clock.wall_ms(),
            cluster: Cluster { account, seeds, joined: membership.joined, cluster_key_file: None },
            authority: membership.authority.certificate().to_vec(),
            keyring: membership.keyring.export(),
        }
    }

    /// The account of the cluster, 32 hex digits.
    pub fn account(&self) -> &str {
        &self.cluster.account
    }

    /// Writes all that a data directory has beside its store, which must be there already. Gives the id of the node that
    /// lives in it from now on, and how many members it has taken off the roster.
    pub fn lay_out(
        &self,
        data: &DataDir,
        standing: Standing,
        source: KeySource,
        lock: ClusterKey,
        clock: MachineClock,
    ) -> Result<(NodeId, usize), StartError> {
        let (directory, now_secs) = (data.join(IDENTITY), clock.wall().as_secs());
        std::fs::create_dir_all(&directory).map_err(|cause| StartError::Io { path: directory.clone(), cause })?;
        let mut cluster = self.cluster.clone();
        if let KeySource::File(path) = &source {
            cluster.cluster_key_file = Some(path.clone());
        }
        let keyring = |new| Keyring::import(data.join(KEYRING), source, lock, &self.keyring, new, clock);
        let (identity, authority, evicted) = match standing {
            Standing::Founder => {
                let (key, authority) = (NodeKey::generate()?, Authority::create(now_secs)?);
                (cluster.seeds, cluster.joined) = (Default::default(), Timestamp::default());
                keyring(Some((key.to_secret(), authority.to_secret())))?;
                let evicted = evict_all(&data.join(STORE), key.node_id(), clock)?;
                (authority.issue(&key, now_secs)?, authority, evicted)
            }
            Standing::SameNode => {
                let keyring = keyring(None)?;
                let authority = Authority::of(&keyring.authority_key(), self.authority.clone())?;
                (authority.issue(&NodeKey::from_secret(&keyring.node_key())?, now_secs)?, authority, 0)
            }
        };
        authority.save(&directory)?;
        identity.save(&directory)?;
        cluster.save(data.path())?;
        Ok((identity.node_id(), evicted))
    }
}

/// Takes all members off the roster that a store holds, as writes of a node that was not among them.
fn evict_all(store: &Path, node: NodeId, clock: MachineClock) -> Result<usize, StartError> {
    let seed = entropy().map_err(StartError::Entropy)?;
    let config = replica::Config::new(node, Durability::Fsync, seed);
    let mut replica = Replica::open(config, FjallStore::open(store)?, clock.now())?;
    let members: Vec<NodeId> = replica.roster().members().map(|(node, _)| node).collect();
    for (member, ticket) in members.iter().zip(0..) {
        let input = Input::Request { ticket, request: Request::Evict(*member) };
        replica.handle(input, clock.now())?;
        replica.commit(clock.now())?;
        while let Some(output) = replica.poll_output() {
            if let Output::Reply { reply: Reply::Refused(refusal), .. } = output {
                return Err(StartError::Cluster(format!("{member} can't be taken off the roster: {refusal}")));
            }
        }
    }
    Ok(members.len())
}
