//! How a data directory becomes a node of a cluster: it founds one, or joins one with a token, once.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::clock::{MachineClock, entropy};
use super::start::StartError;
use crate::config::Config;
use crate::datadir::{DataDir, write_private};
use crate::keyring::{ClusterKey, KeyError, KeySource, Keyring};
use crate::kv::AccountId;
use crate::net::{self, Authority, Identity, JoinConfig, JoinRequest, NetTuning, NodeKey};
use crate::replica::{NamespaceId, NodeId, SecretBytes, SharedSecret, Timestamp};

/// Directory of keys and certificates within the data directory.
pub(super) const IDENTITY: &str = "identity";
/// What this node was told about its cluster when it joined or founded it.
pub(super) const CLUSTER: &str = "cluster.json";
/// Largest difference of clocks with which a node may join, in milliseconds.
pub const JOIN_CLOCK_DIFFERENCE_MS_MAX: u64 = 60_000;

/// The node's secrets.
pub(super) const KEYRING: &str = "keyring";

/// A node's place in its cluster.
#[derive(Clone)]
pub struct Membership {
    /// All that is secret.
    pub keyring: Arc<Keyring>,
    /// Its certificate and key.
    pub identity: Identity,
    /// The cluster's authority.
    pub authority: Authority,
    /// The account that the cluster serves.
    pub account: AccountId,
    /// Nodes known when it joined: node id → addresses as `host:port`.
    pub seeds: BTreeMap<NodeId, Vec<String>>,
    /// When it was let in, by the clock of the node that did.
    pub joined: Timestamp,
}

/// What a node that is let in is told.
#[derive(Serialize, Deserialize)]
pub struct Grant {
    /// What is no secret.
    pub cluster: Cluster,
    /// The cluster key and the system's: with them the newcomer can read the rest, which its peers tell it.
    pub secrets: Vec<SharedSecret>,
}

/// What a node keeps of what it was told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// The account, 32 hex digits.
    pub account: String,
    /// Node id, 16 hex digits → addresses.
    pub seeds: BTreeMap<String, Vec<String>>,
    /// The stamp of its first entry on the roster.
    #[serde(default)]
    pub joined: Timestamp,
    /// Where the cluster key was when the directory was made.
    #[serde(default)]
    pub cluster_key_file: Option<PathBuf>,
}

impl Cluster {
    fn seeds(&self) -> BTreeMap<NodeId, Vec<String>> {
        self.seeds.iter().filter_map(|(node, addresses)| Some((node.parse().ok()?, addresses.clone()))).collect()
    }
}

impl Membership {
    /// What the data directory says; if it is new, joins with the token in `config`, or founds a cluster.
    pub async fn establish(config: &Config, data: &DataDir, clock: MachineClock) -> Result<Self, StartError> {
        let directory = data.join(IDENTITY);
        if data.join(CLUSTER).exists() {
            if config.join.is_some() {
                tracing::info!("this data directory is a member of a cluster already: the join token is not used");
            }
            return Self::load(config, data, clock);
        }
        let source = KeySource::of(config, data.path(), None)?;
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
        // Before anything is joined: a source that does not work should leave no trace.
        let given = source.read()?;
        let (identity, authority, grant) = match &config.join {
            Some(token) => join(config, &key, token.expose(), clock).await?,
            None => found(&key, given.as_ref().and_then(|keys| keys.first()), clock)?,
        };
        authority.save(&directory)?;
        identity.save(&directory)?;
        let Grant { mut cluster, secrets } = grant;
        let lock = lock_of(&secrets, given, &source)?;
        let keys = (identity.key().to_secret(), authority.to_secret());
        Keyring::create(data.join(KEYRING), source.clone(), lock, secrets, keys.0, keys.1, clock)?;
        if let KeySource::File(path) = source {
            cluster.cluster_key_file = Some(path);
        }
        let text = serde_json::to_vec_pretty(&cluster).map_err(|error| StartError::Cluster(error.to_string()))?;
        write_private(&data.join(CLUSTER), &text)?;
        NodeKey::remove(&directory)?;
        Self::load(config, data, clock)
    }

