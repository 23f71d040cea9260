//! Starting and stopping a node: everything but its HTTP API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::clock::{MachineClock, entropy};
use super::driver::{Alarms, Driver, Evicted, Members, NET_EVENTS_MAX, Parts};
use super::handle::{Handle, mailbox};
use super::keys::Keys;
use super::membership::{Cluster, Grant, IDENTITY, JOIN_CLOCK_DIFFERENCE_MS_MAX, Membership};
use super::mending;
use super::peers::{Announcement, Dialing};
use super::{reissue, rejoin};
use crate::config::{self, Config};
use crate::datadir::{DataDir, DataDirError};
use crate::exit::Exit;
use crate::keyring::{KeyError, Keyring};
use crate::kv::{AccountId, AeadSeal, Kv, Seal};
use crate::metrics::Metrics;
use crate::net::{
    Authority, IdentityError, JoinApplicant, JoinError, JoinIssuer, JoinRefusal, JoinToken, Net, NetConfig, NetError,
};
use crate::replica::{
    self, Durability, NamespaceId, NodeId, NodeInfo, PROTOCOL_VERSION, Replica, Reply, Request, Roster, SharedSecret,
    StoreError,
};
use crate::store::{FjallStore, OpenError};

/// Directory of the store within the data directory.
pub const STORE: &str = "store";

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file of the data directory can't be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The data directory can't be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Keys or certificates can't be read, made or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What is known of the cluster can't be read.
    #[error("{0}")]
    Cluster(String),
    /// The cluster key can't be had, or is not the one that the data directory was sealed with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The cluster could not be joined.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The store can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store can be opened but not used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Who was evicted, or what was deleted, can't be read.
    #[error(
        "the store is damaged where it says who was evicted and what was deleted: move the data directory away and join \
         anew with an empty one, or restore a backup"
    )]
    Fences,
    /// The gossip address can't be used.
    #[error("{0}; choose another address with --gossip")]
    Gossip(NetError),
    /// The operating system gives no randomness.
    #[error("no entropy: {0}")]
    Entropy(getrandom::Error),
    /// The operating system gives no thread.
    #[error("can't start a thread: {0}")]
    Thread(std::io::Error),
    /// The node's own entry could not be written.
    #[error("this node can't announce itself: {0}")]
    Announce(String),
}

impl StartError {
    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::DataDir(error) => error.exit(),
            Self::Key(_) => Exit::ClusterKey,
            Self::Open(OpenError::NewerFormat { .. }) => Exit::DataDirNewer,
            Self::Open(OpenError::InUse { .. }) => Exit::DataDirInUse,
            Self::Open(_) | Self::Store(_) | Self::Fences | Self::Io { .. } => Exit::StorageFailed,
            Self::Join(error) => match error {
                JoinError::InvalidToken(_) => Exit::JoinTokenInvalid,
                JoinError::Expired => Exit::JoinTokenExpired,
                JoinError::UnknownInvite => Exit::JoinTokenSpent,
                JoinError::WrongCluster => Exit::JoinWrongCluster,
                JoinError::Unreachable { .. } => Exit::JoinUnreachable,
                JoinError::ClockFarOff { .. } => Exit::JoinClockOff,
                JoinError::Refused(_) => Exit::JoinRefused,
                JoinError::Protocol(_) | JoinError::Local(_) => Exit::Failure,
            },
            _ => Exit::Failure,
        }
    }
}

/// A node that runs. Dropping it without [`Node::stop`] is like a crash: nothing acknowledged is lost.
pub struct Node {
    keyring: Arc<Keyring>,
    authority: Authority,
    keys: Arc<Keys>,
    tending: tokio::task::JoinHandle<()>,
    kv: Kv,
    handle: Handle,
    net: Net,
    account: AccountId,
    node: NodeId,
    name: String,
    seeds: BTreeMap<NodeId, Vec<String>>,
    members: watch::Receiver<Members>,
    advertised: String,
    alarms: Alarms,
    metrics: Metrics,
    unmended: Arc<AtomicUsize>,
    /// What keeps the roster and the connections as they should be.
    tasks: JoinSet<()>,
    stop: oneshot::Sender<()>,
    driver: JoinHandle<()>,
}

