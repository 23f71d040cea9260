//! Requests that wait: for other nodes to hold a write on disk, or for this node to cover a bookmark.
//!
//! Only fsynced state counts, here and at peers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::bookmark::{After, Bookmark, NodeTag, OriginTag, fence};
use super::clock::Timestamp;
use super::dot::{Dot, NodeId};
use super::input::{AckLevel, Refusal, Reply, Ticket};
use super::message::Message;
use super::store::{Store, StoreError};
use super::{Mono, Now, Replica, Sabotage};

/// Who waits for what.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiters {
    acks: BTreeMap<Ticket, (Dot, AckLevel, Mono)>,
    /// What is not covered yet, and until when it is waited for.
    covered: BTreeMap<Ticket, (Bookmark, Mono)>,
    deadlines: BTreeSet<(Mono, Ticket)>,
    /// Own writes up to here are on disk here.
    own_durable: u64,
    /// What peers want to hear once it is on disk here: the latest of their writes that each asked about.
    wanted: BTreeMap<NodeId, Dot>,
    /// By commit, what becomes true when it is durable.
    unsynced: VecDeque<(u64, Durable)>,
    /// The last commit known to be durable.
    synced: u64,
}

/// What a commit holds, to be said once it is durable.
#[derive(Clone, Debug, Default)]
struct Durable {
    own_last: u64,
    acks: BTreeMap<NodeId, Dot>,
}

impl Waiters {
    pub(super) fn next_due(&self) -> Option<Mono> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The last commit known to be durable.
    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    /// Whether a peer will be told something when the next commits are durable.
    pub(super) fn unsynced_acks(&self) -> bool {
        self.unsynced.iter().any(|(_, durable)| !durable.acks.is_empty())
    }

    /// How many requests wait.
    pub(super) fn len(&self) -> usize {
        self.deadlines.len()
    }
}

impl<S: Store> Replica<S> {
    pub(super) fn await_acks(
        &mut self,
        ticket: Ticket,
        dot: Dot,
        level: AckLevel,
        patience_ms: u64,
        now: Now,
    ) -> Result<(), StoreError> {
        let is_own = self.life.is_some_and(|life| life.origin == dot.origin && (1..=life.last).contains(&dot.seq));
        if !is_own {
            self.reply(ticket, Reply::Refused(Refusal::UnknownDot));
        } else if let AckLevel::Nodes(nodes) = level
            && nodes > self.roster.members().count()
        {
            self.reply(ticket, Reply::Refused(Refusal::FewerNodes(self.roster.members().count())));
        } else if self.waiters.len() >= self.config.bounds.waiters {
            self.reply(ticket, Reply::Refused(Refusal::Overloaded));
        } else {
            let until = now.mono + Mono::from_ms(patience_ms);
            self.waiters.acks.insert(ticket, (dot, level, until));
            self.waiters.deadlines.insert((until, ticket));
            let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
            for node in nodes {
                self.send(node, &Message::AckPlease { dot });
            }
            self.settle_acks();
        }
        Ok(())
    }

    pub(super) fn await_covered(
        &mut self,
        ticket: Ticket,
        bookmark: Bookmark,
        patience_ms: u64,
        now: Now,
    ) -> Result<(), StoreError> {
        let missing = self.missing(&bookmark, true)?;
        if missing.is_empty() {
            self.reply(ticket, Reply::Done);
        } else if missing.marks().any(|(tag, _)| self.has_departed(tag)) {
            self.reply(ticket, Reply::Refused(Refusal::EvictedOrigin));
        } else if self.waiters.len() >= self.config.bounds.waiters {
            self.reply(ticket, Reply::Refused(Refusal::Overloaded));
        } else {
            let until = now.mono + Mono::from_ms(patience_ms);
            self.waiters.covered.insert(ticket, (missing, until));
            self.waiters.deadlines.insert((until, ticket));
        }
        Ok(())
    }

    /// What a bookmark speaks of and is not here. A life is folded only where all of it is here, so that a second look
    /// may leave `folded` ones alone.
    fn missing(&self, bookmark: &Bookmark, folded: bool) -> Result<Bookmark, StoreError> {
        if self.config.sabotage == Sabotage::TrustBookmarks {
            return Ok(Bookmark::default());
        }
        let passed = |after: After| after.fence == fence(&self.roster) && self.held_upto().ms() > after.ms;
        bookmark.without(passed, |tag, mark| {
            let nodes = self.roster.members().map(|(node, _)| node).chain(self.roster.departed());
            self.versions.covers(&self.store, tag, mark, nodes.filter(|_| folded))
        })
    }

    /// Whether a tag can only mean a node that has departed.
    fn has_departed(&self, tag: OriginTag) -> bool {
        let node = tag.node();
        self.roster.departed().any(|departed| NodeTag::of(departed) == node)
            && !self.roster.members().any(|(member, _)| NodeTag::of(member) == node)
    }

    /// All writes of all members stamped up to this are here, on disk.
    pub(super) fn held_upto(&self) -> Timestamp {
        match self.roster.others(self.config.node).next() {
            Some(_) => self.watermark(),
            None => Timestamp::CEILING,
        }
    }

    /// Every member has all that members committed before this millisecond, as far as this node has heard.
    fn everywhere_ms(&self) -> u64 {
        let watermark = |node| self.heads.get(node).map_or(Timestamp::default(), |head| head.watermark);
        self.roster.others(self.config.node).map(watermark).fold(self.held_upto(), Timestamp::min).ms()
    }

    pub(super) fn shorten(&self, bookmark: Bookmark) -> Bookmark {
        let mut shortened = bookmark;
        if self.config.sabotage == Sabotage::ForgetMarks {
            shortened.shorten(&self.roster, u64::MAX);
        }
        shortened.shorten(&self.roster, self.everywhere_ms());
        shortened
    }

