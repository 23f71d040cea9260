//! A small world of replicas under virtual time: a network that delays, drops, repeats and reorders, disks that
//! forget, clocks that lie, directories that are put back or cloned. Everything follows from the seed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};

use crate::replica::*;

/// One process: a replica, its disk and its clock. Two processes may claim one node.
pub(super) struct Process {
    pub(super) node: NodeId,
    pub(super) replica: Option<Replica<MemStore>>,
    /// What the directory holds while no process runs.
    disk: MemStore,
    pub(super) skew_ms: i64,
    wake: Mono,
    /// A copy of the directory, taken at some time.
    backup: Option<Image>,
    pub(super) links: BTreeMap<NodeId, (LinkId, usize)>,
    writes: u64,
    /// Kept beside the directory: no crash takes them away, no old copy brings them back.
    pub(super) secrets: Vec<SharedSecret>,
}

#[derive(Clone)]
enum Event {
    Deliver { from: usize, to: usize, link: LinkId, bytes: Bytes },
    DiskSync { process: usize, commit: u64 },
    Wake { process: usize },
}

/// How rough the world is.
#[derive(Clone, Copy)]
pub(super) struct Roughness {
    pub(super) nodes: usize,
    pub(super) drop: f64,
    pub(super) repeat: f64,
    pub(super) faults: bool,
}

pub(super) struct World {
    pub(super) rng: ChaCha8Rng,
    pub(super) now: Mono,
    pub(super) processes: Vec<Process>,
    events: BTreeMap<(Mono, u64), Event>,
    event_no: u64,
    link_no: LinkId,
    ticket: Ticket,
    cuts: BTreeSet<(usize, usize)>,
    streams: BTreeMap<(usize, LinkId, Class), Mono>,
    pub(super) roughness: Roughness,
    /// How long a message takes, microseconds.
    pub(super) latency_us: std::ops::Range<u64>,
    /// Processes whose transport takes nothing for them: what is sent to them waits.
    pub(super) stuck: BTreeSet<usize>,
    held_back: Vec<(usize, Output)>,
    sabotage: Sabotage,
    /// Whether directories are put back and cloned.
    pub(super) copies: bool,
    /// Nodes whose directory was put back or cloned: what their processes say of former lives may be too little.
    pub(super) forgetful: BTreeSet<NodeId>,
    /// Every write ever made, by dot.
    pub(super) written: BTreeMap<Dot, (Key, Marker)>,
    /// Dots that were used twice.
    pub(super) reused: Vec<Dot>,
    pub(super) alarms: BTreeMap<String, u64>,
    requests: BTreeMap<Ticket, (usize, Key)>,
    /// Changes told, by process.
    pub(super) told: Vec<(usize, Changes)>,
    pub(super) replies: BTreeMap<Ticket, Reply>,
}

const EPOCH_MS: u64 = 1_700_000_000_000;