    /// What the directory of a member says.
    pub(super) fn load(config: &Config, data: &DataDir, clock: MachineClock) -> Result<Self, StartError> {
        let path = data.join(CLUSTER);
        let text = std::fs::read(&path).map_err(|cause| StartError::Io { path: path.clone(), cause })?;
        let damaged = |what: String| StartError::Cluster(format!("{} is damaged: {what}", path.display()));
        let cluster: Cluster = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if !data.join(KEYRING).exists() {
            return Err(KeyError::Unsealed(data.path().to_owned()).into());
        }
        let source = KeySource::of(config, data.path(), cluster.cluster_key_file.as_deref())?;
        let keyring = Arc::new(Keyring::open(data.join(KEYRING), source, clock)?);
        let directory = data.join(IDENTITY);
        // A crash may have come between.
        NodeKey::remove(&directory)?;
        let authority = Authority::load(&keyring.authority_key(), &directory)?;
        let mut identity = Identity::load(NodeKey::from_secret(&keyring.node_key())?, &directory)?;
        let now_secs = clock.wall().as_secs();
        if identity.needs_renewal(now_secs) {
            identity = authority.renew(&identity, now_secs)?;
            identity.save(&directory)?;
            tracing::info!("renewed this node's certificate");
        }
        let account = cluster.account.parse().map_err(|_| damaged("no account".into()))?;
        Ok(Self { keyring, identity, authority, account, seeds: cluster.seeds(), joined: cluster.joined })
    }
}

/// The cluster key among `secrets`, which the source must give from now on.
fn lock_of(
    secrets: &[SharedSecret],
    given: Option<Vec<ClusterKey>>,
    source: &KeySource,
) -> Result<ClusterKey, StartError> {
    let secret = secrets.iter().find(|secret| secret.owner == NamespaceId::CLUSTER);
    let lock = secret.and_then(ClusterKey::from_secret);
    let lock = lock.ok_or_else(|| StartError::Cluster("it was given no cluster key".into()))?;
    match given {
        Some(given) if given.contains(&lock) => {}
        Some(_) => return Err(KeyError::NotTheClusters(source.to_string()).into()),
        None => {
            source.write(std::slice::from_ref(&lock))?;
            tracing::warn!(
                "values are encrypted at rest, and the cluster key that opens them lies in {source}: keep a copy of that \
                 file apart from the data; without it the data directory can't be read"
            );
        }
    }
    Ok(lock)
}

fn found(
    key: &NodeKey,
    given: Option<&ClusterKey>,
    clock: MachineClock,
) -> Result<(Identity, Authority, Grant), StartError> {
    let now_secs = clock.wall().as_secs();
    let authority = Authority::create(now_secs)?;
    let identity = authority.issue(key, now_secs)?;
    let account = AccountId(entropy().map_err(StartError::Entropy)?);
    let cluster_key = given.map_or_else(ClusterKey::generate, |given| Ok(given.clone()))?;
    let system_key = ClusterKey::generate()?;
    let secrets = vec![
        first_secret(NamespaceId::CLUSTER, &cluster_key, clock)?,
        first_secret(NamespaceId::SYSTEM, &system_key, clock)?,
    ];
    let cluster = Cluster {
        account: account.to_string(),
        seeds: BTreeMap::new(),
        joined: Timestamp::default(),
        cluster_key_file: None,
    };
    Ok((identity, authority, Grant { cluster, secrets }))
}

fn first_secret(owner: NamespaceId, key: &ClusterKey, clock: MachineClock) -> Result<SharedSecret, StartError> {
    let number = u64::from_be_bytes(entropy().map_err(StartError::Entropy)?);
    let rank = clock.wall_ms();
    Ok(SharedSecret { owner, number, rank, bytes: SecretBytes(key.bytes().to_vec()) })
}

async fn join(
    config: &Config,
    key: &NodeKey,
    token: &str,
    clock: MachineClock,
) -> Result<(Identity, Authority, Grant), StartError> {
    let token: net::JoinToken = token.parse().map_err(net::JoinError::InvalidToken)?;
    let advertised = config.advertise.as_ref().map(ToString::to_string).unwrap_or_default();
    let request = JoinRequest {
        name: config.node_name(key.node_id()),
        pop: config.pop.clone().unwrap_or_default(),
        info: Bytes::from(advertised.into_bytes()),
    };
    let join = JoinConfig { clock: Arc::new(move || clock.wall()), tuning: NetTuning::default() };
    let joined = net::join(&token, request, key, &join).await?;
    let grant = postcard::from_bytes(&joined.grant)
        .map_err(|error| net::JoinError::Protocol(format!("the grant can't be read: {error}")))?;
    Ok((joined.identity, joined.authority, grant))
}
