//! Requests that wait: for other nodes to hold a write on disk, or for this node to cover a bookmark.
//!
//! Only fsynced state counts, here and at peers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::dot::{Dot, NodeId};
use super::input::{AckLevel, Refusal, Reply, Ticket};
use super::limits::WAITERS_MAX;
use super::message::Message;
use super::store::{Store, StoreError};
use super::{Mono, Now, Replica};

/// Who waits for what.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiters {
    acks: BTreeMap<Ticket, (Dot, AckLevel)>,
    covered: BTreeMap<Ticket, Vec<Dot>>,
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

    fn is_full(&self) -> bool {
        self.deadlines.len() >= WAITERS_MAX
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
        } else if self.waiters.is_full() {
            self.reply(ticket, Reply::Refused(Refusal::Overloaded));
        } else {
            self.waiters.acks.insert(ticket, (dot, level));
            self.waiters.deadlines.insert((now.mono + Mono::from_ms(patience_ms), ticket));
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
        dots: Vec<Dot>,
        patience_ms: u64,
        now: Now,
    ) -> Result<(), StoreError> {
        if self.covers_all(&dots)? {
            self.reply(ticket, Reply::Done);
        } else if dots.iter().any(|dot| self.roster.is_evicted(dot.origin.node)) {
            self.reply(ticket, Reply::Refused(Refusal::EvictedOrigin));
        } else if self.waiters.is_full() {
            self.reply(ticket, Reply::Refused(Refusal::Overloaded));
        } else {
            self.waiters.covered.insert(ticket, dots);
            self.waiters.deadlines.insert((now.mono + Mono::from_ms(patience_ms), ticket));
        }
        Ok(())
    }

    fn covers_all(&self, dots: &[Dot]) -> Result<bool, StoreError> {
        for dot in dots {
            if !self.versions.contains(&self.store, *dot)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A new link: what it was asked on an earlier one may be lost.
    pub(super) fn ask_for_acks(&mut self, node: NodeId) {
        if let Some(dot) = self.waiters.acks.values().map(|(dot, _)| *dot).max() {
            self.send(node, &Message::AckPlease { dot });
        }
    }

    /// A peer wants to know when its writes up to `dot` are on disk here.
    pub(super) fn on_ack_please(&mut self, node: NodeId, dot: Dot) {
        if dot.origin.node != node {
            self.bad_peer(node, "asked about writes of another node");
            return;
        }
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
            if prefix >= wanted.seq {
                durable.acks.insert(*node, wanted.origin.dot(prefix));
            }
        }
        self.waiters.wanted.retain(|node, _| !durable.acks.contains_key(node));
        if durable.own_last > self.waiters.own_durable || !durable.acks.is_empty() {
            self.waiters.unsynced.push_back((self.commit, durable));
            self.on_synced(self.waiters.synced);
        }
        Ok(())
    }

    /// Everything up to `commit` is on disk.
    pub(super) fn on_synced(&mut self, commit: u64) {
        self.waiters.synced = commit.max(self.waiters.synced);
        self.heads.synced(commit);
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
        let settled: Vec<(Ticket, Vec<NodeId>)> = self
            .waiters
            .acks
            .iter()
            .filter_map(|(ticket, (dot, level))| {
                let holders = self.holders(*dot);
                let enough = match level {
                    AckLevel::Nodes(nodes) => holders.len() >= *nodes,
                    AckLevel::All => self.roster.members().all(|(node, _)| holders.contains(&node)),
                };
                enough.then_some((*ticket, holders))
            })
            .collect();
        for (ticket, holders) in settled {
            self.waiters.acks.remove(&ticket);
            self.waiters.deadlines.retain(|(_, waiting)| *waiting != ticket);
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
            let Some(dots) = self.waiters.covered.get(&ticket) else { continue };
            if self.covers_all(dots)? {
                self.waiters.covered.remove(&ticket);
                self.waiters.deadlines.retain(|(_, waiting)| *waiting != ticket);
                self.reply(ticket, Reply::Done);
            }
        }
        while let Some((at, ticket)) = self.waiters.deadlines.first().copied().filter(|(at, _)| *at <= now.mono) {
            self.waiters.deadlines.remove(&(at, ticket));
            let holders = self.waiters.acks.remove(&ticket).map(|(dot, _)| self.holders(dot));
            self.waiters.covered.remove(&ticket);
            self.reply(ticket, Reply::TimedOut(holders.unwrap_or_default()));
        }
        Ok(())
    }
}