impl World {
    pub(super) fn new(seed: u64, roughness: Roughness, sabotage: Sabotage) -> Self {
        let mut world = Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: Mono::from_ms(1_000),
            processes: Vec::new(),
            events: BTreeMap::new(),
            event_no: 0,
            link_no: 0,
            ticket: 0,
            cuts: BTreeSet::new(),
            streams: BTreeMap::new(),
            roughness,
            latency_us: 1_000..40_000,
            stuck: BTreeSet::new(),
            held_back: Vec::new(),
            sabotage,
            copies: true,
            forgetful: BTreeSet::new(),
            written: BTreeMap::new(),
            reused: Vec::new(),
            alarms: BTreeMap::new(),
            requests: BTreeMap::new(),
            told: Vec::new(),
            replies: BTreeMap::new(),
        };
        for node in 1..=roughness.nodes as u64 {
            let process = world.add(NodeId(node), MemStore::default());
            let info = NodeInfo { name: format!("n{node}"), ..NodeInfo::default() };
            world.write(process, Roster::key(NamespaceId::NODES, NodeId(node)), info.to_content());
        }
        world.connect_all();
        world
    }

    fn add(&mut self, node: NodeId, disk: MemStore) -> usize {
        self.processes.push(Process {
            node,
            replica: None,
            disk,
            skew_ms: 0,
            wake: Mono(0),
            backup: None,
            links: BTreeMap::new(),
            writes: 0,
            secrets: Vec::new(),
        });
        let process = self.processes.len() - 1;
        self.start(process);
        process
    }

    pub(super) fn at(&self, process: usize) -> Now {
        let skew_ms = self.processes[process].skew_ms;
        Now { mono: self.now, wall_ms: (EPOCH_MS + self.now.0 / 1000).saturating_add_signed(skew_ms) }
    }

    fn start(&mut self, process: usize) {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let now = self.at(process);
        let this = &mut self.processes[process];
        let (secrets, sabotage) = (this.secrets.clone(), self.sabotage);
        let config = Config { secrets, sabotage, ..Config::new(this.node, Durability::Fsync, seed) };
        this.replica = Some(Replica::open(config, this.disk.clone(), now).expect("memory does not fail"));
        self.turn(process, Input::Wake);
    }

    pub(super) fn is_up(&self, process: usize) -> bool {
        self.processes[process].replica.is_some()
    }

    /// Power is cut; some of what was not synced may have reached the disk.
    pub(super) fn crash(&mut self, process: usize) {
        let Some(replica) = self.processes[process].replica.take() else { return };
        let kept = self.rng.random_range(0..3);
        self.processes[process].disk = replica.store().crashed(kept);
        self.unlink(process);
    }

    pub(super) fn restart(&mut self, process: usize) {
        if !self.is_up(process) {
            self.start(process);
        }
    }

    fn unlink(&mut self, process: usize) {
        let links: Vec<_> = self.processes[process].links.values().copied().collect();
        for (link, other) in links {
            self.break_link(process, other, link);
        }
    }

    fn break_link(&mut self, a: usize, b: usize, link: LinkId) {
        for (this, that) in [(a, b), (b, a)] {
            let node = self.processes[that].node;
            if self.processes[this].links.get(&node).is_some_and(|(known, _)| *known == link) {
                self.processes[this].links.remove(&node);
                if self.is_up(this) {
                    self.turn(this, Input::Disconnected { node, link });
                }
            }
        }
    }

    /// Connects every pair that can be; as in production, the newest link to a node replaces an older one.
    pub(super) fn connect_all(&mut self) {
        for a in 0..self.processes.len() {
            for b in a + 1..self.processes.len() {
                let (node_a, node_b) = (self.processes[a].node, self.processes[b].node);
                let is_linked = self.processes[a].links.get(&node_b).is_some_and(|(_, other)| *other == b)
                    && self.processes[b].links.get(&node_a).is_some_and(|(_, other)| *other == a);
                let is_cut = self.cuts.contains(&(a, b)) || self.cuts.contains(&(b, a));
                if node_a != node_b && !is_linked && !is_cut && self.is_up(a) && self.is_up(b) {
                    self.connect(a, b);
                }
            }
        }
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        let (node_a, node_b) = (self.processes[a].node, self.processes[b].node);
        for (this, node) in [(a, node_b), (b, node_a)] {
            if let Some((link, other)) = self.processes[this].links.get(&node).copied() {
                self.break_link(this, other, link);
            }
        }
        self.link_no += 1;
        let link = self.link_no;
        self.processes[a].links.insert(node_b, (link, b));
        self.processes[b].links.insert(node_a, (link, a));
        self.turn(a, Input::Connected { node: node_b, link });
        if self.is_up(b) {
            self.turn(b, Input::Connected { node: node_a, link });
        }
    }

    fn schedule(&mut self, at: Mono, event: Event) {
        self.event_no += 1;
        self.events.insert((at, self.event_no), event);
    }

    pub(super) fn turn(&mut self, process: usize, input: Input) {
        let now = self.at(process);
        let Some(replica) = self.processes[process].replica.as_mut() else { return };
        replica.handle(input, now).expect("memory does not fail");
        replica.commit(now).expect("memory does not fail");
        let commit = replica.last_commit();
        let mut outputs = Vec::new();
        while let Some(output) = replica.poll_output() {
            outputs.push(output);
        }
        let wake = replica.next_wake().max(self.now + Mono(100));
        if self.processes[process].wake != wake {
            self.processes[process].wake = wake;
            self.schedule(wake, Event::Wake { process });
        }
        if self.rng.random_bool(0.3) {
            let delay = Mono(self.rng.random_range(100..20_000));
            self.schedule(self.now + delay, Event::DiskSync { process, commit });
        }
        for output in outputs {
            self.carry_out(process, output);
        }
    }

    fn carry_out(&mut self, process: usize, output: Output) {
        match output {
            Output::Send { node, .. } if self.stuck.contains(&(node.0 as usize - 1)) => {
                self.held_back.push((process, output));
            }
            Output::Send { link, node, class, bytes } => {
                self.transmit(process, link, node, class, &bytes);
                let sent = Input::Sent { node, link, class, bytes: bytes.len() };
                let now = self.at(process);
                if let Some(replica) = self.processes[process].replica.as_mut() {
                    replica.handle(sent, now).expect("memory does not fail");
                }
            }
            Output::Disconnect { link, node, .. } => {
                if let Some((_, other)) = self.processes[process].links.get(&node).filter(|(known, _)| *known == link) {
                    self.break_link(process, *other, link);
                }
            }
            Output::TurnAway { link, node } => {
                if let Some((_, other)) = self.processes[process].links.get(&node).filter(|(known, _)| *known == link) {
                    let other = *other;
                    if self.is_up(other) {
                        self.turn(other, Input::TurnedAway { node: self.processes[process].node });
                    }
                    self.break_link(process, other, link);
                }
            }
            Output::Reply { ticket, reply } => self.replied(ticket, reply),
            Output::Alarm(alarm) => {
                let name = format!("{alarm:?}");
                let name = name.split([' ', '(']).next().unwrap_or_default().to_owned();
                *self.alarms.entry(name).or_default() += 1;
            }
            Output::KeepSecrets(secrets) => self.processes[process].secrets = secrets,
            Output::Changed(changes) => self.told.push((process, changes)),
            Output::RosterChanged => {}
        }
    }

    /// Streams keep their order and lose nothing while the link stands, as in QUIC. Pushed records get it rougher
    /// than any transport would treat them: nothing may depend on them.
    fn transmit(&mut self, from: usize, link: LinkId, node: NodeId, class: Class, bytes: &Bytes) {
        let Some((known, to)) = self.processes[from].links.get(&node).copied() else { return };
        if known != link {
            return;
        }
        if self.cuts.contains(&(from, to)) {
            // What is lost in a stream is lost with its link.
            self.break_link(from, to, link);
            return;
        }
        let Roughness { drop, repeat, .. } = self.roughness;
        let is_rough = class == Class::Records;
        if is_rough && self.rng.random_bool(drop) {
            return;
        }
        if self.rng.random_bool(drop / 20.0) {
            self.break_link(from, to, link);
            return;
        }
        let copies = 1 + usize::from(is_rough && self.rng.random_bool(repeat));
        for _ in 0..copies {
            let mut at = self.now + Mono(self.rng.random_range(self.latency_us.clone()));
            if !is_rough {
                let last = self.streams.entry((from, link, class)).or_default();
                at = at.max(*last + Mono(1));
                *last = at;
            }
            self.schedule(at, Event::Deliver { from, to, link, bytes: bytes.clone() });
        }
    }

    fn replied(&mut self, ticket: Ticket, reply: Reply) {
        if let (Some((process, key)), Reply::Written { dot, marker, .. }) = (self.requests.remove(&ticket), &reply) {
            self.processes[process].writes += 1;
            if self.written.insert(*dot, (key, *marker)).is_some() {
                self.reused.push(*dot);
            }
        }
        self.replies.insert(ticket, reply);
    }

    pub(super) fn request(&mut self, process: usize, request: Request) -> Ticket {
        self.ticket += 1;
        let ticket = self.ticket;
        self.turn(process, Input::Request { ticket, request });
        ticket
    }

    pub(super) fn write(&mut self, process: usize, key: Key, content: Content) -> Ticket {
        self.requests.insert(self.ticket + 1, (process, key.clone()));
        self.request(process, Request::Write { key, content })
    }

    /// Lets time pass.
    pub(super) fn run_until(&mut self, end: Mono) {
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, _), event) = entry.remove_entry();
            self.now = at.max(self.now);
            match event {
                Event::Deliver { from, to, link, bytes } => {
                    let node = self.processes[from].node;
                    if self.processes[to].links.get(&node) == Some(&(link, from)) {
                        let message = Message::decode(&bytes).expect("replicas send what can be read");
                        self.turn(to, Input::Received { node, link, message });
                    }
                }
                Event::DiskSync { process, commit } => {
                    if let Some(replica) = self.processes[process].replica.as_mut()
                        && commit <= replica.last_commit()
                    {
                        replica.store_mut().sync_up_to(commit);
                        self.turn(process, Input::Synced { commit });
                    }
                }
                Event::Wake { process } => {
                    if self.processes[process].wake <= self.now {
                        self.processes[process].wake = Mono(0);
                        self.turn(process, Input::Wake);
                    }
                }
            }
        }
        self.now = end.max(self.now);
    }

    /// Something goes wrong.
    pub(super) fn fault(&mut self) {
        let count = self.processes.len();
        let (a, b) = (self.rng.random_range(0..count), self.rng.random_range(0..count));
        match self.rng.random_range(0..100) {
            0..25 => {
                if let Some(replica) = &self.processes[a].replica {
                    self.processes[a].backup = Some(replica.store().durable_image().clone());
                }
            }
            25..45 => self.crash(a),
            45..70 => self.restart(a),
            70..80 => {
                self.cuts.insert((a, b));
                if self.rng.random_bool(0.5) {
                    self.cuts.insert((b, a));
                }
            }
            80..88 => self.cuts.clear(),
            88..92 if self.copies => {
                self.crash(a);
                if let Some(image) = self.processes[a].backup.clone() {
                    self.forgetful.insert(self.processes[a].node);
                    self.processes[a].disk = MemStore::restored(image);
                }
            }
            92..94 if self.copies && count < self.roughness.nodes + 2 => {
                if let Some(replica) = &self.processes[a].replica {
                    let image = replica.store().durable_image().clone();
                    self.clone_process(a, image);
                }
            }
            _ => self.processes[a].skew_ms = self.rng.random_range(-200..200),
        }
        self.connect_all();
    }

    /// The transport takes what had waited.
    pub(super) fn unstick(&mut self, process: usize) {
        self.stuck.remove(&process);
        for (from, output) in std::mem::take(&mut self.held_back) {
            self.carry_out(from, output);
        }
    }

    /// Another process with the same identity, over a copy of the directory.
    pub(super) fn clone_process(&mut self, process: usize, image: Image) -> usize {
        let node = self.processes[process].node;
        self.forgetful.insert(node);
        let clone = self.add(node, MemStore::restored(image));
        self.connect_all();
        clone
    }

    /// All faults end; of two processes with one identity the newer one stays.
    pub(super) fn heal(&mut self) {
        self.cuts.clear();
        self.roughness.drop = 0.0;
        for process in 0..self.processes.len() {
            self.processes[process].skew_ms = 0;
            let node = self.processes[process].node;
            let is_last = self.processes[process + 1..].iter().all(|other| other.node != node);
            match is_last {
                true => self.restart(process),
                false => self.crash(process),
            }
        }
        self.connect_all();
    }

    /// Live replicas.
    pub(super) fn replicas(&self) -> impl Iterator<Item = &Replica<MemStore>> {
        self.processes.iter().filter_map(|process| process.replica.as_ref())
    }
}
