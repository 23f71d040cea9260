//! What the replica knows about a connected peer.

use std::collections::BTreeMap;

use super::clock::{Mono, Timestamp};
use super::digest::DigestSum;
use super::dot::{Dot, NodeId, Origin};
use super::input::LinkId;
use super::limits::{CLOCK_PEERS_MIN, CLOCK_SKEW_MS_MAX, CLOCK_SKEW_MS_REFUSE, ROSTER_MAX};
use super::message::{Class, Hello};
use super::rumor::Queue;
use super::version::VersionHash;

/// A connected peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) link: LinkId,
    /// Who runs there. Other classes may overtake it.
    pub(super) hello: Option<Hello>,
    pub(super) rtt_us: Option<u64>,
    /// Its wall clock minus ours, halfway through a round trip.
    pub(super) offset_ms: Option<i64>,
    pub(super) beat: Option<LastBeat>,
    /// Bytes handed to the transport and not yet taken by it, by class.
    in_flight: [usize; 4],
    /// Last write of our current life, of the gapless prefix that it has on disk.
    pub(super) durable: u64,
    pub(super) queue: Queue,
    /// When it was last sent all secrets.
    pub(super) secrets_sent: Option<Mono>,
}

/// What a peer's last beat said.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastBeat {
    pub(super) at: Mono,
    pub(super) versions: VersionHash,
    pub(super) former: VersionHash,
    pub(super) waits: bool,
    pub(super) digest: DigestSum,
    /// How ours compared at that moment.
    pub(super) versions_agree: bool,
    pub(super) digests_agree: bool,
}

impl Peer {
    pub(super) fn new(link: LinkId) -> Self {
        Self {
            link,
            hello: None,
            rtt_us: None,
            offset_ms: None,
            beat: None,
            in_flight: [0; 4],
            durable: 0,
            queue: Queue::default(),
            secrets_sent: None,
        }
    }

    pub(super) fn in_flight(&self, class: Class) -> usize {
        self.in_flight[class as usize]
    }

    pub(super) fn sending(&mut self, class: Class, bytes: usize) {
        self.in_flight[class as usize] += bytes;
    }

    pub(super) fn sent(&mut self, class: Class, bytes: usize) {
        let in_flight = &mut self.in_flight[class as usize];
        *in_flight = in_flight.saturating_sub(bytes);
    }

    /// A round trip was measured; the wall clock there was read `wall_ms`.
    pub(super) fn measured(&mut self, sent: Mono, now: Mono, wall_ms: u64, own_wall_ms: u64, offsets: &mut Offsets) {
        let rtt_us = now.since(sent);
        let half_ms = (rtt_us / 2000) as i64;
        let halfway_ms = wall_ms as i64 + half_ms - own_wall_ms as i64;
        // One way may have taken all of the time. Of a trip that took long only what is certain counts, or a peer that
        // was slow to hear would move this node's clock by seconds.
        let doubt_ms = (half_ms - CLOCK_SKEW_MS_MAX as i64).max(0);
        let offset_ms = halfway_ms.signum() * (halfway_ms.abs() - doubt_ms).max(0);
        offsets.replace(self.offset_ms.replace(offset_ms), Some(offset_ms));
        // Smoothed as in RFC 6298, the first sample taken whole.
        self.rtt_us = Some(self.rtt_us.map_or(rtt_us, |rtt| (7 * rtt + rtt_us) / 8));
    }
}

/// The clock offsets of all connected peers, in order, so that their median costs nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Offsets(Vec<i64>);

impl Offsets {
    /// A peer's offset has changed, come or gone.
    pub(super) fn replace(&mut self, former_ms: Option<i64>, offset_ms: Option<i64>) {
        if let Some(place) = former_ms.and_then(|former_ms| self.0.binary_search(&former_ms).ok()) {
            self.0.remove(place);
        }
        if let Some(offset_ms) = offset_ms {
            let place = self.0.partition_point(|other_ms| *other_ms < offset_ms);
            self.0.insert(place, offset_ms);
        }
    }
}