impl Node {
    /// Starts the node that lives in `data`. A new directory founds a cluster, or joins one with `config.join`.
    pub async fn start(config: &Config, data: &DataDir) -> Result<Self, StartError> {
        Self::start_sealed_by(config, data, |keyring| Arc::new(AeadSeal::new(keyring))).await
    }

    /// [`Node::start`] with another seal, for measuring what sealing costs.
    #[doc(hidden)]
    pub async fn start_sealed_by(
        config: &Config,
        data: &DataDir,
        seal: impl FnOnce(Arc<Keyring>) -> Arc<dyn Seal>,
    ) -> Result<Self, StartError> {
        let clock = MachineClock::start(config.clock_offset_ms);
        let was_member = Membership::exists(data);
        let mut membership = Membership::establish(config, data, clock).await?;
        let durability = durability(config.durability);
        let mut replica = open(&membership, data, durability, clock).await?;
        if was_member && config.join.is_some() {
            let knows = replica.roster().is_evicted(membership.identity.node_id());
            if knows || rejoin::is_evicted(config, &membership, clock).await {
                drop(replica);
                membership = rejoin::rejoin(config, data, clock, membership).await?;
                replica = open(&membership, data, durability, clock).await?;
            } else {
                tracing::info!("this data directory is a member of a cluster already: the join token is not used");
            }
        }
        let (node, keyring) = (membership.identity.node_id(), Arc::clone(&membership.keyring));

        let evicted = Evicted::default();
        let alarms = Alarms::default();
        let metrics = Metrics::default();
        let (handle, mailbox) = mailbox(replica.store().reader(), clock);
        let (events_in, events) = mpsc::channel(NET_EVENTS_MAX);
        let (members_in, members_out) = watch::channel(None::<watch::Receiver<Members>>);
        let mut net_config = NetConfig::new(config.gossip, membership.identity.clone(), Arc::new(move || clock.wall()));
        let banned = evicted.clone();
        net_config.banned = Some(Arc::new(move |node| banned.read().is_ok_and(|banned| banned.contains(&node))));
        net_config.join = Some(issuer(&membership, handle.clone(), members_out));
        let net = Net::bind(net_config, events_in).map_err(StartError::Gossip)?;
        let advertised = config.advertised(net.local_addr()).to_string();
        let (stop, stopped) = oneshot::channel();
        let (driver, members) = Driver::new(Parts {
            replica,
            durability,
            clock,
            net: net.clone(),
            events,
            mailbox,
            keyring: Arc::clone(&keyring),
            stop: stopped,
            evicted: evicted.clone(),
            alarms: alarms.clone(),
            metrics: metrics.clone(),
        })
        .map_err(StartError::Thread)?;
        let driver = driver.spawn().map_err(StartError::Thread)?;
        members_in.send_replace(Some(members.clone()));

        let seed = entropy().map_err(StartError::Entropy)?;
        let kv = Kv::new(handle.clone(), seal(Arc::clone(&keyring)), seed);
        let name = config.node_name(node);
        let account = membership.account;
        let keys = Keys::new(
            kv.clone(),
            net.clone(),
            node,
            membership.clone(),
            data.join(IDENTITY),
            members.clone(),
            alarms.clone(),
            kv.shreds(),
        );
        let info = NodeInfo {
            name: name.clone(),
            pop: config.pop.clone().unwrap_or_default(),
            addresses: vec![advertised.clone()],
            protocol: PROTOCOL_VERSION,
            joined: replica::Timestamp::from_ms(clock.wall_ms()),
        };
        let announcement = Announcement { handle: handle.clone(), node, info, members: members.clone() };
        announcement.make().await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(announcement.keep());
        let damaged = handle.reader().damaged_keys();
        let unmended = Arc::new(AtomicUsize::new(damaged.len()));
        tasks.spawn(mending::mend(handle.clone(), damaged, Arc::clone(&unmended)));
        tasks.spawn(reissue::reissue(handle.clone(), rejoin::formers(data)));
        let tending = tokio::spawn(Arc::clone(&keys).tend());
        let authority = membership.authority;
        let seeds = membership.seeds;
        let (dialed, banned) = (seeds.clone(), evicted.clone());
        let dialing = Dialing { net: net.clone(), node, seeds: dialed, members: members.clone(), evicted: banned };
        tasks.spawn(dialing.keep());
        Ok(Self {
            keyring,
            authority,
            keys,
            tending,
            kv,
            handle,
            net,
            account,
            node,
            name,
            seeds,
            members,
            advertised,
            alarms,
            metrics,
            unmended,
            tasks,
            stop,
            driver,
        })
    }

