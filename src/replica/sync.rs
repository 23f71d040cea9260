//! Sync sessions: one side sends, from one snapshot, every live entry that the other lacks.
//!
//! Overwritten dots leave holes, so what arrives in a session says nothing about the dots between. Only when the whole
//! session, all origins, has been applied does the receiver join the snapshot's version vector (intervals included),
//! and never while a record that it covers still waits for its blob. Van Renesse et al. 2008 (Scuttlebutt) and
//! Almeida et al. 2018 (delta CRDTs) are the kin; the rule is ours to keep and the simulator's to judge.
//!
//! A session that is cut short is not wasted: the receiver remembers how far that process of that sender had come,
//! and offers it as already had when it asks the same process again. The sender cuts a session short itself when too much
//! was written since the snapshot was taken.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;

use super::apply::Applied;
use super::dot::{Dot, NodeId};
use super::input::LinkId;
use super::limits::{GAP_PATIENCE, SESSION_IDLE_MAX, SYNC_ANYWAY, SYNC_PERIOD, VERSIONS_LEN_MAX};
use super::message::{Message, SyncChunk, SyncRefusal, SyncRequest};
use super::peer::Peer;
use super::plan::Plan;
use super::store::{Snapshot, Store, StoreError};
use super::version::{Seen, VersionVector};
use super::{Mono, Now, Replica, Sabotage};

/// Chunks sent for one session in one turn.
const CHUNKS_PER_TURN: usize = 4;

/// All sessions, both ways.
pub(super) struct Syncs<V> {
    next_session: u64,
    inbound: BTreeMap<NodeId, Inbound>,
    outbound: BTreeMap<NodeId, Outbound<V>>,
    /// Asked for during this turn; they begin from the state that its commit leaves.
    asked: BTreeMap<NodeId, SyncRequest>,
    /// Whom to ask, and when.
    wanted: BTreeMap<NodeId, Mono>,
    /// Nodes whose current life has gaps, and when to ask them if it still has.
    gaps: BTreeMap<NodeId, Mono>,
    /// How far a session had come that was cut short, by sender: its process, and what it had covered.
    partial: BTreeMap<NodeId, (u64, VersionVector)>,
    periodic_due: Mono,
    /// A peer that had seen the same held something else, and was asked for a session.
    has_doubts: bool,
}

/// A session that this node receives.
struct Inbound {
    session: u64,
    full: bool,
    /// What the sender's snapshot has seen.
    versions: Option<VersionVector>,
    next_chunk: u64,
    /// Chunks applied but not yet acknowledged, because too much waits for blobs.
    unacknowledged: bool,
    /// How many chunks there are, once the sender is through.
    chunks: Option<u64>,
    /// How far the sender's scan has come.
    upto: Option<Dot>,
    /// A record found no room to wait for its blob: the session must not be joined.
    incomplete: bool,
    /// Records of the session that wait for their blobs. The sender's version vector may lack some of them (see
    /// `Bounds`), and yet they dominate what it claims.
    waits_for: BTreeSet<Dot>,
    progressed: Mono,
}

/// A session that this node sends.
struct Outbound<V> {
    session: u64,
    link: LinkId,
    /// Gone when more was written since than may be. The receiver is told when it has applied what is on its way.
    snapshot: Option<V>,
    /// What the store had written when it was taken.
    written: u64,
    plan: Plan,
    sent: u64,
    applied: u64,
    progressed: Mono,
}

impl<V> Default for Syncs<V> {
    fn default() -> Self {
        Self {
            next_session: 0,
            inbound: BTreeMap::new(),
            outbound: BTreeMap::new(),
            asked: BTreeMap::new(),
            wanted: BTreeMap::new(),
            gaps: BTreeMap::new(),
            partial: BTreeMap::new(),
            periodic_due: Mono(0),
            has_doubts: false,
        }
    }
}

impl<V> Syncs<V> {
    /// This node should sync with a peer at `at`.
    pub(super) fn want(&mut self, node: NodeId, at: Mono) {
        let due = self.wanted.entry(node).or_insert(at);
        *due = at.min(*due);
    }

    /// A peer asks for a session.
    pub(super) fn asked(&mut self, node: NodeId, request: SyncRequest) {
        self.asked.insert(node, request);
    }

    /// A peer has applied part of a session.
    pub(super) fn acked(&mut self, node: NodeId, session: u64, applied: u64, now: Mono) {
        if let Some(out) = self.outbound.get_mut(&node).filter(|out| out.session == session) {
            out.applied = applied.clamp(out.applied, out.sent);
            out.progressed = now;
        }
    }

