//! The replica's view of itself and its peers, for people.

use super::clock::Timestamp;
use super::digest::DigestSum;
use super::dot::{NodeId, Origin};
use super::entry::Entry;
use super::key::Key;
use super::roster::NodeInfo;
use super::store::Store;
use super::version::VersionHash;
use super::{Now, Replica};

/// A snapshot of what an operator may want to know.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Over all that is held.
    pub digest: DigestSum,
    /// Hash of the version vector.
    pub versions: VersionHash,
    /// Entries held, tombstones included.
    pub entries: u64,
    /// The life that this process writes with, once it has written.
    pub life: Option<Origin>,
    /// Writes of that life.
    pub last: u64,
    /// Origins in the version vector.
    pub origins: usize,
    /// Everything stamped up to this, by anyone, is applied and on disk here.
    pub watermark: Timestamp,
    /// Own clock against the median of the peers', in milliseconds, positive = ahead; with enough peers.
    pub clock_offset_ms: Option<i64>,
    /// Why writes are refused, if they are.
    pub refusing: Option<&'static str>,
    /// Everyone on the roster but this node.
    pub peers: Vec<PeerStatus>,
    /// Nodes of which this one was told when it joined and has not heard since: its roster is not all there is.
    pub unheard: usize,
    /// Sync sessions under way: those in which this node catches up, and those in which it helps a peer.
    pub syncs: (usize, usize),
    /// Records that wait for their blobs.
    pub pending_blobs: usize,
    /// Events counted since the start, by name.
    pub counters: Vec<(&'static str, u64)>,
}

/// One peer.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// Who.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its place, as an IATA code, if it said.
    pub pop: String,
    /// Whether a connection stands.
    pub connected: bool,
    /// Round trip in microseconds, once measured.
    pub rtt_us: Option<u64>,
    /// How long this node has been behind the peer's own writes, in milliseconds; 0 = not behind.
    pub lag_ms: Option<u64>,
    /// Whether the version vectors were equal at its last beat.
    pub versions_agree: Option<bool>,
    /// Whether, at its last beat, it had seen what this node has seen of lives that are over, this node's included.
    pub former_agree: Option<bool>,
    /// Whether the digests were equal at its last beat.
    pub digests_agree: Option<bool>,
    /// Writes waiting to be pushed to it.
    pub queue: usize,
}

/// How full what is bounded is; see [`limits`](super::limits).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Keys that wait for all peers together.
    pub queued: usize,
    /// Keys that wait for one peer, at most.
    pub queued_for_one: usize,
    /// Sync sessions received.
    pub sessions_in: usize,
    /// Sync sessions sent.
    pub sessions_out: usize,
    /// Bytes written while a session reads from one snapshot, at most.
    pub session_writes: u64,
    /// Records that wait for their blobs.
    pub pending: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Intervals beyond the gapless prefix of one origin, at most.
    pub intervals: usize,
    /// Record bytes on their way to one peer, at most.
    pub records_in_flight: usize,
}

impl<S: Store> Replica<S> {
    /// How full what is bounded is.
    pub fn load(&self) -> Load {
        let (queued, queued_for_one) = self.queued();
        let (sessions_in, sessions_out) = self.syncs.count();
        let in_flight = self.peers.values().map(|peer| peer.in_flight(super::Class::Records));
        Load {
            queued,
            queued_for_one,
            sessions_in,
            sessions_out,
            session_writes: self.syncs.written_since(self.store.written()),
            pending: self.blobs.waiting(),
            waiting: self.waiters.len(),
            intervals: self.versions.intervals_max(),
            records_in_flight: in_flight.max().unwrap_or(0),
        }
    }

    /// Records that wait for their blobs.
    pub fn waiting_for_blobs(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.blobs.records()
    }

    /// Events counted since the start, by name.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counters.iter().map(|(name, count)| (*name, *count))
    }

    pub(super) fn status(&self, now: Now) -> Status {
        let (own, former) = (self.config.node, self.versions.former_hash());
        Status {
            digest: self.digest.sum(),
            versions: self.versions.hash(),
            entries: self.digest.entries(),
            life: self.life.map(|life| life.origin),
            last: self.life.map_or(0, |life| life.last),
            origins: self.versions.active().len(),
            watermark: self.watermark(),
            clock_offset_ms: self.skew.is_known().then(|| self.skew.ahead_ms()),
            refusing: self.refusing(),
            peers: self
                .roster
                .members()
                .filter(|(node, _)| *node != own)
                .map(|(node, info)| self.peer_status(node, info, former, now))
                .collect(),
            unheard: self.roster.unheard(),
            pending_blobs: self.blobs.waiting(),
            syncs: self.syncs.count(),
            counters: self.counters.iter().map(|(name, count)| (*name, *count)).collect(),
        }
    }

    fn refusing(&self) -> Option<&'static str> {
        match () {
            _ if self.superseded => Some("a newer process runs with this node's identity"),
            _ if self.is_evicted() => Some("this node was taken off the roster"),
            _ if self.skew.refuses_writes() => Some("this node's clock is too far from its peers'"),
            _ => None,
        }
    }

    fn peer_status(&self, node: NodeId, info: &NodeInfo, former: VersionHash, now: Now) -> PeerStatus {
        let peer = self.peers.get(&node);
        let beat = peer.and_then(|peer| peer.beat);
        let heard = self.heads.get(node).is_some();
        let behind_ms = self.heads.behind_since(node).map_or(0, |since| (now.mono.since(since) / 1000).max(1));
        PeerStatus {
            node,
            name: info.name.clone(),
            pop: info.pop.clone(),
            connected: peer.is_some_and(|peer| peer.hello.is_some()),
            rtt_us: peer.and_then(|peer| peer.rtt_us),
            lag_ms: heard.then_some(behind_ms),
            versions_agree: beat.map(|beat| beat.versions_agree),
            former_agree: beat.map(|beat| beat.former == former),
            digests_agree: beat.map(|beat| beat.digests_agree),
            queue: peer.map_or(0, |peer| peer.queue.len()),
        }
    }
}
