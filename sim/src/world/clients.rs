//! Clients: what they ask of nodes and what they do with the answers.

use bytes::Bytes;
use starling::replica::limits::{CHUNK_LEN, INLINE_LEN_MAX};
use starling::replica::{
    AckLevel, Blob, BlobId, Bookmark, Content, Dot, Input, Key, MemStore, NamespaceId, NodeId, NodeInfo, Refusal,
    Reply, Request, Roster, Ticket, Timestamp, Value,
};

use super::World;
use super::events::Event;
use super::travellers::Errand;
use crate::clocks::WallClock;
use crate::workload::{self, Act, Op};

/// How long clients wait for acknowledgements and bookmarks.
const PATIENCE_MS: u64 = 10_000;
/// Between the last chunk of a large value and the write that refers to it.
const UPLOAD_US: u64 = 2_000;
/// Largest difference of clocks with which a node may join: as production has it.
const JOIN_CLOCK_DIFFERENCE_MS_MAX: u64 = 60_000;
/// How often a node that will leave looks whether others have what it wrote.
const DRAIN_POLL_US: u64 = 500_000;
/// When an operator who was refused tries again.
pub(super) const EVICT_AGAIN_US: u64 = 1_000_000;
/// How long a node that has left stays, so that others hear of it.
const FAREWELL_US: u64 = 500_000;

