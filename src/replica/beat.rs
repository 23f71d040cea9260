//! Beats: every second or so nodes tell one another how far they are. From the answers come round trips, clock
//! offsets, watermarks, the need to sync, and the moment when a former life may be folded.

use rand::RngExt;

use super::dot::{NodeId, Origin};
use super::input::Alarm;
use super::limits::{
    BEAT_FANOUT_MAX, BEAT_PERIOD, BEAT_PERIOD_ACTIVE, CONTROL_IN_FLIGHT_MAX, FOLD_PATIENCE, HEADS_PER_BEAT_MAX,
};
use super::message::{Beat, Class, Echo, Head, Message};
use super::peer::{LastBeat, Skew};
use super::store::{Store, StoreError};
use super::version::VersionHash;
use super::{Mono, Now, Replica};

/// When the next beat is due, and what beats have shown of former lives.
#[derive(Clone, Debug, Default)]
pub(super) struct Beats {
    due: Mono,
    /// Writes were made or received since the last beat.
    active: bool,
    /// The hash over former lives, and since when it has stood.
    former: VersionHash,
    former_since: Mono,
}

impl Beats {
    pub(super) fn start(&mut self, now: Mono) {
        self.due = now;
    }

    pub(super) fn next_due(&self) -> Mono {
        self.due
    }

    /// Writes flow: watermarks should follow closely.
    pub(super) fn active(&mut self, now: Mono) {
        if !self.active {
            self.active = true;
            self.due = self.due.min(now + BEAT_PERIOD_ACTIVE);
        }
    }
}

impl<S: Store> Replica<S> {
    pub(super) fn beat_if_due(&mut self, now: Now) -> Result<(), StoreError> {
        if now.mono < self.beats.due {
            return Ok(());
        }
        let period = if std::mem::take(&mut self.beats.active) { BEAT_PERIOD_ACTIVE } else { BEAT_PERIOD };
        self.beats.due = self.jittered(now.mono, period);
        let mut nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        while nodes.len() > BEAT_FANOUT_MAX {
            nodes.swap_remove(self.rng.random_range(0..nodes.len()));
        }
        for node in nodes {
            self.beat(node, now);
        }
        self.fold_former_lives(now.mono);
        Ok(())
    }

    pub(super) fn beat(&mut self, node: NodeId, now: Now) {
        if self.peers.get(&node).is_none_or(|peer| peer.in_flight(Class::Control) > CONTROL_IN_FLIGHT_MAX) {
            return;
        }
        let mut heads = vec![self.own_head(now)];
        let others: Vec<&Head> = self.heads.iter().filter(|head| head.node != node).collect();
        let first = if others.is_empty() { 0 } else { self.rng.random_range(0..others.len()) };
        heads.extend(others.iter().cycle().skip(first).take(others.len().min(HEADS_PER_BEAT_MAX)).cloned().cloned());
        let beat = Beat {
            sent: now.mono,
            versions: self.versions.hash(),
            former: self.former_hash(),
            digest: self.digest.sum(),
            secrets: self.secrets.hash(),
            heads,
        };
        self.send(node, &Message::Beat(beat));
    }

    fn own_head(&mut self, now: Now) -> Head {
        let node = self.config.node;
        let life = self.life.map(|life| (life.origin, life.last));
        let former = self
            .versions
            .active()
            .iter()
            .filter(|(origin, _)| origin.node == node && life.is_none_or(|(current, _)| current != *origin))
            .map(|(origin, seen)| (origin, seen.last()))
            .collect();
        let watermark = self.watermark();
        Head { node, former, life, stamp: self.clock.promise(self.skew.corrected(now.wall_ms)), watermark }
    }

    /// Everything stamped up to this, by anyone on the roster, is applied here and on disk.
    pub(super) fn watermark(&self) -> super::Timestamp {
        let own = self.config.node;
        self.heads.watermark(self.roster.members().map(|(node, _)| node).filter(|node| *node != own))
    }

    pub(super) fn on_beat(&mut self, node: NodeId, beat: Beat, now: Now) {
        let last = LastBeat {
            at: now.mono,
            versions: beat.versions,
            former: beat.former,
            versions_agree: beat.versions == self.versions.hash(),
            digests_agree: beat.digest == self.digest.sum(),
        };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let is_first = peer.beat.replace(last).is_none();
        self.compare_secrets(node, beat.secrets, now);
        if is_first && !last.versions_agree {
            self.syncs.want(node, now.mono);
        }
        for head in beat.heads.iter().take(HEADS_PER_BEAT_MAX + 1).filter(|head| head.node != self.config.node) {
            if head.stamp <= super::Timestamp::CEILING {
                self.heads.observe(head, now.mono);
                self.acquaintances.heard(head.node, head.stamp);
            }
        }
        self.send(node, &Message::Echo(Echo { sent: beat.sent, wall_ms: now.wall_ms }));
    }

    pub(super) fn on_echo(&mut self, node: NodeId, echo: Echo, now: Now) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.measured(echo.sent, now.mono, echo.wall_ms, now.wall_ms);
        let skew = Skew::of(self.peers.values().filter_map(|peer| peer.offset_ms).collect());
        match (self.skew.is_alarming(), skew.is_alarming()) {
            (false, true) => self.alarm(Alarm::ClockSkew(skew.ahead_ms())),
            (true, false) => self.alarm(Alarm::ClockFine),
            _ => {}
        }
        self.skew = skew;
    }

    /// Checks awaited heads against what commit number `commit` makes visible.
    pub(super) fn cover_heads(&mut self, commit: u64, now: Now) -> Result<(), StoreError> {
        let (versions, store) = (&self.versions, &self.store);
        self.heads.cover(commit, now.mono, |head| {
            for (origin, last) in head.former.iter().chain(&head.life) {
                if versions.prefix(store, *origin)? < *last {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// A life is over when its node has another one, or is evicted.
    fn is_former(&self, origin: Origin) -> bool {
        if origin.node == self.config.node {
            return self.life.is_none_or(|life| life.origin != origin);
        }
        self.roster.is_evicted(origin.node)
            || self.heads.get(origin.node).is_some_and(|head| head.life.is_none_or(|(life, _)| life != origin))
    }

    pub(super) fn former_hash(&self) -> VersionHash {
        self.versions.former_hash(|origin| self.is_former(origin))
    }

    /// Folds former lives once every member has shown the same ones for a while.
    fn fold_former_lives(&mut self, now: Mono) {
        let former = self.former_hash();
        if former != self.beats.former {
            (self.beats.former, self.beats.former_since) = (former, now);
        }
        if former == self.versions.folded() || now < self.beats.former_since + FOLD_PATIENCE {
            return;
        }
        let own = self.config.node;
        let all_agree = self.roster.members().filter(|(node, _)| *node != own).all(|(node, _)| {
            let beat = self.peers.get(&node).and_then(|peer| peer.beat);
            beat.is_some_and(|beat| beat.former == former && beat.at >= self.beats.former_since)
        });
        if !all_agree {
            return;
        }
        let over: Vec<Origin> =
            self.versions.active().iter().map(|(origin, _)| origin).filter(|origin| self.is_former(*origin)).collect();
        for origin in over {
            self.versions.fold(&mut self.store, origin);
            self.count("folded_lives");
            self.staged = true;
        }
    }
}
