//! Which links exist, which of two links to one node survives, and whom to keep connected.
//! Refuses to know streams, frames and sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use super::connection::CloseCode;
use super::framing::Class;
use super::tail::Tail;
use crate::replica::NodeId;

/// One authenticated connection to a node, from its [`Connected`](super::NetEvent::Connected) to its
/// [`Disconnected`](super::NetEvent::Disconnected). Never used again in this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// Frames waiting for their stream. Unbounded, because the caller bounds what is outstanding: it adds what it hands
/// to `send` and subtracts what `Sent` reports, and stops above its own limit for the peer.
type Outbox = mpsc::UnboundedSender<Bytes>;
pub(super) type Inbox = mpsc::UnboundedReceiver<Bytes>;

pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) node: NodeId,
    pub(super) connection: quinn::Connection,
    /// By whom: true for this node.
    pub(super) dialed: bool,
    /// Tells the processes that a node id has lived as apart.
    boot: u64,
    outboxes: [Outbox; 4],
    pub(super) tail: Tail,
    local_reason: OnceLock<String>,
    /// True once `Disconnected` was reported.
    ended: watch::Sender<bool>,
}

impl Link {
    pub(super) fn outbox(&self, class: Class) -> &Outbox {
        let [control, records, sync, blobs] = &self.outboxes;
        match class {
            Class::Control => control,
            Class::Records => records,
            Class::Sync => sync,
            Class::Blobs => blobs,
        }
    }

    /// Closes the connection; the first reason counts.
    pub(super) fn close(&self, code: CloseCode, reason: &str) {
        // Set first: the link's task asks for it as soon as the connection is closed.
        let _ = self.local_reason.set(reason.to_owned());
        self.connection.close(code.into(), reason.as_bytes());
    }

    /// Why this side closed it.
    pub(super) fn local_reason(&self) -> Option<&str> {
        self.local_reason.get().map(String::as_str)
    }

