//! Beats: every second or so nodes tell one another how far they are. From the answers come round trips, clock
//! offsets, watermarks, the need to sync, and the moment when a former life may be folded.

use rand::RngExt;

use super::dot::{Dot, NodeId, Origin};
use super::input::Alarm;
use super::limits::{
    BEAT_FANOUT_ACTIVE_MAX, BEAT_FANOUT_MAX, BEAT_PERIOD, BEAT_PERIOD_ACTIVE, CONTROL_IN_FLIGHT_MAX, HEAD_LIVES_MAX,
    HEADS_PER_BEAT, HEADS_PER_BEAT_MAX, HEADS_PER_BEAT_SHARE, RELAYED_MS_AHEAD_MAX,
};
use super::message::{Beat, Class, Echo, Head, Message};
use super::peer::{LastBeat, Skew};
use super::roster::Roster;
use super::store::{Store, StoreError};
use super::version::VersionHash;
use super::watermark::{Heads, Holds, News};
use super::write::Life;
use super::{Mono, Now, Replica, Sabotage};

/// When the next beat is due, and what beats have shown of former lives.
#[derive(Clone, Debug, Default)]
pub(super) struct Beats {
    due: Mono,
    /// Writes were made or received since the last beat.
    active: bool,
    last_activity: Mono,
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

    /// When a write was last made here or pushed to here.
    pub(super) fn last_activity(&self) -> Mono {
        self.last_activity
    }

    /// Writes flow: watermarks should follow closely.
    pub(super) fn active(&mut self, now: Mono) {
        self.last_activity = now;
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
        let (period, fanout) = match std::mem::take(&mut self.beats.active) {
            true => (BEAT_PERIOD_ACTIVE, BEAT_FANOUT_ACTIVE_MAX),
            false => (BEAT_PERIOD, BEAT_FANOUT_MAX),
        };
        self.beats.due = self.jittered(now.mono, period);
        self.take_skew();
        self.look_at_former_lives(now.mono);
        let mut nodes = self.connected.clone();
        let count = nodes.len().min(fanout);
        for place in 0..count {
            let chosen = self.rng.random_range(place..nodes.len());
            nodes.swap(place, chosen);
        }
        let head = self.own_head(now)?;
        let relayed = (self.heads.len() / HEADS_PER_BEAT_SHARE).clamp(HEADS_PER_BEAT, HEADS_PER_BEAT_MAX);
        for node in &nodes[..count] {
            let mut heads = vec![head.clone()];
            heads.append(&mut self.heads.relay(*node, relayed));
            self.beat_with(heads, *node, now);
        }
        self.fold_former_lives(now.mono);
        Ok(())
    }

    /// The first beat on a new link. Others have links of their own to the peer, so it tells of this node only.
    pub(super) fn first_beat(&mut self, node: NodeId, now: Now) -> Result<(), StoreError> {
        let head = self.own_head(now)?;
        self.beat_with(vec![head], node, now);
        Ok(())
    }

    fn beat_with(&mut self, heads: Vec<Head>, node: NodeId, now: Now) {
        if self.peers.get(&node).is_none_or(|peer| peer.in_flight(Class::Control) > CONTROL_IN_FLIGHT_MAX) {
            return;
        }
        let beat = Beat {
            sent: now.mono,
            versions: self.versions.hash(),
            former: self.beats.former,
            waits: self.waits_in_former_lives(),
            digest: self.digest.sum(),
            secrets: self.secrets.hash(),
            heads,
        };
        self.send(node, &Message::Beat(beat));
    }

    fn own_head(&mut self, now: Now) -> Result<Head, StoreError> {
        let node = self.config.node;
        let life = self.life.map(|life| (life.origin, life.last));
        let former = self
            .versions
            .lives_of(node)
            .filter(|(origin, _)| life.is_none_or(|(current, _)| current != *origin))
            .map(|(origin, seen)| (origin, seen.last()))
            .take(HEAD_LIVES_MAX)
            .collect();
        let watermark = self.heads.watermark_of(self.roster.others(node));
        let wall_ms = self.skew.corrected(now.wall_ms);
        let promise = self.clock.promise(wall_ms);
        self.staged |= self.floor.is_low(promise, wall_ms);
        let folded = self.versions.folded_of(&self.store, node)?.short();
        Ok(Head { node, former, folded, life, stamp: self.floor.limit(promise), watermark })
    }

    /// Everything stamped up to this, by anyone who has not departed, is applied here and on disk. It speaks for members
    /// that this node has not heard of, too: each was let in by one that it knows, or by one that such a one let in, in
    /// a write that lies below all that the newcomer writes.
    pub fn watermark(&self) -> super::Timestamp {
        self.heads.watermark(self.roster.others(self.config.node))
    }

    pub(super) fn on_beat(&mut self, node: NodeId, beat: Beat, now: Now) {
        let last = LastBeat {
            at: now.mono,
            versions: beat.versions,
            former: beat.former,
            waits: beat.waits,
            digest: beat.digest,
            versions_agree: beat.versions == self.versions.hash(),
            digests_agree: beat.digest == self.digest.sum(),
        };
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let is_first = peer.beat.replace(last).is_none();
        self.caught_up |= last.versions_agree;
        self.compare_secrets(node, beat.secrets, now);
        if is_first && !last.versions_agree {
            self.syncs.want(node, now.mono);
        }
        let own = self.config.node;
        let reach_ms = self.skew.corrected(now.wall_ms).saturating_add(RELAYED_MS_AHEAD_MAX);
        for head in beat.heads.into_iter().take(HEADS_PER_BEAT_MAX + 1).filter(|head| head.node != own) {
            match head.life {
                _ if head.node != node && head.stamp.ms() > reach_ms => {
                    // Whom it speaks for would not be heard for as long.
                    self.count("heads_far_ahead");
                    continue;
                }
                Some((life, last)) if head.node == node && life.node == node => self.believe(node, life, last),
                _ => {}
            }
            let node = head.node;
            if head.stamp <= super::Timestamp::CEILING && self.heads.observe(head, now.mono) == News::NewLife {
                self.versions.unsettle(node);
            }
        }
        self.send(node, &Message::Echo(Echo { sent: beat.sent, wall_ms: now.wall_ms }));
    }