    /// A new link: what it was asked on an earlier one may be lost.
    pub(super) fn ask_for_acks(&mut self, node: NodeId) {
        if let Some(dot) = self.waiters.acks.values().map(|(dot, _, _)| *dot).max() {
            self.send(node, &Message::AckPlease { dot });
        }
    }

    /// A peer wants to know when its writes up to `dot` are on disk here.
    pub(super) fn on_ack_please(&mut self, node: NodeId, dot: Dot) {
        if dot.origin.node != node {
            self.bad_peer(node, "asked about writes of another node");
            return;
        }
        self.told(node, std::iter::once(dot));
        let wanted = self.waiters.wanted.entry(node).or_insert(dot);
        *wanted = match wanted.origin == dot.origin {
            true => dot.max(*wanted),
            false => dot,
        };
    }

    /// A peer has all our writes up to this one on disk.
    pub(super) fn on_ack(&mut self, node: NodeId, upto: Dot) {
        let Some(life) = self.life.filter(|life| life.origin == upto.origin) else { return };
        if upto.seq > life.last {
            self.bad_peer(node, "acknowledged writes that were never made");
            return;
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.durable = peer.durable.max(upto.seq);
        }
        self.settle_acks();
    }

    /// Called with every turn's commit: remembers what may be said once it is durable.
    pub(super) fn note_commit(&mut self) -> Result<(), StoreError> {
        let mut durable = Durable { own_last: self.life.map_or(0, |life| life.last), ..Durable::default() };
        for (node, wanted) in &self.waiters.wanted {
            let prefix = self.versions.prefix(&self.store, wanted.origin)?;
            // What others claim of it is not for this node to tell it.
            let told = self.acquaintances.get(*node).filter(|known| known.life == Some(wanted.origin));
            let prefix = prefix.min(told.map_or(wanted.seq, |known| known.told));
            if prefix >= wanted.seq {
                durable.acks.insert(*node, wanted.origin.dot(prefix));
            }
        }
        self.waiters.wanted.retain(|node, _| !durable.acks.contains_key(node));
        if durable.own_last > self.waiters.own_durable || !durable.acks.is_empty() {
            self.waiters.unsynced.push_back((self.commit, durable));
            self.on_synced(self.waiters.synced);
        }
        if self.config.sabotage == Sabotage::HastyAck {
            self.on_synced(self.commit);
        }
        Ok(())
    }

    /// Everything up to `commit` is on disk.
    pub(super) fn on_synced(&mut self, commit: u64) {
        self.waiters.synced = commit.max(self.waiters.synced);
        self.heads.synced(commit);
        self.floor.synced(commit);
        while self.waiters.unsynced.front().is_some_and(|(number, _)| *number <= commit) {
            let Some((_, durable)) = self.waiters.unsynced.pop_front() else { break };
            self.waiters.own_durable = self.waiters.own_durable.max(durable.own_last);
            for (node, upto) in durable.acks {
                self.send(node, &Message::Ack { upto });
            }
        }
        self.settle_acks();
    }

    fn settle_acks(&mut self) {
        if self.waiters.acks.is_empty() {
            return;
        }
        let settled: Vec<(Ticket, Mono, Vec<NodeId>)> = self
            .waiters
            .acks
            .iter()
            .filter_map(|(ticket, (dot, level, until))| {
                let holders = self.holders(*dot);
                let enough = match level {
                    AckLevel::Nodes(nodes) => holders.len() >= *nodes,
                    AckLevel::All => self.roster.members().all(|(node, _)| holders.contains(&node)),
                };
                enough.then_some((*ticket, *until, holders))
            })
            .collect();
        for (ticket, until, holders) in settled {
            self.waiters.acks.remove(&ticket);
            self.waiters.deadlines.remove(&(until, ticket));
            self.reply(ticket, Reply::Acknowledged(holders));
        }
    }

    /// The nodes known to have one of our writes on disk.
    fn holders(&self, dot: Dot) -> Vec<NodeId> {
        let own = (self.waiters.own_durable >= dot.seq).then_some(self.config.node);
        let peers = self.peers.iter().filter(|(_, peer)| peer.durable >= dot.seq).map(|(node, _)| *node);
        own.into_iter().chain(peers).collect()
    }

    /// Answers those whose bookmarks are covered now, and those who have waited long enough.
    pub(super) fn expire_waiters(&mut self, now: Now) -> Result<(), StoreError> {
        let waiting: Vec<Ticket> = self.waiters.covered.keys().copied().collect();
        for ticket in waiting {
            let Some((bookmark, until)) = self.waiters.covered.get(&ticket) else { continue };
            let missing = self.missing(bookmark, false)?;
            if missing.is_empty() {
                self.waiters.deadlines.remove(&(*until, ticket));
                self.waiters.covered.remove(&ticket);
                self.reply(ticket, Reply::Done);
            }
        }
        while let Some((at, ticket)) = self.waiters.deadlines.first().copied().filter(|(at, _)| *at <= now.mono) {
            self.waiters.deadlines.remove(&(at, ticket));
            let holders = self.waiters.acks.remove(&ticket).map(|(dot, _, _)| self.holders(dot));
            let bookmark = self.waiters.covered.remove(&ticket);
            let is_fenced = bookmark
                .and_then(|(bookmark, _)| bookmark.after())
                .is_some_and(|after| after.fence != fence(&self.roster));
            self.reply(
                ticket,
                match is_fenced {
                    true => Reply::Refused(Refusal::EvictedOrigin),
                    false => Reply::TimedOut(holders.unwrap_or_default()),
                },
            );
        }
        Ok(())
    }
}
