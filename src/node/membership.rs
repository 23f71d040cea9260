//! How a data directory becomes a node of a cluster: it founds one, or joins one with a token, once.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::clock::{MachineClock, entropy};
use super::rejoin;
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

/// `cluster.json`: with a checksum, or a flipped digit would be another account, or a clock in the future.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    cluster: Cluster,
    checksum: String,
}

impl Cluster {
    pub(super) fn save(&self, directory: &Path) -> Result<(), StartError> {
        let kept = Kept { cluster: self.clone(), checksum: self.checksum() };
        let text = serde_json::to_vec_pretty(&kept).map_err(|error| StartError::Cluster(error.to_string()))?;
        Ok(write_private(&directory.join(CLUSTER), &text)?)
    }

    fn load(path: &Path) -> Result<Self, StartError> {
        let text = std::fs::read(path).map_err(|cause| StartError::Io { path: path.to_owned(), cause })?;
        let kept: Kept = serde_json::from_slice(&text).map_err(|error| damaged(path, error))?;
        match kept.checksum == kept.cluster.checksum() {
            true => Ok(kept.cluster),
            false => Err(damaged(path, "its checksum is wrong")),
        }
    }

    /// Of what it means, however it is written.
    fn checksum(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        blake3::hash(&text).to_hex()[..32].to_owned()
    }

    fn seeds(&self) -> BTreeMap<NodeId, Vec<String>> {
        self.seeds.iter().filter_map(|(node, addresses)| Some((node.parse().ok()?, addresses.clone()))).collect()
    }
}

impl Membership {
    /// What the data directory says; if it is new, joins with the token in `config`, or founds a cluster.
    pub async fn establish(config: &Config, data: &DataDir, clock: MachineClock) -> Result<Self, StartError> {
        rejoin::take_places(data)?;
        if !Self::exists(data) {
            let source = KeySource::of(config, data.path(), None)?;
            Newcomer { config, directory: data.path(), source, carried: Vec::new(), clock }.enter().await?;
        }
        Self::load(config, data, clock)
    }

    /// Whether the directory is a member's already.
    pub(super) fn exists(data: &DataDir) -> bool {
        data.join(CLUSTER).exists() || rejoin::is_halfway(data)
    }

    /// What the directory of a member says.
    pub(super) fn load(config: &Config, data: &DataDir, clock: MachineClock) -> Result<Self, StartError> {
        let path = data.join(CLUSTER);
        let cluster = Cluster::load(&path)?;
        if !data.join(KEYRING).exists() {
            return Err(KeyError::Unsealed(data.path().to_owned()).into());
        }
        let source = KeySource::of(config, data.path(), cluster.cluster_key_file.as_deref())?;
        let keyring = Arc::new(Keyring::open(data.join(KEYRING), source, clock)?);
        let directory = data.join(IDENTITY);
        // A crash may have come between.
        NodeKey::remove(&directory)?;
        let authority = Authority::load(&keyring.authority_key(), &directory)
            .map_err(|error| damaged(&directory, format!("the authority's certificate: {error}")))?;
        let now_secs = clock.wall().as_secs();
        let key = NodeKey::from_secret(&keyring.node_key())?;
        let mut identity = match Identity::load(key.clone(), &directory) {
            Ok(identity) => identity,
            // The key is in the keyring, and every member can sign.
            Err(error) => {
                tracing::warn!(%error, "this node's certificate can't be read: it gets a new one");
                let identity = authority.issue(&key, now_secs)?;
                identity.save(&directory)?;
                identity
            }
        };
        if identity.needs_renewal(now_secs) {
            identity = authority.renew(&identity, now_secs)?;
            identity.save(&directory)?;
            tracing::info!("renewed this node's certificate");
        }
        let account = cluster.account.parse().map_err(|_| damaged(&path, "no account"))?;
        Ok(Self { keyring, identity, authority, account, seeds: cluster.seeds(), joined: cluster.joined })
    }
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> StartError {
    StartError::Cluster(format!(
        "{} is damaged ({why}): move the data directory away and join anew with an empty one, or restore a backup",
        path.display()
    ))
}

/// Someone who founds a cluster or joins one.
pub(super) struct Newcomer<'a> {
    pub(super) config: &'a Config,
    /// Where what it is told is kept.
    pub(super) directory: &'a Path,
    /// Where the cluster key comes from.
    pub(super) source: KeySource,
    /// What it brings along of an earlier membership of the same cluster, if there was one.
    pub(super) carried: Vec<SharedSecret>,
    pub(super) clock: MachineClock,
}

impl Newcomer<'_> {
    /// Joins with the token in the configuration, or founds a cluster. The directory is a member's once its last file,
    /// that of the cluster, is there.
    pub(super) async fn enter(self) -> Result<(), StartError> {
        let Self { config, source, carried, clock, .. } = self;
        let directory = self.directory.join(IDENTITY);
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
        let Grant { mut cluster, mut secrets } = grant;
        let lock = lock_of(&secrets, given, &source, !carried.is_empty())?;
        let is_news = |carried: &SharedSecret| {
            !secrets.iter().any(|held| (held.owner, held.number) == (carried.owner, carried.number))
        };
        let news: Vec<SharedSecret> = carried.into_iter().filter(is_news).collect();
        secrets.extend(news);
        let (node_key, authority_key) = (identity.key().to_secret(), authority.to_secret());
        let keyring = self.directory.join(KEYRING);
        Keyring::create(keyring, source.clone(), lock, secrets, node_key, authority_key, clock)?;
        if let KeySource::File(path) = source {
            cluster.cluster_key_file = Some(path);
        }
        cluster.save(self.directory)?;
        NodeKey::remove(&directory)?;
        Ok(())
    }
}

/// The cluster key among `secrets`, which the source must give from now on. Whoever `returns` to its cluster may find
/// that it has another one.
fn lock_of(
    secrets: &[SharedSecret],
    given: Option<Vec<ClusterKey>>,
    source: &KeySource,
    returns: bool,
) -> Result<ClusterKey, StartError> {
    let secret = secrets.iter().find(|secret| secret.owner == NamespaceId::CLUSTER);
    let lock = secret.and_then(ClusterKey::from_secret);
    let lock = lock.ok_or_else(|| StartError::Cluster("it was given no cluster key".into()))?;
    match given {
        Some(given) if given.contains(&lock) => {}
        // Until the new node is in place the directory is locked with the old one.
        Some(mut given) if returns && source.is_writable() => {
            given.insert(0, lock.clone());
            source.write(&given)?;
        }
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