    /// A node speaks of writes of its own.
    pub(super) fn told(&mut self, node: NodeId, dots: impl Iterator<Item = Dot>) {
        let Some(known) = self.acquaintances.entry(node) else { return };
        dots.filter(|dot| dot.origin.node == node).for_each(|dot| known.tells(dot));
    }

    /// A node that says how many writes its current life has knows it better than whoever claimed to have seen more.
    /// What of these is true comes again.
    fn believe(&mut self, node: NodeId, life: Origin, last: u64) {
        self.told(node, std::iter::once(life.dot(last)));
        let Some(known) = self.acquaintances.get(node).filter(|known| known.life == Some(life)) else { return };
        if self.config.sabotage != Sabotage::TrustClaims && self.versions.cut(life, known.told) {
            self.staged = true;
            self.count("claims_cut");
        }
    }

    pub(super) fn on_echo(&mut self, node: NodeId, echo: Echo, now: Now) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.measured(echo.sent, now.mono, echo.wall_ms, now.wall_ms, &mut self.offsets);
        self.take_skew();
    }

    /// Compares this node's clock with its peers'.
    fn take_skew(&mut self) {
        let skew = Skew::of(&self.offsets);
        match (self.skew.is_alarming(), skew.is_alarming()) {
            (false, true) => self.alarm(Alarm::ClockSkew(skew.ahead_ms())),
            (true, false) => self.alarm(Alarm::ClockFine),
            _ => {}
        }
        self.skew = skew;
    }

    /// Checks awaited heads against what commit number `commit` makes visible.
    pub(super) fn cover_heads(&mut self, commit: u64, now: Now) -> Result<(), StoreError> {
        let (versions, store) = (&mut self.versions, &self.store);
        self.heads.cover(commit, now.mono, |head| {
            for (origin, last) in head.former.iter().chain(&head.life) {
                if versions.prefix(store, *origin)? < *last {
                    return Ok(Holds::Less);
                }
            }
            Ok(if versions.has_folded(store, head)? { Holds::All } else { Holds::OtherLives })
        })
    }

    pub(super) fn settle_lives(&mut self) {
        let (own, life, roster, heads) = (self.config.node, self.life, &self.roster, &self.heads);
        self.versions.settle(|origin| is_over(origin, own, life, roster, heads));
    }

    fn is_former(&self, origin: Origin) -> bool {
        is_over(origin, self.config.node, self.life, &self.roster, &self.heads)
    }

    fn look_at_former_lives(&mut self, now: Mono) {
        self.settle_lives();
        let former = self.versions.former_hash();
        if former != self.beats.former {
            (self.beats.former, self.beats.former_since) = (former, now);
        }
    }

    fn waits_in_former_lives(&self) -> bool {
        self.blobs.records().any(|(_, entry)| self.is_former(entry.dot.origin))
    }

    /// Folds former lives once every member has shown the same ones for a while.
    ///
    /// When besides all hold the same, and nobody waits for blobs, there is no more of them than all have: heads that speak
    /// of more speak of what was lost with a directory, and are waited for no longer.
    fn fold_former_lives(&mut self, now: Mono) {
        let former = self.beats.former;
        // Of members only, who have a say: whoever was put back to an old copy may not know of all yet.
        let is_over = |life: &Origin| self.is_former(*life) && self.roster.is_member(life.node);
        let awaited: Vec<Origin> = self.heads.awaited_lives().filter(is_over).collect();
        let has_unfolded = former != self.versions.folded();
        let has_nothing = !has_unfolded && awaited.is_empty();
        if has_nothing || now < self.beats.former_since + self.config.bounds.fold_patience {
            return;
        }
        let own = self.config.node;
        let (versions, digest) = (self.versions.hash(), self.digest.sum());
        // Who knows of nobody knows nothing: it may be about to join.
        let mut all_hold_the_same = !self.waits_in_former_lives() && self.roster.members().any(|(node, _)| node != own);
        let all_agree = self.roster.members().filter(|(node, _)| *node != own).all(|(node, _)| {
            let beat = self.peers.get(&node).and_then(|peer| peer.beat);
            all_hold_the_same &=
                beat.is_some_and(|beat| beat.versions == versions && beat.digest == digest && !beat.waits);
            beat.is_some_and(|beat| beat.former == former && beat.at >= self.beats.former_since)
        });
        if !all_agree {
            return;
        }
        if all_hold_the_same {
            self.heads.release(&awaited);
        }
        let over: Vec<Origin> = self.versions.former_lives().collect();
        for origin in over {
            self.versions.fold(&mut self.store, origin);
            self.count("folded_lives");
            self.staged = true;
        }
    }
}

/// A life is over when its node has another one, or is evicted.
fn is_over(origin: Origin, own: NodeId, life: Option<Life>, roster: &Roster, heads: &Heads) -> bool {
    match origin.node == own {
        true => life.is_none_or(|life| life.origin != origin),
        false => {
            roster.is_evicted(origin.node)
                || heads.get(origin.node).is_some_and(|head| head.life.is_none_or(|(life, _)| life != origin))
        }
    }
}
