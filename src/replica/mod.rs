//! The pure replica: one node's whole protocol as a state machine.
//!
//! No IO, no clock, no ambient randomness: the driver hands in what happened and what time it is, in turns:
//!
//! 1. [`Replica::handle`] any number of inputs; changes are staged in the [`Store`];
//! 2. [`Replica::commit`] once: one journal write for all of them, then pushes, sessions and chunk requests;
//! 3. drain [`Replica::poll_output`], carrying each [`Output`] out;
//! 4. sleep until the next input or [`Replica::next_wake`].
//!
//! Because outputs are drained after the commit, nothing is acknowledged or gossiped before it is stored. A
//! [`StoreError`] is the only error: the driver then drops the replica and serves reads only.
//!
//! This module routes; each concept has its own.

#![forbid(unsafe_code)]

mod apply;
mod arrival;
mod beat;
mod blob;
mod bookmark;
mod clock;
mod digest;
mod dot;
mod entry;
mod expire;
mod feed;
mod fold;
mod input;
mod key;
pub mod limits;
mod memstore;
mod message;
mod peer;
mod plan;
mod push;
mod reissue;
mod repair;
mod roster;
mod rumor;
mod sabotage;
mod secrets;
mod status;
mod store;
mod sweep;
mod sync;
#[cfg(test)]
mod tests;
mod untold;
mod verify;
mod version;
mod wait;
mod watermark;
mod write;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

pub use arrival::Arrival;
pub use bookmark::{Bookmark, MalformedBookmark, NodeTag};
pub use clock::{Clock, Mono, Now, Timestamp};
pub use digest::{Digest, DigestSum, RecordHash};
pub use dot::{Dot, Incarnation, NodeId, Origin};
pub use entry::{Blob, BlobId, Content, Entry, MalformedRecord, Marker, Merge, Record, Value};
pub use feed::{Change, Changes, Position};
pub use input::{AckLevel, Alarm, Input, LinkId, Output, Refusal, Reply, Request, Ticket};
pub use key::{InvalidNamespaceId, Key, NamespaceId};
pub use memstore::{Edits, Image, MemStore, Tampered};
pub use message::*;
pub use reissue::{Fate, OwnWrites, Step, own_writes, sound_chunk};
pub use repair::Damage;
pub use roster::{NodeInfo, Roster};
pub use sabotage::Sabotage;
pub use secrets::{SecretBytes, SecretsHash, SharedSecret};
pub use status::{Load, PeerStatus, Status};
pub use store::{BlobAddress, Recovered, Snapshot, Store, StoreError, Written};
pub use verify::{Verification, VerifyAnswer, VerifyRequest, VerifyRow};
pub use version::{Seen, VersionHash, VersionVector};

use peer::{Acquaintances, Offsets, Peer, Skew};

/// When a local write is acknowledged, and what counts as held by this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// After an fsync. What is acknowledged survives a loss of power.
    #[default]
    Fsync,
    /// At once; an fsync follows within a fraction of a second. A loss of power may lose that fraction here.
    Interval,
    /// At once; the operating system writes when it likes. A killed process still loses nothing.
    Os,
}

/// Who a replica is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node.
    pub node: NodeId,
    /// See [`Durability`].
    pub durability: Durability,
    /// The nodes of which it was told when it joined; none if it founded its flock. Watermarks wait for them, too: a
    /// newcomer's roster is empty at first, and who is not on it is not nobody.
    pub seeds: Vec<NodeId>,
    /// When it was let in, by the clock of the node that wrote its first entry on the roster. Its own clock starts above
    /// that: whoever has heard of less does not vouch for what it writes.
    pub joined: Timestamp,
    /// Entropy for incarnations, jitter and choices of peers; different at every start.
    pub seed: [u8; 32],
    /// Secrets that the driver kept, see [`Output::KeepSecrets`].
    pub secrets: Vec<SharedSecret>,
    /// See [`limits::Bounds`].
    pub bounds: limits::Bounds,
    /// A fault put in on purpose, so that tests can show that it would be caught.
    pub sabotage: Sabotage,
}

