//! The driver: one thread, one loop, in which everything that happens to a node becomes a turn of its replica.
//!
//! It waits for requests, for the network, for the disk and for the clock; hands in what has come; commits once; and
//! carries out what the replica wants. It decides nothing itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::clock::MachineClock;
use super::company::{Company, NAP};
use super::handle::Mailbox;
use crate::keyring::Keyring;
use crate::metrics::Metrics;
use crate::net::{self, LinkId, Net, NetEvent};
use crate::replica::{
    Alarm, Class, Durability, Input, Message, Mono, NodeId, NodeInfo, Now, Output, Replica, Reply, Request, StoreError,
    Ticket,
};
use crate::store::{FjallStore, Syncer};

/// Inputs handled before a commit, so that a turn stays short.
const TURN_INPUTS_MAX: usize = 512;
/// Events of the network that may wait for the driver. Their bytes are bounded by each link's permits.
pub const NET_EVENTS_MAX: usize = 8192;
/// Without anyone waiting, what peers sent is made durable this often.
const LAZY_SYNC_PERIOD: Mono = Mono::from_ms(50);
/// How often `--durability interval` makes writes durable.
const INTERVAL_SYNC_PERIOD: Mono = Mono::from_ms(100);

/// The members as the replica knows them, for whoever keeps connections to them.
pub type Members = BTreeMap<NodeId, NodeInfo>;

/// Nodes that must not connect, for the network to ask.
pub type Evicted = Arc<RwLock<BTreeSet<NodeId>>>;

/// The driver, before it runs.
pub struct Driver {
    replica: Replica<FjallStore>,
    durability: Durability,
    clock: MachineClock,
    net: Net,
    events: mpsc::Receiver<NetEvent>,
    mailbox: Mailbox,
    keyring: Arc<Keyring>,
    stop: oneshot::Receiver<()>,
    members: watch::Sender<Members>,
    evicted: Evicted,
    alarms: Alarms,
    metrics: Metrics,
    /// Unix milliseconds: what was written earlier could not arrive in time.
    started_ms: u64,
    waiting: BTreeMap<Ticket, oneshot::Sender<Reply>>,
    next_ticket: Ticket,
    disk: Disk,
    company: Company,
    /// Of this turn.
    writes: usize,
}

/// The last alarms, for people.
pub type Alarms = Arc<RwLock<Vec<String>>>;

/// Most alarms kept.
const ALARMS_MAX: usize = 32;

/// The thread that waits for the disk, so that the driver need not.
struct Disk {
    requests: std::sync::mpsc::SyncSender<u64>,
    done: mpsc::Receiver<Result<u64, StoreError>>,
    syncing: bool,
    synced: u64,
    last: Mono,
}

/// What the driver is given.
pub struct Parts {
    /// Opened over its store.
    pub replica: Replica<FjallStore>,
    /// As the replica's.
    pub durability: Durability,
    /// The clock that the replica was opened with.
    pub clock: MachineClock,
    /// Started with the sender of `events`.
    pub net: Net,
    /// What the network tells.
    pub events: mpsc::Receiver<NetEvent>,
    /// Where requests come in.
    pub mailbox: Mailbox,
    /// Keeps what members share in secret.
    pub keyring: Arc<Keyring>,
    /// Ends the loop, also when it is dropped.
    pub stop: oneshot::Receiver<()>,
    /// Shared with the network, which asks it about each peer.
    pub evicted: Evicted,
    /// Where alarms are kept for people.
    pub alarms: Alarms,
    /// Where it is noted how long writes take to arrive.
    pub metrics: Metrics,
}

enum Wake {
    Request((Request, oneshot::Sender<Reply>)),
    Net(NetEvent),
    Disk(Result<u64, StoreError>),
    Time,
    Stop,
}

impl Driver {
    /// A driver, and the roster that it keeps current.
    pub fn new(parts: Parts) -> std::io::Result<(Self, watch::Receiver<Members>)> {
        let Parts { replica, durability, clock, net, events, mailbox, keyring, stop, evicted, alarms, metrics } = parts;
        let (members, view) = watch::channel(Members::new());
        let disk = Disk::start(replica.store().syncer())?;
        let driver = Self {
            replica,
            durability,
            clock,
            net,
            events,
            mailbox,
            keyring,
            stop,
            members,
            evicted,
            alarms,
            metrics,
            started_ms: clock.now().wall_ms,
            waiting: BTreeMap::new(),
            next_ticket: 0,
            disk,
            company: Company::default(),
            writes: 0,
        };
        driver.publish_roster();
        Ok((driver, view))
    }

