//! Queues, sessions and waiting lists stay within their named bounds.

use starling::replica::limits;

use super::{Checker, Scene, Verdict};

/// In large worlds, about this many hosts are looked at each time, others the next time.
const HOSTS_AT_ONCE: usize = 48;

/// The bounds that the replicas were given.
pub(super) struct Bounded {
    pub(super) bounds: limits::Bounds,
    pub(super) turn: usize,
}

impl Checker for Bounded {
    fn name(&self) -> &'static str {
        "bounds"
    }

    fn inspect(&mut self, scene: &Scene) -> Verdict {
        let (bounds, stride) = (&self.bounds, scene.hosts.len().div_ceil(HOSTS_AT_ONCE).max(1));
        self.turn += 1;
        let looked_at = scene.hosts.iter().enumerate().skip(self.turn % stride).step_by(stride);
        for (host, replica) in looked_at.filter_map(|(host, this)| Some((host, this.replica.as_ref()?))) {
            let load = replica.load();
            // One message may begin below the bound and end above it.
            let record_bytes = bounds.records_in_flight + limits::MESSAGE_LEN_MAX;
            let pairs = [
                ("keys queued for one peer", load.queued_for_one, bounds.rumor_keys),
                ("keys queued", load.queued, bounds.rumor_keys_total),
                ("sessions received", load.sessions_in, bounds.sessions_in),
                ("sessions sent", load.sessions_out, bounds.sessions_out),
                ("records waiting for blobs", load.pending, bounds.pending),
                ("requests waiting", load.waiting, bounds.waiters),
                ("intervals of one origin", load.intervals, bounds.intervals_per_origin),
                ("record bytes on their way to one peer", load.records_in_flight, record_bytes),
            ];
            let (written, may_be_written) = (load.session_writes, bounds.session_writes);
            if written > may_be_written {
                return Err(format!("host {host}: {written} bytes written under a session, {may_be_written} allowed"));
            }
            if let Some((what, is, may_be)) = pairs.iter().find(|(_, is, may_be)| is > may_be) {
                return Err(format!("host {host}: {is} {what}, {may_be} allowed"));
            }
        }
        Ok(())
    }
}
