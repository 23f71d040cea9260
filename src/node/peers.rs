//! How this node and its peers find each other: what it says of itself on the roster, and whom the network is told to
//! keep connected. Knows nothing of connections themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;

use super::driver::{Evicted, Members};
use super::handle::Handle;
use super::start::StartError;
use crate::net::Net;
use crate::replica::{NamespaceId, NodeId, NodeInfo, Refusal, Reply, Request, Roster};

/// How often addresses that are names are looked up again.
const LOOKUP_PERIOD: Duration = Duration::from_secs(60);
/// Shortest time between two announcements. Two processes with one identity contradict each other until one yields.
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(1);

/// What a node says of itself on the roster.
pub(super) struct Announcement {
    pub(super) handle: Handle,
    pub(super) node: NodeId,
    pub(super) info: NodeInfo,
    pub(super) members: watch::Receiver<Members>,
}

impl Announcement {
    /// Writes the node's own entry, if what stands there is not true any more.
    pub(super) async fn make(&self) -> Result<(), StartError> {
        let held = self.members.borrow().get(&self.node).cloned();
        let joined = held.as_ref().map_or(self.info.joined, |held| held.joined);
        let info = NodeInfo { joined, ..self.info.clone() };
        if held.as_ref() == Some(&info) {
            return Ok(());
        }
        let key = Roster::key(NamespaceId::NODES, self.node);
        match self.handle.call(Request::Write { key, content: info.to_content() }).await {
            Ok(Reply::Written { .. }) => Ok(()),
            Ok(Reply::Refused(Refusal::Evicted)) => Err(StartError::Announce(
                "it was taken off the roster; start it with --join and a new join token (`starling invite` at a member), and \
                 it comes back as another node, with what it alone has"
                    .into(),
            )),
            Ok(Reply::Refused(refusal)) => Err(StartError::Announce(refusal.to_string())),
            Ok(reply) => Err(StartError::Announce(format!("unexpected reply {reply:?}"))),
            Err(gone) => Err(StartError::Announce(self.handle.failure().unwrap_or_else(|| gone.to_string()))),
        }
    }

    /// Says it again when another entry has won: the one that let this node in may come from a clock ahead of its own.
    pub(super) async fn keep(mut self) {
        while self.members.changed().await.is_ok() {
            if self.members.borrow_and_update().contains_key(&self.node)
                && let Err(error) = self.make().await
            {
                tracing::warn!(%error, "peers may not find this node");
            }
            tokio::time::sleep(ANNOUNCE_PAUSE).await;
        }
    }
}

/// Tells the network whom to keep connected.
pub(super) struct Dialing {
    pub(super) net: Net,
    pub(super) node: NodeId,
    pub(super) seeds: BTreeMap<NodeId, Vec<String>>,
    pub(super) members: watch::Receiver<Members>,
    pub(super) evicted: Evicted,
}

impl Dialing {
    pub(super) async fn keep(mut self) {
        loop {
            let wanted = self.wanted();
            let mut peers = BTreeMap::new();
            for (node, addresses) in wanted {
                peers.insert(node, look_up(&addresses).await);
            }
            self.net.set_peers(peers);
            tokio::select! {
                changed = self.members.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOKUP_PERIOD) => {}
            }
        }
    }

    /// The members; where their entries have not arrived or name no address yet, what this node was told when it
    /// joined.
    fn wanted(&mut self) -> BTreeMap<NodeId, Vec<String>> {
        let members = self.members.borrow_and_update();
        let mut wanted = self.seeds.clone();
        if let Ok(evicted) = self.evicted.read() {
            wanted.retain(|node, _| !evicted.contains(node));
        }
        for (node, info) in members.iter() {
            let addresses = wanted.entry(*node).or_default();
            if !info.addresses.is_empty() {
                addresses.clone_from(&info.addresses);
            }
        }
        wanted.remove(&self.node);
        wanted
    }
}

async fn look_up(addresses: &[String]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for address in addresses {
        match address.parse() {
            Ok(address) => found.push(address),
            Err(_) => match tokio::net::lookup_host(address.as_str()).await {
                Ok(addresses) => found.extend(addresses),
                Err(error) => tracing::warn!(address, %error, "can't look up the address of a peer"),
            },
        }
    }
    found
}
