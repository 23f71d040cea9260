//! Stories of a few nodes on the loopback interface. This file owns the small world they live in.

mod floods;
mod joins;
mod links;
mod mesh;
mod tail;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};

use super::*;
use crate::replica::NodeId;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOPBACK: &str = "127.0.0.1:0";

#[allow(clippy::disallowed_methods, reason = "tests have no driver to get the time from")]
fn clock() -> WallClock {
    Arc::new(|| std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap())
}

/// A wall clock this many seconds ahead of the machine's.
fn clock_ahead(secs: i64) -> WallClock {
    let clock = clock();
    Arc::new(move || Duration::from_millis((clock().as_millis() as i64 + secs * 1000) as u64))
}

fn now_secs() -> u64 {
    clock()().as_secs()
}

fn authority() -> Authority {
    Authority::create(now_secs()).unwrap()
}

fn identity(authority: &Authority) -> Identity {
    authority.issue(&NodeKey::generate().unwrap(), now_secs()).unwrap()
}

/// Two identities, the lower node id first.
fn two_identities(authority: &Authority) -> (Identity, Identity) {
    let (a, b) = (identity(authority), identity(authority));
    if a.node_id() < b.node_id() { (a, b) } else { (b, a) }
}

struct Received {
    node: NodeId,
    link: LinkId,
    class: Class,
    bytes: Bytes,
    permit: OwnedSemaphorePermit,
}

/// A node, and what it has been told so far.
struct Node {
    net: Net,
    events: mpsc::Receiver<NetEvent>,
    /// Links that are up.
    up: BTreeMap<LinkId, (NodeId, bool)>,
    /// Links that have ended, with the reason.
    down: BTreeMap<LinkId, String>,
    /// Who says that this node is evicted.
    turned_away: BTreeSet<NodeId>,
    frames: Vec<Received>,
    sent: BTreeMap<(LinkId, Class), usize>,
}

impl Node {
    fn start(identity: &Identity) -> Self {
        Self::start_with(config(identity))
    }

    fn start_with(config: NetConfig) -> Self {
        let (sender, events) = mpsc::channel(256);
        let net = Net::bind(config, sender).unwrap();
        Self {
            net,
            events,
            up: BTreeMap::new(),
            down: BTreeMap::new(),
            turned_away: BTreeSet::new(),
            frames: Vec::new(),
            sent: BTreeMap::new(),
        }
    }

    fn id(&self) -> NodeId {
        self.net.node_id()
    }

    fn addr(&self) -> SocketAddr {
        self.net.local_addr()
    }

    fn want(&self, peers: &[(NodeId, SocketAddr)]) {
        self.net.set_peers(peers.iter().map(|(node, addr)| (*node, vec![*addr])).collect());
    }

    fn note(&mut self, event: NetEvent) {
        match event {
            NetEvent::Connected { node, link, dialed, .. } => {
                assert!(self.up.values().all(|(up, _)| *up != node), "two links to {node} at once");
                assert!(!self.down.contains_key(&link), "link reused");
                assert!(self.up.insert(link, (node, dialed)).is_none(), "connected twice");
            }
            NetEvent::Disconnected { link, reason, .. } => {
                assert!(self.up.remove(&link).is_some(), "disconnected twice or never connected");
                self.down.insert(link, reason);
            }
            NetEvent::TurnedAway { node } => _ = self.turned_away.insert(node),
            NetEvent::Frame { node, link, class, bytes, permit } => {
                assert!(self.up.contains_key(&link), "frame outside of its link's life");
                self.frames.push(Received { node, link, class, bytes, permit });
            }
            NetEvent::Sent { link, class, bytes, .. } => {
                assert!(self.up.contains_key(&link), "sent outside of its link's life");
                *self.sent.entry((link, class)).or_default() += bytes;
            }
        }
    }

    /// Takes events until `done`; panics with what it was waiting for.
    async fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let waited = timeout(PATIENCE, async {
            while !done(self) {
                let event = self.events.recv().await.expect("the network has ended");
                self.note(event);
            }
        });
        let in_time = waited.await.is_ok();
        assert!(in_time, "waited in vain for: {what}; up {:?}, down {:?}", self.up, self.down);
    }

    /// Takes events for a while.
    async fn rest(&mut self, time: Duration) {
        let _ = timeout(time, async {
            while let Some(event) = self.events.recv().await {
                self.note(event);
            }
        })
        .await;
    }

    fn link_to(&self, node: NodeId) -> Option<LinkId> {
        self.up.iter().find(|(_, (up, _))| *up == node).map(|(link, _)| *link)
    }

    async fn linked(&mut self, node: NodeId) -> LinkId {
        self.until("a link", |own| own.link_to(node).is_some()).await;
        self.link_to(node).unwrap()
    }

    async fn frame(&mut self) -> Received {
        self.until("a frame", |own| !own.frames.is_empty()).await;
        self.frames.remove(0)
    }
}

fn config(identity: &Identity) -> NetConfig {
    NetConfig::new(LOOPBACK.parse().unwrap(), identity.clone(), clock())
}

/// Two connected nodes, with their links.
async fn pair() -> (Node, LinkId, Node, LinkId) {
    let (low, high) = two_identities(&authority());
    let (mut a, mut b) = (Node::start(&low), Node::start(&high));
    a.want(&[(b.id(), b.addr())]);
    let to_b = a.linked(b.id()).await;
    let to_a = b.linked(a.id()).await;
    (a, to_b, b, to_a)
}