impl Config {
    /// As production has it.
    pub fn new(node: NodeId, durability: Durability, seed: [u8; 32]) -> Self {
        let (bounds, sabotage) = (limits::Bounds::default(), Sabotage::None);
        let (seeds, joined) = (Vec::new(), Timestamp::default());
        Self { node, durability, seeds, joined, seed, secrets: Vec::new(), bounds, sabotage }
    }
}

/// One node's replica over its store.
pub struct Replica<S: Store> {
    config: Config,
    started: Hello,
    rng: ChaCha8Rng,
    store: S,
    /// Number of the last commit, and whether something is staged for the next one.
    commit: u64,
    staged: bool,
    /// Whether a local client waits for the next commit to be durable.
    wants_sync: bool,
    clock: Clock,
    floor: clock::Floor,
    skew: Skew,
    offsets: Offsets,
    life: Option<write::Life>,
    /// A newer process has this node's identity.
    superseded: bool,
    /// Others say that this node is evicted.
    turned_away: bool,
    /// Since it started, this process has had all that some member had.
    caught_up: bool,
    versions: fold::Versions,
    untold: untold::Untold,
    digest: Digest,
    roster: Roster,
    deleted: BTreeSet<NamespaceId>,
    peers: BTreeMap<NodeId, Peer>,
    /// The keys of `peers`, at hand for choosing among them.
    connected: Vec<NodeId>,
    acquaintances: Acquaintances,
    heads: watermark::Heads,
    pushes: push::Pushes,
    syncs: sync::Syncs<S::Snapshot>,
    blobs: blob::Blobs,
    waiters: wait::Waiters,
    secrets: secrets::Secrets,
    watch: feed::Watch,
    repairs: repair::Repairs,
    verifier: verify::Verifier,
    sweep: sweep::Sweep,
    expiry: expire::Expiry,
    beats: beat::Beats,
    counters: BTreeMap<&'static str, u64>,
    arrivals: Vec<Arrival>,
    outputs: VecDeque<Output>,
}

impl<S: Store> Replica<S> {
    /// A replica that goes on where its store stopped.
    pub fn open(mut config: Config, mut store: S, now: Now) -> Result<Self, StoreError> {
        let recovered = store.recover()?;
        let mut digest = Digest::default();
        store.for_each_hash(&mut |key, hash| digest.add(key, hash))?;
        let mut roster = Roster::default();
        let mut deleted = BTreeSet::new();
        for namespace in [NamespaceId::NODES, NamespaceId::EVICTED, NamespaceId::DELETED] {
            let mut after = None;
            loop {
                let rows = store.scan(namespace, after.as_ref(), limits::SYNC_SCAN_MAX)?;
                let Some((last, _)) = rows.last() else { break };
                after = Some(last.clone());
                for (key, entry) in &rows {
                    match namespace {
                        NamespaceId::DELETED => deleted.extend(sweep::deleted_id(key)),
                        _ => _ = roster.observe(key, entry),
                    }
                }
            }
        }
        roster.expect(&config.seeds);
        let blobs = blob::Blobs::recover(&mut store, &recovered)?;
        let mut rng = ChaCha8Rng::from_seed(config.seed);
        // A clock that was set back since must not make this process older than its own former ones, so its start is
        // a timestamp too. A copy of a directory is newer for the same reason.
        let mut clock = Clock::starting_above(recovered.clock_floor.max(config.joined));
        let started = Hello { boot: rng.next_u64(), started: clock.tick(now.wall_ms), heard: Timestamp::default() };
        let versions = fold::Versions::new(recovered.versions, recovered.folded, config.bounds.intervals_per_origin);
        let untold = untold::Untold::recover(&store, &versions)?;
        let mut replica = Self {
            started,
            rng,
            store,
            commit: 0,
            staged: true,
            wants_sync: false,
            clock,
            floor: clock::Floor::found(recovered.clock_floor),
            skew: Skew::default(),
            offsets: Offsets::default(),
            life: None,
            superseded: false,
            turned_away: false,
            caught_up: false,
            untold,
            versions,
            digest,
            roster,
            sweep: sweep::Sweep::of(&deleted),
            expiry: expire::Expiry::default(),
            secrets: secrets::Secrets::recover(std::mem::take(&mut config.secrets), &deleted),
            deleted,
            peers: BTreeMap::new(),
            connected: Vec::new(),
            acquaintances: Acquaintances::default(),
            heads: watermark::Heads::default(),
            pushes: push::Pushes::default(),
            syncs: sync::Syncs::default(),
            blobs,
            waiters: wait::Waiters::default(),
            watch: feed::Watch::default(),
            repairs: repair::Repairs::default(),
            verifier: verify::Verifier::default(),
            beats: beat::Beats::default(),
            counters: BTreeMap::new(),
            arrivals: Vec::new(),
            outputs: VecDeque::new(),
            config,
        };
        replica.beats.start(now.mono);
        replica.commit(now)?;
        Ok(replica)
    }

