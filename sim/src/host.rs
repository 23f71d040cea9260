//! One machine: a process of a replica or none, its disk and its clock.

use std::collections::{BTreeMap, VecDeque};

use starling::replica::{
    Config, Durability, Entry, Image, Input, Key, MemStore, Mono, NodeId, Now, Output, Replica, Sabotage, SharedSecret,
    Timestamp, limits,
};

use crate::clocks::WallClock;
use crate::lies::Liar;
use crate::network::link::Line;

/// Without anyone waiting, what peers sent is made durable this often: as the driver does it.
const LAZY_SYNC_US: u64 = 50_000;

/// A disk that takes longer is broken and says so. On a slow machine with a slow disk an fsync would take minutes, long
/// after both were well again.
const FSYNC_MAX_US: u64 = 4_000_000;

/// A node that a machine was before it was evicted: what its directory held then is kept until all that it wrote is
/// issued again, or need not be.
#[derive(Clone)]
pub struct Former {
    /// Who it was.
    pub node: NodeId,
    /// What it held.
    pub store: MemStore,
    /// Nothing more is to be done.
    pub settled: bool,
    /// What this process has not settled yet; `None` before it has looked.
    pub(crate) left: Option<BTreeMap<Key, Entry>>,
}

/// One machine.
pub struct Host {
    /// Who it is.
    pub node: NodeId,
    /// Where it stands.
    pub place: usize,
    /// When its process started.
    pub started_us: u64,
    /// Rises with each start; what was meant for an earlier process is dropped.
    pub boot: u64,
    /// The process, while it runs.
    pub replica: Option<Replica<MemStore>>,
    /// What the directory holds while none runs.
    pub disk: MemStore,
    /// What the driver keeps beside the directory.
    pub(crate) secrets: Vec<SharedSecret>,
    /// Whom it was told of when it joined, and when that was.
    pub(crate) seeds: Vec<NodeId>,
    pub(crate) joined: Timestamp,
    /// Its wall clock.
    pub clock: WallClock,
    /// That clock was wrong at some time.
    pub clock_was_wrong: bool,
    /// It will never run again.
    pub gone: bool,
    /// Another machine has taken its place.
    pub replaced: bool,
    /// It has left, and others had all that it took in before.
    pub has_drained: bool,
    /// If it is evicted, its machine comes back as another node.
    pub returns: bool,
    /// Nodes that this machine was before.
    pub formers: Vec<Former>,
    /// It was told that a newer process has its identity.
    pub superseded: bool,
    /// It tells lies.
    pub(crate) liar: Option<Liar>,
    /// It stands still.
    pub paused: bool,
    /// It reads nothing from its connections.
    pub deaf: bool,
    /// Everything takes this many times longer.
    pub slowness: u64,
    /// One fsync.
    pub fsync_us: u64,
    /// Copies of the directory, for faults that put one back.
    pub backups: BTreeMap<usize, Image>,
    /// Current connection to each node.
    pub links: BTreeMap<NodeId, usize>,
    /// Who has sent records since the last turn.
    pub(crate) informer: Option<usize>,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) busy_until_us: u64,
    pub(crate) ready_scheduled: bool,
    /// Outputs of a turn whose fsync is under way, and the commit it makes durable.
    pub(crate) held: Option<(u64, Vec<Output>)>,
    /// The outputs of a turn are being carried out: the next one must wait.
    pub(crate) releasing: bool,
    pub(crate) wake_us: u64,
    syncing: bool,
    synced: u64,
    last_sync_us: u64,
    pub(crate) sync_due_scheduled_us: u64,
    pub(crate) uplink: Line,
    /// Bytes by class.
    pub sent: [u64; 4],
    /// Bytes by class.
    pub received: [u64; 4],
}

impl Host {
    /// A machine that has not been started.
    pub fn new(node: NodeId, place: usize, disk: MemStore, clock: WallClock, fsync_us: u64) -> Self {
        Self {
            node,
            place,
            started_us: 0,
            boot: 0,
            replica: None,
            disk,
            secrets: Vec::new(),
            seeds: Vec::new(),
            joined: Timestamp::default(),
            clock,
            clock_was_wrong: false,
            gone: false,
            replaced: false,
            has_drained: false,
            returns: false,
            formers: Vec::new(),
            superseded: false,
            liar: None,
            paused: false,
            deaf: false,
            slowness: 1,
            fsync_us,
            backups: BTreeMap::new(),
            links: BTreeMap::new(),
            informer: None,
            inbox: VecDeque::new(),
            busy_until_us: 0,
            ready_scheduled: false,
            held: None,
            releasing: false,
            wake_us: u64::MAX,
            syncing: false,
            synced: 0,
            last_sync_us: 0,
            sync_due_scheduled_us: 0,
            uplink: Line::default(),
            sent: [0; 4],
            received: [0; 4],
        }
    }

