//! The replica's view of itself and its peers, for people.

use super::clock::Timestamp;
use super::digest::DigestSum;
use super::dot::{NodeId, Origin};
use super::version::VersionHash;

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
    /// Whether the digests were equal at its last beat.
    pub digests_agree: Option<bool>,
    /// Writes waiting to be pushed to it.
    pub queue: usize,
}