    /// The link is gone, and the sessions with it.
    pub(super) fn disconnected(&mut self, node: NodeId) {
        self.outbound.remove(&node);
        self.asked.remove(&node);
        self.wanted.remove(&node);
        self.gaps.remove(&node);
        self.cut(node);
    }

    /// Ends a session that is received, remembering how far it has come.
    fn cut(&mut self, node: NodeId) {
        let Some(Inbound { versions: Some(versions), upto: Some(upto), incomplete: false, .. }) =
            self.inbound.remove(&node)
        else {
            return;
        };
        // The process was noted when the session was asked for.
        if let Some((_, partial)) = self.partial.get_mut(&node) {
            partial.join(&versions.up_to(upto));
        }
    }

    /// A record that waited for its blob is forgotten. No session may be joined that claims it, and none that was cut
    /// short counts as had.
    pub(super) fn forgotten(&mut self, dot: Dot) {
        for inbound in self.inbound.values_mut() {
            let may_claim = inbound.versions.as_ref().is_none_or(|versions| versions.contains(dot));
            inbound.incomplete |= may_claim || inbound.waits_for.contains(&dot);
        }
        self.partial.retain(|_, (_, partial)| !partial.contains(dot));
    }

    /// Whether a session that is sent could go on right now.
    pub(super) fn can_go_on(&self, peers: &BTreeMap<NodeId, Peer>, window: u64) -> bool {
        let has_room = |out: &Outbound<V>| out.snapshot.is_some() && out.sent - out.applied < window;
        self.outbound.iter().any(|(node, out)| peers.contains_key(node) && has_room(out))
    }

    pub(super) fn next_due(&self) -> Option<Mono> {
        let idle = |progressed: Mono| progressed + SESSION_IDLE_MAX + Mono(1);
        self.wanted
            .values()
            .chain(self.gaps.values())
            .copied()
            .chain(self.inbound.values().map(|session| idle(session.progressed)))
            .chain(self.outbound.values().map(|session| idle(session.progressed)))
            .min()
    }

    /// Most bytes written since the snapshot of a session was taken, of those that still read from theirs.
    pub(super) fn written_since(&self, written: u64) -> u64 {
        let reading = self.outbound.values().filter(|out| out.snapshot.is_some());
        reading.map(|out| written - out.written).max().unwrap_or(0)
    }

    /// Sessions under way: received, sent.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.inbound.len(), self.outbound.len())
    }
}

impl<S: Store> Replica<S> {
    /// If the sender's current life has gaps here, it will be asked, unless what fills them is just late.
    pub(super) fn watch_for_gaps(&mut self, node: NodeId, now: Now) {
        if self.has_gap(node) {
            self.syncs.gaps.entry(node).or_insert(now.mono + GAP_PATIENCE);
        } else {
            self.syncs.gaps.remove(&node);
        }
    }

    fn has_gap(&self, node: NodeId) -> bool {
        let life = self.acquaintances.get(node).and_then(|known| known.life);
        life.and_then(|life| self.versions.active().get(life)).is_some_and(|seen| !seen.is_gapless())
    }

    pub(super) fn sync_if_due(&mut self, now: Now) -> Result<(), StoreError> {
        let gaps: Vec<_> = self.syncs.gaps.iter().filter(|(_, at)| **at <= now.mono).map(|(node, _)| *node).collect();
        for node in gaps {
            self.syncs.gaps.remove(&node);
            if self.has_gap(node) {
                self.syncs.want(node, now.mono);
            }
        }
        if now.mono >= self.syncs.periodic_due {
            self.syncs.periodic_due = self.jittered(now.mono, SYNC_PERIOD);
            self.sync_with_someone(now)?;
        }
        let due: Vec<_> = self.syncs.wanted.iter().filter(|(_, at)| **at <= now.mono).map(|(node, _)| *node).collect();
        for node in due {
            self.syncs.wanted.remove(&node);
            self.ask(node, false, now)?;
        }
        self.drop_idle_sessions(now.mono);
        Ok(())
    }