/// This node's clock against its peers'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skew {
    /// Median of the peers' clocks minus ours, in milliseconds.
    median_ms: i64,
    /// Whether enough peers are seen to act on it.
    trusted: bool,
}

impl Skew {
    pub(super) fn of(Offsets(offsets_ms): &Offsets) -> Self {
        if offsets_ms.is_empty() {
            return Self::default();
        }
        let middle = offsets_ms.len() / 2;
        // Between the two middle ones of an even number the one nearer to ours counts: of three nodes, one with a
        // wrong clock must not move the two with right ones.
        let median_ms = match offsets_ms.len() % 2 {
            1 => offsets_ms[middle],
            _ => {
                offsets_ms[middle - 1..=middle].iter().copied().min_by_key(|offset| offset.unsigned_abs()).unwrap_or(0)
            }
        };
        Self { median_ms, trusted: offsets_ms.len() >= CLOCK_PEERS_MIN }
    }

    /// Positive = our clock is ahead.
    pub(super) fn ahead_ms(self) -> i64 {
        -self.median_ms
    }

    pub(super) fn is_alarming(self) -> bool {
        self.median_ms.unsigned_abs() > CLOCK_SKEW_MS_MAX
    }

    pub(super) fn refuses_writes(self) -> bool {
        self.trusted && self.median_ms.unsigned_abs() > CLOCK_SKEW_MS_REFUSE
    }

    pub(super) fn is_known(self) -> bool {
        self.trusted
    }

    /// The wall clock to mint from.
    pub(super) fn corrected(self, wall_ms: u64) -> u64 {
        match self.trusted && self.is_alarming() {
            true => wall_ms.saturating_add_signed(self.median_ms),
            false => wall_ms,
        }
    }
}

/// What is remembered of a node from one link to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Acquaintance {
    /// The highest timestamp heard from it, so that it can be told after a restart.
    pub(super) heard: Timestamp,
    /// Its newest process, by the clock that it started with.
    pub(super) hello: Option<Hello>,
    /// A process that started earlier by that clock and came later, and whether the newest one was heard of since.
    pub(super) rival: Option<(u64, bool)>,
    /// The life it was last seen writing with.
    pub(super) life: Option<Origin>,
    /// The last write of that life of which it has told itself.
    pub(super) told: u64,
}

impl Acquaintance {
    /// The node itself speaks of a write that it has made.
    pub(super) fn tells(&mut self, dot: Dot) {
        if self.life != Some(dot.origin) {
            (self.life, self.told) = (Some(dot.origin), 0);
        }
        self.told = self.told.max(dot.seq);
    }

    /// A process introduces itself; whether it is an older one while a newer one lives. One that seems older may have
    /// started with a wrong clock after the newer one had died, so the newer one must have been heard of in between.
    pub(super) fn greet(&mut self, hello: &Hello) -> bool {
        match &self.hello {
            Some(newest) if newest.boot == hello.boot => {
                if let Some((_, is_proven)) = &mut self.rival {
                    *is_proven = true;
                }
                self.hello = Some(hello.clone());
            }
            Some(newest) if newest.started > hello.started => match self.rival {
                Some((boot, true)) if boot == hello.boot => return true,
                Some((boot, _)) if boot == hello.boot => {}
                _ => self.rival = Some((hello.boot, false)),
            },
            _ => (self.hello, self.rival) = (Some(hello.clone()), None),
        }
        false
    }
}

/// Acquaintances, bounded: a lying peer may name any number of nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Acquaintances(BTreeMap<NodeId, Acquaintance>);

impl Acquaintances {
    pub(super) fn get(&self, node: NodeId) -> Option<&Acquaintance> {
        self.0.get(&node)
    }