    /// How long an fsync takes that begins now.
    pub(crate) fn fsync_takes_us(&self) -> u64 {
        (self.fsync_us * self.slowness).min(FSYNC_MAX_US)
    }

    /// Whether a process runs here.
    pub fn is_up(&self) -> bool {
        self.replica.is_some()
    }

    /// Whether the last turn waits for its fsync: what the replica knows is not what anyone has been told.
    pub fn is_committing(&self) -> bool {
        self.held.is_some()
    }

    /// Both clocks.
    pub fn now(&self, now_us: u64) -> Now {
        Now { mono: Mono(now_us), wall_ms: self.clock.read_ms(now_us) }
    }

    /// What is committed, by the process or on the disk it left.
    pub fn image(&self) -> &Image {
        self.store().image()
    }

    /// What a loss of power would leave at least.
    pub fn durable_image(&self) -> &Image {
        self.store().durable_image()
    }

    fn store(&self) -> &MemStore {
        self.replica.as_ref().map_or(&self.disk, Replica::store)
    }

    /// A process starts.
    pub(crate) fn start(&mut self, seed: [u8; 32], bounds: limits::Bounds, sabotage: Sabotage, now_us: u64) {
        let (secrets, seeds, joined) = (self.secrets.clone(), self.seeds.clone(), self.joined);
        let config =
            Config { bounds, secrets, sabotage, seeds, joined, ..Config::new(self.node, Durability::Fsync, seed) };
        let store = std::mem::take(&mut self.disk).on_slow_disk().watched();
        self.boot += 1;
        (self.started_us, self.superseded) = (now_us, false);
        self.inbox.clear();
        (self.busy_until_us, self.ready_scheduled, self.held, self.wake_us) = (0, false, None, u64::MAX);
        (self.syncing, self.synced, self.last_sync_us) = (false, 0, now_us);
        self.links.clear();
        self.formers.iter_mut().for_each(|former| former.left = None);
        // Memory does not fail, and a directory that a replica wrote can be read by it.
        self.replica = Replica::open(config, store, self.now(now_us)).ok();
    }

    /// Time has leapt: what was to happen at some moment happens so much later.
    pub(crate) fn put_off(&mut self, by_us: u64) {
        for moment in [&mut self.wake_us, &mut self.busy_until_us, &mut self.sync_due_scheduled_us] {
            *moment = moment.saturating_add(by_us);
        }
    }

    /// The process ends without warning; of what was not synced, up to `keep` commits reach the disk.
    pub(crate) fn crash(&mut self, keep: usize) {
        if let Some(replica) = self.replica.take() {
            self.disk = replica.store().crashed(keep);
        }
        self.boot += 1;
        self.inbox.clear();
        self.held = None;
    }

    /// When the disk should be asked to make everything durable, if it should: as the driver decides it.
    pub(crate) fn sync_due_us(&self) -> Option<u64> {
        let replica = self.replica.as_ref()?;
        if self.syncing || self.held.is_some() || replica.last_commit() <= self.synced {
            return None;
        }
        Some(if replica.wants_sync_soon() { 0 } else { self.last_sync_us + LAZY_SYNC_US })
    }

    /// The disk is asked; the commit that will be durable when it answers.
    pub(crate) fn begin_sync(&mut self, now_us: u64) -> u64 {
        (self.syncing, self.last_sync_us) = (true, now_us);
        self.replica.as_ref().map_or(0, Replica::last_commit)
    }

    /// Everything up to a commit is on disk.
    pub(crate) fn synced(&mut self, commit: u64, in_background: bool) {
        if in_background {
            self.syncing = false;
        }
        self.synced = commit.max(self.synced);
        if let Some(replica) = &mut self.replica {
            replica.store_mut().sync_up_to(commit);
        }
    }
}
