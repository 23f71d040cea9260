//! No node finds fault with another: all of them run the same protocol.

use starling::replica::Alarm;

use super::{Checker, Scene, Verdict};

/// Needs to remember nothing.
pub(super) struct PeersBehave;

impl Checker for PeersBehave {
    fn name(&self) -> &'static str {
        "peers"
    }

    fn alarm(&mut self, _scene: &Scene, host: usize, alarm: &Alarm) -> Verdict {
        match alarm {
            Alarm::BadPeer { .. } | Alarm::MarkerConflict { .. } => Err(format!("host {host}: {alarm}")),
            _ => Ok(()),
        }
    }
}
