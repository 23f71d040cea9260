//! Every metric of a node: what it is called, what it means, and what is measured as it happens.
//!
//! [`ALL`] is the whole list, and the table of `docs/OPERATIONS.md` is made from it. What other parts count for
//! themselves (the replica, the network, the store) is read when somebody asks, by [`crate::operator`]. Knows nothing
//! of HTTP.

mod histogram;
mod page;
mod workers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
pub use histogram::Histogram;
use imbl::OrdMap;
pub use page::Page;
pub use workers::{ANSWERED, EngineUsage, WorkerMetrics};

use crate::replica::NodeId;
use crate::replica::limits::ROSTER_MAX;

/// How a metric behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only rises, from zero at the start of the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts of observations in buckets, with their sum.
    Histogram,
}

/// A metric.
#[derive(PartialEq, Eq, Debug)]
pub struct Metric {
    /// Its name; the unit is the last word, or the one before `total`.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it means, for people.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*
        /// All of them, in the order in which they are shown.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD_INFO = Gauge "starling_build_info" ["version"]
        "Always 1; the version that runs.";
    NODE_INFO = Gauge "starling_node_info" ["node", "name", "pop"]
        "Always 1; who this node is.";
    READY = Gauge "starling_ready" []
        "1 if the node has joined and caught up, as /readyz tells; else 0.";
    WRITABLE = Gauge "starling_writable" []
        "1 if the node takes writes; 0 if its storage failed, its clock is fenced, or it was evicted or superseded.";
    ALARMS = Counter "starling_alarms_total" ["alarm"]
        "Alarms sounded, by kind: marker_conflict, clock_skew, clock_fine, superseded, evicted, bad_peer, \
         too_many_secrets, damaged.";

    CONVERGENCE_LAG = Histogram "starling_convergence_lag_seconds" ["origin", "name"]
        "From a write's commit at its origin to its commit here, by wall clocks, corrected by the origin's clock offset \
         where that is known. Writes made before this process started are left out.";
    WATERMARK_AGE = Gauge "starling_watermark_age_seconds" []
        "Every write of any member that is older than this is here, on disk. Grows while a member is not heard of; \
         not shown before all were.";
    CLOCK_OFFSET = Gauge "starling_clock_offset_seconds" []
        "This machine's clock minus the median of its peers'. Shown once two peers have been heard.";
    ENTRIES = Gauge "starling_entries" []
        "Entries held, tombstones included.";
    ORIGINS = Gauge "starling_origins" []
        "Origins in the version vector: lives of nodes that are not folded away yet.";
    PENDING_BLOBS = Gauge "starling_pending_blobs" []
        "Large values whose chunks have not all arrived.";
    REPLICA_EVENTS = Counter "starling_replica_events_total" ["event"]
        "What the replica counts, by name: local_writes, refused_writes, applied_records, duplicate_records, \
         marker_conflicts, lagging_peers, syncs_asked, syncs_served, syncs_completed, syncs_timed_out, bad_messages ...";

    PEER_CONNECTED = Gauge "starling_peer_connected" ["peer", "name", "pop"]
        "1 for each member that is connected, 0 for each that is not.";
    PEER_RTT = Gauge "starling_peer_rtt_seconds" ["peer", "name"]
        "Round trip to a connected peer.";
    PEER_LAG = Gauge "starling_peer_lag_seconds" ["peer", "name"]
        "For how long this node has known of writes of that peer that it has not got; 0 if there are none.";
    PEER_AGREES = Gauge "starling_peer_agrees" ["peer", "name"]
        "1 if both held the same data at the peer's last beat, 0 if not. Writes on their way make it 0 for a moment.";
    PEER_QUEUE = Gauge "starling_peer_queue_length" ["peer", "name"]
        "Keys that wait to be pushed to the peer.";

    SYNC_SESSIONS = Gauge "starling_sync_sessions" ["direction"]
        "Sync sessions under way: in (this node catches up), out (it helps a peer).";
    NET_BYTES = Counter "starling_net_bytes_total" ["class", "direction"]
        "Payload bytes exchanged with peers, by class (control, records, sync, blobs) and direction (in, out).";
    NET_FRAMES = Counter "starling_net_frames_total" ["class", "direction"]
        "Frames exchanged with peers.";
    NET_REFUSED = Counter "starling_net_handshakes_refused_total" []
        "Connections that did not get past authentication.";
    NET_MALFORMED = Counter "starling_net_malformed_frames_total" []
        "Frames or streams of peers that broke the framing.";
    NET_DIALS_FAILED = Counter "starling_net_dials_failed_total" []
        "Dials that led to no connection.";
    NET_TAIL_PROBES = Counter "starling_net_tail_probes_total" []
        "Empty datagrams sent after records, so that their loss is noticed sooner: there are none where no packets are lost.";

    REQUESTS = Counter "starling_http_requests_total" ["route", "method", "code"]
        "HTTP requests answered, by what was asked for, the method and the status.";
    REQUEST_DURATION = Histogram "starling_http_request_duration_seconds" ["route", "method"]
        "From a request's headers to the start of its answer.";
    REQUESTS_WAITING = Gauge "starling_driver_requests_waiting" []
        "Requests in the driver's mailbox, of at most 4096.";

