//! What the network has done so far, as plain counters. Refuses to know how they are exported.

use std::sync::atomic::{AtomicU64, Ordering};

use super::framing::Class;

/// Counts since the node started. Read with [`AtomicU64::load`].
#[derive(Debug, Default)]
pub struct NetCounters {
    classes: [ClassTraffic; 4],
    /// Inbound connections that did not get past authentication: no or a foreign certificate, banned, a bad hello.
    pub handshakes_refused: AtomicU64,
    /// Frames or streams from a peer that broke the framing.
    pub malformed: AtomicU64,
    /// Dial attempts that did not lead to an authenticated connection.
    pub dials_failed: AtomicU64,
    /// Empty datagrams sent after records on links that lose packets.
    pub tail_probes: AtomicU64,
}

/// Frames and their payload bytes (length prefixes excluded) of one class.
#[derive(Debug, Default)]
pub struct ClassTraffic {
    /// Frames received.
    pub frames_in: AtomicU64,
    /// Payload bytes received.
    pub bytes_in: AtomicU64,
    /// Frames accepted by QUIC.
    pub frames_out: AtomicU64,
    /// Payload bytes accepted by QUIC.
    pub bytes_out: AtomicU64,
}

impl NetCounters {
    /// The traffic of one class.
    pub fn class(&self, class: Class) -> &ClassTraffic {
        let [control, records, sync, blobs] = &self.classes;
        match class {
            Class::Control => control,
            Class::Records => records,
            Class::Sync => sync,
            Class::Blobs => blobs,
        }
    }

    /// All of them, by name.
    pub fn named(&self) -> Vec<(String, u64)> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut named = vec![
            ("handshakes_refused".to_owned(), load(&self.handshakes_refused)),
            ("malformed_frames".to_owned(), load(&self.malformed)),
            ("dials_failed".to_owned(), load(&self.dials_failed)),
            ("tail_probes".to_owned(), load(&self.tail_probes)),
        ];
        for class in Class::ALL {
            let (name, traffic) = (format!("{class:?}").to_lowercase(), self.class(class));
            named.push((format!("{name}_frames_in"), load(&traffic.frames_in)));
            named.push((format!("{name}_bytes_in"), load(&traffic.bytes_in)));
            named.push((format!("{name}_frames_out"), load(&traffic.frames_out)));
            named.push((format!("{name}_bytes_out"), load(&traffic.bytes_out)));
        }
        named
    }

    pub(super) fn received(&self, class: Class, bytes: usize) {
        let traffic = self.class(class);
        traffic.frames_in.fetch_add(1, Ordering::Relaxed);
        traffic.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, class: Class, frames: usize, bytes: usize) {
        let traffic = self.class(class);
        traffic.frames_out.fetch_add(frames as u64, Ordering::Relaxed);
        traffic.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
