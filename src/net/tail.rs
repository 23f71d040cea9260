//! Tail probes: on a link that loses packets, a lost record is noticed sooner if something follows it.
//!
//! A sender learns of a lost packet from the acknowledgement of a later one. If there is none, QUIC waits for its probe
//! timeout, a round trip and more, and quinn's probes carry nothing of what was lost: another round trip passes until
//! their acknowledgement tells. So where packets are being lost, an empty datagram (RFC 9221) goes after a record that
//! nothing has followed for an eighth of a round trip. That is how long QUIC holds a gap for mere reordering
//! (RFC 9002 §6.1.2): the acknowledgement comes as soon as it is of use, and the record is sent again after 9/8 of a round
//! trip instead of two. A peer that takes no datagrams gets none.

use std::sync::Arc;
use std::time::Duration;

use quinn::ConnectionStats;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::connection::Fault;
use super::counters::count;
use super::endpoint::Shared;
use super::mesh::Link;

/// Buffer for datagrams, bytes: they carry nothing, and the latest will do.
pub(super) const BUFFER_LEN: usize = 2 * 1024;
/// Packets over which losses are counted.
const WINDOW_PACKETS: u64 = 400;
/// So many losses among them make a link one that loses packets: one in two hundred.
const LOSSES_MIN: u64 = 2;
/// Shortest and longest wait for something that follows by itself.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Told of each record that QUIC has taken.
#[derive(Default)]
pub(super) struct Tail(Notify);

impl Tail {
    /// A record is on its way.
    pub(super) fn sent(&self) {
        self.0.notify_one();
    }
}

/// Sends probes for as long as the connection stands.
pub(super) async fn probe(shared: Arc<Shared>, link: Arc<Link>) -> Result<(), Fault> {
    let mut losses = Losses::default();
    loop {
        link.tail.0.notified().await;
        if !losses.are_frequent(&link.connection.stats()) {
            continue;
        }
        let wait = (link.connection.rtt() / 8).clamp(WAIT_MIN, WAIT_MAX);
        loop {
            tokio::select! {
                () = link.tail.0.notified() => {}
                () = sleep(wait) => break,
            }
        }
        // In vain if the peer takes none, or the connection is gone: its other tasks notice.
        if link.connection.send_datagram(bytes::Bytes::new()).is_ok() {
            count(&shared.counters.tail_probes);
        }
    }
}

/// How many packets are lost of late.
#[derive(Default)]
struct Losses {
    /// At the start of this window.
    sent: u64,
    lost: u64,
    /// In the window before.
    were_frequent: bool,
}

impl Losses {
    fn are_frequent(&mut self, now: &ConnectionStats) -> bool {
        let path = &now.path;
        // They begin anew with a new path.
        let sent = path.sent_packets.saturating_sub(self.sent);
        let are_frequent = path.lost_packets.saturating_sub(self.lost) >= LOSSES_MIN;
        let answer = are_frequent || self.were_frequent;
        if sent >= WINDOW_PACKETS || path.sent_packets < self.sent {
            *self = Self { sent: path.sent_packets, lost: path.lost_packets, were_frequent: are_frequent };
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_frequent_for_as_long_as_they_are() {
        let mut losses = Losses::default();
        let mut at = |sent, lost| {
            let mut stats = ConnectionStats::default();
            (stats.path.sent_packets, stats.path.lost_packets) = (sent, lost);
            losses.are_frequent(&stats)
        };
        assert!(!at(100, 0) && !at(200, 1), "one packet is none");
        assert!(at(300, 2) && at(500, 2), "from the second on");
        assert!(at(600, 2) && at(900, 3), "through the next window");
        assert!(!at(950, 3) && !at(1_300, 4) && !at(1_400, 4), "one in a window of hundreds");
        assert!(at(1_500, 6));
        assert!(!at(10, 0), "a new path begins anew");
    }
}