    WORKER_REQUESTS = Counter "starling_worker_requests_total" ["script", "outcome"]
        "Requests for Workers: answered by the script or its files, or not: exception, exceeded (a limit), unloadable, \
         timeout, lost, unavailable (no engine), busy, refused (body, bookmark). 200 scripts by name, then (others).";
    WORKER_DURATION = Histogram "starling_worker_request_duration_seconds" []
        "From the headers of a request for a Worker to the start of its answer.";
    WORKER_TIMERS = Counter "starling_worker_timers_total" ["outcome"]
        "Timers whose turn it was at this node: handled, or failed (another node takes over).";
    WORKER_SCRIPTS = Gauge "starling_worker_scripts" []
        "Scripts that are deployed.";
    WORKER_PROCESSES = Gauge "starling_worker_processes" []
        "Processes that run scripts.";
    WORKER_RUNTIMES = Gauge "starling_worker_runtimes" []
        "Runtimes of scripts within the node.";
    WORKER_MEMORY = Gauge "starling_worker_memory_bytes" []
        "Memory of those processes that is in RAM, or of those runtimes.";
    WORKER_ENDED = Counter "starling_worker_ended_total" ["why"]
        "Processes or runtimes of scripts that ended before their time, to be replaced: cpu, memory, crash, killed, \
         evicted (others needed the memory).";

    FSYNC = Histogram "starling_fsync_duration_seconds" []
        "Journal writes that waited for the disk.";
    DISK = Gauge "starling_disk_bytes" []
        "What the store takes on its disk.";
    CORRUPT_ROWS = Counter "starling_corrupt_rows_total" []
        "Rows of the store that could not be read. They are asked of a peer again.";

    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" []
        "Memory of the process that is in RAM.";
    PROCESS_START = Gauge "process_start_time_seconds" []
        "When the process started, in Unix time.";
}

/// What is measured as it happens. Cheap to clone; clones measure the same node.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Measured>);

#[derive(Default)]
struct Measured {
    lags: RwLock<BTreeMap<NodeId, Histogram>>,
    requests: ArcSwap<OrdMap<Answer, Arc<Requests>>>,
    alarms: RwLock<BTreeMap<&'static str, u64>>,
    workers: WorkerMetrics,
}

/// Route, method and status.
type Answer = (&'static str, &'static str, u16);

/// How many parts there are of what all threads count.
const STRIPES: usize = 8;

/// Requests that were answered alike. Each thread counts in one part, so that no two wait for a line of their
/// processors' caches.
#[derive(Default)]
struct Requests([Stripe; STRIPES]);

#[derive(Default)]
#[repr(align(128))]
struct Stripe(Histogram);

impl Requests {
    fn observe(&self, took: Duration) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES);
        if let Some(stripe) = self.0.get(STRIPE.with(|stripe| *stripe)) {
            stripe.0.observe(took);
        }
    }
}

impl Metrics {
    /// A write of `origin` was committed here, that long after its commit there.
    pub fn write_arrived(&self, origin: NodeId, lag: Duration) {
        let lags = self.0.lags.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lags.get(&origin) {
            return known.observe(lag);
        }
        drop(lags);
        let mut lags = self.0.lags.write().unwrap_or_else(PoisonError::into_inner);
        // Members come and go; a lying one may name any number.
        if lags.len() < ROSTER_MAX {
            lags.entry(origin).or_default().observe(lag);
        }
    }

    /// A request was answered. `route` and `method` come from short lists.
    pub fn answered(&self, route: &'static str, method: &'static str, code: u16, took: Duration) {
        let answer = (route, method, code);
        if let Some(requests) = self.0.requests.load().get(&answer) {
            return requests.observe(took);
        }
        self.0.requests.rcu(|all| {
            let mut all = OrdMap::clone(all);
            all.entry(answer).or_default();
            all
        });
        if let Some(requests) = self.0.requests.load().get(&answer) {
            requests.observe(took);
        }
    }

    /// An alarm was sounded.
    pub fn alarmed(&self, kind: &'static str) {
        *self.0.alarms.write().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    /// What is measured of Workers.
    pub fn workers(&self) -> &WorkerMetrics {
        &self.0.workers
    }

    /// Writes what was measured. `name` tells what people call a node.
    pub fn show(&self, page: &mut Page, name: impl Fn(NodeId) -> String) {
        for (alarm, count) in &*self.0.alarms.read().unwrap_or_else(PoisonError::into_inner) {
            page.sample(&ALARMS, &[alarm], *count);
        }
        for (origin, lag) in &*self.0.lags.read().unwrap_or_else(PoisonError::into_inner) {
            page.histogram(&CONVERGENCE_LAG, &[&origin.to_string(), &name(*origin)], lag);
        }
        let all = self.0.requests.load();
        let mut durations: BTreeMap<_, Histogram> = BTreeMap::new();
        for ((route, method, code), requests) in all.iter() {
            let of_route = durations.entry((route, method)).or_default();
            let mut count = 0;
            for Stripe(part) in &requests.0 {
                // Once: requests are answered meanwhile.
                let part = part.clone();
                count += part.count();
                of_route.absorb(&part);
            }
            page.sample(&REQUESTS, &[route, method, &code.to_string()], count);
        }
        for ((route, method), durations) in &durations {
            page.histogram(&REQUEST_DURATION, &[route, method], durations);
        }
        self.0.workers.show(page);
    }
}

/// Measures how long something takes. Nothing but a histogram may depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    #[allow(clippy::disallowed_methods, reason = "measured, shown, and never acted upon")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests;