    /// How many other nodes are known, be it only from the one that let this one in.
    pub fn others(&self) -> usize {
        let members = self.members.borrow();
        let unheard = self.seeds.keys().filter(|node| !members.contains_key(node)).count();
        members.keys().filter(|node| **node != self.node).count() + unheard
    }

    /// For reading and writing.
    pub fn kv(&self) -> &Kv {
        &self.kv
    }

    /// For changing keys. Its own are looked after from the moment it has started.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Its secrets.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// The cluster's authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The driver's mailbox.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The account of the cluster.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// The node id.
    pub fn id(&self) -> NodeId {
        self.node
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where gossip listens.
    pub fn gossip(&self) -> SocketAddr {
        self.net.local_addr()
    }

    /// What peers dial, as `host:port`.
    pub fn advertised(&self) -> &str {
        &self.advertised
    }

    /// The members, this node included, kept current.
    pub fn members(&self) -> &watch::Receiver<Members> {
        &self.members
    }

    /// Completes if the driver ends without having been told to: a bug. Nothing acknowledged is lost; the process
    /// should end and be started again.
    pub async fn broken(&self) {
        let mut members = self.members.clone();
        while members.changed().await.is_ok() {}
    }

    /// The last alarms.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// What is measured.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// How many entries could not be read at the start, and are not mended yet.
    pub fn unmended(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.unmended)
    }

    /// The network.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// A token with which one node can join, once, within `ttl`.
    pub async fn invite(&self, ttl: Duration) -> Result<JoinToken, NetError> {
        invite(&self.net, &self.advertised, ttl).await
    }

    /// Finishes what was begun, makes it durable, tells the peers.
    pub async fn stop(mut self) {
        // The driver may have ended by itself.
        let _ = self.stop.send(());
        self.tending.abort();
        let _ = self.tending.await;
        let driver = self.driver;
        let ended = tokio::task::spawn_blocking(move || driver.join());
        if !matches!(ended.await, Ok(Ok(()))) {
            tracing::error!("the driver ended with a panic");
        }
        self.net.close().await;
        // They read the store, which the next process, or this one, will want to open.
        self.tasks.shutdown().await;
    }
}

/// The replica of a member, over the store in its directory.
async fn open(
    membership: &Membership,
    data: &DataDir,
    durability: Durability,
    clock: MachineClock,
) -> Result<Replica<FjallStore>, StartError> {
    let (store, node, joined) = (data.join(STORE), membership.identity.node_id(), membership.joined);
    let seed = entropy().map_err(StartError::Entropy)?;
    let (secrets, seeds) = (membership.keyring.secrets(), membership.seeds.keys().copied().collect());
    let replica = tokio::task::spawn_blocking(move || {
        let store = FjallStore::open(&store)?;
        check_fences(&store)?;
        let config = replica::Config { secrets, seeds, joined, ..replica::Config::new(node, durability, seed) };
        Ok::<_, StartError>(Replica::open(config, store, clock.now())?)
    });
    replica.await.map_err(|error| StartError::Cluster(error.to_string()))?
}

pub(crate) async fn invite(net: &Net, advertised: &str, ttl: Duration) -> Result<JoinToken, NetError> {
    let addresses = tokio::net::lookup_host(advertised).await.map(Iterator::collect).unwrap_or_default();
    net.create_invite(ttl, addresses)
}