    /// To remember something; `None` if there is no room for another node.
    pub(super) fn entry(&mut self, node: NodeId) -> Option<&mut Acquaintance> {
        match self.0.len() < ROSTER_MAX || self.0.contains_key(&node) {
            true => Some(self.0.entry(node).or_default()),
            false => None,
        }
    }

    pub(super) fn heard(&mut self, node: NodeId, stamp: Timestamp) {
        if let Some(known) = self.entry(node) {
            known.heard = stamp.max(known.heard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skew_of(offsets_ms: &[i64]) -> Skew {
        let mut offsets = Offsets::default();
        offsets_ms.iter().for_each(|offset_ms| offsets.replace(None, Some(*offset_ms)));
        Skew::of(&offsets)
    }

    #[test]
    fn two_peers_fence_a_wrong_clock_and_one_does_not() {
        let alone = skew_of(&[-90_000]);
        assert!(alone.is_alarming() && !alone.refuses_writes());
        assert_eq!(alone.corrected(1_000_000), 1_000_000);
        let far = skew_of(&[-90_000, -90_010]);
        assert!(far.refuses_writes());
        assert_eq!(far.ahead_ms(), 90_000);
        let near = skew_of(&[400, 420, 90_000]);
        assert!(!near.refuses_writes());
        assert_eq!(near.corrected(1_000), 1_420);
        assert_eq!(skew_of(&[100, 200]).corrected(1_000), 1_000);
        let one_wrong = skew_of(&[-130_000, 3]);
        assert!(!one_wrong.is_alarming() && !one_wrong.refuses_writes());
    }

    #[test]
    fn a_peer_that_was_slow_to_hear_moves_no_clock() {
        let (mut peer, mut offsets) = (Peer::new(1), Offsets::default());
        // Its clock is right; the beat took 17 seconds to reach it, the echo none.
        peer.measured(Mono::from_ms(0), Mono::from_ms(17_000), 117_000, 117_000, &mut offsets);
        assert!(peer.offset_ms.is_some_and(|offset_ms| offset_ms <= CLOCK_SKEW_MS_MAX as i64), "{:?}", peer.offset_ms);
        // An hour is an hour all the same, give or take the trip.
        peer.measured(Mono::from_ms(0), Mono::from_ms(17_000), 3_717_000, 117_000, &mut offsets);
        assert!(peer.offset_ms.is_some_and(|offset_ms| offset_ms > 3_590_000), "{:?}", peer.offset_ms);
    }

    #[test]
    fn an_older_process_yields_only_to_one_that_lives() {
        let hello = |boot, started| Hello { boot, started: Timestamp(started), heard: Timestamp::default() };
        let mut known = Acquaintance::default();
        assert!(!known.greet(&hello(1, 5_000)));
        // Restarted with a clock that is behind: the former process never comes back.
        assert!(!known.greet(&hello(2, 4_000)) && !known.greet(&hello(2, 4_000)));
        // It does come back, so there are two.
        assert!(!known.greet(&hello(1, 5_000)));
        assert!(known.greet(&hello(2, 4_000)));
        assert!(!known.greet(&hello(3, 6_000)) && !known.greet(&hello(3, 6_000)));
    }

    #[test]
    fn a_round_trip_gives_the_offset_at_its_middle() {
        let mut peer = Peer::new(1);
        let mut offsets = Offsets(vec![-7, 3]);
        peer.measured(Mono::from_ms(10), Mono::from_ms(110), 5_000, 4_000, &mut offsets);
        assert_eq!((peer.rtt_us, peer.offset_ms), (Some(100_000), Some(1_050)));
        assert_eq!(offsets.0, [-7, 3, 1_050]);
        peer.measured(Mono::from_ms(10), Mono::from_ms(110), 3_950, 4_000, &mut offsets);
        assert_eq!(offsets.0, [-7, 0, 3], "a new measurement takes the place of the former one");
        offsets.replace(peer.offset_ms, None);
        assert_eq!(offsets.0, [-7, 3]);
    }
}