    /// Takes in what has happened. Bounded work; what a peer sends never makes it fail.
    pub fn handle(&mut self, input: Input, now: Now) -> Result<(), StoreError> {
        match input {
            Input::Request { ticket, request } => self.on_request(ticket, request, now),
            Input::Connected { node, link } => self.on_connected(node, link, now),
            Input::Disconnected { node, link } => {
                self.on_disconnected(node, link);
                Ok(())
            }
            Input::TurnedAway { node } => {
                self.on_turned_away(node);
                Ok(())
            }
            Input::Received { node, link, message } => self.on_message(node, link, message, now),
            Input::Sent { node, link, class, bytes } => {
                if let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.link == link) {
                    peer.sent(class, bytes);
                }
                Ok(())
            }
            Input::Synced { commit } => {
                self.on_synced(commit);
                Ok(())
            }
            Input::Wake => Ok(()),
        }
    }

    /// Ends a turn: commits what was staged, then does what time and room allow. Nothing that was output earlier in
    /// the turn may be carried out if this fails.
    pub fn commit(&mut self, now: Now) -> Result<(), StoreError> {
        self.sweep_deleted(now)?;
        self.drop_expired(now)?;
        self.complete_sessions(now.mono)?;
        if self.staged {
            self.heads.recheck(self.versions.changed().map(|origin| origin.node));
            self.versions.stage(&mut self.store);
            let wall_ms = self.skew.corrected(now.wall_ms);
            self.store.set_clock(self.floor.stage(self.clock.promise(0), wall_ms, self.commit + 1));
        }
        self.cover_heads(self.commit + u64::from(self.staged), now)?;
        // What a commit covers that was durable before is durable now: an idle flock commits nothing.
        let durable = match self.config.sabotage {
            Sabotage::HastyWatermark => u64::MAX - 1,
            _ => self.waiters.synced(),
        };
        self.heads.synced(durable);
        if self.staged {
            let sync = self.wants_sync();
            self.commit = self.store.commit(sync)?;
            (self.staged, self.wants_sync) = (false, false);
            if sync || self.config.durability == Durability::Os {
                self.on_synced(self.commit);
            }
        }
        self.note_commit()?;
        self.tell_changes()?;
        self.push_fresh(now)?;
        self.serve_sessions(now)?;
        self.on_time(now)
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to come back with [`Input::Wake`] if nothing else happens.
    pub fn next_wake(&self) -> Mono {
        let soon = self.syncs.can_go_on(&self.peers, self.config.bounds.sync_window).then_some(Mono(0));
        let mending = [self.repairs.next_due(), self.verifier.next_due()];
        [soon, self.sweep.next_due(), self.syncs.next_due(), self.blobs.next_due(), self.waiters.next_due()]
            .into_iter()
            .chain(mending)
            .flatten()
            .fold(self.beats.next_due().min(self.expiry.next_due()), Mono::min)
    }

    /// Number of the last commit; what was committed after the last [`Input::Synced`] is not known to be durable.
    pub fn last_commit(&self) -> u64 {
        self.commit
    }

    /// The last commit known to be durable.
    pub fn synced_commit(&self) -> u64 {
        self.waiters.synced()
    }

    /// Whether the next commit is to be durable at once.
    pub fn wants_sync(&self) -> bool {
        self.wants_sync && self.config.durability == Durability::Fsync
    }

    /// Whether a peer waits to hear that something is durable here.
    pub fn wants_sync_soon(&self) -> bool {
        self.waiters.unsynced_acks()
    }

    /// The members and what they say of themselves.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The store, for faults.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// Gives the store back, as a process does that ends.
    pub fn into_store(self) -> S {
        self.store
    }

    /// Hash over all that was seen.
    pub fn version_hash(&self) -> VersionHash {
        self.versions.hash()
    }

    /// What was seen, without folded origins.
    pub fn versions(&self) -> &VersionVector {
        self.versions.active()
    }

    /// Over all that is held.
    pub fn digest(&self) -> DigestSum {
        self.digest.sum()
    }

    fn on_connected(&mut self, node: NodeId, link: LinkId, now: Now) -> Result<(), StoreError> {
        if self.roster.is_evicted(node) {
            self.outputs.push_back(Output::TurnAway { link, node });
            return Ok(());
        }
        if node == self.config.node {
            self.outputs.push_back(Output::Disconnect { link, node, reason: "this node's own identity" });
            return Ok(());
        }
        self.forget_link(node);
        self.peers.insert(node, Peer::new(link));
        if let Err(place) = self.connected.binary_search(&node) {
            self.connected.insert(place, node);
        }
        let stamped = self.acquaintances.get(node).map(|known| known.heard).unwrap_or_default();
        let heard = self.heads.get(node).map_or(stamped, |head| stamped.max(head.stamp));
        self.send(node, &Message::Hello(Hello { heard, ..self.started.clone() }));
        self.first_beat(node, now)
    }

    fn on_disconnected(&mut self, node: NodeId, link: LinkId) {
        if self.peers.get(&node).is_some_and(|peer| peer.link == link) {
            self.forget_link(node);
        }
    }

    fn forget_link(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.remove(&node) {
            self.offsets.replace(peer.offset_ms, None);
            self.connected.retain(|other| *other != node);
            self.syncs.disconnected(node);
            self.blobs.disconnected(node);
            self.repairs_disconnected(node);
            self.verification_disconnected(node);
        }
    }

    fn on_message(&mut self, node: NodeId, link: LinkId, message: Message, now: Now) -> Result<(), StoreError> {
        if self.peers.get(&node).is_none_or(|peer| peer.link != link) {
            return Ok(());
        }
        match message {
            Message::Hello(hello) => self.on_hello(node, hello, now),
            Message::Beat(beat) => self.on_beat(node, beat, now),
            Message::Echo(echo) => self.on_echo(node, echo, now),
            Message::Records(records) => self.on_records(node, records, now)?,
            Message::AckPlease { dot } => self.on_ack_please(node, dot),
            Message::Ack { upto } => self.on_ack(node, upto),
            Message::Lagging => self.syncs.want(node, now.mono),
            Message::SyncRequest(request) => self.syncs.asked(node, request),
            Message::SyncStart { session, versions, full } => self.on_sync_start(node, session, versions, full, now),
            Message::SyncChunk(chunk) => self.on_sync_chunk(node, chunk, now)?,
            Message::SyncAck { session, applied } => self.syncs.acked(node, session, applied, now.mono),
            Message::SyncDone { session, chunks } => self.on_sync_done(node, session, chunks),
            Message::SyncRefused { session, reason } => self.on_sync_refused(node, session, reason, now)?,
            Message::ChunkRequest(request) => self.on_chunk_request(node, request)?,
            Message::Chunk { request, chunk } => self.on_chunk(node, request, chunk, now)?,
            Message::Superseded => self.on_superseded(),
            Message::Secrets(secrets) => self.on_secrets(secrets, now),
            Message::RecordRequest { key } => self.on_record_request(node, key)?,
            Message::Record { key, record } => self.on_record(node, key, record, now)?,
            Message::VerifyRequest(request) => self.on_verify_request(node, request)?,
            Message::VerifyAnswer(answer) => self.on_verify_answer(node, answer, now)?,
        }
        Ok(())
    }

    fn on_hello(&mut self, node: NodeId, hello: Hello, now: Now) {
        if self.acquaintances.entry(node).is_some_and(|known| known.greet(&hello)) {
            self.count("superseded_peers");
            self.send(node, &Message::Superseded);
        }
        self.clock.observe(hello.heard, now.wall_ms);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.hello = Some(hello);
        }
        self.ask_for_acks(node);
    }

    fn on_superseded(&mut self) {
        if !self.superseded {
            self.superseded = true;
            self.alarm(Alarm::Superseded);
        }
    }

    /// This node writes no more. What it holds and has told nobody of stays on its disk.
    fn on_turned_away(&mut self, node: NodeId) {
        let is_news = !self.roster.is_evicted(node) && !self.is_evicted();
        if is_news && self.config.sabotage != Sabotage::IgnoreEviction {
            self.turned_away = true;
            self.alarm(Alarm::Evicted);
        }
    }

    /// Whether this node is evicted, as far as it knows.
    fn is_evicted(&self) -> bool {
        self.turned_away || self.roster.is_evicted(self.config.node)
    }

    /// Everything that is due.
    fn on_time(&mut self, now: Now) -> Result<(), StoreError> {
        self.beat_if_due(now)?;
        self.sync_if_due(now)?;
        self.request_chunks(now);
        self.repairs_on_time(now.mono)?;
        self.verification_on_time(now.mono);
        self.expire_waiters(now)
    }

    fn send(&mut self, node: NodeId, message: &Message) {
        self.send_encoded(node, message.class(), message.encode());
    }

    fn send_encoded(&mut self, node: NodeId, class: Class, bytes: bytes::Bytes) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.sending(class, bytes.len());
        self.outputs.push_back(Output::Send { link: peer.link, node, class, bytes });
        if Class::ALL.iter().map(|class| peer.in_flight(*class)).sum::<usize>() > limits::IN_FLIGHT_MAX {
            self.bad_peer(node, "asks for much and reads nothing");
        }
    }

    fn drop_peer(&mut self, node: NodeId, reason: &'static str) {
        if let Some(peer) = self.peers.get(&node) {
            self.outputs.push_back(Output::Disconnect { link: peer.link, node, reason });
            self.forget_link(node);
        }
    }

    /// A peer sent what no correct peer sends.
    fn bad_peer(&mut self, node: NodeId, what: &'static str) {
        self.count("bad_messages");
        self.alarm(Alarm::BadPeer { node, what });
        self.drop_peer(node, what);
    }

    fn reply(&mut self, ticket: Ticket, reply: Reply) {
        self.outputs.push_back(Output::Reply { ticket, reply });
    }

    fn alarm(&mut self, alarm: Alarm) {
        self.outputs.push_back(Output::Alarm(alarm));
    }

    fn count(&mut self, counter: &'static str) {
        self.count_many(counter, 1);
    }

    fn count_many(&mut self, counter: &'static str, by: u64) {
        *self.counters.entry(counter).or_default() += by;
    }

    /// A moment about `period` from now: a quarter sooner or later, so that nodes don't fall into step.
    fn jittered(&mut self, now: Mono, period: Mono) -> Mono {
        let spread = (period.0 / 2).max(1);
        now + Mono(period.0 - spread / 2 + self.rng.next_u64() % spread)
    }
}
