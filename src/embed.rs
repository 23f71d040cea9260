//! A Starling node inside your own program: no process of its own, no HTTP.
//!
//! ```no_run
//! use starling::embed::{Config, Error, Node};
//!
//! # async fn run() -> Result<(), Error> {
//! let node = Node::start(Config::new("./data").set("pop", "FRA")?).await?;
//! let settings = node.namespace("settings").await?;
//! settings.put("greeting", "hello").await?;
//! assert!(settings.get("greeting").await?.is_some_and(|entry| entry.value == "hello"));
//! node.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! It needs a tokio runtime of any kind, and starts two threads of its own. It is a full member of its cluster: nodes
//! that are embedded and nodes that run as `starling serve` work together.
//!
//! **What you can rely on.** A write that returned `Ok` is on this machine's disk (unless `durability` is set to
//! something weaker), visible to every later read of this node, and on its way to the others. Of two writes to one key
//! the later one wins everywhere. Reads never wait for other nodes; to see at one node what was done at another, carry
//! a [`Bookmark`] there. Keys have 1 to 512 bytes, values up to 25 MiB, metadata up to 1024 bytes of JSON; times are
//! Unix seconds.

mod bookmark;
mod namespace;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use bookmark::{Bookmark, InvalidBookmark};
pub use namespace::{Entry, Listed, Namespace, Page, PutOptions};
pub use watch::{Change, ChangeKind, Changes, InvalidPosition, Position, WatchEnd};

use crate::config::setting::Setting;
use crate::config::{self, ConfigError};
use crate::datadir::{DataDir, DataDirError};
pub use crate::kv::{AckLevel, KvError};
use crate::node;
pub use crate::node::StartError;
use crate::secret::Secret;

/// What can go wrong. Its text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is unknown or can't have that value. Nothing was started.
    #[error("{0}")]
    Setting(String),
    /// The settings contradict each other. Nothing was started.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node could not start: its directory is in use, it was refused by the cluster, an address is taken ...
    #[error(transparent)]
    Start(#[from] StartError),
    /// No token could be made.
    #[error("no invitation could be made: {0}")]
    Invite(String),
    /// A read or a write failed. Unless the variant says otherwise, nothing was changed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A watch has ended.
    #[error(transparent)]
    Watch(#[from] WatchEnd),
    /// Metadata that is no JSON. Nothing was changed.
    #[error("the metadata is not JSON: {0}")]
    Metadata(String),
}

/// How to run a node.
#[derive(Clone, Debug)]
pub struct Config(config::Config);

impl Config {
    /// A node that lives in this directory, which is created if absent. It listens for peers on 127.0.0.1:7702 and
    /// founds a cluster of its own when it first starts.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self(config::Config { data: data.into(), ..config::Config::default() })
    }

    /// Where it listens for its peers (QUIC over UDP); port 0 picks a free one.
    pub fn gossip(mut self, address: SocketAddr) -> Self {
        self.0.gossip = address;
        self
    }

    /// Joins the cluster that this token is from (of [`Node::invite`] or `starling invite`), at the first start.
    pub fn join(mut self, token: &str) -> Self {
        self.0.join = Some(Secret::new(token));
        self
    }

    /// Any other setting of `starling.example.toml`, by its key there: `pop`, `name`, `advertise`, `durability`, ...
    /// Those of the HTTP API and of logging have no effect.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no such setting, or if it can't have that value.
    pub fn set(mut self, key: &str, value: &str) -> Result<Self, Error> {
        let setting = Setting::find(key).ok_or_else(|| Error::Setting(format!("there is no setting \"{key}\"")))?;
        (setting.apply)(&mut self.0, value).map_err(|reason| Error::Setting(format!("{key}: {reason}")))?;
        Ok(self)
    }
}

/// A node that runs. To drop it without [`Node::stop`] is like a crash: nothing acknowledged is lost.
pub struct Node {
    node: node::Node,
    /// Keeps the directory to this process.
    _data: DataDir,
}

impl Node {
    /// Starts the node that lives in the configured directory. One directory is one node, in one process at a time.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Start`], both final: nothing runs.
    pub async fn start(config: Config) -> Result<Self, Error> {
        config.0.check()?;
        let data = DataDir::open(&config.0.data).map_err(|error: DataDirError| StartError::from(error))?;
        Ok(Self { node: node::Node::start(&config.0, &data).await?, _data: data })
    }

    /// The namespace of that title, created if this node knows none. Two nodes that create one title at the same
    /// moment get two namespaces; to open one that was just created elsewhere, [`Node::catch_up`] first.
    ///
    /// # Errors
    /// [`Error::Kv`], if it had to be created and could not be.
    pub async fn namespace(&self, title: &str) -> Result<Namespace, Error> {
        let (kv, account) = (self.node.kv().session(), self.node.account());
        let known = || Ok::<_, KvError>(kv.namespaces(account)?.into_iter().find(|known| known.title == title));
        let namespace = match known()? {
            Some(namespace) => namespace,
            None => match kv.create_namespace(account, title).await {
                // Another task was faster.
                Err(KvError::TitleTaken) => known()?.ok_or(KvError::TitleTaken)?,
                created => created?,
            },
        };
        Ok(Namespace::new(kv, namespace))
    }

    /// Waits until this node has all that a bookmark of another node speaks of.
    ///
    /// # Errors
    /// [`KvError::NotCovered`] when `patience` runs out, [`KvError::Departed`] if it speaks of writes of a node that
    /// has left the cluster and that may never come.
    pub async fn catch_up(&self, bookmark: &Bookmark, patience: Duration) -> Result<(), Error> {
        Ok(self.node.kv().wait_for(bookmark.inner(), patience).await?)
    }

    /// A token with which one other node can join this one's cluster, once, within `ttl`. A secret.
    ///
    /// # Errors
    /// [`Error::Invite`] if there are too many that were not used.
    pub async fn invite(&self, ttl: Duration) -> Result<String, Error> {
        let token = self.node.invite(ttl).await;
        token.map(|token| token.to_string()).map_err(|error| Error::Invite(error.to_string()))
    }

    /// Its name, as status and metrics of every node show it.
    pub fn name(&self) -> &str {
        self.node.name()
    }

    /// Where it listens for its peers.
    pub fn gossip(&self) -> SocketAddr {
        self.node.gossip()
    }

    /// How many nodes the cluster has, as far as this one knows, itself included.
    pub fn members(&self) -> usize {
        self.node.members().borrow().len()
    }

    /// Finishes what was begun, makes it durable, tells the peers. It stays a member, and can start again from the same
    /// directory once its namespaces and watches, which read from there, are dropped too.
    pub async fn stop(self) {
        self.node.stop().await;
    }
}