    /// Returns once `Disconnected` was reported.
    pub(super) async fn ended(&self) {
        // Fails only if the sender is gone, which lives in self.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

/// A node to keep connected.
pub(super) struct Wanted {
    addresses: Mutex<Vec<SocketAddr>>,
    /// The link to it has gone.
    pub(super) lost: Notify,
    /// Its addresses have changed.
    pub(super) moved: Notify,
}

impl Wanted {
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that asks to become a link.
pub(super) struct Candidate {
    pub(super) node: NodeId,
    pub(super) connection: quinn::Connection,
    pub(super) dialed: bool,
    pub(super) boot: u64,
}

pub(super) enum Admission {
    Admitted {
        link: Arc<Link>,
        inboxes: [Inbox; 4],
        /// To be closed, and waited for, before the new link is reported.
        superseded: Option<Arc<Link>>,
    },
    /// The link that exists is the better one.
    Duplicate,
    /// Not, or no longer, to be connected.
    Unwanted,
}

/// What a new set of wanted nodes asks for.
#[derive(Default)]
pub(super) struct PeerChanges {
    /// Each needs a dialer.
    pub(super) added: Vec<(NodeId, Arc<Wanted>)>,
    /// To be closed.
    pub(super) dropped: Vec<Arc<Link>>,
}

pub(super) struct Mesh {
    own: NodeId,
    links: BTreeMap<LinkId, Arc<Link>>,
    by_node: BTreeMap<NodeId, Arc<Link>>,
    wanted: BTreeMap<NodeId, (Arc<Wanted>, Option<AbortHandle>)>,
    links_made: u64,
    closing: bool,
}

impl Mesh {
    pub(super) fn new(own: NodeId) -> Self {
        Self {
            own,
            links: BTreeMap::new(),
            by_node: BTreeMap::new(),
            wanted: BTreeMap::new(),
            links_made: 0,
            closing: false,
        }
    }

    pub(super) fn link(&self, id: LinkId) -> Option<&Arc<Link>> {
        self.links.get(&id)
    }

    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        self.by_node.contains_key(&node)
    }

    /// Decides over a new connection. Both ends come to the same decision, because it depends only on what both
    /// know: who dialed, and which processes they are.
    pub(super) fn admit(&mut self, candidate: Candidate) -> Admission {
        let Candidate { node, connection, dialed, boot } = candidate;
        if self.closing || (dialed && !self.wanted.contains_key(&node)) {
            return Admission::Unwanted;
        }
        if let Some(old) = self.by_node.get(&node) {
            let old_is_dead = old.connection.close_reason().is_some();
            if !old_is_dead && !supersedes(self.own, node, (dialed, boot), (old.dialed, old.boot)) {
                return Admission::Duplicate;
            }
        }
        self.links_made += 1;
        let id = LinkId(self.links_made);
        let channels: [(Outbox, Inbox); 4] = std::array::from_fn(|_| mpsc::unbounded_channel());
        let [(a, w), (b, x), (c, y), (d, z)] = channels;
        let link = Arc::new(Link {
            id,
            node,
            connection,
            dialed,
            boot,
            outboxes: [a, b, c, d],
            tail: Tail::default(),
            local_reason: OnceLock::new(),
            ended: watch::Sender::new(false),
        });
        self.links.insert(id, Arc::clone(&link));
        let superseded = self.by_node.insert(node, Arc::clone(&link));
        Admission::Admitted { link, inboxes: [w, x, y, z], superseded }
    }

    /// Forgets a link whose end was reported.
    pub(super) fn retire(&mut self, link: &Link) {
        self.links.remove(&link.id);
        if self.by_node.get(&link.node).is_some_and(|current| current.id == link.id) {
            self.by_node.remove(&link.node);
        }
        link.ended.send_replace(true);
        if let Some((wanted, _)) = self.wanted.get(&link.node) {
            wanted.lost.notify_one();
        }
    }

    /// Replaces the set of nodes to keep connected.
    pub(super) fn set_wanted(&mut self, mut peers: BTreeMap<NodeId, Vec<SocketAddr>>) -> PeerChanges {
        if self.closing {
            return PeerChanges::default();
        }
        peers.remove(&self.own);
        let removed: Vec<NodeId> = self.wanted.keys().filter(|node| !peers.contains_key(node)).copied().collect();
        let mut dropped = Vec::new();
        for node in removed {
            if let Some((_, Some(dialer))) = self.wanted.remove(&node) {
                dialer.abort();
            }
            dropped.extend(self.by_node.get(&node).cloned());
        }
        let mut added = Vec::new();
        for (node, addresses) in peers {
            if let Some((wanted, _)) = self.wanted.get(&node) {
                let mut current = wanted.lock();
                if *current != addresses {
                    *current = addresses;
                    wanted.moved.notify_one();
                }
            } else {
                let wanted =
                    Arc::new(Wanted { addresses: Mutex::new(addresses), lost: Notify::new(), moved: Notify::new() });
                self.wanted.insert(node, (Arc::clone(&wanted), None));
                added.push((node, wanted));
            }
        }
        PeerChanges { added, dropped }
    }

    /// Remembers the dialer of a node, to stop it when the node is removed.
    pub(super) fn set_dialer(&mut self, node: NodeId, dialer: AbortHandle) {
        match self.wanted.get_mut(&node) {
            Some((_, slot)) => *slot = Some(dialer),
            None => dialer.abort(),
        }
    }

    /// Stops dialing and admitting; returns the links to close.
    pub(super) fn shut_down(&mut self) -> Vec<Arc<Link>> {
        self.closing = true;
        for (_, dialer) in std::mem::take(&mut self.wanted).into_values() {
            if let Some(dialer) = dialer {
                dialer.abort();
            }
        }
        self.links.values().cloned().collect()
    }
}

/// Whether a new connection, given as (dialed by `own`, boot of `node`), takes the place of a living one.
fn supersedes(own: NodeId, node: NodeId, new: (bool, u64), old: (bool, u64)) -> bool {
    let ((new_dialed, new_boot), (old_dialed, old_boot)) = (new, old);
    // Another process: the node has restarted (or been cloned, then the newest wins).
    if new_boot != old_boot {
        return true;
    }
    // The dialer has given up its former connection, or it would not have dialed.
    if new_dialed == old_dialed {
        return true;
    }
    // Crossing dials: the one of the lower node id survives.
    new_dialed == (own < node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_keep_the_same_one_of_crossing_dials() {
        let (low, high) = (NodeId(1), NodeId(2));
        for low_dialed_first in [true, false] {
            // At the lower node and at the higher node, the same new connection is judged.
            let at_low = supersedes(low, high, (!low_dialed_first, 7), (low_dialed_first, 7));
            let at_high = supersedes(high, low, (low_dialed_first, 8), (!low_dialed_first, 8));
            assert_eq!(at_low, at_high);
            assert_eq!(at_low, !low_dialed_first, "the lower node's dial must survive");
        }
    }

    #[test]
    fn a_restarted_peer_or_a_second_dial_replaces() {
        let (low, high) = (NodeId(1), NodeId(2));
        for (new, old) in [((false, 2), (true, 1)), ((true, 1), (true, 1)), ((false, 1), (false, 1))] {
            assert!(supersedes(low, high, new, old));
            assert!(supersedes(high, low, new, old));
        }
    }
}