/// Who waits for a reply, and for what.
#[derive(Clone, Debug)]
pub(super) enum Client {
    /// Nobody who cares.
    Ignored,
    /// A writer.
    Write { key: Key, acks: Option<usize>, read_at: Option<usize> },
    /// A writer whose write is accepted.
    Acks { key: Key, dot: Dot, nodes: usize },
    /// A reader with a bookmark.
    Read { key: Key, dot: Dot, asked_us: u64 },
    /// An operator who lets a node in.
    Admit { node: NodeId, place: usize },
    /// A node that will leave once others have what it wrote, or when its patience ends.
    Drain { until_us: u64 },
    /// A node that leaves.
    Leave,
    /// One that has left, and waits for someone to have heard.
    Left,
    /// An operator who evicts a node.
    Evict { node: NodeId },
    /// A node that issues a write of a former one again.
    Reissue { former: usize, key: Key, boot: u64 },
    /// One that wanders from node to node.
    Traveller { number: usize, errand: Errand },
    /// One that must be served now that all is well again.
    Must { what: &'static str },
    /// One whose write must go through although a liar has written before.
    Rewrites { key: Key },
}

/// The namespace of a number.
pub(crate) fn namespace_id(number: u64) -> NamespaceId {
    let mut id = [0x51; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    NamespaceId(id)
}

pub(super) fn key_of(namespace: u64, key: u64) -> Key {
    Key::new(namespace_id(namespace), format!("key/{key:06}").as_bytes()).expect("a short key")
}

pub(super) fn inline(bytes: Vec<u8>) -> Content {
    Content { expire_ms: 0, metadata: Bytes::new(), value: Value::Inline(bytes.into()) }
}

impl World {
    pub(super) fn next_op(&mut self) {
        let number = self.next_op;
        let Some(op) = self.ops.get(number).cloned() else { return };
        self.next_op += 1;
        if let Some(next) = self.ops.get(self.next_op) {
            self.schedule(next.at_us, Event::NextOp);
        }
        let host = op.node % self.hosts.len();
        if !self.hosts[host].is_up() {
            self.measure.writes.unserved += 1;
            return;
        }
        self.act(host, number as u64, &op);
    }

    fn act(&mut self, host: usize, number: u64, op: &Op) {
        match &op.act {
            Act::DeleteNamespace(namespace) => {
                let key = Key::new(NamespaceId::DELETED, &namespace_id(*namespace).0).expect("sixteen bytes are a key");
                let request = Request::Write { key, content: inline(vec![0]) };
                self.ask(host, request, Client::Ignored);
            }
            Act::Write { key, namespace, content, acks, read_at } => {
                let key = key_of(*namespace, *key);
                let client = Client::Write { key: key.clone(), acks: *acks, read_at: *read_at };
                let (len, expire_ms) = match content {
                    workload::Content::Tombstone => {
                        let content = Content { value: Value::Tombstone, ..inline(Vec::new()) };
                        return self.ask(host, Request::Write { key, content }, client);
                    }
                    workload::Content::Bytes(len) => (*len, 0),
                    workload::Content::Expiring(len, ttl_ms) => {
                        (*len, self.hosts[host].now(self.now_us).wall_ms + ttl_ms)
                    }
                };
                // Some values have metadata.
                let metadata = match number % 4 {
                    0 => Bytes::copy_from_slice(&number.to_be_bytes()),
                    _ => Bytes::new(),
                };
                if len <= INLINE_LEN_MAX as u64 {
                    let mut bytes = vec![number as u8; (len as usize).max(8)];
                    bytes[..8].copy_from_slice(&number.to_be_bytes());
                    let content = Content { expire_ms, metadata, ..inline(bytes) };
                    return self.ask(host, Request::Write { key, content }, client);
                }
                let content = Content { expire_ms, metadata, ..self.upload(host, number, &key, len) };
                let request = Box::new(Request::Write { key, content });
                self.schedule(self.now_us + UPLOAD_US, Event::Ask { host, request, client: Box::new(client) });
            }
        }
    }

    /// Stores the chunks of a large value; the content that refers to them. Chunks are stand-ins of sixteen bytes that
    /// begin with the length of what they stand for, which is what they weigh on the wire.
    fn upload(&mut self, host: usize, number: u64, key: &Key, len: u64) -> Content {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id[8..].copy_from_slice(&self.ticket.to_be_bytes());
        let id = BlobId(id);
        let mut chunks = Vec::new();
        for index in 0..len.div_ceil(CHUNK_LEN as u64) as u32 {
            let rest = len - u64::from(index) * CHUNK_LEN as u64;
            let stood_for = (rest.min(CHUNK_LEN as u64) as u32).saturating_sub(16);
            let mut chunk = Vec::with_capacity(16);
            chunk.extend_from_slice(&stood_for.to_le_bytes());
            chunk.extend_from_slice(&number.to_be_bytes());
            chunk.extend_from_slice(&index.to_be_bytes());
            chunks.push(*blake3::hash(&chunk).as_bytes());
            let request = Request::PutChunk { key: key.clone(), id, index, chunk: chunk.into() };
            self.ask(host, request, Client::Ignored);
        }
        Content { value: Value::Blob(Blob { id, len, chunks }), ..inline(Vec::new()) }
    }

    pub(super) fn ask(&mut self, host: usize, request: Request, client: Client) {
        if !self.hosts[host].is_up() {
            return;
        }
        self.ticket += 1;
        let ticket = self.ticket;
        self.clients.insert(ticket, client);
        self.arrive(host, Input::Request { ticket, request });
    }

    fn ask_later(&mut self, at_us: u64, host: usize, request: Request, client: Client) {
        self.schedule(at_us, Event::Ask { host, request: Box::new(request), client: Box::new(client) });
    }

    pub(super) fn replied(&mut self, host: usize, ticket: Ticket, reply: Reply) {
        let Some(client) = self.clients.remove(&ticket) else { return };
        let seq = if let Reply::Written { dot, .. } = &reply { dot.seq } else { 0 };
        self.trace.note(self.now_us, b'R', [host as u64, ticket], &seq.to_be_bytes());
        match (client, reply) {
            (Client::Write { key, acks, read_at }, Reply::Written { dot, marker, stamp }) => {
                self.judge.accepted(host, &key, dot, marker, &self.hosts, self.now_us);
                self.measure.accepted(host, &key, marker, &self.hosts, self.now_us);
                self.watch.accepted(host, &key, dot, marker, self.measure.writes.accepted, self.now_us);
                if let Some(nodes) = acks {
                    let level = if nodes == 0 { AckLevel::All } else { AckLevel::Nodes(nodes) };
                    let request = Request::AwaitAcks { dot, level, patience_ms: PATIENCE_MS };
                    self.ask(host, request, Client::Acks { key: key.clone(), dot, nodes });
                }
                if let Some(reader) = read_at {
                    let reader = reader % self.hosts.len();
                    let request = await_covered(dot, stamp, PATIENCE_MS);
                    let asked_us = self.now_us + self.one_way_us(host, reader);
                    self.ask_later(asked_us, reader, request, Client::Read { key, dot, asked_us });
                }
            }
            (Client::Write { .. }, Reply::Refused(refusal)) => {
                self.measure.writes.refused += 1;
                if refusal == Refusal::Frozen {
                    self.judge.found("refusals", self.now_us, || format!("host {host} calls a key frozen"));
                }
            }
            (Client::Acks { key, dot, nodes: wanted }, reply @ (Reply::Acknowledged(_) | Reply::TimedOut(_))) => {
                let is_enough = matches!(reply, Reply::Acknowledged(_));
                let (Reply::Acknowledged(nodes) | Reply::TimedOut(nodes)) = reply else { return };
                if is_enough && nodes.len() < wanted {
                    let why = format!("host {host}: {dot} is acknowledged by {} nodes of {wanted}", nodes.len());
                    self.judge.found("acknowledged", self.now_us, || why);
                }
                self.judge.acknowledged(host, &key, dot, &nodes, &self.hosts, self.now_us);
                self.watch.acknowledged(host, dot, &nodes, self.now_us);
            }
            (Client::Read { key, dot, asked_us }, Reply::Done) => {
                self.judge.read(host, &key, dot, &self.hosts, self.now_us);
                self.measure.bookmark_waits_us.push(self.now_us - asked_us);
            }
            (Client::Drain { until_us }, Reply::Status(status)) => {
                let has_spread = status.peers.iter().any(|peer| peer.former_agree == Some(true));
                match status.life.map(|life| life.dot(status.last)) {
                    _ if !has_spread && self.now_us < until_us => {
                        self.ask_later(self.now_us + DRAIN_POLL_US, host, Request::Status, Client::Drain { until_us });
                    }
                    Some(dot) if has_spread => {
                        let request = Request::AwaitAcks { dot, level: AckLevel::Nodes(2), patience_ms: PATIENCE_MS };
                        self.ask(host, request, Client::Drain { until_us });
                    }
                    _ => self.leave_with(host, has_spread),
                }
            }
            (Client::Drain { .. }, reply) => self.leave_with(host, matches!(reply, Reply::Acknowledged(_))),
            (Client::Leave, Reply::Written { dot, .. }) => {
                let request = Request::AwaitAcks { dot, level: AckLevel::Nodes(2), patience_ms: PATIENCE_MS };
                self.ask(host, request, Client::Left);
            }
            (Client::Admit { node, place }, Reply::Written { stamp, .. }) => self.admitted(host, node, place, stamp),
            (Client::Admit { node, .. }, _) => {
                self.awaited.remove(&node);
                self.not_let_in(node);
            }
            (Client::Reissue { former, key, boot }, reply) => self.answered_again(host, former, key, boot, &reply),
            (Client::Evict { node }, Reply::Refused(_)) => {
                // A node whose clock is off refuses; the operator tries again.
                self.to_evict.insert(node);
                self.schedule(self.now_us + EVICT_AGAIN_US, Event::Evict);
            }
            (Client::Left, reply) => {
                self.hosts[host].has_drained = matches!(reply, Reply::Acknowledged(_));
                self.schedule(self.now_us + FAREWELL_US, Event::Stop { host });
            }
            (Client::Traveller { number, errand }, reply) => self.travelled(host, ticket, number, errand, reply),
            (Client::Rewrites { key }, Reply::Written { dot, .. }) => _ = self.rewritten.insert(key, dot),
            (Client::Rewrites { .. }, Reply::Refused(Refusal::NamespaceDeleted)) => {}
            (Client::Rewrites { key }, reply) => {
                self.judge.found("frozen", self.now_us, || format!("host {host} does not write {key:?}: {reply:?}"));
            }
            (Client::Must { what }, reply @ (Reply::Refused(_) | Reply::TimedOut(_))) => {
                let why = format!("host {host}, all faults over: no {what}: {reply:?}");
                self.judge.found("progress", self.now_us, || why);
            }
            (Client::Must { .. }, Reply::Written { dot, stamp, .. }) => {
                let request =
                    Request::AwaitAcks { dot, level: AckLevel::All, patience_ms: 3 * PATIENCE_MS * self.hardship() };
                self.ask(host, request, Client::Must { what: "acknowledgement by all in time" });
                // Made-up lives that look like this one in a bookmark keep it waiting, see docs/SECURITY.md.
                let readers = if self.judge.is_misled() { 0 } else { self.hosts.len() };
                for reader in 0..readers {
                    let request = await_covered(dot, stamp, 3 * PATIENCE_MS * self.hardship());
                    self.ask(reader, request, Client::Must { what: "write of another node in time" });
                }
            }
            _ => {}
        }
    }

    /// A node that is new to its flock writes its own entry of the roster.
    pub(super) fn introduce(&mut self, host: usize) {
        let node = self.hosts[host].node;
        let Some(replica) = &self.hosts[host].replica else { return };
        if replica.roster().info(node).is_none() && !replica.roster().is_evicted(node) {
            let request = roster_entry(node, &self.places[self.hosts[host].place].iata);
            self.ask(host, request, Client::Ignored);
        }
    }

    /// An operator has a new node let in by one that runs, which writes its entry of the roster first. Nobody lets in
    /// one with quite another clock.
    pub(super) fn admit(&mut self, node: NodeId, place: usize) {
        let right_ms = WallClock::default().read_ms(self.now_us);
        let may_let_in = |host: &usize| {
            let this = &self.hosts[*host];
            this.is_up()
                && this.liar.is_none()
                && this.now(self.now_us).wall_ms.abs_diff(right_ms) <= JOIN_CLOCK_DIFFERENCE_MS_MAX
        };
        let issuers: Vec<usize> = (0..self.hosts.len()).filter(may_let_in).collect();
        if issuers.is_empty() {
            return;
        }
        let issuer = issuers[self.rng_below(issuers.len() as u64) as usize];
        self.awaited.insert(node);
        self.schedule(self.now_us + PATIENCE_MS * 1_000, Event::Awaited { node });
        let request = roster_entry(node, &self.places[place].iata);
        self.ask(issuer, request, Client::Admit { node, place });
    }

    fn admitted(&mut self, issuer: usize, node: NodeId, place: usize, joined: Timestamp) {
        if !self.awaited.remove(&node) {
            return;
        }
        let own = self.hosts[issuer].node;
        let others = self.hosts[issuer].replica.iter().flat_map(|issuer| issuer.roster().others(own));
        let seeds = others.chain([own]).collect();
        let host = self.add_host(node, place, MemStore::default());
        (self.hosts[host].seeds, self.hosts[host].joined) = (seeds, joined);
        self.returned(host);
        self.start(host);
    }

    /// Whether somebody was asked to let a node in, and has not answered.
    pub(super) fn awaits(&self, node: NodeId) -> bool {
        self.awaited.contains(&node)
    }

    /// It may stand on the roster for all that anyone knows: whoever wanted it there takes it off.
    pub(super) fn give_up_on(&mut self, node: NodeId) {
        if self.awaited.remove(&node) {
            self.to_evict.insert(node);
            self.evict_the_gone();
            self.not_let_in(node);
        }
    }

    /// The node asks to leave.
    pub(super) fn leave(&mut self, host: usize) {
        let until_us = self.now_us + PATIENCE_MS * 1_000;
        self.ask(host, Request::Status, Client::Drain { until_us });
    }

    fn leave_with(&mut self, host: usize, has_spread: bool) {
        if !has_spread {
            // It leaves all the same, with what it alone has.
            self.judge.disturbed(host, &self.hosts, self.now_us);
        }
        self.ask(host, Request::Leave, Client::Leave);
    }

    /// An operator evicts, at some node that runs, those that will never come back.
    pub(super) fn evict_the_gone(&mut self) {
        let operator = (0..self.hosts.len()).find(|host| self.can_operate(*host));
        let Some(operator) = operator else { return };
        for node in std::mem::take(&mut self.to_evict) {
            let key = Roster::key(NamespaceId::EVICTED, node);
            self.ask(operator, Request::Write { key, content: inline(vec![0]) }, Client::Evict { node });
        }
    }

    /// How many times longer all takes than over good links: where every fifth packet is lost, an exchange takes a second.
    pub(super) fn hardship(&self) -> u64 {
        if self.scenario.links.loss > 0.1 { 3 } else { 1 }
    }

    /// What must go through once all is well: a write at these hosts, that all acknowledge and can read.
    pub(super) fn demand_progress(&mut self, hosts: &[usize]) {
        for host in hosts {
            let key = Key::new(namespace_id(u64::MAX), &(*host as u64).to_be_bytes()).expect("eight bytes are a key");
            let request = Request::Write { key, content: inline(vec![1]) };
            self.ask(*host, request, Client::Must { what: "write accepted" });
        }
    }

    /// Whether someone who must be served still waits.
    pub(super) fn progress_is_owed(&self) -> bool {
        self.clients.values().any(|client| matches!(client, Client::Must { .. } | Client::Rewrites { .. }))
    }
}

fn await_covered(dot: Dot, stamp: Timestamp, patience_ms: u64) -> Request {
    let mut bookmark = Bookmark::default();
    bookmark.note(dot, stamp);
    Request::AwaitCovered { bookmark, patience_ms }
}

/// The write by which a node puts itself on the roster.
pub(super) fn roster_entry(node: NodeId, pop: &str) -> Request {
    let info = NodeInfo { name: format!("{pop}-{node}"), pop: pop.to_owned(), protocol: 1, ..NodeInfo::default() };
    Request::Write { key: Roster::key(NamespaceId::NODES, node), content: info.to_content() }
}
