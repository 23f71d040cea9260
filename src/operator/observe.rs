//! Whether a node is ready, and its page of metrics.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Operator, OperatorError};
use crate::metrics::{self, Metrics, Page};
use crate::net::Class;
use crate::replica::Status;

/// A node that has waited this long for writes that it knows of is not ready any more, in milliseconds.
pub const READY_LAG_MS_MAX: u64 = 10_000;
/// A node that starts waits so long for peers that don't connect: others may tell of them, and bring what they wrote.
const ABSENT_PATIENCE: Duration = Duration::from_secs(10);

impl Operator {
    /// Where requests are measured.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Why users should rather be sent to another node; empty if there is no reason.
    ///
    /// A node is ready when it takes writes, is on the roster, and has caught up: at a start with every peer, but for
    /// those that nobody has told of for [`ABSENT_PATIENCE`], and with one at least if it has any; later by not lagging
    /// more than [`READY_LAG_MS_MAX`] behind one that is connected.
    /// A node that was ready and loses its peers stays ready: it serves what it has.
    pub async fn unready(&self) -> Vec<String> {
        if let Some(why) = self.0.handle.failure() {
            return vec![format!("storage failed, reads only: {why}")];
        }
        match self.replica_status().await {
            Ok(status) => self.judge(&status),
            Err(error) => vec![error.to_string()],
        }
    }

    fn judge(&self, status: &Status) -> Vec<String> {
        let mut reasons: Vec<String> = status.refusing.into_iter().map(str::to_owned).collect();
        if !self.0.members.borrow().contains_key(&self.0.node) {
            reasons.push("not on the roster yet".to_owned());
        }
        if status.unheard > 0 {
            reasons.push("joined, and has not heard of all the cluster yet".to_owned());
        }
        let has_caught_up = self.0.caught_up.load(Ordering::Relaxed);
        if !has_caught_up && !status.peers.is_empty() && status.peers.iter().all(|peer| !peer.connected) {
            reasons.push("not connected to any peer since the start".to_owned());
        }
        let uptime = self.0.handle.clock().wall().saturating_sub(self.0.started);
        let lag_ms_max = if has_caught_up { READY_LAG_MS_MAX } else { 0 };
        for peer in &status.peers {
            if !peer.connected && (has_caught_up || uptime > ABSENT_PATIENCE) {
                continue;
            }
            match peer.lag_ms {
                Some(lag_ms) if lag_ms > lag_ms_max => {
                    reasons.push(format!("catching up with {} for {lag_ms} ms", peer.name));
                }
                None if !has_caught_up => reasons.push(format!("has not heard from {} yet", peer.name)),
                _ => {}
            }
        }
        // Namespaces and tokens may be among them. Without another node there is nobody to have them from.
        let unmended = self.0.unmended.load(Ordering::Relaxed);
        if !has_caught_up && unmended > 0 && !status.peers.is_empty() {
            reasons.push(format!("{unmended} entries can't be read here and are being fetched from other nodes"));
        }
        if reasons.is_empty() {
            self.0.caught_up.store(true, Ordering::Relaxed);
        }
        reasons
    }

    /// The page that Prometheus reads.
    pub async fn metrics_page(&self) -> Result<String, OperatorError> {
        let desk = &self.0;
        let mut page = Page::default();
        page.sample(&metrics::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1);
        let pop = desk.pop.as_deref().unwrap_or_default();
        page.sample(&metrics::NODE_INFO, &[&desk.node.to_string(), &desk.name, pop], 1);
        self.show_driver(&mut page).await?;
        self.show_network(&mut page);
        desk.metrics
            .show(&mut page, |node| desk.members.borrow().get(&node).map(|info| info.name.clone()).unwrap_or_default());
        let reader = desk.handle.reader().clone();
        // Walks the directory.
        let disk_bytes = tokio::task::spawn_blocking(move || reader.disk_bytes()).await.unwrap_or_default();
        let reader = desk.handle.reader();
        page.sample(&metrics::DISK, &[], disk_bytes);
        page.sample(&metrics::CORRUPT_ROWS, &[], reader.corrupt_rows());
        page.histogram(&metrics::FSYNC, &[], reader.fsyncs());
        page.sample(&metrics::PROCESS_START, &[], desk.started.as_secs_f64());
        if let Some(bytes) = resident_bytes() {
            page.sample(&metrics::PROCESS_MEMORY, &[], bytes);
        }
        Ok(page.finish())
    }