    /// Runs on a thread of its own until it is stopped, and makes everything durable before it ends.
    pub fn spawn(self) -> std::io::Result<thread::JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        thread::Builder::new().name("driver".into()).spawn(move || runtime.block_on(self.run()))
    }

    async fn run(mut self) {
        if let Err(error) = self.turns().await {
            tracing::error!(%error, "this node takes no more writes and leaves the flock; reads go on");
            self.mailbox.fail(error.0);
            self.waiting.clear();
            self.net.close().await;
            self.refuse_until_stopped().await;
        }
    }

    async fn turns(&mut self) -> Result<(), StoreError> {
        loop {
            let wake = self.wait().await;
            let now = self.clock.now();
            if matches!(wake, Wake::Stop) {
                self.replica.commit(now)?;
                self.carry_out(now)?;
                return self.replica.store().syncer().sync();
            }
            // What is received stays within its link's bound until it is committed.
            let mut permits = Vec::new();
            self.take(wake, now, &mut permits)?;
            self.take_waiting(now, &mut permits)?;
            self.wait_for_company(now, &mut permits)?;
            self.commit(now)?;
            self.carry_out(now)?;
            self.note_arrivals();
            self.tell_workers();
            self.sync_if_due(now);
        }
    }

    fn take_waiting(&mut self, now: Now, permits: &mut Vec<OwnedSemaphorePermit>) -> Result<(), StoreError> {
        for _ in 0..TURN_INPUTS_MAX {
            let request = self.mailbox.requests.try_recv().ok().map(Wake::Request);
            let event = self.events.try_recv().ok().map(Wake::Net);
            if request.is_none() && event.is_none() {
                break;
            }
            for wake in [event, request].into_iter().flatten() {
                self.take(wake, now, permits)?;
            }
        }
        Ok(())
    }

    /// Naps of microseconds, on the driver's own thread: a timer of the runtime is too coarse.
    fn wait_for_company(&mut self, now: Now, permits: &mut Vec<OwnedSemaphorePermit>) -> Result<(), StoreError> {
        if !self.replica.wants_sync() {
            return Ok(());
        }
        let (expected, patience) = (self.company.expected().min(TURN_INPUTS_MAX), self.company.patience());
        while self.writes < expected && self.clock.now().mono.since(now.mono) < patience.0 {
            thread::sleep(NAP);
            self.take_waiting(now, permits)?;
        }
        Ok(())
    }

    fn commit(&mut self, now: Now) -> Result<(), StoreError> {
        let writes = std::mem::take(&mut self.writes);
        if !self.replica.wants_sync() {
            return self.replica.commit(now);
        }
        let before = self.clock.now().mono;
        self.replica.commit(now)?;
        let took = self.clock.now().mono - before;
        self.company.note(writes, self.mailbox.requests.len(), took);
        Ok(())
    }

    async fn wait(&mut self) -> Wake {
        let mut at = self.replica.next_wake();
        if let Some(due) = self.sync_due() {
            at = at.min(due);
        }
        let sleep = tokio::time::sleep_until(self.clock.instant(at).into());
        tokio::select! {
            biased;
            _ = &mut self.stop => Wake::Stop,
            Some(done) = self.disk.done.recv() => Wake::Disk(done),
            Some(event) = self.events.recv() => Wake::Net(event),
            Some(request) = self.mailbox.requests.recv() => Wake::Request(request),
            () = sleep => Wake::Time,
        }
    }

    fn take(&mut self, wake: Wake, now: Now, permits: &mut Vec<OwnedSemaphorePermit>) -> Result<(), StoreError> {
        let input = match wake {
            Wake::Request((request, sender)) => {
                self.next_ticket += 1;
                self.writes += usize::from(matches!(request, Request::Write { .. }));
                self.waiting.insert(self.next_ticket, sender);
                Input::Request { ticket: self.next_ticket, request }
            }
            Wake::Net(NetEvent::Connected { node, link, addr, dialed }) => {
                tracing::info!(%node, %addr, dialed, "connected");
                Input::Connected { node, link: link.0 }
            }
            Wake::Net(NetEvent::Disconnected { node, link, reason }) => {
                tracing::info!(%node, reason, "disconnected");
                Input::Disconnected { node, link: link.0 }
            }
            Wake::Net(NetEvent::TurnedAway { node }) => Input::TurnedAway { node },
            Wake::Net(NetEvent::Sent { node, link, class, bytes }) => {
                Input::Sent { node, link: link.0, class: class_of(class), bytes }
            }
            Wake::Net(NetEvent::Frame { node, link, bytes, permit, .. }) => {
                permits.push(permit);
                match Message::decode(&bytes) {
                    Ok(message) => Input::Received { node, link: link.0, message },
                    Err(malformed) => {
                        tracing::warn!(%node, what = malformed.0, "a peer sent what can't be read: disconnecting it");
                        self.net.disconnect(link, malformed.0);
                        return Ok(());
                    }
                }
            }
            Wake::Disk(done) => {
                self.disk.syncing = false;
                self.disk.synced = done?;
                Input::Synced { commit: self.disk.synced }
            }
            Wake::Time | Wake::Stop => Input::Wake,
        };
        self.replica.handle(input, now)
    }

    fn carry_out(&mut self, now: Now) -> Result<(), StoreError> {
        let mut roster_changed = false;
        // Last: who hears that a write is done finds all told that it led to, feeds included.
        let mut replies = Vec::new();
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Send { link, class, bytes, node } => {
                    let len = bytes.len();
                    if self.net.send(LinkId(link), net_class(class), bytes).is_err() {
                        // The link's end will be told; until then its bytes count as gone.
                        self.replica.handle(Input::Sent { node, link, class, bytes: len }, now)?;
                    }
                }
                Output::Disconnect { link, node, reason } => {
                    tracing::info!(%node, reason, "disconnecting");
                    self.net.disconnect(LinkId(link), reason);
                }
                Output::TurnAway { link, node } => {
                    tracing::info!(%node, "turning away an evicted node");
                    self.net.turn_away(LinkId(link));
                }
                Output::Reply { ticket, reply } => replies.push((ticket, reply)),
                Output::KeepSecrets(secrets) => {
                    self.keyring.keep(secrets).map_err(|error| StoreError(error.to_string()))?;
                }
                Output::Changed(changes) => {
                    if self.mailbox.changes.send(Arc::new(changes)).is_err() {
                        self.replica.unwatch();
                    }
                }
                Output::RosterChanged => roster_changed = true,
                Output::Alarm(alarm) => self.sound(&alarm),
            }
        }
        if roster_changed {
            self.publish_roster();
        }
        for (ticket, reply) in replies {
            if let Some(sender) = self.waiting.remove(&ticket) {
                // Whoever asked may have gone away.
                let _ = sender.send(reply);
            }
        }
        Ok(())
    }

    /// Writes of others are visible from now on: how long did they take?
    fn note_arrivals(&mut self) {
        let arrivals = self.replica.take_arrivals();
        if arrivals.is_empty() {
            return;
        }
        let now_ms = self.clock.now().wall_ms;
        for arrival in arrivals.iter().filter(|arrival| arrival.stamp.ms() >= self.started_ms) {
            let there_ms = now_ms.saturating_add_signed(arrival.offset_ms.unwrap_or(0));
            let lag = Duration::from_millis(there_ms.saturating_sub(arrival.stamp.ms()));
            self.metrics.write_arrived(arrival.origin, lag);
        }
    }

    fn tell_workers(&self) {
        let generation = self.replica.store().reader().worker_generation();
        self.mailbox.worker_changes.send_if_modified(|told| std::mem::replace(told, generation) != generation);
    }

    fn publish_roster(&self) {
        let roster = self.replica.roster();
        if let Ok(mut evicted) = self.evicted.write() {
            evicted.extend(roster.evicted());
        }
        self.members.send_replace(roster.members().map(|(node, info)| (node, info.clone())).collect());
    }

    fn sound(&self, alarm: &Alarm) {
        let text = alarm.to_string();
        self.metrics.alarmed(alarm.kind());
        tracing::warn!(alarm = text, "alarm");
        if let Ok(mut alarms) = self.alarms.write() {
            alarms.retain(|known| *known != text);
            alarms.push(text);
            let excess = alarms.len().saturating_sub(ALARMS_MAX);
            alarms.drain(..excess);
        }
    }

    /// When to ask for an fsync, if there is something to make durable and none is under way.
    fn sync_due(&self) -> Option<Mono> {
        if self.disk.syncing || self.replica.last_commit() <= self.disk.synced {
            return None;
        }
        match self.durability {
            Durability::Fsync if self.replica.wants_sync_soon() => Some(Mono(0)),
            Durability::Fsync => Some(self.disk.last + LAZY_SYNC_PERIOD),
            Durability::Interval => Some(self.disk.last + INTERVAL_SYNC_PERIOD),
            Durability::Os => None,
        }
    }

    fn sync_if_due(&mut self, now: Now) {
        self.disk.synced = self.disk.synced.max(self.replica.synced_commit());
        if self.sync_due().is_some_and(|due| due <= now.mono)
            && self.disk.requests.try_send(self.replica.last_commit()).is_ok()
        {
            self.disk.syncing = true;
            self.disk.last = now.mono;
        }
    }

    /// Storage has failed: nobody is left waiting, and the network is drained, until the process ends.
    async fn refuse_until_stopped(&mut self) {
        while !self.stop.is_terminated() {
            tokio::select! {
                _ = &mut self.stop => return,
                Some(request) = self.mailbox.requests.recv() => drop(request),
                Some(event) = self.events.recv() => drop(event),
                () = tokio::time::sleep(Duration::from_secs(3600)) => {}
            }
        }
    }
}

impl Disk {
    fn start(syncer: Syncer) -> std::io::Result<Self> {
        let (requests, asked) = std::sync::mpsc::sync_channel::<u64>(1);
        let (report, done) = mpsc::channel(1);
        thread::Builder::new().name("disk".into()).spawn(move || {
            while let Ok(commit) = asked.recv() {
                if report.blocking_send(syncer.sync().map(|()| commit)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { requests, done, syncing: false, synced: 0, last: Mono(0) })
    }
}

fn net_class(class: Class) -> net::Class {
    match class {
        Class::Control => net::Class::Control,
        Class::Records => net::Class::Records,
        Class::Sync => net::Class::Sync,
        Class::Blobs => net::Class::Blobs,
    }
}

fn class_of(class: net::Class) -> Class {
    match class {
        net::Class::Control => Class::Control,
        net::Class::Records => Class::Records,
        net::Class::Sync => Class::Sync,
        net::Class::Blobs => Class::Blobs,
    }
}
