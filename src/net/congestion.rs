//! How much may be on its way to a peer: Cubic, which never falls below what a fresh connection may send.
//!
//! Cubic takes every lost packet for congestion, and a window grows again only while it is filled (RFC 9002 §7.8). A node
//! that sends a few records a second never fills it: on a link that loses packets for other reasons, each loss takes
//! three tenths of the window and nothing gives them back, until two packets are left, and every record waits for the
//! acknowledgement of what went before it. Ten packets a round trip are what every new connection on the Internet begins
//! with (RFC 9002 §7.2), so a link that can't bear them is none that a flock can use.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// Packets that may always be on their way.
const FLOOR_PACKETS: u64 = 10;

/// Makes the windows of connections.
pub(super) struct FlooredCubic(Arc<CubicConfig>);

struct Floored {
    cubic: Box<dyn Controller>,
    floor: u64,
}

impl FlooredCubic {
    /// With so many bytes at first.
    pub(super) fn new(initial_window: u64) -> Self {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(initial_window);
        Self(Arc::new(cubic))
    }
}

impl ControllerFactory for FlooredCubic {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Arc::clone(&self.0).build(now, current_mtu);
        Box::new(Floored { cubic, floor: FLOOR_PACKETS * u64::from(current_mtu) })
    }
}

impl Controller for Floored {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.floor = FLOOR_PACKETS * u64::from(new_mtu);
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window().max(self.floor)
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.cubic.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { cubic: self.cubic.clone_box(), floor: self.floor })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn losses_leave_ten_packets_and_mtu_is_followed() {
        let mut now = tokio::time::Instant::now().into_std();
        let mut window = Arc::new(FlooredCubic::new(72 << 10)).build(now, 1_200);
        assert_eq!((window.window(), window.initial_window()), (72 << 10, 72 << 10));
        for losses in 1..=30 {
            now += Duration::from_secs(1);
            window.on_congestion_event(now, now - Duration::from_millis(100), losses % 5 == 0, 1_200);
        }
        assert_eq!(window.window(), 12_000);
        assert_eq!(window.metrics().congestion_window, 12_000);
        window.on_mtu_update(1_450);
        assert_eq!(window.clone_box().window(), 14_500);
    }
}
