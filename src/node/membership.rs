//! How a data directory becomes a node of a cluster: it founds one, or joins one with a token, once.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::clock::{entropy, wall};
use super::start::StartError;
use crate::config::Config;
use crate::datadir::{DataDir, write_private};
use crate::kv::AccountId;
use crate::net::{self, Authority, Identity, JoinConfig, JoinRequest, NetTuning, NodeKey};
use crate::replica::NodeId;

/// Directory of keys and certificates within the data directory.
const IDENTITY: &str = "identity";
/// What this node was told about its cluster when it joined or founded it.
const CLUSTER: &str = "cluster.json";
/// Largest difference of clocks with which a node may join, in milliseconds.
pub const JOIN_CLOCK_DIFFERENCE_MS_MAX: u64 = 60_000;

/// A node's place in its cluster.
#[derive(Clone)]
pub struct Membership {
    /// Its certificate and key.
    pub identity: Identity,
    /// The cluster's authority.
    pub authority: Authority,
    /// The account that the cluster serves.
    pub account: AccountId,
    /// Nodes known when it joined: node id → addresses as `host:port`.
    pub seeds: BTreeMap<NodeId, Vec<String>>,
}

/// What a node that is let in is told, and what it keeps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grant {
    /// The account, 32 hex digits.
    pub account: String,
    /// Node id, 16 hex digits → addresses.
    pub seeds: BTreeMap<String, Vec<String>>,
}

impl Grant {
    fn seeds(&self) -> BTreeMap<NodeId, Vec<String>> {
        self.seeds.iter().filter_map(|(node, addresses)| Some((node.parse().ok()?, addresses.clone()))).collect()
    }
}

impl Membership {
    /// What the data directory says; if it is new, joins with the token in `config`, or founds a cluster.
    pub async fn establish(config: &Config, data: &DataDir) -> Result<Self, StartError> {
        let directory = data.join(IDENTITY);
        if data.join(CLUSTER).exists() {
            if config.join.is_some() {
                tracing::info!("this data directory is a member of a cluster already: the join token is not used");
            }
            return Self::load(data);
        }
        let created = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        created.map_err(|cause| StartError::Io { path: directory.clone(), cause })?;
        // Kept before it is used: a join that is cut short goes on with the same key.
        let key = match NodeKey::load(&directory) {
            Ok(key) => key,
            Err(_) => {
                let key = NodeKey::generate()?;
                key.save(&directory)?;
                key
            }
        };
        let (identity, authority, grant) = match &config.join {
            Some(token) => join(config, &key, token.expose()).await?,
            None => found(&key)?,
        };
        authority.save(&directory)?;
        identity.save(&directory)?;
        let text = serde_json::to_vec_pretty(&grant).map_err(|error| StartError::Cluster(error.to_string()))?;
        write_private(&data.join(CLUSTER), &text)?;
        Self::load(data)
    }

    fn load(data: &DataDir) -> Result<Self, StartError> {
        let directory = data.join(IDENTITY);
        let authority = Authority::load(&directory)?;
        let mut identity = Identity::load(&directory)?;
        let now_secs = wall().as_secs();
        if identity.needs_renewal(now_secs) {
            identity = authority.renew(&identity, now_secs)?;
            identity.save(&directory)?;
            tracing::info!("renewed this node's certificate");
        }
        let path = data.join(CLUSTER);
        let text = std::fs::read(&path).map_err(|cause| StartError::Io { path: path.clone(), cause })?;
        let damaged = |what: String| StartError::Cluster(format!("{} is damaged: {what}", path.display()));
        let grant: Grant = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let account = grant.account.parse().map_err(|_| damaged("no account".into()))?;
        Ok(Self { identity, authority, account, seeds: grant.seeds() })
    }
}

fn found(key: &NodeKey) -> Result<(Identity, Authority, Grant), StartError> {
    let now_secs = wall().as_secs();
    let authority = Authority::create(now_secs)?;
    let identity = authority.issue(key, now_secs)?;
    let account = AccountId(entropy().map_err(StartError::Entropy)?);
    Ok((identity, authority, Grant { account: account.to_string(), seeds: BTreeMap::new() }))
}

async fn join(config: &Config, key: &NodeKey, token: &str) -> Result<(Identity, Authority, Grant), StartError> {
    let token: net::JoinToken = token.parse().map_err(net::JoinError::InvalidToken)?;
    let advertised = config.advertise.as_ref().map(ToString::to_string).unwrap_or_default();
    let request = JoinRequest {
        name: config.node_name(key.node_id()),
        pop: config.pop.clone().unwrap_or_default(),
        info: Bytes::from(advertised.into_bytes()),
    };
    let join = JoinConfig { clock: Arc::new(wall), tuning: NetTuning::default() };
    let joined = net::join(&token, request, key, &join).await?;
    let grant = serde_json::from_slice(&joined.grant)
        .map_err(|error| net::JoinError::Protocol(format!("the grant can't be read: {error}")))?;
    Ok((joined.identity, joined.authority, grant))
}