    /// A random peer whose version vector was another at its last beat. While writes flow it always is: then only a
    /// node that has waited for some of them asks, and now and then one that does not know what it lacks. Afterwards
    /// only beats count that were sent after the writes.
    fn sync_with_someone(&mut self, now: Now) -> Result<(), StoreError> {
        let is_behind = self.heads.is_behind_since(now.mono - SYNC_PERIOD);
        let is_active = now.mono < self.beats.last_activity() + SYNC_PERIOD + SYNC_PERIOD;
        if !is_behind && is_active && self.rng.random_range(0..SYNC_ANYWAY) > 0 {
            return Ok(());
        }
        let settled = match is_behind || is_active {
            true => Mono(0),
            false => self.beats.last_activity() + SYNC_PERIOD,
        };
        let own = self.versions.hash();
        let differing: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.beat.is_some_and(|beat| beat.versions != own && beat.at >= settled))
            .map(|(node, _)| *node)
            .collect();
        if !differing.is_empty() {
            let chosen = differing[self.rng.random_range(0..differing.len())];
            self.syncs.want(chosen, now.mono);
        } else if self.rng.random_range(0..SYNC_ANYWAY) == 0
            && let holders = self.holding_something_else(settled)
            && !holders.is_empty()
        {
            let chosen = holders[self.rng.random_range(0..holders.len())];
            if std::mem::replace(&mut self.syncs.has_doubts, true) {
                // A session did not help: somebody has claimed what is not so, or a disk has.
                self.syncs.has_doubts = false;
                self.verify_unasked(chosen, now)?;
            } else {
                // What no version vector speaks of may be of a life that was folded since.
                self.ask(chosen, true, now)?;
            }
        }
        Ok(())
    }

    /// Peers that had seen the same and held something else. Over the bound of intervals an entry is held that no
    /// version vector speaks of; if the gap before it is never filled, no other comparison would show it. A session
    /// brings it, for whatever the reason of the difference is, and costs little where there is nothing to bring.
    fn holding_something_else(&self, since: Mono) -> Vec<NodeId> {
        let (versions, digest) = (self.versions.hash(), self.digest.sum());
        let differs = |peer: &Peer| {
            peer.beat.is_some_and(|beat| beat.versions == versions && beat.digest != digest && beat.at >= since)
        };
        self.peers.iter().filter(|(_, peer)| differs(peer)).map(|(node, _)| *node).collect()
    }

    fn ask(&mut self, node: NodeId, full: bool, now: Now) -> Result<(), StoreError> {
        let Some(boot) = self.peers.get(&node).and_then(|peer| peer.hello.as_ref()).map(|hello| hello.boot) else {
            return Ok(());
        };
        if self.syncs.inbound.contains_key(&node) {
            return Ok(());
        }
        if self.syncs.inbound.len() >= self.config.bounds.sessions_in {
            let later = self.jittered(now.mono, SYNC_PERIOD);
            self.syncs.want(node, later);
            return Ok(());
        }
        let mut have = self.versions.active().clone();
        if full {
            for (origin, last) in self.store.snapshot().folded_origins()? {
                have.set(origin, Seen::prefix_of(last));
            }
        }
        let (process, partial) = self.syncs.partial.entry(node).or_insert((boot, VersionVector::default()));
        if *process != boot && self.config.sabotage != Sabotage::ResumeAnywhere {
            // Another process may know less than the one that had sent all that.
            (*process, *partial) = (boot, VersionVector::default());
        }
        have.join(partial);
        if self.config.sabotage == Sabotage::IgnoreIntervals {
            have = without_intervals(&have);
        }
        let have = have.trimmed(VERSIONS_LEN_MAX);
        self.syncs.next_session += 1;
        let session = self.syncs.next_session;
        let inbound = Inbound {
            session,
            full,
            versions: None,
            next_chunk: 0,
            unacknowledged: false,
            chunks: None,
            upto: None,
            incomplete: false,
            waits_for: BTreeSet::new(),
            progressed: now.mono,
        };
        self.syncs.inbound.insert(node, inbound);
        self.count("syncs_asked");
        self.send(node, &Message::SyncRequest(SyncRequest { session, have, folded: self.versions.folded(), full }));
        Ok(())
    }

    pub(super) fn on_sync_refused(
        &mut self,
        node: NodeId,
        session: u64,
        reason: SyncRefusal,
        now: Now,
    ) -> Result<(), StoreError> {
        let Some(inbound) = self.syncs.inbound.get(&node).filter(|inbound| inbound.session == session) else {
            return Ok(());
        };
        let (was_full, has_begun) = (inbound.full, inbound.versions.is_some());
        self.syncs.cut(node);
        match reason {
            SyncRefusal::NeedFull if !was_full => self.ask(node, true, now)?,
            SyncRefusal::Busy if has_begun => self.syncs.want(node, now.mono),
            _ => {
                let later = self.jittered(now.mono, SYNC_PERIOD);
                self.syncs.want(node, later);
            }
        }
        Ok(())
    }

    pub(super) fn on_sync_start(&mut self, node: NodeId, session: u64, versions: VersionVector, full: bool, now: Now) {
        if let Some(inbound) = self.syncs.inbound.get_mut(&node)
            && (inbound.session, inbound.full) == (session, full)
        {
            inbound.versions.get_or_insert(versions);
            inbound.progressed = now.mono;
        }
    }

    pub(super) fn on_sync_chunk(&mut self, node: NodeId, chunk: SyncChunk, now: Now) -> Result<(), StoreError> {
        let Some(inbound) = self.syncs.inbound.get_mut(&node).filter(|inbound| inbound.session == chunk.session) else {
            return Ok(());
        };
        if inbound.versions.is_none() || chunk.index != inbound.next_chunk || inbound.chunks.is_some() {
            self.bad_peer(node, "sync chunk out of order");
            return Ok(());
        }
        inbound.next_chunk += 1;
        inbound.upto = Some(chunk.upto);
        inbound.unacknowledged = true;
        inbound.progressed = now.mono;
        let naive = (self.config.sabotage == Sabotage::NaiveAdvance).then(|| inbound.versions.clone()).flatten();
        for record in &chunk.records {
            let Some(entry) = self.decode(record, node) else { return Ok(()) };
            let dot = entry.dot;
            let applied = self.apply(record, entry, node, now)?;
            let Some(inbound) = self.syncs.inbound.get_mut(&node) else { continue };
            match applied {
                Applied::Seen => {}
                Applied::Pending => _ = inbound.waits_for.insert(dot),
                Applied::Dropped => inbound.incomplete = true,
            }
        }
        self.count_many("records_synced", chunk.records.len() as u64);
        if let Some(versions) = naive {
            self.versions.join(&mut self.store, &versions.up_to(chunk.upto))?;
            self.staged = true;
        }
        self.acknowledge_chunks(node, now.mono);
        Ok(())
    }

    /// Lets the sender go on, unless too much waits for blobs that are coming. What is not coming may have been
    /// overwritten everywhere else, which the session is about to tell.
    fn acknowledge_chunks(&mut self, node: NodeId, now: Mono) {
        let has_room = self.blobs.waiting() < self.config.bounds.pending_soft || !self.blobs.are_coming(now);
        if let Some(inbound) = self.syncs.inbound.get_mut(&node).filter(|inbound| inbound.unacknowledged && has_room) {
            inbound.unacknowledged = false;
            let (session, applied) = (inbound.session, inbound.next_chunk);
            self.send(node, &Message::SyncAck { session, applied });
        }
    }

    pub(super) fn on_sync_done(&mut self, node: NodeId, session: u64, chunks: u64) {
        let Some(inbound) = self.syncs.inbound.get_mut(&node).filter(|inbound| inbound.session == session) else {
            return;
        };
        if inbound.versions.is_none() || chunks != inbound.next_chunk {
            self.bad_peer(node, "sync ended out of order");
            return;
        }
        inbound.chunks = Some(chunks);
    }

    /// Joins the sessions that are complete, and lets those go on that had to wait for blobs.
    pub(super) fn complete_sessions(&mut self, now: Mono) -> Result<(), StoreError> {
        let nodes: Vec<NodeId> = self.syncs.inbound.keys().copied().collect();
        for node in nodes {
            self.acknowledge_chunks(node, now);
            let Some(inbound) = self.syncs.inbound.get_mut(&node) else { continue };
            inbound.waits_for.retain(|dot| self.blobs.awaits(*dot));
            let Some(versions) = inbound.versions.as_ref().filter(|_| inbound.chunks.is_some()) else { continue };
            if !inbound.incomplete && (!inbound.waits_for.is_empty() || self.blobs.any_waiting_in(versions)) {
                continue;
            }
            let Some(Inbound { versions: Some(mut versions), incomplete, .. }) = self.syncs.inbound.remove(&node)
            else {
                continue;
            };
            if incomplete {
                continue;
            }
            if self.config.sabotage == Sabotage::IgnoreIntervals {
                versions = without_intervals(&versions);
            }
            if let Some(life) = self.life {
                // Nobody knows more of this process's writes than it does.
                versions.remove(life.origin);
            }
            self.versions.join(&mut self.store, &versions)?;
            self.syncs.partial.remove(&node);
            self.staged = true;
            self.caught_up = true;
            self.count("syncs_completed");
        }
        Ok(())
    }

    /// A record that had waited for its blob has moved a session on.
    pub(super) fn sessions_progressed(&mut self, now: Mono) {
        for inbound in self.syncs.inbound.values_mut() {
            inbound.progressed = now;
        }
    }

    fn drop_idle_sessions(&mut self, now: Mono) {
        let is_idle = |progressed: Mono| now > progressed + SESSION_IDLE_MAX;
        let idle: Vec<NodeId> = self
            .syncs
            .inbound
            .iter()
            .filter(|(_, inbound)| is_idle(inbound.progressed))
            .map(|(node, _)| *node)
            .collect();
        for node in idle {
            self.count("syncs_timed_out");
            self.syncs.cut(node);
        }
        self.syncs.outbound.retain(|_, out| !is_idle(out.progressed));
    }

    /// Opens the sessions that were asked for, from the state just committed, and sends on those that have room.
    pub(super) fn serve_sessions(&mut self, now: Now) -> Result<(), StoreError> {
        for (node, request) in std::mem::take(&mut self.syncs.asked) {
            self.open_session(node, request, now)?;
        }
        let nodes: Vec<NodeId> = self.syncs.outbound.keys().copied().collect();
        for node in nodes {
            self.send_chunks(node, now)?;
        }
        Ok(())
    }

    fn open_session(&mut self, node: NodeId, request: SyncRequest, now: Now) -> Result<(), StoreError> {
        let Some(link) = self.peers.get(&node).map(|peer| peer.link) else { return Ok(()) };
        let SyncRequest { session, have, folded, full } = request;
        self.syncs.outbound.remove(&node);
        let refuse = |reason| Message::SyncRefused { session, reason };
        if !full && folded != self.versions.folded() {
            self.send(node, &refuse(SyncRefusal::NeedFull));
            return Ok(());
        }
        if self.syncs.outbound.len() >= self.config.bounds.sessions_out {
            self.send(node, &refuse(SyncRefusal::Busy));
            return Ok(());
        }
        let snapshot = self.store.snapshot();
        let mut versions = self.versions.active().clone();
        if full {
            for (origin, last) in snapshot.folded_origins()? {
                versions.set(origin, Seen::prefix_of(last));
            }
        }
        if self.config.sabotage == Sabotage::IgnoreIntervals {
            versions = without_intervals(&versions);
        }
        let nothing = Seen::default();
        // In order, for what a session that is cut short has brought.
        let mut origins = self.untold_origins()?;
        origins.extend(versions.iter().map(|(origin, _)| origin));
        let plan = origins
            .into_iter()
            .flat_map(|origin| {
                // To the very end: what this node holds beyond its own bookkeeping (see `Bounds`) may dominate what
                // its version vector claims.
                let gaps = have.get(origin).unwrap_or(&nothing).gaps(u64::MAX);
                gaps.into_iter().map(move |(first, last)| (origin, first, last))
            })
            .collect();
        let plan = Plan(plan);
        self.count("syncs_served");
        let versions = versions.trimmed(VERSIONS_LEN_MAX);
        self.send(node, &Message::SyncStart { session, versions, full });
        let (snapshot, written) = (Some(snapshot), self.store.written());
        let outbound = Outbound { session, link, snapshot, written, plan, sent: 0, applied: 0, progressed: now.mono };
        self.syncs.outbound.insert(node, outbound);
        Ok(())
    }

    fn send_chunks(&mut self, node: NodeId, now: Now) -> Result<(), StoreError> {
        let link = self.peers.get(&node).map(|peer| peer.link);
        for _ in 0..CHUNKS_PER_TURN {
            let Some(out) = self.syncs.outbound.get_mut(&node) else { return Ok(()) };
            if Some(out.link) != link {
                self.syncs.outbound.remove(&node);
                return Ok(());
            }
            let Outbound { session, sent, .. } = *out;
            // It has sent something at least, or it would never come to an end.
            if sent > 0 && self.store.written() - out.written > self.config.bounds.session_writes {
                out.snapshot = None;
            }
            let Some(snapshot) = &out.snapshot else {
                if out.applied == sent {
                    self.syncs.outbound.remove(&node);
                    self.count("syncs_cut");
                    self.send(node, &Message::SyncRefused { session, reason: SyncRefusal::Busy });
                }
                return Ok(());
            };
            if out.sent - out.applied >= self.config.bounds.sync_window {
                return Ok(());
            }
            let chunk = out.plan.next_chunk(snapshot, &self.config.bounds, self.config.sabotage)?;
            if let Some((records, upto)) = chunk {
                out.sent += 1;
                out.progressed = now.mono;
                self.send(node, &Message::SyncChunk(SyncChunk { session, index: sent, records, upto }));
            } else {
                self.syncs.outbound.remove(&node);
                self.send(node, &Message::SyncDone { session, chunks: sent });
                return Ok(());
            }
        }
        Ok(())
    }
}

fn without_intervals(versions: &VersionVector) -> VersionVector {
    let mut prefixes = VersionVector::default();
    for (origin, seen) in versions.iter() {
        prefixes.set(origin, Seen::prefix_of(seen.prefix()));
    }
    prefixes
}