    async fn show_driver(&self, page: &mut Page) -> Result<(), OperatorError> {
        let desk = &self.0;
        page.sample(&metrics::REQUESTS_WAITING, &[], desk.handle.waiting());
        if desk.handle.failure().is_some() {
            page.sample(&metrics::READY, &[], 0);
            page.sample(&metrics::WRITABLE, &[], 0);
            return Ok(());
        }
        let status = self.replica_status().await?;
        page.sample(&metrics::READY, &[], u8::from(self.judge(&status).is_empty()));
        page.sample(&metrics::WRITABLE, &[], u8::from(status.refusing.is_none()));
        let now_ms = desk.handle.clock().wall_ms();
        match (status.peers.is_empty(), status.watermark.ms()) {
            (true, _) => page.sample(&metrics::WATERMARK_AGE, &[], 0),
            // Some member was never heard of.
            (false, 0) => {}
            (false, ms) => page.sample(&metrics::WATERMARK_AGE, &[], now_ms.saturating_sub(ms) as f64 / 1e3),
        }
        if let Some(offset_ms) = status.clock_offset_ms {
            page.sample(&metrics::CLOCK_OFFSET, &[], offset_ms as f64 / 1e3);
        }
        page.sample(&metrics::ENTRIES, &[], status.entries);
        page.sample(&metrics::ORIGINS, &[], status.origins);
        page.sample(&metrics::PENDING_BLOBS, &[], status.pending_blobs);
        page.sample(&metrics::SYNC_SESSIONS, &["in"], status.syncs.0);
        page.sample(&metrics::SYNC_SESSIONS, &["out"], status.syncs.1);
        for (event, count) in &status.counters {
            page.sample(&metrics::REPLICA_EVENTS, &[event], *count);
        }
        for peer in &status.peers {
            let (node, name) = (peer.node.to_string(), &*peer.name);
            page.sample(&metrics::PEER_CONNECTED, &[&node, name, &peer.pop], u8::from(peer.connected));
            page.sample(&metrics::PEER_QUEUE, &[&node, name], peer.queue);
            if let Some(rtt_us) = peer.rtt_us {
                page.sample(&metrics::PEER_RTT, &[&node, name], rtt_us as f64 / 1e6);
            }
            if let Some(lag_ms) = peer.lag_ms {
                page.sample(&metrics::PEER_LAG, &[&node, name], lag_ms as f64 / 1e3);
            }
            if let Some(agree) = peer.digests_agree {
                page.sample(&metrics::PEER_AGREES, &[&node, name], u8::from(agree));
            }
        }
        Ok(())
    }

    fn show_network(&self, page: &mut Page) {
        let counters = self.0.net.counters();
        for class in Class::ALL {
            let traffic = counters.class(class);
            let name = format!("{class:?}").to_lowercase();
            for (direction, bytes, frames) in
                [("in", &traffic.bytes_in, &traffic.frames_in), ("out", &traffic.bytes_out, &traffic.frames_out)]
            {
                page.sample(&metrics::NET_BYTES, &[&name, direction], bytes.load(Ordering::Relaxed));
                page.sample(&metrics::NET_FRAMES, &[&name, direction], frames.load(Ordering::Relaxed));
            }
        }
        page.sample(&metrics::NET_REFUSED, &[], counters.handshakes_refused.load(Ordering::Relaxed));
        page.sample(&metrics::NET_MALFORMED, &[], counters.malformed.load(Ordering::Relaxed));
        page.sample(&metrics::NET_DIALS_FAILED, &[], counters.dials_failed.load(Ordering::Relaxed));
        page.sample(&metrics::NET_TAIL_PROBES, &[], counters.tail_probes.load(Ordering::Relaxed));
    }
}

/// Where Linux tells; elsewhere nothing is said.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