/// Whatever else can't be read is mended while the node serves. Not who was evicted and what was deleted: until it is
/// mended the node would let in, and take, what it must not.
fn check_fences(store: &FjallStore) -> Result<(), StartError> {
    for namespace in [NamespaceId::EVICTED, NamespaceId::DELETED] {
        let mut is_damaged = false;
        store.reader().visit_all(namespace, b"", None, &mut |_, _| ControlFlow::Continue(()), &mut |_| {
            is_damaged = true;
            ControlFlow::Break(())
        })?;
        if is_damaged {
            return Err(StartError::Fences);
        }
    }
    Ok(())
}

fn durability(durability: config::Durability) -> Durability {
    match durability {
        config::Durability::Fsync => Durability::Fsync,
        config::Durability::Interval => Durability::Interval,
        config::Durability::Os => Durability::Os,
    }
}

/// Lets others in. Before the newcomer is told anything, its entry is on the roster, on disk: from then on watermarks
/// wait for it.
fn issuer(
    membership: &Membership,
    handle: Handle,
    members: watch::Receiver<Option<watch::Receiver<Members>>>,
) -> JoinIssuer {
    let (authority, membership) = (membership.authority.clone(), membership.clone());
    let policy = move |applicant: JoinApplicant| {
        let (membership, handle, members) = (membership.clone(), handle.clone(), members.clone());
        let judged: std::pin::Pin<Box<dyn Future<Output = Result<Bytes, JoinRefusal>> + Send>> =
            Box::pin(async move { judge(applicant, &membership, &handle, &members).await });
        judged
    };
    JoinIssuer { authority, policy: Arc::new(policy) }
}

async fn judge(
    applicant: JoinApplicant,
    membership: &Membership,
    handle: &Handle,
    members: &watch::Receiver<Option<watch::Receiver<Members>>>,
) -> Result<Bytes, JoinRefusal> {
    let difference_ms = applicant.clock_difference_ms;
    if difference_ms.unsigned_abs() > JOIN_CLOCK_DIFFERENCE_MS_MAX {
        return Err(JoinRefusal::ClockFarOff { difference_ms });
    }
    let members: Members = members.borrow().as_ref().map(|members| members.borrow().clone()).unwrap_or_default();
    if members.iter().any(|(node, info)| info.name == applicant.name && *node != applicant.node) {
        return Err(JoinRefusal::NameTaken);
    }
    let info = NodeInfo {
        name: applicant.name,
        pop: applicant.pop,
        addresses: std::str::from_utf8(&applicant.info)
            .into_iter()
            .filter(|a| !a.is_empty())
            .map(str::to_owned)
            .collect(),
        protocol: PROTOCOL_VERSION,
        joined: replica::Timestamp::from_ms(handle.clock().wall_ms()),
    };
    let key = Roster::key(NamespaceId::NODES, applicant.node);
    let joined = match handle.call(Request::Write { key, content: info.to_content() }).await {
        Ok(Reply::Written { stamp, .. }) => stamp,
        Ok(Reply::Refused(refusal)) => return Err(JoinRefusal::Other(format!("it can't take writes: {refusal}"))),
        _ => return Err(JoinRefusal::Other("its storage does not answer".into())),
    };
    // Those of which this node was told and has not heard itself, too.
    let mut seeds = membership.seeds.clone();
    seeds.extend(members.into_iter().map(|(node, info)| (node, info.addresses)));
    let seeds = seeds.into_iter().map(|(node, addresses)| (node.to_string(), addresses)).collect();
    // The others are too many for one message; the newcomer gets them on its links.
    let is_first = |secret: &SharedSecret| matches!(secret.owner, NamespaceId::CLUSTER | NamespaceId::SYSTEM);
    let secrets = membership.keyring.secrets().into_iter().filter(is_first).collect();
    let account = membership.account.to_string();
    let cluster = Cluster { account, seeds, joined, cluster_key_file: None };
    postcard::to_stdvec(&Grant { cluster, secrets })
        .map(Bytes::from)
        .map_err(|error| JoinRefusal::Other(error.to_string()))
}
